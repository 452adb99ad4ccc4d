/** Rounds of plans, and the loop around them, on real files and against a server in memory; the clock is the test's. */
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { PlanMessage } from '../../../protocol/messages.ts';
import { Problem } from '../../../protocol/problems.ts';
import { TestBackup } from '../../backup/test-backup.ts';
import { untouchedBelow } from '../../files/path-rules.ts';
import { type KeptPlans, readKeptPlans, withAnswer } from '../../plans/kept-plans.ts';
import { planKey } from '../../plans/read-plan.ts';
import type { BackupRules } from '../backup-run.ts';
import type { Output } from '../output.ts';
import { watchErrors } from './follow.ts';
import { type PlanResult, runRound } from './round.ts';
import { askEveryMs, type Clock, plansDue, watchPlans } from './watch-plans.ts';

let world: TestBackup;
let notes: string[];
let events: Record<string, unknown>[];

beforeEach(async () => {
  world = await TestBackup.start();
  notes = [];
  events = [];
  for (const name of [
    'documents/a.txt',
    'documents/a.iso',
    'documents/music/b.mp3',
    'documents/music/b.txt',
    'pictures/c',
  ])
    write(name);
});
afterEach(() => world.close());

const rules: BackupRules = { exclude: [], excludeDefaults: false, excludeCaches: false, oneFileSystem: true };
const place = (name: string): string => join(world.root, name);
const here = () => ({ platform: 'linux' as const, home: world.root, homes: [world.root] });

function write(name: string, text = name): void {
  mkdirSync(join(place(name), '..'), { recursive: true });
  writeFileSync(place(name), text);
}

function backupWorld() {
  const output: Output = {
    json: false,
    terminal: false,
    say: () => undefined,
    note: (line) => notes.push(line),
    emit: (event, fields) => events.push({ event, ...fields }),
  };
  const { client, cache, registration, folder } = world;
  return { client, cache, registration, home: join(folder, 'home'), output };
}

function plan(name: string, include: string[], more: Partial<PlanMessage> = {}): PlanMessage {
  const from = { kind: 'organization', name: 'Sales' } as const;
  return {
    name,
    include: include.map((each) => `~/${each}`),
    exclude: [],
    everyMinutes: 60,
    windows: [],
    from,
    ...more,
  };
}
const ofDevice = { from: { kind: 'device', name: 'laptop' } } as const;

let kept: KeptPlans;
/** Runs those of the plans that `due` names; without it all. */
async function round(plans: PlanMessage[], due = plans.map(planKey)): Promise<PlanResult['outcome'][]> {
  kept = withAnswer(readKeptPlans(backupWorld().home, world.registration), { plans, etag: null }, 0);
  const results = await runRound(backupWorld(), kept, new Set(due), rules, {
    signal: new AbortController().signal,
    here: here(),
    now: () => 1_000,
    quiet: true,
    onError: (error) => {
      throw error;
    },
  });
  return results.map(({ outcome }) => outcome);
}

/** The files that the archive shows now, below the root. */
const stored = (): string[] =>
  [...world.server.state().values()]
    .filter(({ kind }) => kind === 'file')
    .map(({ path }) => path.toString().slice(world.root.length + 1))
    .sort();
const runs = () => events.filter(({ event }) => event === 'end').map(({ filesSeen }) => filesSeen);
const deletions = (): number => world.server.versions.filter(({ deleted }) => deleted).length;

describe('plans that are due together', () => {
  test('are run one after the other, in their order, and each has a run of its own', async () => {
    expect(await round([plan('z', ['pictures']), plan('a', ['documents'])])).toEqual(['completed', 'completed']);
    expect(events.filter(({ event }) => event === 'start').map(({ plan }) => plan)).toEqual(['z', 'a']);
    expect(stored()).toHaveLength(5);
    expect(world.server.runs).toHaveLength(2);
  });

  test('go once through a folder that they share, and leave out what both leave out', async () => {
    const one = plan('one', ['documents'], { exclude: ['*.iso', '*.mp3'] });
    const two = plan('two', ['documents', 'pictures'], { exclude: ['*.mp3', 'a.txt'] });
    expect(await round([one, two])).toEqual(['completed', 'completed']);
    expect(stored()).toEqual(['documents/a.iso', 'documents/a.txt', 'documents/music/b.txt', 'pictures/c']);
    expect(runs()).toEqual([3, 1]);
  });

  test('of which one alone is due follow its own rules', async () => {
    const one = plan('one', ['documents'], { exclude: ['*.iso'] });
    const nights = plan('two', ['documents']);
    await round([one, nights], ['one']);
    expect(stored()).not.toContain('documents/a.iso');
    await round([one, nights], ['two']);
    expect(stored()).toContain('documents/a.iso');
    await round([one, nights], ['one']);
    expect([stored().includes('documents/a.iso'), deletions()]).toEqual([true, 0]);
  });
});

