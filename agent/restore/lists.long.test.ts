/** Restores of files that name lists: as those that name blocks, whole, identical, resumed and linked. */
import { existsSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { hashCount } from '../../protocol/hashes.ts';
import { heldOpenBelow, scratchFolder, seededBytes, snapshot } from '../files/test-tree.ts';
import { TestArchive } from './test-archive.ts';

let scratch: ReturnType<typeof scratchFolder>;
let root: string;
let to: string;
let archive: TestArchive;

beforeEach(async () => {
  scratch = scratchFolder();
  root = `${scratch.path}/root`;
  to = `${scratch.path}/to`;
  mkdirSync(root);
  writeFileSync(`${root}/large`, seededBytes(1, 30_000_000));
  writeFileSync(`${root}/zeros`, Buffer.alloc(40_000_000));
  writeFileSync(`${root}/small`, seededBytes(2, 10_000));
  linkSync(`${root}/large`, `${root}/linked`);
  archive = new TestArchive();
  archive.listSizes = { minBlocks: 1, averageBlocks: 2, maxBlocks: 3 };
  await archive.backup(root);
});
afterEach(() => {
  expect(heldOpenBelow(scratch.path)).toEqual([]);
  scratch.remove();
});

const lists = (): number => Math.max(...archive.versionsByPath.map((version) => hashCount(version.lists)));

test('restored, they are what was backed up; lists are fetched some at a time', async () => {
  const report = await archive.restore(to, { path: root });
  expect(report).toMatchObject({ complete: true, counts: { filesRestored: 3, hardLinks: 1 } });
  expect(snapshot(`${to}/root`)).toEqual(snapshot(root));
  expect(lists()).toBeGreaterThan(8);
  expect(archive.listRequests).toBeLessThan(lists());
});

test('there already, they are recognised by their content, and nothing but lists is fetched', async () => {
  await archive.restore(to, { path: root });
  archive.asked = 0;
  const report = await archive.restore(to, { path: root });
  expect(report).toMatchObject({ complete: true, counts: { filesIdentical: 4, filesRestored: 0 } });
  expect(archive.asked).toBe(0);
});

test('there already but for a byte, or longer, they are not', async () => {
  await archive.restore(to, { path: root });
  const changed = readFileSync(`${to}/root/large`);
  changed[29_000_000]! ^= 1;
  rmSync(`${to}/root/linked`);
  writeFileSync(`${to}/root/large`, changed);
  writeFileSync(`${to}/root/zeros`, Buffer.alloc(40_000_001));
  const report = await archive.restore(to, { path: root, existing: 'overwrite' });
  expect(report.complete).toBe(true);
  expect(snapshot(`${to}/root`)).toEqual(snapshot(root));
});

test.each([1, 4, 9, 20])('interrupted after %d blocks, they go on where they were', async (blocks) => {
  archive.onBlock = (count) => {
    if (count === blocks) throw new Error('the connection is gone');
  };
  await expect(archive.restore(to, { path: `${root}/large` })).rejects.toThrow('the connection is gone');
  expect(existsSync(`${to}/large`)).toBe(false);
  archive.onBlock = () => undefined;
  const before = archive.asked;
  const report = await archive.restore(to, { path: `${root}/large` });
  expect(report).toMatchObject({ complete: true, counts: { filesRestored: 1 } });
  expect(report.counts.blocksFetched).toBe(archive.asked - before);
  expect(report.counts.bytesResumed + report.counts.bytesFetched).toBeGreaterThanOrEqual(30_000_000);
  expect(readFileSync(`${to}/large`).equals(readFileSync(`${root}/large`))).toBe(true);
});
