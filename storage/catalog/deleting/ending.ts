/**
 * The last rows of archives and vaults whose owners are gone for good. Lock order: the vault, alone in its statement; its
 * holds in a later one; the archive (deleting.ts). What an archive leaves behind when its last version is gone is nobody's;
 * of a vault nothing is taken here while it has an object or a list: those are other jobs', and need the vault.
 *
 * Rows go some thousands at a time, in as many transactions as it takes; an archive's or vault's own row is the last.
 */
import type { ArchiveRef } from '../../storage.ts';
import { type Database, type Statement, statement, type Transaction } from '../database.ts';
import { deletePlainFigures } from '../plain-figures.ts';
import { packArray } from '../writing/packing.ts';

/** Rows of one table that one transaction takes away. */
const endingRowsMax = 5_000;
/** Runs at a time; each has at most 10,000 files that it left out. */
const runsMax = 10;

/** Declares a way to delete some rows of a vault (or, with `of`, of an archive) that have a key of one column within it. */
const someOf = (table: string, key: string, of = 'vault_id = $1'): Statement =>
  statement(
    `${table}.deleteSome`,
    `DELETE FROM ${table} WHERE ${of} AND ${key} = ANY (ARRAY(
       SELECT ${key} FROM ${table} WHERE ${of} ORDER BY ${key} LIMIT ${endingRowsMax})) RETURNING 1`,
  );
const ofArchive = 'vault_id = $1 AND archive_id = $2';

const sql = {
  lockVault: statement('vaults.lockWhole', 'SELECT 1 FROM vaults WHERE vault_id = $1 FOR UPDATE'),
  owner: statement('vaults.owner', 'SELECT user_id AS "user" FROM vaults WHERE vault_id = $1'),
  ofUsers: statement(
    'vaults.ofUsers',
    'SELECT vault_id AS vault, user_id AS "user" FROM vaults WHERE user_id = ANY ($1::bigint[])',
  ),
  // Those that only wait for their bytes are left out: of a tenant's that may be all, for days.
  toEnd: statement(
    'vaults.toEnd',
    `SELECT x.vault FROM unnest($1::bigint[]) AS x (vault)
      WHERE (SELECT 1 FROM archives WHERE vault_id = x.vault ORDER BY archive_id LIMIT 1) IS NOT NULL
         OR (SELECT 1 FROM vault_keys WHERE vault_id = x.vault ORDER BY generation LIMIT 1) IS NOT NULL
         OR (SELECT 1 FROM held_vault_keys WHERE vault_id = x.vault ORDER BY generation LIMIT 1) IS NOT NULL
         OR ((SELECT 1 FROM objects WHERE vault_id = x.vault AND object_id > 0 ORDER BY object_id LIMIT 1) IS NULL
         AND (SELECT 1 FROM lists WHERE vault_id = x.vault AND hash > '' ORDER BY hash LIMIT 1) IS NULL)
      ORDER BY x.vault`,
  ),

  // The order says by which index: the one row that is looked for is the first of it.
  hasFiles: statement(
    'archives.hasFiles',
    `SELECT (SELECT 1 FROM versions WHERE vault_id = $1 AND archive_id = $2 AND file_id > 0 ORDER BY file_id, seq LIMIT 1) IS NOT NULL
         OR (SELECT 1 FROM files WHERE vault_id = $1 AND archive_id = $2 AND file_id > 0 ORDER BY file_id LIMIT 1) IS NOT NULL AS has`,
  ),
  someRuns: statement(
    'runs.some',
    `SELECT run_id AS run FROM runs WHERE vault_id = $1 AND archive_id = $2 AND run_id > 0 ORDER BY run_id LIMIT ${runsMax}`,
  ),
  skippedOfRuns: statement(
    'runSkipped.deleteOfRuns',
    'DELETE FROM run_skipped WHERE vault_id = $1 AND archive_id = $2 AND run_id = ANY ($3::bigint[])',
  ),
  deleteRuns: statement(
    'runs.delete',
    'DELETE FROM runs WHERE vault_id = $1 AND archive_id = $2 AND run_id = ANY ($3::bigint[])',
  ),
  commits: someOf('commits', 'commit_id', ofArchive),
  leases: someOf('restores', 'seq', ofArchive),
  deleteArchive: statement('archives.delete', 'DELETE FROM archives WHERE vault_id = $1 AND archive_id = $2'),

  deleteKeys: statement('vaultKeys.delete', 'DELETE FROM vault_keys WHERE vault_id = $1 RETURNING 1'),
  deleteAlerts: someOf('alerts', 'alert_id'),

  hasBytes: statement(
    'vaults.hasBytes',
    `SELECT (SELECT 1 FROM objects WHERE vault_id = $1 AND object_id > 0 ORDER BY object_id LIMIT 1) IS NOT NULL
         OR (SELECT 1 FROM blocks WHERE vault_id = $1 AND hash > '' ORDER BY hash LIMIT 1) IS NOT NULL
         OR (SELECT 1 FROM lists WHERE vault_id = $1 AND hash > '' ORDER BY hash LIMIT 1) IS NOT NULL AS has`,
  ),
  freed: someOf('freed', 'hash', "vault_id = $1 AND hash > ''"),
  freedLists: someOf('freed_lists', 'hash', "vault_id = $1 AND hash > ''"),
  damage: someOf('damage', 'hash'),
  // More than so many where many versions name one block.
  damageVersions: someOf('damage_versions', 'hash', "vault_id = $1 AND hash > ''"),
  hiddenBlocks: someOf('hidden_blocks', 'hash', "vault_id = $1 AND hash > ''"),
  deltas: someOf('usage_deltas', 'delta_id'),
  holds: someOf('holds', 'hold_id'),
  deleteUsage: statement('vaultUsage.delete', 'DELETE FROM vault_usage WHERE vault_id = $1'),
  deleteVault: statement('vaults.delete', 'DELETE FROM vaults WHERE vault_id = $1 RETURNING 1'),
};

