/**
 * The catalog's half of the fence: one row with a nonce that is renewed every minute, and the nonces before it. The
 * bucket's half is an object with the same nonce (storage/archive/checking/fence.ts).
 */
import { type Database, statement, type Transaction } from '../database.ts';

/** As many earlier nonces as are remembered: a PUT of the fence that lands that many beats late is still known as ours. */
const previousMax = 32;

const columns = `f.nonce, f.previous, f.renewed_at AS "renewedAt", now() AS now,
            (SELECT c.catalog_id::text FROM catalog c) AS "catalogId"`;

const sql = {
  read: statement('fence.read', `SELECT ${columns} FROM fence f`),

  // Compares the nonce, so that of all workers one renews it. Repeated after a COMMIT of unknown outcome it changes nothing.
  renew: statement(
    'fence.renew',
    `UPDATE fence SET nonce = $2, previous = $3, renewed_at = now() WHERE nonce IS NOT DISTINCT FROM $1::text`,
  ),

  replace: statement('fence.replace', 'UPDATE fence SET nonce = $1, previous = NULL, renewed_at = now()'),

  setCatalogId: statement('catalog.setId', 'UPDATE catalog SET catalog_id = $1::uuid'),
};

export interface FenceRow {
  /** Null before the first beat of all. */
  nonce: string | null;
  /** Nonces this catalog used before, newest first. */
  previous: string[];
  renewedAt: Date | null;
  /** By the database's clock. */
  now: Date;
  /** What the catalog is called now: another process may have given it a prefix of its own since this one started. */
  catalogId: string;
}

export async function readFence(db: Database | Transaction): Promise<FenceRow> {
  type Row = Omit<FenceRow, 'previous'> & { previous: string | null };
  const [row] = await db.query<Row>(sql.read);
  return { ...row!, previous: row!.previous?.split(' ') ?? [] };
}

/**
 * Puts a fresh nonce in the place of the one that was read, unless another worker did so first: read the row again to
 * see who won.
 */
export async function renewFence(db: Database, was: FenceRow, nonce: string): Promise<void> {
  const previous = was.nonce === null ? [] : [was.nonce, ...was.previous].slice(0, previousMax);
  await db.query(sql.renew, [was.nonce, nonce, previous.length === 0 ? null : previous.join(' ')]);
}

/** Puts a nonce in the row whatever was there before: the nonces of the past count as foreign from now on. For `adopt`. */
export async function replaceFence(tx: Transaction, nonce: string): Promise<void> {
  await tx.query(sql.replace, [nonce]);
}

/** Gives the catalog another name, and so its objects another prefix from now on. For `adopt`. */
export async function setCatalogId(tx: Transaction, catalogId: string): Promise<void> {
  await tx.query(sql.setCatalogId, [catalogId]);
}
