/**
 * Statements of a search. A search goes over an archive's files in the order of their numbers, a bounded range of them in
 * each statement, and the database leaves out the names of which bytes alone say that they do not match: what is sent
 * is little, and what is asked of versions less.
 */
import type { ArchiveRef } from '../../storage.ts';
import { type Database, statement } from '../database.ts';
import { packArray } from '../writing/packing.ts';

// The quickest question first: of a million names LIKE takes 50 ms, and the other, which knows no case, 500.
const mayMatch = (first: number): string => `f.created_seq <= $${first}
                AND octet_length(f.name) >= $${first + 1}
                AND ($${first + 2}::bytea IS NULL OR f.name LIKE $${first + 2})
                AND ($${first + 3}::text IS NULL OR strpos(lower(encode(f.name, 'escape') COLLATE "C"), $${first + 3}) > 0)`;

/** Files that a statement looks at, by their numbers. */
export const rangeFilesMax = 50_000;
/** More than twice as many. */
const rangeUnit = 2 ** 17;

// One value for all of them: a row each costs several times what the search itself does, and each thing that is joined to it
// costs, too. So a file is 8 bytes (its folder, how far its number is from $n, and whether it is a folder itself) and its name,
// which holds no NUL. No number of a file comes near 2^46; one that did would be an error, and no other file.
const packed = (from: number): string =>
  `string_agg(int8send(c.parent_id * ${rangeUnit} + (c.file_id - $${from}) * 2 + c.folder::int) || c.name, '\\x00'::bytea)`;

const sql = {
  archive: statement(
    'archives.toBrowse',
    `SELECT next_file_id - 1 AS "lastFileId", next_seq - 1 AS "newestSeq", pruned_at AS "prunedAt"
       FROM archives WHERE vault_id = $1 AND archive_id = $2`,
  ),

  inRange: statement(
    'files.searchRange',
    `SELECT octet_length(a.packed) AS length, CASE WHEN octet_length(a.packed) <= $5 THEN a.packed END AS packed
       FROM (SELECT ${packed(3)} AS packed
               FROM (SELECT f.file_id, f.parent_id, f.folder, f.name FROM files f
                      WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.file_id > $3 AND f.file_id <= $4
                        AND ${mayMatch(6)}
                      ORDER BY f.file_id) c) a`,
  ),

  among: statement(
    'files.searchAmong',
    `SELECT f.file_id AS "fileId", f.parent_id AS "parentId", f.folder AS "isFolder", f.name
       FROM unnest($3::bigint[]) WITH ORDINALITY AS x (file_id, ordinal)
      CROSS JOIN LATERAL (
        SELECT f.file_id, f.parent_id, f.folder, f.name FROM files f
         WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.file_id = x.file_id
                AND ${mayMatch(4)} OFFSET 0) f
      ORDER BY x.ordinal`,
  ),

  children: statement(
    'files.childrenOf',
    `SELECT f.file_id AS "fileId", f.folder AS "isFolder"
       FROM unnest($3::bigint[]) AS x (file_id)
      CROSS JOIN LATERAL (
        SELECT f.file_id, f.folder FROM files f
         WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.parent_id = x.file_id LIMIT $4) f
      LIMIT $4`,
  ),

  // What was deleted is shown as it last was; of that only the record of its deletion may be left.
  shown: statement(
    'versions.shown',
    `SELECT x.ordinal::int - 1 AS i, s.kind, s.size, s.mtime, s.seq, s.committed_at AS "committedAt",
            x.folder AS "hasEntries", CASE WHEN v.deleted THEN v.committed_at END AS "deletedAt"
       FROM unnest($3::bigint[], $11::boolean[]) WITH ORDINALITY AS x (file_id, folder, ordinal)
       LEFT JOIN LATERAL (
        SELECT v.seq, v.committed_at, v.kind, v.deleted, v.size, v.mtime FROM versions v
         WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = x.file_id AND v.seq <= $4
         ORDER BY v.seq DESC LIMIT 1) v ON true
       LEFT JOIN LATERAL (
        SELECT b.seq, b.committed_at, b.kind, b.size, b.mtime FROM versions b
         WHERE v.deleted AND $5::boolean AND b.vault_id = $1 AND b.archive_id = $2 AND b.file_id = x.file_id AND b.seq <= $4
           AND NOT b.deleted
         ORDER BY b.seq DESC LIMIT 1) living ON true
      CROSS JOIN LATERAL (
        SELECT coalesce(living.kind, v.kind, 'directory') AS kind, coalesce(living.size, v.size, 0) AS size,
               coalesce(living.mtime, v.mtime) AS mtime, coalesce(living.seq, v.seq) AS seq,
               coalesce(living.committed_at, v.committed_at) AS committed_at OFFSET 0) s
      WHERE CASE WHEN v.seq IS NULL THEN x.folder ELSE NOT v.deleted OR $5::boolean END
        AND ($6::text IS NULL OR s.kind = $6)
        AND ($7::bigint IS NULL OR (s.kind = 'file' AND s.size >= $7))
        AND ($8::bigint IS NULL OR (s.kind = 'file' AND s.size <= $8))
        AND ($9::bigint IS NULL OR s.mtime >= $9)
        AND ($10::bigint IS NULL OR s.mtime < $10)
      ORDER BY x.ordinal`,
  ),
};

