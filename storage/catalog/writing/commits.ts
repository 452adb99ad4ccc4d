/**
 * What a commit reads and writes. All of it happens in one transaction that holds the archive's row, so that two
 * commits of one archive, and a commit and a deleter, never meet. Lock order: archive, its run, then what refs.ts locks.
 */
import { hashCount, hashKey, hashKeyAt, splitHashes } from '../../../protocol/hashes.ts';
import type { ArchiveRef } from '../../storage.ts';
import { type Database, type Statement, statement, type Transaction } from '../database.ts';
import { hashArray, packArray, packBytes } from './packing.ts';

const sql = {
  lockArchive: statement(
    'archives.lock',
    `SELECT next_seq AS "nextSeq", next_file_id AS "nextFileId", state, purge_epoch AS "purgeEpoch", watch_before_seq AS "watchBeforeSeq", kind
       FROM archives WHERE vault_id = $1 AND archive_id = $2 FOR NO KEY UPDATE`,
  ),

  // A statement of its own after the lock: its snapshot shows what whoever held the lock before has committed.
  findCommit: statement(
    'commits.find',
    `SELECT body_sha256 AS "bodySha256", first_seq AS "firstSeq", count
       FROM commits WHERE vault_id = $1 AND archive_id = $2 AND commit_id = $3`,
  ),

  // Holds the run's row to the end, so that a run that is finished has seen its last commit.
  touchRun: statement(
    'runs.touch',
    'UPDATE runs SET progressed_at = now() WHERE vault_id = $1 AND archive_id = $2 AND run_id = $3 RETURNING finished_at IS NOT NULL AS finished, before_seq AS "beforeSeq"',
  ),

  findUndamaged: statement(
    'blocks.findUndamaged',
    `SELECT string_agg(hash, '') AS found FROM blocks WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND damaged_at IS NULL`,
  ),

  findUndamagedLists: statement(
    'lists.findUndamaged',
    `SELECT string_agg(hash, '') AS found FROM lists WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND damaged_at IS NULL`,
  ),

  // Only the newest version of each: what a file was before this commit.
  findLatest: statement(
    'versions.latestOfFiles',
    `SELECT x.ordinal::int - 1 AS i, v.seq, v.size > 0 AS "hasContent", v.content
       FROM unnest($3::bigint[]) WITH ORDINALITY AS x (file_id, ordinal)
      CROSS JOIN LATERAL (
        SELECT v.seq, v.size, sha256(v.blocks || v.lists) AS content FROM versions v
         WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = x.file_id
         ORDER BY v.seq DESC LIMIT 1) v`,
  ),

  // A file that is due already stays so, and its row is not written again.
  markDue: statement(
    'files.markDue',
    `UPDATE files SET prune_after = now()
      WHERE vault_id = $1 AND archive_id = $2 AND file_id = ANY ($3::bigint[]) AND (prune_after IS NULL OR prune_after > now())`,
  ),

  beginWatch: statement(
    'archives.beginWatch',
    `UPDATE archives SET watch_since = now(), watch_before_seq = $3, watch_live_files = live_files, watch_replaced = 0
      WHERE vault_id = $1 AND archive_id = $2
        AND (watch_since IS NULL OR watch_since > now() OR watch_since < now() - $4 * interval '1 ms'
             OR (watch_replaced = 0 AND watch_before_seq < $3))
     RETURNING watch_before_seq AS seq`,
  ),

  countReplaced: statement(
    'archives.countReplaced',
    `UPDATE archives SET watch_replaced = watch_replaced + $3 WHERE vault_id = $1 AND archive_id = $2
     RETURNING watch_replaced AS "replacedFiles", watch_live_files AS "liveFilesBefore", watch_before_seq AS "watchBeforeSeq", frozen_at IS NOT NULL AS frozen`,
  ),

  markSuspicious: statement(
    'runs.markSuspicious',
    `UPDATE runs SET suspicious = true WHERE vault_id = $1 AND archive_id = $2 AND run_id = $3
     RETURNING before_seq AS "beforeSeq", started_at AS "startedAt"`,
  ),

  freezeArchive: statement(
    'archives.freeze',
    'UPDATE archives SET frozen_at = now() WHERE vault_id = $1 AND archive_id = $2 AND frozen_at IS NULL',
  ),

  findFiles: statement(
    'files.findByName',
    `SELECT x.ordinal::int - 1 AS i, f.file_id AS "fileId", f.folder
       FROM unnest($3::bigint[], $5::int[], $6::int[]) WITH ORDINALITY AS x (parent_id, name_offset, name_length, ordinal)
      CROSS JOIN LATERAL (
        SELECT f.file_id, f.folder FROM files f
         WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.parent_id = x.parent_id AND f.name = substr($4::bytea, x.name_offset, x.name_length)
        OFFSET 0) f`,
  ),

  insertFiles: statement(
    'files.insert',
    `INSERT INTO files (vault_id, archive_id, file_id, parent_id, name, folder, implied, created_seq)
     SELECT $1, $2, $7::bigint + x.ordinal - 1, x.parent_id, substr($4::bytea, x.name_offset, x.name_length), x.folder, x.implied, x.created_seq
       FROM unnest($3::bigint[], $5::int[], $6::int[], $8::bigint[], $9::boolean[], $10::boolean[])
              WITH ORDINALITY AS x (parent_id, name_offset, name_length, created_seq, folder, implied, ordinal)`,
  ),

  // Each folder once, when the first thing is put in it. The archive's lock keeps others away.
  markFolder: statement(
    'files.markFolder',
    'UPDATE files SET folder = true WHERE vault_id = $1 AND archive_id = $2 AND file_id = $3',
  ),

  advanceArchive: statement(
    'archives.advance',
    `UPDATE archives SET next_seq = $3, next_file_id = $4, version_count = version_count + $5, live_files = live_files + $6,
            last_committed_at = greatest(clock_timestamp(), last_committed_at + interval '1 microsecond')
      WHERE vault_id = $1 AND archive_id = $2`,
  ),

  insertVersions: statement(
    'versions.insert',
    `WITH given AS MATERIALIZED (
       SELECT * FROM unnest($4::bigint[], $5::text[], $6::boolean[], $7::bigint[], $8::bigint[], $10::int[], $11::int[], $13::int[], $14::int[], $16::boolean[])
         WITH ORDINALITY AS x (file_id, kind, deleted, size, mtime, attributes_offset, attributes_length, names_offset, names_length, listed, ordinal)),
     at AS MATERIALIZED (SELECT last_committed_at FROM archives WHERE vault_id = $1 AND archive_id = $2)
     INSERT INTO versions (vault_id, archive_id, file_id, seq, committed_at, kind, deleted, size, mtime, attributes, mac, blocks, lists)
     SELECT $1, $2, g.file_id, $3::bigint + g.ordinal - 1, at.last_committed_at, g.kind, g.deleted, g.size, g.mtime,
            substr($9::bytea, g.attributes_offset, g.attributes_length),
            substr($15::bytea, (g.ordinal::int - 1) * 32 + 1, 32),
            CASE WHEN g.listed THEN '' ELSE substr($12::bytea, g.names_offset, g.names_length) END,
            CASE WHEN g.listed THEN substr($12::bytea, g.names_offset, g.names_length) ELSE '' END
       FROM given g CROSS JOIN at`,
  ),

  trimCommits: statement(
    'commits.trim',
    `DELETE FROM commits WHERE vault_id = $1 AND archive_id = $2 AND committed_at < now() - $3 * interval '1 ms'
        AND first_seq < (SELECT max(c.first_seq) FROM commits c WHERE c.vault_id = $1 AND c.archive_id = $2)
     RETURNING first_seq`,
  ),

  insertCommit: statement(
    'commits.insert',
    `INSERT INTO commits (vault_id, archive_id, commit_id, run_id, body_sha256, first_seq, count, committed_at)
     SELECT $1, $2, $3, $4, $5, $6, $7, last_committed_at FROM archives WHERE vault_id = $1 AND archive_id = $2`,
  ),
};

