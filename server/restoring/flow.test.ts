/** How a restore flows: bounded memory for a reader of any speed, nothing left behind by one that leaves, its moment kept. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { onlyPolicy } from '../../storage/archive/retention/policies.ts';
import { pruneArchive } from '../../storage/archive/retention/prune.ts';
import { defaultRetention } from '../../storage/archive/retention/retention.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { Window } from './flow/window.ts';
import { planRestore } from './plan.ts';
import { rootsOf } from './selection.ts';
import { collect, type Entry, makeWorld, readZip, type World } from './testing.ts';
import { selectionPathsMax } from './types.ts';

let folder: string;
let world: World;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'flow-'));
  world = await makeWorld(folder, { restoreLeaseMs: 4_000 });
});
afterEach(async () => {
  await world?.close();
  await rm(folder, { recursive: true, force: true });
});

const MiB = 1024 * 1024;
/** Bytes that do not compress, others for every seed. */
function noise(bytes: number, seed: number): Buffer {
  const out = Buffer.allocUnsafe(bytes);
  for (let i = 0, state = seed; i + 4 <= bytes; i += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    out.writeInt32LE(state ^ (state >>> 15), i);
  }
  return out;
}

/** A store that counts what it has given, and what is still being read. */
function counting(objects: ObjectStore): { objects: ObjectStore; seen: { bytes: number; open: number } } {
  const seen = { bytes: 0, open: 0 };
  const get: ObjectStore['get'] = async (...asked) => {
    const content = await objects.get(...asked);
    const pieces = async function* () {
      seen.open++;
      try {
        for await (const piece of content.stream) {
          seen.bytes += piece.byteLength;
          yield piece;
        }
      } finally {
        seen.open--;
      }
    };
    return { length: content.length, stream: pieces() };
  };
  const counted = new Proxy(objects, {
    get: (of, name) => (name === 'get' ? get : Reflect.get(of, name).bind(of)),
  });
  return { objects: counted, seen };
}

/** Waits until a number no longer changes. */
async function settled(read: () => number): Promise<number> {
  for (let before = -1; ; await sleep(300)) {
    const now = read();
    if (now === before) return now;
    before = now;
  }
}

/** 24 files and a large one. @param share of a MiB and of 16 */
async function fill(share: number): Promise<void> {
  const files = Array.from({ length: 24 }, (_, i): Entry => ({ path: `/d/${i}`, content: noise(MiB * share, i + 1) }));
  await world.back(...files, { path: '/d/big', content: noise(16 * MiB * share, 99) });
}

test('a reader that stops makes the store stop; one that goes on gets all of it', async () => {
  await fill(1);
  const { objects, seen } = counting(world.storage.objects);
  const storage = { ...world.storage, objects };
  const windowBytes = 8 * MiB;
  const options = { storage, windowBytes, verifyAheadBytes: 4 * MiB };
  const assembly = world.assemble(await world.selection(['/d']), options);
  let got = 0;
  let stops = 0;
  for await (const piece of assembly.bytes) {
    got += piece.byteLength;
    if (got < stops * 10 * MiB) continue;
    stops++;
    // Held: the window, and of two streams a range that is under way and one behind it.
    expect((await settled(() => seen.bytes)) - got).toBeLessThan(windowBytes + 2 * MiB);
  }
  expect([assembly.report.ended, stops, seen.open]).toEqual([true, 5, 0]);
  expect(got).toBeGreaterThan(40 * MiB);
  expect(assembly.report.heldBytesMax).toBeLessThanOrEqual(windowBytes);
});

