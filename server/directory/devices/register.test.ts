import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  DevicesAnswer,
  RegisterAnswer,
  type RegisterRequest,
  RegisterRequest as RequestSchema,
} from '../../../protocol/messages.ts';
import { type Database, databaseDefaults, openDatabase, statement } from '../../../storage/catalog/database.ts';
import { type TestDatabase, testDatabase } from '../../../tests/helpers/postgres.ts';
import { type Directory, openDirectory } from '../directory.ts';
import { localKeyService } from '../keys/local-keys.ts';
import { hasFileSealedRecords } from '../keys/sealed/kinds.ts';
import { createFirstTenant } from '../organizations/first-tenant.ts';
import { insertOrganization, insertTenant } from '../organizations/inserting.ts';
import { newRegistrationKey } from '../organizations/registration-key.ts';
import { insertUser } from '../users/people.ts';
import { archivesReadableBy, authenticateDevice, listReplaceable } from './access.ts';
import { devicesPerUserMax, vaultHasArchive } from './devices.ts';
import { registerDevice } from './register.ts';

let test_: TestDatabase;
let database: Database;
let directory: Directory;
const serverKey = randomBytes(32);
const address = '192.0.2.1';

beforeAll(async () => {
  test_ = await testDatabase();
  database = openDatabase({ ...databaseDefaults, connectionString: test_.connectionString });
  directory = openDirectory({
    database,
    keys: localKeyService([serverKey]),
    passwordHashesMax: 2,
    signInsPerMinute: 1_000,
  });
});

afterAll(async () => {
  await database?.close();
  await test_?.drop();
});

interface Person {
  registrationKey: string;
  userName: string;
  password: string;
}

/** A tenant with one organization and its users, all with one password. */
async function makeTenant(...names: string[]): Promise<Person[]> {
  const registrationKey = newRegistrationKey();
  const password = randomBytes(6).toString('hex');
  const passwordHash = await directory.passwords.hash(password);
  await database.transaction(async (tx) => {
    const tenantId = await insertTenant(tx, 'tenant');
    const organizationId = await insertOrganization(tx, { tenantId, parentId: null, name: 'root', registrationKey });
    for (const name of names) await insertUser(tx, { tenantId, organizationId, name, passwordHash });
  });
  return names.map((userName) => ({ registrationKey, userName, password }));
}

function request(person: Person, more: Partial<RegisterRequest> = {}): RegisterRequest {
  return RequestSchema.parse({
    ...person,
    device: { name: 'laptop', platform: 'linux', agentVersion: '0.1.0' },
    vaultKey: { level: 'standard' },
    ...more,
  });
}

const register = (person: Person, more: Partial<RegisterRequest> = {}) =>
  registerDevice(directory, request(person, more), address);
const code = (promise: Promise<unknown>) =>
  promise.then(
    () => 'accepted',
    (error: { code?: string }) => error.code,
  );
const run = (name: string, text: string, values: unknown[]) =>
  database.query<Record<string, unknown>>(statement(`test.${name}`, text), values);

test('a registration gives a device that its token opens', async () => {
  const [person] = await makeTenant('ann');
  const answer = await register(person!);
  expect(RegisterAnswer.parse(answer)).toEqual(answer);
  expect(Buffer.from(answer.token, 'base64url')).toHaveLength(32);
  const device = await authenticateDevice(directory, answer.token);
  expect(device).toMatchObject({
    guid: answer.guid,
    deviceName: 'laptop',
    userName: 'ann',
    vault: answer.vault,
    archive: answer.archive,
  });
  expect(await authenticateDevice(directory, randomBytes(32).toString('base64url'))).toBeNull();
  expect(await authenticateDevice(directory, 'no token at all')).toBeNull();
  // 43 characters hold 258 bits: the same token written with another last character is not it.
  const last = answer.token.at(-1)!;
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const twin = answer.token.slice(0, -1) + alphabet[alphabet.indexOf(last) ^ 1];
  expect(await authenticateDevice(directory, twin)).toBeNull();
});

