/**
 * More packs at a time than the byte budget holds: restic sends five at once, 16 MiB each, and several of them run. Whoever does
 * not fit waits, unread, and is not sent away: restic would send the whole pack again, after a pause that grows.
 */
import { createHash } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import { afterEach, expect, test } from '@jest/globals';
import { recount } from '../../../storage/archive/checking/recount.ts';
import { FaultyStore } from '../../../storage/objects/faulty-store.ts';
import { MemoryStore } from '../../../storage/objects/memory-store.ts';
import { budgetDefaults } from '../settings.ts';
import { answerOf, h2 } from '../testing.ts';
import { resticRoutes } from './routes.ts';
import { basic, type ResticWorld, resticWorld, type TestRepository } from './testing.ts';

const packBytes = 16 * 1024 * 1024;
/** What all packs have in common: all but their first bytes. */
const rest = Buffer.alloc(packBytes - 4, 'sealed');

interface Pack {
  head: Buffer;
  name: string;
}

function packOf(n: number): Pack {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(n);
  return { head, name: createHash('sha256').update(head).update(rest).digest('hex') };
}

let world: ResticWorld;
let repository: TestRepository;
let session: ClientHttp2Session;
let authorization: string;
let mostHeld = 0;
let mostTaken = 0;
let looking: NodeJS.Timeout;

/** @param putMs how long the store takes for an object */
async function begin(putMs: number): Promise<void> {
  const objects = new FaultyStore(new MemoryStore(), {
    random: () => 0.999,
    rates: { delay: 1 },
    delayMsMax: putMs,
  });
  world = await resticWorld({ storage: { objects }, routes: resticRoutes });
  repository = await world.repository('laptop');
  authorization = basic('ann', await world.token(repository));
  session = await h2(world.server);
  const { budget } = world.server.deps;
  mostHeld = 0;
  mostTaken = 0;
  looking = setInterval(() => {
    mostHeld = Math.max(mostHeld, budget.heldBytes);
    mostTaken = Math.max(mostTaken, budget.heldBytes + budget.windowBytes);
  }, 5);
}

afterEach(async () => {
  clearInterval(looking);
  session?.destroy();
  await world?.close();
});

const headers = (method: string, path: string) => ({
  ':method': method,
  ':path': `/restic/laptop/${path}`,
  authorization,
});

async function put({ head, name }: Pack): Promise<number> {
  const stream = session.request({ ...headers('POST', `data/${name}`), 'content-length': packBytes });
  stream.write(head);
  stream.end(rest);
  return (await answerOf(stream)).status;
}

async function names(): Promise<string[]> {
  const { body } = await answerOf(session.request(headers('GET', 'data/')));
  return (JSON.parse(body.toString()) as string[]).sort();
}

function expectWithinBudget(): void {
  const { totalBytes, bodyBytesMax } = budgetDefaults;
  expect(mostHeld).toBeGreaterThan(totalBytes / 2);
  expect(mostHeld).toBeLessThanOrEqual(totalBytes);
  expect(mostTaken).toBeLessThanOrEqual(totalBytes + bodyBytesMax);
}

test('the five that restic sends at once are all taken, however slow the store is', async () => {
  await begin(1_500);
  const packs = Array.from({ length: 5 }, (_, n) => packOf(n));
  expect(await Promise.all(packs.map(put))).toEqual([200, 200, 200, 200, 200]);
  expect(await names()).toEqual(packs.map(({ name }) => name).sort());
  expectWithinBudget();
}, 60_000);

test('of twenty at once each is taken, or is refused after its wait and then taken when it is sent again', async () => {
  await begin(400);
  const packs = Array.from({ length: 20 }, (_, n) => packOf(n));
  const status = await Promise.all(packs.map(put));
  // 408: on a busy machine one may be slow, and make room for others.
  for (const each of status) expect([200, 408, 503]).toContain(each);
  const taken = packs.filter((_, n) => status[n] === 200);
  expect(taken.length).toBeGreaterThanOrEqual(5);
  expect(await names()).toEqual(taken.map(({ name }) => name).sort());
  for (const pack of packs) expect(await put(pack)).toBe(200);
  expect(await names()).toEqual(packs.map(({ name }) => name).sort());
  expect(await recount(world.storage, repository.vault)).toMatchObject({
    tooLow: 0,
    tooHigh: 0,
    absent: 0,
    figures: 0,
  });
  expectWithinBudget();
}, 120_000);
