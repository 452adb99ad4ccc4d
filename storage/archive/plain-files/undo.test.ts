import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import { seededRandom } from '../../../tests/helpers/random.ts';
import { newHeldFence, storageForFile } from '../../../tests/helpers/storage.ts';
import { readPlainFigures } from '../../catalog/plain-figures.ts';
import { readHiddenBytes } from '../../catalog/usage.ts';
import { findPlainFile, type PlainName } from '../../catalog/writing/plain-files.ts';
import type { ArchiveRef } from '../../storage.ts';
import { recount } from '../checking/recount.ts';
import { plainPolicies } from '../retention/plain-policies.ts';
import { type PruneDeps, pruneArchive } from '../retention/prune.ts';
import { hideFile } from './hide-file.ts';
import { putNamedFile } from './put-file.ts';
import { namesOf, sum, undoWorld, withBounds } from './undo.testing.ts';
import { beginUndo, setBackStep, type UndoPlace, type UndoStep, undoDeletesOf, undoDeletesStep } from './undo.ts';

const storage = storageForFile({ settings: { expiryVersionsMin: 1_000_000 } });
const { repository, put, moment, setBack, there, figures } = undoWorld(storage);

describe('figures', () => {
  test('count what is there and what is hidden, whatever is repeated', async () => {
    const ref = await repository();
    const bytes = randomBytes(100);
    const file = await put(ref, 'data', bytes);
    await put(ref, 'data', bytes);
    const empty = await put(ref, 'data', Buffer.alloc(0));
    await putNamedFile(storage, ref, { folder: '', name: 'config' }, randomBytes(7));
    expect(await figures(ref)).toEqual({ '': [1, 7, 0, 0], data: [2, 100, 0, 0] });
    await hideFile(storage, ref, file);
    await hideFile(storage, ref, file);
    await hideFile(storage, ref, empty);
    expect(await figures(ref)).toEqual({ '': [1, 7, 0, 0], data: [0, 0, 2, 100] });
    expect(await readHiddenBytes(storage.database, [ref.vault])).toBe(100);
    await put(ref, 'data', bytes);
    await hideFile(storage, ref, { folder: 'data', name: 'f'.repeat(64) });
    expect(await figures(ref)).toEqual({ '': [1, 7, 0, 0], data: [1, 100, 1, 0] });
    const days = await storage.rows('SELECT files, bytes FROM plain_deletes WHERE vault_id = $1', [ref.vault]);
    expect(days).toEqual([{ files: 2, bytes: 100 }]);
  });

  test('that are wrong are found by the recount, corrected and told', async () => {
    const ref = await repository();
    const file = await put(ref, 'data');
    await put(ref, 'snapshots');
    await hideFile(storage, ref, file);
    await storage.rows("UPDATE plain_figures SET hidden_bytes = 5 WHERE vault_id = $1 AND folder = 'data'", [
      ref.vault,
    ]);
    await storage.rows("DELETE FROM plain_figures WHERE vault_id = $1 AND folder = 'snapshots'", [ref.vault]);
    expect(await recount(storage, ref.vault)).toMatchObject({ figures: 2 });
    expect(await figures(ref)).toEqual({ data: [0, 0, 1, 100], snapshots: [1, 100, 0, 0] });
    expect(
      await storage.rows("SELECT 1 FROM alerts WHERE vault_id = $1 AND kind = 'refs_drift'", [ref.vault]),
    ).toHaveLength(1);
  });
});

