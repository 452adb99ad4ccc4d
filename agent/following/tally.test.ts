/** What the server is told of a restore: never what it would refuse, whatever was counted. */
import { describe, expect, test } from '@jest/globals';
import { CommandEndRequest, CommandProgressRequest } from '../../protocol/commands.ts';
import { limits } from '../../protocol/limits.ts';
import { decodeMessage, encodeMessage } from '../../protocol/wire.ts';
import type { RestoreProgress } from '../restore/types.ts';
import { addWhy, plainerEnd, Tally } from './tally.ts';

const attempt = Buffer.alloc(16, 1);
const { restoredFilesMax: filesMax, restoredBytesMax: bytesMax } = limits;
const asRead = (end: CommandEndRequest): CommandEndRequest => decodeMessage(CommandEndRequest, encodeMessage(end));

const progress = (files: number, bytes: number): RestoreProgress => ({
  filesSeen: files,
  bytesSeen: bytes,
  seenAll: false,
  filesDone: files,
  bytesDone: bytes,
  bytesFetched: bytes,
});

test('several places are added up', () => {
  const tally = new Tally();
  tally.see(progress(2, 20));
  tally.placeDone();
  tally.see(progress(1, 5));
  tally.see(progress(3, 7));
  expect(tally.progress).toEqual({ filesSeen: 5, filesDone: 5, bytesSeen: 27, bytesDone: 27, bytesFetched: 27 });
});

describe('numbers', () => {
  test.each([
    [filesMax, bytesMax],
    [filesMax + 1, bytesMax + 1],
    [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    [2 ** 60, 2 ** 60],
  ])('of %i files and %i bytes are told as the most that may be said', (files, bytes) => {
    const tally = new Tally();
    tally.see(progress(files, bytes));
    for (const name of Object.keys(tally.counts) as (keyof typeof tally.counts)[])
      tally.counts[name] = name.startsWith('bytes') ? bytes : files;
    const told = decodeMessage(CommandProgressRequest, encodeMessage({ attempt, ...tally.progress }));
    expect([told.filesSeen, told.filesDone, told.bytesSeen, told.bytesDone, told.bytesFetched]).toEqual([
      ...[filesMax, filesMax],
      ...[bytesMax, bytesMax, bytesMax],
    ]);
    const { counts } = asRead(tally.end(attempt, 'completed'));
    expect(counts).toEqual({
      ...{ filesRestored: filesMax, filesIdentical: filesMax, folders: filesMax, symlinks: filesMax },
      ...{ bytesRestored: bytesMax, bytesResumed: bytesMax, bytesFetched: bytesMax },
      ...{ problems: filesMax, notices: filesMax },
    });
  });
});

test('of the files left out it names the first, up to a hundred, or to a bound on their names', () => {
  const problem = (bytes: number) => ({ path: Buffer.alloc(bytes, 'a'), reason: 'block_missing', detail: '' }) as const;
  const [few, long] = [new Tally(), new Tally()];
  for (let i = 0; i < 101; i++) few.problem(problem(10));
  for (let i = 0; i < 101; i++) long.problem(problem(32 * 1024));
  expect([few.problems.length, long.problems.length]).toEqual([100, 8]);
});

describe('an end in fewer words', () => {
  const tally = new Tally();
  Object.assign(tally.counts, { filesRestored: 3, bytesRestored: 30, problems: 1 });
  tally.problem({ path: Buffer.from('/f'), reason: 'block_missing', detail: 'x' });
  const end = tally.end(attempt, 'incomplete', 'as it was');

  test('has no files by name; then no numbers; then there is none', () => {
    const plainer = plainerEnd(end, 'no good')!;
    expect(asRead(plainer)).toEqual({
      attempt,
      outcome: 'failed',
      counts: end.counts,
      problems: [],
      why: 'the server refuses what the device says of its end (incomplete; 3 files restored, 0 there already, 1 left out; as it was): no good',
    });
    const plainest = plainerEnd(plainer, 'still no good')!;
    expect(asRead(plainest)).toEqual({ ...plainer, counts: new Tally().end(attempt, 'failed').counts });
    expect(plainerEnd(plainest, 'never')).toBeNull();
  });

  test('of one that says nothing is one that has failed', () => {
    const cancelled = plainerEnd(new Tally().end(attempt, 'cancelled'), 'no good')!;
    expect(cancelled).toMatchObject({ outcome: 'failed', why: expect.stringContaining('(cancelled; 0 files') });
    expect(plainerEnd(cancelled, 'no good')).toBeNull();
  });

  test('keeps within what may be said', () => {
    const long = 'w'.repeat(limits.textMax);
    expect(asRead(plainerEnd({ ...end, why: long }, long)!).why).toHaveLength(limits.textMax);
    expect(asRead(addWhy({ ...end, why: long }, 'more')).why).toHaveLength(limits.textMax);
    expect([addWhy(end, 'more').why, addWhy({ ...end, why: '' }, 'more').why]).toEqual(['as it was; more', 'more']);
  });
});
