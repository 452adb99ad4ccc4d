/** The history of restores as a file, and what it comes to. */
import { z } from 'zod';
import { exportRestores, historyContentTypes } from '../../../directory/restores/history-export.ts';
import { totalsOfRestores } from '../../../directory/restores/history-totals.ts';
import { ExportRestoresQuery, RestoreTotals, RestoreTotalsQuery } from '../../../directory/restores/shapes.ts';
import { type ApiRoute, lines, read } from '../route.ts';

const tag = 'Restores';
const may = { permission: 'restore.limited', or: 'restore.personal', of: 'listing' } as const;

/** Before those of one restore: their paths would take these words for a number. */
export const restoreHistoryRoutes: readonly ApiRoute[] = [
  lines({
    method: 'GET',
    path: '/v1/restores/export',
    tag,
    summary: 'Export the history of restores',
    says: 'As CSV or as JSON lines; newest first, with the filters of the list.',
    may,
    query: ExportRestoresQuery,
    answer: z.string(),
    type: ({ format }) => historyContentTypes[format],
    lines: ({ deps, caller, within, query }) =>
      exportRestores(deps.directory.database, { tenant: caller.tenant!, within }, query),
  }),
  read({
    path: '/v1/restores/totals',
    tag,
    summary: 'Show who restored how much of whose archives',
    says: 'Of the restores planned in the period that were begun: what they came to, of each its last try.',
    may,
    query: RestoreTotalsQuery,
    answer: RestoreTotals,
    read: ({ deps, caller, within, query }) =>
      totalsOfRestores(
        deps.directory.database,
        { tenant: caller.tenant!, within },
        query as z.output<typeof RestoreTotalsQuery>,
      ),
  }),
];
