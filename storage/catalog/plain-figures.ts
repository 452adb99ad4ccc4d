/**
 * What plain archives hold, by folder: files and bytes that are there, and those that are hidden. Written by whoever adds,
 * hides, shows or deletes files, in that transaction, which holds the archive's row; so a figure is exact, and nobody else
 * waits for it. Lock order: the archive, these rows, then what refs.ts locks; or these last, which comes to the same, since
 * only who holds the archive touches them.
 */
import type { ArchiveRef } from '../storage.ts';
import { type Database, statement, type Transaction } from './database.ts';
import { vaultsWith } from './deleting/vaults-with.ts';
import { packArray } from './writing/packing.ts';

/** Days of deletes that are kept. */
const deleteDaysKept = 400;

const isForgotten = `day < (now() AT TIME ZONE 'UTC')::date - ${deleteDaysKept}`;

const sql = {
  add: statement(
    'plainFigures.add',
    `INSERT INTO plain_figures AS f (vault_id, archive_id, folder, files, bytes, hidden_files, hidden_bytes, last_added_at)
     SELECT $1, $2, x.folder, x.files, x.bytes, x.hidden_files, x.hidden_bytes, CASE WHEN x.sent > 0 THEN now() END
       FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[]) AS x (folder, files, bytes, hidden_files, hidden_bytes, sent)
     ON CONFLICT (vault_id, archive_id, folder) DO UPDATE SET
       files = f.files + excluded.files, bytes = f.bytes + excluded.bytes,
       hidden_files = f.hidden_files + excluded.hidden_files, hidden_bytes = f.hidden_bytes + excluded.hidden_bytes,
       last_added_at = coalesce(excluded.last_added_at, f.last_added_at)`,
  ),

  noteGone: statement(
    'plainFigures.noteGone',
    `UPDATE plain_figures f SET gone_before = greatest(f.gone_before, to_timestamp(x.ms / 1000))
       FROM unnest($3::text[], $4::float8[]) AS x (folder, ms)
      WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.folder = x.folder`,
  ),

  addDeletes: statement(
    'plainDeletes.add',
    `INSERT INTO plain_deletes AS d (vault_id, archive_id, day, files, bytes)
     VALUES ($1, $2, (now() AT TIME ZONE 'UTC')::date, $3, $4)
     ON CONFLICT (vault_id, archive_id, day) DO UPDATE SET files = d.files + excluded.files, bytes = d.bytes + excluded.bytes`,
  ),

  trimDeletes: statement(
    'plainDeletes.trim',
    `DELETE FROM plain_deletes WHERE vault_id = $1 AND ${isForgotten} RETURNING 1`,
  ),
  vaultsToTrim: vaultsWith('plain_deletes', 'plainDeletes.vaults', `t.${isForgotten}`),

  read: statement(
    'plainFigures.read',
    `SELECT f.vault_id AS vault, f.archive_id AS archive, f.folder, f.files, f.bytes, f.hidden_files AS "hiddenFiles",
            f.hidden_bytes AS "hiddenBytes", f.last_added_at AS "lastAddedAt", f.gone_before AS "goneBefore"
       FROM unnest($1::bigint[], $2::bigint[]) AS x (vault_id, archive_id)
      CROSS JOIN LATERAL (
        SELECT * FROM plain_figures f WHERE f.vault_id = x.vault_id AND f.archive_id = x.archive_id ORDER BY f.folder OFFSET 0) f`,
  ),

  readDeletes: statement(
    'plainDeletes.read',
    `SELECT to_char(day, 'YYYY-MM-DD') AS day, files, bytes FROM plain_deletes
      WHERE vault_id = $1 AND archive_id = $2 ORDER BY day DESC LIMIT $3`,
  ),

  allHidden: statement(
    'plainFigures.allHidden',
    `SELECT coalesce(sum(hidden_files), 0)::bigint AS files, coalesce(sum(hidden_bytes), 0)::bigint AS bytes FROM plain_figures`,
  ),

  deleteFigures: statement('plainFigures.delete', 'DELETE FROM plain_figures WHERE vault_id = $1 AND archive_id = $2'),
  deleteDeletes: statement('plainDeletes.delete', 'DELETE FROM plain_deletes WHERE vault_id = $1 AND archive_id = $2'),
};

/** What a folder holds. */
export interface PlainFigures {
  files: number;
  bytes: number;
  hiddenFiles: number;
  /** Of each hidden file the size of the newest version that it has. */
  hiddenBytes: number;
}

/** A file as far as figures go, by what its latest version is and the newest that is no record of a deletion; null: there is none. */
export interface FileFigure {
  hidden: boolean;
  size: number;
}

export interface FigureChange {
  /** '' at the top. */
  folder: string;
  before: FileFigure | null;
  after: FileFigure | null;
  /** Its content came just now, and was not only shown again. */
  sent: boolean;
}

type Sums = PlainFigures & { /** Files. */ sent: number };

/** The folder a path is counted under: the first of its names, '' for what lies at the top. */
export function folderOf(names: readonly Buffer[]): string {
  return names.length > 1 ? names[0]!.toString('latin1') : '';
}

