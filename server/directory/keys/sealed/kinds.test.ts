/** That the list of what is sealed is whole, and that after a rotation each of it opens where it is used. */
import { randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Secret } from 'otpauth';
import type { Transaction } from '../../../../storage/catalog/database.ts';
import { holdVaultKey } from '../../../../storage/catalog/vault-keys.ts';
import { putVaultKey } from '../../../../storage/catalog/vaults.ts';
import { readSources } from '../../../../tests/helpers/architecture.ts';
import { type Directory, openDirectory } from '../../directory.ts';
import { openStagedKey, stagedKeyContext } from '../../restores/staging/keys.ts';
import { insertStaged, readLiveStaged } from '../../restores/staging/rows.ts';
import { beginProviderSignIn, finishProviderSignIn } from '../../sign-in/openid/provider-sign-in.ts';
import { createProvider, prepareProvider, sealSecret, updateProvider } from '../../sign-in/openid/providers.ts';
import { CreateProviderRequest, UpdateProviderRequest } from '../../sign-in/openid/shapes.ts';
import { type TestProvider, testProvider } from '../../sign-in/openid/test-provider.ts';
import { generator } from '../../sign-in/second-factor/codes.ts';
import { beginSecondFactor, confirmSecondFactor, drawSecondFactor } from '../../sign-in/second-factor/second-factor.ts';
import { signInOperator, signInUser } from '../../sign-in/sessions/begin.ts';
import type { Owner } from '../../sign-in/sessions/sessions.ts';
import { drawTokens } from '../../sign-in/sessions/tokens-of-session.ts';
import { home, password, signInWorld, type World } from '../../sign-in/test-world.ts';
import { newServerKey } from '../key-file.ts';
import { type KeyService, vaultKeyContext } from '../key-service.ts';
import { localKeyService, nameOfServerKey } from '../local-keys.ts';
import { sealingKeyOf } from '../records.ts';
import { countSealedRecords, resealRecords } from '../reseal.ts';
import { unsealVaultKey, unsealVaultKeyForLegal } from '../unseal.ts';
import { hasFileSealedRecords, sealedKinds } from './kinds.ts';

const [oldKey, freshKey] = [newServerKey(), newServerKey()];
const [oldKeys, freshKeys] = [localKeyService([oldKey]), localKeyService([freshKey])];
const bothKeys = localKeyService([freshKey, oldKey]);

let world: World;
let there: TestProvider;
/** Servers with the old key in their file, and with the new one alone. */
let old: Directory;
let fresh: Directory;
let made = 0;

beforeAll(async () => {
  world = await signInWorld();
  there = await testProvider();
  const { database } = world;
  const bounds = { passwordHashesMax: 2, signInsPerMinute: 10_000, plainOpenIdOnLoopback: true };
  old = openDirectory({ database, keys: oldKeys, ...bounds });
  fresh = openDirectory({ database, keys: freshKeys, ...bounds });
});
afterAll(async () => {
  await there?.close();
  await world?.close();
});
beforeEach(async () => {
  await world.query(
    'TRUNCATE vaults, second_factors, operator_second_factors, identity_providers, staged_archives CASCADE',
  );
});

const reseal = (keys: KeyService) =>
  resealRecords({ database: world.database, keys }, { party: { kind: 'server', id: null, name: 'root on here' } });
const changed = <T>(work: (tx: Transaction) => Promise<T>): Promise<T> => world.database.transaction(work);

/** @returns what makes its codes */
async function enrol(of: Owner, name: string, session: number): Promise<() => string> {
  const drawn = await drawSecondFactor(old, of, name);
  await changed((tx) => beginSecondFactor(tx, world.by, of, drawn));
  const totp = generator(Buffer.from(Secret.fromBase32(drawn.shown.secret).bytes));
  const code = (): string => totp.generate();
  await confirmSecondFactor(old, world.by, { of, session, code: code() }, home.address);
  for (const table of ['second_factors', 'operator_second_factors'])
    await world.query(`UPDATE ${table} SET last_step = last_step - 10`);
  return code;
}

type Opens = (directory: Directory) => Promise<unknown>;

async function userWithCodes(): Promise<Opens> {
  const userName = `user${++made}`;
  const user = await world.addUser(userName);
  const { session } = await signInUser(old, { userName, password }, home, drawTokens());
  const code = await enrol({ tenant: world.tenant, user }, userName, session);
  return (directory) => signInUser(directory, { userName, password, code: code() }, home, drawTokens());
}

