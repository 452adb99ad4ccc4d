/** `keys` as operators call it: on a catalog and a key file that the settings name. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { RegisterRequest } from '../../protocol/messages.ts';
import { type Database, databaseDefaults, openDatabase } from '../../storage/catalog/database.ts';
import { type KmsServer, startKmsServer } from '../../tests/helpers/kms-server.ts';
import { type TestDatabase, testDatabase } from '../../tests/helpers/postgres.ts';
import { registerDevice } from '../directory/devices/register.ts';
import { openDirectory } from '../directory/directory.ts';
import { newServerKey, openKeyFile } from '../directory/keys/key-file.ts';
import type { KeyService } from '../directory/keys/key-service.ts';
import { nameOfServerKey } from '../directory/keys/local-keys.ts';
import { unsealVaultKey } from '../directory/keys/unseal.ts';
import { createFirstTenant } from '../directory/organizations/first-tenant.ts';
import { newRegistrationKey } from '../directory/organizations/registration-key.ts';
import { keys } from './keys.ts';
import { runOperatorCommand } from './operator-command.ts';

const main = fileURLToPath(new URL('../main.ts', import.meta.url));
let test_: TestDatabase;
let database: Database;
let folder: string;
let keyFile: string;
/** Of a server that is running all the while. */
let running: KeyService;
let kms: KmsServer;

beforeAll(async () => {
  kms = await startKmsServer();
});
afterAll(() => kms?.close());
beforeEach(async () => {
  test_ = await testDatabase();
  database = openDatabase({ ...databaseDefaults, connectionString: test_.connectionString });
  folder = mkdtempSync(join(tmpdir(), 'holdfast-keys-command-'));
  keyFile = join(folder, 'server-key');
  running = openKeyFile(keyFile, { create: true });
  set({ HOLDFAST_DATABASE_URL: test_.connectionString, HOLDFAST_KEY_FILE: keyFile });
});
afterEach(async () => {
  for (const name of variables.splice(0)) delete process.env[name];
  rmSync(folder, { recursive: true, force: true });
  await database?.close();
  await test_?.drop();
});

const variables: string[] = [];
function set(environment: Record<string, string>): void {
  Object.assign(process.env, environment);
  variables.push(...Object.keys(environment));
}

async function addDevice() {
  const directory = openDirectory({ database, keys: running, passwordHashesMax: 2, signInsPerMinute: 100 });
  const first = {
    name: 'Firm',
    registrationKey: newRegistrationKey(),
    userName: 'ann',
    password: randomBytes(9).toString('hex'),
  };
  await createFirstTenant(directory, first);
  const device = { name: 'laptop', platform: 'linux', agentVersion: '1' };
  const { name: _, ...person } = first;
  const request = RegisterRequest.parse({ ...person, device, vaultKey: { level: 'standard' } });
  const made = await registerDevice(directory, request, '192.0.2.1');
  const [owner] = await ask<{ user: number; tenant: number }>(
    'SELECT user_id AS "user", tenant_id AS tenant FROM users',
  );
  return { ...made, ...owner! };
}

const ask = <Row>(text: string): Promise<Row[]> => database.query<Row>({ name: '', text });

/** @returns what it said, and its exit code */
async function run(...args: string[]): Promise<[said: string, code: number]> {
  const lines: string[] = [];
  const say = (line: string): void => void lines.push(`${line}\n`);
  const code = await runOperatorCommand(keys, args, say, say).catch((error: Error) => {
    say(error.message);
    return 1;
  });
  return [lines.join(''), code];
}
const json = ([said]: [string, number]) =>
  said
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

/** A line of `list --json`, where nothing is sealed but vault keys. */
const count = (name: string | undefined, use: string, vaultKeys: number) => ({
  name,
  use,
  records: vaultKeys,
  of: { vaultKeys, secondFactors: 0, operatorSecondFactors: 0, providerSecrets: 0, stagedKeys: 0 },
});

