/**
 * What restic's users have of us beyond its protocol, with Debian's restic and the real server: a repository made over the API,
 * all of whose snapshots somebody deletes and prunes, is set back, and then holds every byte; a token that appends deletes nothing;
 * a computer registers into the vault that came with a repository. docs/restic.md says the same to people.
 */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { ClientHttp2Session } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { seededRandom } from '../helpers/random.ts';
import { rawRequest, rawSession } from '../helpers/raw-http.ts';
import { addUser, type Person, type RunningServer, startServer } from '../helpers/server.ts';
import { differences, noise, snapshot } from '../helpers/tree.ts';

const run = promisify(execFile);

let server: RunningServer;
let session: ClientHttp2Session;
let scratch: string;
let person: Person;
let access: string | undefined;

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-services-undelete-'));
  server = await startServer();
  session = await rawSession(server.url);
  person = await addUser(server, 'ann@example.test');
  await server.query(
    `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id)
     SELECT tenant_id, user_id, r.role, 'self', organization_id FROM users, (VALUES ('PROe User'), ('Desktop User')) r (role) WHERE name = $1
     ON CONFLICT DO NOTHING`,
    [person.userName],
  );
  access = (await api('POST', '/v1/sessions', { userName: person.userName, password: person.password }))
    .accessToken as string;
}, 120_000);

afterAll(async () => {
  session?.destroy();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
}, 120_000);

type Json = Record<string, unknown>;

/** @throws Error with the answer, when it is none of success */
async function api(method: string, path: string, body?: Json): Promise<Json> {
  const bytes = body && Buffer.from(JSON.stringify(body));
  const answer = await rawRequest(
    session,
    {
      ':method': method,
      ':path': path,
      ...(access !== undefined && { authorization: `Bearer ${access}` }),
      ...(bytes && { 'content-type': 'application/json', 'content-length': bytes.byteLength }),
    },
    bytes,
  );
  const json = JSON.parse(answer.body.toString()) as Json;
  if (answer.status >= 300) throw new Error(`${method} ${path} answered ${answer.status}: ${JSON.stringify(json)}`);
  return json;
}

