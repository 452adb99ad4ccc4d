import { createHash } from 'node:crypto';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { chunking } from '../limits.ts';
import { cutPoints, plainOf } from '../vectors/second-implementation.ts';
import { type ChunkSizes, chunkSizesFor, chunksOf, createChunker } from './chunker.ts';
import { deriveKeys } from './keys.ts';

const vaultKey = Buffer.alloc(32, 7);
const { gear } = deriveKeys(vaultKey);
const small: ChunkSizes = { minBytes: 64, averageBytes: 256, maxBytes: 1024 };
const MiB = 2 ** 20;

/** All chunks, the input fed in pieces of the given lengths in turn. */
function cut(
  bytes: Uint8Array,
  sizes: ChunkSizes,
  pieces: readonly number[] = [bytes.byteLength || 1],
  table = gear,
): Buffer[] {
  const chunker = createChunker(table, sizes);
  const chunks: Buffer[] = [];
  for (let at = 0, turn = 0; at < bytes.byteLength; turn++) {
    const piece = Buffer.from(bytes.subarray(at, at + pieces[turn % pieces.length]!));
    at += piece.byteLength;
    chunker.feed(piece);
    for (let chunk = chunker.next(); chunk; chunk = chunker.next()) chunks.push(chunk);
    piece.fill(0xee); // a source may reuse its buffer: no chunk may look at it still
  }
  const last = chunker.finish();
  return last ? [...chunks, last] : chunks;
}

/** Random runs between constant runs: places where the hash decides and where only the largest size does. */
const content = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 3000, minLength: 1000 }),
      fc.tuple(fc.nat({ max: 3 }), fc.nat({ max: 3000 })).map(([value, n]) => Buffer.alloc(n, value)),
    ),
    { maxLength: 6 },
  )
  .map((runs) => Buffer.concat(runs));

test('chunks put together are the input, within the sizes, and cut as the definition says', () => {
  fc.assert(
    fc.property(content, (bytes) => {
      const chunks = cut(bytes, small);
      expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
      for (const chunk of chunks.slice(0, -1)) expect(chunk.byteLength).toBeGreaterThanOrEqual(small.minBytes);
      for (const chunk of chunks) expect(chunk.byteLength).toBeLessThanOrEqual(small.maxBytes);
      let end = 0;
      expect(chunks.map((chunk) => (end += chunk.byteLength))).toEqual(cutPoints(vaultKey, small, bytes));
    }),
  );
});

test('cuts do not depend on how the input is fed', () => {
  fc.assert(
    fc.property(
      content,
      fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 5 }),
      (bytes, pieces) => {
        const lengths = cut(bytes, small).map((chunk) => chunk.byteLength);
        expect(cut(bytes, small, pieces).map((chunk) => chunk.byteLength)).toEqual(lengths);
        expect(cut(bytes, small, [1]).map((chunk) => chunk.byteLength)).toEqual(lengths);
      },
    ),
    { numRuns: 50 },
  );
});

test('every chunk owns its memory, also from a source that reuses its buffer', async () => {
  const bytes = plainOf({ stream: 'reused buffer', bytes: 50_000 });
  async function* source() {
    const buffer = Buffer.alloc(3000);
    for (let at = 0; at < bytes.byteLength; at += buffer.byteLength)
      yield buffer.subarray(0, bytes.copy(buffer, 0, at));
  }
  const chunks: Buffer[] = [];
  for await (const chunk of chunksOf(source(), gear, small)) chunks.push(chunk);
  expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
});

test('an empty source has no chunks; a chunker begins another file after the end of one', async () => {
  async function* nothing() {
    yield Buffer.alloc(0);
  }
  for await (const _ of chunksOf(nothing(), gear, small)) throw new Error('a chunk of nothing');
  const bytes = plainOf({ stream: 'twice', bytes: 10_000 });
  const chunker = createChunker(gear, small);
  const run = () => {
    const lengths: number[] = [];
    chunker.feed(bytes);
    for (let chunk = chunker.next(); chunk; chunk = chunker.next()) lengths.push(chunk.byteLength);
    return [...lengths, chunker.finish()?.byteLength];
  };
  const first = run();
  expect(first.length).toBeGreaterThan(10);
  expect(run()).toEqual(first);
  expect(chunker.finish()).toBeNull();
});

