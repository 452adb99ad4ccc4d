import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type Database, databaseDefaults, openDatabase, type Statement } from '../../../storage/catalog/database.ts';
import { putVaultKey } from '../../../storage/catalog/vaults.ts';
import { type KmsServer, startKmsServer } from '../../../tests/helpers/kms-server.ts';
import { type TestDatabase, testDatabase } from '../../../tests/helpers/postgres.ts';
import { newServerKey, openKeyFile, putFirstKey } from './key-file.ts';
import { type KeyService, KeyServiceError, vaultKeyContext } from './key-service.ts';
import { localKeyService, nameOfServerKey } from './local-keys.ts';
import { openKeyService } from './open-key-service.ts';
import { sealingKeyOf } from './records.ts';
import { countSealedRecords, resealRecords } from './reseal.ts';
import { hasFileSealedRecords } from './sealed/kinds.ts';

const by = { party: { kind: 'server', id: null, name: 'root on here' } } as const;
const [old, fresh] = [newServerKey(), newServerKey()];
const oldKeys = localKeyService([old]);
const bothKeys = localKeyService([fresh, old]);

let test_: TestDatabase;
let database: Database;
let tenants: number[];
/** The vault keys themselves, by user. */
let plain: Map<number, Buffer>;

beforeAll(async () => {
  test_ = await testDatabase();
  database = openDatabase({ ...databaseDefaults, connectionString: test_.connectionString });
});
afterAll(async () => {
  await database?.close();
  await test_?.drop();
});
beforeEach(async () => {
  plain = new Map();
  await ask('TRUNCATE vaults, users, tenants, organizations CASCADE');
  tenants = [await addTenant(), await addTenant()];
});

const ask = <Row>(text: string, values: unknown[] = []): Promise<Row[]> =>
  database.query<Row>({ name: '', text } satisfies Statement, values);

async function addTenant(): Promise<number> {
  const [row] = await ask<{ tenant: number }>(
    `WITH t AS (INSERT INTO tenants (name) VALUES ('tenant') RETURNING tenant_id),
          id AS MATERIALIZED (SELECT nextval(pg_get_serial_sequence('organizations', 'organization_id')) AS id)
     INSERT INTO organizations (organization_id, tenant_id, name, registration_key, path) OVERRIDING SYSTEM VALUE
     SELECT id, tenant_id, 'top', 'KEY-' || id, ARRAY[id] FROM t, id RETURNING tenant_id AS tenant`,
  );
  return row!.tenant;
}

/** So many users with a vault each, by turns in the one and the other tenant. */
async function addVaults(count: number, keys: KeyService = oldKeys): Promise<number[]> {
  const rows = await ask<{ user: number; vault: number }>(
    `WITH u AS (INSERT INTO users (tenant_id, organization_id, name, password_hash)
                SELECT o.tenant_id, o.organization_id, gen_random_uuid()::text, '' FROM generate_series(1, $1::int) n
                  JOIN organizations o ON o.tenant_id = ($2::bigint[])[1 + n % 2] RETURNING user_id)
     INSERT INTO vaults (user_id) SELECT user_id FROM u ORDER BY user_id RETURNING user_id AS "user", vault_id AS vault`,
    [count, tenants],
  );
  await database.transaction(async (tx) => {
    for (const { user, vault } of rows) {
      const key = plain.get(user) ?? randomBytes(32);
      plain.set(user, key);
      const record = await keys.seal(key, vaultKeyContext(user, 1));
      await putVaultKey(tx, vault, { generation: 1, level: 'standard', record });
    }
  });
  return rows.map(({ vault }) => vault);
}

const records = () =>
  ask<{ vault: number; user: number; level: string; record: Buffer }>(
    'SELECT vault_id AS vault, user_id AS "user", level, record FROM vault_keys JOIN vaults USING (vault_id) ORDER BY 1',
  );

/** Every sealed key opens, and is the one that it was. */
async function expectAllOpen(keys: KeyService): Promise<void> {
  const rows = (await records()).filter(({ level }) => level === 'standard');
  expect(rows.length).toBeGreaterThan(0);
  for (const { user, record } of rows)
    expect(await keys.unseal(record, vaultKeyContext(user, 1))).toEqual(plain.get(user));
}

const reseal = (keys: KeyService, options?: Parameters<typeof resealRecords>[2]) =>
  resealRecords({ database, keys }, by, options);
const counts = async (keys: KeyService) =>
  Object.fromEntries(
    (await countSealedRecords({ database, keys })).map(({ name, use, records }) => [name, [use, records]]),
  );
const [oldName, freshName] = [nameOfServerKey(old), nameOfServerKey(fresh)];

