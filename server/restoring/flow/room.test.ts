/** The memory that restores share: nobody is left out, nobody's slow reader keeps others from going on. */
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { seededRandom } from '../../../tests/helpers/random.ts';
import { type Holding, Room } from './room.ts';

const MiB = 1024 * 1024;
const { signal } = new AbortController();

interface Member {
  holding: { held: number };
  leave: () => void;
}
const enter = (room: Room, count: number): Member[] => Array.from({ length: count }, () => room.enter());

/** Whether it gets it now; what it waits for otherwise. */
async function ask(room: Room, { holding }: Member, bytes: number, ends = signal) {
  const asked = { got: false, done: Promise.resolve() };
  asked.done = room.take(holding, bytes, ends).then(() => {
    asked.got = true;
  });
  asked.done.catch(() => {});
  await turn();
  return asked;
}

test('one alone reads ahead up to half of it; each that comes makes the share smaller', async () => {
  const room = new Room(64 * MiB);
  const [one] = enter(room, 1);
  expect(room.shareBytes).toBe(32 * MiB);
  expect((await ask(room, one!, 32 * MiB)).got).toBe(true);
  expect((await ask(room, one!, 1)).got).toBe(false);
  const others = enter(room, 3);
  expect(room.shareBytes).toBe(Math.floor((64 * MiB) / 5));
  for (const other of others) expect((await ask(room, other, 8 * MiB)).got).toBe(true);
  enter(room, 200);
  expect(room.shareBytes).toBe(MiB);
});

test('who holds nothing comes before those who read ahead, however little these want', async () => {
  const room = new Room(64 * MiB);
  const [ahead, big, other] = enter(room, 3) as [Member, Member, Member];
  await ask(room, ahead, 16 * MiB);
  await ask(room, other, 16 * MiB);
  const first = await ask(room, big, 20 * MiB); // 32 are free, of which 16 stay
  expect(first.got).toBe(false);
  room.giveBack(ahead.holding, 2 * MiB);
  const more = await ask(room, ahead, 1);
  expect([first.got, more.got]).toEqual([false, false]);
  room.giveBack(ahead.holding, 2 * MiB);
  await turn();
  expect([first.got, more.got]).toEqual([true, true]);
});

test('those that need much take turns, in the order in which they asked, and who needs little passes them', async () => {
  const room = new Room(64 * MiB);
  const members = enter(room, 7);
  const [a, b, c, d] = members as [Member, Member, Member, Member];
  expect((await ask(room, a, 40 * MiB)).got).toBe(true);
  const second = await ask(room, b, 30 * MiB);
  const third = await ask(room, c, 9 * MiB); // more than a share: it would fit, but not before its turn
  expect([second.got, third.got]).toEqual([false, false]);
  expect((await ask(room, d, 8 * MiB)).got).toBe(true);
  room.giveBack(a.holding, 40 * MiB);
  await turn();
  expect([second.got, third.got]).toEqual([true, true]);
});

test('however much slow readers hold, a quarter is left for those who need little', async () => {
  const room = new Room(64 * MiB);
  const slow = enter(room, 100);
  for (const member of slow) await ask(room, member, 16 * MiB);
  expect(room.freeBytes).toBe(16 * MiB);
  for (const quick of enter(room, 16)) expect((await ask(room, quick, MiB)).got).toBe(true);
  expect(room.freeBytes).toBe(0);
  const last = enter(room, 1)[0]!;
  expect((await ask(room, last, 1)).got).toBe(false);
});

test('what is more than all of it is given to one that is alone with it', async () => {
  const room = new Room(8 * MiB);
  const [one, other] = enter(room, 2) as [Member, Member];
  await ask(room, other, 1);
  const all = await ask(room, one, 9 * MiB);
  expect(all.got).toBe(false);
  room.giveBack(other.holding, 1);
  await turn();
  expect(all.got).toBe(true);
  expect(room.freeBytes).toBe(-MiB);
  expect((await ask(room, other, 1)).got).toBe(false);
});

test('one that is stopped while it waits leaves its turn to the next', async () => {
  const room = new Room(64 * MiB);
  const [a, b, c] = enter(room, 3) as [Member, Member, Member];
  await ask(room, a, 40 * MiB);
  const stop = new AbortController();
  const second = await ask(room, b, 48 * MiB, stop.signal);
  room.giveBack(a.holding, 8 * MiB);
  const third = await ask(room, c, 16 * MiB);
  await turn();
  expect(third.got).toBe(true); // no more than a share: it passes
  room.giveBack(c.holding, 16 * MiB);
  const fourth = await ask(room, c, 16 * MiB + 1);
  expect(fourth.got).toBe(false);
  stop.abort(new Error('gone'));
  await expect(second.done).rejects.toThrow('gone');
  await turn();
  expect([fourth.got, b.holding.held]).toEqual([false, 0]);
  room.giveBack(a.holding, 32 * MiB);
  await turn();
  expect(fourth.got).toBe(true);
  await expect(room.take(b.holding, 1, AbortSignal.abort(new Error('before')))).rejects.toThrow('before');
});

