/**
 * Restores pushed to devices, from outside: the real server and the real agent as processes. What is pushed comes to folders and
 * to original places; while a device is away it waits; the agent is killed and goes on; and somebody looks into its folders.
 */
import { execFile } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, expect } from '@jest/globals';
import { bytesPath, seededBytes, snapshot } from '../agent/files/test-tree.ts';
import { type RunningAgent, TestAgent } from './helpers/agent.ts';
import { type RunningServer, startServer } from './helpers/server.ts';
import { testWith } from './helpers/tools.ts';

const test = testWith('curl');

const run = promisify(execFile);
let server: RunningServer;
let scratch: string;
let tree: string;
let token: string;
/** Two devices of one user; what is restored is of the first. */
let laptop: TestAgent;
let desktop: TestAgent;
let watching: RunningAgent[] = [];

const largeBytes = 150 * 1024 * 1024;

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-push-'));
  tree = join(scratch, 'tree');
  for (const folder of ['docs', 'big', 'quiet']) mkdirSync(join(scratch, 'tree', folder), { recursive: true });
  writeFileSync(join(tree, 'docs', 'letter.txt'), 'dear');
  writeFileSync(join(tree, 'docs', 'Caf\u00e9'), 'composed');
  writeFileSync(join(tree, 'docs', 'Cafe\u0301'), 'decomposed');
  writeFileSync(bytesPath(tree, 'docs', Buffer.from([0x62, 0xff, 0xfe])), 'no text');
  writeFileSync(join(tree, 'docs', 'tool'), '#!/bin/sh\n');
  chmodSync(join(tree, 'docs', 'tool'), 0o750);
  chmodSync(join(tree, 'docs'), 0o711);
  writeFileSync(join(tree, 'big', 'large'), seededBytes(9, largeBytes));
  server = await startServer();
  laptop = new TestAgent();
  desktop = new TestAgent();
  for (const agent of [laptop, desktop]) await agent.succeed(...agent.signIn(server, server.firstStart));
  await laptop.succeed('backup', tree);
  const { registrationKey: tenant, userName, password } = server.firstStart;
  token = String((await ask('POST', '/v1/sessions', { tenant, userName, password })).accessToken);
}, 180_000);

afterEach(async () => {
  for (const { child, done } of watching) {
    child.kill('SIGTERM');
    await done;
  }
  watching = [];
});

