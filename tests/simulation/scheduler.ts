/**
 * Decides who goes next. Everything concurrent in a simulation is a task; a task stops at gates (before every
 * statement, commit, call to the store, and wherever else the world puts one) and goes on only when the scheduler
 * picks it. Between two picks exactly one task moves, to its next gate or until PostgreSQL makes it wait for a lock.
 *
 * So the order of everything follows from the seed, except where PostgreSQL decides by itself: which of several
 * sessions that waited for one commit runs on first. Code of the engine that waits for a real timer would be missed
 * here; it has none (time comes from PostgreSQL, waits come in as arguments).
 */
import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import type { Random } from '../helpers/random.ts';

/** What a task is part of, and dies with. */
export interface SimulatedProcess {
  name: string;
}

export interface Task {
  id: number;
  /** The kind of operation it is doing, for the table of what overlapped with what. */
  operation: string;
  process: SimulatedProcess;
  crashed: boolean;
  /** Run when the task is killed: what reality does after it, such as closing its connection. */
  onCrash: Set<() => void>;
  /** It stays at its gate until the scheduler's step of this number: a process that was paused. */
  asleepUntil: number;
}

interface Parked {
  order: number;
  label: string;
  task: Task;
  /** Told when the task is killed at this gate. */
  onCrash: (() => void) | undefined;
  go: () => void;
}

/** Something on its way that no task waits for any more: a late request, a connection about to be closed. */
interface Late {
  label: string;
  notBefore: number;
  happen: () => Promise<void> | void;
}

/** A statement that was sent and not answered yet. */
export interface Underway {
  pid: number;
  task: Task;
  answered: Promise<true>;
  end: () => void;
}

/** How long a statement may run before it is asked whether it waits for a lock: longer while the machine is busy. */
const patienceMs = { least: 3, most: 15 };

const current = new AsyncLocalStorage<Task>();

/** A promise of something that a killed process waits for. */
export const never = (): Promise<never> => new Promise(() => {});

export class Scheduler {
  steps = 0;
  readonly parked: Parked[] = [];
  readonly late: Late[] = [];
  /** The last things that happened, for whoever reads a failure. */
  readonly trace: string[] = [];
  /** Called for each step with the task that moved. */
  onStep: (task: Task) => void = () => {};
  readonly #random: Random;
  readonly #waiting: (pids: readonly number[]) => Promise<Set<number>>;
  readonly #running = new Set<Underway>();
  readonly #blocked = new Set<Underway>();
  #nextId = 1;
  #nextOrder = 1;
  #last: Task | null = null;
  #patienceMs: number = patienceMs.least;
  /** Something was committed or rolled back, so who waited may not wait any more. */
  #released = false;

  constructor(random: Random, waiting: (pids: readonly number[]) => Promise<Set<number>>) {
    this.#random = random;
    this.#waiting = waiting;
  }

  /** Starts a task; it runs to its first gate at the next step. */
  spawn(process: SimulatedProcess, operation: string, work: () => Promise<void>): Task {
    const task: Task = {
      id: this.#nextId++,
      operation,
      process,
      crashed: false,
      onCrash: new Set(),
      asleepUntil: 0,
    };
    current.run(task, () => {
      this.gate('begin')
        .then(work)
        .catch((error: unknown) => this.onFailure(task, error));
    });
    return task;
  }

  /** What a task throws is an error of the simulation; the world replaces this. */
  onFailure: (task: Task, error: unknown) => void = (_, error) => {
    throw error;
  };

  task(): Task {
    const task = current.getStore();
    assert(task, 'this runs outside every task');
    return task;
  }

  /** Null in what happens late, when nobody waits for it any more. */
  taskIfAny(): Task | null {
    return current.getStore() ?? null;
  }