/** Holds the vault against everybody, also who would refer to it. @returns whose it is; null: it is not there */
export async function lockVaultToEnd(tx: Transaction, vault: number): Promise<number | null> {
  await tx.query(sql.lockVault, [vault]);
  return ownerOfVault(tx, vault);
}

export async function ownerOfVault(tx: Transaction, vault: number): Promise<number | null> {
  const [row] = await tx.query<{ user: number }>(sql.owner, [vault]);
  return row?.user ?? null;
}

/** The vaults that users have: one each, or none; in no order. */
export function vaultsOfUsers(
  db: Database | Transaction,
  users: readonly number[],
): Promise<{ vault: number; user: number }[]> {
  return db.query<{ vault: number; user: number }>(sql.ofUsers, [packArray(users)]);
}

/** Of some vaults those where there is something to take away now; ascending. */
export async function vaultsToEnd(db: Transaction, vaults: readonly number[]): Promise<number[]> {
  return (await db.query<{ vault: number }>(sql.toEnd, [packArray(vaults)])).map(({ vault }) => vault);
}

const isTrue = async (tx: Transaction, asked: Statement, values: readonly number[]): Promise<boolean> =>
  (await tx.query<{ has: boolean }>(asked, values))[0]!.has;

/**
 * Takes away an archive that is locked and empty, or some of its rows.
 * @returns `kept`: it has files; `some`: there are more rows, so call again; `gone`
 */
export async function endArchiveRows(tx: Transaction, ref: ArchiveRef): Promise<'kept' | 'some' | 'gone'> {
  const values = [ref.vault, ref.archive];
  if (await isTrue(tx, sql.hasFiles, values)) return 'kept';
  const runs = await tx.query<{ run: number }>(sql.someRuns, values);
  if (runs.length > 0) {
    const ids = packArray(runs.map(({ run }) => run));
    await tx.query(sql.skippedOfRuns, [...values, ids]);
    await tx.query(sql.deleteRuns, [...values, ids]);
    return 'some';
  }
  for (const some of [sql.commits, sql.leases])
    if ((await tx.query(some, values)).length === endingRowsMax) return 'some';
  await deletePlainFigures(tx, ref);
  await tx.query(sql.deleteArchive, values);
  return 'gone';
}

/** Takes away the records of a vault's keys, under the vault's lock; those kept for holds are the caller's. @returns how many */
export async function deleteVaultKeys(tx: Transaction, vault: number): Promise<number> {
  // Of archives that are gone: nobody is left to review them.
  await tx.query(sql.deleteAlerts, [vault]);
  return (await tx.query(sql.deleteKeys, [vault])).length;
}

/**
 * Takes away a vault that is locked whole and has no archive, or some of its rows. Holds on it are the caller's to ask
 * for first: those that have been released go here.
 * @returns `kept`: the store has bytes of it, or there are blocks or lists; `some`: call again; `gone`
 */
export async function endVaultRows(tx: Transaction, vault: number): Promise<'kept' | 'some' | 'gone'> {
  if (await isTrue(tx, sql.hasBytes, [vault])) return 'kept';
  const { freed, freedLists, damage, damageVersions, hiddenBlocks, deltas, deleteAlerts, holds } = sql;
  for (const some of [freed, freedLists, damage, damageVersions, hiddenBlocks, deltas, deleteAlerts, holds])
    if ((await tx.query(some, [vault])).length >= endingRowsMax) return 'some';
  // After its deltas, which is against the order of locks: folding passes over deltas that are held, so it waits here only
  // when it was first, and what it has made of them is seen.
  await tx.query(sql.deleteUsage, [vault]);
  return (await tx.query(sql.deleteVault, [vault])).length > 0 ? 'gone' : 'kept';
}