interface Said {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** restic, with a repository's URL as the API answered it. */
async function tryRestic(url: string, ...args: string[]): Promise<Said> {
  const certificate = join(server.data, 'certificate.pem');
  const env = { PATH: process.env.PATH, HOME: scratch, RESTIC_PASSWORD: 'secret', RESTIC_REPOSITORY: url };
  try {
    const { stdout, stderr } = await run('restic', ['--cacert', certificate, ...args], { env, maxBuffer: 1 << 26 });
    return { exitCode: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { exitCode: code, stdout, stderr };
  }
}

async function restic(url: string, ...args: string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await tryRestic(url, ...args);
  if (exitCode !== 0) throw new Error(`restic ${args.join(' ')} ended with ${exitCode}: ${stderr}\n${stdout}`);
  return stdout;
}

async function makeRepository(name: string): Promise<{ guid: string; url: string }> {
  const { repository, token } = (await api('POST', '/v1/me/repositories', { name, password: person.password })) as {
    repository: { guid: string };
    token: { url: string };
  };
  return { guid: repository.guid, url: token.url };
}

function sourceOf(name: string, files: number, seed: number): string {
  const folder = join(scratch, name);
  const random = seededRandom(seed);
  mkdirSync(folder, { recursive: true });
  for (let i = 0; i < files; i++) writeFileSync(join(folder, `file ${i}`), noise(random, 1 << 20));
  return folder;
}

async function restored(url: string, source: string, snapshotId = 'latest'): Promise<string[]> {
  const target = mkdtempSync(join(scratch, 'restored-'));
  await restic(url, 'restore', snapshotId, '--target', target);
  const found = differences(snapshot(source), snapshot(join(target, source)));
  rmSync(target, { recursive: true });
  return found;
}

const snapshots = async (url: string): Promise<{ id: string }[]> =>
  JSON.parse(await restic(url, 'snapshots', '--json'));

/** Step by step, as the page for restic's users says. */
async function setBack(guid: string, to: string): Promise<{ shown: number; hidden: number }> {
  const sum = { shown: 0, hidden: 0 };
  for (let after: string | null | undefined; after !== null; ) {
    const body: Json = { to, ...(after !== undefined && { after }) };
    const { shown, hidden, next } = (await api('POST', `/v1/repositories/${guid}/set-back`, body)) as {
      shown: Record<string, { files: number }>;
      hidden: Record<string, { files: number }>;
      next: string | null;
    };
    for (const { files } of Object.values(shown)) sum.shown += files;
    for (const { files } of Object.values(hidden)) sum.hidden += files;
    after = next;
  }
  return sum;
}

test('everything deleted and pruned, and rubbish backed up: set back, it is all there', async () => {
  const { guid, url } = await makeRepository('laptop');
  await restic(url, 'init');
  const source = sourceOf('mine', 24, 1);
  await restic(url, 'backup', source);
  const [first] = await snapshots(url);
  await sleep(50);
  const before = new Date().toISOString();
  await sleep(50);

  const rubbish = sourceOf('rubbish', 6, 2);
  await restic(url, 'backup', rubbish);
  const ids = (await snapshots(url)).map(({ id }) => id);
  await restic(url, 'forget', '--prune', ...ids);
  expect(await snapshots(url)).toEqual([]);
  // And whoever does that can put another configuration in the place of the one that was.
  const { username, password, pathname } = new URL(url.slice('rest:'.length));
  const authorization = `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')}`;
  for (const [method, bytes] of [['DELETE'], ['POST', Buffer.from('no configuration')]] as const) {
    const headers = {
      ':method': method,
      ':path': `${pathname}config`,
      authorization,
      ...(bytes && { 'content-length': bytes.byteLength }),
    };
    expect((await rawRequest(session, headers, bytes)).status).toBe(200);
  }
  expect((await tryRestic(url, 'snapshots')).exitCode).not.toBe(0);

  const hidden = (await api('GET', `/v1/repositories/${guid}/hidden?limit=1000`)) as { items: { name: string }[] };
  expect(hidden.items.map(({ name }) => name)).toContain(`snapshots/${first!.id}`);
  const view = (await api('GET', `/v1/repositories/${guid}`)) as {
    hiddenBytes: number;
    health: string;
    deletes: object[];
  };
  expect(view.hiddenBytes).toBeGreaterThan(30 << 20);
  expect(view.deletes).toHaveLength(1);

  const tried = (await api('GET', `/v1/repositories/${guid}/set-back?to=${before}`)) as {
    shown: Record<string, { files: number }>;
    complete: boolean;
  };
  expect(tried).toMatchObject({ complete: true, shown: { snapshots: { files: 1 } } });
  expect((await setBack(guid, before)).shown).toBeGreaterThanOrEqual(3);

  expect((await snapshots(url)).map(({ id }) => id)).toEqual([first!.id]);
  expect(await restic(url, 'check', '--read-data')).toContain('no errors were found');
  expect(await restored(url, source)).toEqual([]);
  expect(await setBack(guid, before)).toEqual({ shown: 0, hidden: 0 });

  // And it goes on as if nothing had been.
  await restic(url, 'backup', source, rubbish);
  expect(await restic(url, 'check', '--read-data')).toContain('no errors were found');
}, 300_000);

test('one snapshot forgotten by mistake is had back by its name', async () => {
  const { guid, url } = await makeRepository('mistake');
  await restic(url, 'init');
  const source = sourceOf('kept', 4, 3);
  await restic(url, 'backup', source);
  const [{ id }] = (await snapshots(url)) as [{ id: string }];
  await restic(url, 'forget', id);
  await api('POST', `/v1/repositories/${guid}/undelete`, { names: [`snapshots/${id}`] });
  expect(await restored(url, source, id)).toEqual([]);
}, 120_000);

test('a token that appends backs up and deletes nothing; one that reads restores; a revoked one does nothing', async () => {
  const { guid, url } = await makeRepository('append');
  await restic(url, 'init');
  const tokenOf = async (mode: string) =>
    (await api('POST', `/v1/me/repositories/${guid}/tokens`, { name: mode, mode, password: person.password })) as {
      id: number;
      url: string;
    };
  const [append, reads] = [await tokenOf('append'), await tokenOf('read')];
  const source = sourceOf('appended', 3, 4);
  await restic(append.url, 'backup', source);
  const [{ id }] = (await snapshots(append.url)) as [{ id: string }];
  expect(await restored(reads.url, source)).toEqual([]);
  // restic 0.14 tries for a minute or so before it believes a refusal.
  // One after the other: `forget` wants the repository to itself.
  const forgetting = await tryRestic(append.url, 'forget', id);
  const backingUp = await tryRestic(reads.url, 'backup', source);
  expect(forgetting.stderr).toContain('403');
  expect(backingUp.exitCode).not.toBe(0);
  expect(await snapshots(url)).toHaveLength(1);
  await restic(url, 'forget', '--prune', id);
  await api('DELETE', `/v1/repositories/${guid}/tokens/${append.id}`);
  expect((await tryRestic(append.url, 'snapshots')).stderr).toMatch(/401|unexpected HTTP response/);
}, 420_000);
