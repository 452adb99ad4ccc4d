/** Parts of a staged archive on a store: whatever range is asked for is what was stored, or an error. */
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { MemoryStore } from '../../../storage/objects/memory-store.ts';
import type { ObjectBody } from '../../../storage/objects/object-store.ts';
import { Room } from '../flow/room.ts';
import {
  attemptOfKey,
  attemptPrefix,
  FrameCipher,
  frameBytes,
  partKey,
  StagedDamaged,
  sealedFrameBytes,
  storedBytesOf,
} from './frames.ts';
import { readParts } from './read-parts.ts';
import { storeParts } from './store-parts.ts';

const partFrames = 4;
const partBytes = partFrames * frameBytes;
const { signal } = new AbortController();

async function* inPieces(bytes: Buffer, pieceBytes: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.byteLength; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

async function staged(bytes: Buffer, pieceBytes = 50_000) {
  const objects = new MemoryStore();
  const about = {
    objects,
    secret: randomBytes(32),
    catalogId: 'c',
    restore: 7,
    attempt: randomUUID(),
    partFrames,
    signal,
  };
  const told: number[] = [];
  const mayStore = async (storedBytes: number) => void told.push(storedBytes);
  const done = await storeParts(inPieces(bytes, pieceBytes), { ...about, mayStore });
  return { ...about, ...done, told };
}

async function read(of: Parameters<typeof readParts>[0], offset: number, length: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of readParts(of, { offset, length })) pieces.push(piece);
  return Buffer.concat(pieces);
}

const sizes = [1, frameBytes - 1, frameBytes, frameBytes + 1, partBytes, partBytes + 1, 3 * partBytes - 5];

test.each(sizes)('an archive of %d bytes comes back, whatever pieces it came in', async (size) => {
  const bytes = randomBytes(size);
  for (const pieceBytes of [999, 1_000_000]) {
    const of = await staged(bytes, pieceBytes);
    expect(of.length).toBe(size);
    expect((await read(of, 0, size)).equals(bytes)).toBe(true);
    const { objects } = await of.objects.list('', { limit: 100 });
    expect(objects.map(({ key }) => attemptOfKey('c', key))).toEqual(
      Array.from({ length: Math.ceil(size / partBytes) }, () => of.attempt),
    );
    expect(objects.reduce((sum, { length }) => sum + length, 0)).toBe(storedBytesOf(size));
    expect(of.told.at(-1)).toBe(storedBytesOf(size));
  }
});

test('an archive without a byte has no part', async () => {
  const of = await staged(Buffer.alloc(0));
  expect([of.length, of.storedBytes]).toEqual([0, 0]);
});

test('every range is that range, at the edges of frames and parts too', async () => {
  const bytes = randomBytes(2 * partBytes + 12_345);
  const of = await staged(bytes);
  const edges = [0, frameBytes, partBytes, 2 * partBytes, bytes.byteLength].flatMap((at) => [at - 1, at, at + 1]);
  for (const from of edges.filter((at) => at >= 0 && at < bytes.byteLength))
    for (const to of edges.filter((at) => at > from && at <= bytes.byteLength))
      expect((await read(of, from, to - from)).equals(bytes.subarray(from, to))).toBe(true);
});

test('a reader that leaves while its next piece waits for room takes none of it along', async () => {
  const of = await staged(randomBytes(3 * partBytes));
  const room = new Room(16 * frameBytes);
  const other = room.enter();
  await room.take(other.holding, 6 * frameBytes, signal);
  for (let i = 0; i < 5; i++) {
    const pieces = readParts({ ...of, room }, { offset: 0, length: 3 * partBytes });
    await pieces.next();
    expect(room.freeBytes).toBe((16 - 6 - partFrames) * frameBytes);
    await pieces.return(undefined);
    expect(room.freeBytes).toBe(10 * frameBytes);
  }
  room.giveBack(other.holding, 6 * frameBytes);
  other.leave();
  expect([room.freeBytes, room.shareBytes]).toEqual([16 * frameBytes, 16 * frameBytes]);
});

