/**
 * A large restore, staged and fetched by curl that is interrupted five times and goes on: with HOLDFAST_TEST_GIB=10 it is of a
 * file of 10 GiB (three and a half times that of disk, and minutes), without of a small one. Neither the process that answers
 * nor the one that works takes more than 256 MiB of memory for it. And a worker that is killed with -9 half-way: the next
 * one makes it.
 */
import { createCipheriv, createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sha256 } from '../protocol/hashes.ts';
import { TestAgent } from './helpers/agent.ts';
import { type RunningWorker, startApiServer, startWorkerOf } from './helpers/apart.ts';
import { ask, bearer, digestOf, digestOfOutput, fetchInterrupted, type Json, signIn } from './helpers/curl.ts';
import { memoryOf, type RunningServer } from './helpers/server.ts';

const MiB = 1024 * 1024;
const gib = Number(process.env.HOLDFAST_TEST_GIB ?? 0.25);
const fileBytes = gib * 1024 * MiB;
const residentMax = 256 * MiB;
const minutes = 60_000;

let server: RunningServer;
let worker: RunningWorker;
let agent: TestAgent;
let scratch: string;
let file: string;
let content: string;
let token: string;

/** Words of eight bytes in random order: six times smaller compressed, and no two blocks are the same. @returns its digest */
async function makeFile(path: string, bytes: number): Promise<string> {
  const cipher = createCipheriv('aes-256-ctr', sha256(Buffer.from('content')), Buffer.alloc(16));
  const words = createCipheriv('aes-256-ctr', sha256(Buffer.from('words')), Buffer.alloc(16)).update(
    Buffer.alloc(2048),
  );
  const wordOf = new BigUint64Array(new Uint8Array(words).buffer);
  const hash = createHash('sha256');
  const handle = await open(path, 'w');
  for (let at = 0; at < bytes; at += MiB) {
    const choices = cipher.update(Buffer.alloc(MiB / 8));
    const piece = new BigUint64Array(MiB / 8);
    for (let i = 0; i < piece.length; i++) piece[i] = wordOf[choices[i]!]!;
    const out = Buffer.from(piece.buffer);
    hash.update(out);
    await handle.write(out, 0, out.byteLength, at);
  }
  await handle.close();
  return hash.digest('hex');
}

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-staged-long-'));
  mkdirSync(join(scratch, 'tree'));
  file = join(scratch, 'tree', 'image');
  content = await makeFile(file, fileBytes);
  const room = { HOLDFAST_STAGING_BYTES_MAX: '100GiB' };
  server = await startApiServer(room);
  worker = await startWorkerOf(server, room);
  agent = new TestAgent();
  await agent.succeed(...agent.signIn(server, server.firstStart));
  await agent.succeed('backup', join(scratch, 'tree'));
  // There is less to have room for.
  rmSync(file);
  // What the backup and the sign-in left in their memory is not the restore's.
  token = await signIn(server, server.firstStart);
  await server.query(`UPDATE access_tokens SET expires_at = now() + interval '1 day'`);
  await worker.kill('SIGTERM');
  await server.kill('SIGTERM');
  await server.start();
  worker = await startWorkerOf(server, room);
}, 60 * minutes);

afterAll(async () => {
  agent?.remove();
  await worker?.kill('SIGTERM');
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
}, minutes);

async function planned(kind: 'staged' | 'streamed' = 'staged'): Promise<number> {
  const { items } = await ask(server, 'GET', '/v1/devices', token);
  const [device] = items as unknown as { guid: string }[];
  const asked = { device: device!.guid, paths: [file], kind, format: 'tar' };
  return (await ask(server, 'POST', '/v1/restores', token, asked)).id as unknown as number;
}

type Row = Json & { state: string; tries: number; why: string | null; staged: { length: number; percent: number } };
const rowOf = async (id: number): Promise<Row> => (await ask(server, 'GET', `/v1/restores/${id}`, token)) as Row;

async function staged(id: number, withinMs: number): Promise<Row> {
  for (const end = performance.now() + withinMs; performance.now() < end; await sleep(1_000)) {
    const row = await rowOf(id);
    if (row.state === 'completed') return row;
    if (!['planned', 'running', 'broken'].includes(row.state)) throw new Error(JSON.stringify(row));
  }
  throw new Error(`restore ${id} was not staged in time: ${server.logs()} ${worker.said}`);
}

/** The most that processes have at a time, looked at often. */
function watchMemory(pids: Record<string, number>): () => Record<string, number> {
  const most: Record<string, number> = {};
  const look = (): void => {
    for (const [name, pid] of Object.entries(pids)) most[name] = Math.max(most[name] ?? 0, memoryOf(pid).resident);
  };
  look();
  const timer = setInterval(look, 100);
  return () => {
    clearInterval(timer);
    look();
    return most;
  };
}

