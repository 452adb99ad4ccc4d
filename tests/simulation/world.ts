/**
 * One seed's world: a catalog, a bucket, servers, workers, and agents with their devices, all tasks of one scheduler.
 * Here is what happens to them from outside (clocks, crashes, rot) and what of it is known; what agents and workers do is in
 * agents.ts and jobs.ts, a catalog set back in time in set-back.ts, what must be true in check.ts.
 */
import assert from 'node:assert/strict';
import { Problem } from '../../protocol/problems.ts';
import { DeletingStopped, type Fence, openFence } from '../../storage/archive/checking/fence.ts';
import { fenceKey } from '../../storage/archive/checking/fence-object.ts';
import type { ArchivePolicies } from '../../storage/archive/retention/policies.ts';
import { type Database, isPassingFault } from '../../storage/catalog/database.ts';
import { createArchive, createVault } from '../../storage/catalog/vaults.ts';
import { ObjectNotFound, ObjectStoreFault } from '../../storage/objects/object-store.ts';
import { RetryingStore } from '../../storage/objects/retrying-store.ts';
import type { Storage } from '../../storage/storage.ts';
import { type Random, seededRandom } from '../helpers/random.ts';
import { type CatalogDump, CatalogReader } from './catalog-dump.ts';
import { Checker, Violation } from './check.ts';
import { Coverage } from './coverage.ts';
import { DeleterWatch } from './deleter-watch.ts';
import { effectsOf } from './effects.ts';
import { Faults } from './faults.ts';
import { epochMs, type Lane } from './lane.ts';
import { linger } from './linger.ts';
import { Model } from './model.ts';
import { keptByPins } from './pins.ts';
import { Scheduler, type SimulatedProcess, type Task } from './scheduler.ts';
import { beatMs, settings, somePolicies } from './settings.ts';
import { type Committed, SimulatedDatabase } from './simulated-database.ts';
import { Bucket, SimulatedStore } from './simulated-store.ts';

/** Where a worker waits for its next beat. */
export const betweenBeats = 'between beats';
/** A process of the server, or an agent's machine, with what it has in memory. */
export interface Machine extends SimulatedProcess {
  storage: Storage;
  /** Workers have one; a new one after each crash. */
  fence: Fence | null;
}

export interface Device {
  vault: number;
  archive: number;
  index: number;
}

/** The request did not arrive, or its answer did not. */
export class NetworkError extends Error {
  override name = 'NetworkError';
}

export class World {
  readonly random: Random;
  readonly faults: Faults;
  readonly scheduler: Scheduler;
  readonly coverage = new Coverage();
  readonly model = new Model();
  readonly bucket = new Bucket();
  readonly lane: Lane;
  readonly checker: Checker;
  readonly deleters: DeleterWatch;
  readonly devices: Device[] = [];
  readonly servers: Machine[] = [];
  readonly workers: Machine[] = [];
  /** archive -> its policies, each since a step; the last one is that of now. */
  readonly policies = new Map<number, { since: number; policies: ArchivePolicies }[]>();
  /** Raised whenever a lookup of the truth may be older than what happened since. */
  generation = 0;
  /** Since when the catalog is one that the bucket does not belong to; null: it does. */
  setBackAtStep: number | null = null;
  /** What `adopt` wrote into the row since then; and whether it is in the bucket, too. */
  #adoptedNonce: string | null = null;
  #isAdopted = false;
  readonly lostObjects = new Set<string>();
  catalogId = '';
  /** Blocks that a reader was told are absent: deleted meanwhile, or damaged. */
  absentReads = 0;
  readonly #seed: number;
  readonly #reader = new CatalogReader();
  readonly #committed: Committed[] = [];
  #trueMs = epochMs;
  #wrongByMs = 0;
  #clockWrongSince: number | null = null;
  #failure: Error | null = null;
  #bucketSeen = 0;

