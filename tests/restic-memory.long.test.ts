/**
 * What a repository costs the server, from outside: a file of 1 GiB and a list of a million names take no more memory than small
 * ones, and how much processor a GiB takes is printed.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from 'node:http2';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { rawSession } from './helpers/raw-http.ts';
import { addRepository, addToken } from './helpers/restic.ts';
import { memoryOf, type RunningServer, startServer } from './helpers/server.ts';

const MiB = 1024 * 1024;
/** Two pieces of a file on their way, buffers of the network, and garbage that is not collected yet. */
const growthMax = 128 * MiB;

let server: RunningServer;
let session: ClientHttp2Session;
let authorization: string;

beforeAll(async () => {
  server = await startServer();
  const { userName } = server.firstStart;
  const token = await addToken(server, await addRepository(server, 'large', userName));
  authorization = `Basic ${Buffer.from(`${userName}:${token}`).toString('base64')}`;
  session = await rawSession(server.url);
}, 120_000);
afterAll(async () => {
  session?.destroy();
  await server?.stop();
}, 60_000);

/** Other bytes in every MiB, made quickly. */
function megabyte(seed: number): Buffer {
  const bytes = Buffer.alloc(MiB, createHash('sha512').update(String(seed)).digest());
  for (let at = 0; at < MiB; at += 4_096) bytes.writeUInt32LE((seed * 257 + at) >>> 0, at);
  return bytes;
}

function nameOf(megabytes: readonly number[]): string {
  const digest = createHash('sha256');
  for (const seed of megabytes) digest.update(megabyte(seed));
  return digest.digest('hex');
}

const begin = (headers: OutgoingHttpHeaders, endStream: boolean): ClientHttp2Stream =>
  session.request({ authorization, ...headers }, { endStream });

async function put(megabytes: readonly number[]): Promise<number> {
  const path = `/restic/large/data/${nameOf(megabytes)}`;
  const stream = begin({ ':method': 'POST', ':path': path, 'content-length': megabytes.length * MiB }, false);
  const status = new Promise<number>((resolve, reject) => {
    stream.on('response', (headers) => resolve(headers[':status'] ?? 0)).on('error', reject);
  });
  stream.resume();
  for (const seed of megabytes)
    if (!stream.write(megabyte(seed))) await new Promise((resolve) => stream.once('drain', resolve));
  stream.end();
  return status;
}

async function get(path: string, take: (chunk: Buffer) => void): Promise<number> {
  const stream = begin({ ':path': `/restic/large/${path}`, accept: 'application/vnd.x.restic.rest.v2' }, true);
  let bytes = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    take(chunk);
    bytes += chunk.byteLength;
  }
  return bytes;
}

/** User and system time of the server, in seconds; of Linux, a hundredth of one is a tick. */
function cpuSeconds(): number {
  const stat = readFileSync(`/proc/${server.pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** How much more memory the server took at most, and the processor's seconds that it took. */
async function costOf(what: string, work: () => Promise<void>): Promise<number> {
  const before = memoryOf(server.pid).resident;
  const cpu = cpuSeconds();
  const begun = performance.now();
  let most = before;
  const timer = setInterval(() => (most = Math.max(most, memoryOf(server.pid).resident)), 20);
  await work();
  clearInterval(timer);
  const seconds = (performance.now() - begun) / 1_000;
  console.info(
    `${what}: ${seconds.toFixed(1)} s, ${(cpuSeconds() - cpu).toFixed(2)} s of the server's processor, ${Math.round((most - before) / MiB)} MiB more`,
  );
  return most - before;
}

const seeds = (from: number, count: number): number[] => Array.from({ length: count }, (_, i) => from + i);

test('1 GiB in packs of 16 MiB, and in one file, in and out', async () => {
  const packs = Array.from({ length: 64 }, (_, i) => seeds(10_000 + i * 16, 16));
  await put(seeds(1, 16)); // what is loaded with the first request
  const inPacks = async (): Promise<void> => {
    for (const pack of packs) expect(await put(pack)).toBe(200);
  };
  expect(await costOf('64 packs of 16 MiB, put', inPacks)).toBeLessThan(growthMax);
  const outPacks = async (): Promise<void> => {
    for (const pack of packs) expect(await get(`data/${nameOf(pack)}`, () => {})).toBe(16 * MiB);
  };
  expect(await costOf('64 packs of 16 MiB, got', outPacks)).toBeLessThan(growthMax);

  const large = seeds(50_000, 1_024);
  const name = nameOf(large);
  const one = async (): Promise<void> => expect(await put(large)).toBe(200);
  expect(await costOf('1 GiB in one file, put', one)).toBeLessThan(growthMax);
  const digest = createHash('sha256');
  const out = async (): Promise<void> =>
    expect(await get(`data/${name}`, (chunk) => digest.update(chunk))).toBe(1_024 * MiB);
  expect(await costOf('1 GiB in one file, got', out)).toBeLessThan(growthMax);
  expect(digest.digest('hex')).toBe(name);
}, 600_000);

test('a million names are listed, and not held together', async () => {
  await put(seeds(1, 1));
  await server.query(
    `WITH folder AS (SELECT f.vault_id, f.archive_id, f.file_id FROM files f JOIN devices d USING (vault_id, archive_id)
                      WHERE d.name = 'large' AND f.parent_id = 0 AND f.name = 'data'),
          made AS (
            INSERT INTO files (vault_id, archive_id, file_id, parent_id, name, folder, implied, created_seq)
            SELECT f.vault_id, f.archive_id, 1000000 + i, f.file_id, convert_to(encode(sha256(i::text::bytea), 'hex'), 'UTF8'), false, false, 1000000 + i
              FROM folder f, generate_series(1, 1000000) i
            RETURNING vault_id, archive_id, file_id)
     INSERT INTO versions (vault_id, archive_id, file_id, seq, committed_at, kind, deleted, size, mtime, attributes, mac, blocks)
     SELECT vault_id, archive_id, file_id, file_id, now(), 'file', false, 7, 0, '', sha256(''), '' FROM made`,
  );
  let names = 0;
  const list = async (): Promise<void> => {
    await get('data/', (chunk) => {
      for (let at = chunk.indexOf('{'); at >= 0; at = chunk.indexOf('{', at + 1)) names++;
    });
  };
  // 90 MB are sent, and what each page was made of is garbage; held together they would be some 400.
  expect(await costOf('a million names, listed', list)).toBeLessThan(2 * growthMax);
  expect(names).toBeGreaterThanOrEqual(1_000_000);
}, 600_000);
