/**
 * Made-up request bodies for every route that takes one: values of the wrong type, size and kind in the place of right ones,
 * names nobody knows, nesting, text that is none, bytes that are nothing, and msgpack that promises more than it holds.
 * Whatever is sent, the answer is one for the caller: never a failure of the server.
 *
 * `npm run test:fuzz` runs 100,000, and fails when the memory of the process grows with them.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { apiRoutes } from '../../server/http/api/routes.ts';
import { type Random, seededRandom } from '../helpers/random.ts';
import { agentBodies } from './agent-bodies.ts';
import { apiCalls } from './calls.ts';
import type { ApiWorld } from './world.ts';

export interface FuzzOptions {
  cases: number;
  seed: number;
  onProgress?: (done: number) => void;
}

export interface FuzzResult {
  cases: number;
  /** Of each status, how many. */
  statuses: Record<string, number>;
  /** What must not be: a status of 500 or above, or no answer. 507 is a quota, which one of the bodies may have set. */
  faults: string[];
  /** Bytes of the process that are in use, when a fifth was done and at the end. */
  inUse: { early: number; end: number };
}

interface Victim {
  name: string;
  method: string;
  path: string;
  type: string;
  token: string;
  body: unknown;
  /** As it is sent, where that is no JSON. */
  bytes?: Buffer;
}

/** Of a seat or of bytes: an answer for the caller, though its number says otherwise. */
const overQuota = 507;

/** Of the form that is asked for, and nothing that PostgreSQL knows. */
export const hostileMoments = [
  '2026-01-01T00:00:00+23:00',
  '2026-01-01T00:00:00-23:59',
  '0000-01-01T00:00:00Z',
  '0000-12-31T23:59:59.999Z',
  '0001-01-01T00:00:00+23:59',
  '9999-12-31T23:59:59-23:59',
  '9999-12-31T23:59:59.9999999999Z',
  `2026-01-01T00:00:00.${'1'.repeat(400)}Z`,
  '2026-02-30T00:00:00Z',
  '2026-01-01T24:00:00Z',
];
export const hostileGuids = [`${2n ** 63n}`, '9999999999999999999', `${2n ** 64n}`];

const strange: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -1,
  1.5,
  1e308,
  -1e-308,
  2 ** 53 + 2,
  2 ** 31,
  2 ** 63,
  '',
  ' ',
  '0',
  '-1',
  'null',
  '\u0000',
  'a\u0000b',
  '\ud800',
  '\u202e',
  '\ufeff',
  '💾'.repeat(300),
  'x'.repeat(256),
  'x'.repeat(60_000),
  '../../etc/passwd',
  "'; DROP TABLE users; --",
  '%s%n',
  '=1+1',
  [],
  {},
  [[]],
  [null],
  { __proto__: null, constructor: 1 },
  { toString: 'x' },
  Array.from({ length: 2_000 }, (_, i) => i),
  '9999-99-99T99:99:99Z',
  '2026-01-01T00:00:00Z',
  ...hostileMoments,
  ...hostileGuids,
  'Infinity',
];

/** One value like another, with something about it changed. */
export function mutate(random: Random, value: unknown, depth = 0): unknown {
  if (depth > 6 || random.chance(0.15)) return random.pick(strange);
  if (Array.isArray(value)) {
    const copy = value.map((each) => (random.chance(0.5) ? mutate(random, each, depth + 1) : each));
    if (random.chance(0.3)) copy.push(random.pick(strange));
    if (random.chance(0.1)) return Array.from({ length: 5_000 }, () => copy[0]);
    return copy;
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).filter(() => !random.chance(0.1));
    const copy: Record<string, unknown> = Object.fromEntries(
      entries.map(([name, each]) => [name, random.chance(0.5) ? mutate(random, each, depth + 1) : each]),
    );
    if (random.chance(0.15)) copy[JSON.stringify(random.pick(strange)).slice(0, 100)] = random.pick(strange);
    return copy;
  }
  return random.chance(0.7) ? random.pick(strange) : value;
}

