import { beforeEach, describe, expect, test } from '@jest/globals';
import {
  block,
  commit,
  deletion,
  newArchive,
  newRun,
  pruneAtOnce,
  storageForEachTest,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { coolArchiveRows, lockColdArchive, setColdUntilRow, warmArchiveRows } from '../../catalog/deleting/cold.ts';
import type { ArchiveRef } from '../../storage.ts';
import { startRun } from '../writing/runs.ts';
import { expiring } from './empty-archive.ts';
import { expireArchives } from './expire-archives.ts';

const storage = storageForEachTest();
let ref: ArchiveRef;
const [one, two, three] = [block(1), block(2), block(3)];

beforeEach(async () => {
  ref = await newArchive(storage);
});

const expire = () => expireArchives(storage, pruneAtOnce);
const cool = (days: number, of = ref) => storage.database.transaction((tx) => coolArchiveRows(tx, [of], days));
const warm = (of = ref) => storage.database.transaction((tx) => warmArchiveRows(tx, [of]));
const past = (column: 'cold_until' | 'expired_at', ago: string, of = ref) =>
  storage.rows(`UPDATE archives SET ${column} = now() - $2::interval WHERE archive_id = $1`, [of.archive, ago]);
const archive = async (of = ref) => {
  const [row] = await storage.rows<{ state: string; versions: number; live: number; epoch: number }>(
    'SELECT state, version_count AS versions, live_files AS live, purge_epoch AS epoch FROM archives WHERE archive_id = $1',
    [of.archive],
  );
  return row!;
};

/** A folder with a file of two versions, a file that was deleted, and one outside; three blocks. */
async function fill(of = ref): Promise<void> {
  await upload(storage, of.vault, [one, two, three]);
  const run = await newRun(storage, of);
  await commit(storage, of, run, [version('/a/kept', [one]), version('/a/gone', [two]), version('/b', [three])]);
  await commit(storage, of, run, [version('/a/kept', [three]), deletion('/a/gone')]);
}

async function expireLongAgo(of = ref): Promise<void> {
  await cool(1, of);
  await past('cold_until', '1 second', of);
  await expire();
  await past('expired_at', '20 days', of);
}

describe('a cold archive', () => {
  test('has a date, keeps it when cooled again, and takes no runs', async () => {
    const before = Date.now();
    const [cooled] = await cool(10);
    expect(Math.abs(cooled!.getTime() - before - 10 * 86_400_000)).toBeLessThan(60_000);
    expect(await cool(99)).toEqual([]);
    await expect(startRun(storage, ref, { lastCommit: null, roots: [] })).rejects.toMatchObject({
      code: 'archive_not_active',
    });
    expect(await warm()).toEqual([ref.archive]);
    expect(await warm()).toEqual([]);
    expect(await archive()).toMatchObject({ state: 'active', epoch: 0 });
  });

  test('takes no commit of a run that began before', async () => {
    const run = await newRun(storage, ref);
    await cool(10);
    await expect(commit(storage, ref, run, [version('/a')])).rejects.toMatchObject({ code: 'archive_not_active' });
  });

  test('expires on its date and not before, and loses nothing for 20 days', async () => {
    await fill();
    await cool(1);
    expect(await expire()).toMatchObject({ expired: 0 });
    await past('cold_until', '0 seconds');
    expect(await expire()).toMatchObject({ expired: 1, versions: 0 });
    await past('expired_at', '19 days 23:59:00');
    expect(await expire()).toMatchObject({ expired: 0, emptied: 0, versions: 0 });
    expect(await archive()).toMatchObject({ state: 'expired', versions: 5 });
    await past('expired_at', '20 days');
    expect(await expire()).toMatchObject({ emptied: 1, versions: 5 });
  });
});

describe('an archive that expired long ago', () => {
  test('loses all it has, and another one nothing', async () => {
    const other = await newArchive(storage, ref.vault);
    await fill();
    await fill(other);
    await expireLongAgo();
    expect(await expire()).toMatchObject({ emptied: 1, versions: 5 });
    expect(await archive()).toMatchObject({ state: 'expired', versions: 0, live: 0 });
    expect(await archive(other)).toMatchObject({ state: 'active', versions: 5, live: 2 });
    expect(await storage.rows('SELECT 1 FROM files WHERE archive_id = $1', [ref.archive])).toEqual([]);
    const refs = await storage.rows<{ refs: number }>('SELECT refs FROM blocks WHERE vault_id = $1 ORDER BY refs', [
      ref.vault,
    ]);
    expect(refs.map(({ refs }) => refs)).toEqual([1, 1, 2]);
    expect(await expire()).toMatchObject({ emptied: 0 });
  });

  test('keeps what a hold covers, and the folders and deletions that belong to it', async () => {
    await fill();
    await expireLongAgo();
    await storage.rows('INSERT INTO holds (vault_id, policy) VALUES ($1, $2)', [
      ref.vault,
      JSON.stringify({ paths: ['/a/gone'] }),
    ]);
    expect(await expire()).toMatchObject({ versions: 3 });
    expect(await expire()).toMatchObject({ emptied: 1, versions: 0 });
    const left = await storage.rows('SELECT deleted FROM versions WHERE archive_id = $1 ORDER BY seq', [ref.archive]);
    expect(left).toEqual([{ deleted: false }, { deleted: true }]);
    expect(await archive()).toMatchObject({ versions: 2, live: 0 });
    await storage.rows('UPDATE holds SET release_effective_at = now()');
    expect(await expire()).toMatchObject({ versions: 2 });
    expect(await storage.rows('SELECT 1 FROM files WHERE archive_id = $1', [ref.archive])).toEqual([]);
  });

  test('is gone through past any number of files that are held', async () => {
    const run = await newRun(storage, ref);
    const paths = Array.from({ length: 1_203 }, (_, i) => version(`/${i < 700 ? 'held' : 'free'}/${i}`));
    await commit(storage, ref, run, paths);
    await expireLongAgo();
    await storage.rows('INSERT INTO holds (vault_id, policy) VALUES ($1, $2)', [
      ref.vault,
      JSON.stringify({ paths: ['/held'] }),
    ]);
    expect(await expire()).toMatchObject({ versions: 503 });
    expect(await archive()).toMatchObject({ versions: 700 });
  });

  test('that is taken back keeps what is left, and tells agents to compare', async () => {
    await fill();
    await expireLongAgo();
    await warm();
    expect(await expire()).toMatchObject({ emptied: 0, versions: 0 });
    expect(await archive()).toMatchObject({ state: 'active', versions: 5, epoch: 1 });
  });

  test('gets another date: it is cold again, and nothing of it goes', async () => {
    await fill();
    await expireLongAgo();
    await storage.database.transaction(async (tx) => {
      const { state, now } = (await lockColdArchive(tx, ref))!;
      expect(state).toBe('expired');
      await setColdUntilRow(tx, ref, new Date(now.getTime() + 60_000));
    });
    expect(await expire()).toMatchObject({ expired: 0, versions: 0 });
    expect(await archive()).toMatchObject({ state: 'cold', versions: 5, epoch: 1 });
  });

  test('taken back in the middle loses only the batch under way', async () => {
    const run = await newRun(storage, ref);
    await commit(
      storage,
      ref,
      run,
      Array.from({ length: 1_200 }, (_, i) => version(`/${i}`)),
    );
    await expireLongAgo();
    let asked = 0;
    const deps = { ...pruneAtOnce, assertMayDelete: async () => void (++asked === 2 && (await warm())) };
    expect(await expireArchives(storage, deps)).toMatchObject({ versions: 500 });
    expect(await archive()).toMatchObject({ state: 'active', versions: 700 });
  });
});

test('nothing expires, and nothing is deleted, while deleting is stopped', async () => {
  await fill();
  await cool(1);
  await past('cold_until', '1 second');
  const stopped = new Error('stopped');
  const deps = { ...pruneAtOnce, assertMayDelete: () => Promise.reject(stopped) };
  await expect(expireArchives(storage, deps)).rejects.toBe(stopped);
  expect(await archive()).toMatchObject({ state: 'cold' });
});

test.each([
  ['all of it', 'vvd', [1, 2, 3]],
  ['nothing that is held', 'VVV', []],
  ['not the deletion that hides what is held', 'vVd', [1]],
  ['the deletion before what is held', 'dVv', [1, 3]],
  ['a deletion that hides nothing', 'vd', [1, 2]],
])('goes: %s', (_, letters, expected) => {
  const versions = [...letters].map((letter, i) => ({
    seq: i + 1,
    committedAt: i,
    deleted: letter === 'd',
    ...(letter === 'V' && { pinned: 'hold' as const }),
  }));
  expect(expiring(versions)).toEqual(expected);
});
