/**
 * Restores to a browser from outside: the real server, a backup of the real agent, and curl, unzip and tar. At both levels
 * that the server can open: with its own key, and with the archive password.
 */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect } from '@jest/globals';
import { TestAgent } from './helpers/agent.ts';
import { addUser, type Person, type RunningServer, startServer } from './helpers/server.ts';
import { testWith } from './helpers/tools.ts';

const testBoth = testWith('curl', 'unzip', 'tar');

const run = promisify(execFile);
const adminMain = fileURLToPath(new URL('../admin/main.ts', import.meta.url));
let server: RunningServer;
let scratch: string;
let tree: string;
const agents: TestAgent[] = [];
const files: Record<string, Buffer> = {
  'a text.txt': Buffer.from('a text\n'),
  'ünïcode/größe': randomBytes(100_000),
  'ünïcode/empty': Buffer.alloc(0),
  large: randomBytes(20 * 1024 * 1024),
};

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-web-restore-'));
  tree = join(scratch, 'tree');
  mkdirSync(join(tree, 'ünïcode'), { recursive: true });
  for (const [name, content] of Object.entries(files)) writeFileSync(join(tree, name), content);
  server = await startServer();
});

afterAll(async () => {
  for (const agent of agents) agent.remove();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

const curl = async (...args: string[]): Promise<string> =>
  (await run('curl', ['--silent', '--show-error', '--fail-with-body', '--insecure', ...args])).stdout;

async function ask(method: string, path: string, token: string | null, body?: object): Promise<Record<string, never>> {
  const text = await curl(
    ...['--request', method, `${server.url}${path}`],
    ...(token === null ? [] : ['--header', `Authorization: Bearer ${token}`]),
    ...(body ? ['--header', 'Content-Type: application/json', '--data', JSON.stringify(body)] : []),
  );
  return JSON.parse(text) as Record<string, never>;
}

const signIn = async ({ registrationKey, userName, password }: Person): Promise<string> =>
  (await ask('POST', '/v1/sessions', null, { tenant: registrationKey, userName, password })).accessToken!;

async function backedUp(person: Person, ...level: string[]): Promise<void> {
  const agent = new TestAgent();
  agents.push(agent);
  const password = level.length > 0 ? 'archive password' : undefined;
  await agent.succeed(...agent.signIn(server, person, password), ...level);
  await agent.succeed('backup', tree);
}

function expectTree(folder: string): void {
  for (const [name, content] of Object.entries(files))
    expect(readFileSync(join(folder, name)).equals(content)).toBe(true);
  expect(readdirSync(folder).sort()).toEqual(['a text.txt', 'large', 'ünïcode']);
}

testBoth('a folder comes back through curl as a zip, and as a tar', async () => {
  const person = server.firstStart;
  await backedUp(person);
  const token = await signIn(person);
  const [device] = (await ask('GET', '/v1/devices', token)).items as unknown as { guid: string }[];
  for (const format of ['zip', 'tar']) {
    const { id, planned } = await ask('POST', '/v1/restores', token, { device: device!.guid, paths: [tree], format });
    expect(planned).toMatchObject({ files: 4, folders: 2, bytes: 7 + 100_000 + 20 * 1024 * 1024, damaged: 0 });
    const file = join(scratch, `restored.${format}`);
    const content = `${server.url}/v1/restores/${id}/content`;
    if (format === 'zip') await curl('--output', file, '--header', `Authorization: Bearer ${token}`, content);
    else await curl('--output', file, '--data-urlencode', `access_token=${token}`, content);
    const folder = join(scratch, format);
    mkdirSync(folder);
    if (format === 'zip') {
      expect((await run('unzip', ['-t', file])).stdout).toMatch(/No errors detected/);
      await run('unzip', ['-q', file, '-d', folder], { env: { ...process.env, LC_ALL: 'C.UTF-8' } });
    } else await run('tar', ['-xf', file, '-C', folder]);
    expectTree(join(folder, 'tree'));
    expect(await ask('GET', `/v1/restores/${id}`, token)).toMatchObject({
      state: 'completed',
      done: { files: 4, leftOut: 0 },
    });
  }
});

/** The administrators' command, with a token in the place of a sign-in. */
async function admin(token: string, ...args: string[]): Promise<string> {
  const env = {
    PATH: process.env.PATH,
    HOLDFAST_ADMIN_HOME: join(scratch, 'admin'),
    HOLDFAST_ADMIN_SERVER: server.url,
    HOLDFAST_ADMIN_FINGERPRINT: server.certificateSha256,
    HOLDFAST_ADMIN_TOKEN: token,
  };
  return (await run(process.execPath, [adminMain, ...args], { env })).stdout;
}

testWith('curl', 'unzip')('the administrators’ command plans, fetches and lists', async () => {
  const token = await signIn(server.firstStart);
  const [device] = (await ask('GET', '/v1/devices', token)).items as unknown as { guid: string }[];
  const text = join(tree, 'a text.txt');
  const made = await admin(
    token,
    'restores',
    'create',
    '--device',
    device!.guid,
    '--paths',
    text,
    '--paths',
    '/none',
    '--json',
  );
  const { id } = JSON.parse(made) as { id: number };
  const file = join(scratch, 'by-command.zip');
  await admin(token, 'restores', 'fetch', String(id), '--output', file);
  expect((await run('unzip', ['-p', file, '*a text.txt'])).stdout).toBe('a text\n');
  expect(await admin(token, 'restores', 'list', '--state', 'completed')).toContain(String(id));
  expect(await admin(token, 'restores', 'show', String(id))).toMatch(/completed/);
});

testWith('curl', 'tar')('what an archive password wraps comes back to whoever gives it', async () => {
  const person = await addUser(server, 'wrapped');
  await backedUp(person, '--level', 'password');
  const token = await signIn(server.firstStart);
  const items = (await ask('GET', '/v1/devices', token)).items as unknown as { guid: string; user: { name: string } }[];
  const { guid } = items.at(-1)!;
  const { id } = await ask('POST', '/v1/restores', token, {
    device: guid,
    paths: [tree],
    format: 'tar',
    reason: 'a test',
  });
  const content = ['--header', `Authorization: Bearer ${token}`, `${server.url}/v1/restores/${id}/content`];
  const withPassword = (password: string) => [
    '--header',
    'Content-Type: application/json',
    '--data',
    JSON.stringify({ password }),
  ];
  await expect(curl(...content)).rejects.toThrow(/400/);
  await expect(curl(...withPassword('another'), ...content)).rejects.toThrow(/403/);
  const file = join(scratch, 'wrapped.tar');
  writeFileSync(join(scratch, 'password'), 'another\n');
  const unwrapped = admin(token, 'restores', 'fetch', String(id), '--output', file);
  await expect(unwrapped).rejects.toThrow(
    `npm run admin -- restores fetch-wrapped ${id} --password-file FILE --output ${file}`,
  );
  const fetching = ['restores', 'fetch-wrapped', String(id), '--output', file];
  await expect(admin(token, ...fetching, '--password-file', join(scratch, 'password'))).rejects.toThrow(
    /archive password/,
  );
  await curl('--output', file, ...withPassword('archive password'), ...content);
  const folder = join(scratch, 'wrapped');
  mkdirSync(folder);
  await run('tar', ['-xf', file, '-C', folder]);
  expectTree(join(folder, 'tree'));
});