test('a user has so many devices; one may still take the place of another', async () => {
  const [person, other] = await makeTenant('ida', 'jon');
  const { guid } = await register(person!);
  await run(
    'asManyDevicesAsMayBe',
    `INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id)
     SELECT tenant_id, user_id, 5e15 + n, name, platform, agent_version, sha256(n::text::bytea), vault_id, -n
       FROM devices, generate_series(1, $2::int) n WHERE guid = $1::bigint`,
    [guid, devicesPerUserMax - 2],
  );
  const last = await register(person!);
  await expect(register(person!)).rejects.toMatchObject({
    code: 'forbidden',
    message: expect.stringContaining('1000 devices'),
  });
  expect((await register(person!, { replace: last.guid })).guid).toBe(last.guid);
  expect(await code(register(person!))).toBe('forbidden');
  expect(await code(register(other!))).toBe('accepted');
  const rows = await run('devicesLeft', `SELECT count(*)::int AS rows FROM archives WHERE vault_id = $1`, [last.vault]);
  expect(rows).toEqual([{ rows: 2 }]);
});

test('the token is kept as its hash only, and the key of a standard vault sealed only', async () => {
  const [person] = await makeTenant('bob');
  const { token, vault, vaultKey } = await register(person!);
  const rows = await run(
    'everything',
    `SELECT (SELECT string_agg(d::text, '') FROM devices d) || (SELECT string_agg(k::text, '') FROM vault_keys k WHERE vault_id = $1) AS text`,
    [vault],
  );
  const text = String(rows[0]!.text);
  expect(vaultKey.level).toBe('standard');
  if (vaultKey.level !== 'standard') return;
  expect(text).not.toContain(token);
  expect(text).not.toContain(Buffer.from(token, 'base64url').toString('hex'));
  expect(text).not.toContain(vaultKey.key.toString('hex'));
});

test('whichever part of a sign-in is wrong, the answer is the same', async () => {
  const [person] = await makeTenant('cem');
  const [stranger] = await makeTenant('dana');
  const wrong: Person[] = [
    { ...person!, password: 'wrong' },
    { ...person!, userName: 'nobody' },
    { ...person!, registrationKey: 'AAAA-AAAA-AAAA-AAAA' },
    { ...person!, registrationKey: stranger!.registrationKey }, // another tenant's key
    { ...person!, userName: 'c\0em' },
  ];
  const said = await Promise.all(wrong.map((each) => register(each).catch((error) => JSON.stringify(error))));
  expect(new Set(said).size).toBe(1);
  expect(said[0]).toContain('sign_in_failed');
  expect(
    await code(
      register({ ...person!, registrationKey: ` ${person!.registrationKey.toLowerCase()} `, userName: 'CEM' }),
    ),
  ).toBe('accepted');
});

test('a blocked user cannot sign in, and the devices there are back up and do not restore', async () => {
  const [person] = await makeTenant('eve');
  const { token } = await register(person!);
  await run(
    'block',
    `UPDATE users SET state = 'blocked' WHERE tenant_id = (SELECT tenant_id FROM organizations WHERE registration_key = $1)`,
    [person!.registrationKey],
  );
  expect(await code(register(person!))).toBe('sign_in_failed');
  expect(await authenticateDevice(directory, token)).toMatchObject({ mayRestore: false });
});

test('two users who register their first device at the same moment get two vaults', async () => {
  const people = await makeTenant('fay', 'gus', 'hal', 'ida');
  const answers = await Promise.all(people.map((person) => register(person)));
  expect(new Set(answers.map(({ vault }) => vault)).size).toBe(4);
  expect(new Set(answers.map(({ guid }) => guid)).size).toBe(4);
});

test('two devices that one user registers at the same moment share one vault and its key, and have an archive each', async () => {
  for (let round = 0; round < 5; round++) {
    const [person] = await makeTenant(`jo${round}`);
    const answers = await Promise.all(Array.from({ length: 4 }, () => register(person!)));
    expect(new Set(answers.map(({ vault }) => vault)).size).toBe(1);
    expect(new Set(answers.map(({ archive }) => archive)).size).toBe(4);
    expect(
      new Set(answers.map(({ vaultKey }) => (vaultKey.level === 'standard' ? vaultKey.key.toString('hex') : ''))).size,
    ).toBe(1);
    const device = await authenticateDevice(directory, answers[0]!.token);
    const readable = await archivesReadableBy(directory, device!);
    expect(readable.map(({ archive }) => archive).sort()).toEqual(answers.map(({ archive }) => archive).sort());
    expect(readable.filter(({ own }) => own).map(({ archive }) => archive)).toEqual([answers[0]!.archive]);
  }
});