async function operatorWithCodes(): Promise<Opens> {
  const userName = `operator${++made}`;
  const [row] = await world.query<{ operator: number }>(
    'INSERT INTO operators (name, password_hash) VALUES ($1, $2) RETURNING operator_id AS operator',
    [userName, world.passwordHash],
  );
  const { session } = await signInOperator(old, { userName, password }, home, drawTokens());
  const code = await enrol(row!, userName, session);
  return (directory) => signInOperator(directory, { userName, password, code: code() }, home, drawTokens());
}

/** One whose client has a secret, so nobody signs in by it without. @returns the provider */
async function connect(): Promise<number> {
  const { id: openidClient, secret: openidSecret } = there.client;
  const settings = { createsUsers: true, organization: world.root };
  const request = CreateProviderRequest.parse({
    name: 'Test',
    issuer: there.issuer,
    openidClient,
    openidSecret,
    settings,
  });
  const sealed = await prepareProvider(old, world.tenant, request);
  return (await changed((tx) => createProvider(tx, world.by, { ...request, tenant: world.tenant }, sealed))).id;
}

async function providerWithSecret(): Promise<Opens> {
  const provider = await connect();
  const name = `person${++made}`;
  there.person = { sub: name, email: `${name}@example.com`, email_verified: true, name };
  const { redirectUri } = there;
  return async (directory) => {
    const { url, cookie } = await beginProviderSignIn(
      directory,
      { provider, redirectUri, returnTo: null },
      home.address,
    );
    const query = (await there.visit(url)).search;
    return finishProviderSignIn(directory, { query, cookie, redirectUri }, home, drawTokens());
  };
}

/** Of a new user, one as every vault has it, the other kept for a hold. */
async function vaultKeyAndHeldOne(): Promise<[Opens, Opens]> {
  const user = await world.addUser(`user${++made}`);
  const [row] = await world.query<{ vault: number }>(
    'INSERT INTO vaults (user_id) VALUES ($1) RETURNING vault_id AS vault',
    [user],
  );
  const { vault } = row!;
  const sealed = (generation: number) => oldKeys.seal(randomBytes(32), vaultKeyContext(user, generation));
  const [escrowed, held] = [await sealed(2), await sealed(1)];
  await changed(async (tx) => {
    await putVaultKey(tx, vault, { generation: 1, level: 'password', record: randomBytes(96) });
    await putVaultKey(tx, vault, { generation: 2, level: 'standard', record: escrowed });
    await holdVaultKey(tx, vault, { generation: 1, record: held });
  });
  return [
    (directory) => unsealVaultKey(directory, world.by, { user, vault, generation: 2, reason: 'to see' }),
    (directory) => unsealVaultKeyForLegal(directory, world.by, { user, vault, generation: 1, reason: 'to see' }),
  ];
}

/** Being staged, with the key of its frames. */
async function stagedArchive(): Promise<Opens> {
  const attempt = randomUUID();
  const of = { tenant: world.tenant, restore: ++made };
  const keyRecord = await oldKeys.seal(randomBytes(32), stagedKeyContext(attempt));
  const asker = { kind: 'user', id: 1 } as const;
  const asked = { ...of, user: 1, asker, attempt, keyRecord, reservedBytes: 1, partFrames: 1 };
  await changed((tx) => insertStaged(tx, asked));
  return async ({ keys }) => openStagedKey(keys, attempt, (await readLiveStaged(world.database, of))!.keyRecord!);
}

const outcome = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'opened',
    (error: Error) => String(error.cause ?? error),
  );

test('one of each: sealed anew it opens where it is used, with the old key gone', async () => {
  const opens = {
    secondFactors: [await userWithCodes()],
    operatorSecondFactors: [await operatorWithCodes()],
    providerSecrets: [await providerWithSecret()],
    vaultKeys: await vaultKeyAndHeldOne(),
    stagedKeys: [await stagedArchive()],
  };
  // Without the resealing the old key would be missing, everywhere.
  for (const open of Object.values(opens).flat())
    expect(await outcome(open(fresh))).toContain('that sealed this record is not in the key file');

  const counts = async () => {
    const found = await countSealedRecords({ database: world.database, keys: bothKeys });
    return Object.fromEntries(found.map(({ name, of, records }) => [name, { ...of, records }]));
  };
  const each = { ...Object.fromEntries(sealedKinds.map(({ name }) => [name, opens[name].length])), records: 6 };
  const none = Object.fromEntries(Object.keys(each).map((name) => [name, 0]));
  const [oldName, freshName] = [oldKey, freshKey].map(nameOfServerKey) as [string, string];
  expect(await counts()).toEqual({ [oldName]: each, [freshName]: none });
  expect(await reseal(bothKeys)).toEqual({ looked: 6, resealed: 6, failed: new Map() });
  expect(await counts()).toEqual({ [oldName]: none, [freshName]: each });
  for (const open of Object.values(opens).flat()) expect(await outcome(open(fresh))).toBe('opened');
  expect(await reseal(bothKeys)).toEqual({ looked: 6, resealed: 0, failed: new Map() });
});

