/**
 * The history of restores as a file: CSV for spreadsheets, JSON lines for programs. Newest first, as it is listed; a page at a
 * time is in memory, however long it is.
 */
import type { z } from 'zod';
import type { Transaction } from '../../../storage/catalog/database.ts';
import { csvText } from '../audit/export.ts';
import type { Within } from '../users/pages.ts';
import { list } from './history.ts';
import type { ExportRestoresQuery, HistoryFormat, RestoreViewed } from './shapes.ts';

export const historyContentTypes: Record<HistoryFormat, string> = {
  csv: 'text/csv; charset=utf-8; header=present',
  jsonl: 'application/jsonl; charset=utf-8',
};

const pageRows = 500;

/** Pieces of the file, a page each. @throws Problem as list does, with the first piece */
export async function* exportRestores(
  db: Transaction,
  reader: { tenant: number; within: Within },
  { format, ...filter }: z.output<typeof ExportRestoresQuery>,
): AsyncGenerator<string> {
  if (format === 'csv') yield csvText([columns.map(([name]) => name)]);
  for (let after: string | undefined; ; ) {
    const { items, next } = await list(db, reader, { ...filter, after, limit: pageRows });
    if (format === 'csv') yield csvText(items.map(csvRow));
    else yield items.map((item) => `${JSON.stringify(item)}\n`).join('');
    if (next === null) return;
    after = next;
  }
}

const columns: readonly (readonly [name: string, of: (item: RestoreViewed) => unknown])[] = [
  ['id', ({ id }) => id],
  ['planned at', ({ createdAt }) => createdAt],
  ['kind', ({ kind }) => kind],
  ['format', ({ format }) => format],
  ['state', ({ state }) => state],
  ['why', ({ why }) => why],
  ['asked by kind', ({ askedBy }) => askedBy.kind],
  ['asked by id', ({ askedBy }) => askedBy.id],
  ['asked by name', ({ askedBy }) => askedBy.name],
  ['address', ({ address }) => address],
  ['user id', ({ user }) => user.id],
  ['user name', ({ user }) => user.name],
  ['device guid', ({ device }) => device.guid],
  ['device name', ({ device }) => device.name],
  ['permission', ({ permission }) => permission],
  ['reason', ({ reason }) => reason],
  ['seq', ({ seq }) => seq],
  ['as of', ({ at }) => at],
  ['deleted too', ({ deleted }) => deleted],
  ['paths', ({ paths }) => paths],
  ['planned files', ({ planned }) => planned.files],
  ['planned bytes', ({ planned }) => planned.bytes],
  ['tries', ({ tries }) => tries],
  ['done files', ({ done }) => done.files],
  ['done bytes', ({ done }) => done.bytes],
  ['sent bytes', ({ done }) => done.sentBytes],
  ['left out', ({ done }) => done.leftOut],
  ['begun at', ({ begunAt }) => begunAt],
  ['ended at', ({ endedAt }) => endedAt],
];

function csvRow(item: RestoreViewed): string[] {
  return columns.map(([, of]) => {
    const cell = of(item);
    return cell == null ? '' : String(cell);
  });
}