test('one that waits to read ahead, is stopped, and gives back all it holds in the same turn, is given nothing', async () => {
  const room = new Room(4 * MiB);
  const [one, other] = enter(room, 2) as [Member, Member];
  await ask(room, other, 3 * MiB);
  await ask(room, one, MiB);
  const stop = new AbortController();
  const ahead = await ask(room, one, MiB, stop.signal);
  expect(ahead.got).toBe(false);
  stop.abort(new Error('gone'));
  room.giveBack(one.holding, MiB);
  await expect(ahead.done).rejects.toThrow('gone');
  expect([one.holding.held, room.freeBytes]).toEqual([0, MiB]);
});

describe('sixty that come and go, most of them stopped at any moment', () => {
  test.each([1, 2, 3, 4, 5, 6])('leave nothing taken (%i)', async (seed) => {
    const random = seededRandom(seed);
    const totalBytes = 32 * MiB;
    const room = new Room(totalBytes);
    const members = new Set<Holding>();
    let [stopped, served] = [0, 0];
    // As whoever reads: the next is asked for while the one before is sent.
    const visit = async (): Promise<void> => {
      const { holding, leave } = room.enter();
      members.add(holding);
      const stop = new AbortController();
      const ask = (): Promise<number> => {
        const bytes = 1 + random.below(random.chance(0.1) ? 12 * MiB : MiB);
        const taken = room.take(holding, bytes, stop.signal).then(() => bytes);
        taken.catch(() => {});
        return taken;
      };
      let next = ask();
      let sending = 0;
      for (let left = random.below(12); left > 0 && !random.chance(0.2); left--) {
        sending = await next;
        next = ask();
        if (random.chance(0.5)) await turn();
        if (random.chance(0.2)) break;
        room.giveBack(holding, sending);
        sending = 0;
      }
      // What is being sent is given back in the turn of the stopping, and what was on its way when it has come.
      stop.abort(new Error('gone'));
      room.giveBack(holding, sending);
      const came = await next.catch(() => 0);
      room.giveBack(holding, came);
      if (came > 0) served++;
      else stopped++;
      expect(holding.held).toBe(0);
      members.delete(holding);
      leave();
    };
    const visitor = async (): Promise<void> => {
      for (let i = 0; i < 20; i++) {
        await visit();
        const held = [...members].reduce((sum, each) => sum + each.held, 0);
        expect(held + room.freeBytes).toBe(totalBytes);
        expect(room.freeBytes).toBeGreaterThanOrEqual(0);
      }
    };
    await Promise.all(Array.from({ length: 60 }, visitor));
    expect([room.freeBytes, room.shareBytes]).toEqual([totalBytes, totalBytes]);
    expect(Math.min(stopped, served)).toBeGreaterThan(10);
  });
});

describe('a hundred with work of all sizes', () => {
  test.each([1, 2, 3, 4])('get all of it done, within bounds (%i)', async (seed) => {
    let state = seed;
    const random = (below: number): number => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state % below;
    };
    const room = new Room(64 * MiB);
    let done = 0;
    const work = async (): Promise<void> => {
      const member = room.enter();
      const held: number[] = [];
      for (let i = 0; i < 40; i++) {
        const bytes = 1 + random(random(10) === 0 ? 24 * MiB : 2 * MiB);
        // What is written gives its room back meanwhile, in whatever turn.
        const written = turn().then(() => {
          const oldest = held.shift();
          if (oldest !== undefined) room.giveBack(member.holding, oldest);
        });
        await room.take(member.holding, bytes, signal);
        held.push(bytes);
        expect(room.freeBytes).toBeGreaterThanOrEqual(0);
        await written;
        while (held.length > 3) room.giveBack(member.holding, held.shift()!);
        if (random(3) === 0) await turn();
      }
      room.giveBack(member.holding, member.holding.held);
      member.leave();
      done++;
    };
    const writers = Array.from({ length: 100 }, work);
    await Promise.all(writers);
    expect([done, room.freeBytes]).toEqual([100, 64 * MiB]);
    expect(room.shareBytes).toBe(64 * MiB);
  });
});