export interface ArchiveRow {
  nextSeq: number;
  nextFileId: number;
  state: 'active' | 'cold' | 'expired';
  purgeEpoch: number;
  /** Who writes it: agents, in runs; or whoever puts files into it one at a time. */
  kind: 'agent' | 'plain';
  /** Files whose latest version is newer were not there when the watch for mass changes began, or are counted already. */
  watchBeforeSeq: number;
}

/** Locks the archive for the rest of the transaction. Null when there is none. */
export async function lockArchive(tx: Transaction, ref: ArchiveRef): Promise<ArchiveRow | null> {
  const [row] = await tx.query<ArchiveRow>(sql.lockArchive, [ref.vault, ref.archive]);
  return row ?? null;
}

export interface CommitRow {
  bodySha256: Buffer;
  firstSeq: number;
  count: number;
}

export async function findCommit(tx: Transaction, ref: ArchiveRef, commitId: Buffer): Promise<CommitRow | null> {
  const [row] = await tx.query<CommitRow>(sql.findCommit, [ref.vault, ref.archive, commitId]);
  return row ?? null;
}

/** Notes that something came from a run. Null when there is none. */
export async function touchRun(
  tx: Transaction,
  ref: ArchiveRef,
  run: number,
): Promise<{ finished: boolean; beforeSeq: number } | null> {
  const [row] = await tx.query<{ finished: boolean; beforeSeq: number }>(sql.touchRun, [ref.vault, ref.archive, run]);
  return row ?? null;
}