test('input that was not read to its end cannot be lost in silence', () => {
  const chunker = createChunker(gear, small);
  chunker.feed(plainOf({ stream: 'unread', bytes: 5000 }));
  expect(chunker.next()).not.toBeNull();
  expect(() => chunker.feed(Buffer.alloc(1))).toThrow('before its last input was cut');
  expect(() => chunker.finish()).toThrow('before its last input was cut');
});

test('an insertion, a deletion and an overwrite in the middle leave nearly all chunks as they were', () => {
  const bytes = plainOf({ stream: 'edited', bytes: 400_000 });
  const names = (data: Uint8Array) => cut(data, small).map((chunk) => createHash('sha256').update(chunk).digest('hex'));
  const known = new Set(names(bytes));
  expect(known.size).toBeGreaterThan(1000);
  const at = 200_000;
  const edits = [
    Buffer.concat([bytes.subarray(0, at), Buffer.from('!'), bytes.subarray(at)]),
    Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 777)]),
    Buffer.concat([bytes.subarray(0, at), Buffer.alloc(500), bytes.subarray(at + 500)]),
    Buffer.concat([Buffer.from('in front'), bytes]),
  ];
  for (const edited of edits) expect(names(edited).filter((name) => !known.has(name)).length).toBeLessThan(20);
});

test('the average is near the target and neither bound is common, for the sizes in use', () => {
  for (const [sizes, bytes] of [
    [small, 4 * MiB],
    [chunkSizesFor(0), 192 * MiB],
  ] as const) {
    const lengths = cut(plainOf({ stream: 'average', bytes }), sizes).map((chunk) => chunk.byteLength);
    const average = bytes / lengths.length;
    expect(average).toBeGreaterThan(sizes.averageBytes * 0.9);
    expect(average).toBeLessThan(sizes.averageBytes * 1.4);
    expect(lengths.filter((length) => length === sizes.maxBytes).length).toBeLessThan(lengths.length * 0.05);
  }
});

test('another vault cuts the same bytes elsewhere', () => {
  const bytes = plainOf({ stream: 'two vaults', bytes: 200_000 });
  const ends = (table: Int32Array) => {
    let end = 0;
    return cut(bytes, small, undefined, table).map((chunk) => (end += chunk.byteLength));
  };
  const ours = new Set(ends(gear));
  const theirs = ends(deriveKeys(Buffer.alloc(32, 8)).gear);
  expect(theirs.filter((end) => ours.has(end)).length).toBeLessThan(theirs.length * 0.05);
});

test('the sizes follow the file, at the edge and one past it', () => {
  const [first, second] = chunking;
  expect(chunkSizesFor(0)).toEqual({
    minBytes: first.minBytes,
    averageBytes: first.averageBytes,
    maxBytes: first.maxBytes,
  });
  expect(chunkSizesFor(first.fileBytesUpTo)).toEqual(chunkSizesFor(0));
  expect(chunkSizesFor(first.fileBytesUpTo + 1)).toEqual({
    minBytes: second.minBytes,
    averageBytes: second.averageBytes,
    maxBytes: second.maxBytes,
  });
});

test('sizes and tables it cannot work with are refused', () => {
  const wrong = [
    { minBytes: 31 },
    { minBytes: 256 },
    { averageBytes: 300 },
    { averageBytes: 1024 },
    { maxBytes: 256 },
    { maxBytes: Number.NaN },
    { averageBytes: 2 ** 31, maxBytes: 2 ** 32 },
  ];
  for (const sizes of wrong) expect(() => createChunker(gear, { ...small, ...sizes })).toThrow(RangeError);
  expect(() => createChunker(gear.subarray(1), small)).toThrow(RangeError);
});
