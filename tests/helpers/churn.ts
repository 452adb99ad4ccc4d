/**
 * Changes a tree as a day's work does: files added, changed, deleted, renamed, moved with their folder. Contents come
 * from a small pool that all trees share, so that what one has deleted comes back in another while it is being reclaimed.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Random, seededRandom } from './random.ts';
import { noise } from './tree.ts';

const KiB = 1024;
const poolSize = 150;
/** Below what makes a run suspicious when it changes or deletes all of them (storageDefaults.suspiciousFilesMin). */
const filesMax = 80;
const folders = ['a', 'b', 'c', 'd/e'];

/** The content of that number: six of ten small, three of some blocks, one of some lists. */
function poolContent(number: number): Buffer {
  const random = seededRandom(number + 1);
  const kind = number % 10;
  const bytes =
    kind < 6 ? random.below(12 * KiB) : kind < 9 ? (40 + random.below(300)) * KiB : (900 + random.below(900)) * KiB;
  return noise(random, bytes);
}

function filesBelow(tree: string): string[] {
  return readdirSync(tree, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** Makes of a tree another one; of an empty one the first. */
export function changeTree(tree: string, random: Random): void {
  for (const folder of folders) mkdirSync(join(tree, folder), { recursive: true });
  for (const file of filesBelow(tree)) {
    const dice = random.next();
    if (dice < 0.25) writeFileSync(file, poolContent(random.below(poolSize)));
    else if (dice < 0.4) rmSync(file);
    else if (dice < 0.45) renameSync(file, `${file} renamed ${random.below(1_000)}`);
    else if (dice < 0.6 && statSync(file).size > 100 * KiB) changeMiddle(file, random);
  }
  if (random.chance(0.2)) {
    const [from, to] = [join(tree, random.pick(folders)), join(tree, `moved ${random.below(100)}`)];
    if (!existsSync(to)) renameSync(from, to);
    mkdirSync(from, { recursive: true });
  }
  if (random.chance(0.2)) rmSync(join(tree, random.pick(folders)), { recursive: true });
  const room = filesMax - filesBelow(tree).length;
  for (let i = random.below(Math.max(1, room)); i > 0; i--) {
    const folder = join(tree, random.pick(folders));
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, `file ${random.below(10_000)}`), poolContent(random.below(poolSize)));
  }
}

/** Most of its blocks stay, and most of its lists. */
function changeMiddle(file: string, random: Random): void {
  const bytes = readFileSync(file);
  noise(random, 1_000).copy(bytes, random.below(bytes.byteLength - 1_000));
  writeFileSync(file, bytes);
}

/** Leaves the folder itself. */
export function emptyTree(tree: string): void {
  for (const name of readdirSync(tree)) rmSync(join(tree, name), { recursive: true });
}
