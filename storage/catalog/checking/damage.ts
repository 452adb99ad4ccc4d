/**
 * What damaged blocks touch: the lists that name them, and the versions that name either. Nothing indexes hashes in
 * lists and versions, so a vault is searched page by page after blocks were marked (mark-damaged.ts), which is rare.
 * Rows here are found to be out of date when they are read: a block that was healed counts no more at once.
 *
 * Lock order: lists by hash, then rows of damage by hash, which nobody else waits for.
 */
import { joinHashes } from '../../../protocol/hashes.ts';
import type { ArchiveRef } from '../../storage.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { vaultsWith } from '../deleting/vaults-with.ts';
import { hashArray } from '../writing/packing.ts';

/**
 * Whether the block or list of a row of damage (or of the versions it touches) is damaged now. OFFSET 0: looked up for
 * each row; without it the planner may read all blocks of the vault into a table of hashes first.
 */
const isDamaged = (row: string): string =>
  `(EXISTS (SELECT 1 FROM blocks b WHERE b.vault_id = $1 AND b.hash = ${row}.hash AND b.damaged_at IS NOT NULL OFFSET 0)
        OR EXISTS (SELECT 1 FROM lists l WHERE l.vault_id = $1 AND l.hash = ${row}.hash AND l.damaged_at IS NOT NULL OFFSET 0))`;

/** The hashes in a string of them, as rows `n (h)`. */
const hashesIn = (named: string): string =>
  `(SELECT DISTINCT substr(${named}, i * 32 + 1, 32) AS h FROM generate_series(0, octet_length(${named}) / 32 - 1) AS i) n`;

