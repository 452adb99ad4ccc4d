/**
 * Everything that the key service has sealed: one list, by which records are counted (`keys list`), sealed anew (`keys
 * reseal`) and missed when a key file is gone. What is sealed and not on it does not open any more when an old key goes, so
 * a test compares the list with the columns of the database and with who seals (kinds.test.ts).
 *
 * Lock order: records are replaced by kind in the order of their ids, and the head of the audit log comes last. Nobody who
 * holds such a row and the log's head asks for another such row.
 */
import { type Database, type Statement, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { replaceHeldVaultKeyRecord } from '../../../../storage/catalog/vault-keys.ts';
import { replaceVaultKeyRecord } from '../../../../storage/catalog/vaults.ts';
import { stagedKeyContext } from '../../restores/staging/keys.ts';
import { providerSecretContext } from '../../sign-in/openid/providers.ts';
import { secretContext } from '../../sign-in/second-factor/codes.ts';
import { vaultKeyContext } from '../key-service.ts';

export interface SealedRecord {
  /** Whose log tells of it. Null: an operator's, or of a user who is gone. */
  tenant: number | null;
  /** Of what it is, in `SealedKind.ids`. */
  id: number;
  record: Buffer;
  /** What the key service was told that it is. */
  context: string;
  /**
   * Puts another record of the same secret in its place, under the lock of its row alone. Both open, so readers need not
   * wait. @returns false when the record is another by now, or gone: whoever came first wins
   */
  replace(tx: Transaction, to: Buffer): Promise<boolean>;
}

export interface SealedKind {
  /** In acts, and in JSON. */
  name: 'vaultKeys' | 'secondFactors' | 'operatorSecondFactors' | 'providerSecrets' | 'stagedKeys';
  /** The same for people, in the plural. */
  label: string;
  /** What `SealedRecord.id` is of, in acts. */
  ids: string;
  /** `table.column`, wherever such records lie. */
  columns: readonly string[];
  /** Every record, in pages of at most so many, by id. What is added meanwhile may be in it or not. */
  pages(db: Database, options: { pageRecords: number }): AsyncGenerator<SealedRecord[]>;
  /** Whether a key file has sealed one. */
  hasOfFile(db: Database): Promise<boolean>;
}

/** @param of.after rows after a place, by it; the place's values are $1 and on, and the last parameter is how many */
function kind<Row extends { tenant: number | null; id: number; record: Buffer }>(of: {
  name: SealedKind['name'];
  label: string;
  ids: string;
  columns: readonly string[];
  after: Statement;
  ofFile: Statement;
  /** Where a row is among the others: positive numbers. */
  place: (row: Row) => readonly number[];
  /** How many numbers a place is. */
  placeLength: number;
  context: (row: Row) => string;
  replace: (tx: Transaction, row: Row, to: Buffer) => Promise<boolean>;
}): SealedKind {
  const sealed = (row: Row): SealedRecord => ({
    tenant: row.tenant,
    id: row.id,
    record: row.record,
    context: of.context(row),
    replace: (tx, to) => of.replace(tx, row, to),
  });
  const { name, label, ids, columns } = of;
  return {
    name,
    label,
    ids,
    columns,
    async *pages(db, { pageRecords }) {
      for (let place: readonly number[] = new Array(of.placeLength).fill(0); ; ) {
        const rows = await db.query<Row>(of.after, [...place, pageRecords]);
        if (rows.length > 0) yield rows.map(sealed);
        const last = rows.at(-1);
        if (!last || rows.length < pageRecords) return;
        place = of.place(last);
      }
    },
    hasOfFile: async (db) => (await db.query(of.ofFile)).length > 0,
  };
}

/** The first byte of what a key file has sealed (records.ts). */
const isOfFile = (column: string): string => `substring(${column} FROM 1 FOR 1) = '\\x01'`;

// A generation is in one of the two tables: raising the level moves it from the first to the second in one transaction.
// They are one kind, for an act must not tell which of them is kept for a hold.
const vaultKeys = kind<{
  tenant: number | null;
  id: number;
  generation: number;
  record: Buffer;
  /** Kept for legal, in held_vault_keys. */
  held: boolean;
  user: number;
}>({
  name: 'vaultKeys',
  label: 'vault keys',
  ids: 'vaults',
  columns: ['vault_keys.record', 'held_vault_keys.record'],
  after: statement(
    'directory.sealedKeysAfter',
    `SELECT k.vault_id AS id, k.generation, k.record, k.held, v.user_id AS "user", u.tenant_id AS tenant
       FROM (SELECT vault_id, generation, record, false AS held FROM vault_keys WHERE level = 'standard'
             UNION ALL SELECT vault_id, generation, record, true FROM held_vault_keys) k
       JOIN vaults v ON v.vault_id = k.vault_id LEFT JOIN users u ON u.user_id = v.user_id
      WHERE (k.vault_id, k.generation) > ($1::bigint, $2::int)
      ORDER BY k.vault_id, k.generation LIMIT $3`,
  ),
  ofFile: statement(
    'directory.anyFileSealedKey',
    `SELECT 1 FROM (SELECT record FROM vault_keys WHERE level = 'standard' UNION ALL SELECT record FROM held_vault_keys) k
      WHERE ${isOfFile('record')} LIMIT 1`,
  ),
  place: ({ id, generation }) => [id, generation],
  placeLength: 2,
  context: ({ user, generation }) => vaultKeyContext(user, generation),
  replace: (tx, { id, generation, record, held }, to) =>
    (held ? replaceHeldVaultKeyRecord : replaceVaultKeyRecord)(tx, { vault: id, generation }, { from: record, to }),
});

/** Records in one column of a table, one for each of its rows or for some of them. */
function column<Row extends { tenant: number | null; id: number; record: Buffer }>(of: {
  name: SealedKind['name'];
  label: string;
  ids: string;
  table: string;
  column: string;
  key: string;
  /** What `Row` has beside `id` and `record`, in SQL. */
  select: string;
  context: (row: Row) => string;
}): SealedKind {
  const { name, label, ids, table, column, key, select, context } = of;
  const replace = statement(
    `directory.replaceSealed.${table}`,
    `UPDATE ${table} SET ${column} = $3 WHERE ${key} = $1 AND ${column} = $2 RETURNING 1`,
  );
  return kind<Row>({
    name,
    label,
    ids,
    columns: [`${table}.${column}`],
    after: statement(
      `directory.sealedAfter.${table}`,
      `SELECT ${key} AS id, ${column} AS record, ${select} FROM ${table}
        WHERE ${key} > $1 AND ${column} IS NOT NULL ORDER BY ${key} LIMIT $2`,
    ),
    ofFile: statement(`directory.anyFileSealed.${table}`, `SELECT 1 FROM ${table} WHERE ${isOfFile(column)} LIMIT 1`),
    place: ({ id }) => [id],
    placeLength: 1,
    context,
    replace: async (tx, { id, record }, to) => (await tx.query(replace, [id, record, to])).length > 0,
  });
}

/** Keys of backups first: when the service goes away on the way, they are what matters most. */
export const sealedKinds: readonly SealedKind[] = [
  vaultKeys,
  column<{ tenant: number; id: number; record: Buffer }>({
    name: 'secondFactors',
    label: 'second factors',
    ids: 'users',
    table: 'second_factors',
    column: 'secret',
    key: 'user_id',
    select: 'tenant_id AS tenant',
    context: ({ tenant, id }) => secretContext({ tenant, user: id }),
  }),
  column<{ tenant: null; id: number; record: Buffer }>({
    name: 'operatorSecondFactors',
    label: 'of operators',
    ids: 'operators',
    table: 'operator_second_factors',
    column: 'secret',
    key: 'operator_id',
    select: 'NULL::bigint AS tenant',
    context: ({ id }) => secretContext({ operator: id }),
  }),
  // The version stays: what administrators see of a provider, and change it from, is as it was.
  column<{ tenant: number; id: number; record: Buffer; issuer: string; openidClient: string }>({
    name: 'providerSecrets',
    label: 'provider secrets',
    ids: 'providers',
    table: 'identity_providers',
    column: 'openid_secret',
    key: 'provider_id',
    select: 'tenant_id AS tenant, issuer, openid_client AS "openidClient"',
    context: ({ tenant, issuer, openidClient }) => providerSecretContext(tenant, issuer, openidClient),
  }),
  column<{ tenant: number; id: number; record: Buffer; attempt: string }>({
    name: 'stagedKeys',
    label: 'staged',
    ids: 'staged',
    table: 'staged_archives',
    column: 'key_record',
    key: 'staged_id',
    select: 'tenant_id AS tenant, attempt',
    context: ({ attempt }) => stagedKeyContext(attempt),
  }),
];

/** Whether a key file has sealed anything: one that is missing then was lost, and a new one opens none of it. */
export async function hasFileSealedRecords(db: Database): Promise<boolean> {
  for (const each of sealedKinds) if (await each.hasOfFile(db)) return true;
  return false;
}