describe('what is not as it was stored is refused', () => {
  const bytes = randomBytes(2 * partBytes);
  const digest = (read: Buffer): string => createHash('sha256').update(read).digest('hex');

  async function changed(change: (parts: Buffer[]) => (Buffer | null)[]) {
    const of = await staged(bytes);
    const keys = [0, 1].map((part) => partKey(of, part));
    const parts = await Promise.all(
      keys.map(async (key) => {
        const pieces: Uint8Array[] = [];
        for await (const piece of (await of.objects.get(key)).stream) pieces.push(piece);
        return Buffer.concat(pieces);
      }),
    );
    for (const [i, part] of change(parts).entries()) {
      await of.objects.delete(keys[i]!);
      if (part) await of.objects.put(keys[i]!, { length: part.byteLength, chunks: [part] });
    }
    return of;
  }
  const flipped = (part: Buffer, at: number): Buffer => {
    const copy = Buffer.from(part);
    copy[at]! ^= 1;
    return copy;
  };

  test.each<[what: string, change: (parts: Buffer[]) => (Buffer | null)[]]>([
    ['a bit of a frame', ([a, b]) => [a!, flipped(b!, 5)]],
    ['a bit of a tag', ([a, b]) => [a!, flipped(b!, sealedFrameBytes - 1)]],
    ['parts exchanged', ([a, b]) => [b!, a!]],
    [
      'frames exchanged',
      ([a, b]) => [
        a!,
        Buffer.concat([
          b!.subarray(sealedFrameBytes, 2 * sealedFrameBytes),
          b!.subarray(0, sealedFrameBytes),
          b!.subarray(2 * sealedFrameBytes),
        ]),
      ],
    ],
    ['a part gone', ([a]) => [a!, null]],
    ['a part cut short', ([a, b]) => [a!, b!.subarray(0, -1)]],
  ])('%s', async (_what, change) => {
    const of = await changed(change);
    await expect(read(of, 0, bytes.byteLength)).rejects.toThrow(StagedDamaged);
  });

  test('another attempt, and another key', async () => {
    const of = await staged(bytes);
    for (const part of [0, 1]) {
      const pieces: Uint8Array[] = [];
      for await (const piece of (await of.objects.get(partKey(of, part))).stream) pieces.push(piece);
      const attempt = '00000000-0000-4000-8000-000000000000';
      const body: ObjectBody = { length: storedBytesOf(partBytes), chunks: [Buffer.concat(pieces)] };
      await of.objects.put(partKey({ ...of, attempt }, part), body);
    }
    const other = { ...of, attempt: '00000000-0000-4000-8000-000000000000' };
    await expect(read(other, 0, 10)).rejects.toThrow(StagedDamaged);
    await expect(read({ ...of, secret: randomBytes(32) }, 0, 10)).rejects.toThrow(StagedDamaged);
    expect(digest(await read(of, 0, bytes.byteLength))).toBe(digest(bytes));
  });

  test('a bit that was wrong on its way once is read again', async () => {
    const of = await staged(bytes);
    let reads = 0;
    const objects = {
      async get(...asked: Parameters<MemoryStore['get']>) {
        const content = await of.objects.get(...asked);
        if (++reads > 1) return content;
        const stream = (async function* () {
          for await (const piece of content.stream) yield flipped(Buffer.from(piece), 0);
        })();
        return { ...content, stream };
      },
    };
    expect((await read({ ...of, objects }, 0, 100)).equals(bytes.subarray(0, 100))).toBe(true);
  });
});

test('a part that may not be stored ends it, and no part comes after', async () => {
  const objects = new MemoryStore();
  const attempt = randomUUID();
  const mayStore = async (storedBytes: number): Promise<void> => {
    if (storedBytes > storedBytesOf(partBytes)) throw new Error('no room');
  };
  const about = { objects, secret: randomBytes(32), catalogId: 'c', restore: 7, attempt, partFrames, signal, mayStore };
  await expect(storeParts(inPieces(randomBytes(3 * partBytes), 10_000), about)).rejects.toThrow('no room');
  expect((await objects.list(attemptPrefix(about), { limit: 10 })).objects.length).toBe(1);
});

test('a frame number seals one thing: its nonce is of the number alone', () => {
  const cipher = new FrameCipher(Buffer.alloc(32, 1), randomUUID());
  const [a, b] = [cipher.sealFrame(0, Buffer.from('a')), cipher.sealFrame(1, Buffer.from('a'))];
  expect(Buffer.concat(a).equals(Buffer.concat(b))).toBe(false);
  expect(cipher.openFrame(1, Buffer.concat(b)).toString()).toBe('a');
  expect(() => cipher.openFrame(0, Buffer.concat(b))).toThrow(StagedDamaged);
});
