import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import type { JobRun } from './definitions.ts';
import { runJob, WrongJobData } from './run-job.ts';
import { endless } from './testing.ts';

const call = { context: null, data: {}, stop: new AbortController().signal, progress: () => {} };
const job = (work: (run: JobRun) => Promise<Record<string, number>>, sliceMs: number | null = null) => ({
  sliceMs,
  work: (_: null, run: JobRun) => work(run),
});

test('work that ends by itself is done, with its numbers', async () => {
  expect(
    await runJob(
      job(async () => ({ rows: 3 }), 60_000),
      call,
    ),
  ).toEqual({ ended: 'done', result: { rows: 3 } });
});

describe.each([
  ['throws the reason', (signal: AbortSignal) => endless(signal)],
  [
    'throws an error caused by it',
    (signal: AbortSignal) =>
      endless(signal).catch((cause) => {
        throw new Error('reading was given up', { cause });
      }),
  ],
  ['returns what it has', (signal: AbortSignal) => endless(signal).catch(() => ({ rows: 2 }))],
])('work that, asked to end, %s', (how, work) => {
  const result = how.startsWith('returns') ? { rows: 2 } : {};

  test('is cut when its time is over', async () => {
    expect(
      await runJob(
        job(({ signal }) => work(signal), 20),
        call,
      ),
    ).toEqual({ ended: 'cut', result });
  });

  test('is stopped when its process is', async () => {
    const stop = new AbortController();
    const running = runJob(
      job(({ signal }) => work(signal), 60_000),
      { ...call, stop: stop.signal },
    );
    await sleep(20);
    stop.abort(new DOMException('shutting down', 'AbortError'));
    expect(await running).toEqual({ ended: 'stopped', result });
  });
});

test('work that throws when its time is over has done what it told last, and so have its metrics', async () => {
  const told: object[] = [];
  const outcome = await runJob(
    job(async ({ signal, progress }) => {
      const soFar = { rows: 0 };
      for (; soFar.rows < 3; soFar.rows++) progress(soFar);
      progress(soFar);
      return endless(signal);
    }, 20),
    { ...call, progress: (numbers) => told.push(numbers) },
  );
  expect(outcome).toEqual({ ended: 'cut', result: { rows: 3 } });
  expect(told).toEqual([{ rows: 0 }, { rows: 1 }, { rows: 2 }, { rows: 3 }]);
});

test('what fails for another reason has failed, also when it was asked to end', async () => {
  const broken = new Error('the disk is full');
  await expect(
    runJob(
      job(() => Promise.reject(broken)),
      call,
    ),
  ).rejects.toBe(broken);
  const late = job(({ signal }) => endless(signal).catch(() => Promise.reject(broken)), 20);
  await expect(runJob(late, call)).rejects.toBe(broken);
  // An abort of its own, of nobody's asking.
  const own = job(() => Promise.reject(new DOMException('no answer', 'AbortError')), 60_000);
  await expect(runJob(own, call)).rejects.toThrow('no answer');
});

test('nothing is begun when the process is stopping', async () => {
  let begun = false;
  const work = job(async () => {
    begun = true;
    return {};
  });
  expect(await runJob(work, { ...call, stop: AbortSignal.abort() })).toEqual({ ended: 'stopped', result: {} });
  expect(begun).toBe(false);
});

describe('the data of a job', () => {
  const ids = z.strictObject({ vault: z.int().positive() });
  const seen: unknown[] = [];
  const withIds = { ...job(async (run) => ({ seen: seen.push(run.ids) })), ids };

  test('reaches the work when it is the ids the job takes', async () => {
    await runJob(withIds, { ...call, data: { vault: 12 } });
    expect(seen).toEqual([{ vault: 12 }]);
  });

  test.each([{}, { vault: '12' }, { vault: -1 }, { vault: 12, path: '/etc' }, null, 'vault', [12]])(
    '%j is refused before any work',
    async (data) => {
      const before = seen.length;
      await expect(runJob(withIds, { ...call, data })).rejects.toThrow(WrongJobData);
      expect(seen).toHaveLength(before);
    },
  );

  test('is nothing when the job takes none', async () => {
    await expect(
      runJob(
        job(async () => ({})),
        { ...call, data: { vault: 12 } },
      ),
    ).rejects.toThrow(WrongJobData);
  });
});
