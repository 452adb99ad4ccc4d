/**
 * Lets acts go whose time, as the tenant has set it, is over: always a beginning of the log, up to a signed head. That
 * this was so is signed too and in the bucket before the first row goes; the head stays, and is what the first act that
 * is kept follows on. So a beginning that is missing without such a document was not expired but removed.
 */
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { readSetting, settingDefinitions } from '../../settings/definitions.ts';
import type { By } from '../act.ts';
import { record } from '../record.ts';
import type { AuditKeys } from './audit-key.ts';
import { findAct, readLogHead } from './log-rows.ts';
import { type AuditStorage, LogDisagrees } from './sign-heads.ts';
import { type Expiry, type Head, listSigned, putSigned, readDocument, readSigned, signed } from './signed.ts';

const sql = {
  // A tenant may have several organizations at its top. One that was deleted has none: it left what they said.
  days: statement(
    'directory.auditLogDays',
    `SELECT o.tenant_id AS tenant, s.value FROM organizations o
       LEFT JOIN organization_settings s ON s.organization_id = o.organization_id AND s.name = 'auditLog.days'
      WHERE cardinality(o.path) = 1
     UNION ALL
     SELECT t.tenant_id, coalesce(to_jsonb(t.acts_days), '"unreadable"') FROM tenants t WHERE t.state = 'deleted'
      ORDER BY tenant`,
  ),
  young: statement(
    'directory.firstYoungAct',
    `SELECT min(number) FILTER (WHERE at >= now() - make_interval(days => $3)) AS young, max(number) AS last
       FROM (SELECT number, at FROM acts WHERE tenant_id = $1 AND number > $2 ORDER BY tenant_id, number LIMIT $4) a`,
  ),
  expire: statement('directory.letActsExpire', 'SELECT let_acts_expire($1, $2) AS done'),
  delete: statement('directory.deleteExpiredActs', 'SELECT delete_expired_acts($1, $2) AS deleted'),
};

const lookAtMax = 100_000;
const deleteAtATime = 5_000;

export type ExpireResult = {
  /** Logs looked at. */
  logs: number;
  deleted: number;
  /** Logs whose setting cannot be read, or whose head does not agree: nothing goes. */
  refused: number;
};

/**
 * @param fence asked before each log
 * @throws DeletingStopped
 */
export async function expireLogs(
  storage: AuditStorage,
  keys: AuditKeys,
  fence: { assertHeld(): Promise<void> },
  { signal }: { signal?: AbortSignal } = {},
): Promise<ExpireResult> {
  const result = { logs: 0, deleted: 0, refused: 0 };
  for (const [tenant, days] of await readDays(storage.database)) {
    if (signal?.aborted) return result;
    result.logs++;
    if (days === 'unreadable') {
      result.refused++;
      continue;
    }
    await fence.assertHeld();
    try {
      await letExpire(storage, keys, tenant, days);
    } catch (error) {
      if (!(error instanceof LogDisagrees)) throw error;
      result.refused++; // signing tells it
      continue;
    }
    while (!signal?.aborted) {
      const [row] = await storage.database.query<{ deleted: number }>(sql.delete, [tenant, deleteAtATime]);
      if (!row?.deleted) break;
      result.deleted += row.deleted;
    }
  }
  return result;
}

/** How many days each tenant's acts are kept: the longest of what its top organizations say. */
async function readDays(db: Database): Promise<Map<number, number | 'unreadable'>> {
  const all = new Map<number, number | 'unreadable'>();
  const said = await db.query<{ tenant: number; value: unknown }>(sql.days);
  for (const [tenant, of] of Map.groupBy(said, (row) => row.tenant))
    all.set(tenant, longestDays(of.map(({ value }) => value)));
  return all;
}

/** Of several stored values of `auditLog.days`; null: none is stored. */
export function longestDays(values: readonly unknown[]): number | 'unreadable' {
  let longest = 0;
  for (const value of values) {
    const days =
      value === null ? settingDefinitions['auditLog.days'].byDefault : readSetting('auditLog.days', value).value;
    if (days === undefined) return 'unreadable';
    longest = Math.max(longest, days);
  }
  return longest;
}

async function letExpire(storage: AuditStorage, keys: AuditKeys, tenant: number, days: number): Promise<void> {
  const { database } = storage;
  const logHead = await readLogHead(database, tenant);
  if (!logHead) return;
  const from = [tenant, logHead.expiredTo, days, lookAtMax];
  const [look] = await database.query<{ young: number | null; last: number | null }>(sql.young, from);
  if (!look || look.last === null) return;
  const old = look.young === null ? look.last : look.young - 1;
  const head = await newestHeadUpTo(storage, keys, tenant, { after: logHead.expiredTo, upTo: old });
  if (!head) return;

  const { number, hash, catalog } = head;
  const act = await findAct(database, tenant, number);
  if (act?.hash.toString('hex') !== hash) throw new LogDisagrees(`act ${number} is not the one that was signed`);
  const expiry: Expiry = { kind: 'expiry', format: 1, catalog, tenant, number, hash, days };
  await putSigned(storage, signed(keys, expiry));
  await database.transaction((tx) => enterExpiry(tx, { tenant, number, days, after: logHead.expiredTo }));
}

/** In one transaction with its act. Repeated, it has been done. */
async function enterExpiry(
  tx: Transaction,
  { tenant, number, days, after }: { tenant: number; number: number; days: number; after: number },
): Promise<void> {
  const [row] = await tx.query<{ done: boolean }>(sql.expire, [tenant, number]);
  if (!row?.done) return;
  const by: By = { tenant, party: { kind: 'server', id: null, name: 'Holdfast' }, address: null };
  await record(tx, by, {
    action: 'log.expire',
    target: { kind: 'log', id: tenant, name: null },
    organization: null,
    result: 'done',
    details: { from: after + 1, to: number, days },
  });
}

/** @throws LogDisagrees when it was not signed with a key of ours */
async function newestHeadUpTo(
  storage: AuditStorage,
  keys: AuditKeys,
  tenant: number,
  { after, upTo }: { after: number; upTo: number },
): Promise<Head | null> {
  let newest: string | null = null;
  for await (const { key, number } of listSigned(storage, { kind: 'head', tenant, after })) {
    if (number > upTo) break;
    newest = key;
  }
  if (newest === null) return null;
  const read = readSigned(keys, 'head', { key: newest, text: (await readDocument(storage.objects, newest)) ?? '' });
  if (typeof read === 'string') throw new LogDisagrees(`${newest} in the bucket is not one of ours (${read})`);
  return read.content;
}
