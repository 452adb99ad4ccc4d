/** Restores that share memory: readers that stop keep what they hold and no more, and everybody else gets all of theirs. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Room } from './flow/room.ts';
import { collect, type Entry, makeWorld, type World } from './testing.ts';

const MiB = 1024 * 1024;
let folder: string;
let world: World;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shared-room-'));
  world = await makeWorld(folder);
});
afterEach(async () => {
  await world?.close();
  await rm(folder, { recursive: true, force: true });
});

/** Repeats nothing, and inflates from a tenth: what is written takes more than what was fetched. */
function lines(bytes: number, seed: number): Buffer {
  const text = Array.from({ length: Math.ceil(bytes / 64) }, (_, i) => `${seed * 7919 + i} `.padEnd(64, 'line '));
  return Buffer.from(text.join('').slice(0, bytes));
}

test.each(['zip', 'tar'] as const)(
  'of twelve readers of a %s six stop; the others get theirs, and all is given back',
  async (format) => {
    const files = Array.from({ length: 8 }, (_, i): Entry => ({ path: `/d/${i}`, content: lines(MiB / 2, i) }));
    await world.back(...files, { path: '/d/large', content: lines(4 * MiB, 99) });
    const selection = await world.selection(['/d']);
    const bounds = { format, windowBytes: 4 * MiB, verifyAheadBytes: 2 * MiB };
    const alone = await collect(world.assemble(selection, bounds));

    // Shares of a twelfth and more: a file of half a MiB is less.
    const totalBytes = 16 * MiB;
    const room = new Room(totalBytes);
    let leastFree = room.freeBytes;
    const onProgress = (): void => {
      leastFree = Math.min(leastFree, room.freeBytes);
    };
    const assemble = () => world.assemble(selection, { ...bounds, room, onProgress });
    const stopped = await Promise.all(
      Array.from({ length: 6 }, async () => {
        const pieces = assemble().bytes[Symbol.asyncIterator]();
        for (let taken = 0; taken < MiB; ) taken += (await pieces.next()).value!.byteLength;
        return pieces;
      }),
    );
    expect(room.freeBytes).toBeLessThan(totalBytes - 2 * MiB);
    for (const { bytes } of await Promise.all(Array.from({ length: 6 }, () => collect(assemble()))))
      expect(bytes.equals(alone.bytes)).toBe(true);
    expect(leastFree).toBeGreaterThanOrEqual(0);
    expect(leastFree).toBeLessThan(totalBytes / 2);

    for (const pieces of stopped) await pieces.return!();
    expect([room.freeBytes, room.shareBytes]).toEqual([totalBytes, totalBytes]);
  },
);

test('one that is stopped while it waits for room leaves nothing behind', async () => {
  await world.back({ path: '/d/a', content: lines(3 * MiB, 1) });
  const selection = await world.selection(['/d']);
  const room = new Room(8 * MiB);
  const other = room.enter();
  await room.take(other.holding, 8 * MiB, new AbortController().signal);
  const stop = new AbortController();
  const waiting = collect(world.assemble(selection, { room, signal: stop.signal }));
  setTimeout(() => stop.abort(new Error('gone')), 200);
  await expect(waiting).rejects.toThrow('gone');
  room.giveBack(other.holding, 8 * MiB);
  other.leave();
  expect([room.freeBytes, room.shareBytes]).toEqual([8 * MiB, 8 * MiB]);
});
