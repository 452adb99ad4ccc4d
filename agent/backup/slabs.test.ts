import { describe, expect, test } from '@jest/globals';
import { type SlabBlock, Slabs, slabBytes } from './slabs.ts';

const MiB = 1024 * 1024;

function filled(bytes: number, value: number): Buffer {
  return Buffer.alloc(bytes, value);
}

describe('slabs', () => {
  test('hold copies until they are full, and again once something is released', () => {
    const slabs = new Slabs(2 * slabBytes);
    const taken: SlabBlock[] = [];
    const block = filled(MiB, 1);
    for (let next = slabs.take(block); next; next = slabs.take(block)) taken.push(next);
    expect(taken).toHaveLength(8); // four to a slab
    block.fill(9);
    expect(taken[0]!.bytes[0]).toBe(1);
    for (const held of taken.slice(0, 3)) slabs.release(held);
    expect(slabs.take(block)).toBeNull(); // one block still keeps the slab
    slabs.release(taken[3]!);
    expect(slabs.take(block)?.bytes[0]).toBe(9);
    expect(taken.slice(4).every(({ bytes }) => bytes.equals(filled(MiB, 1)))).toBe(true);
  });

  test('take a block larger than any slab when nothing else is held, and nothing beside it', () => {
    const slabs = new Slabs(2 * slabBytes);
    const large = slabs.take(filled(16 * MiB, 2))!;
    expect(large.bytes.byteLength).toBe(16 * MiB);
    expect(slabs.take(filled(10, 3))).toBeNull();
    slabs.release(large);
    const small = slabs.take(filled(10, 3))!;
    expect(slabs.take(filled(16 * MiB, 4))).toBeNull();
    slabs.release(small);
    expect(slabs.take(filled(16 * MiB, 4))).not.toBeNull();
  });

  test('never give memory away twice, whatever the order of release', () => {
    const slabs = new Slabs(3 * slabBytes);
    let seed = 7;
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
      return (seed >>> 8) % below;
    };
    const held: { block: SlabBlock; value: number; bytes: number }[] = [];
    let refused = 0;
    for (let step = 0; step < 400; step++) {
      const bytes = 1 + random(2 * MiB);
      const value = step % 251;
      const block = slabs.take(filled(bytes, value));
      if (block) held.push({ block, value, bytes });
      else refused++;
      if (!block || random(3) === 0) {
        const [gone] = held.splice(random(held.length), 1);
        expect(gone!.block.bytes.equals(filled(gone!.bytes, gone!.value))).toBe(true);
        slabs.release(gone!.block);
      }
    }
    expect(refused).toBeGreaterThan(0);
  });
});
