/** A restore run again over what it restored: files are compared beside each other, and nothing that is right is touched. */
import { linkSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { heldOpenBelow, scratchFolder, seededBytes, snapshot } from '../files/test-tree.ts';
import { TestArchive } from './test-archive.ts';

const files = 120;
let scratch: ReturnType<typeof scratchFolder>;
let root: string;
let to: string;
let archive: TestArchive;

beforeAll(async () => {
  scratch = scratchFolder();
  root = `${scratch.path}/root`;
  to = `${scratch.path}/to`;
  mkdirSync(`${root}/sub`, { recursive: true });
  for (let i = 0; i < files; i++) writeFileSync(`${root}/sub/${i}`, seededBytes(300 + i, i * 911));
  writeFileSync(`${root}/large`, seededBytes(7, 3_000_000));
  writeFileSync(`${root}/edge`, seededBytes(8, 256 * 1024));
  linkSync(`${root}/sub/5`, `${root}/sub/other-name-of-5`);
  archive = new TestArchive();
  await archive.backup(root);
  expect((await archive.restore(to, { path: root })).complete).toBe(true);
});
afterAll(() => scratch.remove());

const ctimes = (): Map<string, bigint> =>
  new Map(
    ['large', 'edge', ...readdirSync(`${to}/root/sub`).map((name) => `sub/${name}`)].map((name) => [
      name,
      statSync(`${to}/root/${name}`, { bigint: true }).ctimeNs,
    ]),
  );

test('asks for no block and touches no file that is as it should be', async () => {
  const before = ctimes();
  archive.asked = 0;
  const report = await archive.restore(to, { path: root });
  expect(report).toMatchObject({
    complete: true,
    counts: { filesRestored: 0, filesIdentical: files + 3, problems: 0 },
  });
  expect(archive.asked).toBe(0);
  expect(ctimes()).toEqual(before);
  expect(heldOpenBelow(scratch.path)).toEqual([]);
});

test('finds each file that differs among many that do not, in content, time or mode', async () => {
  writeFileSync(`${to}/root/sub/17`, seededBytes(1, 17 * 911)); // as long as the right one
  writeFileSync(`${to}/root/edge`, seededBytes(2, 256 * 1024));
  const large = readFileSync(`${to}/root/large`);
  large[2_999_999]! ^= 1;
  writeFileSync(`${to}/root/large`, large);
  utimesSync(`${to}/root/sub/18`, 5, 5);
  const report = await archive.restore(to, { path: root, existing: 'overwrite' });
  expect(report).toMatchObject({ complete: true, counts: { filesRestored: 3, filesIdentical: files } });
  expect(snapshot(`${to}/root`)).toEqual(snapshot(root));
  expect(statSync(`${to}/root/sub/5`).ino).toBe(statSync(`${to}/root/sub/other-name-of-5`).ino);
});

test('stops at the first file that differs when told to fail, and leaves nothing open', async () => {
  writeFileSync(`${to}/root/sub/30`, 'mine');
  await expect(archive.restore(to, { path: root, existing: 'fail' })).rejects.toMatchObject({ code: 'exists' });
  expect(readFileSync(`${to}/root/sub/30`, 'utf8')).toBe('mine');
  expect(heldOpenBelow(scratch.path)).toEqual([]);
});
