import { describe, expect, test } from '@jest/globals';
import type { Problem } from '../../protocol/problems.ts';
import { ByteBudget } from './budget.ts';
import type { BudgetAccount } from './budget-account.ts';
import { budgetDefaults } from './settings.ts';

const MiB = 1024 * 1024;

/** A budget on a clock of its own; `pass` moves it and sweeps as the timer would. */
function makeBudget(settings: Partial<typeof budgetDefaults> = {}) {
  let now = 0;
  const budget = new ByteBudget(
    { ...budgetDefaults, totalBytes: 64 * MiB, bodyBytesMax: 32 * MiB, ...settings },
    () => now,
  );
  const pass = (ms: number): void => {
    for (let passed = 0; passed < ms; passed += 100) {
      now += Math.min(100, ms - passed);
      budget.sweep();
    }
  };
  const open = async (expected: number, device: number | null = null, windowBytes = 256 * 1024) => {
    const account = await budget.open(expected, windowBytes);
    account.device = device;
    budget.receiving(account);
    return account;
  };
  const send = (account: BudgetAccount, bytes: number): boolean => {
    budget.arrived(account, bytes);
    return budget.tryCharge(account, bytes);
  };
  return { budget, pass, open, send };
}

const outcome = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'granted',
    (problem: Problem) => problem.code,
  );