test('each is told in the log it is of, by what it is, and a key kept for a hold not as one', async () => {
  await userWithCodes();
  await operatorWithCodes();
  await vaultKeyAndHeldOne();
  await providerWithSecret();
  const before = (await world.acts('key.reseal')).length;
  await reseal(bothKeys);
  const acts = await world.query<{ tenant: number; details: Record<string, unknown> }>(
    `SELECT tenant_id AS tenant, details FROM acts WHERE action = 'key.reseal' ORDER BY at OFFSET $1`,
    [before],
  );
  const { tenant } = world;
  const [from, to] = [oldKey, freshKey].map((key) => [nameOfServerKey(key)]);
  const one = { records: 1, from, to };
  expect(acts).toEqual([
    { tenant, details: { ...one, what: 'vaultKeys', records: 2, vaults: [expect.any(Number), expect.any(Number)] } },
    { tenant, details: { ...one, what: 'secondFactors', users: [expect.any(Number)] } },
    { tenant: 0, details: { ...one, what: 'operatorSecondFactors', operators: [expect.any(Number)] } },
    { tenant, details: { ...one, what: 'providerSecrets', providers: [expect.any(Number)] } },
  ]);
});

describe('a key file that is gone is missed', () => {
  test.each<[what: string, make: () => Promise<unknown>]>([
    ['a second factor', userWithCodes],
    ['an operator’s second factor', operatorWithCodes],
    ['a provider’s secret', connect],
    ['a vault key', vaultKeyAndHeldOne],
    ['the key of a staged restore', stagedArchive],
  ])('when it has sealed %s, and nothing else', async (_what, make) => {
    expect(await hasFileSealedRecords(world.database)).toBe(false);
    await make();
    expect(await hasFileSealedRecords(world.database)).toBe(true);
  });
});

test('a provider without a secret has no record', async () => {
  const provider = await connect();
  await world.query('UPDATE identity_providers SET openid_secret = NULL WHERE provider_id = $1', [provider]);
  expect(await reseal(bothKeys)).toMatchObject({ looked: 0 });
});

test('more than one batch of a kind is done whole, and what an interruption left is done by the next', async () => {
  await world.query(
    `WITH u AS (INSERT INTO users (tenant_id, organization_id, name, password_hash)
                SELECT $1, $2, gen_random_uuid()::text, '' FROM generate_series(1, 201) RETURNING user_id)
     INSERT INTO second_factors (user_id, tenant_id, secret) SELECT user_id, $1, '\\x00' FROM u`,
    [world.tenant, world.root],
  );
  const rows = await world.query<{ user: number }>('SELECT user_id AS "user" FROM second_factors');
  for (const { user } of rows) {
    const sealed = await oldKeys.seal(randomBytes(20), `holdfast second factor, user ${user}`);
    await world.query('UPDATE second_factors SET secret = $2 WHERE user_id = $1', [user, sealed]);
  }
  const stop = new AbortController();
  const stopping = resealRecords(
    { database: world.database, keys: bothKeys },
    { party: { kind: 'server', id: null, name: 'root on here' } },
    { signal: stop.signal, onProgress: () => stop.abort(new Error('interrupted')) },
  );
  await expect(stopping).rejects.toThrow('interrupted');
  expect(await reseal(bothKeys)).toMatchObject({ looked: 201, resealed: 101 });
});

