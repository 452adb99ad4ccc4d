import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { settingsMarkdown } from './commands/help.ts';
import { ConfigError, type ConfigPurpose, defaultDataFolder, loadConfig, settingsReference } from './config.ts';
import { budgetDefaults, httpDefaults } from './http/settings.ts';
import { httpSettings } from './http-settings.ts';

const embedded: ConfigPurpose = { embedded: true, needs: ['database', 'objects', 'tls', 'keys'] };
const services: ConfigPurpose = { embedded: false, needs: ['database', 'objects', 'tls', 'keys'] };
const enough = {
  HOLDFAST_DATABASE_URL: 'postgres://u:secret@db/holdfast',
  HOLDFAST_OBJECTS: 's3',
  HOLDFAST_S3_BUCKET: 'backups',
  HOLDFAST_KEY_FILE: '/run/key',
  HOLDFAST_TLS: 'off',
};

const keyIds = (count: number): string => Array.from({ length: count }, (_, i) => `key-${i}`).join(',');

function mistakes(purpose: ConfigPurpose, environment: Record<string, string>): readonly string[] {
  try {
    loadConfig(purpose, environment);
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
  return [];
}

test('the embedded default needs no setting', () => {
  const config = loadConfig(embedded, { HOLDFAST_DATA: '/data' });
  expect(config).toMatchObject({
    host: '0.0.0.0',
    port: 8443,
    tls: true,
    data: '/data',
    objectsFolder: '/data/objects',
    keyFile: '/data/server-key',
    objectDeleteDelayMs: 3_600_000,
  });
});

test('what is set wins over what is brought along', () => {
  expect(
    loadConfig(embedded, { HOLDFAST_OBJECT_DELETE_DELAY: '2h', HOLDFAST_OBJECTS_FOLDER: '/elsewhere' }),
  ).toMatchObject({ objectDeleteDelayMs: 7_200_000, objectsFolder: '/elsewhere' });
});

test('with services a server starts from the settings alone', () => {
  expect(loadConfig(services, enough)).toMatchObject({
    databaseUrl: enough.HOLDFAST_DATABASE_URL,
    tls: false,
    s3Bucket: 'backups',
    objectDeleteDelayMs: 7 * 86_400_000,
  });
});

test('all mistakes are told at once, each with its variable, what was given and what is expected', () => {
  const said = mistakes(services, {
    HOLDFAST_PORT: '70000',
    HOLDFAST_CLAIM_WINDOW: 'a week',
    HOLDFAST_TLS: 'maybe',
    HOLDFAST_OBJECTS: 's3',
    HOLDFAST_S3_ACCESS_KEY_ID: 'id',
  });
  expect(said).toEqual([
    'HOLDFAST_PORT is "70000"; expected a whole number from 0 to 65535',
    'HOLDFAST_TLS is "maybe"; expected on or off',
    'HOLDFAST_CLAIM_WINDOW is "a week"; expected a time from 1h to 90d, like 30s, 15min, 1h or 7d',
    expect.stringMatching(/^HOLDFAST_DATABASE_URL is not set/),
    expect.stringMatching(/^HOLDFAST_S3_BUCKET is not set/),
    expect.stringMatching(/^HOLDFAST_S3_SECRET_ACCESS_KEY is not set/),
    expect.stringMatching(/^HOLDFAST_TLS_CERTIFICATE is not set/),
    expect.stringMatching(/^HOLDFAST_TLS_KEY is not set/),
    expect.stringMatching(/^HOLDFAST_KEY_FILE is not set/),
  ]);
});

test('where AWS KMS seals no key file is needed, but a key is', () => {
  const { HOLDFAST_KEY_FILE: _, ...others } = enough;
  const kms = { ...others, HOLDFAST_KEY_SERVICE: 'kms' };
  expect(mistakes(services, kms)).toEqual([
    expect.stringMatching(/^HOLDFAST_KMS_KEY_ID is not set; .* HOLDFAST_KEY_SERVICE is kms$/),
  ]);
  expect(mistakes(services, { ...kms, HOLDFAST_KMS_KEY_ID: 'alias/backups' })).toEqual([]);
  expect(mistakes(services, { ...others, HOLDFAST_KMS_KEY_ID: 'alias/backups' })).toEqual([
    expect.stringMatching(/^HOLDFAST_KEY_FILE is not set/),
  ]);
});

test('a secret that is wrong is not shown', () => {
  const [said] = mistakes(embedded, { HOLDFAST_DATABASE_URL: 'mysql://u:hunter2@db' });
  expect(said).toMatch(/^HOLDFAST_DATABASE_URL is a secret of 20 characters/);
  expect(said).not.toContain('hunter2');
});

test('an empty variable is one that is not set', () => {
  const config = loadConfig(embedded, { HOLDFAST_PORT: '', HOLDFAST_REDIS_URL: '' });
  expect(config.port).toBe(8443);
  expect(config.redisUrl).toBeUndefined();
});

test.each([
  ['HOLDFAST_UPLOAD_BUDGET', '64MiB', { uploadBudgetBytes: 64 * 1024 ** 2 }],
  ['HOLDFAST_UPLOAD_BUDGET', '1.5GiB', { uploadBudgetBytes: 1.5 * 1024 ** 3 }],
  ['HOLDFAST_UPLOAD_BUDGET', '67108864', { uploadBudgetBytes: 67_108_864 }],
  ['HOLDFAST_SHUTDOWN_TIMEOUT', '1s', { shutdownTimeoutMs: 1_000 }],
  ['HOLDFAST_SHUTDOWN_TIMEOUT', '10min', { shutdownTimeoutMs: 600_000 }],
  ['HOLDFAST_PORT', '0', { port: 0 }],
  ['HOLDFAST_PORT', '65535', { port: 65_535 }],
  ['HOLDFAST_S3_PATH_STYLE', 'on', { s3PathStyle: true }],
  ['HOLDFAST_KMS_KEY_ID', 'alias/a-b/c', { kmsKeyId: ['alias/a-b/c'] }],
  ['HOLDFAST_KMS_KEY_ID', keyIds(8), { kmsKeyId: keyIds(8).split(',') }],
  [
    'HOLDFAST_KMS_KEY_ID',
    'arn:aws:kms:eu-west-1:111122223333:key/0-a , arn:aws-cn:kms:cn-north-1:111122223333:alias/x',
    { kmsKeyId: ['arn:aws:kms:eu-west-1:111122223333:key/0-a', 'arn:aws-cn:kms:cn-north-1:111122223333:alias/x'] },
  ],
])('%s=%s is understood', (name, value, expected) => {
  expect(loadConfig(embedded, { [name]: value })).toMatchObject(expected);
});

test.each([
  ['HOLDFAST_UPLOAD_BUDGET', '67108863'],
  ['HOLDFAST_UPLOAD_BUDGET', '64MB'],
  ['HOLDFAST_UPLOAD_BUDGET', '-1'],
  ['HOLDFAST_SHUTDOWN_TIMEOUT', '999ms'],
  ['HOLDFAST_SHUTDOWN_TIMEOUT', '601s'],
  ['HOLDFAST_PORT', '65536'],
  ['HOLDFAST_PORT', 'tcp://10.0.0.1:8443'],
  ['HOLDFAST_PORT', '1e3'],
  ['HOLDFAST_OBJECTS', 'azure'],
  ['HOLDFAST_KEY_SERVICE', 'vault'],
  ['HOLDFAST_KMS_KEY_ID', keyIds(9)],
  ['HOLDFAST_KMS_KEY_ID', 'a,'],
  ['HOLDFAST_KMS_KEY_ID', 'a,a'],
  ['HOLDFAST_KMS_KEY_ID', 'a key'],
  ['HOLDFAST_KMS_KEY_ID', 'arn:aws:s3:::bucket'],
  ['HOLDFAST_KMS_ENDPOINT', 'kms.example.com'],
])('%s=%s is refused', (name, value) => {
  expect(mistakes(embedded, { [name]: value })).toEqual([expect.stringMatching(new RegExp(`^${name} is `))]);
});

test('a variable that only looks like a setting is pointed out', () => {
  const config = loadConfig(embedded, {
    HOLDFAST_PROT: '1',
    HOLDFAST_AGENT_HOME: '/a',
    HOLDFAST_TEST_SERVICES: '1',
    PATH: '/bin',
  });
  expect(config.unknownVariables).toEqual(['HOLDFAST_PROT']);
});

describe('a configuration file', () => {
  let folder: string;
  const inFile = (content: string): Record<string, string> => {
    writeFileSync(join(folder, 'config.json'), content);
    return { HOLDFAST_CONFIG: join(folder, 'config.json') };
  };
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'holdfast-config-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  test('gives what the environment does not', () => {
    const environment = inFile('{ "port": 9000, "tls": false, "claimWindow": "2d", "host": "::1" }');
    expect(loadConfig(embedded, { ...environment, HOLDFAST_HOST: '127.0.0.1' })).toMatchObject({
      port: 9000,
      tls: false,
      claimWindowMs: 172_800_000,
      host: '127.0.0.1',
    });
  });

  test('is checked with the rest', () => {
    const environment = inFile('{ "port": "many", "prot": 1 }');
    expect(mistakes(embedded, { ...environment, HOLDFAST_TLS: '?' })).toEqual([
      expect.stringContaining('"prot" in '),
      expect.stringMatching(/^"port" in .* is "many"/),
      expect.stringMatching(/^HOLDFAST_TLS/),
    ]);
  });

  test.each(['[]', '{', 'null'])('%s is refused', (content) => {
    expect(mistakes(embedded, inFile(content))).toEqual([expect.stringMatching(/^HOLDFAST_CONFIG: /)]);
  });
});

