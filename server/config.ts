/**
 * Every setting of the server, from the environment and an optional JSON file (the environment wins), checked as a
 * whole before anything starts: all mistakes are told at once. The only place that reads process.env.
 */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { posix, resolve, win32 } from 'node:path';
import { z } from 'zod';
import {
  choice,
  duration,
  integer,
  names,
  optionalPort,
  path,
  type SettingMeta,
  size,
  text,
  textWithDefault,
  toggle,
  url,
} from './config-values.ts';

/** As many are asked for at each look at what keys there are. */
const kmsKeysMax = 8;

/** In code a setting carries its unit (`uploadBudgetBytes`); its variable and its name in a file do not (`HOLDFAST_UPLOAD_BUDGET`, `uploadBudget`). */
const Settings = z.strictObject({
  host: textWithDefault('0.0.0.0', {
    says: 'Address to listen on. `127.0.0.1` for this machine only, `::` for IPv6 and IPv4.',
  }),
  port: integer({ min: 0, max: 65_535, default: 8443 }, { says: 'Port to listen on; 0 takes a free one.' }),
  workerPort: optionalPort({
    says: 'Port of a `worker` for /livez, /readyz and /metrics, in cleartext; 0 takes a free one. Not used by `api` and `all`, which answer them on their own port.',
  }),
  publicUrl: url(['https', 'http'], {
    says: 'Where agents reach the server, when that differs from host and port (behind an ingress).',
    defaultText: 'https://localhost:PORT',
  }),
  tls: toggle('on', {
    says: 'HTTPS. `off` serves HTTP/2 without TLS and HTTP/1.1, for use behind an ingress that ends TLS.',
  }),
  tlsCertificate: path({
    says: 'PEM file with the certificate and its chain.',
    defaultText: 'embedded: self-signed, kept in the data folder',
  }),
  tlsKey: path({ says: 'PEM file with the private key of the certificate.' }),

  data: path({
    says: 'Data folder of the embedded default: database, objects, keys, certificate.',
    defaultText: 'by system, see below',
  }),
  databaseUrl: url(['postgres', 'postgresql'], {
    says: 'PostgreSQL, 17 or later.',
    secret: true,
    defaultText: 'embedded: a PostgreSQL of its own',
  }),
  databasePoolMax: integer(
    { min: 2, max: 1_000, default: 20 },
    { says: 'Most connections to PostgreSQL per process.' },
  ),
  databaseStatementTimeoutMs: duration(
    { min: '1s', max: '10min', default: '15s' },
    { says: 'Longest run of one SQL statement.' },
  ),
  databaseLockTimeoutMs: duration(
    { min: '100ms', max: '10min', default: '10s' },
    { says: 'Longest wait for one lock.' },
  ),
  databaseTransactionTimeoutMs: duration({ min: '1s', max: '30min', default: '30s' }, { says: 'Longest transaction.' }),
  databaseIdleTimeoutMs: duration(
    { min: '1s', max: '30min', default: '15s' },
    { says: 'Longest pause inside a transaction.' },
  ),
  databaseConnectTimeoutMs: duration(
    { min: '100ms', max: '5min', default: '10s' },
    { says: 'Longest wait for a connection.' },
  ),
  postgresUser: text({
    says: 'System user that runs the embedded PostgreSQL when the server is started by root.',
    defaultText: '`holdfast`, made if missing',
  }),
  redisUrl: url(['redis', 'rediss'], {
    says: 'Redis for the job queue. Without it the queue lives in PostgreSQL.',
    secret: true,
  }),

  objects: choice(['directory', 's3'], 'directory', {
    says: 'Where blocks are kept: in a folder, or in a bucket that speaks S3.',
  }),
  objectsFolder: path({
    says: 'Folder of the object store `directory`.',
    defaultText: 'embedded: `objects` in the data folder',
  }),
  s3Endpoint: url(['https', 'http'], { says: 'Endpoint of the S3 service.', defaultText: 'that of AWS' }),
  s3Region: textWithDefault('us-east-1', { says: 'Region of the bucket.' }),
  s3Bucket: text({ says: 'Bucket of the object store `s3`.' }),
  s3Prefix: text({ says: 'Prefix of every key in the bucket.', defaultText: 'none' }),
  s3PathStyle: toggle('off', {
    says: 'Name the bucket in the path instead of the host name; most services other than AWS want `on`.',
  }),
  s3AccessKeyId: text({ says: 'Access key.', defaultText: 'what the AWS SDK finds (role, instance profile, ...)' }),
  s3SecretAccessKey: text({ says: 'Secret of the access key.', secret: true }),
  keyFile: path({
    says: 'File with the server key (32 bytes, base64) that seals vault keys of level `standard`, second factors and secrets of identity providers. Keep a copy: without it those backups cannot be opened, and no code of a second factor be checked.',
    defaultText: 'embedded: `server-key` in the data folder',
  }),
  auditKeyFile: path({
    says: 'File with the Ed25519 key (PEM) that signs the heads of the audit log hourly. Without it they are not signed. Keep a copy: without it nobody can show that the log was not altered.',
    defaultText: '`audit-key` in the data folder; embedded: made if missing',
  }),
  keyService: choice(['file', 'kms'], 'file', {
    says: 'What seals vault keys of level `standard`, second factors and secrets of identity providers: the key file, or AWS KMS. The other, where it is set too, still opens what it has sealed (`keys --help`).',
  }),
  kmsKeyId: names(
    /^(?:arn:[a-z-]+:kms:[a-z0-9-]+:\d{12}:(?:key\/[A-Za-z0-9-]+|alias\/[\w/-]+)|alias\/[\w/-]+|[A-Za-z0-9-]{1,64})$/,
    kmsKeysMax,
    `up to ${kmsKeysMax} ARNs, ids or aliases of keys, with commas between them`,
    {
      says: 'Keys of AWS KMS. The first seals, each opens what it has sealed. Best named by ARN: an alias may be pointed elsewhere.',
    },
  ),
  kmsRegion: text({
    says: 'Region of KMS keys that are not named by an ARN.',
    defaultText: 'what the AWS SDK finds',
  }),
  kmsEndpoint: url(['https', 'http'], { says: 'Endpoint of KMS.', defaultText: 'that of AWS' }),

  uploadBudgetBytes: size(
    { min: '64MiB', max: '64GiB', default: '64MiB' },
    {
      says: 'Memory for request bodies in flight, per process. Short of it, slow senders are cut, then 503 is answered.',
    },
  ),
  uploadBudgetDeviceBytes: size(
    { min: '1MiB', max: '64GiB', default: '32MiB' },
    { says: 'What one device can have of that budget while others want some.' },
  ),
  uploadMinRateBytes: size(
    { min: '0', max: '1GiB', default: '64KiB' },
    { says: 'Bytes per second below which a sender is cut when others need its room.' },
  ),
  uploadWaitMs: duration(
    { min: '0ms', max: '30s', default: '1s' },
    { says: 'How long a new upload waits for room before 503; one of restic waits up to 30 s.' },
  ),
  bodyIdleTimeoutMs: duration(
    { min: '1s', max: '10min', default: '30s' },
    { says: "Longest pause of a sender inside a request's body." },
  ),
  restoresMax: integer(
    { min: 1, max: 256, default: 128 },
    {
      says: 'Restores to browsers that one process sends at a time; all of them go on side by side. More wait for some seconds, then 503 is answered.',
    },
  ),
  restoresPerPersonMax: integer({ min: 1, max: 256, default: 2 }, { says: 'Of those, for one person.' }),
  restoreBudgetBytes: size(
    { min: '64MiB', max: '64GiB', default: '256MiB' },
    {
      says: 'Memory for the content of restores to browsers, per process: shared by all that are under way, an eighth at most for one. Files up to a sixteenth are looked at whole before they are sent.',
    },
  ),
  stagedRestoreHours: integer(
    { min: 1, max: 168, default: 24 },
    { says: 'How long a staged restore is kept in the bucket, to be fetched.' },
  ),
  stagingBytesMax: size(
    { min: '1MiB', max: '1024TiB', default: '200GiB' },
    {
      says: 'What staged restores take in the bucket at most, all together. On a disk never more than half of what is free.',
      defaultText: '200GiB; embedded: 20GiB',
    },
  ),
  stagingTenantBytesMax: size(
    { min: '1MiB', max: '1024TiB', default: '150GiB' },
    { says: 'Of that, what the people of one tenant have asked for.' },
  ),
  stagingPersonBytesMax: size(
    { min: '1MiB', max: '1024TiB', default: '100GiB' },
    { says: 'Of that, what one person has asked for, themselves or through their API clients.' },
  ),
  downloadsMax: integer(
    { min: 1, max: 4096, default: 128 },
    {
      says: 'Downloads of staged restores that one process sends at a time; what they hold is of HOLDFAST_RESTORE_BUDGET. More wait for some seconds, then 503 is answered.',
    },
  ),
  downloadsPerPersonMax: integer(
    { min: 1, max: 4096, default: 4 },
    { says: 'Of those, for one person, or over the links to one restore.' },
  ),
  downloadsPerTenantMax: integer(
    { min: 1, max: 4096, default: 96 },
    { says: 'Of those, for the people of one tenant.' },
  ),
  streamWindowBytes: size(
    { min: '64KiB', max: '16MiB', default: '256KiB' },
    { says: 'HTTP/2 window of a stream while the budget is short.' },
  ),
  streamWindowMaxBytes: size(
    { min: '64KiB', max: '64MiB', default: '4MiB' },
    { says: 'HTTP/2 window of a stream while the budget has room.' },
  ),
  connectionWindowBytes: size(
    { min: '64KiB', max: '256MiB', default: '16MiB' },
    { says: 'HTTP/2 window of a connection: rate times round trip; 16MiB fills 1 Gbit/s at 100 ms.' },
  ),
  pushExpiresMs: duration(
    { min: '1h', max: '30d', default: '7d' },
    { says: 'How long a device may be away, or silent, before a restore that was pushed to it lapses.' },
  ),
  commandChannelsMax: integer(
    { min: 1, max: 1_000_000, default: 10_000 },
    {
      says: 'Devices that one process tells what to do; each keeps a connection. Never more than three quarters of the connections.',
    },
  ),
  connectionsMax: integer({ min: 16, max: 1_000_000, default: 4_096 }, { says: 'Most connections per process.' }),
  sessionStreamsMax: integer(
    { min: 1, max: 10_000, default: 100 },
    { says: 'Most requests at a time on one HTTP/2 connection.' },
  ),
  headersTimeoutMs: duration(
    { min: '1s', max: '10min', default: '15s' },
    { says: "Longest time for a request's headers (HTTP/1.1)." },
  ),
  requestTimeoutMs: duration(
    { min: '1s', max: '2h', default: '40min' },
    { says: 'Longest time for a request to arrive whole (HTTP/1.1).' },
  ),
  keepAliveTimeoutMs: duration(
    { min: '1s', max: '1h', default: '30s' },
    { says: 'How long an idle connection is kept (HTTP/1.1).' },
  ),
  sessionIdleMs: duration(
    { min: '1s', max: '24h', default: '5min' },
    { says: 'How long a connection without requests is kept (HTTP/2).' },
  ),
  leaveTimeoutMs: duration(
    { min: '0ms', max: '10min', default: '0ms' },
    {
      says: 'When the server stops: how long /readyz says no before requests are refused, for load balancers to look away.',
    },
  ),
  shutdownTimeoutMs: duration(
    { min: '1s', max: '10min', default: '30s' },
    { says: 'How long requests in flight may take to end when the server stops.' },
  ),

  claimWindowMs: duration(
    { min: '1h', max: '90d', default: '7d' },
    { says: 'How long a claimed block is kept for a commit to name it.' },
  ),
  uploadLeaseMs: duration(
    { min: '1min', max: '24h', default: '1h' },
    { says: 'How long an unfinished upload holds its object.' },
  ),
  objectDeleteDelayMs: duration(
    { min: '1min', max: '90d', default: '7d' },
    {
      says: 'How long a dead object stays in the store; at least the time span to which PostgreSQL can be restored.',
      defaultText: '7d; embedded 1h',
    },
  ),
  runSilenceMs: duration(
    { min: '1min', max: '30d', default: '1d' },
    { says: 'After this long without a word from the agent a run counts as abandoned.' },
  ),
  backgroundPercent: integer(
    { min: 1, max: 100, default: 10 },
    {
      says: 'Of its time, what each kind of deleting and rewriting has at most on a worker; it rests in between, so that backups keep their speed. 100: no rests.',
    },
  ),
  verifyRateBytes: size(
    { min: '64KiB', max: '10GiB', default: '16MiB' },
    { says: 'Bytes per second that a worker reads back from the object store to verify them.' },
  ),
  verifyEveryMs: duration(
    { min: '1h', max: '3650d', default: '30d' },
    { says: 'How long after it was verified an object is read again.' },
  ),
  restoreHistoryDays: integer(
    { min: 30, max: 36_500, default: 730 },
    { says: 'How many days after it has ended a restore stays in the history. The audit log has its own time.' },
  ),

  signInsPerMinute: integer(
    { min: 1, max: 10_000, default: 10 },
    { says: 'Failed sign-ins per user name and address in a minute before 429.' },
  ),
  operatorSecondFactor: toggle('off', {
    says: 'Those who run the server need a second factor: without one they can do nothing but set it up. Not to be turned off by whoever has only a password: it is no setting of the API.',
  }),
  proxies: integer(
    { min: 0, max: 8, default: 0 },
    {
      says: 'Proxies of yours (ingress, load balancer) that every request passes and that add to `X-Forwarded-For`, so that sign-ins are counted by the address of the client; IPv6 by /64. 0: the header is not believed.',
    },
  ),
  passwordHashesMax: integer(
    { min: 1, max: 64, default: 2 },
    { says: 'Passwords checked at a time; each takes 19 MiB for a moment.' },
  ),
  metricsToken: text({ says: 'Bearer token that opens /metrics to others than this machine.', secret: true }),
  logFile: path({
    says: 'File to log to, of 10 MiB, with one older beside it.',
    defaultText: 'standard output; embedded on a terminal: `server.log` in the data folder',
  }),
  logLevel: choice(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], 'info', {
    says: 'Least severity that is logged.',
  }),
});