describe('a reader that leaves', () => {
  test('by the signal ends all reads and lets the moment go', async () => {
    await fill(0.25);
    const { objects, seen } = counting(world.storage.objects);
    const abort = new AbortController();
    const selection = await world.selection(['/d']);
    const options = { storage: { ...world.storage, objects }, windowBytes: MiB, verifyAheadBytes: MiB / 2 };
    const bytes = world.assemble(selection, { ...options, signal: abort.signal }).bytes[Symbol.asyncIterator]();
    await bytes.next();
    abort.abort(new Error('the person closed the page'));
    // Nobody has asked for more since: it ends all the same.
    await settled(() => seen.open);
    expect(seen.open).toBe(0);
    await expect(bytes.next()).rejects.toThrow('the person closed the page');
    const left = () =>
      world.storage.rows<{ left: number }>(`SELECT count(*)::int AS left FROM restores WHERE lease_until > now()`);
    for (let tries = 0; (await left())[0]!.left > 0; tries++) {
      expect(tries).toBeLessThan(40); // renewed for ever, it would never end
      await sleep(500);
    }
  });

  test('early ends all reads', async () => {
    await fill(0.25);
    const { objects, seen } = counting(world.storage.objects);
    const options = { storage: { ...world.storage, objects }, windowBytes: MiB, verifyAheadBytes: MiB / 2 };
    const assembly = world.assemble(await world.selection(['/d']), options);
    for await (const _ of assembly.bytes) break;
    expect([seen.open, assembly.report.ended]).toEqual([0, false]);
    expect(await settled(() => seen.bytes)).toBeLessThan(5 * MiB);
  });

  test('before it began reads nothing', async () => {
    await world.back({ path: '/x', content: noise(100, 1) });
    const signal = AbortSignal.abort(new Error('never mind'));
    await expect(collect(world.assemble(await world.selection(['/x']), { signal }))).rejects.toThrow('never mind');
  });
});

