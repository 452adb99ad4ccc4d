import { expect, test } from '@jest/globals';
import { compareCosts, type StepCost } from './garbage-figures.ts';

const cost = (versions: number, seconds: number): StepCost<{ versions: number }> => ({
  step: 'prune',
  result: { versions },
  seconds,
  workerCpuSeconds: seconds / 4,
  postgresCpuSeconds: seconds / 2,
  walBytes: seconds * 1000,
  peakMemoryMiB: 100,
});

test('what a hundredth costs is told as a share of what all of it costs', () => {
  expect(compareCosts(cost(50, 2), cost(5_000, 100))).toEqual({
    versions: 0.01,
    seconds: 0.02,
    cpuSeconds: 0.02,
    walBytes: 0.02,
  });
});

test('the processor time is that of the worker and of PostgreSQL', () => {
  const few = { ...cost(1, 1), workerCpuSeconds: 3, postgresCpuSeconds: 1 };
  const all = { ...cost(1, 1), workerCpuSeconds: 10, postgresCpuSeconds: 30 };
  expect(compareCosts(few, all).cpuSeconds).toBe(0.1);
});

test('a prune that deleted nothing is not compared with', () => {
  expect(() => compareCosts(cost(0, 1), cost(5, 1))).toThrow('deleted nothing');
  expect(() => compareCosts(cost(5, 1), cost(0, 1))).toThrow('deleted nothing');
});