describe('deletions', () => {
  const outer = plan('outer', ['documents']);
  const inner = plan('inner', ['documents/music']);

  test("are found by the plan whose folder is nearest, and by no other's run", async () => {
    await round([outer, inner]);
    rmSync(place('documents/music/b.mp3'));
    rmSync(place('documents/a.iso'));
    await round([outer, inner], ['outer']);
    expect(stored()).toEqual(['documents/a.txt', 'documents/music/b.mp3', 'documents/music/b.txt']);
    await round([outer, inner], ['inner']);
    expect(stored()).toEqual(['documents/a.txt', 'documents/music/b.txt']);
  });

  test("are not made by a run above a disk that is not mounted, be its plan's folder empty or away", async () => {
    await round([outer, inner]);
    rmSync(place('documents/music'), { recursive: true });
    expect(await round([outer, inner])).toEqual(['completed', 'nothing']);
    mkdirSync(place('documents/music'));
    expect(await round([outer, inner])).toEqual(['completed', 'failed']); // it held files
    expect(deletions()).toBe(0);
    expect(stored()).toContain('documents/music/b.mp3');
  });

  test('are not made below a folder that was reached by a link which leads nowhere now, until no plan names it', async () => {
    write('documents/disk/music/d');
    symlinkSync(place('documents/disk'), place('link'));
    const linked = plan('linked', ['link/music']);
    await round([outer, linked]);
    rmSync(place('documents/disk'), { recursive: true });
    for (let time = 0; time < 2; time++) {
      expect(await round([outer, linked])).toEqual(['completed', 'nothing']);
      expect(stored()).toContain('documents/disk/music/d');
    }
    await round([outer]);
    expect(stored()).not.toContain('documents/disk/music/d');
    expect(kept.places).toEqual(new Map([[place('documents'), place('documents')]]));
  });

  test.each([
    ['linux', false],
    ['darwin', true],
    ['win32', true],
  ] as const)('are left to others whatever the case of a folder that is gone, on %s: %s', (platform, anyCase) => {
    const untouched = ['/users/Ärger', '/USERS'].map((path) => Buffer.from(path));
    const isUntouched = untouchedBelow(Buffer.from('/Users'), untouched, platform);
    expect(isUntouched(Buffer.from('/Users/a\u0308rger/x'.normalize('NFC')))).toBe(anyCase);
    expect(isUntouched(Buffer.from('/Users/ärger2'))).toBe(false);
  });

  test('are made below a folder that is missing inside of another of the same plan by nobody', async () => {
    const both = plan('both', ['documents', 'documents/music']);
    await round([both]);
    rmSync(place('documents/music'), { recursive: true });
    expect(await round([both])).toEqual(['completed']);
    expect(deletions()).toBe(0);
  });

  test('are of one plan again when the other is gone', async () => {
    await round([outer, inner]);
    rmSync(place('documents/music/b.mp3'));
    await round([outer]);
    expect(stored()).not.toContain('documents/music/b.mp3');
  });

  test('a plan that shrinks makes none', async () => {
    const wide = plan('p', ['documents', 'pictures']);
    await round([wide]);
    const before = stored();
    await round([plan('p', ['documents'], { exclude: ['*.iso', 'music/'] })]);
    await round([plan('p', ['documents/music'], { exclude: ['*'] })]);
    await round([plan('q', ['pictures'], { exclude: ['c'] })]);
    await round([]);
    expect([stored(), deletions()]).toEqual([before, 0]);
  });
});

describe('a folder that is not on this device', () => {
  test('is told once where the plan is for many, and again when it was there in between', async () => {
    const names = plan('p', ['documents', 'videos'], {});
    const told = (): number => events.filter(({ event }) => event === 'plan_folder_missing').length;
    expect(await round([names])).toEqual(['completed']);
    expect(await round([names])).toEqual(['completed']);
    expect(told()).toBe(1);
    write('videos/d');
    await round([names]);
    expect(stored()).toContain('videos/d');
    rmSync(place('videos'), { recursive: true });
    await round([names]);
    expect([told(), deletions()]).toEqual([2, 0]);
  });

  test("fails the run of the device's own plan, which backs up the rest", async () => {
    expect(await round([plan('p', ['documents', 'videos'], ofDevice)])).toEqual(['failed']);
    expect(stored()).toContain('documents/a.txt');
    expect(world.server.runs.at(-1)!.finish).toMatchObject({
      outcome: 'failed',
      reason: expect.stringContaining('videos'),
    });
  });

  test('and the only one: nothing is sent', async () => {
    expect(await round([plan('p', ['videos'])])).toEqual(['nothing']);
    expect(world.server.versions).toEqual([]);
  });
});