function stagedObjects(): Set<string> {
  const objects = join(server.data, 'objects');
  const names = readdirSync(objects, { recursive: true }) as string[];
  return new Set(names.filter((name) => /staging.*\d{8}$/.test(name)));
}

describe('a large restore', () => {
  test(
    `of ${gib} GiB: staged, fetched with five interruptions, and the same; streamed, and the same`,
    async () => {
      const memory = watchMemory({ api: server.pid, worker: worker.pid });
      const figures: Record<string, number> = { gib };
      for (const [name, { pid }] of Object.entries({ api: server, worker }))
        figures[`${name}StartMiB`] = Math.round(memoryOf(pid).resident / MiB);
      const clock = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
        const from = performance.now();
        const result = await work();
        figures[name] = Math.round(performance.now() - from) / 1_000;
        return result;
      };
      const id = await planned();
      const row = await clock('stagingSeconds', () => staged(id, 60 * minutes));
      figures.workerPeakMiB = Math.round(memoryOf(worker.pid).peak / MiB);
      const { url } = await ask(server, 'POST', `/v1/restores/${id}/link`, token, {});
      const got = join(scratch, 'got.tar');
      const { length } = row.staged;
      expect(length).toBeGreaterThan(fileBytes);
      const link = url as unknown as string;
      const kills = await clock('fetchingSeconds', () => fetchInterrupted([link], got, { length, times: 5 }));
      expect(new Set(kills).size).toBe(5);
      expect(kills.at(-1)).toBeLessThan(length);
      expect(await digestOfOutput('tar', ['-xOf', got])).toBe(content);
      const whole = await clock('wholeSeconds', () =>
        digestOfOutput('curl', ['--silent', '--insecure', '--fail', ...bearer(token), link.split('?')[0]!]),
      );
      expect(await digestOf(got)).toBe(whole);
      rmSync(got);
      await ask(server, 'POST', `/v1/restores/${id}/cancel`, token);
      const streamed = `${server.url}/v1/restores/${await planned('streamed')}/content`;
      const fetch = `curl --silent --insecure --fail ${bearer(token)
        .map((word) => `'${word}'`)
        .join(' ')} '${streamed}'`;
      const opened = await clock('streamingSeconds', () => digestOfOutput('sh', ['-c', `${fetch} | tar -xOf -`]));
      expect(opened).toBe(content);
      const most = memory();
      for (const [name, bytes] of Object.entries(most)) figures[`${name}MiB`] = Math.round(bytes / MiB);
      console.log(JSON.stringify({ ...figures, kills }));
      for (const bytes of Object.values(most)) expect(bytes).toBeLessThan(residentMax);
    },
    90 * minutes,
  );

  test(
    'a worker is killed with -9 half-way: the next one makes it, within two minutes',
    async () => {
      const before = stagedObjects(); // of the one that was cancelled: they go when their time has come
      const id = await planned();
      while (stagedObjects().isSubsetOf(before)) await sleep(2);
      await worker.kill('SIGKILL');
      expect((await rowOf(id)).state).toBe('running');
      const killedAt = performance.now();
      worker = await startWorkerOf(server, { HOLDFAST_STAGING_BYTES_MAX: '100GiB' });
      while ((await rowOf(id)).tries < 2) {
        if (performance.now() > killedAt + 3 * minutes) throw new Error(`not begun anew: ${worker.said}`);
        await sleep(200);
      }
      const begunAfterSeconds = Math.round(performance.now() - killedAt) / 1_000;
      const row = await staged(id, 60 * minutes);
      expect(row.tries).toBe(2);
      console.log(JSON.stringify({ begunAfterSeconds }));
      expect(begunAfterSeconds).toBeLessThan(150);
      const link = (await ask(server, 'POST', `/v1/restores/${id}/link`, token, {})).url as unknown as string;
      expect(await digestOfOutput('sh', ['-c', `curl --silent --insecure --fail '${link}' | tar -xOf -`])).toBe(
        content,
      );
      // What was cancelled goes, and what the killed one had stored; what the other made stays.
      const ready = Math.ceil(row.staged.length / (8 * MiB));
      for (const end = performance.now() + 5 * minutes; stagedObjects().size > ready; await sleep(500))
        if (performance.now() > end)
          throw new Error(`${stagedObjects().size} staged objects, and ${ready} are needed: ${worker.said}`);
      expect(stagedObjects().isDisjointFrom(before)).toBe(true);
    },
    90 * minutes,
  );
});
