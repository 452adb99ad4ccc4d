/** What is stored, and how well: usage, how much was verified, damage. */
import { z } from 'zod';
import { may } from '../../../directory/roles/may.ts';
import { CoverageLine, DamageView, UsageLine } from '../../../reports/answers.ts';
import { archiveDamage } from '../../../reports/damage.ts';
import { usageLines } from '../../../reports/usage.ts';
import { verifyLines } from '../../../reports/verify.ts';
import { deviceInPath, deviceParams } from '../finders.ts';
import { type ApiRoute, lines, read } from '../route.ts';

const tag = 'Reports';

export const reportRoutes: readonly ApiRoute[] = [
  lines({
    method: 'GET',
    path: '/v1/usage',
    tag,
    summary: 'Report what users and organizations hold',
    says: 'A line for each user whose devices you may see, one for each organization with all below it, and the sum as the last.',
    may: { permission: 'org.read', of: 'listing' },
    answer: UsageLine,
    lines({ deps, caller, within }) {
      const actor = caller.actor!;
      const of = { tenantId: actor.tenant, within };
      return usageLines(deps.storage, of, ({ userId, path }) => {
        const target = { tenant: actor.tenant, organizationPath: path, user: userId };
        return may(actor, 'user.read', target).allowed && may(actor, 'computer.read', target).allowed;
      });
    },
  }),
  lines({
    method: 'GET',
    path: '/v1/verify',
    tag,
    summary: 'Report how much of what is stored was read back and found right',
    says: "A line for each user's devices together, and the sum as the last.",
    may: { permission: 'computer.read', of: 'listing' },
    answer: CoverageLine,
    lines: ({ deps, caller, within }) => verifyLines(deps.storage.database, { tenantId: caller.tenant!, within }),
  }),
  read({
    path: '/v1/devices/:guid/damage',
    tag,
    summary: 'List the damaged files of a device',
    says: 'And which moments of each can be restored.',
    may: { permission: 'computer.read', target: deviceInPath },
    params: deviceParams,
    query: z.strictObject({
      after: z.coerce
        .number()
        .int()
        .min(0)
        .max(Number.MAX_SAFE_INTEGER)
        .default(0)
        .meta({ description: 'The `next` of the page before' }),
      // Each file has up to a thousand moments.
      limit: z.coerce.number().int().min(1).max(100).default(20),
    }),
    answer: DamageView,
    read: ({ deps, target, query }) => archiveDamage(deps.storage, target, query),
  }),
];