describe('the moment', () => {
  const prune = () => {
    const { rows } = world.storage;
    const policy = { ...defaultRetention, deletedAfterDays: 0 };
    const deps = {
      readPolicies: async () => onlyPolicy(policy),
      assertMayDelete: async () => {},
      assertStillHeld: () => {},
    };
    return rows(`UPDATE versions SET committed_at = committed_at - interval '400 days'`)
      .then(() => rows(`UPDATE files SET prune_after = now()`))
      .then(() => pruneArchive(world.storage, world.ref, deps));
  };

  test('is kept while somebody reads, however slowly, whatever is pruned', async () => {
    await world.back({ path: '/d/a', content: noise(MiB, 1) }, { path: '/d/b', content: noise(MiB, 2) });
    const selection = await world.selection(['/d']);
    const bytes = world.assemble(selection, { windowBytes: 2 * MiB, verifyAheadBytes: MiB }).bytes;
    const got: Buffer[] = [];
    for await (const piece of bytes) {
      if (got.length === 0) {
        await world.back({ path: '/d/a', content: noise(MiB, 3) }, { path: '/d/b', content: noise(MiB, 4) });
        await sleep(6_000); // longer than the lease lasts by itself
        await prune();
      }
      got.push(Buffer.from(piece));
    }
    const entries = readZip(Buffer.concat(got));
    for (const [name, seed] of [
      ['d/a', 1],
      ['d/b', 2],
    ] as const)
      expect(entries.get(name)!.content.equals(noise(MiB, seed))).toBe(true);
  });

  test('that has lapsed is refused before the first byte', async () => {
    await world.back({ path: '/x', content: noise(100, 1) });
    const selection = await world.selection(['/x']);
    await world.storage.rows(`UPDATE restores SET lease_until = now() - interval '1 s'`);
    const assembly = world.assemble(selection);
    await expect(collect(assembly)).rejects.toMatchObject({ code: 'moment_lapsed' });
    expect(assembly.report.archiveBytes).toBe(0);
  });

  test('that lapses in the middle breaks off: what was pruned must not pass for what never was', async () => {
    await fill(0.25);
    const assembly = world.assemble(await world.selection(['/d']), { windowBytes: MiB, verifyAheadBytes: MiB / 2 });
    const reading = (async () => {
      let pieces = 0;
      for await (const _ of assembly.bytes) {
        if (++pieces > 1) continue;
        await world.storage.rows(`DELETE FROM restores`);
        await sleep(1_500); // by then the lease was to be renewed
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'moment_lapsed' });
    expect(assembly.report.ended).toBe(false);
  });
});

describe('a plan', () => {
  test('counts what the archive will hold, and names what is not there', async () => {
    await world.back(
      { path: '/d' },
      { path: '/d/a', content: noise(3_000, 1) },
      { path: '/d/e', content: Buffer.alloc(0) },
      { path: '/d/l', kind: 'symlink', attributes: { target: Buffer.from('a') } },
      { path: '/d/gone', content: noise(500, 2) },
    );
    await world.remove('/d/gone', '/d/never');
    const asked = { paths: ['/d', '/d/a', '/none'].map((path) => Buffer.from(path)), moment: { at: null } };
    const plan = await planRestore(world.storage, world.ref, { ...asked, deleted: false });
    const counts = { files: 2, folders: 1, links: 1, bytes: 3_000, damaged: 0, gone: 0, thinned: 0 };
    expect(plan).toEqual({ seq: plan.seq, ...counts, missingPaths: [Buffer.from('/none')] });
    const all = await planRestore(world.storage, world.ref, { ...asked, deleted: true });
    expect(all).toMatchObject({ files: 3, bytes: 3_500, gone: 1 });
    const before = await planRestore(world.storage, world.ref, { ...asked, moment: { seq: 1 }, deleted: false });
    expect(before).toMatchObject({ files: 0, folders: 1, thinned: 0 });
  });

  test('of an archive that is not there says so', async () => {
    const ref = { ...world.ref, archive: 999_999 };
    const asked = { paths: [Buffer.from('/')], moment: { at: null }, deleted: false };
    await expect(planRestore(world.storage, ref, asked)).rejects.toMatchObject({ code: 'not_found' });
    await expect(planRestore(world.storage, world.ref, { ...asked, moment: { seq: 5 } })).rejects.toMatchObject({
      code: 'out_of_bounds',
    });
  });

  test('has bounds', () => {
    const paths = (count: number) => Array.from({ length: count }, (_, i) => Buffer.from(`/${i}`));
    expect(rootsOf(paths(selectionPathsMax))).toHaveLength(selectionPathsMax);
    expect(() => rootsOf(paths(selectionPathsMax + 1))).toThrow('1 to 1000 paths');
    expect(() => rootsOf([])).toThrow('1 to 1000 paths');
    expect(() => rootsOf([Buffer.from('/a'), Buffer.from('/a/../b')])).toThrow("path 1 has a name '.' or '..'");
  });

  test('does not take a longer name for one below', () => {
    const roots = rootsOf(['/a/b', '/a.b', '/a', '/ab/c'].map((path) => Buffer.from(path)));
    expect(roots.map((names) => names.join('/'))).toEqual(['a', 'a.b', 'ab/c']);
    expect(rootsOf([Buffer.from('/a'), Buffer.from('/')])).toEqual([[]]);
  });
});

test('a file of 300 MiB that is named by lists comes back through a window of 16 MiB', async () => {
  const bytes = 300 * MiB;
  const digest = createHash('sha256');
  async function* content(): AsyncGenerator<Buffer> {
    for (let i = 0; i < bytes / MiB; i++) {
      const piece = noise(MiB, i * 7 + 1);
      digest.update(piece);
      yield piece;
    }
  }
  const lists = { minBlocks: 16, averageBlocks: 32, maxBlocks: 64 };
  await world.back({ path: '/big', content, size: bytes, lists });
  const options = { format: 'tar' as const, windowBytes: 16 * MiB, verifyAheadBytes: 8 * MiB };
  const assembly = world.assemble(await world.selection(['/big']), options);
  const got = createHash('sha256');
  let at = 0;
  for await (const piece of assembly.bytes) {
    const header = 3 * 512; // a pax record with the fraction of the time, then the header itself
    got.update(piece.subarray(Math.max(0, header - at), Math.max(0, header + bytes - at)));
    at += piece.byteLength;
  }
  expect([assembly.report.ended, assembly.report.counts.bytes, at]).toEqual([true, bytes, bytes + 5 * 512]);
  expect(got.digest('hex')).toBe(digest.digest('hex'));
  expect(assembly.report.heldBytesMax).toBeLessThanOrEqual(16 * MiB);
}, 240_000);

describe('the window', () => {
  const never = new AbortController().signal;

  test('lets in what fits into half of it, and what is larger alone', async () => {
    const window = new Window(200);
    await window.reserve(100, never);
    let isIn = false;
    const second = window.reserve(1, never).then(() => (isIn = true));
    await sleep(10);
    expect(isIn).toBe(false);
    window.free(1);
    await second;
    window.free(100);
    await window.reserve(1_000, never);
    window.holdPlain(50);
    expect([window.held, window.peak]).toEqual([1_050, 1_050]);
    window.freePlain(50);
    window.free(1_000);
    expect(window.held).toBe(0);
  });

  test('lets go of who waits when the restore is stopped', async () => {
    const window = new Window(200);
    await window.reserve(100, never);
    const abort = new AbortController();
    const waiting = window.reserve(100, abort.signal);
    abort.abort(new Error('stopped'));
    await expect(waiting).rejects.toThrow('stopped');
  });
});