export interface ArchiveToBrowse {
  /** No file has a higher number. */
  lastFileId: number;
  newestSeq: number;
  /** When versions were last deleted from it; null: never yet. */
  prunedAt: Date | null;
}

export async function findArchiveToBrowse(db: Database, ref: ArchiveRef): Promise<ArchiveToBrowse | null> {
  const [row] = await db.query<ArchiveToBrowse>(sql.archive, [ref.vault, ref.archive]);
  return row ?? null;
}

/** By what names are left out here; see Prefilter in archive/reading/search-pattern.ts. */
export interface NameBytes {
  bytesMin: number;
  like: Buffer | null;
  holds: string | null;
}

export interface Candidate {
  fileId: number;
  parentId: number;
  /** Something lies in it, or did at some time. */
  isFolder: boolean;
  name: Buffer;
}

/** Candidates as they come: looked at where they lie, and made objects of where they are wanted. */
export class Candidates implements Iterable<Candidate> {
  readonly #packed: Buffer;
  readonly #after: number;

  /**
   * @param packed as the statement makes it; null: none
   * @param after what their numbers are counted from
   */
  constructor(packed: Buffer | null, after: number) {
    this.#packed = packed ?? Buffer.alloc(0);
    this.#after = after;
  }

  first(): CandidateAt {
    return new CandidateAt(this.#packed, this.#after);
  }

  *[Symbol.iterator](): Iterator<Candidate> {
    for (const at = this.first(); at.isThere; at.next()) yield at.candidate();
  }
}

const headBytes = 8;

/** One of them, and then the next. */
export class CandidateAt {
  readonly bytes: Buffer;
  nameStart = headBytes;
  nameEnd = 0;
  readonly #after: number;

  constructor(packed: Buffer, after: number) {
    this.bytes = packed;
    this.#after = after;
    this.#measure();
  }

  get isThere(): boolean {
    return this.nameStart < this.bytes.byteLength;
  }

  next(): void {
    this.nameStart = this.nameEnd + 1 + headBytes;
    this.#measure();
  }

  get fileId(): number {
    return this.#after + ((this.#low % rangeUnit) >>> 1);
  }