type SettingKey = keyof z.output<typeof Settings>;
/** Where the environment names what is otherwise a setting: the folders, whose defaults the embedded mode fills in. */
export interface Config extends z.output<typeof Settings> {
  /** `all --embedded`: what is not set is brought along. */
  embedded: boolean;
  data: string;
  keyFile: string;
  auditKeyFile: string;
  objectsFolder: string;
  /** Variables that look like ours and are none, for a warning. */
  unknownVariables: string[];
}

/** The commands differ in what they cannot do without. */
export interface ConfigPurpose {
  embedded: boolean;
  /** What the command uses. */
  needs: readonly ('database' | 'objects' | 'tls' | 'keys')[];
}

/** Everything that is wrong with the settings, one line each, for people. */
export class ConfigError extends Error {
  override name = 'ConfigError';
  readonly mistakes: readonly string[];

  constructor(mistakes: readonly string[]) {
    super(
      `${mistakes.length === 1 ? 'A setting is' : `${mistakes.length} settings are`} wrong:\n${mistakes.map((mistake) => `  - ${mistake}`).join('\n')}`,
    );
    this.mistakes = mistakes;
  }
}

type Environment = Record<string, string | undefined>;

const keys = Object.keys(Settings.shape) as SettingKey[];
const fileName = (key: string): string => key.replace(/(?:Bytes|Ms)$/, '');
/** The environment variable of a setting. */
export const variableName = (key: SettingKey): string =>
  `HOLDFAST_${fileName(key)
    .replace(/[A-Z]/g, (letter) => `_${letter}`)
    .toUpperCase()}`;

