/**
 * Writes acts into the log. One that was done is written in the transaction of what it tells: one round trip, in which
 * the database numbers and chains it under the lock of the log's head. That lock is kept until the transaction ends, so
 * it comes last: after every other lock of the directory, and the server's own log after a tenant's.
 */
import { type Database, statement, type Transaction } from '../../../storage/catalog/database.ts';
import { type Act, type By, serverLog } from './act.ts';
import { cleanText, detailsText } from './clean.ts';
import { isAmongFirst } from './repeats.ts';

const sql = {
  insert: statement(
    'directory.recordAct',
    `INSERT INTO acts (tenant_id, organization_id, party_kind, party_id, party_name, address, action, target_kind, target_id, target_name, result, details)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::json)`,
  ),
};

const idMax = 128;

/** @throws what the database throws: an act that cannot be written undoes what it tells */
export async function record(tx: Transaction, by: By, act: Act): Promise<void> {
  const { party } = by;
  const { target } = act;
  await tx.query(sql.insert, [
    by.tenant ?? serverLog,
    act.organization,
    party.kind,
    party.id === null ? null : cleanText(String(party.id), idMax),
    cleanText(party.name),
    by.address === null ? null : cleanText(by.address, idMax),
    act.action,
    target?.kind ?? null,
    target === null ? null : cleanText(String(target.id)),
    target === null || target.name === null ? null : cleanText(target.name),
    act.result,
    detailsText(act.details),
  ]);
}

/**
 * Writes what was refused or failed, in a transaction of its own: there is no other that it belongs to. Bounded, because
 * anybody can be refused as often as they like (repeats.ts).
 * @returns whether it was written; otherwise it was counted, and is told with others in one act later
 */
export function recordAlone(database: Database, by: By, act: Act): Promise<boolean> {
  return database.transaction((tx) => recordFirst(tx, by, act));
}

/** The same in a transaction that there is: what counts is locked right before the log's head. */
export async function recordFirst(tx: Transaction, by: By, act: Act): Promise<boolean> {
  if (!(await isAmongFirst(tx, by, act))) return false;
  await record(tx, by, act);
  return true;
}
