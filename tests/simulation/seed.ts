/**
 * One seed, from an empty catalog to an empty catalog: a while in which everything goes on at once and goes wrong, then
 * rest, in which everything acknowledged must be given back; then everything is deleted, and nothing may remain.
 */
import assert from 'node:assert/strict';
import { AdoptRefused } from '../../storage/archive/checking/adopt.ts';
import { onlyPolicy } from '../../storage/archive/retention/policies.ts';
import { Agent, type DeviceState, newDeviceState, runAgent } from './agents.ts';
import { Violation } from './check.ts';
import type { CoverageReport } from './coverage.ts';
import { runBeats, runJob, runWorker, settlingJobs } from './jobs.ts';
import type { Lane } from './lane.ts';
import { releaseHolds, reviewAlerts, runOperator } from './operators.ts';
import { restoreEverything } from './reading.ts';
import type { Task } from './scheduler.ts';
import { SetBack } from './set-back.ts';
import { day, minute, second } from './settings.ts';
import { type Machine, NetworkError, World } from './world.ts';

export interface SeedOptions {
  /** Operations begun before the world comes to rest. */
  operations: number;
  /** Faults that must have struck by then. */
  faults: number;
}

export interface SeedResult {
  seed: number;
  /** Null: everything was as it must be. */
  failure: string | null;
  /** The last steps before the failure. */
  trace: string[];
  steps: number;
  checks: number;
  operations: number;
  faults: number;
  versionsRead: number;
  coverage: CoverageReport;
  ms: number;
}

const stepsMax = 60_000;
/** Rounds of all jobs after which nothing may be left to do. */
const roundsMax = 40;
const roundsOfHistory = 3;
const aboutToDelete = new Set(['versions.delete', 'objects.buryEmpty', 'objects.takeDead']);

export async function runSeed(lane: Lane, seed: number, options: SeedOptions): Promise<SeedResult> {
  const begun = performance.now();
  const world = new World(lane, seed);
  const life = new Life(world, options);
  let failure: string | null = null;
  const onUnhandled = (error: unknown): void => world.fail(error);
  process.on('unhandledRejection', onUnhandled);
  try {
    await world.begin();
    await life.live();
    await life.rest();
    await life.end();
  } catch (error) {
    failure = (error as Error).stack ?? String(error);
    if ((error as Error).cause) failure += `\n  because ${((error as Error).cause as Error).stack}`;
  }
  if (failure !== null) await lane.close(); // transactions may be open in it
  await new Promise((resolve) => setImmediate(resolve));
  process.off('unhandledRejection', onUnhandled);
  return {
    seed,
    failure,
    trace: failure === null ? [] : world.scheduler.trace.slice(-400),
    steps: world.scheduler.steps,
    checks: world.checker.checks,
    operations: world.coverage.begun,
    faults: world.faults.total,
    versionsRead: life.versionsRead,
    coverage: world.coverage.report(world.faults.struck),
    ms: performance.now() - begun,
  };
}

class Life {
  versionsRead = 0;
  readonly #world: World;
  readonly #options: SeedOptions;
  readonly #states: DeviceState[] = [];
  readonly #agents: Task[] = [];
  readonly #operators: Task[] = [];
  #repairClockAtStep = 0;
  readonly #setBack: SetBack;
  #setBackAtStep = 0;
  #waitsForLoss = false;
  #adopting = false;
  #resting = false;

  constructor(world: World, options: SeedOptions) {
    this.#world = world;
    this.#setBack = new SetBack(world);
    this.#options = options;
  }

  // --- everything at once --------------------------------------------------------------------------------------------

