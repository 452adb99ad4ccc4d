/** Writes acts into the log, in the transaction of what they tell. */
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { Act, By } from './act.ts';

const sql = {
  insert: statement(
    'directory.recordAct',
    `INSERT INTO acts (tenant_id, organization_id, party_kind, party_id, party_name, address, action, target_kind, target_id, target_name, result, details)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::jsonb)`,
  ),
};

/** @throws what the database throws: an act that cannot be written undoes what it tells */
export async function record(tx: Transaction, by: By, act: Act): Promise<void> {
  const { party } = by;
  await tx.query(sql.insert, [
    by.tenant,
    act.organization,
    party.kind,
    party.id === null ? null : String(party.id),
    party.name,
    by.address,
    act.action,
    act.target?.kind ?? null,
    act.target === null ? null : String(act.target.id),
    act.target?.name ?? null,
    act.result,
    JSON.stringify(act.details),
  ]);
}
