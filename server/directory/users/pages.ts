/** Lists in pages by id: where the next one begins is a cursor, opaque to whoever gets it. */
import { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';

export const pageItemsMax = 1_000;

/** How far the reader reaches, as `reachOf` says: everything, an organization and all below it, or one user. */
export type Within = { all: true } | { path: number } | { user: number };

/** For a statement: the organization and the user it is limited to, each null for no limit. */
export function withinValues(within: Within): [path: number | null, user: number | null] {
  if ('path' in within) return [within.path, null];
  if ('user' in within) return [null, within.user];
  return [null, null];
}

export const PageQuery = {
  after: z.string().min(1).max(200).optional().meta({ description: 'The `next` of the page before.' }),
  limit: z.coerce.number().int().min(1).max(pageItemsMax).default(100),
};

const Cursor = z.strictObject({ after: z.int().min(0) });

/** @throws Problem out_of_bounds, field `after` */
export function readCursor(cursor: string | undefined): number {
  if (cursor === undefined) return 0;
  try {
    return Cursor.parse(JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'))).after;
  } catch {
    throw new Problem('out_of_bounds', '`after` is the `next` of a page, as it was given', { field: 'after' });
  }
}

export function writeCursor(after: number): string {
  return Buffer.from(JSON.stringify({ after })).toString('base64url');
}

/** A page of rows that were asked for with one more than the page holds. */
export function pageOf<Row, Item>(
  rows: readonly Row[],
  limit: number,
  shape: { id: (row: Row) => number; item: (row: Row) => Item },
): { items: Item[]; next: string | null } {
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return { items: page.map(shape.item), next: rows.length > limit && last ? writeCursor(shape.id(last)) : null };
}