test('a key is taken out of use: rotate, reseal, list, and its line goes', async () => {
  const { vault, vaultKey, user, tenant } = await addDevice();
  const [before] = await running.keys();
  expect(await run('list')).toEqual([
    `KEY                    USE    VAULT KEYS  SECOND FACTORS  OF OPERATORS  PROVIDER SECRETS  STAGED\n${before}  seals           1               0             0                 0       0\n`,
    0,
  ]);

  const [said, code] = await run('rotate');
  const [fresh] = await running.keys();
  expect([said, code]).toEqual([expect.stringContaining(`${fresh} seals from now on. Keep a copy of ${keyFile}`), 0]);
  expect(await ask("SELECT tenant_id AS tenant, action, details FROM acts WHERE action = 'key.rotate'")).toEqual([
    { tenant: 0, action: 'key.rotate', details: { key: fresh, file: keyFile } },
  ]);
  expect(json(await run('list', '--json'))).toEqual([count(fresh, 'seals', 0), count(before, 'opens', 1)]);

  expect(await run('reseal')).toEqual(['1 record sealed anew, of 1.\n', 0]);
  expect(json(await run('reseal', '--json'))).toEqual([{ done: { looked: 1, resealed: 0, failed: {} } }]);
  const lines = readFileSync(keyFile, 'utf8').split('\n');
  const oldLine = lines.findLastIndex((line) => /^[^#]/.test(line));
  writeFileSync(keyFile, lines.toSpliced(oldLine, 1).join('\n'));
  expect(json(await run('list', '--json'))).toEqual([count(fresh, 'seals', 1)]);
  const by = { tenant, party: { kind: 'server', id: null, name: 'test' }, address: null } as const;
  const opened = await unsealVaultKey({ database, keys: running }, by, {
    user,
    vault,
    generation: 1,
    reason: 'to see',
  });
  expect(vaultKey).toMatchObject({ key: opened });
});

test('a key that is missing is told by list and by reseal, with exit code 1', async () => {
  await addDevice();
  const [lost] = await running.keys();
  const other = newServerKey();
  writeFileSync(keyFile, other.toString('base64'));
  const [listed, code] = await run('list');
  expect(code).toBe(1);
  expect(listed).toContain(
    `${lost}  missing           1               0             0                 0       0\n1 record cannot be opened: put the missing keys back.`,
  );
  expect(await run('reseal')).toEqual([
    `0 records sealed anew, of 1.\n1 record of ${lost} left as they were: the server key ${lost} that sealed this record is not in the key file\n`,
    1,
  ]);
  expect(json(await run('list', '--json'))[0]).toEqual(count(nameOfServerKey(other), 'seals', 0));
});

test('to AWS KMS, where there is nothing to rotate', async () => {
  await addDevice();
  const { arn } = kms.addKey('holdfast');
  const { accessKeyId, secretAccessKey } = kms.credential;
  set({
    HOLDFAST_KEY_SERVICE: 'kms',
    HOLDFAST_KMS_KEY_ID: 'alias/holdfast',
    HOLDFAST_KMS_ENDPOINT: kms.endpoint,
    HOLDFAST_KMS_REGION: kms.region,
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
  });
  const before = readFileSync(keyFile);
  expect(await run('rotate')).toEqual([expect.stringMatching(/^AWS KMS seals: /), 1]);
  expect(readFileSync(keyFile)).toEqual(before);
  expect(await run('reseal')).toEqual(['1 record sealed anew, of 1.\n', 0]);
  expect(json(await run('list', '--json'))).toEqual([
    count(arn, 'seals', 1),
    count((await running.keys())[0], 'opens', 0),
  ]);
});

test('a rotation whose file cannot be written is not in the log', async () => {
  writeFileSync(`${keyFile}.new`, 'of another');
  const before = readFileSync(keyFile);
  expect(await run('rotate')).toEqual([expect.stringContaining('another process is changing the keys'), 1]);
  expect(readFileSync(keyFile)).toEqual(before);
  expect(await ask("SELECT 1 FROM acts WHERE action = 'key.rotate'")).toEqual([]);
});

test.each([[[]], [['rotates']], [['list', 'more']], [['toString']], [['list', '--wat']]])(
  '%j is wrong usage',
  async (args) => {
    const [said, code] = await run(...args);
    expect([said, code]).toEqual([expect.stringContaining('usage: node server/main.ts keys'), 2]);
  },
);

test('without a key file it says so', async () => {
  rmSync(keyFile);
  for (const what of ['list', 'rotate', 'reseal'])
    expect(await run(what)).toEqual([expect.stringContaining(`${keyFile} does not exist`), 1]);
});

test('the program has it', async () => {
  const env = {
    PATH: process.env.PATH,
    HOME: folder,
    HOLDFAST_DATABASE_URL: test_.connectionString,
    HOLDFAST_KEY_FILE: keyFile,
  };
  const { stdout } = await promisify(execFile)(process.execPath, [main, 'keys', 'list', '--json'], { env });
  expect(JSON.parse(stdout)).toEqual(count((await running.keys())[0], 'seals', 0));
});
