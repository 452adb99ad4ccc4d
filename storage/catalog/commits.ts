/**
 * What a commit reads and writes. All of it happens in one transaction that holds the archive's row, so that two
 * commits of one archive, and a commit and a deleter, never meet. Lock order: archive, its run, blocks by hash.
 */
import { hashAt, hashCount, hashKey, hashKeyAt, joinHashes, splitHashes } from '../../protocol/hashes.ts';
import type { ArchiveRef } from '../storage.ts';
import { type Database, statement, type Transaction } from './database.ts';
import { hashArray, packArray, packBytes } from './packing.ts';

const sql = {
  lockArchive: statement(
    'archives.lock',
    `SELECT next_seq AS "nextSeq", next_file_id AS "nextFileId", state, purge_epoch AS "purgeEpoch"
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
    'UPDATE runs SET progressed_at = now() WHERE vault_id = $1 AND archive_id = $2 AND run_id = $3 RETURNING finished_at IS NOT NULL AS finished',
  ),

  lockBlocks: statement(
    'blocks.lock',
    `WITH locked AS MATERIALIZED (
       SELECT hash FROM blocks WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND damaged_at IS NULL
        ORDER BY hash FOR NO KEY UPDATE)
     SELECT count(*) AS locked FROM locked`,
  ),

  addRefs: statement(
    'blocks.addRefs',
    `UPDATE blocks SET refs = refs + $3 WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')})`,
  ),

  findUndamaged: statement(
    'blocks.findUndamaged',
    `SELECT string_agg(hash, '') AS found FROM blocks WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND damaged_at IS NULL`,
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
     SELECT $1, $2, $7::bigint + x.ordinal - 1, x.parent_id, substr($4::bytea, x.name_offset, x.name_length), x.folder, x.implied, $8
       FROM unnest($3::bigint[], $5::int[], $6::int[], $9::boolean[], $10::boolean[])
              WITH ORDINALITY AS x (parent_id, name_offset, name_length, folder, implied, ordinal)`,
  ),

  // Each folder once, when the first thing is put in it. The archive's lock keeps others away.
  markFolder: statement(
    'files.markFolder',
    'UPDATE files SET folder = true WHERE vault_id = $1 AND archive_id = $2 AND file_id = $3',
  ),

  advanceArchive: statement(
    'archives.advance',
    `UPDATE archives SET next_seq = $3, next_file_id = $4,
            last_committed_at = greatest(clock_timestamp(), last_committed_at + interval '1 microsecond')
      WHERE vault_id = $1 AND archive_id = $2`,
  ),

  insertVersions: statement(
    'versions.insert',
    `WITH given AS MATERIALIZED (
       SELECT * FROM unnest($4::bigint[], $5::text[], $6::boolean[], $7::bigint[], $8::bigint[], $10::int[], $11::int[], $13::int[], $14::int[])
         WITH ORDINALITY AS x (file_id, kind, deleted, size, mtime, attributes_offset, attributes_length, blocks_offset, blocks_length, ordinal)),
     at AS MATERIALIZED (SELECT last_committed_at FROM archives WHERE vault_id = $1 AND archive_id = $2)
     INSERT INTO versions (vault_id, archive_id, file_id, seq, committed_at, kind, deleted, size, mtime, attributes, mac, blocks)
     SELECT $1, $2, g.file_id, $3::bigint + g.ordinal - 1, at.last_committed_at, g.kind, g.deleted, g.size, g.mtime,
            substr($9::bytea, g.attributes_offset, g.attributes_length),
            substr($15::bytea, (g.ordinal::int - 1) * 32 + 1, 32),
            substr($12::bytea, g.blocks_offset, g.blocks_length)
       FROM given g CROSS JOIN at`,
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
export async function touchRun(tx: Transaction, ref: ArchiveRef, run: number): Promise<{ finished: boolean } | null> {
  const [row] = await tx.query<{ finished: boolean }>(sql.touchRun, [ref.vault, ref.archive, run]);
  return row ?? null;
}

/**
 * Counts versions onto the blocks they name, after locking all of them in hash order. Damaged blocks are as good as
 * absent.
 * @param refs distinct hashes and how many versions name each
 * @returns whether every block was there; if not, the caller must roll back
 */
export async function addRefs(
  tx: Transaction,
  vault: number,
  refs: { hashes: Buffer; counts: readonly number[] },
): Promise<boolean> {
  if (refs.counts.length === 0) return true;
  const [row] = await tx.query<{ locked: number }>(sql.lockBlocks, [vault, refs.hashes]);
  if (row!.locked !== refs.counts.length) return false;
  // Almost every block is named by one version of a commit, so there are few groups.
  const groups = Map.groupBy(refs.counts.keys(), (i) => refs.counts[i]!);
  for (const [count, members] of groups) {
    await tx.query(sql.addRefs, [vault, joinHashes(members.map((i) => hashAt(refs.hashes, i))), count]);
  }
  return true;
}

/** Indexes of the hashes that the vault does not hold undamaged. */
export async function findMissingBlocks(db: Database, vault: number, hashes: Buffer): Promise<number[]> {
  const [row] = await db.query<{ found: Buffer | null }>(sql.findUndamaged, [vault, hashes]);
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
  at: { firstFileId: number; seq: number },
): Promise<void> {
  const packed = packBytes(files.map((file) => file.name));
  await tx.query(sql.insertFiles, [
    ref.vault,
    ref.archive,
    packArray(files.map((file) => file.parentId)),
    packed.bytes,
    packed.offsets,
    packed.lengths,
    at.firstFileId,
    at.seq,
    packArray(files.map((file) => file.folder)),
    packArray(files.map((file) => file.implied)),
  ]);
}

/** Sets the archive's counters, and its time forward: never back, whatever the clock does. */
export async function advanceArchive(
  tx: Transaction,
  ref: ArchiveRef,
  next: { seq: number; fileId: number },
): Promise<void> {
  await tx.query(sql.advanceArchive, [ref.vault, ref.archive, next.seq, next.fileId]);
}

export interface NewVersion {
  fileId: number;
  kind: string;
  deleted: boolean;
  size: number;
  mtime: number;
  attributes: Buffer;
  mac: Buffer;
  blocks: Buffer;
}

/** Inserts versions as firstSeq, firstSeq + 1, ..., dated by the archive's last_committed_at as advanceArchive set it. */
export async function insertVersions(
  tx: Transaction,
  ref: ArchiveRef,
  firstSeq: number,
  versions: readonly NewVersion[],
): Promise<void> {
  const attributes = packBytes(versions.map((version) => version.attributes));
  const blocks = packBytes(versions.map((version) => version.blocks));
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
    blocks.bytes,
    blocks.offsets,
    blocks.lengths,
    Buffer.concat(versions.map((version) => version.mac)),
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
