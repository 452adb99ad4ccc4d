import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { z } from 'zod';
import { limits } from './limits.ts';
import { CommitRequest, pathBytes } from './messages.ts';
import { Problem, problemFromResponse } from './problems.ts';
import { ByteReader, checkMsgpack, decodeFrames, decodeMessage, encodeFrame, encodeMessage } from './wire.ts';

const malformed = { code: 'malformed_request' };

test('what is encoded is decoded, whatever it holds', () => {
  const value = fc.letrec((tie) => ({
    leaf: fc.oneof(
      fc.integer(),
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      fc.string(),
      fc.boolean(),
      fc.constant(null),
      fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    ),
    value: fc.oneof(
      { maxDepth: 4 },
      tie('leaf'),
      fc.array(tie('value'), { maxLength: 20 }),
      fc.dictionary(
        fc.string({ minLength: 1 }).filter((key) => key !== '__proto__'),
        tie('value'),
        { maxKeys: 20 },
      ),
    ),
  })).value;
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom('a', 'b', 'c'), value), (message) => {
      expect(decodeMessage(z.any(), encodeMessage(message))).toEqual(
        JSON.parse(JSON.stringify(message), (_, each) => (each?.type === 'Buffer' ? Buffer.from(each.data) : each)),
      );
    }),
    { numRuns: 300 },
  );
});

test('arbitrary bytes are decoded or refused, and nothing else happens', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        decodeMessage(z.any(), bytes);
      } catch (error) {
        expect(error).toMatchObject(malformed);
      }
    }),
    { numRuns: 5_000 },
  );
});

test('a message cut anywhere, or with a byte more, is refused', () => {
  const whole = encodeMessage({
    blocks: Buffer.alloc(300),
    list: [1, 2.5, 'three', null, true],
    map: { a: -1, b: 2 ** 40 },
  });
  for (let length = 0; length < whole.byteLength; length++)
    expect(() => checkMsgpack(whole.subarray(0, length))).toThrow(Problem);
  expect(() => checkMsgpack(Buffer.concat([whole, Buffer.of(0)]))).toThrow(Problem);
});

test.each([
  ['an array of four billion', 'ddffffffff'],
  ['a map of four billion', 'dfffffffff'],
  ['bytes of four gigabytes', 'c6ffffffff'],
  ['an extension', 'd40001'],
  ['a long extension', 'c7016900'],
  ['a timestamp', 'd6ff00000000'],
  ['a type that does not exist', 'c1'],
  ['a map whose key is an array', '81910101'],
  ['a map whose key is a number', '810101'],
  ['a map whose second key is bytes', '82a16101c4016101'],
])('%s in a few bytes is refused before it is decoded', (_, hex) => {
  expect(() => decodeMessage(z.any(), Buffer.from(hex, 'hex'))).toThrow(expect.objectContaining(malformed));
});

test('nesting is taken to its bound and refused one past it', () => {
  const nested = (depth: number): Buffer => Buffer.from(`${'91'.repeat(depth - 1)}01`, 'hex');
  expect(() => checkMsgpack(nested(limits.messageDepthMax))).not.toThrow();
  expect(() => checkMsgpack(nested(limits.messageDepthMax + 1))).toThrow(Problem);
});

test('64-bit integers of other languages are numbers', () => {
  expect(decodeMessage(z.int(), Buffer.from('cf0000019b76daa800', 'hex'))).toBe(0x19b76daa800);
  expect(() => decodeMessage(z.int(), Buffer.from('cfffffffffffffffff', 'hex'))).toThrow(Problem);
});

test('a fault names its field', () => {
  const version = {
    path: Buffer.from('/a/../b'),
    kind: 'file',
    size: 0,
    mtime: 0,
    attributes: Buffer.alloc(0),
    mac: Buffer.alloc(32),
  };
  const commit = { commitId: Buffer.alloc(16), run: 1, purgeEpoch: 0, versions: [version] };
  expect(() => decodeMessage(CommitRequest, encodeMessage(commit))).toThrow(
    expect.objectContaining({ extras: expect.objectContaining({ field: 'versions.0.path' }) }),
  );
  expect(() =>
    decodeMessage(
      CommitRequest,
      encodeMessage({ ...commit, versions: [{ ...version, path: Buffer.from('/a'), size: 1 }] }),
    ),
  ).toThrow(/versions.0.blocks/);
  expect(() => decodeMessage(CommitRequest, encodeMessage({ ...commit, more: 1 }))).toThrow(Problem);
});