describe('prune', () => {
  const deps = async (undeleteDays: number): Promise<PruneDeps> => {
    const fence = await newHeldFence(storage);
    return {
      readPolicies: async () => plainPolicies(undeleteDays, 'test'),
      assertMayDelete: () => fence.assertHeld(),
      assertStillHeld: (read) => fence.assertStillHeld(read),
    };
  };
  /** Deleted so many days ago. */
  const age = (ref: ArchiveRef, days: number) =>
    storage.rows(`UPDATE versions SET committed_at = committed_at - $2 * interval '1 day' WHERE vault_id = $1`, [
      ref.vault,
      days,
    ]);

  test('takes what was deleted when its days are over, locks at once, and counts both off', async () => {
    const ref = await repository();
    const kept = await put(ref, 'data');
    const gone = await put(ref, 'data');
    const lock = await put(ref, 'locks');
    const held = await put(ref, 'locks');
    await hideFile(storage, ref, gone);
    await hideFile(storage, ref, lock);
    expect(await pruneArchive(storage, ref, await deps(30))).toMatchObject({ versions: 2, refused: null });
    expect(await figures(ref)).toEqual({ data: [1, 100, 1, 100], locks: [1, 100, 0, 0] });
    await age(ref, 31);
    await storage.rows('UPDATE files SET prune_after = now() WHERE vault_id = $1 AND prune_after IS NOT NULL', [
      ref.vault,
    ]);
    expect(await pruneArchive(storage, ref, await deps(30))).toMatchObject({ versions: 2, refused: null });
    expect(await figures(ref)).toEqual({ data: [1, 100, 0, 0], locks: [1, 100, 0, 0] });
    expect(await there(ref)).toEqual(namesOf([kept, held]));
  });

  test('is not stopped by any number of locks; over the cap nothing goes, no lock either', async () => {
    const ref = await repository();
    const usual = storage.settings.expiryVersionsMin;
    Object.assign(storage.settings, { expiryVersionsMin: 4 });
    const lock = async (): Promise<void> => hideFile(storage, ref, await put(ref, 'locks')).then(() => {});
    try {
      for (let i = 0; i < 6; i++) await lock();
      const gone = await put(ref, 'data');
      await hideFile(storage, ref, gone);
      expect(await pruneArchive(storage, ref, await deps(0))).toMatchObject({ versions: 14, refused: null });
      // The four of today are used up by two files, locks not counted.
      for (let i = 0; i < 3; i++) await lock();
      await hideFile(storage, ref, await put(ref, 'data'));
      expect(await pruneArchive(storage, ref, await deps(0))).toMatchObject({ versions: 8, refused: null });
      await lock();
      await hideFile(storage, ref, await put(ref, 'data'));
      expect(await pruneArchive(storage, ref, await deps(0))).toMatchObject({ versions: 0, refused: 'over_cap' });
      expect(await figures(ref)).toEqual({ data: [0, 0, 1, 100], locks: [0, 0, 1, 100] });
    } finally {
      Object.assign(storage.settings, { expiryVersionsMin: usual });
    }
  });

  test('notes by folder until when there was what it has taken', async () => {
    const ref = await repository();
    const goneBefore = async () => {
      const found = (await readPlainFigures(storage.database, [ref])).get(`${ref.vault}/${ref.archive}`)!;
      return Object.fromEntries(found.map((each) => [each.folder, each.goneBefore]));
    };
    const bytes = randomBytes(100);
    const [file, lock] = [await put(ref, 'data', bytes), await put(ref, 'locks')];
    await put(ref, 'snapshots');
    await hideFile(storage, ref, file);
    await put(ref, 'data', bytes);
    await hideFile(storage, ref, file);
    await hideFile(storage, ref, lock);
    await hideFile(storage, ref, await put(ref, 'index'));
    const ends = await storage.rows<{ at: Date }>(
      'SELECT committed_at AS at FROM versions WHERE vault_id = $1 AND deleted ORDER BY seq',
      [ref.vault],
    );
    await pruneArchive(storage, ref, await deps(30));
    expect(await goneBefore()).toEqual({ data: null, index: null, snapshots: null, locks: ends[2]!.at });
    await pruneArchive(storage, ref, await deps(0));
    expect(await goneBefore()).toEqual({ data: ends[1]!.at, index: ends[3]!.at, snapshots: null, locks: ends[2]!.at });
  });

  test('leaves what a hold covers', async () => {
    const ref = await repository();
    const file = await put(ref, 'data');
    await hideFile(storage, ref, file);
    await storage.rows(`INSERT INTO holds (vault_id, policy) VALUES ($1, '{}')`, [ref.vault]);
    expect(await pruneArchive(storage, ref, await deps(0))).toMatchObject({ versions: 0 });
    expect(await figures(ref)).toEqual({ data: [0, 0, 1, 100] });
    const done = await storage.database.transaction((tx) => undoDeletesOf(tx, ref, [file]));
    expect(sum(done.shown)).toEqual({ data: 1 });
    expect(await there(ref)).toEqual(namesOf([file]));
  });
});

