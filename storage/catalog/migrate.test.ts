import { expect, test } from '@jest/globals';
import pg from 'pg';
import { testDatabase } from '../../tests/helpers/postgres.ts';
import { databaseDefaults, openDatabase } from './database.ts';
import { checkCatalog, migrate, SchemaError } from './migrate.ts';

test('two processes that migrate at once both succeed, and each migration is applied by one of them', async () => {
  const database = await testDatabase({ migrated: false });
  try {
    const results = await Promise.all([1, 2, 3].map(() => migrate(database.connectionString)));
    const applied = results.flatMap((result) => result.applied);
    expect(applied.length).toBeGreaterThan(0);
    expect(new Set(applied).size).toBe(applied.length);
    expect((await migrate(database.connectionString)).applied).toEqual([]);
  } finally {
    await database.drop();
  }
});

test('code that is too old for a catalog refuses to touch it', async () => {
  const { connectionString, drop } = await testDatabase();
  const client = new pg.Client({ connectionString });
  await client.connect();
  const database = openDatabase({ ...databaseDefaults, connectionString });
  try {
    expect((await checkCatalog(database)).catalogId).toMatch(/^[0-9a-f-]{36}$/);
    await client.query('UPDATE catalog SET breaking = breaking + 1');
    await expect(checkCatalog(database)).rejects.toThrow(SchemaError);
    await expect(migrate(connectionString)).rejects.toThrow(/newer Holdfast/);
  } finally {
    await database.close();
    await client.end();
    await drop();
  }
});
