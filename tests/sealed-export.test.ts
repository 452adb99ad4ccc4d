/**
 * Sealed exports from outside: the real server makes them of backups that it cannot open, or is not asked to; the agent
 * opens them, with the server gone.
 */
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect } from '@jest/globals';
import { TestAgent } from './helpers/agent.ts';
import { addUser, type Person, type RunningServer, startServer } from './helpers/server.ts';
import { testWith } from './helpers/tools.ts';
import { differences, snapshot } from './helpers/tree.ts';

const test = testWith('curl');

const run = promisify(execFile);
const agentMain = fileURLToPath(new URL('../agent/main.ts', import.meta.url));
let server: RunningServer;
let scratch: string;
let tree: string;
let wanted: ReturnType<typeof snapshot>;
const agents: TestAgent[] = [];
const own: Record<'custom' | 'password' | 'standard', { person: Person; agent: TestAgent; file: string }> = {} as never;
/** Of the password vault, made by an administrator. */
let byOther: string;
let keyFile: string;
const archivePassword = 'only the user knows';

const newAgent = (): TestAgent => {
  const agent = new TestAgent();
  agents.push(agent);
  return agent;
};

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

async function exported(token: string, guid: string, name: string): Promise<string> {
  const asked = { device: guid, paths: [tree], format: 'export', reason: 'a test' };
  const { id } = await ask('POST', '/v1/restores', token, asked);
  const file = join(scratch, name);
  const content = `${server.url}/v1/restores/${id}/content`;
  await curl('--output', file, '--header', `Authorization: Bearer ${token}`, content);
  expect(await ask('GET', `/v1/restores/${id}`, token)).toMatchObject({ state: 'completed', done: { leftOut: 0 } });
  return file;
}

/** Users of agents only do not sign in to anything else. */
async function mayRestore({ userName }: Person): Promise<void> {
  await server.query(
    `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id)
     SELECT tenant_id, user_id, r, 'self', organization_id FROM users, unnest(ARRAY['Desktop User', 'PROe User']) r WHERE name = $1`,
    [userName],
  );
}

async function backedUp(level: keyof typeof own, person: Person): Promise<void> {
  if (person !== server.firstStart) await mayRestore(person);
  const agent = newAgent();
  const secret = level === 'custom' ? ['--custom-key-file', keyFile] : [];
  const password = level === 'password' ? archivePassword : undefined;
  await agent.succeed(...agent.signIn(server, person, password), '--level', level, ...secret);
  await agent.succeed('backup', tree);
  const { guid } = (await agent.succeed('status')) as unknown as { guid: string };
  own[level] = { person, agent, file: await exported(await signIn(person), guid, `${level}.holdfast-export`) };
  if (level === 'password') byOther = await exported(await signIn(server.firstStart), guid, 'by-other');
}

function makeTree(): void {
  mkdirSync(join(tree, 'ünïcode', 'empty folder'), { recursive: true });
  writeFileSync(join(tree, 'a text.txt'), 'a text\n', { mode: 0o600 });
  writeFileSync(join(tree, 'ünïcode', 'größe'), randomBytes(100_000));
  writeFileSync(join(tree, 'empty'), '');
  writeFileSync(join(tree, 'large'), randomBytes(20 * 1024 * 1024));
  linkSync(join(tree, 'large'), join(tree, 'large too'));
  symlinkSync('../no/such place', join(tree, 'link'));
  writeFileSync(Buffer.concat([Buffer.from(`${tree}/no-text-`), Buffer.of(0xff, 0xfe)]), 'raw name');
  chmodSync(join(tree, 'ünïcode'), 0o711);
  utimesSync(join(tree, 'a text.txt'), 1_500_000_000.123456, 1_500_000_000.123456);
  utimesSync(join(tree, 'ünïcode'), 1_400_000_000, 1_400_000_000);
}

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-sealed-export-'));
  tree = join(scratch, 'tree');
  keyFile = join(scratch, 'own.key');
  makeTree();
  wanted = snapshot(tree);
  server = await startServer();
  await backedUp('standard', server.firstStart);
  await backedUp('password', await addUser(server, 'wrapped'));
  await backedUp('custom', await addUser(server, 'keeps-the-key'));
  await server.stop(); // from here on nobody is asked
}, 180_000);

