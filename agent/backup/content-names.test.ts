/** What a version names of a file, and what is known of the file from the version before. */
import { expect, test } from '@jest/globals';
import type { BlockFrame } from '../../protocol/block-frames.ts';
import { hashAt, hashCount, hashKey, joinHashes, sha256 } from '../../protocol/hashes.ts';
import { listing } from '../../protocol/limits.ts';
import { type List, ListCutter } from '../../protocol/lists.ts';
import { ContentNames } from './content-names.ts';
import { PreviousLists } from './previous-lists.ts';

const naming = { directBlocksMax: 10, minBlocks: 2, averageBlocks: 5, maxBlocks: 9 };
const hashes = (count: number): Buffer[] => Array.from({ length: count }, (_, i) => sha256(Buffer.from(`block ${i}`)));

function listsOf(blocks: readonly Buffer[]): List[] {
  const cutter = new ListCutter(naming);
  const lists = blocks.flatMap((hash) => cutter.add(hash) ?? []);
  return [...lists, ...[cutter.finish() ?? []].flat()];
}

test.each([1, 9, 10])('a file of %d blocks names them', (count) => {
  const names = new ContentNames(naming);
  const blocks = hashes(count);
  expect(blocks.flatMap((hash) => names.add(hash))).toEqual([]);
  expect(names.finish()).toEqual([]);
  expect([names.blocks, names.lists, names.listCount]).toEqual([joinHashes(blocks), Buffer.alloc(0), 0]);
});

test.each([11, 12, 100, 1_000])('a file of %d blocks names lists, cut as all of its blocks are', (count) => {
  const names = new ContentNames(naming);
  const given: List[] = [];
  let anchored = 0;
  for (const [i, hash] of hashes(count).entries()) {
    for (const list of names.add(hash)) {
      given.push(list);
      anchored += hashCount(list.blocks);
    }
    // What is anchored by a list, and what is not, is all there is so far.
    expect(anchored + hashCount(names.blocks)).toBe(i + 1);
  }
  given.push(...names.finish());
  expect(given).toEqual(listsOf(hashes(count)));
  expect([names.blocks.byteLength, names.listCount]).toEqual([0, given.length]);
  expect(names.lists).toEqual(joinHashes(given.map((list) => list.hash)));
});

test('without sizes a file names lists above 1,024 blocks', () => {
  const names = new ContentNames();
  for (const hash of hashes(listing.directBlocksMax)) names.add(hash);
  expect(hashCount(names.blocks)).toBe(1_024);
  const lists = names.add(sha256(Buffer.from('one more')));
  lists.push(...names.finish());
  expect(lists.length).toBeGreaterThan(0);
  expect(names.lists).toEqual(joinHashes(lists.map((list) => list.hash)));
});

class Lists {
  readonly #lists: Map<string, Buffer>;
  requests = 0;
  asked = 0;
  broken = false;

  constructor(lists: readonly List[]) {
    this.#lists = new Map(lists.map((list) => [hashKey(list.hash), list.blocks]));
  }

  async *fetchLists(names: Uint8Array): AsyncGenerator<BlockFrame> {
    this.requests++;
    if (this.broken) throw new Error('no connection');
    this.asked += hashCount(names);
    for (let index = hashCount(names) - 1; index >= 0; index--)
      yield { index, bytes: this.#lists.get(hashKey(hashAt(names, index))) ?? null };
  }
}

const namesOf = (lists: readonly List[]): Buffer => joinHashes(lists.map((list) => list.hash));

test('the blocks of the version before are known as the file is read, each list fetched once', async () => {
  const blocks = hashes(500);
  const lists = listsOf(blocks);
  const source = new Lists(lists);
  const previous = new PreviousLists(source, namesOf(lists));
  for (const hash of blocks) expect(await previous.has(hash)).toBe(true);
  expect(await previous.has(sha256(Buffer.from('new')))).toBe(false);
  expect(source.asked).toBe(lists.length);
  expect(source.requests).toBeLessThanOrEqual(Math.ceil(lists.length / 4));
});

test('they are known again behind a part that changed, however long; only lists around the place are held', async () => {
  const blocks = hashes(500);
  const lists = listsOf(blocks);
  const source = new Lists(lists);
  const previous = new PreviousLists(source, namesOf(lists));
  for (const hash of blocks.slice(0, 40)) await previous.has(hash);
  for (let i = 0; i < 5_000; i++) expect(await previous.has(sha256(Buffer.from(`changed ${i}`)))).toBe(false);
  expect(source.asked).toBeLessThan(lists.length / 2);
  for (const hash of blocks.slice(44)) expect(await previous.has(hash)).toBe(true);
  expect(await previous.has(blocks[0]!)).toBe(false);
});

test('nothing is known of a version without lists, nor when they cannot be had', async () => {
  const lists = listsOf(hashes(100));
  const source = new Lists(lists);
  expect(await new PreviousLists(source, Buffer.alloc(0)).has(hashes(1)[0]!)).toBe(false);
  expect(source.requests).toBe(0);
  source.broken = true;
  expect(await new PreviousLists(source, namesOf(lists)).has(hashes(1)[0]!)).toBe(false);
  expect(await new PreviousLists(new Lists([]), namesOf(lists)).has(hashes(1)[0]!)).toBe(false);
});