describe('undoing deletes', () => {
  test('shows named files again, and says which are gone', async () => {
    const ref = await repository();
    const [one, two, three] = [await put(ref, 'data'), await put(ref, 'index'), await put(ref, 'data')];
    for (const file of [one, two]) await hideFile(storage, ref, file);
    const never = { folder: 'data', name: 'e'.repeat(64) };
    const files = [one, two, three, never];
    const done = await storage.database.transaction((tx) => undoDeletesOf(tx, ref, files));
    expect({ ...done, shown: sum(done.shown) }).toMatchObject({ shown: { data: 1, index: 1 }, gone: [never] });
    expect(await there(ref)).toEqual(namesOf([one, two, three]));
    const again = await storage.database.transaction((tx) => undoDeletesOf(tx, ref, files));
    expect(sum(again.shown)).toEqual({});
    expect(await figures(ref)).toEqual({ data: [2, 200, 0, 0], index: [1, 100, 0, 0] });
  });

  test('since a moment shows what was deleted since, and no lock', async () => {
    const ref = await repository();
    const [early, late, lock] = [await put(ref, 'data'), await put(ref, 'data'), await put(ref, 'locks')];
    await hideFile(storage, ref, early);
    const at = await moment();
    const new_ = await put(ref, 'data');
    for (const file of [late, lock, new_]) await hideFile(storage, ref, file);
    const place = (await storage.database.transaction((tx) => beginUndo(tx, ref, at)))!;
    const done = await storage.database.transaction((tx) => undoDeletesStep(tx, ref, place));
    expect({ shown: sum(done.shown), next: done.next }).toEqual({ shown: { data: 2 }, next: null });
    expect(await there(ref)).toEqual(namesOf([late, new_]));
  });

  test('leaves out what is damaged, and names it', async () => {
    const ref = await repository();
    const [whole, broken] = [await put(ref, 'data'), await put(ref, 'data')];
    for (const file of [whole, broken]) await hideFile(storage, ref, file);
    await storage.rows('UPDATE blocks SET damaged_at = now() WHERE vault_id = $1 AND hash = $2', [
      ref.vault,
      Buffer.from(broken.name, 'hex'),
    ]);
    const done = await storage.database.transaction((tx) => undoDeletesOf(tx, ref, [whole, broken]));
    expect(sum(done.shown)).toEqual({ data: 1 });
    expect(done.damaged).toEqual({ files: 1, first: [broken] });
    expect(await there(ref)).toEqual(namesOf([whole]));
  });
});