test('the first device decides how the key is kept, later proposals change nothing', async () => {
  const [wraps, checks] = await makeTenant('kim', 'lou');
  const wrapped = randomBytes(100);
  const first = await register(wraps!, { vaultKey: { level: 'password', wrapped } });
  expect(first.vaultKey).toEqual({ level: 'password', generation: 1, wrapped });
  expect((await register(wraps!, { vaultKey: { level: 'standard' } })).vaultKey).toEqual(first.vaultKey);
  const check = randomBytes(16);
  expect((await register(checks!, { vaultKey: { level: 'custom', check } })).vaultKey).toEqual({
    level: 'custom',
    generation: 1,
    check,
  });
});

test('replacing hands over GUID, archive, name and vault, and the old token stops working', async () => {
  const [person] = await makeTenant('max');
  const old = await register(person!);
  const other = await register(person!, { device: { name: 'desktop', platform: 'win32', agentVersion: '1' } });
  const { devices } = DevicesAnswer.parse(await listReplaceable(directory, person!, address));
  expect(devices.map(({ guid }) => guid)).toEqual([other.guid, old.guid]);

  const fresh = await register(person!, {
    replace: old.guid,
    device: { name: 'new laptop', platform: 'darwin', agentVersion: '2' },
  });
  expect(fresh).toMatchObject({
    guid: old.guid,
    archive: old.archive,
    vault: old.vault,
    deviceName: 'laptop',
    vaultKey: old.vaultKey,
  });
  expect(await authenticateDevice(directory, fresh.token)).toMatchObject({ guid: old.guid, archive: old.archive });
  expect(await code(authenticateDevice(directory, old.token))).toBe('device_deauthorized');
  expect(await code(authenticateDevice(directory, other.token))).toBe('accepted');
  // And once more, by the next machine.
  const third = await register(person!, { replace: old.guid });
  expect(third).toMatchObject({ guid: old.guid, archive: old.archive });
  expect(await code(authenticateDevice(directory, fresh.token))).toBe('device_deauthorized');
  expect((await listReplaceable(directory, person!, address)).devices).toHaveLength(2);
  const acts = await run(
    'actsOfDevice',
    `SELECT action FROM acts WHERE target_kind = 'device' AND target_id = $1 AND action LIKE 'device.%' ORDER BY number`,
    [old.guid],
  );
  expect(acts.map(({ action }) => action)).toEqual(['device.register', 'device.replace', 'device.replace']);
  const owner = await run(
    'owner',
    'SELECT d.guid::text AS guid, d.state FROM archives a JOIN devices d USING (device_id) WHERE a.vault_id = $1 AND a.archive_id = $2',
    [old.vault, old.archive],
  );
  expect(owner).toEqual([{ guid: old.guid, state: 'active' }]);
});

test('two installations that replace one device at the same moment: the later one has it, the other is told', async () => {
  const [person] = await makeTenant('ned');
  const old = await register(person!);
  const both = await Promise.all([register(person!, { replace: old.guid }), register(person!, { replace: old.guid })]);
  const working = await Promise.all(both.map(({ token }) => code(authenticateDevice(directory, token))));
  expect(working.sort()).toEqual(['accepted', 'device_deauthorized']);
});

test("another user's device cannot be replaced, and is not told from one that does not exist", async () => {
  const [one, other] = await makeTenant('oda', 'pam');
  const theirs = await register(other!);
  const said = await Promise.all(
    [theirs.guid, '1', '9999999999999999999'].map((replace) =>
      register(one!, { replace }).catch((error) => JSON.stringify(error)),
    ),
  );
  expect(new Set(said).size).toBe(1);
  expect(said[0]).toContain('not_found');
  expect(await code(authenticateDevice(directory, theirs.token))).toBe('accepted');
});

test('a blocked device stays blocked', async () => {
  const [person] = await makeTenant('quin');
  const device = await register(person!);
  await run('blockDevice', `UPDATE devices SET state = 'blocked' WHERE guid = $1::bigint`, [device.guid]);
  expect(await code(register(person!, { replace: device.guid }))).toBe('forbidden');
  expect(await authenticateDevice(directory, device.token)).toMatchObject({ mayRestore: false });
});

test('a device that was signed out works again when it is registered under its GUID', async () => {
  const [person] = await makeTenant('quentin');
  const old = await register(person!);
  await run('signDeviceOut', `UPDATE devices SET state = 'deauthorized' WHERE guid = $1::bigint`, [old.guid]);
  expect(await code(authenticateDevice(directory, old.token))).toBe('device_deauthorized');
  const back = await register(person!, { replace: old.guid });
  expect(back).toMatchObject({ guid: old.guid, archive: old.archive, vault: old.vault });
  expect(await authenticateDevice(directory, back.token)).toMatchObject({ mayRestore: true });
  expect(await code(authenticateDevice(directory, old.token))).toBe('device_deauthorized');
});