/** Whether a promise is settled, without waiting for it. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const settle = (): void => {
    settled = true;
  };
  promise.then(settle, settle);
  await new Promise((resolve) => setImmediate(resolve));
  return settled;
}

describe('room', () => {
  test('never more than the budget is held, and all of it can be', async () => {
    const { budget, open } = makeBudget();
    const [a, b] = [await open(32 * MiB), await open(32 * MiB)];
    expect(budget.tryCharge(a, 32 * MiB)).toBe(true);
    expect(budget.tryCharge(b, 32 * MiB)).toBe(true);
    expect(budget.heldBytes).toBe(64 * MiB);
    const c = await open(MiB);
    expect(budget.tryCharge(c, 1)).toBe(false);
    budget.close(a);
    expect(budget.tryCharge(c, MiB)).toBe(true);
    budget.close(a);
    expect(budget.heldBytes).toBe(33 * MiB);
  });

  test('a charge after which no open body could end is not granted', async () => {
    const { budget, open } = makeBudget();
    const [a, b, c] = [await open(32 * MiB), await open(32 * MiB), await open(32 * MiB)];
    expect(budget.tryCharge(a, 20 * MiB)).toBe(true);
    expect(budget.tryCharge(b, 20 * MiB)).toBe(true);
    expect(budget.tryCharge(c, 12 * MiB)).toBe(true);
    expect(budget.tryCharge(c, 1)).toBe(false); // 12 MiB are left, and that is what each of the others needs
    expect(budget.tryCharge(b, 12 * MiB)).toBe(true);
    budget.close(b);
    expect(budget.tryCharge(c, 20 * MiB)).toBe(true);
  });

  test('a budget too small for one body is refused at the start', () => {
    expect(() => makeBudget({ totalBytes: 32 * MiB - 1 })).toThrow(RangeError);
    expect(() => makeBudget({ totalBytes: 32 * MiB })).not.toThrow();
  });

  test('a device alone may have everything; beside another no more than its share, but for the body that needs least', async () => {
    const { budget, open } = makeBudget({ deviceBytes: 24 * MiB, bodyBytesMax: 16 * MiB });
    const mine = [await open(16 * MiB, 1), await open(16 * MiB, 1), await open(16 * MiB, 1)];
    for (const account of mine) expect(budget.tryCharge(account, 10 * MiB)).toBe(true);
    expect(budget.tryCharge(mine[0]!, 1 * MiB)).toBe(true);
    const other = await open(16 * MiB, 2);
    expect(budget.tryCharge(mine[1]!, MiB)).toBe(false);
    expect(budget.tryCharge(mine[0]!, 5 * MiB)).toBe(true);
    expect(budget.tryCharge(other, 16 * MiB)).toBe(true);
  });

  test('what stream windows may hold is taken off, but one body always has room', async () => {
    const { budget, open } = makeBudget({ bodyBytesMax: 16 * MiB });
    const [first, second, third] = [await open(16 * MiB), await open(16 * MiB), await open(16 * MiB)];
    expect(budget.tryCharge(first, 15 * MiB)).toBe(true);
    expect(budget.tryCharge(second, 14 * MiB)).toBe(true);
    const others = [];
    for (let i = 0; i < 150; i++) others.push(await open(16 * MiB)); // 38 MiB of windows
    expect(budget.tryCharge(third, 1)).toBe(false);
    expect(budget.tryCharge(first, MiB)).toBe(true);
    budget.received(first);
    expect(budget.tryCharge(second, 2 * MiB)).toBe(true);
    for (const other of others) budget.close(other);
    expect(budget.tryCharge(third, 16 * MiB)).toBe(true);
  });

  test('stream windows are bounded too: bodies past them wait, then are refused', async () => {
    const { budget, pass, open } = makeBudget({ totalBytes: 2 * MiB, bodyBytesMax: MiB });
    for (let i = 0; i < 8; i++) await open(MiB); // 8 x 256 KiB
    const late = outcome(budget.open(MiB, 256 * 1024));
    pass(900);
    expect(await isSettled(late)).toBe(false);
    pass(200);
    // All eight have sent nothing for over a second: they go first, and one of them is enough.
    expect(budget.resets).toBe(1);
  });
});

describe('waiting', () => {
  test('half-sent uploads that fill the budget all end, whichever order their bytes come in', async () => {
    for (let seed = 1; seed <= 200; seed++) {
      let state = seed;
      const random = (below: number): number => {
        state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
        return Math.floor((state / 2 ** 32) * below);
      };
      // No clock runs, so nothing is refused or reset: all must end by room alone.
      const { budget, open } = makeBudget({ totalBytes: 64, bodyBytesMax: 33, deviceBytes: 32 });
      const left = new Map<BudgetAccount, number>();
      for (let i = 0; i < 12; i++) left.set(await open(1 + random(33), random(3), 1), 0);
      for (const account of left.keys()) left.set(account, account.expectedBytes);
      let steps = 0;
      while (left.size > 0) {
        expect(++steps).toBeLessThan(20_000);
        const accounts = [...left.keys()];
        const account = accounts[random(accounts.length)]!;
        const bytes = Math.min(1 + random(8), left.get(account)!);
        if (!budget.tryCharge(account, bytes)) continue;
        expect(budget.heldBytes).toBeLessThanOrEqual(64);
        left.set(account, left.get(account)! - bytes);
        if (left.get(account) === 0) {
          budget.received(account);
          left.delete(account);
          budget.close(account); // stored
        }
      }
      expect(budget.heldBytes).toBe(0);
      expect(budget.windowBytes).toBe(0);
    }
  });

  test('a charge is granted as soon as there is room, the oldest body first', async () => {
    const { budget, open } = makeBudget();
    const [a, b, c] = [await open(6 * MiB, 1, 0), await open(32 * MiB, 1, 0), await open(32 * MiB, 1, 0)];
    budget.tryCharge(b, 26 * MiB);
    budget.tryCharge(a, 6 * MiB);
    budget.received(a);
    const d = await open(32 * MiB, 1, 0);
    budget.tryCharge(c, 26 * MiB);
    budget.received(c);
    budget.tryCharge(d, 6 * MiB);
    expect(budget.heldBytes).toBe(64 * MiB);
    const forD = budget.charge(d, MiB);
    const forB = budget.charge(b, 6 * MiB);
    budget.close(a);
    expect(await isSettled(forB)).toBe(true);
    expect(await isSettled(forD)).toBe(false);
    budget.close(c);
    expect(await isSettled(forD)).toBe(true);
  });

  test('who has delivered little is refused after a second, who has delivered for long after as long', async () => {
    const { budget, pass, open, send } = makeBudget({ rateBytesPerSecondMin: 0 });
    const full = await open(32 * MiB);
    send(full, 32 * MiB);
    budget.received(full);
    const long = await open(32 * MiB);
    for (let second = 0; second < 5; second++) {
      send(long, 6 * MiB);
      pass(1_000);
    }
    const stored = await open(MiB);
    send(stored, MiB);
    budget.received(stored);
    const fresh = await open(32 * MiB);
    const forLong = outcome(budget.charge(long, 2 * MiB));
    const forFresh = outcome(budget.charge(fresh, 2 * MiB));
    pass(1_000);
    expect(await forFresh).toBe('overloaded');
    expect(await isSettled(forLong)).toBe(false);
    pass(4_100);
    expect(await forLong).toBe('overloaded');
  });

  test('a patient one waits as long as any, and no longer, however little it has delivered', async () => {
    const { budget, pass, open, send } = makeBudget();
    for (let i = 0; i < 2; i++) {
      const stored = await open(32 * MiB);
      send(stored, 32 * MiB);
      budget.received(stored);
    }
    const patient = await budget.open(MiB, 256 * 1024, { isPatient: true });
    budget.receiving(patient);
    const waiting = outcome(budget.charge(patient, 1));
    pass(budgetDefaults.waitMsMax - 100);
    expect(await isSettled(waiting)).toBe(false);
    expect(patient.heldBytes).toBe(0);
    pass(100);
    expect(await waiting).toBe('overloaded');
  });

  /** Both halves of it are stored, and stay. */
  const full = async () => {
    const world = makeBudget();
    for (let i = 0; i < 2; i++) {
      const stored = await world.open(32 * MiB);
      world.send(stored, 32 * MiB);
      world.budget.received(stored);
    }
    const openPatient = async (device: number, windowBytes = 256 * 1024): Promise<BudgetAccount> => {
      const account = await world.budget.open(16 * MiB, windowBytes, { isPatient: true });
      account.device = device;
      world.budget.receiving(account);
      return account;
    };
    return { ...world, openPatient };
  };

  test('patient ones leave half of the windows to others, who are opened', async () => {
    const { budget, pass, open, openPatient } = await full();
    const waits: Promise<string>[] = [];
    for (let i = 0; i < 256; i++) {
      const account = await openPatient(i);
      const wait = budget.charge(account, 1);
      wait.catch(() => budget.close(account)); // the request unwinds
      waits.push(outcome(wait));
    }
    expect(budget.windowBytes).toBe(64 * MiB);
    pass(1_100);
    expect(await Promise.all(waits.slice(128))).toEqual(Array(128).fill('overloaded'));
    for (const wait of waits.slice(0, 128)) expect(await isSettled(wait)).toBe(false);
    for (let i = 0; i < 128; i++) await open(MiB, 1_000 + i);
  });

  test('of one device eight wait long, and the ninth as anybody', async () => {
    const { budget, pass, openPatient } = await full();
    const waits: Promise<string>[] = [];
    for (let i = 0; i < 9; i++) waits.push(outcome(budget.charge(await openPatient(1), 1)));
    const other = outcome(budget.charge(await openPatient(2), 1));
    pass(1_100);
    expect(await waits[8]).toBe('overloaded');
    for (const wait of [...waits.slice(0, 8), other]) expect(await isSettled(wait)).toBe(false);
  });

  test('who cannot wait goes before those who can and hold nothing, not before those who hold some', async () => {
    const world = makeBudget();
    const { budget, open, send } = world;
    const [a, b] = [await open(32 * MiB), await open(30 * MiB)];
    const openPatient = async (device: number) => {
      const account = await budget.open(16 * MiB, 256 * 1024, { isPatient: true });
      account.device = device;
      budget.receiving(account);
      return account;
    };
    const [holds, empty] = [await openPatient(1), await openPatient(2)];
    expect([send(holds, MiB), send(a, 32 * MiB), send(b, 30 * MiB)]).toEqual([true, true, true]);
    for (const account of [a, b]) budget.received(account);
    const order: string[] = [];
    const wait = (name: string, account: BudgetAccount): void =>
      void budget.charge(account, 6 * MiB).then(() => order.push(name));
    wait('empty', empty);
    wait('holds', holds);
    wait('agent', await open(12 * MiB, 3));
    budget.close(a);
    await new Promise((resolve) => setImmediate(resolve));
    expect(order).toEqual(['holds', 'agent', 'empty']);
  });

  test('a client that is gone already waits for nothing', async () => {
    const { budget, openPatient } = await full();
    for (let i = 0; i < 255; i++) await openPatient(i);
    const gone = AbortSignal.abort();
    expect(await outcome(budget.open(16 * MiB, 64 * MiB, { signal: gone, isPatient: true }))).toBe('request_timeout');
    expect(budget.waiters).toBe(0);
  });

  test('a wait ends with the request', async () => {
    const { budget, open } = makeBudget();
    const [a, b, c] = [await open(32 * MiB), await open(32 * MiB), await open(32 * MiB)];
    budget.tryCharge(a, 32 * MiB);
    budget.tryCharge(b, 32 * MiB);
    const waiting = outcome(budget.charge(c, 1));
    budget.close(c);
    expect(await waiting).toBe('overloaded');
    expect(budget.waiters).toBe(0);
  });
});