describe('setting back', () => {
  test('makes the archive what it was: what came is hidden, what went is back, the configuration stays, locks go', async () => {
    const ref = await repository();
    await putNamedFile(storage, ref, { folder: '', name: 'config' }, randomBytes(7));
    const before: PlainName[] = [];
    for (const folder of ['data', 'data', 'index', 'keys', 'snapshots']) before.push(await put(ref, folder));
    const goneBefore = await put(ref, 'data');
    await hideFile(storage, ref, goneBefore);
    const at = await moment();
    for (const file of before.slice(1)) await hideFile(storage, ref, file);
    const later = [await put(ref, 'data'), await put(ref, 'snapshots'), await put(ref, 'locks')];
    const twice = await put(ref, 'index');
    await hideFile(storage, ref, twice);
    const brief = await put(ref, 'data', Buffer.from('came and came again'));
    await hideFile(storage, ref, brief);
    await put(ref, 'data', Buffer.from('came and came again'));

    const place = (await storage.database.transaction((tx) => beginUndo(tx, ref, at)))!;
    const tried: UndoStep[] = [];
    for (let next: UndoPlace | null = place; next; ) {
      const step: UndoStep = await setBackStep(storage.database, ref, next, { dryRun: true });
      tried.push(step);
      next = step.next;
    }
    const expected = {
      shown: { data: 1, index: 1, keys: 1, snapshots: 1 },
      hidden: { data: 2, snapshots: 1, locks: 1 },
    };
    const all = (steps: UndoStep[]) => steps.map(({ shown, hidden }) => ({ shown: sum(shown), hidden: sum(hidden) }));
    expect(all(tried)).toEqual([expected]);
    expect(await there(ref)).toEqual([...namesOf([before[0]!, ...later, brief]), 'config'].sort());

    expect(all(await setBack(ref, at))).toEqual([expected]);
    expect(await there(ref)).toEqual([...namesOf(before), 'config'].sort());
    const count = await storage.rows('SELECT 1 FROM versions WHERE vault_id = $1', [ref.vault]);
    expect(all(await setBack(ref, at))).toEqual([{ shown: {}, hidden: {} }]);
    expect(await storage.rows('SELECT 1 FROM versions WHERE vault_id = $1', [ref.vault])).toHaveLength(count.length);
    await figures(ref);
  });

  test('to before anything was there hides all but the configuration, and can be undone', async () => {
    const ref = await repository();
    const at = await moment();
    await putNamedFile(storage, ref, { folder: '', name: 'config' }, randomBytes(7));
    const files = [await put(ref, 'data'), await put(ref, 'snapshots')];
    const full = await moment();
    await setBack(ref, at);
    expect(await there(ref)).toEqual(['config']);
    await setBack(ref, full);
    expect(await there(ref)).toEqual([...namesOf(files), 'config'].sort());
  });

  test('has a configuration back that was replaced, and the one in its place when that is undone', async () => {
    const ref = await repository();
    const config = { folder: '', name: 'config' };
    const [old, other] = [randomBytes(7), randomBytes(9)];
    await putNamedFile(storage, ref, config, old);
    const at = await moment();
    await hideFile(storage, ref, config);
    await putNamedFile(storage, ref, config, other);
    const replaced = await moment();
    const [tried] = [
      await setBackStep(storage.database, ref, (await storage.database.transaction((tx) => beginUndo(tx, ref, at)))!, {
        dryRun: true,
      }),
    ];
    expect(sum(tried.shown)).toEqual({ '': 1 });
    const isThere = async (bytes: Buffer) =>
      expect((await findPlainFile(storage.database, ref, config))?.blocks).toEqual(sha256(bytes));
    expect((await setBack(ref, at)).map(({ shown, hidden }) => [sum(shown), sum(hidden)])).toEqual([[{ '': 1 }, {}]]);
    await isThere(old);
    await expect(putNamedFile(storage, ref, config, other)).rejects.toMatchObject({ code: 'forbidden' });
    await setBack(ref, replaced);
    await isThere(other);
    await figures(ref);
  });

  test('shows keys that were deleted, and hides those that came only when asked to', async () => {
    const ref = await repository();
    const old = await put(ref, 'keys');
    const at = await moment();
    await hideFile(storage, ref, old);
    const new_ = await put(ref, 'keys');
    expect((await setBack(ref, at)).map(({ shown, hidden }) => [sum(shown), sum(hidden)])).toEqual([[{ keys: 1 }, {}]]);
    expect(await there(ref)).toEqual(namesOf([old, new_]));
    const place = (await storage.database.transaction((tx) => beginUndo(tx, ref, at)))!;
    await storage.database.transaction((tx) => setBackStep(tx, ref, place, { dryRun: false, hideNewKeys: true }));
    expect(await there(ref)).toEqual(namesOf([old]));
  });

  test('drops no lock that came after it began', async () => {
    const ref = await repository();
    const at = await moment();
    await put(ref, 'locks');
    const place = (await storage.database.transaction((tx) => beginUndo(tx, ref, at)))!;
    const came = await put(ref, 'locks');
    const done = await storage.database.transaction((tx) => setBackStep(tx, ref, place, { dryRun: false }));
    expect(sum(done.hidden)).toEqual({ locks: 1 });
    expect(await there(ref)).toEqual(namesOf([came]));
  });

  test('goes on where a step ended, and leaves what comes meanwhile', async () => {
    const ref = await repository();
    await withBounds({ filesMax: 3, pageVersions: 2, stepVersions: 6 }, async () => {
      const before: PlainName[] = [];
      for (let i = 0; i < 8; i++) before.push(await put(ref, 'data'));
      const at = await moment();
      for (const file of before) await hideFile(storage, ref, file);
      for (let i = 0; i < 7; i++) await put(ref, 'data');
      const came: PlainName[] = [];
      const steps = await setBack(ref, at, async () => void came.push(await put(ref, 'data')));
      expect(steps.length).toBeGreaterThan(4);
      for (const step of steps)
        expect((sum(step.shown).data ?? 0) + (sum(step.hidden).data ?? 0)).toBeLessThanOrEqual(3);
      expect(await there(ref)).toEqual(namesOf([...before, ...came]));
      await figures(ref);
    });
  });

  // Of two that meet at the archive's row, whichever is second sees what the first has done.
  test.each([1, 2, 3, 4, 5, 6])(
    'beside uploads and deletes: every file is as one of the two said, counts are right (seed %i)',
    async (seed) => {
      const random = seededRandom(seed);
      const ref = await repository();
      const before: PlainName[] = [];
      const contents = Array.from({ length: 12 }, (_, i) => Buffer.from(`${seed}/${i} ${'x'.repeat(i)}`));
      for (const each of contents.slice(0, 8)) before.push(await put(ref, 'data', each));
      const at = await moment();
      for (const file of before) if (random.chance(0.7)) await hideFile(storage, ref, file);
      const touched = new Set<string>();
      const act = async (): Promise<void> => {
        const bytes = random.pick(contents);
        const name = sha256(bytes).toString('hex');
        touched.add(`data/${name}`);
        if (random.chance(0.5)) await put(ref, 'data', bytes);
        else await hideFile(storage, ref, { folder: 'data', name });
      };
      await withBounds({ filesMax: 2, pageVersions: 3, stepVersions: 6 }, async () => {
        await Promise.all([setBack(ref, at), ...Array.from({ length: 10 }, act)]);
      });
      const now = await there(ref);
      const untouched = (names: string[]): string[] => names.filter((name) => !touched.has(name));
      expect(untouched(now)).toEqual(untouched(namesOf(before)));
      await figures(ref);
      await setBack(ref, at);
      expect(await there(ref)).toEqual(namesOf(before));
    },
  );
});
