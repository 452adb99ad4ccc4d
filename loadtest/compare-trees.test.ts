import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { compareTrees, copyTree, noBounds } from './compare-trees.ts';

let scratch: string;
beforeEach(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-compare-'));
  mkdirSync(join(scratch, 'a', 'folder', 'empty'), { recursive: true });
  writeFileSync(join(scratch, 'a', 'folder', 'large'), Buffer.alloc(2_500_000, 'x'));
  writeFileSync(join(scratch, 'a', 'script'), 'x', { mode: 0o755 });
  writeFileSync(join(scratch, 'a', 'nothing'), '');
  symlinkSync('nowhere', join(scratch, 'a', 'link'));
  if (process.platform === 'linux') writeFileSync(Buffer.from(join(scratch, 'a', 'caf\xe9'), 'latin1'), 'é');
  await copyTree(join(scratch, 'a'), join(scratch, 'b'), noBounds());
});
afterEach(() => rmSync(scratch, { recursive: true, force: true }));

const compare = () => compareTrees(join(scratch, 'a'), join(scratch, 'b'));
const b = (...names: string[]): string => join(scratch, 'b', ...names);

test('a copy is identical, and everything in it was looked at', async () => {
  const files = process.platform === 'linux' ? 4 : 3;
  expect(await compare()).toMatchObject({ differences: 0, examples: [], files, folders: 3, symlinks: 1 });
});

test.each<[string, () => void, RegExp]>([
  ['one byte of a file, in its last MiB', () => writeAt(b('folder', 'large'), 2_400_000), /large: has other contents/],
  ['a byte more', () => writeFileSync(b('nothing'), 'x'), /nothing: has other contents/],
  ['a file that is missing', () => rmSync(b('script')), /script: is missing/],
  ['a file too many', () => writeFileSync(b('folder', 'empty', 'new'), ''), /new: should not be there/],
  ['a mode', () => chmodSync(b('script'), 0o754), /script: has mode 755, came back with 754/],
  ["a folder's mode", () => chmodSync(b('folder'), 0o700), /folder: has mode \d+, came back with 700/],
  ['a time', () => utimesSync(b('script'), 1, 1), /script: has another time/],
  ['a link that points elsewhere', () => relink('elsewhere'), /link: does not point to nowhere any more/],
  ['a link that became a file', () => relink(null), /link: is a symlink, came back as a file/],
])('%s is found', async (_, change, says) => {
  change();
  const { differences, examples } = await compare();
  expect(differences).toBeGreaterThanOrEqual(1);
  expect(examples.join('\n')).toMatch(says);
});

test('a copy ends at its bounds', async () => {
  await copyTree(join(scratch, 'a'), join(scratch, 'c'), {
    filesLeft: 99,
    bytesLeft: 2_000_000,
    fileBytesMax: 3_000_000,
  });
  const { differences, examples } = await compareTrees(join(scratch, 'a'), join(scratch, 'c'));
  expect({ differences, examples }).toEqual({
    differences: 1,
    examples: [expect.stringContaining('large: is missing')],
  });
});

function writeAt(path: string, offset: number): void {
  const bytes = Buffer.alloc(2_500_000, 'x');
  bytes[offset] = 0;
  writeFileSync(path, bytes);
}

function relink(target: string | null): void {
  rmSync(b('link'));
  if (target === null) writeFileSync(b('link'), 'nowhere');
  else symlinkSync(target, b('link'));
}