describe('sealing anew', () => {
  test('what an older key sealed is sealed with the first; then the old key is of no more use', async () => {
    await addVaults(5);
    await addVaults(2, bothKeys);
    expect(await counts(bothKeys)).toEqual({ [freshName]: ['seals', 2], [oldName]: ['opens', 5] });
    const before = await records();
    expect(await reseal(bothKeys)).toEqual({ looked: 7, resealed: 5, failed: new Map() });
    expect(await counts(bothKeys)).toEqual({ [freshName]: ['seals', 7], [oldName]: ['opens', 0] });
    await expectAllOpen(localKeyService([fresh]));
    const after = await records();
    expect(after.slice(5)).toEqual(before.slice(5)); // those of the new key are not touched
    expect(await reseal(bothKeys)).toEqual({ looked: 7, resealed: 0, failed: new Map() });
    expect(await records()).toEqual(after);
  });

  test('each tenant has it in its log, with the keys by name and nothing of them', async () => {
    const vaults = await addVaults(4);
    await reseal(bothKeys);
    for (const [i, tenant] of tenants.entries()) {
      const [act, ...more] = await ask<{
        party: string;
        action: string;
        details: Record<string, unknown>;
        text: string;
      }>(
        `SELECT party_name AS party, action, details, a::text AS text FROM acts a WHERE tenant_id = $1 AND action LIKE 'key.%'`,
        [tenant],
      );
      expect(more).toEqual([]);
      expect(act).toMatchObject({
        party: 'root on here',
        action: 'key.reseal',
        details: { what: 'vaultKeys', records: 2, from: [oldName], to: [freshName] },
      });
      // Users by turns: the first is the second tenant's.
      expect(act!.details.vaults).toEqual(vaults.filter((_, n) => (n + 1) % 2 === i));
      for (const key of [...plain.values(), old, fresh]) expect(act!.text).not.toContain(key.toString('hex'));
    }
    await reseal(bothKeys);
    const [{ acts } = { acts: 0 }] = await ask<{ acts: number }>(
      `SELECT count(*)::int AS acts FROM acts WHERE action = 'key.reseal' AND tenant_id = ANY ($1)`,
      [tenants],
    );
    expect(acts).toBe(2);
  });

  test('interrupted between two batches it keeps what it did, and goes on from there', async () => {
    await addVaults(250);
    const stop = new AbortController();
    const told: number[] = [];
    const onProgress = ({ looked }: { looked: number }): void => {
      told.push(looked);
      stop.abort(new Error('interrupted'));
    };
    await expect(reseal(bothKeys, { signal: stop.signal, onProgress })).rejects.toThrow('interrupted');
    expect(told).toEqual([100]);
    expect(await counts(bothKeys)).toEqual({ [freshName]: ['seals', 100], [oldName]: ['opens', 150] });
    await expectAllOpen(bothKeys);
    expect(await reseal(bothKeys)).toMatchObject({ looked: 250, resealed: 150 });
    await expectAllOpen(localKeyService([fresh]));
  });

  test('two at a time seal every key once, and none is lost', async () => {
    await addVaults(120);
    const done = await Promise.all([reseal(bothKeys), reseal(bothKeys)]);
    expect(done[0]!.resealed + done[1]!.resealed).toBe(120);
    await expectAllOpen(localKeyService([fresh]));
  });

  test('beside a transaction that changes the row: what that has put there stays', async () => {
    const [vault, ...others] = await addVaults(3);
    const wrapped = randomBytes(96);
    let go = (): void => {};
    const held = new Promise<void>((resolve) => {
      go = resolve;
    });
    let locked = (): void => {};
    const isLocked = new Promise<void>((resolve) => {
      locked = resolve;
    });
    const raising = database.transaction(async (tx) => {
      const text = `UPDATE vault_keys SET level = 'password', record = $2 WHERE vault_id = $1`;
      await tx.query({ name: '', text }, [vault, wrapped]);
      locked();
      await held;
    });
    await isLocked;
    const resealing = reseal(bothKeys);
    // It waits for the row: only then does the other commit.
    for (let waiting = 0; waiting === 0; await sleep(10)) {
      const text = `SELECT count(*)::int AS waiting FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`;
      waiting = (await ask<{ waiting: number }>(text))[0]!.waiting;
    }
    go();
    await raising;
    expect(await resealing).toMatchObject({ looked: 3, resealed: 2 });
    const rows = await records();
    expect(rows.find((row) => row.vault === vault)).toMatchObject({ level: 'password', record: wrapped });
    expect(rows.filter((row) => others.includes(row.vault)).map((row) => sealingKeyOf(row.record))).toEqual([
      freshName,
      freshName,
    ]);
  });

  test('keys that cannot be opened are left as they are and told by the key that is missing; the others are done', async () => {
    const lost = localKeyService([newServerKey()]);
    const [lostName] = await lost.keys();
    await addVaults(2, lost);
    const [damaged] = await addVaults(3);
    await ask(`UPDATE vault_keys SET record = '\\x0102' WHERE vault_id = $1`, [damaged]);
    const before = await records();
    const { failed, ...done } = await reseal(bothKeys);
    expect(done).toEqual({ looked: 5, resealed: 2 });
    expect(Object.fromEntries(failed)).toEqual({
      [lostName!]: { records: 2, why: expect.stringContaining('not in the key file') },
      unknown: { records: 1, why: 'this is no record of the key service' },
    });
    expect((await records()).slice(0, 3)).toEqual(before.slice(0, 3));
    expect(await counts(bothKeys)).toMatchObject({
      [lostName!]: ['missing', 2],
      null: ['missing', 1],
      [freshName]: ['seals', 2],
    });
  });

  test('when the service goes away in the middle, it stops; what was done stays', async () => {
    await addVaults(150);
    let seals = 0;
    const failing: KeyService = {
      ...bothKeys,
      async seal(bytes, context) {
        if (++seals > 120) throw new KeyServiceError('unreachable', 'away');
        return bothKeys.seal(bytes, context);
      },
    };
    await expect(reseal(failing)).rejects.toThrow('away');
    expect(await counts(bothKeys)).toEqual({ [freshName]: ['seals', 100], [oldName]: ['opens', 50] });
    await expectAllOpen(bothKeys);
  });

  test('what does not open to the same key replaces nothing', async () => {
    await addVaults(3);
    const before = await records();
    const forgetful: KeyService = { ...bothKeys, seal: (_, context) => bothKeys.seal(randomBytes(32), context) };
    await expect(reseal(forgetful)).rejects.toThrow('does not open to the same secret');
    expect(await records()).toEqual(before);
  });

  test('keys of levels that the server cannot open are not touched', async () => {
    const [vault] = await addVaults(1);
    await ask(`UPDATE vault_keys SET level = 'password', record = '\\x01' WHERE vault_id = $1`, [vault]);
    expect(await reseal(bothKeys)).toMatchObject({ looked: 0, resealed: 0 });
    expect(await hasFileSealedRecords(database)).toBe(false);
  });
});

