import { expect, test } from '@jest/globals';
import { type Measurement, summarizeRow } from './measurements.ts';
import { renderReport } from './report.ts';

const measurement = (megabytesPerSecond: number, cpuSecondsPerGiB: number): Measurement => ({
  seconds: 2,
  megabytesPerSecond,
  cpuSecondsPerGiB,
  postgresCpuSecondsPerGiB: 0.5,
  clientCores: 0.25,
});

const row = summarizeRow({
  name: 'upload',
  blocks: 100,
  holdfast: [measurement(100, 4), measurement(10, 6), measurement(120, 3)],
  bare: [measurement(200, 1), measurement(20, 2), measurement(160, 1)],
});

test('a row has the medians of both sides and the median ratio of the rounds', () => {
  expect(row.holdfast.megabytesPerSecond).toEqual({ median: 100, min: 10, max: 120 });
  expect(row.bare!.cpuSecondsPerGiB).toEqual({ median: 1, min: 1, max: 2 });
  expect(row.ratio).toEqual({ megabytesPerSecond: 0.5, cpuSecondsPerGiB: 3 });
});

test('a report says the ratios, the figures and what a processor could carry', () => {
  const commit = summarizeRow({ name: 'commit', blocks: 4_000, holdfast: [measurement(1_073.741824, 1)], bare: null });
  const text = renderReport({
    at: '2026-01-01T00:00:00Z',
    node: '24.0.0',
    processors: 2,
    loadBefore: 3.14,
    rounds: 3,
    quick: false,
    profiled: false,
    windows: { streamBytes: 4 * 2 ** 20, connectionBytes: 16 * 2 ** 20 },
    idleCores: 0.015,
    disk: { megabytesPerSecond: 321, cpuSecondsPerGiB: 0.4 },
    rows: [row, commit],
  });
  expect(text).toMatch(/upload +0\.50 x +3\.00 x/);
  expect(text).toMatch(/upload +100 +\(10\.0 to 120\) +160 +\(20\.0 to 200\)/);
  expect(text).toMatch(/commit +2000 +500 +1\.00 +0\.50/); // 2 s of processor for 4,000 files
  expect(text).toMatch(/a processor's worth of work is 268 MB\/s, of the bare handler 1074/);
  expect(text).toContain('busy with other things (load average 3.14)');
  expect(text).toContain('took 0.40 CPU s/GiB (321 MB/s)');
  expect(text).toContain('At rest the server uses 1.50 % of one processor.');
});
