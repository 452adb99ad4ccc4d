import { spawn } from 'node:child_process';
import { expect, test } from '@jest/globals';
import { cpuBetween, type ProcessTimes, parseProcessTimes, readTreeCpu, sumTree } from './process-cpu.ts';

const line = (name: string): string =>
  `4711 (${name}) S 42 4711 4711 0 -1 4194560 9 8 7 6 150 25 300 4 20 0 11 0 123456 999 888 1844 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0\n`;

test.each(['node', 'postgres: io worker', 'a) b (c', ''])('the times of a process named "%s" are read', (name) => {
  expect(parseProcessTimes(line(name))).toEqual({
    pid: 4711,
    parentPid: 42,
    name,
    ownSeconds: 1.75,
    endedChildrenSeconds: 3.04,
  });
});

test.each(['', '4711 node S 42', '4711 (node) S', ') ('])('"%s" is refused', (text) => {
  expect(() => parseProcessTimes(text)).toThrow(/not a process's stat line/);
});

const times = (
  pid: number,
  parentPid: number,
  name: string,
  ownSeconds: number,
  endedChildrenSeconds = 0,
): ProcessTimes => ({
  pid,
  parentPid,
  name,
  ownSeconds,
  endedChildrenSeconds,
});

test('a tree is its root, all below it and what ended there, and nothing beside it', () => {
  const processes = [
    times(1, 0, 'init', 100, 100),
    times(12, 11, 'postgres', 4, 0.5),
    times(10, 1, 'node', 1, 2),
    times(11, 10, 'postgres', 3),
    times(20, 1, 'postgres', 50),
  ];
  expect(sumTree(processes, 10)).toEqual({ seconds: 10.5, postgresSeconds: 7.5 });
  expect(sumTree(processes, 99)).toEqual({ seconds: 0, postgresSeconds: 0 });
});

test('process numbers used again in a circle end the walk all the same', () => {
  expect(sumTree([times(2, 3, 'a', 1), times(3, 2, 'b', 1)], 2).seconds).toBe(2);
});

const onLinux = process.platform === 'linux' ? test : test.skip;
onLinux('what a child has used is counted while it lives and after it has ended', async () => {
  const before = readTreeCpu(process.pid);
  const busy =
    'const until = process.cpuUsage().user + 3e5; while (process.cpuUsage().user < until); process.stdin.resume(); console.log(1)';
  const child = spawn(process.execPath, ['-e', busy], { stdio: ['pipe', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  expect(readTreeCpu(child.pid!).seconds).toBeGreaterThan(0.2);
  expect(cpuBetween(before, readTreeCpu(process.pid)).seconds).toBeGreaterThan(0.2);
  child.stdin.end();
  await new Promise((resolve) => child.once('close', resolve));
  expect(readTreeCpu(child.pid!).seconds).toBe(0);
  expect(cpuBetween(before, readTreeCpu(process.pid)).seconds).toBeGreaterThan(0.2);
});