/** Indexes of the hashes that the vault does not hold undamaged. */
export function findMissingBlocks(db: Transaction, vault: number, hashes: Buffer): Promise<number[]> {
  return findMissing(db, sql.findUndamaged, vault, hashes);
}

export function findMissingLists(db: Database, vault: number, hashes: Buffer): Promise<number[]> {
  return findMissing(db, sql.findUndamagedLists, vault, hashes);
}

async function findMissing(db: Transaction, look: Statement, vault: number, hashes: Buffer): Promise<number[]> {
  const [row] = await db.query<{ found: Buffer | null }>(look, [vault, hashes]);
  const found = new Set(row!.found ? splitHashes(row!.found).map(hashKey) : []);
  return Array.from({ length: hashCount(hashes) }, (_, i) => i).filter((i) => !found.has(hashKeyAt(hashes, i)));
}

export interface NewFile {
  parentId: number;
  name: Buffer;
  /** Something lies in it. */
  folder: boolean;
  /** And it has no version of its own. */
  implied: boolean;
  /** Of the first version that this row was made for, its own or of something in it. */
  createdSeq: number;
}

/** The rows of names in their folders; undefined where there is none. */
export async function findFiles(
  tx: Transaction,
  ref: ArchiveRef,
  names: readonly { parentId: number; name: Buffer }[],
): Promise<({ fileId: number; folder: boolean } | undefined)[]> {
  const packed = packBytes(names.map((file) => file.name));
  const parents = packArray(names.map((file) => file.parentId));
  const rows = await tx.query<{ i: number; fileId: number; folder: boolean }>(sql.findFiles, [
    ref.vault,
    ref.archive,
    parents,
    packed.bytes,
    packed.offsets,
    packed.lengths,
  ]);
  const found = new Array<{ fileId: number; folder: boolean } | undefined>(names.length);
  for (const { i, fileId, folder } of rows) found[i] = { fileId, folder };
  return found;
}

/** Notes that something is put into a file's row for the first time. */
export async function markFolder(tx: Transaction, ref: ArchiveRef, fileId: number): Promise<void> {
  await tx.query(sql.markFolder, [ref.vault, ref.archive, fileId]);
}

/** Enters names that are not there yet, as ids firstFileId, firstFileId + 1, ... The archive's lock keeps others from doing the same. */
export async function insertFiles(
  tx: Transaction,
  ref: ArchiveRef,
  files: readonly NewFile[],
  firstFileId: number,
): Promise<void> {
  const packed = packBytes(files.map((file) => file.name));
  await tx.query(sql.insertFiles, [
    ref.vault,
    ref.archive,
    packArray(files.map((file) => file.parentId)),
    packed.bytes,
    packed.offsets,
    packed.lengths,
    firstFileId,
    packArray(files.map((file) => file.createdSeq)),
    packArray(files.map((file) => file.folder)),
    packArray(files.map((file) => file.implied)),
  ]);
}

export interface LatestVersion {
  seq: number;
  /** It is a file that exists and holds something. */
  hasContent: boolean;
  /** SHA-256 of the names of its blocks or lists. */
  content: Buffer;
}

/** What files are before a commit; undefined for one that has no version yet. */
export async function findLatestVersions(
  tx: Transaction,
  ref: ArchiveRef,
  fileIds: readonly number[],
): Promise<(LatestVersion | undefined)[]> {
  const latest = new Array<LatestVersion | undefined>(fileIds.length);
  if (fileIds.length === 0) return latest;
  const rows = await tx.query<LatestVersion & { i: number }>(sql.findLatest, [
    ref.vault,
    ref.archive,
    packArray(fileIds),
  ]);
  for (const { i, ...version } of rows) latest[i] = version;
  return latest;
}