afterAll(async () => {
  for (const agent of agents) agent.remove();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

let folders = 0;
const newFolder = (): string => join(scratch, `to-${++folders}`);
const expectTree = (to: string): void => expect(differences(wanted, snapshot(join(to, basename(tree))))).toEqual([]);
const passwordFile = (agent: TestAgent, secret = archivePassword) => [
  '--archive-password-file',
  agent.file('archive-password', secret),
];

test.each(['standard', 'password', 'custom'] as const)(
  'at level %s the device that made the backup opens it with its own keys',
  async (level) => {
    const { agent, file } = own[level];
    const to = newFolder();
    const end = await agent.succeed('open-export', file, '--to', to);
    expect(end).toMatchObject({ event: 'end', outcome: 'completed', export: 'whole', leftOut: 0, problems: 0 });
    expectTree(to);
    expect(readdirSync(to)).toEqual([basename(tree)]);
  },
);

test('a machine without anything needs the archive password, or the key file, and no other', async () => {
  const stranger = newAgent();
  for (const [level, right, wrong] of [
    ['password', passwordFile(stranger), ['--archive-password-file', stranger.file('other', 'guess')]],
    [
      'custom',
      ['--custom-key-file', keyFile],
      ['--custom-key-file', stranger.file('other-key', randomBytes(32).toString('hex'))],
    ],
  ] as const) {
    const { file } = own[level];
    const to = newFolder();
    for (const [given, says] of [
      [wrong, level === 'custom' ? /not the one this vault was made with/ : /password/],
      [[], level === 'custom' ? /--custom-key-file/ : /--archive-password-file/],
    ] as const) {
      const { exitCode, events } = await stranger.run('open-export', file, '--to', to, ...given);
      expect([exitCode, events.at(-1)]).toEqual([
        expect.any(Number),
        expect.objectContaining({ event: 'error', message: expect.stringMatching(says) }),
      ]);
      expect(readdirSync(to)).toEqual([]);
    }
    await stranger.succeed('open-export', file, '--to', to, ...right);
    expectTree(to);
  }
  const { exitCode, events } = await stranger.run('open-export', own.standard.file, '--to', newFolder());
  expect([exitCode, events.at(-1)!.message]).toEqual([2, expect.stringMatching(/with its server/)]);
});

test('another vault’s device has not the keys, whatever the number of its vault is', async () => {
  const { exitCode, events } = await own.standard.agent.run('open-export', own.custom.file, '--to', newFolder());
  expect([exitCode, events.at(-1)!.message]).toEqual([2, expect.stringMatching(/--custom-key-file/)]);
});

test('what somebody else exported of a password vault does not let them try passwords', async () => {
  const stranger = newAgent();
  const { events } = await stranger.run('open-export', byOther, '--to', newFolder(), ...passwordFile(stranger));
  expect(events.at(-1)!.message).toMatch(/made by somebody else than its user/);
  const to = newFolder();
  await own.password.agent.succeed('open-export', byOther, '--to', to);
  expectTree(to);
});

test('it comes from stdin, and leaves nothing beside what it restored', async () => {
  const to = newFolder();
  const { agent, file } = own.custom;
  const args = [agentMain, 'open-export', '-', '--to', to, '--home', join(agent.home, 'agent'), '--json'];
  const child = spawn(process.execPath, args, { stdio: [openSync(file, 'r'), 'ignore', 'inherit'] });
  expect(await new Promise((resolve) => child.once('close', resolve))).toBe(0);
  expectTree(to);
  expect(readdirSync(to)).toEqual([basename(tree)]);
});

test('what is in it is listed without a key; one path of it is restored', async () => {
  const stranger = newAgent();
  const { exitCode, events } = await stranger.run('open-export', own.custom.file, '--list');
  expect(exitCode).toBe(0);
  const listed = events.filter(({ event }) => event === 'entry').map(({ path }) => path);
  expect(listed).toHaveLength(wanted.size);
  expect(listed).toContain(join(tree, 'ünïcode', 'größe'));
  const to = newFolder();
  const wantedPath = join(tree, 'ünïcode');
  await stranger.succeed('open-export', own.custom.file, wantedPath, '--to', to, '--custom-key-file', keyFile);
  expect(readdirSync(to)).toEqual(['ünïcode']);
  expect(readFileSync(join(to, 'ünïcode', 'größe'))).toEqual(readFileSync(join(wantedPath, 'größe')));
});

test('a path of which it holds nothing is not there: that is said, and what to look at', async () => {
  const { agent } = own.custom;
  const file = join(scratch, 'of the laptop');
  writeFileSync(file, readFileSync(own.custom.file));
  const { exitCode, events } = await agent.run('open-export', file, '/nope', '--to', newFolder());
  expect([exitCode, events.at(-1)]).toMatchObject([1, { event: 'error', code: 'not_found' }]);
  expect(events.at(-1)!.message).toBe(
    `the export holds nothing at /nope. What it holds: npm run agent -- open-export '${file}' --list`,
  );
  // Of what was cut off nobody can say so.
  const cut = join(scratch, 'cut before it');
  writeFileSync(cut, readFileSync(file).subarray(0, -1));
  const ofCut = await agent.run('open-export', cut, '/nope', '--to', newFolder());
  expect([ofCut.exitCode, ofCut.events.at(-1)]).toMatchObject([3, { outcome: 'incomplete', export: 'cut_off' }]);
});

test('run again it goes on, and what is there already is left', async () => {
  const to = newFolder();
  const { agent, file } = own.custom;
  await agent.succeed('open-export', file, '--to', to);
  const again = await agent.succeed('open-export', file, '--to', to);
  expect(again).toMatchObject({ outcome: 'completed', filesRestored: 0 });
  expectTree(to);
});

test('cut off, or with a byte turned over, it says so, names what it lacks, and restores what is right', async () => {
  const { agent, file } = own.custom;
  const cut = join(scratch, 'cut');
  writeFileSync(cut, readFileSync(file));
  truncateSync(cut, statSync(file).size - 12 * 1024 * 1024);
  const first = await agent.run('open-export', cut, '--to', newFolder());
  expect([first.exitCode, first.events.at(-1)]).toMatchObject([3, { outcome: 'incomplete', export: 'cut_off' }]);
  const text = await run(process.execPath, [agentMain, 'open-export', cut, '--list']).catch((error) => error);
  expect([text.code, text.stderr]).toEqual([3, expect.stringMatching(/CUT OFF/)]);

  const turned = join(scratch, 'turned');
  const bytes = readFileSync(file);
  bytes[bytes.byteLength >> 1]! ^= 1; // in the large file
  writeFileSync(turned, bytes);
  const to = newFolder();
  const second = await agent.run('open-export', turned, '--to', to);
  expect([second.exitCode, second.events.at(-1)]).toMatchObject([3, { outcome: 'incomplete', export: 'changed' }]);
  const left = second.events.filter(({ event }) => event === 'problem').map(({ path }) => basename(path as string));
  expect(left).toEqual(['large', 'large too']);
  expect(readdirSync(join(to, basename(tree))).sort()).not.toContain('large');
  expect(readFileSync(join(to, basename(tree), 'a text.txt'), 'utf8')).toBe('a text\n');

  bytes[16] = 99; // a frame of no kind, in the place of the first
  writeFileSync(turned, bytes);
  const broken = await agent.run('open-export', turned, '--to', newFolder());
  expect([broken.exitCode, broken.events.at(-1)!.message]).toEqual([1, expect.stringMatching(/at its very beginning/)]);
  const none = await agent.run('open-export', keyFile, '--to', newFolder());
  expect([none.exitCode, none.events.at(-1)!.message]).toEqual([1, 'this is not a Holdfast export']);
});