function countInto(sums: Sums, state: FileFigure | null, sign: 1 | -1): void {
  if (!state) return;
  sums[state.hidden ? 'hiddenFiles' : 'files'] += sign;
  sums[state.hidden ? 'hiddenBytes' : 'bytes'] += sign * state.size;
}

/** What changes make of the figures, by folder. Pure. */
function figuresOf(changes: readonly FigureChange[]): Map<string, Sums> {
  const byFolder = new Map<string, Sums>();
  for (const { folder, before, after, sent } of changes) {
    const sums = byFolder.get(folder) ?? { files: 0, bytes: 0, hiddenFiles: 0, hiddenBytes: 0, sent: 0 };
    byFolder.set(folder, sums);
    countInto(sums, before, -1);
    countInto(sums, after, 1);
    sums.sent += Number(sent);
  }
  return byFolder;
}

/** Adds to the figures of an archive, by folder. `sent`: files whose content came just now. */
export async function addFigures(
  tx: Transaction,
  ref: ArchiveRef,
  byFolder: ReadonlyMap<string, PlainFigures & { sent?: number }>,
): Promise<void> {
  const folders = [...byFolder].filter(([, sums]) => Object.values(sums).some((sum) => sum !== 0));
  if (folders.length === 0) return;
  const each = (pick: (sums: PlainFigures & { sent?: number }) => number): string =>
    packArray(folders.map(([, sums]) => pick(sums)));
  await tx.query(sql.add, [
    ref.vault,
    ref.archive,
    folders.map(([folder]) => folder),
    each((sums) => sums.files),
    each((sums) => sums.bytes),
    each((sums) => sums.hiddenFiles),
    each((sums) => sums.hiddenBytes),
    each((sums) => sums.sent ?? 0),
  ]);
}

/** Notes until when content was there that is deleted for good, by folder. In the same transaction as countFigures, after it. */
export async function noteGone(tx: Transaction, ref: ArchiveRef, lastThere: ReadonlyMap<string, Date>): Promise<void> {
  if (lastThere.size === 0) return;
  const ends = packArray([...lastThere.values()].map((at) => at.getTime()));
  await tx.query(sql.noteGone, [ref.vault, ref.archive, [...lastThere.keys()], ends]);
}

/** Counts changes of files, in the transaction that makes them, which holds the archive's row. */
export async function countFigures(tx: Transaction, ref: ArchiveRef, changes: readonly FigureChange[]): Promise<void> {
  await addFigures(tx, ref, figuresOf(changes));
  const hidden = changes.filter(({ before, after }) => after?.hidden && before && !before.hidden);
  if (hidden.length === 0) return;
  const bytes = hidden.reduce((sum, { after }) => sum + after!.size, 0);
  await tx.query(sql.addDeletes, [ref.vault, ref.archive, hidden.length, bytes]);
}

export interface FolderFigures extends PlainFigures {
  folder: string;
  lastAddedAt: Date | null;
  /** Retention has taken content that was there before this moment, and none that was there since; null: none at all. */
  goneBefore: Date | null;
}

/** Of archives, by `vault/archive`; one without files has none. */
export async function readPlainFigures(
  db: Transaction,
  refs: readonly ArchiveRef[],
): Promise<Map<string, FolderFigures[]>> {
  const found = new Map<string, FolderFigures[]>();
  if (refs.length === 0) return found;
  const rows = await db.query<ArchiveRef & FolderFigures>(sql.read, [
    packArray(refs.map(({ vault }) => vault)),
    packArray(refs.map(({ archive }) => archive)),
  ]);
  for (const { vault, archive, ...figures } of rows) {
    const key = `${vault}/${archive}`;
    found.set(key, [...(found.get(key) ?? []), figures]);
  }
  return found;
}

/** When a snapshot last came; null when there is none now: whoever deleted them all has no backup. */
export function lastSnapshotAt(figures: readonly FolderFigures[]): Date | null {
  const snapshots = figures.find(({ folder }) => folder === 'snapshots');
  return snapshots && snapshots.files > 0 ? snapshots.lastAddedAt : null;
}

interface DeletesOfDay {
  /** YYYY-MM-DD, in UTC. */
  day: string;
  files: number;
  bytes: number;
}

/** What was hidden on the latest days on which something was, the newest first. */
export function readDeletesByDay(db: Transaction, ref: ArchiveRef, daysMax: number): Promise<DeletesOfDay[]> {
  return db.query<DeletesOfDay>(sql.readDeletes, [ref.vault, ref.archive, daysMax]);
}

/** What is hidden in all vaults together, for the metrics: a few rows for each repository. */
export async function readAllHidden(db: Transaction): Promise<{ files: number; bytes: number }> {
  const [row] = await db.query<{ files: number; bytes: number }>(sql.allHidden);
  return row!;
}

/** Forgets days that nobody asks for any more. @returns how many */
export async function trimDeletes(db: Database): Promise<number> {
  let days = 0;
  for (const vault of await sql.vaultsToTrim(db, [])) days += (await db.query(sql.trimDeletes, [vault])).length;
  return days;
}

/** Takes the figures of an archive away that is locked and has no file. */
export async function deletePlainFigures(tx: Transaction, ref: ArchiveRef): Promise<void> {
  await tx.query(sql.deleteFigures, [ref.vault, ref.archive]);
  await tx.query(sql.deleteDeletes, [ref.vault, ref.archive]);
}