describe('slow senders', () => {
  const fill = async (senders: number, eachBytes: number) => {
    const world = makeBudget();
    const ended: string[] = [];
    const slow: BudgetAccount[] = [];
    for (let i = 0; i < senders; i++) {
      const account = await world.open(32 * MiB, i);
      account.onEnd = (reason) => {
        ended.push(reason.code);
        setImmediate(() => world.budget.close(account)); // the request unwinds
      };
      world.send(account, eachBytes);
      slow.push(account);
    }
    return { ...world, ended, slow };
  };

  test('are left alone while there is room', async () => {
    const { pass, ended } = await fill(10, MiB);
    pass(5_000);
    expect(ended).toEqual([]);
  });

  test('are reset when a fast one needs their room, as few as it takes', async () => {
    const { budget, pass, open, ended } = await fill(33, MiB);
    pass(2_000);
    const fast = await open(32 * MiB, 99);
    expect(budget.tryCharge(fast, 8 * MiB)).toBe(false);
    const granted = outcome(budget.charge(fast, 8 * MiB));
    expect(ended).toEqual(['request_timeout']);
    expect(await granted).toBe('granted');
  });

  test('have a second of grace', async () => {
    const { budget, pass, open, ended } = await fill(33, MiB);
    pass(900);
    const fast = await open(32 * MiB, 99);
    const granted = outcome(budget.charge(fast, 8 * MiB));
    expect(ended).toEqual([]);
    pass(400);
    expect(await granted).toBe('granted');
    expect(ended.length).toBeGreaterThan(0);
  });

  test('are judged by the last second, not by how they began', async () => {
    const { budget, pass, open, send } = makeBudget();
    const ended: string[] = [];
    const stalled = await open(32 * MiB, 1);
    stalled.onEnd = (reason) => {
      ended.push(reason.code);
      setImmediate(() => budget.close(stalled));
    };
    send(stalled, 30 * MiB);
    pass(2_500);
    const fast = await open(32 * MiB, 2);
    send(fast, 32 * MiB);
    budget.received(fast);
    const third = await open(32 * MiB, 3);
    const granted = outcome(budget.charge(third, 3 * MiB));
    expect(ended).toEqual(['request_timeout']);
    expect(await granted).toBe('granted');
  });

  test('are cut after 30 seconds of silence, room or not', async () => {
    const { budget, pass, open, send } = makeBudget();
    const ended: string[] = [];
    const silent = await open(MiB);
    silent.onEnd = (reason) => ended.push(reason.code);
    pass(29_000);
    send(silent, 1);
    pass(29_900);
    expect(ended).toEqual([]);
    pass(200);
    expect(ended).toEqual(['request_timeout']);
    budget.close(silent);
  });

  test('may take the base time and that of their length, and no longer', async () => {
    const { budget, pass, open, send } = makeBudget();
    const ended: string[] = [];
    const dripping = await open(16 * 1024 * 10); // 10 s at 16 KiB/s
    dripping.onEnd = (reason) => ended.push(reason.code);
    for (let second = 0; second < 39; second++) {
      pass(1_000);
      send(dripping, 1);
    }
    expect(ended).toEqual([]);
    pass(1_100);
    expect(ended).toEqual(['request_timeout']);
    budget.close(dripping);
  });
});