function nested(random: Random, depth: number): string {
  return random.chance(0.5) ? '['.repeat(depth) + ']'.repeat(depth) : `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;
}

/** Bytes in the place of JSON. */
function jsonBytes(random: Random, body: unknown): Buffer {
  const dice = random.next();
  if (dice < 0.75) return Buffer.from(JSON.stringify(mutate(random, body)) ?? '');
  if (dice < 0.8) return Buffer.from(nested(random, random.pick([100, 1_000, 20_000])));
  const text = Buffer.from(JSON.stringify(body) ?? '');
  if (dice < 0.9) return flipped(random, text);
  if (dice < 0.95) return text.subarray(0, random.below(text.length + 1));
  return random.bytes(random.below(300));
}

function flipped(random: Random, bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  for (let i = 1 + random.below(4); i > 0 && copy.length > 0; i--) copy[random.below(copy.length)] = random.below(256);
  return copy;
}

/** Heads of msgpack that promise what does not come. */
const bombs = [
  Buffer.from('dd7fffffff', 'hex'), // an array of 2^31 - 1
  Buffer.from('dfffffffff', 'hex'), // a map of 2^32 - 1
  Buffer.from('c67fffffff', 'hex'), // two gigabytes
  Buffer.from('dbffffffff', 'hex'), // four gigabytes of text
  Buffer.from('c9ffffffff01', 'hex'), // an extension
  Buffer.from('d4ff00', 'hex'), // a timestamp of one byte
  Buffer.alloc(60_000, 0x91), // sixty thousand arrays in one another
  Buffer.concat([Buffer.alloc(30_000, 0x81), Buffer.from('a161c0', 'hex')]),
];

function msgpackBytes(random: Random, bytes: Buffer): Buffer {
  const dice = random.next();
  if (dice < 0.2) return random.pick(bombs);
  if (dice < 0.3) return bytes.subarray(0, random.below(bytes.length + 1));
  if (dice < 0.35) return random.bytes(random.below(400));
  if (dice < 0.5) {
    const at = random.below(bytes.length + 1);
    return Buffer.concat([bytes.subarray(0, at), random.pick(bombs), bytes.subarray(at)]).subarray(0, 70_000);
  }
  return flipped(random, bytes);
}

export async function fuzz(world: ApiWorld, { cases, seed, onProgress }: FuzzOptions): Promise<FuzzResult> {
  const random = seededRandom(seed);
  const chief = await world.person('Customer Cloud Admin', { name: `fuzzer ${seed}` });
  const about = { ...world.places.child, elsewhere: world.places.sibling.organization };
  const victims: Victim[] = [
    ...apiRoutes.flatMap((route): Victim[] => {
      if (!('body' in route) || !route.body) return [];
      const name = `${route.method} ${route.path}`;
      const call = apiCalls[name];
      const path = call ? call.path(about) : route.path.replaceAll(/:\w+/g, '1');
      const body = call?.body?.(about) ?? { userName: 'ann', password: 'x', refreshToken: 'y', name: 'z' };
      return [{ name, method: route.method, path, type: 'application/json', token: chief.token, body }];
    }),
    ...(await agentBodies(world)).map((each) => ({ ...each, body: null })),
  ];
  const result: FuzzResult = { cases, statuses: {}, faults: [], inUse: { early: 0, end: 0 } };
  for (let i = 0; i < cases; i++) {
    const victim = random.pick(victims);
    const bytes = victim.bytes ? msgpackBytes(random, victim.bytes) : jsonBytes(random, victim.body);
    const status = await send(world, victim, bytes, random).catch((error: Error) => `no answer: ${error.message}`);
    result.statuses[status] = (result.statuses[status] ?? 0) + 1;
    if (typeof status === 'string' || (status >= 500 && status !== overQuota))
      result.faults.push(`case ${i}: ${victim.name}: ${status}: ${bytes.toString('latin1').slice(0, 300)}`);
    if (status === 401 && !victim.bytes) await restore(world);
    if (i === Math.floor(cases / 5)) result.inUse.early = await bytesInUse();
    // What the test server logs, it keeps for whoever looks.
    world.server.lines.length = 0;
    if (i % 1_000 === 999) onProgress?.(i + 1);
  }
  result.inUse.end = await bytesInUse();
  return result;
}

async function send(world: ApiWorld, victim: Victim, bytes: Buffer, random: Random): Promise<number> {
  const type = random.chance(0.03)
    ? random.pick(['text/plain', '', 'application/octet-stream', 'a'.repeat(500)])
    : victim.type;
  const answer = await fetch(`${world.server.origin}${victim.path}`, {
    method: victim.method,
    headers: { authorization: `Bearer ${victim.token}`, 'content-type': type },
    body: new Uint8Array(bytes),
  });
  await answer.arrayBuffer();
  return answer.status;
}

/** What was asked for may have been done: then whoever asks is let in again. */
async function restore(world: ApiWorld): Promise<void> {
  await world.storage.rows(`UPDATE users SET state = 'active' WHERE state <> 'active'`);
  await world.storage.rows(`UPDATE organizations SET state = 'active' WHERE state <> 'active'`);
}

/** What is left when everything that can be collected was: the same for however many requests. */
async function bytesInUse(): Promise<number> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  for (let i = 0; i < 3; i++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    collect();
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