  get parentId(): number {
    const high = this.bytes.readUInt32BE(this.nameStart - 8);
    return high * (2 ** 32 / rangeUnit) + Math.floor(this.#low / rangeUnit);
  }

  /** A view of all that came with it. */
  get name(): Buffer {
    return this.bytes.subarray(this.nameStart, this.nameEnd);
  }

  candidate(): Candidate {
    const { fileId, parentId, name } = this;
    return { fileId, parentId, isFolder: this.#low % 2 === 1, name };
  }

  get #low(): number {
    return this.bytes.readUInt32BE(this.nameStart - 4);
  }

  #measure(): void {
    if (!this.isThere) return;
    const end = this.bytes.indexOf(0, this.nameStart);
    this.nameEnd = end < 0 ? this.bytes.byteLength : end;
  }
}

/** Bytes of candidates that one statement gives: of `fewFiles` files all, however long their names are. */
export const packedBytesMax = 4 * 1024 * 1024;
export const fewFiles = 2_000;

/**
 * Files with numbers above `after` and up to `upTo` whose names may match and that were there at the seq, in the order of
 * their numbers.
 * @param range of at most rangeFilesMax numbers
 * @returns null: they are more than one statement gives, so a smaller range is to be asked for
 */
export async function candidatesInRange(
  db: Database,
  ref: ArchiveRef,
  { after, upTo }: { after: number; upTo: number },
  { seq, names }: { seq: number; names: NameBytes },
): Promise<Candidates | null> {
  const of = [seq, names.bytesMin, names.like, names.holds];
  const values = [ref.vault, ref.archive, after, upTo, packedBytesMax, ...of];
  const [row] = await db.query<{ length: number | null; packed: Buffer | null }>(sql.inRange, values);
  const { length, packed } = row!;
  return length !== null && packed === null ? null : new Candidates(packed, after);
}

/** The same of the files with these numbers, in the order given. */
export function candidatesAmong(
  db: Database,
  ref: ArchiveRef,
  fileIds: readonly number[],
  { seq, names }: { seq: number; names: NameBytes },
): Promise<Candidate[]> {
  const values = [ref.vault, ref.archive, packArray(fileIds), seq, names.bytesMin, names.like, names.holds];
  return db.query<Candidate>(sql.among, values);
}

/** What lies in folders, at most `limit` in all, in no order. */
export function listChildIds(
  db: Database,
  ref: ArchiveRef,
  folders: readonly number[],
  limit: number,
): Promise<{ fileId: number; isFolder: boolean }[]> {
  return db.query(sql.children, [ref.vault, ref.archive, packArray(folders), limit]);
}

export interface ShownFilters {
  kind: 'file' | 'directory' | 'symlink' | null;
  /** Bytes, both included; only files have a size. */
  bytesMin: number | null;
  bytesMax: number | null;
  /** Milliseconds since the Unix epoch; the end is not included. */
  modifiedFrom: number | null;
  modifiedBefore: number | null;
}

export const noFilters: ShownFilters = {
  kind: null,
  bytesMin: null,
  bytesMax: null,
  modifiedFrom: null,
  modifiedBefore: null,
};

/** A file as people see it at a moment. */
export interface Shown {
  kind: 'file' | 'directory' | 'symlink';
  size: number;
  /** As the device said; null: a folder that is known only by what lies in it. */
  mtime: number | null;
  /** The version shown, of what was deleted the last one before; null as above. */
  seq: number | null;
  committedAt: Date | null;
  /** Something lies in it, or did at some time: whatever it is itself. */
  hasEntries: boolean;
  /** When it was deleted; null: it is there. */
  deletedAt: Date | null;
}

/**
 * Which of these files, all of them known by the seq, exist at it (or did, where `deleted` says so) and pass the filters, by
 * their place in the list.
 */
export async function findShown(
  db: Database,
  ref: ArchiveRef,
  files: readonly { fileId: number; isFolder: boolean }[],
  { seq, deleted, filters }: { seq: number; deleted: boolean; filters: ShownFilters },
): Promise<(Shown & { i: number })[]> {
  if (files.length === 0) return [];
  const { kind, bytesMin, bytesMax, modifiedFrom, modifiedBefore } = filters;
  const values = [seq, deleted, kind, bytesMin, bytesMax, modifiedFrom, modifiedBefore];
  const ids = packArray(files.map(({ fileId }) => fileId));
  const folders = packArray(files.map(({ isFolder }) => isFolder));
  return db.query(sql.shown, [ref.vault, ref.archive, ids, ...values, folders]);
}
