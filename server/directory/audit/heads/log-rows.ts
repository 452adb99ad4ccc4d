/** The rows of the audit log as they are verified, signed and expired: everything as it is stored, in the order of numbers. */
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { StoredAct } from '../act-bytes.ts';

const sql = {
  head: statement(
    'directory.actHead',
    `SELECT number, hash, signed_number AS "signedNumber", signed_document AS "signedDocument", signed_stored AS "signedStored",
            expired_to AS "expiredTo" FROM act_heads WHERE tenant_id = $1`,
  ),
  acts: statement(
    'directory.actsInOrder',
    `SELECT tenant_id::text AS tenant, number::text AS number, ((extract(epoch FROM at) * 1000000)::bigint)::text AS at,
            organization_id::text AS organization, party_kind AS "partyKind", party_id AS "partyId", party_name AS "partyName",
            address, action, target_kind AS "targetKind", target_id AS "targetId", target_name AS "targetName", result,
            details::text AS details, hash
       FROM acts WHERE tenant_id = $1 AND acts.number > $2 ORDER BY tenant_id, acts.number LIMIT $3`,
  ),
  // One step along the key for each log.
  logs: statement(
    'directory.actLogs',
    `WITH RECURSIVE logs AS (
       (SELECT tenant_id FROM acts ORDER BY tenant_id LIMIT 1)
       UNION ALL
       SELECT (SELECT a.tenant_id FROM acts a WHERE a.tenant_id > logs.tenant_id ORDER BY a.tenant_id LIMIT 1)
         FROM logs WHERE logs.tenant_id IS NOT NULL)
     SELECT tenant_id AS tenant FROM logs WHERE tenant_id IS NOT NULL
     UNION SELECT tenant_id FROM act_heads ORDER BY 1`,
  ),
  anySigned: statement('directory.anySignedHead', 'SELECT 1 FROM act_heads WHERE signed_number > 0 LIMIT 1'),
  sign: statement('directory.signActHead', 'SELECT sign_act_head($1, $2, $3, $4) AS "isFirst"'),
  stored: statement('directory.actHeadStored', 'SELECT act_head_stored($1, $2)'),
  now: statement('directory.actNow', `SELECT ((extract(epoch FROM now()) * 1000000)::bigint)::text AS now`),
};

export interface LogHead {
  /** Of the newest act; 0: none yet. */
  number: number;
  hash: Buffer;
  /** Of the newest signed head; 0: none yet. */
  signedNumber: number;
  signedDocument: string | null;
  /** It is known to be in the bucket. */
  signedStored: boolean;
  expiredTo: number;
}

export type ActRow = StoredAct & { hash: Buffer };

/** Null: nothing was ever written into this log. */
export async function readLogHead(db: Transaction, tenant: number): Promise<LogHead | null> {
  const [row] = await db.query<LogHead>(sql.head, [tenant]);
  return row ?? null;
}

export const pageActs = 500;

/** Acts above a number, page by page. */
export async function* actsAfter(
  db: Transaction,
  { tenant, after }: { tenant: number; after: number },
  signal?: AbortSignal,
): AsyncGenerator<ActRow> {
  for (let last = after; ; ) {
    signal?.throwIfAborted();
    const page = await db.query<ActRow>(sql.acts, [tenant, last, pageActs]);
    yield* page;
    if (page.length < pageActs) return;
    last = Number(page.at(-1)!.number);
  }
}

/** The act of this number; null when it is not there. */
export async function findAct(db: Transaction, tenant: number, number: number): Promise<ActRow | null> {
  const [row] = await db.query<ActRow>(sql.acts, [tenant, number - 1, 1]);
  return row && Number(row.number) === number ? row : null;
}

/** The tenants that have a log here, in order; 0 is the server's own. */
export async function listLogs(db: Database): Promise<number[]> {
  return (await db.query<{ tenant: number }>(sql.logs)).map(({ tenant }) => tenant);
}

/** Whether a head was ever signed: an audit key that is missing then was lost, and a new one does not take its place. */
export async function hasSignedHeads(db: Database): Promise<boolean> {
  return (await db.query(sql.anySigned)).length > 0;
}

/** Enters the next signed head in place of the one before. @returns false when another worker was first */
export async function enterSignedHead(
  db: Transaction,
  tenant: number,
  next: { number: number; document: string; before: string | null },
): Promise<boolean> {
  const [row] = await db.query<{ isFirst: boolean }>(sql.sign, [tenant, next.number, next.document, next.before]);
  return row!.isFirst;
}

export async function noteHeadStored(db: Transaction, tenant: number, document: string): Promise<void> {
  await db.query(sql.stored, [tenant, document]);
}

/** The database's time, in microseconds since 1970 UTC. */
export async function nowMicroseconds(db: Transaction): Promise<bigint> {
  const [row] = await db.query<{ now: string }>(sql.now);
  return BigInt(row!.now);
}