/** Notes that files have history now, which retention has to look at. */
export async function markFilesDue(tx: Transaction, ref: ArchiveRef, fileIds: readonly number[]): Promise<void> {
  if (fileIds.length > 0) await tx.query(sql.markDue, [ref.vault, ref.archive, packArray(fileIds)]);
}

export interface ReplacedFiles {
  /** Of the files that were there when the watch began, those that were changed or deleted since. */
  replacedFiles: number;
  liveFilesBefore: number;
  watchBeforeSeq: number;
  /** Somebody has to look already. */
  frozen: boolean;
}

/**
 * Begins the watch for mass changes anew at the beginning of a run, if the one before is older than `windowMs` or has
 * nothing to tell.
 * @returns the seq it begins behind; null: the one before goes on
 */
export async function beginWatch(
  tx: Transaction,
  ref: ArchiveRef,
  run: { beforeSeq: number; windowMs: number },
): Promise<number | null> {
  const [row] = await tx.query<{ seq: number }>(sql.beginWatch, [ref.vault, ref.archive, run.beforeSeq, run.windowMs]);
  return row?.seq ?? null;
}

export async function countReplaced(tx: Transaction, ref: ArchiveRef, files: number): Promise<ReplacedFiles> {
  const [row] = await tx.query<ReplacedFiles>(sql.countReplaced, [ref.vault, ref.archive, files]);
  return row!;
}

/** Marks a run as one that somebody must look at, and keeps retention from deleting anything of the archive until then. */
export async function markRunSuspicious(
  tx: Transaction,
  ref: ArchiveRef,
  run: number,
): Promise<{ beforeSeq: number; startedAt: Date }> {
  const [row] = await tx.query<{ beforeSeq: number; startedAt: Date }>(sql.markSuspicious, [
    ref.vault,
    ref.archive,
    run,
  ]);
  await tx.query(sql.freezeArchive, [ref.vault, ref.archive]);
  return row!;
}

/** Sets the archive's counters, and its time forward: never back, whatever the clock does. */
export async function advanceArchive(
  tx: Transaction,
  ref: ArchiveRef,
  next: { seq: number; fileId: number; moreVersions: number; moreLiveFiles: number },
): Promise<void> {
  const { seq, fileId, moreVersions, moreLiveFiles } = next;
  await tx.query(sql.advanceArchive, [ref.vault, ref.archive, seq, fileId, moreVersions, moreLiveFiles]);
}

export interface NewVersion {
  fileId: number;
  kind: string;
  deleted: boolean;
  size: number;
  mtime: number;
  attributes: Buffer;
  mac: Buffer;
  /** One of the two names the content. */
  blocks: Buffer;
  lists: Buffer;
}

/** Inserts versions as firstSeq, firstSeq + 1, ..., dated by the archive's last_committed_at as advanceArchive set it. */
export async function insertVersions(
  tx: Transaction,
  ref: ArchiveRef,
  firstSeq: number,
  versions: readonly NewVersion[],
): Promise<void> {
  const attributes = packBytes(versions.map((version) => version.attributes));
  const isListed = (version: NewVersion): boolean => version.lists.byteLength > 0;
  const names = packBytes(versions.map((version) => (isListed(version) ? version.lists : version.blocks)));
  await tx.query(sql.insertVersions, [
    ref.vault,
    ref.archive,
    firstSeq,
    packArray(versions.map((version) => version.fileId)),
    packArray(versions.map((version) => version.kind)),
    packArray(versions.map((version) => version.deleted)),
    packArray(versions.map((version) => version.size)),
    packArray(versions.map((version) => version.mtime)),
    attributes.bytes,
    attributes.offsets,
    attributes.lengths,
    names.bytes,
    names.offsets,
    names.lengths,
    Buffer.concat(versions.map((version) => version.mac)),
    packArray(versions.map(isListed)),
  ]);
}

export async function insertCommit(
  tx: Transaction,
  ref: ArchiveRef,
  commit: CommitRow & { commitId: Buffer; run: number },
): Promise<void> {
  await tx.query(sql.insertCommit, [
    ref.vault,
    ref.archive,
    commit.commitId,
    commit.run,
    commit.bodySha256,
    commit.firstSeq,
    commit.count,
  ]);
}

/** Forgets an archive's commits older than `keepMs`, but never its newest. @returns how many */
export async function trimCommitsOf(db: Database, ref: ArchiveRef, keepMs: number): Promise<number> {
  return (await db.query(sql.trimCommits, [ref.vault, ref.archive, keepMs])).length;
}
