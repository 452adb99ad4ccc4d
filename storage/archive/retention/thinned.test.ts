/** A moment whose versions retention has thinned out: what was there is told, beside what can be had. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import type { VersionMessage } from '../../../protocol/messages.ts';
import {
  commit,
  deletion,
  newArchive,
  newRun,
  noCounts,
  storageForFile,
  version,
} from '../../../tests/helpers/storage.ts';
import { findMoment } from '../../catalog/reading/reading.ts';
import type { ArchiveRef } from '../../storage.ts';
import { streamVersions, type VersionsQuery } from '../reading/read-tree.ts';
import { finishRun } from '../writing/runs.ts';
import { onlyPolicy } from './policies.ts';
import { pruneArchive } from './prune.ts';
import { defaultRetention } from './retention.ts';

const storage = storageForFile();
const dayMs = 86_400_000;
/** To noon of a day a month ago: what was committed within some seconds is of one day then, also when it is midnight now. */
const agedMs = 30 * dayMs + (Date.now() % dayMs) - dayMs / 2;
const everything: VersionsQuery = { path: Buffer.from('/'), at: null, seq: null, after: null, deleted: false };

async function backUp(ref: ArchiveRef, ...commits: VersionMessage[][]): Promise<void> {
  const run = await newRun(storage, ref);
  for (const versions of commits) await commit(storage, ref, run, versions);
  await finishRun(storage, { ...ref, run }, { outcome: 'completed', reason: '', counts: noCounts, skipped: [] });
}

/** The database's time, with nothing in the same thousandth of a second. */
async function moment(): Promise<Date> {
  await sleep(5);
  const [row] = await storage.rows<{ now: Date }>('SELECT now()');
  await sleep(5);
  return row!.now;
}

/** As it is a month later, when of a day the newest version is kept. @returns moments as they are in it */
async function prunedLater(ref: ArchiveRef, ...moments: Date[]): Promise<Date[]> {
  const earlier = (...columns: string[]) =>
    columns.map((column) => `${column} = ${column} - interval '${agedMs} ms'`).join(', ');
  await storage.rows('DELETE FROM commits WHERE vault_id = $1', [ref.vault]); // as after a month
  await storage.rows(`UPDATE versions SET ${earlier('committed_at')} WHERE vault_id = $1`, [ref.vault]);
  await storage.rows(`UPDATE archives SET ${earlier('last_committed_at')} WHERE vault_id = $1`, [ref.vault]);
  await storage.rows(`UPDATE runs SET ${earlier('started_at', 'finished_at', 'progressed_at')} WHERE vault_id = $1`, [
    ref.vault,
  ]);
  const deps = {
    readPolicies: async () => onlyPolicy(defaultRetention),
    assertMayDelete: async () => {},
    assertStillHeld: () => {},
  };
  expect(await pruneArchive(storage, ref, deps)).toMatchObject({ refused: null });
  return moments.map((at) => new Date(at.getTime() - agedMs));
}

async function read(ref: ArchiveRef, query: Partial<VersionsQuery>) {
  const frames = await Array.fromAsync(streamVersions(storage, ref, { ...everything, ...query }));
  const pages = frames.flatMap((frame) => (frame.frame === 'versions' ? [frame] : []));
  const thinned = pages.flatMap((page) => page.thinned ?? []);
  return {
    versions: pages.flatMap(({ versions }) => versions.map(({ path }) => path.toString())),
    thinned: Object.fromEntries(thinned.map(({ path, next }) => [path.toString(), next?.seq ?? null])),
    folders: thinned.filter(({ folder }) => folder).map(({ path }) => path.toString()),
    upTo: pages.map((page) => page.upTo?.toString()),
  };
}

test('what was there and is not kept is told with the version that comes next, in its place of the archive', async () => {
  const ref = await newArchive(storage);
  const empty = version('/d/empty', [], { kind: 'directory' });
  const first = ['/d/a', '/d/kept', '/d/x/y', '/z'].map((path) => version(path, [])); // 1 to 4
  await backUp(ref, [...first, version('/d/gone', []), empty]); // 5, 6
  const then = await moment();
  const changed = ['/d/a', '/d/new', '/d/x/y'].map((path) => version(path, [], { mtime: 2 })); // 7 to 9
  await backUp(ref, changed, [deletion('/d/gone'), { ...empty, mtime: 2 }]); // 10, 11
  const [at] = await prunedLater(ref, then);

  const found = await read(ref, { at: at! });
  expect(found.versions).toEqual(['/d/gone', '/d/kept', '/z']); // of what was deleted the last content stays
  expect(found.thinned).toEqual({ '/d/a': 7, '/d/empty': 11, '/d/x/y': 9 });
  expect(found.upTo).toEqual(['/z']);
  expect(await read(ref, { path: Buffer.from('/d/a'), at: at! })).toEqual({
    ...{ versions: [], thinned: { '/d/a': 7 }, folders: [], upTo: ['/d/a'] },
  });
  // Cut off anywhere: each is told once.
  const inOrder = ['/d/a', '/d/empty', '/d/gone', '/d/kept', '/d/x/y', '/z'];
  for (const [i, after] of inOrder.entries()) {
    const rest = await read(ref, { at: at!, after: Buffer.from(after) });
    expect([...rest.versions, ...Object.keys(rest.thinned)].sort()).toEqual(inOrder.slice(i + 1));
  }
  expect(await read(ref, {})).toMatchObject({ thinned: {}, upTo: [undefined] });
});