test('nobody registers in a deactivated organization, or while it is being deactivated', async () => {
  const [person] = await makeTenant('quirin');
  const deactivate = `UPDATE organizations SET state = 'deactivated' WHERE registration_key = $1`;
  const first = await register(person!);
  // As the verb does it: the tenant's row is locked, and then what is there goes cold.
  const registering = database.transaction(async (tx) => {
    const lock = `SELECT 1 FROM tenants t JOIN organizations o USING (tenant_id) WHERE registration_key = $1 FOR NO KEY UPDATE OF t`;
    await tx.query(statement('test.lockTenantOfKey', lock), [person!.registrationKey]);
    const meanwhile = code(register(person!));
    await tx.query(statement('test.deactivateOrganization', deactivate), [person!.registrationKey]);
    return { meanwhile };
  });
  expect(await (await registering).meanwhile).toBe('sign_in_failed');
  expect(await code(register(person!))).toBe('sign_in_failed');
  expect(await code(authenticateDevice(directory, first.token))).toBe('device_deauthorized');
});

test('a registration whose COMMIT had an unknown outcome enters one device when it is repeated', async () => {
  const [person] = await makeTenant('rob');
  // The first commit happens, and the connection is lost before its answer: the transaction runs again.
  const losing: Database = {
    ...database,
    query: database.query,
    transaction: async (work) => {
      await database.transaction(work);
      return database.transaction(work);
    },
  };
  const answer = await registerDevice({ ...directory, database: losing }, request(person!), address);
  const device = await authenticateDevice(directory, answer.token);
  expect(device).toMatchObject({ guid: answer.guid, archive: answer.archive });
  expect(await archivesReadableBy(directory, device!)).toHaveLength(1);
});

test('an archive is in reach by its own number, however many devices there are', async () => {
  const [person, stranger] = await makeTenant('sam', 'tess');
  const [oldest, theirs] = [await register(person!), await register(stranger!)];
  const { vault, archive } = oldest;
  await run(
    'manyDevices',
    `WITH made AS (
       INSERT INTO archives (vault_id, device_id) SELECT $1, n FROM generate_series(1000001, 1001001) n
       RETURNING archive_id, device_id)
     INSERT INTO devices (device_id, tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id)
     SELECT m.device_id, d.tenant_id, d.user_id, m.device_id, 'many', 'linux', '1', sha256(m.device_id::text::bytea), $1, m.archive_id
       FROM made m CROSS JOIN devices d WHERE d.archive_id = $2`,
    [vault, archive],
  );
  const listed = await archivesReadableBy(directory, (await authenticateDevice(directory, oldest.token))!);
  expect(listed.map((each) => each.archive)).not.toContain(archive);
  expect(await vaultHasArchive(database, { vault, archive })).toBe(true);
  expect(await vaultHasArchive(database, { vault, archive: theirs.archive })).toBe(false);
});

test('a server key that sealed vault keys is not taken for one that was never made', async () => {
  const empty = await testDatabase();
  const own = openDatabase({ ...databaseDefaults, connectionString: empty.connectionString });
  try {
    expect(await hasFileSealedRecords(own)).toBe(false);
  } finally {
    await own.close();
    await empty.drop();
  }
  const [person] = await makeTenant('uma');
  await register(person!);
  expect(await hasFileSealedRecords(database)).toBe(true);
});

test('the first tenant is made once, however often it is asked for', async () => {
  const empty = await testDatabase();
  const own = openDatabase({ ...databaseDefaults, connectionString: empty.connectionString });
  try {
    const fresh = openDirectory({
      database: own,
      keys: localKeyService([serverKey]),
      passwordHashesMax: 2,
      signInsPerMinute: 10,
    });
    const first = { name: 'First', registrationKey: newRegistrationKey(), userName: 'admin', password: 'secret' };
    expect(await createFirstTenant(fresh, first)).toBe(true);
    expect(await createFirstTenant(fresh, { ...first, registrationKey: newRegistrationKey() })).toBe(false);
    expect(first.registrationKey).toMatch(/^(?:[2-9A-HJ-NP-Z]{4}-){3}[2-9A-HJ-NP-Z]{4}$/);
    const { name: _, ...person } = first;
    expect(await code(registerDevice(fresh, request(person), address))).toBe('accepted');
  } finally {
    await own.close();
    await empty.drop();
  }
});