  constructor(lane: Lane, seed: number) {
    this.#seed = seed;
    this.lane = lane;
    this.random = seededRandom(seed);
    this.faults = new Faults(seededRandom(seed + 0x5eed));
    this.scheduler = new Scheduler(this.random, (pids) => lane.waiting(pids));
    this.scheduler.onStep = (task) => {
      this.coverage.step(task.id);
      if (this.faults.strikes('pause'))
        task.asleepUntil = this.scheduler.steps + 5 + this.random.below(this.random.pick([20, 60, 200]));
    };
    this.scheduler.onFailure = (_, error) => this.fail(error);
    this.deleters = new DeleterWatch(this.scheduler, this.random);
    this.checker = new Checker({
      model: this.model,
      bucket: this.bucket,
      lostObjects: this.lostObjects,
      policiesSince: (archive, step) =>
        this.policies
          .get(archive)!
          .filter((_, i, all) => (all[i + 1]?.since ?? Number.POSITIVE_INFINITY) >= step)
          .map((each) => each.policies),
      clockWrongByMs: () => this.#wrongByMs,
      mustNotDelete: () => this.#isForeign,
      steps: () => this.scheduler.steps,
      deleters: new Set(['versions.delete']),
    });
  }

  // --- beginning -----------------------------------------------------------------------------------------------------

