import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { limits } from '../../../protocol/limits.ts';
import type { RunCounts, SkippedFile } from '../../../protocol/messages.ts';
import { commit, newArchive, newRun, noCounts, storageForFile, version } from '../../../tests/helpers/storage.ts';
import type { ArchiveRef } from '../../storage.ts';
import { abandonStaleRuns, finishRun, progressRun, startRun } from './runs.ts';

const storage = storageForFile();

const counts = (filesSeen: number): RunCounts => ({ ...noCounts, filesSeen });
const left = (path: string, detail = 'permission denied'): SkippedFile => ({
  path: Buffer.from(path),
  reason: 'unreadable',
  detail,
});

type Row = Record<string, unknown>;
const runRow = async (ref: ArchiveRef, run: number): Promise<Row> =>
  (
    await storage.rows(
      `SELECT outcome, reason, (counts->>'filesSeen')::int AS seen, finished_at IS NOT NULL AS finished FROM runs WHERE vault_id = $1 AND run_id = $2`,
      [ref.vault, run],
    )
  )[0]!;
const leftOut = (ref: ArchiveRef, run: number): Promise<Row[]> =>
  storage.rows('SELECT path, reason, detail FROM run_skipped WHERE vault_id = $1 AND run_id = $2 ORDER BY path', [
    ref.vault,
    run,
  ]);

describe('a run begins with the last commit its agent saw acknowledged', () => {
  test('one the server knows is accepted; another id, or another seq, means that the server was set back', async () => {
    const ref = await newArchive(storage);
    const run = await newRun(storage, ref);
    await commit(storage, ref, run, [version('/a'), version('/b')]);
    const commitId = randomBytes(16);
    const { firstSeq } = await commit(storage, ref, run, [version('/c')], { commitId });
    expect(firstSeq).toBe(3);
    expect(await startRun(storage, ref, { lastCommit: { commitId, seq: 3 }, roots: [] })).toMatchObject({
      nextSeq: 4,
      purgeEpoch: 0,
    });
    expect(await startRun(storage, ref, { lastCommit: null, roots: [] })).toMatchObject({ nextSeq: 4 });
    for (const lastCommit of [
      { commitId, seq: 2 },
      { commitId: randomBytes(16), seq: 3 },
    ]) {
      await expect(startRun(storage, ref, { lastCommit, roots: [] })).rejects.toMatchObject({
        code: 'archive_rolled_back',
        extras: { field: 'lastCommit', nextSeq: 4, purgeEpoch: 0 },
      });
    }
  });

  test("another archive's commit is not known here", async () => {
    const mine = await newArchive(storage);
    const other = await newArchive(storage, mine.vault);
    const commitId = randomBytes(16);
    await commit(storage, other, await newRun(storage, other), [version('/a')], { commitId });
    await expect(startRun(storage, mine, { lastCommit: { commitId, seq: 1 }, roots: [] })).rejects.toMatchObject({
      code: 'archive_rolled_back',
    });
  });

  test('an archive that is not there, and one that is not active, take no run', async () => {
    const ref = await newArchive(storage);
    await expect(
      startRun(storage, { ...ref, archive: ref.archive + 999 }, { lastCommit: null, roots: [] }),
    ).rejects.toMatchObject({ code: 'not_found' });
    await storage.rows("UPDATE archives SET state = 'cold' WHERE vault_id = $1", [ref.vault]);
    await expect(startRun(storage, ref, { lastCommit: null, roots: [] })).rejects.toMatchObject({
      code: 'archive_not_active',
    });
  });
});

test('progress and the files left out are kept, once however often they are sent', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  for (let i = 0; i < 2; i++)
    await progressRun(storage, { ...ref, run }, { counts: counts(5), skipped: [left('/a', 'one\0two'), left('/b')] });
  expect(await runRow(ref, run)).toMatchObject({ seen: 5, finished: false });
  for (let i = 0; i < 2; i++)
    await finishRun(
      storage,
      { ...ref, run },
      { outcome: 'completed', reason: '', counts: counts(9), skipped: [left('/b'), left('/c')] },
    );
  expect(await runRow(ref, run)).toEqual({ outcome: 'completed', reason: '', seen: 9, finished: true });
  expect(await leftOut(ref, run)).toEqual([
    { path: Buffer.from('/a'), reason: 'unreadable', detail: 'one\ufffdtwo' },
    { path: Buffer.from('/b'), reason: 'unreadable', detail: 'permission denied' },
    { path: Buffer.from('/c'), reason: 'unreadable', detail: 'permission denied' },
  ]);
});

test('a run that has ended takes no progress and no other end', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  await finishRun(storage, { ...ref, run }, { outcome: 'failed', reason: 'no disk', counts: counts(0), skipped: [] });
  await expect(progressRun(storage, { ...ref, run }, { counts: counts(1), skipped: [] })).rejects.toMatchObject({
    code: 'run_finished',
  });
  await expect(
    finishRun(storage, { ...ref, run }, { outcome: 'completed', reason: '', counts: counts(1), skipped: [] }),
  ).rejects.toMatchObject({ code: 'run_finished' });
  await expect(
    progressRun(storage, { ...ref, run: run + 999 }, { counts: counts(1), skipped: [] }),
  ).rejects.toMatchObject({ code: 'not_found' });
  expect(await runRow(ref, run)).toMatchObject({ outcome: 'failed', reason: 'no disk' });
});

test('no more files left out are kept of one run than its bound', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  for (let at = 0; at < limits.runSkippedKeptMax + 500; at += limits.runSkippedMax) {
    const skipped = Array.from({ length: limits.runSkippedMax }, (_, i) => left(`/${at + i}`));
    await progressRun(storage, { ...ref, run }, { counts: counts(0), skipped });
  }
  expect(await leftOut(ref, run)).toHaveLength(limits.runSkippedKeptMax);
});

test('a new run ends the one before it, and one nothing was heard of for long is ended by the job', async () => {
  const ref = await newArchive(storage);
  const first = await newRun(storage, ref);
  const second = await newRun(storage, ref);
  expect(await runRow(ref, first)).toMatchObject({ outcome: 'interrupted' });
  await storage.rows("UPDATE runs SET progressed_at = now() - interval '2 hours' WHERE vault_id = $1 AND run_id = $2", [
    ref.vault,
    second,
  ]);
  await commit(storage, ref, second, [version('/a')]); // a sign of life
  expect(await abandonStaleRuns(storage, { olderThanMs: 3_600_000 })).toBe(0);
  await storage.rows("UPDATE runs SET progressed_at = now() - interval '2 hours' WHERE vault_id = $1 AND run_id = $2", [
    ref.vault,
    second,
  ]);
  expect(await abandonStaleRuns(storage, { olderThanMs: 3_600_000 })).toBe(1);
  expect(await runRow(ref, second)).toMatchObject({
    outcome: 'interrupted',
    reason: 'nothing was heard of it any more',
  });
});
