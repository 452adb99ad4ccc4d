import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { seededRandom } from '../../tests/helpers/random.ts';
import { checkObjects, settingsErrors, settingsWarnings } from './check-objects.ts';
import { FaultyStore } from './faulty-store.ts';
import { MemoryStore } from './memory-store.ts';
import type { ObjectRange, StoreInspection } from './object-store.ts';
import { openObjectStore } from './open-store.ts';
import { listAll } from './store-contract.ts';

test('a directory is found fit, told how fast it is, and left as it was', async () => {
  const scratch = await mkdtemp(join(tmpdir(), 'holdfast-check-'));
  try {
    const store = await openObjectStore({ kind: 'directory', path: join(scratch, 'store') }, { create: true });
    await store.put('mine', { length: 0, chunks: [] });
    const lines: string[] = [];
    const result = await checkObjects(store, (line) => lines.push(line), { concurrency: 4 });
    expect(result.steps.filter(({ ok }) => !ok)).toEqual([]);
    expect(result.ok).toBe(true);
    expect(result.inspection).toMatchObject({ kind: 'directory' });
    expect(result.latency!.putMedianMs).toBeGreaterThan(0);
    expect(lines.length).toBeGreaterThanOrEqual(result.steps.length);
    expect(await listAll(store, '', 10)).toEqual(['mine']);
  } finally {
    await rm(scratch, { recursive: true });
  }
});

test('a store that cuts ranges short is found out, the rest is still checked, and nothing stays', async () => {
  class CuttingStore extends MemoryStore {
    override async get(key: string, range?: ObjectRange) {
      return super.get(key, range && { ...range, length: Math.min(range.length, 2) });
    }
  }
  const store = new CuttingStore();
  const result = await checkObjects(store, () => {}, { concurrency: 4 });
  expect(result.ok).toBe(false);
  const failed = result.steps.filter(({ ok }) => !ok).map(({ name }) => name);
  expect(failed).toContain('a range gives exactly its bytes, and one that does not lie within the object is refused');
  expect(failed.length).toBeLessThan(result.steps.length / 2);
  expect(await listAll(store, '', 10)).toEqual([]);
});

test('a store that does not answer is reported at once, as one step', async () => {
  const store = new FaultyStore(new MemoryStore(), { random: seededRandom(1).next, rates: { errorBefore: 1 } });
  const lines: string[] = [];
  const result = await checkObjects(store, (line) => lines.push(line));
  expect(result).toMatchObject({ ok: false, steps: [{ name: 'the store answers', ok: false }] });
  expect(lines).toHaveLength(1);
});

const rule = (effect: 'expires' | 'archives' | 'tidies') => ({ id: 'r', prefix: 'p/', effect });
const fit: StoreInspection = { kind: 's3', versioning: 'off', lifecycleRules: [], clockAheadMs: 900 };

test.each<[StoreInspection, number, number]>([
  [fit, 0, 0],
  [{ ...fit, lifecycleRules: [rule('expires')] }, 1, 0],
  [{ ...fit, lifecycleRules: [rule('archives'), rule('expires')] }, 2, 0],
  [{ ...fit, lifecycleRules: [rule('tidies')] }, 0, 0],
  [{ ...fit, versioning: 'enabled' }, 0, 1],
  [{ kind: 's3', clockAheadMs: 0 }, 0, 2],
  [{ ...fit, clockAheadMs: -6_000 }, 0, 1],
  [{ ...fit, clockAheadMs: 301_000 }, 1, 0],
  [{ kind: 'directory', freeBytes: 1_000_000 }, 0, 1],
  [{ kind: 'directory', freeBytes: 2 ** 40 }, 0, 0],
])('settings %j: %d errors, %d warnings', (found, errors, warnings) => {
  expect(settingsErrors(found)).toHaveLength(errors);
  expect(settingsWarnings(found)).toHaveLength(warnings);
});
