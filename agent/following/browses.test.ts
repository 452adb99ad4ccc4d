/** Looks into folders beside each other: a disk that does not answer takes no more than its share. */
import { expect, test } from '@jest/globals';
import type { BrowseCommand, CommandAnswerRequest } from '../../protocol/commands.ts';
import type { browseFolder } from './browse-folder.ts';
import { Browses } from './browses.ts';

const command = (id: number, path = '/'): BrowseCommand => ({
  id,
  kind: 'browse',
  path: Buffer.from(path),
  after: null,
  limit: 1,
});

const here = { platform: 'linux', homes: [] } as const;
const seen = (path: Buffer | null): CommandAnswerRequest => ({ path: path!, entries: [], next: null });

async function until(condition: () => boolean): Promise<void> {
  for (let left = 800; !condition(); left--) {
    if (left === 0) throw new Error(`it does not come to be: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Takes answers; those of `late` arrive when they are let. */
function server(late: readonly number[] = []) {
  const answers = new Map<number, CommandAnswerRequest>();
  const { promise: isLet, resolve: letThem } = Promise.withResolvers<void>();
  const answer = async (id: number, given: CommandAnswerRequest): Promise<void> => {
    if (late.includes(id)) await isLet;
    answers.set(id, given);
  };
  const of = async (id: number): Promise<CommandAnswerRequest> => {
    await until(() => answers.has(id));
    return answers.get(id)!;
  };
  return { commands: { answer }, answers, of, letThem };
}

test('a look that never ends is answered in time, frees its place, and keeps others from getting stuck as well', async () => {
  const { commands, of } = server();
  const { promise: disk, resolve: diskIsBack } = Promise.withResolvers<void>();
  const signals: AbortSignal[] = [];
  const look: typeof browseFolder = async ({ path }, _, signal) => {
    signals.push(signal!);
    if (path!.toString() === '/dead') await disk;
    return seen(path);
  };
  const browses = new Browses(commands, here, null, new AbortController().signal, { look, timeMs: 20 });
  browses.take(command(1, '/dead'));
  expect(await of(1)).toMatchObject({ fault: { code: 'failed', detail: expect.stringContaining('too long') } });
  expect(signals[0]!.aborted).toBe(true);
  await until(() => browses.idle);
  browses.take(command(2));
  expect(await of(2)).toMatchObject({ fault: { detail: expect.stringContaining('/dead: it does not answer yet') } });
  expect(signals).toHaveLength(1);
  diskIsBack();
  await new Promise(setImmediate);
  browses.take(command(3));
  expect(await of(3)).toEqual(seen(Buffer.from('/')));
  expect(signals[1]!.aborted).toBe(false);
});

test('of many that are asked for at once, one is looked into; what never answers holds up the others for its time only', async () => {
  const { commands, of } = server();
  const looked: string[] = [];
  const look: typeof browseFolder = async ({ path }) => {
    looked.push(String(path));
    return String(path) === '/fine' ? seen(path) : new Promise<never>(() => undefined);
  };
  const browses = new Browses(commands, here, null, new AbortController().signal, { look, timeMs: 20 });
  browses.take(command(1, '/fine'));
  for (let id = 2; id <= 9; id++) browses.take(command(id, '/dead'));
  expect(browses.idle).toBe(false);
  expect(await of(1)).toEqual(seen(Buffer.from('/fine')));
  for (let id = 3; id <= 9; id++)
    expect(await of(id)).toMatchObject({ fault: { detail: expect.stringContaining('does not answer yet') } });
  expect(looked).toEqual(['/fine', '/dead']);
  await until(() => browses.idle);
});

test('what is refused takes its turn, and lets the next one have it', async () => {
  const { commands, of, letThem } = server([1, 2, 3, 4]);
  const look: typeof browseFolder = async ({ path }) => seen(path);
  const browses = new Browses(commands, here, null, new AbortController().signal, { look });
  for (const id of [1, 2, 3, 4]) browses.refuse(id, 'not understood');
  browses.take(command(5));
  browses.take(command(5));
  letThem();
  expect(await of(4)).toEqual({ fault: { code: 'failed', detail: 'not understood' } });
  expect(await of(5)).toEqual(seen(Buffer.from('/')));
});

test('one that waits is something to do', async () => {
  const { commands, answers, letThem } = server([1]);
  const look: typeof browseFolder = async ({ path }) => seen(path);
  const browses = new Browses(commands, here, null, new AbortController().signal, { look });
  browses.refuse(1, 'not understood');
  browses.take(command(2));
  const idleWith: number[] = [];
  const watching = until(() => {
    if (browses.idle) idleWith.push(answers.size);
    return browses.idle;
  });
  letThem();
  await watching;
  expect(idleWith).toEqual([2]);
});

test('when the agent ends, those that wait are not looked into any more', async () => {
  const stop = new AbortController();
  const { commands, letThem, of } = server([1]);
  const looked: number[] = [];
  const look: typeof browseFolder = async ({ path }, _, signal) => {
    looked.push(looked.length);
    expect(signal!.aborted).toBe(false);
    return seen(path);
  };
  const browses = new Browses(commands, here, null, stop.signal, { look });
  browses.take(command(1));
  browses.take(command(2));
  stop.abort();
  letThem();
  await of(1);
  await new Promise(setImmediate);
  expect(looked).toHaveLength(1);
});