  async begin(): Promise<void> {
    await this.lane.begin();
    // The same in each run of a seed, so that traces can be compared.
    this.catalogId = `00000000-0000-4000-8000-${`${this.#seed}`.padStart(12, '0')}`;
    await this.lane.monitor.query('UPDATE catalog SET catalog_id = $1', [this.catalogId]);
    for (const name of ['server 1', 'server 2']) this.servers.push({ name, storage: this.#storage(), fence: null });
    for (const name of ['worker 1', 'worker 2']) {
      const storage = this.#storage();
      this.workers.push({ name, storage, fence: this.#fence(storage) });
    }
    this.faults.active = false;
    await this.#alone(async () => {
      const { database } = this.servers[0]!.storage;
      for (let user = 1; user <= 2; user++) {
        const vault = (await database.transaction((tx) => createVault(tx, { userId: user })))!;
        for (let i = 0; i < 3 - user; i++) {
          const index = this.devices.length;
          const archive = await database.transaction((tx) => createArchive(tx, { vault, deviceId: index }));
          this.devices.push({ vault, archive, index });
          this.setPolicies(archive, this.somePolicies());
        }
      }
    });
    this.faults.active = true;
    await this.acceptCatalog();
  }

  #storage(): Storage {
    const database: Database = new SimulatedDatabase({
      lane: this.lane,
      scheduler: this.scheduler,
      faults: this.faults,
      nowMs: () => this.databaseMs,
      clockIsWrong: () => this.#clockWrongSince !== null,
      onCommitted: (committed) => {
        this.coverage.tookEffect(committed.task.id, effectsOf(committed.ran));
        this.#committed.push(committed);
      },
      onStatement: (name, values) => {
        // Put only after the row has been committed: that is soon enough to remember it.
        if (name === 'fence.replace') this.#adoptedNonce = values[0] as string;
        if (!this.coverage.isLive) return;
        this.deleters.onStatement(name, values);
        linger(this.scheduler, this.random, name);
      },
      generation: () => this.generation,
      onBroken: (error) => this.fail(error),
    });
    const store = new SimulatedStore({
      bucket: this.bucket,
      scheduler: this.scheduler,
      faults: this.faults,
      random: this.random,
      nowMs: () => this.#trueMs,
      onDelete: (key) => this.#deleting(key),
      onPut: (key, bytes, before) => {
        const rotten = this.bucket.flipped.delete(key);
        if (rotten) this.bucket.healed.set(key, this.scheduler.steps);
        if (key === fenceKey(this.catalogId) && JSON.parse(`${bytes}`).nonce === this.#adoptedNonce)
          this.#isAdopted = true;
        if (before && !rotten && !before.bytes.equals(bytes) && key.includes('/blocks/'))
          throw new Violation(`3: other bytes were put under ${key}`);
      },
    });
    const objects = new RetryingStore(store, {
      attemptsMax: 2,
      random: this.random.next,
      sleep: () => this.scheduler.gate('repeat the call to the store'),
    });
    return { database, objects, catalogId: this.catalogId, settings };
  }

  #fence(storage: Storage): Fence {
    const pause = (): Promise<void> => this.scheduler.gate('pause');
    return openFence(storage, { beatMs, beatsBeforeDeleting: 2, monotonicMs: () => this.#trueMs, pause });
  }

  setPolicies(archive: number, policies: ArchivePolicies): void {
    const all = this.policies.get(archive) ?? [];
    this.policies.set(archive, [...all, { since: this.scheduler.steps, policies }]);
  }

  policiesOf(archive: number): ArchivePolicies {
    return this.policies.get(archive)!.at(-1)!.policies;
  }

  somePolicies(): ArchivePolicies {
    return somePolicies(this.random);
  }

  // --- time ----------------------------------------------------------------------------------------------------------

  get trueMs(): number {
    return this.#trueMs;
  }

  get databaseMs(): number {
    return this.#trueMs + this.#wrongByMs;
  }

  async advance(ms: number): Promise<void> {
    this.#trueMs += ms;
    if (ms >= beatMs) this.scheduler.wake(betweenBeats);
    await this.lane.setClock(this.databaseMs);
  }

  /** Sets the database's clock wrong, or (0) right again. */
  async setClockWrong(byMs: number): Promise<void> {
    // A promise is for as long as the clock it was made by goes on.
    if (byMs < this.#wrongByMs) this.forgetPromises();
    this.#wrongByMs = byMs;
    this.#clockWrongSince = byMs === 0 ? null : this.scheduler.steps;
    await this.lane.setClock(this.databaseMs);
  }

  /** Raised when promises made until now do not hold any more. */
  promiseEpoch = 0;

  forgetPromises(): void {
    this.promiseEpoch++;
    this.model.promises.clear();
  }

  get clockIsWrong(): boolean {
    return this.#wrongByMs !== 0;
  }

  // --- tasks ---------------------------------------------------------------------------------------------------------

  /**
   * An operation of the current task, from here to its end: counted, and looked at by whatever overlaps it.
   */
  async operation<T>(name: string, work: () => Promise<T>): Promise<T> {
    const task = this.scheduler.task();
    const before = task.operation;
    task.operation = name;
    this.coverage.begin(task.id, name);
    const ended = (): void => this.coverage.end(task.id);
    task.onCrash.add(ended);
    try {
      return await work();
    } finally {
      task.onCrash.delete(ended);
      if (!task.crashed) {
        ended();
        task.operation = before;
      }
    }
  }

  /**
   * A request of an agent to one of the servers. Either may be killed while the other goes on.
   * @throws NetworkError when nobody knows what became of it, Problem when the server refuses
   */
  request<T>(name: string, work: (storage: Storage) => Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const server = this.random.pick(this.servers);
    if (this.faults.strikes('requestLost')) return Promise.reject(new NetworkError(`${name}: the request was lost`));
    const task = this.scheduler.spawn(server, name, async () => {
      try {
        const answer = await this.operation(name, () => work(server.storage));
        this.coverage.ended(name, 'done');
        await this.scheduler.gate('answer');
        if (this.faults.strikes('answerLost')) throw new NetworkError(`${name}: the answer was lost`);
        resolve(answer);
      } catch (error) {
        const seen = this.classify(error);
        this.coverage.ended(name, seen instanceof Problem ? seen.code : 'lost');
        reject(seen);
      }
      this.tasks.delete(task);
    });
    this.tasks.add(task);
    task.onCrash.add(() => {
      this.tasks.delete(task);
      reject(new NetworkError(`${name}: the server is gone`));
    });
    return promise;
  }

  /** Tasks of servers and workers that have not ended. */
  readonly tasks = new Set<Task>();

  /** What a caller may see: a Problem, or that it is not known what happened. Anything else is a bug of ours. */
  classify(error: unknown): Error {
    if (error instanceof Problem || error instanceof NetworkError || error instanceof DeletingStopped) return error;
    // The fence says which of the two could not be asked, and has the fault itself as its cause.
    const { cause } = error as Error;
    if (error instanceof ObjectStoreFault || cause instanceof ObjectStoreFault)
      return new NetworkError((error as Error).message);
    if (!isPassingFault(error) && !isPassingFault(cause) && !(error instanceof ObjectNotFound)) this.fail(error);
    return new NetworkError((error as Error).message);
  }

  fail(error: unknown): void {
    this.#failure ??= error instanceof Error ? error : new Error(String(error));
  }

  throwFailure(): void {
    if (this.#failure) throw this.#failure;
  }

  /** Runs one piece of work with nobody else moving. */
  async #alone(work: () => Promise<void>): Promise<void> {
    let ended = false;
    this.scheduler.spawn({ name: 'world' }, 'world', async () => {
      await work();
      ended = true;
    });
    while (!ended) {
      assert(await this.scheduler.step(), 'nobody moves');
      this.throwFailure();
    }
  }

  /** Runs work to its end while nothing goes wrong any more. */
  finish(work: () => Promise<void>): Promise<void> {
    return this.#alone(work).then(() => this.look());
  }

  // --- events --------------------------------------------------------------------------------------------------------

  /** Checks everything, if anything changed since the last look. @throws Violation */
  async look(): Promise<void> {
    this.throwFailure();
    if (this.#committed.length === 0 && this.#bucketSeen === this.bucket.changes) return;
    const committed = this.#committed.splice(0);
    this.#bucketSeen = this.bucket.changes;
    const dump = await this.#reader.read(this.lane.monitor);
    this.checker.check(dump, committed);
    for (const each of committed) this.#noteKept(dump, each);
  }

  /** What a deleter that planned files has left there because of holds or leases. */
  #noteKept(dump: CatalogDump, { ran, task, at }: Committed): void {
    const planned = ran.find(({ name, rows }) => name === 'files.setPruneAfter' && rows > 0);
    if (!planned) return;
    const [vault, archive] = planned.values as [number, number];
    const plan = { policies: this.policiesOf(archive), nowMs: at };
    this.coverage.tookEffect(task.id, keptByPins(this.model, dump, { vault, archive }, plan));
  }

  /** The catalog is an earlier one from now on, and not the bucket's until somebody has adopted it. */
  wentBack(): void {
    this.setBackAtStep = this.scheduler.steps;
    this.#adoptedNonce = null;
    this.#isAdopted = false;
  }

  /** An operator whose last request got no answer adopts again, but what was adopted may delete by then. */
  get #isForeign(): boolean {
    return this.setBackAtStep !== null && !this.#isAdopted;
  }

  /** The catalog is another one: what was known of it before is not so any more. */
  async acceptCatalog(): Promise<CatalogDump> {
    this.#committed.length = 0;
    const dump = await this.#reader.read(this.lane.monitor);
    this.checker.accept(dump);
    this.forgetPromises();
    return dump;
  }

  /** After a clock was wrong: what was read whole in the future is read again. */
  async forgetFutureChecks(): Promise<void> {
    await this.lane.monitor.query('UPDATE objects SET verified_at = NULL WHERE verified_at > sim.clock_timestamp()');
  }

  /** Whatever has been deleted from the bucket must not be what a row names. */
  #deleting(key: string): void {
    if (!key.includes('/blocks/') || this.lostObjects.has(key)) return;
    const dump = this.checker.dump!;
    const object = dump.objects.find((each) => each.key === key);
    if (this.bucket.objects.has(key))
      this.coverage.tookEffect(this.scheduler.taskIfAny()?.id ?? null, [object ? 'object deleted' : 'orphan deleted']);
    if (this.#isForeign) this.fail(new Violation(`object ${key} was deleted by a catalog that is not the bucket's`));
    if (object?.state !== 'live') return;
    this.fail(new Violation(`1: object ${key} was deleted while it is live`));
  }

  crash(machine: SimulatedProcess): void {
    this.scheduler.say(`${machine.name} is killed`);
    for (const task of this.tasks) {
      if (task.process !== machine) continue;
      this.tasks.delete(task);
      this.scheduler.crash(task);
    }
  }

  restartWorker(worker: Machine): void {
    worker.storage = this.#storage();
    worker.fence = this.#fence(worker.storage);
  }

  /** Changes one bit of one live object, where a block of it lies. @returns whether there was one */
  flipBit(): boolean {
    const { random, checker, bucket } = this;
    const dump = checker.dump!;
    const candidates = dump.blocks.filter((block) => !block.damaged);
    if (candidates.length === 0) return false;
    const block = random.pick(candidates);
    const key = dump.objects.find((each) => each.vault === block.vault && each.object === block.object)!.key;
    const stored = bucket.objects.get(key);
    if (!stored) return false;
    const at = block.offset + random.below(block.length);
    stored.bytes[at] = stored.bytes[at]! ^ (1 << random.below(8));
    const flipped = bucket.flipped.get(key) ?? [];
    bucket.flipped.set(key, [...flipped, at]);
    checker.forget(key);
    this.scheduler.say(`a bit of ${key} is flipped`);
    return true;
  }
}
