import { type ChildProcess, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { RegisterAnswer } from '../protocol/messages.ts';
import { decodeMessage, encodeMessage, msgpackType } from '../protocol/wire.ts';
import { databaseDefaults, openDatabase, statement } from '../storage/catalog/database.ts';
import { testDatabase } from '../tests/helpers/postgres.ts';

const main = fileURLToPath(new URL('main.ts', import.meta.url));
const children = new Set<ChildProcess>();
let scratch: string;

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-main-'));
});
afterAll(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(scratch, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
});

interface Program {
  child: ChildProcess;
  said(): string;
  /** Resolves when it has said so; throws when it ends first. */
  says(what: RegExp): Promise<RegExpMatchArray>;
  exit: Promise<number | null>;
}

function run(args: string[], environment: Record<string, string> = {}): Program {
  const env = { PATH: process.env.PATH, HOME: scratch, HOLDFAST_LOG_LEVEL: 'warn', ...environment };
  const child = spawn(process.execPath, [main, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  children.add(child);
  let said = '';
  const listeners = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (bytes) => {
      said += bytes;
      for (const listener of listeners) listener();
    });
  }
  const exit = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  return {
    child,
    said: () => said,
    says: (what) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const match = said.match(what);
          if (match) resolve(match);
        };
        listeners.add(look);
        exit.then(() => reject(new Error(`it ended: ${said}`)));
        look();
      }),
    exit,
  };
}

const embedded = (data: string, more: Record<string, string> = {}): Program =>
  run(['all', '--embedded'], {
    HOLDFAST_DATA: data,
    HOLDFAST_PORT: '0',
    HOLDFAST_HOST: '127.0.0.1',
    // Tests leave no user behind on the machine they run on.
    ...(process.getuid?.() === 0 ? { HOLDFAST_POSTGRES_USER: 'nobody' } : {}),
    ...more,
  });

async function request(
  url: string,
  headers: Record<string, string>,
  body?: Buffer,
): Promise<{ status: number; body: Buffer }> {
  const session = connect(url, { rejectUnauthorized: false });
  try {
    return await new Promise((resolve, reject) => {
      session.on('error', reject);
      const stream = session.request({ ':method': body ? 'POST' : 'GET', ...headers });
      const parts: Buffer[] = [];
      let status = 0;
      stream.on('response', (answered) => {
        status = answered[':status'] ?? 0;
      });
      stream.on('data', (part) => parts.push(part));
      stream.on('error', reject);
      stream.on('end', () => resolve({ status, body: Buffer.concat(parts) }));
      stream.end(body);
    });
  } finally {
    session.destroy();
  }
}

