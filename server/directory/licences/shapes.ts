/** What the licence report says, as JSON. Days are those of UTC, as `2026-11-22`. */
import { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { PageQuery } from '../users/pages.ts';

const day = z.iso.date();
const number = z
  .int()
  .min(1)
  .meta({ description: "1 for a user's first four devices, 2 for the next four, and so on." });

export const UserLicences = z.strictObject({
  user: z.int(),
  userName: z.string(),
  organization: z.int(),
  organizationName: z.string(),
  devices: z.int().min(0).meta({ description: 'Devices that have backed up and are not deactivated.' }),
  licences: z.array(
    z.strictObject({
      number,
      takenOn: day,
      renewsOn: day,
      needed: z.boolean().meta({ description: 'False: it ends on that day instead, if nothing changes.' }),
    }),
  ),
});
export type UserLicences = z.infer<typeof UserLicences>;

export const LicencesQuery = z.strictObject(PageQuery);
export const LicencesAnswer = z.strictObject({ items: z.array(UserLicences), next: z.string().nullable() });

export const StatementQuery = z.strictObject({
  month: z
    .string()
    .regex(/^\d{4}-(0[1-9]|1[0-2])$/)
    .meta({ description: 'As `2026-11`; from 2000 on, and at most ten years ahead.' }),
});

export const StatementLine = z.strictObject({
  organization: z.int(),
  organizationName: z.string(),
  user: z.int(),
  userName: z.string(),
  number,
  takenOn: day,
  renewsOn: day,
  renews: z.boolean().meta({ description: 'False: it ends, for it is not needed any more.' }),
  settled: z.boolean().meta({ description: 'False: the day is to come, and things may change until then.' }),
});
export type StatementLine = z.infer<typeof StatementLine>;

export const LicenceStatement = z.strictObject({
  organization: z.strictObject({ id: z.int(), name: z.string() }),
  month: z.string(),
  madeAt: z.iso.datetime(),
  totals: z.strictObject({ renewing: z.int().min(0), ending: z.int().min(0) }),
  lines: z.array(StatementLine).meta({ description: 'Of the organization and all below it, in order of the day.' }),
});
export type LicenceStatement = z.infer<typeof LicenceStatement>;

const yearsAheadMax = 10;

/** @returns from the month's beginning to that of the next. @throws Problem out_of_bounds, field `month` */
export function readMonth(month: string, now: Date): { from: Date; to: Date } {
  const [year, inYear] = month.split('-').map(Number) as [number, number];
  if (!StatementQuery.shape.month.safeParse(month).success || year < 2000)
    throw new Problem('out_of_bounds', 'a month is written as 2026-11, from 2000-01 on', { field: 'month' });
  const from = new Date(Date.UTC(year, inYear - 1, 1));
  const last = new Date(Date.UTC(now.getUTCFullYear() + yearsAheadMax, now.getUTCMonth(), 1));
  if (from > last)
    throw new Problem('out_of_bounds', `a month is at most ${yearsAheadMax} years ahead`, { field: 'month' });
  return { from, to: new Date(Date.UTC(year, inYear, 1)) };
}
