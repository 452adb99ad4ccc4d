/** For the tests of the log: acts by the dozen, a fence that holds, and the pen of whoever owns the database. */
import pg from 'pg';
import type { TestStorage } from '../../../../tests/helpers/storage.ts';
import type { Act, By } from '../act.ts';
import { record } from '../record.ts';

export const byAda = (tenant: number | null): By => ({
  tenant,
  party: { kind: 'user', id: 7, name: 'ada@example.org' },
  address: '192.0.2.7',
});

export const act = (more: Partial<Act> = {}): Act => ({
  action: 'user.create',
  target: { kind: 'user', id: 9, name: 'grace' },
  organization: null,
  result: 'done',
  details: { from: null, to: 'active' },
  ...more,
});

/** Each in a transaction of its own. */
export async function recordMany(storage: TestStorage, tenant: number | null, count: number): Promise<void> {
  for (let i = 0; i < count; i++)
    await storage.database.transaction((tx) => record(tx, byAda(tenant), act({ details: { i } })));
}

export const heldFence = { assertHeld: async (): Promise<void> => {} };

/** Statements of the database's owner, in one transaction, with the triggers away for as long as they take. */
export async function asOwner(storage: TestStorage, ...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: storage.connectionString });
  await client.connect();
  try {
    await client.query('BEGIN');
    for (const table of ['acts', 'act_heads']) await client.query(`ALTER TABLE ${table} DISABLE TRIGGER USER`);
    for (const statement of statements) await client.query(statement);
    for (const table of ['acts', 'act_heads']) await client.query(`ALTER TABLE ${table} ENABLE TRIGGER USER`);
    await client.query('COMMIT');
  } finally {
    await client.end();
  }
}

/** Makes the acts of a log from a number on follow from one another again, as they stand now; and the log's end. */
export const chainAgain = (tenant: number | string, from: number): string => `
  DO $$
  DECLARE
    a acts;
    previous bytea := coalesce((SELECT hash FROM acts WHERE tenant_id = ${tenant} AND number < ${from} ORDER BY number DESC LIMIT 1),
                               decode(repeat('00', 32), 'hex'));
  BEGIN
    FOR a IN SELECT * FROM acts WHERE tenant_id = ${tenant} AND number >= ${from} ORDER BY number LOOP
      previous := sha256(previous || act_bytes(a));
      UPDATE acts SET hash = previous WHERE tenant_id = a.tenant_id AND number = a.number;
    END LOOP;
    UPDATE act_heads SET hash = previous, number = (SELECT max(number) FROM acts WHERE tenant_id = ${tenant}) WHERE tenant_id = ${tenant};
  END $$`;