test('where no plan finds anything the server is told once, and again when something was there in between', async () => {
  const one = plan('typo', ['documnets']);
  const failed = () => world.server.runs.filter(({ finish }) => finish?.outcome === 'failed').map((run) => run.finish);
  for (let time = 0; time < 2; time++) expect(await round([one])).toEqual(['nothing']);
  expect(failed()).toEqual([expect.objectContaining({ reason: expect.stringMatching(/the plan typo, .*documnets/) })]);
  expect(await round([one, plan('p', ['pictures'])])).toEqual(['nothing', 'completed']);
  write('documnets/a');
  expect(await round([one])).toEqual(['completed']);
  rmSync(place('documnets'), { recursive: true });
  expect(await round([one])).toEqual(['nothing']);
  expect(failed()).toHaveLength(2);
  expect(stored()).toContain('documnets/a');
});

test('a plan that cannot be read is run not at all, the server is told why, and the others are run', async () => {
  const broken = plan('broken', ['documents'], { exclude: ['*.tmp', '{a,b'] });
  expect(await round([broken, plan('fine', ['pictures'])])).toEqual(['failed', 'completed']);
  expect(stored()).toEqual(['pictures/c']);
  expect(world.server.runs[0]!.finish).toMatchObject({
    outcome: 'failed',
    reason: expect.stringMatching(/the plan broken cannot be followed: .*\{a,b/),
  });
  expect(world.cache.runs(2)[1]).toMatchObject({ outcome: 'failed', reason: expect.stringContaining('{a,b') });
  expect(kept.runs.get('broken')).toEqual({ startedAtMs: 1_000, ended: true });
});

describe('watching', () => {
  const startMs = Date.UTC(2026, 4, 1, 10, 0);
  const minutes = (count: number): number => count * 60_000;

  /** Follows the server's plans for so long, by a clock that only waiting moves. `at` acts at its minute, and may set the clock. */
  async function watch(forMinutes: number, at: Record<number, () => unknown> = {}, from = startMs): Promise<string[]> {
    const begun: string[] = [];
    const controller = new AbortController();
    let now = from;
    const left = new Map(Object.entries(at).map(([minute, act]) => [from + minutes(Number(minute)), act]));
    const clock: Clock = {
      now: () => now,
      zone: () => 0,
      sleep: async (ms) => {
        now += ms;
        for (const [moment, act] of left) {
          if (moment > now) continue;
          left.delete(moment);
          const moved = act();
          if (typeof moved === 'number') now += moved;
        }
        if (now >= from + minutes(forMinutes)) controller.abort();
      },
    };
    const base = backupWorld();
    const output: Output = {
      ...base.output,
      emit: (event, fields) => {
        base.output.emit(event, fields);
        const { plan } = fields as { plan?: string };
        if (event === 'start') begun.push(`${plan} ${Math.round((now - startMs) / 60_000)}`);
      },
    };
    world.client.destroy();
    world.client = world.connect(50);
    await watchPlans({ ...base, client: world.client, output }, rules, {
      signal: controller.signal,
      clock,
      here,
      onAskError: (error) => notes.push(`error ${error.message}`),
      onRunError: (error) => notes.push(`error ${error.message}`),
    });
    return begun;
  }

  test('runs each plan on its own beat, and goes on with it after a restart', async () => {
    world.server.plans = [plan('hourly', ['documents']), plan('often', ['pictures'], { everyMinutes: 20 })];
    expect(await watch(45)).toEqual(['hourly 0', 'often 0', 'often 20', 'often 40']);
    expect(await watch(30, {}, startMs + minutes(50))).toEqual(['hourly 60', 'often 60']);
  });

  test('keeps to windows', async () => {
    const window = { days: [5], fromMinute: 10 * 60 + 30, untilMinute: 11 * 60 };
    world.server.plans = [plan('p', ['documents'], { everyMinutes: 20, windows: [window] })]; // a Friday, from 10:30
    expect(await watch(90)).toEqual(['p 30', 'p 50']);
  });

  test('follows a change without a restart', async () => {
    world.server.plans = [plan('p', ['documents'])];
    const begun = await watch(61, {
      20: () => {
        world.server.plans = [plan('p', ['documents']), plan('new', ['pictures'])];
      },
      40: () => {
        world.server.plans = [plan('new', ['pictures'], { everyMinutes: 5 })];
      },
    });
    expect(begun.slice(0, 2)).toEqual(['p 0', expect.stringMatching(/^new (2\d|30)$/)]);
    expect(begun.slice(2).every((each) => each.startsWith('new '))).toBe(true);
    expect(begun.length).toBeGreaterThan(4);
    const asked = world.server.requests.filter((request) => request === 'GET /v1/self/plans').length;
    expect(asked).toBeLessThan(minutes(61) / askEveryMs + begun.length + 2);
  });

  test('asks before it begins, so that a change of now counts', async () => {
    world.server.plans = [plan('p', ['documents'], { everyMinutes: 55 })];
    await watch(56, {
      53: () => {
        write('documents/new.iso');
        world.server.plans = [plan('p', ['documents'], { everyMinutes: 55, exclude: ['new.iso'] })];
      },
    });
    expect(world.server.runs).toHaveLength(2);
    expect(stored()).not.toContain('documents/new.iso');
  });

  test('asks after a run that failed', async () => {
    const asked = (): number => world.server.requests.filter((request) => request === 'GET /v1/self/plans').length;
    world.server.plans = [plan('fine', ['documents'])];
    await watch(1);
    expect(asked()).toBe(1);
    world.server.plans = [plan('broken', ['documents'], { exclude: ['{a,b'] })];
    await watch(1, {}, startMs + minutes(1));
    expect(asked()).toBe(3);
  });

  test('asks anew when the clock was set back', async () => {
    world.server.plans = [plan('p', ['documents'])];
    const begun = await watch(40, {
      20: () => {
        world.server.plans = [plan('new', ['pictures'], { everyMinutes: 525_600 })];
        return -minutes(120);
      },
    });
    expect(begun).toEqual(['p 0', 'new -100']);
  });

  test('a machine that slept makes up for it once', async () => {
    world.server.plans = [plan('p', ['documents'], { everyMinutes: 10 })];
    expect(await watch(1)).toEqual(['p 0']);
    expect(await watch(12, {}, startMs + minutes(500))).toEqual(['p 500', 'p 510']);
  });

  test('a clock that was set back neither stops it nor runs it more than once', async () => {
    world.server.plans = [plan('p', ['documents'])];
    await watch(1);
    expect(await watch(61, {}, startMs - minutes(10_000))).toEqual(['p -10000', 'p -9940']);
  });

  test('follows the plans told last while the server is away, and tries again soon', async () => {
    world.server.plans = [plan('p', ['documents'])];
    await watch(1);
    world.server.faults = () => ({ kind: 'drop' });
    const back = () => {
      world.server.faults = () => null;
    };
    // The run that was due at 60 came to nothing, and is not waited for until 120.
    expect(await watch(85, { 64: back })).toEqual(['p 75']);
    expect(notes.filter((note) => note.startsWith('error'))).toHaveLength(1);
    expect(notes.some((note) => note.includes('Following those it told last'))).toBe(true);
    expect(world.server.runs.at(-1)!.finish).toMatchObject({ outcome: 'completed' });
  });

  test('follows them on while the server knows no plans: it was put back to an older version', async () => {
    world.server.plans = [plan('p', ['documents'])];
    await watch(1);
    world.server.faults = (request) => (request.includes('plans') ? { kind: 'problem', code: 'not_found' } : null);
    expect(await watch(65)).toEqual(['p 60']);
    expect(notes.filter((note) => note.startsWith('error'))).toEqual([]);
    expect(notes.some((note) => note.includes('Following those it told last'))).toBe(true);
  });

  test('ends when a server that never told a plan knows none, and not when a run meets not_found', () => {
    const { onAskError, onRunError } = watchErrors(backupWorld());
    const error = new Problem('not_found', 'no such run');
    expect(() => onAskError(error)).toThrow('the server knows no plans');
    onRunError(error);
    expect(notes).toEqual(['This pass failed: no such run']);
  });

  test('waits for a plan where there is none, and for a server that never answered', async () => {
    world.server.faults = () => ({ kind: 'drop' });
    const begun = await watch(40, {
      5: () => {
        world.server.faults = () => null;
      },
      10: () => {
        world.server.plans = [plan('p', ['documents'])];
      },
    });
    expect(begun).toHaveLength(1);
    expect(notes).toContain('Waiting for the server to give this device a plan.');
  });

  test('what it keeps is of this registration, and a damaged file counts as none', async () => {
    world.server.plans = [plan('p', ['documents'])];
    await watch(1);
    const { home } = backupWorld();
    expect(readKeptPlans(home, world.registration)?.plans).toEqual(world.server.plans);
    expect(readKeptPlans(home, { ...world.registration, guid: '43' })).toBeNull();
    writeFileSync(join(home, 'plans.json'), '{"of":');
    expect(readKeptPlans(home, world.registration)).toBeNull();
    expect(existsSync(join(home, 'plans.json'))).toBe(true);
    expect(await watch(1)).toEqual(['p 0']);
  });

  test('which plans are due, and when the next is', () => {
    const none = withAnswer(null, { plans: [plan('A', ['x']), plan('b', ['y'], { everyMinutes: 90 })], etag: null }, 0);
    none.runs.set('b', { startedAtMs: startMs, ended: true });
    expect(plansDue(none, startMs + 1, () => 0)).toEqual({ due: new Set(['a']), next: startMs + minutes(90) });
  });
});