  async live(): Promise<void> {
    const world = this.#world;
    for (const device of world.devices) this.#states.push(newDeviceState(device));
    await this.#makeHistory();
    // A second agent of a device, as when one hangs and is started again: they know nothing of one another, and each
    // run that one starts ends the other's.
    this.#states.push(newDeviceState(world.random.pick(world.devices)));
    for (const index of this.#states.keys()) this.#startAgent(index);
    for (const worker of world.workers) this.#startWorker(worker);
    for (const name of ['operator 1', 'operator 2'])
      this.#operators.push(world.scheduler.spawn({ name }, 'idle', () => runOperator(world)));

    const { operations, faults } = this.#options;
    while (world.coverage.begun < operations || world.faults.total < faults) {
      if (world.scheduler.steps > stepsMax) throw new Error('the world does not come on');
      await this.#events();
      assert(await world.scheduler.step(), 'nobody moves');
      await world.look();
    }
  }

  /** Some backups of each device in peace, some time apart, so that there is something to prune from the start. */
  async #makeHistory(): Promise<void> {
    const world = this.#world;
    world.coverage.isLive = false;
    world.faults.active = false;
    const agents = this.#states.map((state) => new Agent(world, state));
    for (let round = 0; round < roundsOfHistory; round++) {
      for (const agent of agents) await world.finish(() => agent.backUp());
      for (const worker of world.workers) await world.finish(async () => void (await worker.fence!.beat()));
      await world.advance(world.random.pick([4, 10, 20]) * minute);
    }
    world.faults.active = true;
    world.coverage.isLive = true;
  }