  /** Waits until it is this task's turn. */
  gate(label: string, onCrash?: () => void): Promise<void> {
    const task = this.task();
    if (task.crashed) return never();
    return new Promise((go) => this.parked.push({ order: this.#nextOrder++, label, task, onCrash, go }));
  }

  /** The same, and not before so many steps have been made: what is idle takes no turn from what is not. */
  sleep(label: string, steps: number): Promise<void> {
    const task = this.task();
    task.asleepUntil = Math.max(task.asleepUntil, this.steps + steps);
    return this.gate(label);
  }

  /** Ends the sleep of those that stand at gates of this label. */
  wake(label: string): void {
    for (const each of this.parked) if (each.label === label) each.task.asleepUntil = 0;
  }

  /** Makes something happen at a later step, whatever becomes of the task: after so many at least. */
  later(label: string, happen: Late['happen'], steps = 0): void {
    this.late.push({ label, happen, notBefore: this.steps + steps });
  }

  /** Everything that is late happens now. */
  async landEverything(): Promise<void> {
    for (const { label, happen } of this.late.splice(0)) {
      this.say(`late: ${label}`);
      await happen();
    }
    this.#released = true;
  }

  /** Kills a task where it is: at its gate, or with a statement on its way. It never runs on. */
  crash(task: Task): void {
    if (task.crashed) return;
    task.crashed = true;
    for (const at of this.parked.filter((each) => each.task === task)) {
      this.parked.splice(this.parked.indexOf(at), 1);
      at.onCrash?.();
    }
    for (const happens of task.onCrash) happens();
    task.onCrash.clear();
  }

  /**
   * Notes that a statement was sent. Whoever does must call `end` when the answer is there.
   * @param endsTransaction so that others who wait for a lock may not wait any more when it is answered
   */
  underway(pid: number, endsTransaction: boolean): Underway {
    const { promise, resolve } = Promise.withResolvers<true>();
    const sent: Underway = {
      pid,
      task: this.task(),
      answered: promise,
      end: () => {
        this.#running.delete(sent);
        this.#blocked.delete(sent);
        this.#released ||= endsTransaction;
        resolve(true);
      },
    };
    this.#running.add(sent);
    return sent;
  }

  /** Waits for something that is neither at a gate nor a statement of a session of its own; nobody else moves meanwhile. */
  async meanwhile<T>(work: () => Promise<T>): Promise<T> {
    const waiting = this.underway(0, false);
    try {
      return await work();
    } finally {
      waiting.end();
    }
  }

  get blockedCount(): number {
    return this.#blocked.size;
  }

  /**
   * Lets one task move, and waits until it stands again.
   * @returns false when nobody can move
   */
  async step(options: { lateShare?: number } = {}): Promise<boolean> {
    this.steps++;
    const awake = this.parked.filter((each) => each.task.asleepUntil <= this.steps);
    const candidates = awake.length > 0 ? awake : this.parked;
    const late = this.late.filter(
      (each) => each.notBefore <= this.steps || candidates.length === 0 || options.lateShare,
    );
    if (late.length > 0 && (candidates.length === 0 || this.#random.chance(options.lateShare ?? 0.02))) {
      const happening = this.#random.pick(late);
      this.late.splice(this.late.indexOf(happening), 1);
      this.say(`late: ${happening.label}`);
      await happening.happen();
      this.#released = true;
      await this.#settle();
      return true;
    }
    if (candidates.length === 0) {
      if (this.#running.size + this.#blocked.size === 0) return false;
      await this.#waitForPostgres();
      return true;
    }
    // By order of arrival, which the race of two answers must not decide: by task first.
    candidates.sort((a, b) => a.task.id - b.task.id || a.order - b.order);
    const same = candidates.find((each) => each.task === this.#last);
    // Half of the time the same task goes on, so that some run far while others stand.
    const next = same && this.#random.chance(0.5) ? same : this.#random.pick(candidates);
    this.parked.splice(this.parked.indexOf(next), 1);
    this.#last = next.task;
    this.say(`${next.task.process.name} ${next.task.operation}#${next.task.id}: ${next.label}`);
    this.onStep(next.task);
    next.go();
    await this.#settle();
    return true;
  }

  say(line: string): void {
    this.trace.push(`${this.steps} ${line}`);
    if (this.trace.length > 4_000) this.trace.splice(0, 2_000);
  }

  /** Returns when every task stands at a gate, has ended, or waits for a lock. */
  async #settle(): Promise<void> {
    for (;;) {
      await turn();
      if (this.#released && this.#blocked.size > 0) {
        this.#released = false;
        // A commit grants the locks it held before it is answered, so this look is not too early.
        const still = await this.#waiting([...this.#blocked].map((each) => each.pid));
        for (const each of [...this.#blocked]) if (!still.has(each.pid)) this.#unblock(each);
        continue;
      }
      if (this.#running.size === 0) return;
      await this.#answerOrWait();
    }
  }

  #unblock(sent: Underway): void {
    this.#blocked.delete(sent);
    this.#running.add(sent);
  }

  /** An answer to one of the statements that run, or the knowledge that one of them waits for a lock. */
  async #answerOrWait(): Promise<void> {
    const running = [...this.#running];
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), this.#patienceMs);
    });
    const answered = await Promise.race([...running.map((each) => each.answered), patience]);
    clearTimeout(timer);
    if (answered) return;
    const waiting = await this.#waiting(running.map((each) => each.pid));
    const change = waiting.size > 0 ? -1 : 1;
    this.#patienceMs = Math.min(patienceMs.most, Math.max(patienceMs.least, this.#patienceMs + change));
    for (const each of running) {
      if (!waiting.has(each.pid) || !this.#running.has(each)) continue;
      this.#running.delete(each);
      this.#blocked.add(each);
      this.say(`${each.task.process.name} ${each.task.operation}#${each.task.id} waits for a lock`);
    }
  }

  /** All that is left waits for locks: PostgreSQL will find the cycle. */
  async #waitForPostgres(): Promise<void> {
    const answers = [...this.#running, ...this.#blocked].map((each) => each.answered);
    await Promise.race([...answers, sleep(100)]);
    this.#released = true;
    await this.#settle();
  }
}