test('a moment is told by the runs where all that was committed last by then is gone', async () => {
  const ref = await newArchive(storage);
  const before = await moment();
  await backUp(ref, [version('/a', []), version('/b', [])]);
  const between = await moment();
  await backUp(ref, [version('/a', [], { mtime: 2 })], [version('/b', [], { mtime: 2 }), version('/c', [])]);
  const after = await moment();
  const moments = await prunedLater(ref, before, between, after);
  expect(await storage.rows('SELECT seq FROM versions WHERE vault_id = $1 ORDER BY 1', [ref.vault])).toHaveLength(3);
  const seqs = await Promise.all(moments.map(async (at) => (await findMoment(storage.database, ref, at))!.seq));
  expect(seqs).toEqual([0, 2, 5]);
  const found = await Promise.all(moments.map((at) => read(ref, { at })));
  expect(found.map(({ thinned }) => thinned)).toEqual([{}, { '/a': 3, '/b': 4 }, {}]);
});

test('what has become a folder since is told, and not shown as one with nothing in it', async () => {
  const ref = await newArchive(storage);
  const folder = (path: string) => version(path, [], { kind: 'directory' });
  await backUp(ref, [version('/file', []), folder('/with'), version('/with/a', []), folder('/without')]);
  const then = await moment();
  await backUp(ref, [{ ...folder('/file'), mtime: 2 }, version('/file/b', []), version('/without/c', [])]);
  await backUp(ref, [
    { ...folder('/with'), mtime: 2 },
    { ...folder('/without'), mtime: 2 },
  ]);
  const [at] = await prunedLater(ref, then);
  const found = await read(ref, { at: at! });
  expect(found.versions).toEqual(['/with/a']);
  expect(found.thinned).toEqual({ '/file': 5, '/with': 8, '/without': 9 });
  expect(found.folders).toEqual(['/file', '/with', '/without']);
  for (const path of ['/file', '/without'])
    expect(await read(ref, { path: Buffer.from(path), at: at! })).toMatchObject({ versions: [], folders: [path] });
});

test('a run that ended with its device is over when it was last heard of, not when that was noticed', async () => {
  const ref = await newArchive(storage);
  await backUp(ref, [version('/a', [])]);
  await commit(storage, ref, await newRun(storage, ref), [version('/b', [])]); // and the laptop is shut
  const then = await moment();
  await backUp(ref, [version('/b', [], { mtime: 2 })]);
  const [at] = await prunedLater(ref, then);
  expect((await findMoment(storage.database, ref, at!))!.seq).toBe(2);
  expect((await read(ref, { at: at! })).thinned).toEqual({ '/b': 3 });
});

test('in the middle of a run it is known by the commits, for the month in which they are kept', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  await commit(storage, ref, run, [version('/a', [])]);
  const then = await moment();
  await commit(storage, ref, run, [version('/a', [], { mtime: 2 })]);
  await storage.rows('DELETE FROM versions WHERE vault_id = $1 AND seq = 1', [ref.vault]);
  expect((await findMoment(storage.database, ref, then))!.seq).toBe(1);
});

test('what a run that still goes on has committed is no part of a moment before', async () => {
  const ref = await newArchive(storage);
  await backUp(ref, [version('/a', [])]);
  const run = await newRun(storage, ref);
  const then = await moment();
  await commit(storage, ref, run, [version('/b', [])]);
  expect((await findMoment(storage.database, ref, then))!.seq).toBe(1);
  await storage.rows(
    `UPDATE runs SET finished_at = started_at, progressed_at = started_at, outcome = 'completed' WHERE run_id = $1`,
    [run],
  );
  // A clock that went back, say: never beyond the first that is known to be later.
  expect((await findMoment(storage.database, ref, then))!.seq).toBe(1);
});

test('in the middle of a commit, what comes behind it is not there yet', async () => {
  const ref = await newArchive(storage);
  await backUp(ref, [version('/a', []), version('/d/b', []), version('/d/c', [])]);
  expect(await read(ref, { seq: 1 })).toMatchObject({ versions: ['/a'], thinned: {} });
  expect(await read(ref, { seq: 2 })).toMatchObject({ versions: ['/a', '/d/b'], thinned: {} });
});
