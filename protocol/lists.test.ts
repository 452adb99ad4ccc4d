import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { hashCount, sha256, splitHashes } from './hashes.ts';
import { limits, listing } from './limits.ts';
import { type List, ListCutter, type ListSizes } from './lists.ts';

function cut(hashes: readonly Buffer[], sizes: ListSizes = listing): List[] {
  const cutter = new ListCutter(sizes);
  const lists = hashes.flatMap((hash) => cutter.add(hash) ?? []);
  const last = cutter.finish();
  return last ? [...lists, last] : lists;
}

/** Hashes as a file's blocks have them, made of a name and a number. */
const hashesOf = (name: string, count: number): Buffer[] =>
  Array.from({ length: count }, (_, i) => sha256(Buffer.from(`${name} ${i}`)));

/** Lists of the second cutting that the first does not have. */
function newLists(before: readonly List[], after: readonly List[]): number {
  const known = new Set(before.map((list) => list.hash.toString('latin1')));
  return new Set(after.map((list) => list.hash.toString('latin1')).filter((key) => !known.has(key))).size;
}

const small: ListSizes = { minBlocks: 4, averageBlocks: 16, maxBlocks: 40 };

test('lists hold all hashes in order, each within its sizes and under its own name', () => {
  fc.assert(
    fc.property(fc.array(fc.nat({ max: 300 }), { maxLength: 600 }), (numbers) => {
      const hashes = numbers.map((number) => sha256(Buffer.of(number >> 8, number & 255)));
      const lists = cut(hashes, small);
      expect(Buffer.concat(lists.map((list) => list.blocks))).toEqual(Buffer.concat(hashes));
      for (const [i, { hash, blocks }] of lists.entries()) {
        expect(sha256(blocks)).toEqual(hash);
        expect(hashCount(blocks)).toBeLessThanOrEqual(small.maxBlocks);
        if (i < lists.length - 1) expect(hashCount(blocks)).toBeGreaterThanOrEqual(small.minBlocks);
      }
    }),
  );
});

test('where lists end does not depend on what was cut before with the same cutter', () => {
  const hashes = hashesOf('block', 300);
  const cutter = new ListCutter(small);
  for (const hash of hashesOf('other', 37)) cutter.add(hash);
  cutter.finish();
  expect(hashes.flatMap((hash) => cutter.add(hash) ?? [])).toEqual(cut(hashes, small).slice(0, -1));
});

test('the open list is what was added since the last one ended', () => {
  const cutter = new ListCutter(small);
  const hashes = hashesOf('block', 200);
  let open: Buffer[] = [];
  for (const hash of hashes) {
    open = cutter.add(hash) ? [] : [...open, hash];
    expect(splitHashes(cutter.open)).toEqual(open);
  }
});

test('lists have the average that was asked for, and none is above the bound', () => {
  const lists = cut(hashesOf('average', 300_000));
  const average = 300_000 / lists.length;
  expect(average).toBeGreaterThan(listing.averageBlocks * 0.9);
  expect(average).toBeLessThan(listing.averageBlocks * 1.1);
  expect(Math.max(...lists.map((list) => hashCount(list.blocks)))).toBeLessThanOrEqual(limits.listBlocksMax);
});

test('a block that a file repeats for ever makes lists of the least size at worst', () => {
  // The hash of a hole's block is as likely as any other to be one that ends a list.
  const ending = hashesOf('ending', 20_000).find((hash) => hash.readUInt32BE(0) < 2 ** 32 / 768)!;
  const lists = cut(Array.from({ length: 10_000 }, () => ending));
  expect(lists.length).toBe(Math.ceil(10_000 / listing.minBlocks));
});

test('a hash inserted, removed or changed makes a few new lists, wherever it is', () => {
  const hashes = hashesOf('block', 40_000);
  const before = cut(hashes);
  const rewritten: number[] = [];
  for (let place = 500; place < 40_000; place += 1_711) {
    const other = sha256(Buffer.from(`other ${place}`));
    for (const changed of [
      hashes.toSpliced(place, 0, other),
      hashes.toSpliced(place, 1),
      hashes.toSpliced(place, 1, other),
    ])
      rewritten.push(newLists(before, cut(changed)));
  }
  // The list it is in; sometimes also one or two more, when that one's end moves.
  expect(rewritten.reduce((sum, count) => sum + count, 0) / rewritten.length).toBeLessThan(1.5);
  expect(Math.max(...rewritten)).toBeLessThanOrEqual(4);
});

/** A share of a file's blocks exchanged for others, in contiguous extents; of each extent a few more or fewer come back. */
function changeExtents(hashes: readonly Buffer[], share: number, extents: number, name: string): Buffer[] {
  const length = Math.round((hashes.length * share) / extents);
  const changed: Buffer[] = [];
  for (let extent = 0; extent < extents; extent++) {
    const from = Math.floor((hashes.length * extent) / extents);
    const to = Math.floor((hashes.length * (extent + 1)) / extents);
    const at = from + ((extent * 7_919) % (to - from - length));
    for (const hash of hashes.slice(from, at)) changed.push(hash);
    for (const hash of hashesOf(`${name} ${extent}`, length + (extent % 5) - 2)) changed.push(hash);
    for (const hash of hashes.slice(at + length, to)) changed.push(hash);
  }
  return changed;
}

test.each([
  { image: '1 TB in blocks of 8 MiB', blocks: 131_072, extents: 10 },
  { image: '1 TB in blocks of 8 MiB', blocks: 131_072, extents: 1 },
  { image: '1 TB in blocks of 1 MiB', blocks: 1_048_576, extents: 50 },
])('$image, 1% changed in $extents extents, writes 1% of its lists and two per extent', ({ blocks, extents }) => {
  const hashes = hashesOf('image', blocks);
  const before = cut(hashes);
  const after = cut(changeExtents(hashes, 0.01, extents, 'changed'));
  const written = newLists(before, after);
  expect(written).toBeGreaterThanOrEqual(extents);
  expect(written).toBeLessThanOrEqual(Math.ceil(before.length * 0.01) + 2 * extents);
});

test('sizes that cannot be are refused', () => {
  for (const sizes of [
    { minBlocks: 0, averageBlocks: 10, maxBlocks: 20 },
    { minBlocks: 10, averageBlocks: 10, maxBlocks: 20 },
    { minBlocks: 4, averageBlocks: 20, maxBlocks: 20 },
    { minBlocks: 4, averageBlocks: 16, maxBlocks: limits.listBlocksMax + 1 },
    { minBlocks: 4, averageBlocks: 16.5, maxBlocks: 64 },
  ])
    expect(() => new ListCutter(sizes)).toThrow(RangeError);
});
