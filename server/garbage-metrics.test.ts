import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { closeAlertsOf, raiseAlert } from '../storage/catalog/checking/alerts.ts';
import { newArchive, type TestStorage, testStorage } from '../tests/helpers/storage.ts';
import { garbageMetrics } from './garbage-metrics.ts';
import { createMetrics } from './metrics.ts';

let storage: TestStorage;
beforeAll(async () => {
  storage = await testStorage();
});
afterAll(() => storage?.close());

test('garbage and alerts are in what Prometheus reads, asked for once in half a minute', async () => {
  let now = 0;
  const metrics = createMetrics();
  metrics.observe({ numbers: garbageMetrics(storage.database, () => now) });
  const values = async (): Promise<Record<string, number>> => {
    const lines = (await metrics.render())
      .split('\n')
      .filter((line) => /^holdfast_(alerts|freed|dead|object)/.test(line));
    return Object.fromEntries(lines.map((line) => [line.split(' ')[0], Number(line.split(' ')[1])]));
  };
  expect(await values()).toEqual({
    holdfast_freed_overdue: 0,
    holdfast_freed_overdue_oldest_seconds: 0,
    holdfast_dead_objects_overdue: 0,
    holdfast_dead_objects_overdue_bytes: 0,
    holdfast_dead_objects_overdue_oldest_seconds: 0,
    'holdfast_object_free_bytes{in="kept"}': 0,
    'holdfast_object_free_bytes{in="sparse"}': 0,
    holdfast_objects_sparse: 0,
  });

  const ref = await newArchive(storage);
  await raiseAlert(storage.database, { ...ref, kind: 'expiry_cap', details: {} });
  await raiseAlert(storage.database, { vault: 0, kind: 'deleting_stopped', details: {} });
  const run = (text: string) => storage.database.query({ name: '', text });
  await run(`INSERT INTO freed SELECT ${ref.vault}, sha256('a'), now() - interval '3 hours'`);
  expect((await values()).holdfast_freed_overdue).toBe(0); // as it was a moment ago
  now = 30_000;
  const later = await values();
  expect(later).toMatchObject({
    holdfast_freed_overdue: 1,
    'holdfast_alerts_open{kind="expiry_cap"}': 1,
    'holdfast_alerts_open{kind="deleting_stopped"}': 1,
  });
  expect(Math.round(later.holdfast_freed_overdue_oldest_seconds! / 3_600)).toBe(3);

  // One that is closed is no longer there, and not there with its last number.
  await closeAlertsOf(storage.database, { ...ref, kind: 'expiry_cap' }, 'the test');
  now = 60_000;
  expect(Object.keys(await values())).not.toContain('holdfast_alerts_open{kind="expiry_cap"}');
});

test('a catalog that does not answer leaves the last values, and is asked again', async () => {
  let now = 0;
  let broken = false;
  const database = {
    ...storage.database,
    query: <Row>(...args: Parameters<typeof storage.database.query>) =>
      broken ? Promise.reject(new Error('away')) : storage.database.query<Row>(...args),
  };
  const metrics = createMetrics();
  metrics.observe({ numbers: garbageMetrics(database as never, () => now) });
  const freed = async () => /^holdfast_freed_overdue (\d+)$/m.exec(await metrics.render())?.[1];
  expect(await freed()).toBe('1');
  now = 30_000;
  broken = true;
  expect(await freed()).toBe('1');
  broken = false;
  await storage.database.query({ name: '', text: 'DELETE FROM freed' });
  expect(await freed()).toBe('0');
});
