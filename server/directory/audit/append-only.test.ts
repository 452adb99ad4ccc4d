/** What the database itself refuses: with one role, as in the embedded default; and with two, as docs/decisions/audit.md sets them up. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { databaseDefaults, openDatabase } from '../../../storage/catalog/database.ts';
import { storageForFile, type TestStorage } from '../../../tests/helpers/storage.ts';
import { newAuditKeyFile, readAuditKeys } from './heads/audit-key.ts';
import { signHeads } from './heads/sign-heads.ts';
import { act, byAda, heldFence, recordMany } from './heads/testing.ts';
import { verifyLog } from './heads/verify-log.ts';
import { record, recordAlone } from './record.ts';
import { searchActs } from './search.ts';
import { tellRepeats } from './tell-repeats.ts';

const tenant = 3;
const role = `app_${process.pid}`;
let app: TestStorage;
// Before the database is dropped. A role is the whole cluster's.
afterAll(async () => {
  await app?.database.close();
  await storage.rows(`DROP OWNED BY ${role}`);
  await storage.rows(`DROP ROLE ${role}`);
});
const storage = storageForFile();
const keys = readAuditKeys(newAuditKeyFile());

beforeAll(async () => {
  await recordMany(storage, tenant, 5);
  await signHeads(storage, keys, heldFence);
  await recordMany(storage, tenant, 2);
});

describe('the one role there is', () => {
  test.each([
    ['UPDATE acts SET party_name = party_name', 'append-only'],
    ['UPDATE acts SET number = 99 WHERE number = 1', 'append-only'],
    ['DELETE FROM acts WHERE number = 1', 'append-only'],
    ['DELETE FROM acts WHERE number = 7', 'append-only'],
    ['TRUNCATE acts', 'append-only'],
    ['DELETE FROM act_heads', 'append-only'],
    ['TRUNCATE act_heads', 'append-only'],
    ['UPDATE act_heads SET number = number - 1', 'only goes forward'],
    [`UPDATE act_heads SET hash = sha256('x')`, 'only goes forward'],
    ['UPDATE act_heads SET expired_to = 6', 'only goes forward'],
    ['SELECT let_acts_expire(3, 6)', 'only goes forward'], // 5 are signed
    ['UPDATE act_heads SET tenant_id = 9', 'only goes forward'],
    [
      `INSERT INTO acts (tenant_id, party_kind, party_name, action, result, details) VALUES (3, 'user', 'x', 'User.Create', 'done', '{}')`,
      'acts_action_check',
    ],
    [
      `INSERT INTO acts (tenant_id, party_kind, party_name, action, result, details) VALUES (3, 'user', 'x', 'a.b', 'perhaps', '{}')`,
      'acts_result_check',
    ],
  ])('is refused: %s', async (sql, why) => {
    await expect(storage.rows(sql)).rejects.toThrow(why);
  });

  test('adds what it adds to the end, whatever number, time and hash it gives', async () => {
    const number = (await storage.rows<{ n: number }>('SELECT number AS n FROM act_heads WHERE tenant_id = 3'))[0]!.n;
    await storage.rows(`INSERT INTO acts (tenant_id, number, at, hash, party_kind, party_name, action, result, details)
                        VALUES (3, 2, '2020-01-01', sha256('x'), 'user', 'x', 'a.b', 'done', '{}')`);
    const [last] = await storage.rows(
      `SELECT number, at > now() - interval '1 hour' AS "isNow" FROM acts WHERE tenant_id = 3 ORDER BY number DESC LIMIT 1`,
    );
    expect(last).toEqual({ number: number + 1, isNow: true });
    expect((await verifyLog(storage, keys, tenant)).findings).toEqual([]);
  });
});

describe('a role that does not own the tables', () => {
  beforeAll(async () => {
    await storage.rows(`CREATE ROLE ${role} LOGIN PASSWORD 'app'`);
    await storage.rows(`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ${role}`);
    const page = readFileSync(join(import.meta.dirname, '../../../docs/decisions/audit.md'), 'utf8');
    const [, sql] = /```sql\n([\s\S]*?)```/.exec(page)!;
    for (const statement of sql!.replaceAll('holdfast_app', role).split(';'))
      if (statement.trim() !== '') await storage.rows(statement);
    const url = new URL(storage.connectionString);
    url.username = role;
    url.password = 'app';
    const database = openDatabase({ ...databaseDefaults, connectionString: url.href, poolMax: 2 });
    app = { ...storage, database, rows: (text, values) => database.query({ name: '', text }, values) };
  });

  test('does all that the server does', async () => {
    await app.database.transaction((tx) => record(tx, byAda(tenant), act()));
    await app.database.transaction((tx) => record(tx, byAda(55), act()));
    await recordAlone(app.database, byAda(tenant), act({ result: 'refused' }));
    await tellRepeats(app.database);
    expect(await signHeads(app, keys, heldFence)).toMatchObject({ signed: 2, refused: 0 });
    expect((await verifyLog(app, keys, tenant)).findings).toEqual([]);
    const page = await searchActs(app.database, 55, {}, { reach: { all: true }, cursor: null, limit: 10 });
    expect(page.items).toHaveLength(1);
    await app.rows('SELECT let_acts_expire(55, 1)');
    expect(await app.rows('SELECT delete_expired_acts(55, 10) AS deleted')).toEqual([{ deleted: 1 }]);
  });

  test.each([
    'UPDATE acts SET party_name = party_name',
    'DELETE FROM acts WHERE number = 1',
    'TRUNCATE acts',
    'UPDATE act_heads SET number = number + 1',
    'INSERT INTO act_heads (tenant_id) VALUES (77)',
    'DELETE FROM act_heads',
    'ALTER TABLE acts DISABLE TRIGGER USER',
    'ALTER TABLE acts ADD more text',
    'DROP TRIGGER chain_act ON acts',
    'DROP TABLE acts CASCADE',
    `SET session_replication_role = 'replica'`,
    'CREATE OR REPLACE FUNCTION act_field(value text) RETURNS bytea LANGUAGE sql STABLE RETURN sha256(convert_to(value, $$UTF8$$))',
    'CREATE OR REPLACE FUNCTION chain_act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$',
  ])('is refused: %s', async (sql) => {
    await expect(app.rows(sql)).rejects.toThrow(/permission denied|must be owner/);
  });

  test('cannot put tables of its own in the way of the functions', async () => {
    await app.database.transaction(async (tx) => {
      await tx.query({ name: '', text: 'CREATE TEMP TABLE act_heads (LIKE public.act_heads INCLUDING ALL)' });
      await tx.query({ name: '', text: 'INSERT INTO pg_temp.act_heads (tenant_id, number) VALUES (3, 0)' });
      await record(tx, byAda(tenant), act());
      const left = await tx.query({ name: '', text: 'SELECT number FROM pg_temp.act_heads' });
      expect(left).toEqual([{ number: 0 }]);
    });
    expect((await verifyLog(storage, keys, tenant)).findings).toEqual([]);
  });
});