const sql = {
  vaults: vaultsWith('damage', 'damage.vaults'),

  unsearched: statement(
    'damage.unsearched',
    `SELECT string_agg(hash, '') AS hashes FROM (
       SELECT hash FROM damage WHERE vault_id = $1 AND hash > '' AND users_found_at IS NULL ORDER BY hash LIMIT $2) d`,
  ),

  // `|| ''`: the string is fetched once, and not once for every hash in it.
  searchLists: statement(
    'lists.searchDamaged',
    `WITH page AS MATERIALIZED (SELECT hash FROM lists WHERE vault_id = $1 AND hash > $2 ORDER BY hash LIMIT $3),
     naming AS MATERIALIZED (
       SELECT p.hash FROM page p
        WHERE EXISTS (
          SELECT 1 FROM (SELECT l.blocks || ''::bytea AS blocks FROM lists l WHERE l.vault_id = $1 AND l.hash = p.hash AND l.damaged_at IS NULL OFFSET 0) l
           CROSS JOIN LATERAL ${hashesIn('l.blocks')}
           CROSS JOIN LATERAL (SELECT 1 FROM blocks b WHERE b.vault_id = $1 AND b.hash = n.h AND b.damaged_at IS NOT NULL OFFSET 0) b))
     SELECT (SELECT hash FROM page ORDER BY hash DESC LIMIT 1) AS last, (SELECT string_agg(hash, '') FROM naming) AS naming`,
  ),

  lockLists: statement(
    'lists.lockToMark',
    `SELECT hash FROM lists WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) ORDER BY hash FOR NO KEY UPDATE`,
  ),

  markLists: statement(
    'lists.markDamaged',
    `WITH marked AS (
       UPDATE lists SET damaged_at = now() WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND damaged_at IS NULL RETURNING hash),
     noted AS (
       INSERT INTO damage (vault_id, hash) SELECT $1, hash FROM marked ORDER BY hash
       ON CONFLICT (vault_id, hash) DO UPDATE SET found_at = now(), users_found_at = NULL)
     SELECT count(*) AS marked FROM marked`,
  ),

  // As many versions as name so many bytes of hashes, and at least one.
  endOfPage: statement(
    'versions.endOfPage',
    `SELECT file_id AS "fileId", seq FROM (
       SELECT v.file_id, v.seq, v.bytes, sum(v.bytes) OVER (ORDER BY v.file_id, v.seq) AS running FROM (
         SELECT file_id, seq, octet_length(blocks) + octet_length(lists) AS bytes FROM versions
          WHERE vault_id = $1 AND archive_id = $2 AND file_id >= $3 AND (file_id, seq) > ($3::bigint, $4::bigint)
          ORDER BY file_id, seq LIMIT $6) v) w
      WHERE running - bytes <= $5 ORDER BY file_id DESC, seq DESC LIMIT 1`,
  ),

  searchVersions: statement(
    'damageVersions.search',
    `INSERT INTO damage_versions (vault_id, hash, archive_id, file_id, seq)
     SELECT $1, n.h, $2, v.file_id, v.seq
       FROM (SELECT file_id, seq, blocks || lists AS named FROM versions
              WHERE vault_id = $1 AND archive_id = $2 AND file_id BETWEEN $3 AND $5
                AND (file_id, seq) > ($3::bigint, $4::bigint) AND (file_id, seq) <= ($5::bigint, $6::bigint) OFFSET 0) v
      CROSS JOIN LATERAL ${hashesIn('v.named')}
      CROSS JOIN LATERAL (SELECT 1 FROM damage d WHERE d.vault_id = $1 AND d.hash = n.h OFFSET 0) d
     ON CONFLICT DO NOTHING`,
  ),

  setSearched: statement(
    'damage.setSearched',
    `UPDATE damage SET users_found_at = now() WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND users_found_at IS NULL`,
  ),

  damagedLists: statement(
    'lists.damagedAmong',
    `SELECT string_agg(l.hash, '') AS hashes
       FROM (SELECT d.hash FROM damage d WHERE d.vault_id = $1 AND d.hash > $2 ORDER BY d.hash LIMIT $3) d
      CROSS JOIN LATERAL (SELECT l.hash FROM lists l WHERE l.vault_id = $1 AND l.hash = d.hash AND l.damaged_at IS NOT NULL OFFSET 0) l`,
  ),

  // In a statement after the one that locked the lists.
  healLists: statement(
    'lists.healWhole',
    `UPDATE lists l SET damaged_at = NULL
      WHERE l.vault_id = $1 AND l.hash = ANY (${hashArray('$2')}) AND l.damaged_at IS NOT NULL
        AND NOT EXISTS (
          SELECT 1 FROM (SELECT l.blocks || ''::bytea AS blocks OFFSET 0) whole
           CROSS JOIN LATERAL ${hashesIn('whole.blocks')}
           CROSS JOIN LATERAL (SELECT 1 FROM blocks b WHERE b.vault_id = $1 AND b.hash = n.h AND b.damaged_at IS NOT NULL OFFSET 0) b)
     RETURNING l.hash`,
  ),

  lockDamage: statement(
    'damage.lock',
    'SELECT hash FROM damage WHERE vault_id = $1 AND hash > $2 ORDER BY hash LIMIT $3 FOR UPDATE',
  ),

  // A statement after the one that took the lock: whoever marks one of these again waits, and enters it anew.
  forget: statement(
    'damage.forget',
    `DELETE FROM damage d WHERE d.vault_id = $1 AND d.hash = ANY (${hashArray('$2')}) AND NOT ${isDamaged('d')} RETURNING d.hash`,
  ),

  forgetVersions: statement(
    'damageVersions.forget',
    `DELETE FROM damage_versions WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')})`,
  ),

  count: statement(
    'damage.count',
    `SELECT count(*) FILTER (WHERE b.damaged) AS blocks, count(*) FILTER (WHERE d.users_found_at IS NULL) AS unsearched, min(d.found_at) AS "oldestFoundAt"
       FROM (SELECT hash, users_found_at, found_at FROM damage WHERE vault_id = $1 AND hash > '') d
      CROSS JOIN LATERAL (SELECT EXISTS (SELECT 1 FROM blocks b WHERE b.vault_id = $1 AND b.hash = d.hash AND b.damaged_at IS NOT NULL) AS damaged OFFSET 0) b`,
  ),

  damagedLatest: statement(
    'damageVersions.latest',
    `SELECT x.file_id AS "fileId" FROM (
       SELECT DISTINCT file_id FROM damage_versions WHERE vault_id = $1 AND archive_id = $2 AND file_id > $3 ORDER BY file_id LIMIT $4) x
      CROSS JOIN LATERAL (
        SELECT v.seq FROM versions v WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = x.file_id
         ORDER BY v.seq DESC LIMIT 1) latest
      WHERE EXISTS (
        SELECT 1 FROM damage_versions dv
         WHERE dv.vault_id = $1 AND dv.archive_id = $2 AND dv.file_id = x.file_id AND dv.seq = latest.seq AND ${isDamaged('dv')})
      ORDER BY x.file_id LIMIT $5`,
  ),

  damagedFiles: statement(
    'damageVersions.files',
    `SELECT DISTINCT file_id AS "fileId" FROM damage_versions
      WHERE vault_id = $1 AND archive_id = $2 AND file_id > $3 ORDER BY file_id LIMIT $4`,
  ),

  moments: statement(
    'damageVersions.moments',
    `SELECT v.seq, v.committed_at AS "committedAt", v.deleted,
            EXISTS (SELECT 1 FROM damage_versions dv
                     WHERE dv.vault_id = $1 AND dv.archive_id = $2 AND dv.file_id = $3 AND dv.seq = v.seq AND ${isDamaged('dv')}) AS damaged
       FROM versions v WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = $3 ORDER BY v.seq DESC LIMIT $4`,
  ),
};

/** Files one look for damaged ones goes through. When they have healed and are forgotten, it reaches the next. */
const damagedFilesMax = 10_000;

/** Vaults where something was found damaged. */
export function vaultsWithDamage(db: Database): Promise<number[]> {
  return sql.vaults(db, []);
}

/** Damaged blocks and lists whose versions nobody has looked for yet: n x 32 bytes. */
export async function unsearchedDamage(db: Database, vault: number, limit: number): Promise<Buffer> {
  const [row] = await db.query<{ hashes: Buffer | null }>(sql.unsearched, [vault, limit]);
  return row!.hashes ?? Buffer.alloc(0);
}