function metaOf(key: SettingKey): SettingMeta {
  return (Settings.shape[key] as z.ZodType).meta() as SettingMeta;
}

/**
 * Reads and checks the settings.
 * @throws ConfigError listing every mistake
 */
export function loadConfig(purpose: ConfigPurpose, environment: Environment = process.env): Config {
  const mistakes: string[] = [];
  const given = new Map<string, { value: unknown; source: string }>();
  readConfigFile(environment.HOLDFAST_CONFIG, given, mistakes);
  for (const key of keys) {
    const value = environment[variableName(key)];
    // An empty variable is how templates write "not set".
    if (value !== undefined && value !== '') given.set(key, { value, source: variableName(key) });
  }
  // In the embedded default the database is never restored to an earlier moment than an hour ago.
  if (purpose.embedded && !given.has('objectDeleteDelayMs'))
    given.set('objectDeleteDelayMs', { value: '1h', source: 'embedded' });
  // Its folder is on a disk that has other things to hold.
  if (purpose.embedded && !given.has('stagingBytesMax'))
    given.set('stagingBytesMax', { value: '20GiB', source: 'embedded' });

  const parsed = Settings.safeParse(Object.fromEntries([...given].map(([key, { value }]) => [key, value])));
  if (!parsed.success) {
    const wrong = new Set(parsed.error.issues.map((issue) => issue.path[0] as SettingKey));
    for (const key of wrong) mistakes.push(describeMistake(key, given.get(key)!));
  }
  mistakes.push(...missingSettings(purpose, given));
  if (!parsed.success || mistakes.length > 0) throw new ConfigError(mistakes);

  const settings = parsed.data;
  const data = resolve(settings.data ?? defaultDataFolderHere(environment));
  return {
    ...settings,
    embedded: purpose.embedded,
    data,
    keyFile: resolve(settings.keyFile ?? resolve(data, 'server-key')),
    auditKeyFile: resolve(settings.auditKeyFile ?? resolve(data, 'audit-key')),
    objectsFolder: resolve(settings.objectsFolder ?? resolve(data, 'objects')),
    unknownVariables: unknownVariables(environment),
  };
}