  #startAgent(index: number): void {
    const state = this.#states[index]!;
    const isSecond = index >= this.#world.devices.length;
    this.#agents[index] = this.#world.scheduler.spawn({ name: `agent ${index}` }, 'idle', () =>
      runAgent(this.#world, state, isSecond ? 2000 : 20),
    );
  }

  #startWorker(worker: Machine): void {
    const { scheduler, tasks } = this.#world;
    for (let place = 0; place < 2; place++)
      tasks.add(scheduler.spawn(worker, 'idle', () => runWorker(this.#world, worker)));
    tasks.add(scheduler.spawn(worker, 'idle', () => runBeats(this.#world, worker)));
  }

  /** What happens from outside before this step. */
  async #events(): Promise<void> {
    const world = this.#world;
    const { random, faults, scheduler } = world;
    let dice = random.next();
    const falls = (share: number): boolean => {
      const fell = dice >= 0 && dice < share;
      dice -= share;
      return fell;
    };
    if (falls(0.02)) await world.advance(random.pick([200, second, 3 * second, 6 * second, 12 * second]));
    if (falls(0.0015)) await world.advance(random.pick([40, 40, 40, 70, 70, 70, 150]) * second);
    if (falls(0.0002)) await world.advance(60 * minute);
    if (falls(0.0002)) {
      faults.count('clockJump');
      await world.advance(random.pick([day / 4, day, 3 * day]));
    }
    if (falls(0.0005) && !world.clockIsWrong) {
      const byMs = random.pick([-2 * minute, -2 * minute, -2 * minute, -3 * 60 * minute, 400 * day]);
      faults.count(byMs < 0 ? 'clockStepBack' : 'clockWrong');
      this.#repairClockAtStep = scheduler.steps + 50 + random.below(200);
      await world.setClockWrong(byMs);
    }
    if (falls(0.0008)) {
      const index = random.below(this.#agents.length);
      faults.count('agentCrash');
      scheduler.crash(this.#agents[index]!);
      this.#startAgent(index);
    }
    // Rather while an object is on its way to the store: then it may arrive when its row is long gone.
    const isPutting = scheduler.parked.some(({ label }) => label.startsWith('put blocks'));
    if (falls(isPutting ? 0.004 : 0.0005)) {
      faults.count('serverCrash');
      world.crash(random.pick(world.servers));
    }
    if (falls(0.0004)) {
      faults.count('workerCrash');
      this.#restart(random.pick(world.workers));
    }
    if (falls(0.003) && world.flipBit()) faults.count('bitFlip');
    // Rather while a deleter is about to: then the catalog that comes back has something to delete.
    const isDeleting = scheduler.parked.some(({ label }) => aboutToDelete.has(label));
    if (falls(isDeleting ? 0.002 : 0.00005) && !this.#setBack.hasKept && world.setBackAtStep === null) {
      await this.#setBack.keep();
      // Sometimes so late that an object which it names is gone from the bucket.
      this.#waitsForLoss = random.chance(0.5);
      this.#setBackAtStep = scheduler.steps + 150 + random.below(this.#waitsForLoss ? 6_000 : 900);
    }
    if (this.#setBack.hasKept) {
      const isLost = this.#waitsForLoss && this.#setBack.hasLostAny;
      if (isLost || scheduler.steps >= this.#setBackAtStep) await this.#setItBack();
    }
    if (world.setBackAtStep !== null && scheduler.steps >= world.setBackAtStep + 500) this.#adopt();
    if (world.clockIsWrong && scheduler.steps >= this.#repairClockAtStep) await world.setClockWrong(0);
    // Whoever was started while the clock was wrong takes the right time for a jump, and says so to its operator.
    if (falls(0.01) && !world.clockIsWrong && world.setBackAtStep === null)
      for (const worker of world.workers) if (worker.fence!.state().reason === 'clock') this.#restart(worker);
  }

  /** The workers' processes go on, with the fences they have; what they were doing has failed. */
  async #setItBack(): Promise<void> {
    const world = this.#world;
    if (world.scheduler.blockedCount > 0 || !(await this.#setBack.isFenceNewer())) return;
    world.faults.count('catalogSetBack');
    for (const worker of world.workers) world.crash(worker);
    await this.#setBack.happen();
    for (const worker of world.workers) this.#startWorker(worker);
  }

  /** Backups go on meanwhile. The operator may be interrupted, and begins again. */
  #adopt(): void {
    if (this.#adopting) return;
    const world = this.#world;
    this.#adopting = true;
    for (const worker of world.workers) world.crash(worker);
    world.scheduler.spawn({ name: 'operator' }, 'idle', async () => {
      for (let attempt = 1; !(await this.#tryToAdopt({ force: attempt > 3 })); attempt++);
      this.#adopting = false;
      if (this.#resting) return;
      for (const worker of world.workers) this.#restart(worker);
    });
  }

  async #tryToAdopt(options: { force: boolean }): Promise<boolean> {
    const world = this.#world;
    await world.scheduler.gate('adopt');
    try {
      await this.#setBack.adopt(options);
      return true;
    } catch (error) {
      // A worker that was started meanwhile is a worker that the operator did not stop.
      const disturbed = error instanceof AdoptRefused || /overwritten at once/.test((error as Error).message);
      const seen = disturbed ? new NetworkError((error as Error).message) : world.classify(error);
      if (!(seen instanceof NetworkError)) throw error;
      world.scheduler.say(`adopt: ${seen.message}`);
      return false;
    }
  }

  #restart(worker: Machine): void {
    this.#world.crash(worker);
    this.#world.restartWorker(worker);
    this.#startWorker(worker);
  }

  // --- rest ----------------------------------------------------------------------------------------------------------

  /** Nothing goes wrong any more; what was under way ends; everything acknowledged is given back. */
  async rest(): Promise<void> {
    const world = this.#world;
    const { scheduler, faults } = world;
    faults.active = false;
    world.coverage.isLive = false;
    this.#resting = true;
    for (const agent of this.#agents) scheduler.crash(agent);
    for (const operator of this.#operators) scheduler.crash(operator);
    for (const worker of world.workers) world.crash(worker);
    await world.setClockWrong(0);
    if (world.setBackAtStep !== null) this.#adopt();
    await this.#endWhatIsUnderWay();
    // A worker that was started while the operator adopted has left its mark after that, or it has landed then.
    if (this.#setBack.isContested) {
      this.#adopt();
      await this.#endWhatIsUnderWay();
    }
    for (const worker of world.workers) {
      world.crash(worker);
      world.restartWorker(worker);
    }
    await world.forgetFutureChecks();
    await this.#settleAndReview();
    for (const state of this.#states.slice(0, world.devices.length)) {
      await world.finish(() => new Agent(world, state).healAll());
      await world.finish(async () => {
        this.versionsRead += await restoreEverything(world, world.servers[0]!.storage, state.device);
      });
    }
  }

  /** Requests and what is late come to their ends, in any order. */
  async #endWhatIsUnderWay(): Promise<void> {
    const { scheduler, tasks } = this.#world;
    for (let steps = 0; scheduler.late.length + tasks.size > 0 || this.#adopting; steps++) {
      if (steps > 10_000) throw new Error('what is under way does not end');
      await scheduler.step({ lateShare: 0.2 });
      await this.#world.look();
    }
  }

  /** The jobs have nothing left to do, and no alert keeps them from it. */
  async #settleAndReview(): Promise<void> {
    await this.#settle();
    for (let rounds = 0; (await this.#review()) > 0; rounds++) {
      if (rounds === 6) throw new Violation('the same alerts are raised again and again');
      await this.#settle();
    }
  }

  /** @returns how many alerts there were */
  async #review(): Promise<number> {
    const { servers, devices } = this.#world;
    let reviewed = 0;
    for (const vault of new Set(devices.map((device) => device.vault)))
      await this.#world.finish(async () => {
        reviewed += await reviewAlerts(servers[0]!.storage, vault);
      });
    return reviewed;
  }

  /** All jobs, over and over, and before each round more time than anything here has to wait for, until one changes nothing. */
  async #settle(): Promise<void> {
    const world = this.#world;
    const [worker] = world.workers;
    for (let round = 0, changing: string | undefined = 'nothing'; changing !== undefined; round++) {
      if (round === roundsMax) throw new Violation(`the jobs never come to an end: ${changing} goes on changing`);
      await world.advance(4 * minute);
      const before = world.checker.dump!;
      for (let beat = 0; beat < 2; beat++) {
        await world.finish(async () => void (await worker!.fence!.beat()));
        await world.advance(20 * second);
      }
      for (const name of settlingJobs) await world.finish(async () => void (await runJob(world, worker!, name)));
      const after = world.checker.dump!;
      changing = (['versions', 'blocks', 'objects', 'lists', 'freed', 'freedLists'] as const).find(
        (table) => before[table] !== after[table],
      );
    }
  }

  // --- the end -------------------------------------------------------------------------------------------------------

  /** Every file is deleted and nothing holds it: then nothing at all may remain. */
  async end(): Promise<void> {
    const world = this.#world;
    const storage = world.servers[0]!.storage;
    for (const vault of new Set(world.devices.map((device) => device.vault)))
      await world.finish(() => releaseHolds(storage, vault, 0));
    for (const state of this.#states.slice(0, world.devices.length)) {
      const policy = { ...world.somePolicies().policy, deletedAfterDays: 0, keepWithinDays: 0 };
      world.setPolicies(state.device.archive, onlyPolicy(policy));
      await world.finish(() => this.#deleteAll(state));
    }
    // Past every time that a wrong clock may have written.
    await world.advance(500 * day);
    await this.#settle();
    for (let rounds = 0; (await this.#review()) > 0; rounds++) {
      if (rounds === 5) throw new Violation('the same alerts are raised again and again');
      await this.#settle();
    }
    const { dump } = world.checker;
    const keys = [...world.bucket.objects.keys()].filter((key) => !key.endsWith('/fence'));
    const left = {
      versions: dump!.versions.length,
      blocks: dump!.blocks.length,
      lists: dump!.lists.length,
      freed: dump!.freed.size + dump!.freedLists.size,
      objects: dump!.objects.length,
      keys: keys.length,
    };
    if (Object.values(left).some((count) => count > 0))
      throw new Violation(`10: everything was deleted, and this is left: ${JSON.stringify(left)}`);
  }

  /** Commits the deletion of every path that the archive still has. */
  async #deleteAll(state: DeviceState): Promise<void> {
    const world = this.#world;
    const { archive } = state.device;
    const latest = new Map<number, string>();
    for (const version of world.checker.dump!.versions)
      if (version.archive === archive) latest.set(version.file, version.mac);
    state.paths = new Set(
      [...latest.values()]
        .map((mac) => world.model.sent.get(mac)!)
        .filter((sent) => !sent.deleted)
        .map((sent) => sent.path),
    );
    state.lastCommit = null;
    await new Agent(world, state).deleteAll();
  }
}