/**
 * Looks through a page of lists, in the order of their names, for damaged blocks.
 * @returns the lists that name some, and the last list of the page; null when there was none
 */
export async function searchLists(
  db: Database,
  vault: number,
  page: { after: Buffer; limit: number },
): Promise<{ last: Buffer; naming: Buffer } | null> {
  type Row = { last: Buffer | null; naming: Buffer | null };
  const [row] = await db.query<Row>(sql.searchLists, [vault, page.after, page.limit]);
  return row!.last && { last: row!.last, naming: row!.naming ?? Buffer.alloc(0) };
}

/** Marks lists, so that a claim, a commit and an upload treat them as absent. @returns how many were not marked before */
export async function markListsDamaged(tx: Transaction, vault: number, hashes: Buffer): Promise<number> {
  if (hashes.byteLength === 0) return 0;
  await tx.query(sql.lockLists, [vault, hashes]);
  const [row] = await tx.query<{ marked: number }>(sql.markLists, [vault, hashes]);
  return row!.marked;
}

export interface VersionKey {
  fileId: number;
  seq: number;
}

/**
 * Notes which versions of a page name damaged blocks or lists, in the order of file and seq.
 * @returns the last version of the page; null when there was none
 */
export async function searchVersions(
  db: Database,
  ref: ArchiveRef,
  page: { after: VersionKey; hashBytesMax: number; versionsMax: number },
): Promise<VersionKey | null> {
  const { vault, archive } = ref;
  const start = [vault, archive, page.after.fileId, page.after.seq];
  const [end] = await db.query<VersionKey>(sql.endOfPage, [...start, page.hashBytesMax, page.versionsMax]);
  if (!end) return null;
  await db.query(sql.searchVersions, [...start, end.fileId, end.seq]);
  return end;
}

export async function setSearched(db: Database, vault: number, hashes: Buffer): Promise<void> {
  await db.query(sql.setSearched, [vault, hashes]);
}

/** Of a page of damage the lists that are marked. */
export async function damagedLists(
  db: Database,
  vault: number,
  page: { after: Buffer; limit: number },
): Promise<Buffer> {
  const [row] = await db.query<{ hashes: Buffer | null }>(sql.damagedLists, [vault, page.after, page.limit]);
  return row!.hashes ?? Buffer.alloc(0);
}

/** Marks those lists well whose blocks all are. @returns how many */
export async function healWholeLists(tx: Transaction, vault: number, hashes: Buffer): Promise<number> {
  await tx.query(sql.lockLists, [vault, hashes]);
  return (await tx.query(sql.healLists, [vault, hashes])).length;
}

/**
 * Drops the rows of a page of damage whose blocks and lists are well again, or gone.
 * @returns the last row of the page, or null when there was none; and how many were dropped
 */
export async function forgetHealed(
  tx: Transaction,
  vault: number,
  page: { after: Buffer; limit: number },
): Promise<{ last: Buffer | null; forgotten: number }> {
  const locked = await tx.query<{ hash: Buffer }>(sql.lockDamage, [vault, page.after, page.limit]);
  if (locked.length === 0) return { last: null, forgotten: 0 };
  const hashes = joinHashes(locked.map((row) => row.hash));
  const gone = await tx.query<{ hash: Buffer }>(sql.forget, [vault, hashes]);
  if (gone.length > 0) await tx.query(sql.forgetVersions, [vault, joinHashes(gone.map((row) => row.hash))]);
  return { last: locked.at(-1)!.hash, forgotten: gone.length };
}

export interface DamageCount {
  /** Damaged blocks. */
  blocks: number;
  /** Blocks and lists whose versions nobody has looked for yet. */
  unsearched: number;
  oldestFoundAt: Date | null;
}

export async function countDamage(db: Database | Transaction, vault: number): Promise<DamageCount> {
  const [row] = await db.query<DamageCount>(sql.count, [vault]);
  return row!;
}

/** Files whose latest version names something damaged (the record of a deletion names nothing), by id. Looks at the first 10,000 noted. */
export async function filesDamagedNow(db: Database, ref: ArchiveRef, limit: number): Promise<number[]> {
  const values = [ref.vault, ref.archive, 0, damagedFilesMax, limit];
  return (await db.query<{ fileId: number }>(sql.damagedLatest, values)).map((row) => row.fileId);
}

/** Files of which some version names (or named) something damaged, by id. */
export async function damagedFiles(
  db: Database,
  ref: ArchiveRef,
  page: { after: number; limit: number },
): Promise<number[]> {
  const rows = await db.query<{ fileId: number }>(sql.damagedFiles, [ref.vault, ref.archive, page.after, page.limit]);
  return rows.map((row) => row.fileId);
}

export interface Moment {
  seq: number;
  committedAt: Date;
  /** It is the record that the file was deleted. */
  deleted: boolean;
  damaged: boolean;
}

/** The newest versions of a file, newest first, and which of them cannot be restored. */
export async function readMoments(db: Database, ref: ArchiveRef, fileId: number, limit: number): Promise<Moment[]> {
  return db.query<Moment>(sql.moments, [ref.vault, ref.archive, fileId, limit]);
}