function readConfigFile(
  file: string | undefined,
  given: Map<string, { value: unknown; source: string }>,
  mistakes: string[],
): void {
  if (!file) return;
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    mistakes.push(`HOLDFAST_CONFIG: ${file} cannot be read as JSON (${(error as Error).message})`);
    return;
  }
  if (typeof content !== 'object' || content === null || Array.isArray(content)) {
    mistakes.push(`HOLDFAST_CONFIG: ${file} holds no JSON object`);
    return;
  }
  const byFileName = new Map(keys.map((key) => [fileName(key), key]));
  for (const [name, value] of Object.entries(content)) {
    const key = byFileName.get(name);
    if (key) given.set(key, { value, source: `"${name}" in ${file}` });
    else mistakes.push(`"${name}" in ${file} is no setting`);
  }
}

function describeMistake(key: SettingKey, { value, source }: { value: unknown; source: string }): string {
  const { expected, secret } = metaOf(key);
  const shown = secret ? `a secret of ${String(value).length} characters` : JSON.stringify(value);
  return `${source} is ${shown}; expected ${expected}`;
}

/** What one setting asks of another. Looked at even when values are wrong, so that all mistakes come at once. */
function missingSettings({ embedded, needs }: ConfigPurpose, given: ReadonlyMap<string, { value: unknown }>): string[] {
  const has = (key: SettingKey): boolean => given.has(key);
  const is = (key: SettingKey, ...values: unknown[]): boolean => values.includes(given.get(key)?.value);
  const missing: string[] = [];
  const need = (key: SettingKey, why: string): void => {
    if (!has(key)) missing.push(`${variableName(key)} is not set; expected ${metaOf(key).expected}, ${why}`);
  };
  if (needs.includes('database') && !embedded)
    need('databaseUrl', 'because only `all --embedded` brings a database along');
  if (needs.includes('objects')) {
    if (is('objects', 's3')) need('s3Bucket', 'because HOLDFAST_OBJECTS is s3');
    else if (!embedded) need('objectsFolder', 'because HOLDFAST_OBJECTS is directory');
  }
  if (has('s3AccessKeyId') || has('s3SecretAccessKey')) {
    need('s3AccessKeyId', 'because HOLDFAST_S3_SECRET_ACCESS_KEY is set');
    need('s3SecretAccessKey', 'because HOLDFAST_S3_ACCESS_KEY_ID is set');
  }
  if (needs.includes('tls') && !is('tls', 'off', 'false', false)) {
    const why = 'because HOLDFAST_TLS is on (off behind an ingress that ends TLS)';
    if (!embedded || has('tlsKey')) need('tlsCertificate', why);
    if (!embedded || has('tlsCertificate')) need('tlsKey', why);
  }
  const kmsSeals = is('keyService', 'kms');
  if (kmsSeals) need('kmsKeyId', 'because HOLDFAST_KEY_SERVICE is kms');
  if (needs.includes('keys') && !embedded && !kmsSeals)
    need('keyFile', 'because vault keys of level standard are sealed with it');
  return missing;
}