describe('from one service to the other', () => {
  let folder: string;
  let keyFile: string;
  let kms: KmsServer;
  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'holdfast-reseal-'));
    keyFile = join(folder, 'server-key');
    kms = await startKmsServer();
    process.env.AWS_ACCESS_KEY_ID = kms.credential.accessKeyId;
    process.env.AWS_SECRET_ACCESS_KEY = kms.credential.secretAccessKey;
  });
  afterEach(async () => {
    rmSync(folder, { recursive: true });
    delete process.env.AWS_ACCESS_KEY_ID;
    delete process.env.AWS_SECRET_ACCESS_KEY;
    await kms.close();
  });

  test('a server that is running follows a rotation and the sealing anew', async () => {
    const running = openKeyFile(keyFile, { create: true });
    await addVaults(3, running);
    putFirstKey(keyFile, newServerKey());
    const command = openKeyFile(keyFile, { create: false });
    expect(await reseal(command)).toMatchObject({ resealed: 3 });
    await expectAllOpen(running);
    expect(await hasFileSealedRecords(database)).toBe(true);
  });

  test('file to AWS KMS, with both in use on the way, and back', async () => {
    const key = kms.addKey();
    const settings = { keyFile, kmsKeyId: [key.arn], kmsEndpoint: kms.endpoint };
    const file = openKeyService({ ...settings, keyService: 'file' }, { createFile: true });
    await addVaults(9, file);
    const onKms = openKeyService({ ...settings, keyService: 'kms' }, { createFile: false });
    await addVaults(1, onKms);
    const [ofFile] = await file.keys();
    expect(await counts(onKms)).toEqual({ [key.arn]: ['seals', 1], [ofFile!]: ['opens', 9] });
    // A server that still seals with the file, and one that does not: each opens everything.
    await expectAllOpen(file);
    await expectAllOpen(onKms);
    expect(await reseal(onKms)).toMatchObject({ looked: 10, resealed: 9 });
    expect(await counts(onKms)).toEqual({ [key.arn]: ['seals', 10], [ofFile!]: ['opens', 0] });
    expect(await hasFileSealedRecords(database)).toBe(false);
    await expectAllOpen(
      openKeyService({ ...settings, keyFile: join(folder, 'none'), keyService: 'kms' }, { createFile: false }),
    );
    expect(await reseal(file)).toMatchObject({ looked: 10, resealed: 10 });
    key.state = 'PendingDeletion';
    await expectAllOpen(openKeyFile(keyFile, { create: false }));
  });

  test('a service that may seal and not open takes no record away', async () => {
    const key = kms.addKey();
    const settings = { keyFile, kmsKeyId: [key.arn], kmsEndpoint: kms.endpoint };
    await addVaults(3, openKeyService({ ...settings, keyService: 'file' }, { createFile: true }));
    const before = await records();
    key.mayDecrypt = false;
    const onKms = openKeyService({ ...settings, keyService: 'kms' }, { createFile: false });
    await expect(reseal(onKms)).rejects.toThrow('AccessDeniedException');
    expect(await records()).toEqual(before);
  });
});
