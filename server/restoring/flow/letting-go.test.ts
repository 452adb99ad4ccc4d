/** What is freed is gone, and nothing else is: a block that is needed again stays until its last use. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { collect, makeWorld, readZip } from '../testing.ts';
import { collectEarly, free, letGo } from './letting-go.ts';

const MiB = 1024 * 1024;
/** Bytes that do not compress. */
function noise(bytes: number): Buffer {
  const out = Buffer.allocUnsafe(bytes);
  for (let i = 0, state = 7; i + 4 <= bytes; i += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    out.writeInt32LE(state ^ (state >>> 15), i);
  }
  return out;
}

test('memory of its own is freed at once; of memory that others share nothing is', () => {
  const own = Buffer.alloc(MiB, 1);
  free(own);
  expect([own.byteLength, own.buffer.byteLength]).toEqual([0, 0]);

  const shared = Buffer.alloc(MiB, 2);
  const part = shared.subarray(1);
  free(part);
  expect(part.byteLength).toBe(MiB - 1);
  expect(shared.equals(Buffer.alloc(MiB, 2))).toBe(true);
});

test('what nobody reads any more is collected before V8 would by itself', () => {
  collectEarly();
  // Not freed, and reachable by nobody: only a collection takes them, which V8 begins at 64 MiB.
  const most = { bytes: 0 };
  for (let i = 0; i < 200; i++) {
    Buffer.alloc(MiB, 1);
    letGo(MiB);
    most.bytes = Math.max(most.bytes, process.memoryUsage().arrayBuffers);
  }
  expect(most.bytes - process.memoryUsage().arrayBuffers).toBeLessThan(32 * MiB);
});

test('a block that is in a file again and again, and in others, is whole each time', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'letting-go-'));
  const world = await makeWorld(folder);
  try {
    const block = noise(200_000);
    const times = (count: number) => ({ size: count * block.byteLength, repeat: { block, times: count } });
    await world.back({ path: '/d/a', ...times(5) }, { path: '/d/b', ...times(1) }, { path: '/d/large', ...times(20) });
    const { bytes, report } = await collect(
      world.assemble(await world.selection(['/d']), { verifyAheadBytes: 2 * MiB, windowBytes: 8 * MiB }),
    );
    expect(report.leftOut).toEqual([]);
    const files = readZip(bytes);
    for (const [name, count] of [
      ['d/a', 5],
      ['d/b', 1],
      ['d/large', 20],
    ] as const)
      expect(files.get(name)!.content.equals(Buffer.concat(Array<Buffer>(count).fill(block)))).toBe(true);
  } finally {
    await world.close();
    await rm(folder, { recursive: true, force: true });
  }
});