function unknownVariables(environment: Environment): string[] {
  const known = new Set(['HOLDFAST_CONFIG', ...keys.map(variableName)]);
  // Others of the same name space: the agent's, the administrator's command's and the tests' own.
  return Object.keys(environment).filter(
    (name) => name.startsWith('HOLDFAST_') && !/^HOLDFAST_(?:AGENT|ADMIN|TEST|FUZZ)_/.test(name) && !known.has(name),
  );
}

/** Where the embedded default keeps its data unless told. */
export function defaultDataFolder({
  platform,
  environment,
  home,
  root,
}: {
  platform: NodeJS.Platform;
  environment: Environment;
  home: string;
  root: boolean;
}): string {
  if (platform === 'win32')
    return win32.join(environment.LOCALAPPDATA || win32.join(home, 'AppData', 'Local'), 'Holdfast');
  if (platform === 'darwin') return posix.join(home, 'Library', 'Application Support', 'Holdfast');
  if (root) return '/var/lib/holdfast';
  return posix.join(environment.XDG_DATA_HOME || posix.join(home, '.local', 'share'), 'holdfast');
}

/** That folder on this machine, for whoever started us. */
export function defaultDataFolderHere(environment: Environment = process.env): string {
  return defaultDataFolder({
    platform: process.platform,
    environment,
    home: homedir(),
    root: process.getuid?.() === 0,
  });
}

/** Whether `npm start` runs us, with a shell in between. */
export function isStartedByNpm(environment: Environment = process.env): boolean {
  return environment.npm_lifecycle_event !== undefined;
}

export interface SettingReference {
  variable: string;
  fileName: string;
  expected: string;
  default: string;
  says: string;
}

/** Every setting, for the printed reference and docs/configuration.md. */
export function settingsReference(): SettingReference[] {
  return keys.map((key) => {
    const { expected, says, defaultText } = metaOf(key);
    const schema = Settings.shape[key] as z.ZodType & { def: { type: string; defaultValue?: unknown } };
    const fallback = schema.def.type === 'prefault' ? String(schema.def.defaultValue) : 'none';
    return { variable: variableName(key), fileName: fileName(key), expected, default: defaultText ?? fallback, says };
  });
}