afterAll(async () => {
  for (const agent of [laptop, desktop]) agent?.remove();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

/** One call of the JSON API. @throws Error with the answer when it is not 2xx */
async function ask(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
  const { stdout } = await run('curl', [
    ...['--silent', '--show-error', '--fail-with-body', '--insecure', '--request', method, `${server.url}${path}`],
    ...(token ? ['--header', `Authorization: Bearer ${token}`] : []),
    ...(body ? ['--header', 'Content-Type: application/json', '--data', JSON.stringify(body)] : []),
  ]);
  return JSON.parse(stdout) as Record<string, unknown>;
}

/** A device that backs up something of no interest, and follows commands. */
function watch(agent: TestAgent, ...options: string[]): RunningAgent {
  const running = agent.start('watch', join(tree, 'quiet'), '--interval', '1h', ...options);
  watching.push(running);
  return running;
}

const guidOf = (agent: TestAgent): string => agent.registration.guid;

/** Pushes what the laptop backed up. @returns the restore's number */
async function push(paths: string[], to: TestAgent, where: object, more: object = {}): Promise<number> {
  const asked = { device: guidOf(laptop), paths, to: { device: guidOf(to), ...where }, ...more };
  return (await ask('POST', '/v1/pushed-restores', asked)).id as number;
}

const restoreOf = (id: number) => ask('GET', `/v1/pushed-restores/${id}`);

async function until<T>(what: () => Promise<T | null | false> | T | null | false): Promise<T> {
  for (;;) {
    const found = await what();
    if (found) return found;
    await sleep(50);
  }
}

/** Resolves when a restore has ended. */
const ended = (id: number): Promise<Record<string, unknown>> =>
  until(async () => {
    const restore = await restoreOf(id);
    return !['planned', 'running'].includes(String(restore.state)) && restore;
  });

/** What lies in a folder, but for the time of the folder itself. */
function contentOf(folder: string, options: { modes?: boolean } = {}): Record<string, string> {
  const { '': _, ...rest } = snapshot(folder, options);
  return rest;
}

/** Resolves when so much of a large file has been written to a target. */
async function written(to: string, bytes: number): Promise<void> {
  await until(() => {
    const staging = join(to, '.holdfast-restore');
    const parts = existsSync(staging) ? readdirSync(staging).filter((name) => name.endsWith('.part')) : [];
    return parts.some((name) => (statSync(join(staging, name), { throwIfNoEntry: false })?.size ?? 0) >= bytes);
  });
}

test('what is pushed while the device is away waits for it, and then comes, names and modes as they were', async () => {
  const to = join(scratch, 'waited');
  const id = await push([join(tree, 'docs')], laptop, { folder: to });
  expect(await restoreOf(id)).toMatchObject({ state: 'planned' });
  watch(laptop);
  expect(await ended(id)).toMatchObject({ state: 'completed', done: { files: 5, leftOut: 0 } });
  expect(contentOf(to)).toEqual({ '/docs': expect.anything(), ...prefixed('/docs', contentOf(join(tree, 'docs'))) });
  expect(statSync(join(to, 'docs')).mode & 0o777).toBe(0o711);
});

const prefixed = (prefix: string, content: Record<string, string>): Record<string, string> =>
  Object.fromEntries(Object.entries(content).map(([name, line]) => [prefix + name, line]));

test('a device that is there gets it at once: to original places, aside of or over what stands there', async () => {
  watch(laptop);
  const letter = join(tree, 'docs', 'letter.txt');
  const before = contentOf(join(tree, 'docs'));
  rmSync(join(tree, 'docs', 'tool'));
  writeFileSync(letter, 'changed');
  const first = await push([join(tree, 'docs')], laptop, { original: true });
  expect(await ended(first)).toMatchObject({ state: 'completed' });
  expect(readFileSync(join(tree, 'docs', 'letter (before restore).txt'), 'utf8')).toBe('changed');
  rmSync(join(tree, 'docs', 'letter (before restore).txt'));
  expect(contentOf(join(tree, 'docs'))).toEqual(before);
  writeFileSync(letter, 'changed again');
  const second = await push([letter], laptop, { original: true }, { existing: 'overwrite' });
  expect(await ended(second)).toMatchObject({ state: 'completed' });
  expect(contentOf(join(tree, 'docs'))).toEqual(before);
});

test('permissions of the folder instead of those of the archive', async () => {
  watch(laptop);
  const to = join(scratch, 'current');
  const id = await push([join(tree, 'docs')], laptop, { folder: to }, { permissions: 'current' });
  expect(await ended(id)).toMatchObject({ state: 'completed' });
  const umask = process.umask();
  expect(statSync(join(to, 'docs', 'tool')).mode & 0o777).toBe(0o666 & ~umask);
  expect(statSync(join(to, 'docs')).mode & 0o777).toBe(0o777 & ~umask);
});

test('another device of the user gets it, though it backed up nothing of it', async () => {
  watch(desktop);
  const to = join(scratch, 'other');
  const id = await push([join(tree, 'docs', 'letter.txt'), join(tree, 'docs', 'tool')], desktop, { folder: to });
  expect(await ended(id)).toMatchObject({ state: 'completed', done: { files: 2 } });
  expect(readdirSync(to).sort()).toEqual(['letter.txt', 'tool']);
});

test('what was deleted comes back as it last was, pushed and by hand, where that is asked for', async () => {
  const folder = join(tree, 'quiet');
  writeFileSync(join(folder, 'kept'), 'kept');
  mkdirSync(join(folder, 'gone'));
  writeFileSync(join(folder, 'gone', 'file'), 'last');
  await laptop.succeed('backup', folder);
  rmSync(join(folder, 'gone'), { recursive: true });
  await laptop.succeed('backup', folder);
  watch(desktop);
  const to = { without: join(scratch, 'without'), pushed: join(scratch, 'with'), byHand: join(scratch, 'by-hand') };
  const without = await push([folder], desktop, { folder: to.without });
  const pushed = await push([folder], desktop, { folder: to.pushed }, { deleted: true });
  for (const id of [without, pushed])
    expect(await ended(id)).toMatchObject({ state: 'completed', done: { leftOut: 0 } });
  await laptop.succeed('restore', folder, '--to', to.byHand, '--deleted');
  expect(readdirSync(join(to.without, 'quiet'))).toEqual(['kept']);
  for (const found of [to.pushed, to.byHand])
    expect(readFileSync(join(found, 'quiet', 'gone', 'file'), 'utf8')).toBe('last');
});

test('an agent killed in the middle goes on where it was', async () => {
  const to = join(scratch, 'killed');
  const { child, done } = laptop.start('watch', join(tree, 'quiet'));
  const id = await push([join(tree, 'big')], laptop, { folder: to });
  await written(to, 20_000_000);
  child.kill('SIGKILL');
  await done;
  expect(await restoreOf(id)).toMatchObject({ state: 'running' });
  const again = watch(laptop);
  expect(await ended(id)).toMatchObject({ state: 'completed', done: { files: 1, bytes: largeBytes } });
  expect(readFileSync(join(to, 'big', 'large')).equals(seededBytes(9, largeBytes))).toBe(true);
  expect(readdirSync(to)).toEqual(['big']);
  again.child.kill('SIGTERM');
  const end = (await again.done).events.find(({ event }) => event === 'push_end');
  expect(end).toMatchObject({ outcome: 'completed' });
  expect(end!.bytesResumed).toBeGreaterThan(0);
});

test('one that is cancelled stops, and leaves nothing unfinished', async () => {
  const to = join(scratch, 'cancelled');
  watch(laptop);
  const id = await push([join(tree, 'big')], laptop, { folder: to });
  await written(to, 5_000_000);
  await ask('POST', `/v1/pushed-restores/${id}/cancel`);
  await until(() => !existsSync(join(to, '.holdfast-restore')));
  expect(readdirSync(to)).toEqual(['big']);
  expect(readdirSync(join(to, 'big'))).toEqual([]);
  expect(await restoreOf(id)).toMatchObject({ state: 'cancelled' });
});

test('without watch, `commands` carries out what waits, once', async () => {
  const to = join(scratch, 'once');
  const id = await push([join(tree, 'docs')], laptop, { folder: to });
  expect(await laptop.succeed('commands')).toMatchObject({ event: 'end', commands: 1 });
  expect(await restoreOf(id)).toMatchObject({ state: 'completed' });
  expect(existsSync(join(to, 'docs', 'letter.txt'))).toBe(true);
  expect(await laptop.succeed('commands')).toMatchObject({ commands: 0 });
});

test('folders of a device are looked into while it is there; one whose owner wants none of it says so', async () => {
  const browse = (body: object) => ask('POST', `/v1/devices/${guidOf(laptop)}/browse`, body);
  const { child, done } = laptop.start('watch', join(tree, 'quiet'));
  const names = await until(async () => {
    const page = await browse({ path: join(tree, 'docs') }).catch(() => null);
    return page && (page.entries as { name: string | null; nameBytes?: string; kind: string }[]);
  });
  expect(names.map(({ name }) => name).sort()).toEqual(['Cafe\u0301', 'Caf\u00e9', 'letter.txt', null, 'tool'].sort());
  expect(await browse({ path: join(tree, 'nowhere') })).toMatchObject({ fault: { code: 'not_found' } });
  expect((await browse({})).entries).toContainEqual(expect.objectContaining({ name: '/' }));
  child.kill('SIGTERM');
  await done;
  watch(laptop, '--no-push');
  await until(async () => {
    const page = await browse({ path: tree }).catch(() => null);
    return page && (page.fault as { code?: string } | null)?.code === 'refused';
  });
  const id = await push([join(tree, 'docs')], laptop, { folder: join(scratch, 'refused') });
  expect(await ended(id)).toMatchObject({ state: 'broken', why: expect.stringContaining('--no-push') });
  expect(existsSync(join(scratch, 'refused'))).toBe(false);
});

test('a server that was away is found again, and what waits is told then', async () => {
  watch(laptop);
  const to = join(scratch, 'restarted');
  void server.kill('SIGTERM');
  await sleep(500);
  // Once more: answers to agents that earlier tests killed are waited for up to 30 s, and meanwhile this one comes less often.
  await server.kill('SIGTERM');
  await server.start();
  const id = await push([join(tree, 'docs')], laptop, { folder: to });
  expect(await ended(id)).toMatchObject({ state: 'completed' });
}, 180_000);