test.each([
  ['linux', true, {}, '/var/lib/holdfast'],
  ['linux', false, {}, '/home/ann/.local/share/holdfast'],
  ['linux', false, { XDG_DATA_HOME: '/xdg' }, '/xdg/holdfast'],
  ['darwin', false, {}, '/home/ann/Library/Application Support/Holdfast'],
  ['win32', false, { LOCALAPPDATA: 'C:\\Users\\ann\\AppData\\Local' }, 'C:\\Users\\ann\\AppData\\Local\\Holdfast'],
] as const)('on %s (root: %s) the data lie in their usual place', (platform, root, environment, folder) => {
  expect(defaultDataFolder({ platform, root, environment, home: '/home/ann' })).toBe(folder);
});

test("the settings' defaults are the HTTP shell's own", () => {
  const { tls: _, ...settings } = httpSettings(loadConfig(embedded, {}), { key: '', cert: '' });
  const { tls: __, ...defaults } = { ...httpDefaults, budget: budgetDefaults };
  expect(settings).toEqual(defaults);
});

test('the printed reference and docs/configuration.md are current', () => {
  expect(settingsReference().map(({ says, expected }) => says && expected)).not.toContain('');
  expect(readFileSync(new URL('../docs/configuration.md', import.meta.url), 'utf8')).toBe(settingsMarkdown());
});
