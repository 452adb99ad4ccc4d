/** The audit log: looked into, and taken out. */
import { z } from 'zod';
import { exportActs, exportContentTypes, exportFormats } from '../../../directory/audit/export.ts';
import { type ActFilter, searchActs } from '../../../directory/audit/search.ts';
import { Moment } from '../../../directory/moments.ts';
import { wantedText } from '../../../directory/users/shapes.ts';
import { idText } from '../finders.ts';
import { type ApiRoute, lines, read } from '../route.ts';

const tag = 'Audit log';

const filter = {
  from: Moment.optional().meta({ description: 'From this moment on' }),
  to: Moment.optional().meta({ description: 'Before this moment' }),
  action: wantedText(64).optional().meta({ description: 'How it begins: `user.` is all about users' }),
  partyKind: z.enum(['user', 'client', 'device', 'operator', 'server']).optional(),
  partyId: wantedText(64).optional().meta({ description: 'Who did it; goes with partyKind' }),
  targetKind: wantedText(32).optional(),
  targetId: wantedText(64).optional().meta({ description: 'What it was done to; goes with targetKind' }),
  organization: idText.optional().meta({ description: 'In this organization or below it' }),
  result: z.enum(['done', 'refused', 'failed']).optional(),
  address: wantedText(64).optional(),
  text: wantedText(255).optional().meta({ description: 'In the name of who did it, or of what it was done to' }),
};

const Act = z.looseObject({ number: z.int(), at: z.string(), action: z.string(), result: z.string() });

export const auditRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/audit',
    tag,
    summary: 'Search the audit log, newest first',
    may: { permission: 'auditlog.read', of: 'listing' },
    query: z.strictObject({
      ...filter,
      after: wantedText(1_024).optional().meta({ description: 'The `next` of the page before' }),
      limit: z.coerce.number().int().min(1).max(1_000).default(100),
    }),
    answer: z.strictObject({ items: z.array(Act), next: z.string().nullable() }),
    read: ({ deps, caller, within, query: { after, limit, ...asked } }) =>
      searchActs(deps.directory.database, caller.tenant, asked as ActFilter, {
        reach: within,
        cursor: after ?? null,
        limit,
      }),
  }),
  lines({
    method: 'GET',
    path: '/v1/audit/export',
    tag,
    summary: 'Export the audit log',
    says: 'As CSV, as JSON lines, or as CEF for a SIEM.',
    may: { permission: 'auditlog.read', of: 'listing' },
    query: z.strictObject({ ...filter, format: z.enum(exportFormats).default('csv') }),
    answer: z.string(),
    type: ({ format }) => exportContentTypes[format],
    lines: ({ deps, caller, within, query: { format, ...asked } }) =>
      exportActs(deps.directory.database, {
        tenant: caller.tenant,
        filter: asked as ActFilter,
        reach: within,
        format,
        version: '1',
      }),
  }),
];