test.each([
  ['', false],
  ['a', false],
  ['/', true],
  ['/a', true],
  ['//', false],
  ['/a/', false],
  ['/a//b', false],
  ['/.', false],
  ['/..', false],
  ['/a/../b', false],
  ['/...', true],
  ['/.a', true],
  ['/a\0b', false],
  [`/${'n'.repeat(limits.nameBytesMax)}`, true],
  [`/${'n'.repeat(limits.nameBytesMax + 1)}`, false],
  ['/a'.repeat(limits.pathDepthMax), true],
  ['/a'.repeat(limits.pathDepthMax + 1), false],
  [`${`/${'n'.repeat(1023)}`.repeat(32)}`, true],
  [`${`/${'n'.repeat(1023)}`.repeat(32)}/n`, false],
])('the path %j is storable: %s', (path, storable) => {
  expect(pathBytes.safeParse(Buffer.from(path)).success).toBe(storable);
});

test('frames come out as they went in, however the stream is cut up; a stream cut inside a frame is refused', async () => {
  const frames = Buffer.concat([encodeFrame({ n: 1 }), encodeFrame({ n: 2 })]);
  const schema = z.object({ n: z.int() });
  async function* source(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.byteLength; at += size) yield bytes.subarray(at, at + size);
  }
  for (const size of [1, 3, 100])
    expect(await Array.fromAsync(decodeFrames(schema, source(frames, size)))).toEqual([{ n: 1 }, { n: 2 }]);
  await expect(Array.fromAsync(decodeFrames(schema, source(frames.subarray(0, -1), 3)))).rejects.toMatchObject(
    malformed,
  );
  const huge = Buffer.alloc(4);
  huge.writeUInt32BE(limits.frameBytesMax + 1);
  await expect(Array.fromAsync(decodeFrames(schema, source(huge, 4)))).rejects.toMatchObject(malformed);
});

test('a reader gives exact counts, and what it holds before what is still to come', async () => {
  const reader = new ByteReader(
    (async function* () {
      yield Buffer.from('abcdef');
      yield Buffer.from('gh');
    })(),
  );
  expect(`${await reader.read(2)}`).toBe('ab');
  expect(await Array.fromAsync(reader.remaining())).toEqual([Buffer.from('cdef'), Buffer.from('gh')]);
  expect(await reader.read(1, { orEnd: true })).toBeNull();
});

test('a reader gives a part in pieces, then the next, and knows whether that was all', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 9 }), { maxLength: 12 }),
      fc.array(fc.nat({ max: 7 }), { maxLength: 12 }),
      async (chunks, parts) => {
        const all = Buffer.concat(chunks);
        const reader = new ByteReader(
          (async function* () {
            yield* chunks;
          })(),
        );
        let at = 0;
        for (const [turn, length] of parts.entries()) {
          const left = all.byteLength - at;
          const read = async (): Promise<Buffer | null> =>
            turn % 2 === 0 ? Buffer.concat(await Array.fromAsync(reader.pieces(length))) : reader.read(length);
          if (length > left) {
            await expect(read()).rejects.toMatchObject(malformed);
            return;
          }
          expect(await read()).toEqual(all.subarray(at, at + length));
          at += length;
        }
        if (at < all.byteLength) await expect(reader.end()).rejects.toMatchObject(malformed);
        else await reader.end();
      },
    ),
  );
});

test('a problem read from a response is the one that was sent; an answer of something else becomes the nearest one', () => {
  const sent = new Problem('blocks_missing', 'two are missing', { field: 'versions', missing: ['00'] });
  const read = problemFromResponse(409, Buffer.from(JSON.stringify(sent)), '7');
  expect(read).toMatchObject({
    code: 'blocks_missing',
    status: 409,
    message: 'two are missing',
    extras: { field: 'versions', missing: ['00'], retryAfterSeconds: 7 },
  });
  expect(problemFromResponse(502, Buffer.from('<html>')).code).toBe('unavailable');
  expect(problemFromResponse(404, Buffer.from('')).code).toBe('not_found');
});
