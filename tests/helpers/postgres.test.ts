import { afterAll, beforeAll, expect, test } from '@jest/globals';
import pg from 'pg';
import { type TestDatabase, testDatabase } from './postgres.ts';

let databases: TestDatabase[] = [];

beforeAll(async () => {
  databases = await Promise.all([testDatabase(), testDatabase(), testDatabase({ migrated: false })]);
});

afterAll(async () => {
  await Promise.all(databases.map((database) => database.drop()));
});

async function ask(connectionString: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

test('every test database is its own, and migrated unless asked otherwise', async () => {
  const [one, other, empty] = databases;
  await ask(one!.connectionString, "INSERT INTO tenants (name) VALUES ('only here')");
  expect(await ask(one!.connectionString, 'SELECT name FROM tenants')).toEqual([{ name: 'only here' }]);
  expect(await ask(other!.connectionString, 'SELECT name FROM tenants')).toEqual([]);
  expect(await ask(empty!.connectionString, "SELECT to_regclass('tenants') AS tenants")).toEqual([{ tenants: null }]);
});
