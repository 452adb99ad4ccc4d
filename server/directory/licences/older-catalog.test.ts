/** What migration 0013 makes of a catalog that is older: who counts since when, and which meters there are. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { databaseDefaults, openDatabase } from '../../../storage/catalog/database.ts';
import { testDatabase } from '../../../tests/helpers/postgres.ts';
import { listLicences } from './reading.ts';

const folder = fileURLToPath(new URL('../../../migrations', import.meta.url));

test('users count since they were made, devices since their oldest version; who is deactivated, until now', async () => {
  const { connectionString, drop } = await testDatabase({ migrated: false });
  const database = openDatabase({ ...databaseDefaults, connectionString, poolMax: 2 });
  try {
    const run = <Row>(text: string): Promise<Row[]> => database.query<Row>({ name: '', text });
    const migrations = readdirSync(folder).sort();
    const until = migrations.indexOf('0013_quotas.sql');
    for (const name of migrations.slice(0, until)) await run(readFileSync(join(folder, name), 'utf8'));
    await run(`
      INSERT INTO tenants (name) VALUES ('tenant');
      INSERT INTO organizations (tenant_id, name, registration_key, path) VALUES (1, 'top', 'key', '{1}');
      INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES (1, 1, 'quotas.bytes', '10'), (1, 1, 'quotas.seats', '10');
      INSERT INTO users (tenant_id, organization_id, name, state, created_at) VALUES
        (1, 1, 'ann', 'active', '2020-01-15'), (1, 1, 'ben', 'blocked', '2020-02-15'), (1, 1, 'carl', 'deactivated', '2020-03-15');
      INSERT INTO vaults (user_id) VALUES (1);
      INSERT INTO archives (vault_id, device_id, last_committed_at, created_at) SELECT 1, n, CASE WHEN n < 7 THEN now() END, '2019-01-01' FROM generate_series(1, 7) n;
      INSERT INTO versions SELECT 1, n, 1, 1, '2021-04-20', 'file', false, 0, 0, '', sha256(''), '' FROM generate_series(1, 5) n;
      INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id, state)
        SELECT 1, 1, n, 'd', 'linux', '1', sha256(n::text::bytea), 1, n, CASE n WHEN 6 THEN 'deactivated' ELSE 'active' END FROM generate_series(1, 7) n`);
    for (const name of migrations.slice(until)) await run(readFileSync(join(folder, name), 'utf8'));

    const { items } = await listLicences(database, { tenant: 1, within: { all: true }, limit: 10 });
    const summary = items.map(({ userName, devices, licences }) => [
      userName,
      devices,
      licences.map(({ takenOn, needed }) => `${takenOn}${needed ? '' : ' !'}`),
    ]);
    expect(summary).toEqual([
      ['ann', 5, ['2020-01-15', '2021-04-20']],
      ['ben', 0, ['2020-02-15']],
      ['carl', 0, ['2020-03-15 !']],
    ]);
    expect(
      await run('SELECT organization_id AS id, bytes, counted_at <= changed_at AS must FROM organization_meters'),
    ).toEqual([{ id: 1, bytes: 0, must: true }]);
  } finally {
    await database.close();
    await drop();
  }
});
