import { randomBytes } from 'node:crypto';
import { expect, test } from '@jest/globals';
import { hashAt, sha256 } from '../protocol/hashes.ts';
import { readUploadHeader } from '../protocol/upload.ts';
import { ByteReader } from '../protocol/wire.ts';
import { makeBodies, shapeBytes } from './bodies.ts';

const shape = { blockBytes: 1_000, blocksPerBody: 3_000, bodies: 2 };

async function* pieces(parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* parts;
}

test('bodies are uploads as the protocol has them, whose blocks hash to their names', async () => {
  const pool = randomBytes(shapeBytes(shape) + 5);
  for (const body of makeBodies(pool, shape)) {
    const whole = Buffer.concat(body.parts);
    expect(sha256(whole)).toEqual(body.digest);
    const reader = new ByteReader(pieces(body.parts));
    const header = await readUploadHeader(reader, whole.byteLength);
    expect(header.blocks).toEqual(body.hashes);
    expect(body).toMatchObject({ blocks: 3_000, blockBytes: 3_000_000 });
    for (const [index, length] of header.lengths.entries())
      expect(sha256((await reader.read(length))!)).toEqual(hashAt(header.blocks, index));
  }
});

test('no block comes twice, neither in one set of bodies nor in the next', () => {
  const pool = Buffer.alloc(shapeBytes(shape)); // all alike but for the marks
  const hashes = [...makeBodies(pool, shape), ...makeBodies(pool, shape)].map((body) => body.hashes);
  const names = hashes.flatMap((each) =>
    Array.from({ length: 3_000 }, (_, index) => hashAt(each, index).toString('hex')),
  );
  expect(new Set(names).size).toBe(12_000);
});

test('a pool that is too small is refused', () => {
  expect(() => makeBodies(Buffer.alloc(shapeBytes(shape) - 1), shape)).toThrow(RangeError);
});