describe('the command line', () => {
  test.each([
    [['--help'], 0, /usage: node server\/main.ts/],
    [[], 0, /usage/],
    [['--version'], 0, /^holdfast \d+\.\d+\.\d+ \(node 24/],
    [['config'], 0, /HOLDFAST_UPLOAD_BUDGET\n/],
    [['--help', 'config'], 0, /HOLDFAST_UPLOAD_BUDGET\n/],
    [['begin'], 2, /There is no command "begin"/],
    [['api', '--embedded'], 2, /--embedded goes with "all" only/],
    [['migrate', 'now'], 2, /"now" is not understood/],
    [['--wat'], 2, /--wat/],
    [['api'], 2, /5 settings are wrong/],
  ])('%j ends with %i', async (args, code, says) => {
    const program = run(args);
    expect(await program.exit).toBe(code);
    expect(program.said()).toMatch(says);
  });
});

test('check-objects finds a folder fit', async () => {
  const program = run(['check-objects'], { HOLDFAST_OBJECTS_FOLDER: join(scratch, 'objects') });
  expect(await program.exit).toBe(0);
  expect(program.said()).toContain('The object store can be used.');
});

test('a database that is not there is said in words, and ends with 1', async () => {
  const program = run(['migrate'], { HOLDFAST_DATABASE_URL: 'postgres://u:hunter2@127.0.0.1:1/x' });
  expect(await program.exit).toBe(1);
  expect(program.said()).toMatch(/holdfast migrate: .*ECONNREFUSED/);
  expect(program.said()).not.toContain('hunter2');
});

test('a server on a database without a schema says what to run, and after that starts', async () => {
  const database = await testDatabase({ migrated: false });
  try {
    writeFileSync(join(scratch, 'key'), `${Buffer.alloc(32, 7).toString('base64')}\n`);
    const settings = {
      HOLDFAST_DATABASE_URL: database.connectionString,
      HOLDFAST_OBJECTS_FOLDER: join(scratch, 'objects'),
      HOLDFAST_KEY_FILE: join(scratch, 'key'),
      HOLDFAST_TLS: 'off',
      HOLDFAST_HOST: '127.0.0.1',
      HOLDFAST_PORT: '0',
    };
    const early = run(['api'], settings);
    expect(await early.exit).toBe(1);
    expect(early.said()).toContain('run "node server/main.ts migrate"');

    const migrations = [run(['migrate'], settings), run(['migrate'], settings)];
    expect(await Promise.all(migrations.map(({ exit }) => exit))).toEqual([0, 0]);
    const [api, worker] = [run(['api'], settings), run(['worker'], { ...settings, HOLDFAST_WORKER_PORT: '0' })];
    const [, url] = await api.says(/listening on (http:\S+)/);
    const [, port] = await worker.says(/worker: ready, probes on port (\d+)/);
    expect((await request(url!, { ':path': '/readyz' })).status).toBe(200);
    const probes = `http://127.0.0.1:${port}`;
    expect((await request(probes, { ':path': '/livez' })).status).toBe(200);
    expect(JSON.parse((await request(probes, { ':path': '/readyz' })).body.toString())).toMatchObject({
      status: 'ok',
      parts: { database: { ok: true }, objects: { ok: true }, queue: { ok: true } },
    });
    const metrics = async () => (await request(probes, { ':path': '/metrics' })).body.toString();
    for (let i = 0; i < 100 && !/job_last_success\S+job="prune"|ended="refused"/.test(await metrics()); i++)
      await new Promise((resolve) => setTimeout(resolve, 100));
    const counted = await metrics();
    expect(counted).toMatch(/^holdfast_queue_jobs\{queue="deleting",state="waiting"\} \d+$/m);
    expect(counted).toMatch(/^holdfast_queue_oldest_due_seconds\{queue="checking"\} [\d.]+$/m);
    expect(counted).toMatch(/^holdfast_job_seconds_count\{job="abandon-stale-runs",ended="done"\} \d+$/m);
    expect(counted).toMatch(/^holdfast_job_last_success_timestamp_seconds\{job="abandon-stale-runs"\} \d+/m);
    expect(counted).not.toMatch(/^holdfast_job_failures_total\{/m);
    // It has been there for less than three beats of the fence.
    expect(counted).toMatch(/^holdfast_deleting_held\{reason="starting"\} 0$/m);
    expect((await request(probes, { ':path': '/v1/self' })).status).toBe(404);
    for (const program of [api, worker]) program.child.kill('SIGTERM');
    expect(await Promise.all([api.exit, worker.exit])).toEqual([0, 0]);

    // From its first object on, a catalog does not take an empty folder for its store.
    const catalog = openDatabase({ ...databaseDefaults, connectionString: database.connectionString });
    await catalog.query(
      statement(
        'test.anObject',
        "INSERT INTO objects (vault_id, key, state, size_bytes, live_bytes) VALUES (1, 'k', 'live', 1, 1)",
      ),
    );
    await catalog.close();
    const unmounted = join(scratch, 'unmounted');
    mkdirSync(unmounted);
    for (const command of ['api', 'worker']) {
      const without = run([command], { ...settings, HOLDFAST_OBJECTS_FOLDER: unmounted });
      expect(await without.exit).toBe(1);
      expect(without.said()).toContain(`the object store is missing: ${unmounted} `);
    }
    expect(readdirSync(unmounted)).toEqual([]);
  } finally {
    await database.drop();
  }
});

describe('the embedded default', () => {
  test('starts, registers a device, is alone on its folder and port, stops in order and keeps everything', async () => {
    const data = join(scratch, 'data');
    const first = embedded(data);
    const [, url] = await first.says(/listening on (https:\S+)/);
    const [, sha256] = await first.says(/certificate SHA-256 +([0-9a-f]{64})/);
    expect(await first.says(/register --server \S+ --fingerprint ([0-9a-f]{64}) /)).toMatchObject({ 1: sha256 });
    await first.says(/npm run agent -- backup PATH/);
    const secrets = JSON.parse(readFileSync(join(data, 'first-start.json'), 'utf8'));
    expect(secrets).toEqual({
      url,
      certificateSha256: sha256,
      registrationKey: expect.stringMatching(/^\w{4}(-\w{4}){3}$/),
      userName: 'admin',
      password: expect.stringMatching(/^\w{24}$/),
      operator: { userName: 'operator', password: expect.stringMatching(/^\w{24}$/) },
    });
    expect(secrets.operator.password).not.toBe(secrets.password);
    expect(first.said()).toMatch(/^ {2}operator +runs the server/m);
    if (process.platform !== 'win32') {
      expect(statSync(data).mode & 0o777).toBe(0o700);
      for (const file of ['first-start.json', 'server-key', 'certificate-key.pem', 'postgres-password'])
        expect(statSync(join(data, file)).mode & 0o777).toBe(0o600);
    }
    const ready = await request(url!, { ':path': '/readyz' });
    expect(JSON.parse(ready.body.toString())).toMatchObject({
      status: 'ok',
      parts: { database: { ok: true }, objects: { ok: true }, queue: { ok: true } },
    });

    const { registrationKey, userName, password } = secrets;
    const body = encodeMessage({
      registrationKey,
      userName,
      password,
      device: { name: 'd', platform: 'linux', agentVersion: '1' },
      vaultKey: { level: 'standard' },
    });
    const registered = await request(url!, { ':path': '/v1/register', 'content-type': msgpackType }, body);
    expect(registered.status).toBe(201);
    const { token } = decodeMessage(RegisterAnswer, registered.body);

    const onSameFolder = embedded(data);
    expect(await onSameFolder.exit).toBe(1);
    expect(onSameFolder.said()).toContain(`(process ${first.child.pid}, listening on ${url})`);
    const { port } = new URL(url!);
    expect(await run(['health'], { HOLDFAST_PORT: port }).exit).toBe(0);
    const blocked = embedded(join(scratch, 'other'), { HOLDFAST_PORT: port });
    expect(await blocked.exit).toBe(1);
    expect(blocked.said()).toContain(`port ${port} on 127.0.0.1 is in use by another program: set HOLDFAST_PORT`);
    expect((await request(url!, { ':path': '/readyz' })).status).toBe(200);

    first.child.kill('SIGTERM');
    expect(await first.exit).toBe(0);
    expect(await run(['health'], { HOLDFAST_PORT: port }).exit).toBe(1);

    const second = embedded(data);
    const [, urlNow] = await second.says(/listening on (https:\S+)/);
    await second.says(/npm run agent -- backup PATH/);
    expect(JSON.parse(readFileSync(join(data, 'first-start.json'), 'utf8'))).toEqual({ ...secrets, url: urlNow });
    expect((await request(urlNow!, { ':path': '/v1/self', authorization: `Bearer ${token}` })).status).toBe(200);
    second.child.kill('SIGINT');
    expect(await second.exit).toBe(0);

    // A vault key is sealed by now: another server key in place of a lost one would open nothing.
    const key = readFileSync(join(data, 'server-key'));
    rmSync(join(data, 'server-key'));
    const keyless = embedded(data);
    expect(await keyless.exit).toBe(1);
    expect(keyless.said()).toContain(`the server key file ${join(data, 'server-key')} does not exist`);
    expect(existsSync(join(data, 'server-key'))).toBe(false);
    writeFileSync(join(data, 'server-key'), key, { mode: 0o600 });
  });

  test('that cannot go on without its PostgreSQL says so and ends with 1', async () => {
    const data = join(scratch, 'data');
    const server = embedded(data);
    await server.says(/npm run agent -- backup PATH/);
    process.kill(
      Number.parseInt(readFileSync(join(data, 'postgres', 'cluster', 'postmaster.pid'), 'utf8'), 10),
      'SIGQUIT',
    );
    expect(await server.exit).toBe(1);
    expect(server.said()).toContain('the embedded PostgreSQL ended');
  });

  test('stopped while it starts, it stops', async () => {
    const server = embedded(join(scratch, 'early'));
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    server.child.kill('SIGTERM');
    expect(await server.exit).toBe(0);
  });
});
