/**
 * Staged restores from outside: a server that answers and a worker beside it, a backup of the real agent, and curl, which is
 * interrupted and goes on; unzip, tar and bsdtar open what came.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect } from '@jest/globals';
import { TestAgent } from './helpers/agent.ts';
import { type RunningWorker, startApiServer, startWorkerOf } from './helpers/apart.ts';
import { ask, bearer, curl, digestOf, fetchInterrupted, type Json, run, signIn } from './helpers/curl.ts';
import { addUser, type RunningServer } from './helpers/server.ts';
import { hasTools, testWith } from './helpers/tools.ts';

const test = testWith('curl', 'unzip');

let server: RunningServer;
let worker: RunningWorker;
let scratch: string;
let tree: string;
let token: string;
const agents: TestAgent[] = [];
const large = randomBytes(30 * 1024 * 1024);

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-staged-'));
  tree = join(scratch, 'tree');
  mkdirSync(join(tree, 'ünïcode'), { recursive: true });
  writeFileSync(join(tree, 'ünïcode', 'größe'), randomBytes(100_000));
  writeFileSync(join(tree, 'large'), large);
  server = await startApiServer();
  worker = await startWorkerOf(server);
  await backedUp(server.firstStart);
  token = await signIn(server, server.firstStart);
}, 120_000);

afterAll(async () => {
  for (const agent of agents) agent.remove();
  await worker?.kill('SIGTERM');
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
}, 60_000);

async function backedUp(person: Parameters<TestAgent['signIn']>[1], ...level: string[]): Promise<void> {
  const agent = new TestAgent();
  agents.push(agent);
  const password = level.length > 0 ? 'archive password' : undefined;
  await agent.succeed(...agent.signIn(server, person, password), ...level);
  await agent.succeed('backup', tree);
}

async function planned(more: object = {}): Promise<number> {
  const { items } = await ask(server, 'GET', '/v1/devices', token);
  const [device] = items as unknown as { guid: string }[];
  const asked = { device: device!.guid, paths: [tree], kind: 'staged', ...more };
  return (await ask(server, 'POST', '/v1/restores', token, asked)).id as unknown as number;
}

async function staged(id: number): Promise<Json & { staged: { length: number } }> {
  for (const end = performance.now() + 60_000; performance.now() < end; await sleep(50)) {
    const row = await ask(server, 'GET', `/v1/restores/${id}`, token);
    if ((row.state as unknown as string) === 'completed') return row as never;
    if (!['planned', 'running'].includes(row.state as unknown as string)) throw new Error(JSON.stringify(row));
  }
  throw new Error(`restore ${id} was not staged in time: ${server.logs()} ${worker.said}`);
}
const contentOf = (id: number): string => `${server.url}/v1/restores/${id}/content`;

test('made by the worker, fetched by curl with five interruptions, and opened', async () => {
  for (const format of hasTools('tar') ? ['zip', 'tar'] : ['zip']) {
    const id = await planned({ format });
    const { staged: made } = await staged(id);
    const whole = join(scratch, `whole.${format}`);
    await curl('--output', whole, ...bearer(token), contentOf(id));
    const file = join(scratch, `resumed.${format}`);
    const { length } = made;
    const kills = await fetchInterrupted(['--limit-rate', '20M', ...bearer(token), contentOf(id)], file, {
      length,
      times: 5,
    });
    expect(new Set(kills).size).toBe(5);
    expect(kills.at(-1)).toBeLessThan(length);
    expect(await digestOf(file)).toBe(await digestOf(whole));
    const folder = join(scratch, format);
    mkdirSync(folder);
    if (format === 'zip') {
      expect((await run('unzip', ['-t', file])).stdout).toMatch(/No errors detected/);
      await run('unzip', ['-q', file, '-d', folder], { env: { ...process.env, LC_ALL: 'C.UTF-8' } });
    } else {
      await run('tar', ['-xf', file, '-C', folder]);
      if (hasTools('bsdtar')) expect((await run('bsdtar', ['-tf', file])).stdout).toMatch(/tree\/large/);
    }
    expect(readFileSync(join(folder, 'tree', 'large')).equals(large)).toBe(true);
  }
}, 120_000);

test('a link goes to whoever has it: curl without a sign-in, also after an interruption', async () => {
  const id = await planned();
  const { staged: made } = await staged(id);
  const { url } = await ask(server, 'POST', `/v1/restores/${id}/link`, token, {});
  const file = join(scratch, 'by-link.zip');
  await fetchInterrupted(['--limit-rate', '20M', url as unknown as string], file, { length: made.length, times: 2 });
  expect((await run('unzip', ['-t', file])).stdout).toMatch(/No errors detected/);
  await ask(server, 'POST', `/v1/restores/${id}/cancel`, token);
  await expect(curl(url as unknown as string)).rejects.toThrow(/404/);
});

test('what an archive password wraps is staged by the server that was told it', async () => {
  const person = await addUser(server, 'wrapped');
  await backedUp(person, '--level', 'password');
  const { items } = await ask(server, 'GET', '/v1/devices', token);
  const { guid } = (items as unknown as { guid: string }[]).at(-1)!;
  const id = await planned({ device: guid, reason: 'a test' });
  await ask(server, 'POST', `/v1/restores/${id}/stage`, token, { password: 'archive password' });
  await staged(id);
  const file = join(scratch, 'wrapped.zip');
  await curl('--output', file, ...bearer(token), contentOf(id));
  expect((await run('unzip', ['-t', file])).stdout).toMatch(/No errors detected/);
}, 60_000);