describe('beside a transaction that puts another secret there, what that has put stays', () => {
  /** Holds the transaction open until resealing waits for its row. @returns how many were sealed anew */
  async function beside(change: (tx: Transaction) => Promise<unknown>): Promise<number> {
    let locked = (): void => {};
    const isLocked = new Promise<void>((resolve) => {
      locked = resolve;
    });
    let go = (): void => {};
    const mayGo = new Promise<void>((resolve) => {
      go = resolve;
    });
    const changing = changed(async (tx) => {
      await change(tx);
      locked();
      await mayGo;
    });
    await isLocked;
    const resealing = reseal(bothKeys);
    for (let waiting = 0; waiting === 0; await sleep(10)) {
      const text = `SELECT count(*)::int AS waiting FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()`;
      waiting = (await world.query<{ waiting: number }>(text))[0]!.waiting;
    }
    go();
    await changing;
    return (await resealing).resealed;
  }
  const keysOf = async (column: string, table: string) =>
    (await world.query<{ record: Buffer }>(`SELECT ${column} AS record FROM ${table}`)).map(({ record }) => record);

  test.each<[what: string, ownerOf: () => Promise<Owner>, table: string]>([
    [
      'a user’s second factor',
      async () => ({ tenant: world.tenant, user: await world.addUser(`user${++made}`) }),
      'second_factors',
    ],
    [
      'an operator’s',
      async () =>
        (
          await world.query<{ operator: number }>(
            `INSERT INTO operators (name, password_hash) VALUES ('operator${++made}', '') RETURNING operator_id AS operator`,
          )
        )[0]!,
      'operator_second_factors',
    ],
  ])('%s', async (_what, ownerOf, table) => {
    const of = await ownerOf();
    const [first, second] = [await drawSecondFactor(old, of, 'ann'), await drawSecondFactor(old, of, 'ann')];
    await changed((tx) => beginSecondFactor(tx, world.by, of, first));
    expect(await beside((tx) => beginSecondFactor(tx, world.by, of, second))).toBe(0);
    expect(await keysOf('secret', table)).toEqual([second.sealed]);
    expect((await reseal(bothKeys)).resealed).toBe(1);
  });

  test('a provider’s secret; and a change that leaves it alone keeps the new record', async () => {
    const provider = await connect();
    const of = { issuer: there.issuer, openidClient: there.client.id, openidSecret: 'another' };
    const sealed = await sealSecret(old, world.tenant, of);
    const change = (tx: Transaction, asked: object, secret: Buffer | null) =>
      updateProvider(
        tx,
        world.by,
        { tenant: world.tenant, provider, expected: null, change: UpdateProviderRequest.parse(asked) },
        { sealed: secret },
      );
    expect(await beside((tx) => change(tx, { openidSecret: 'another' }, sealed))).toBe(0);
    expect(await keysOf('openid_secret', 'identity_providers')).toEqual([sealed]);
    expect(await beside((tx) => change(tx, { name: 'Other' }, null))).toBe(1);
    const [record] = await keysOf('openid_secret', 'identity_providers');
    expect(sealingKeyOf(record!)).toBe(nameOfServerKey(freshKey));
    const versions = await world.query('SELECT version, name FROM identity_providers');
    expect(versions).toEqual([{ version: 3, name: 'Other' }]); // two changes, and none of resealing
  });
});

describe('the list', () => {
  /** Bytes that the key service has not made. One that it makes belongs into `sealedKinds`, and not here. */
  const others = [
    'archives.retention_applied',
    'commits.commit_id',
    'device_commands.answer', // names of a folder, as a device told them
    'devices.registered_with',
    'files.name',
    'lists.blocks',
    'run_skipped.path',
    'runs.roots',
    'versions.attributes',
    'versions.blocks',
    'versions.lists',
    'versions.mac',
  ];

  test('names every column of bytes that is not known to be something else', async () => {
    const rows = await world.query<{ column: string }>(
      `SELECT c.relname || '.' || a.attname AS column FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN ('bytea'::regtype, 'bytea[]'::regtype) ORDER BY 1`,
    );
    const isHash = (name: string): boolean => /(\.|_)(hash|sha256|digest)$/.test(name);
    const listed = sealedKinds.flatMap(({ columns }) => columns);
    expect(rows.map(({ column }) => column).filter((name) => !isHash(name))).toEqual([...others, ...listed].sort());
  });

  test('is of everybody who seals', () => {
    const root = fileURLToPath(new URL('../../../..', import.meta.url)).replace(/\/$/, '');
    const services =
      /^server\/directory\/keys\/(key-service|key-file|local-keys|kms-keys|open-key-service|reseal)\.ts$/;
    const sealing = readSources(root, ['server', 'storage'])
      .filter(({ path }) => !/\.test\.ts$|testing/.test(path) && !services.test(path))
      .map(({ path, text }) => [path, text.match(/\bseal\(/g)?.length ?? 0] as const)
      .filter(([, times]) => times > 0);
    // Whoever is added here seals what `sealedKinds` has to know.
    expect(Object.fromEntries(sealing)).toEqual({
      'server/directory/devices/register.ts': 1, // vaultKeys
      'server/directory/restores/staging/stage.ts': 1, // stagedKeys
      'server/directory/sign-in/openid/providers.ts': 1, // providerSecrets
      'server/directory/sign-in/second-factor/second-factor.ts': 1, // secondFactors, operatorSecondFactors
    });
  });
});
