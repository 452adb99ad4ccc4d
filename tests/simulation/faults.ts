/** Every kind of fault of a simulation: how often it strikes, and how often it did. */
import type { Random } from '../helpers/random.ts';

/** How likely each strikes, at each occasion for it. Those at 0 are events of the world (world.ts), and only counted. */
const rates = {
  // the object store
  storeErrorBefore: 0.03,
  storeErrorAfter: 0.08,
  storeDelay: 0.06,
  storeTornWrite: 0.05,
  storeLatePut: 0.08,
  storeLateDelete: 0.1,
  storeStaleList: 0.3,
  storeSlowRead: 0.05,
  storeTornRead: 0.03,
  putAfterDelete: 0,
  bitFlip: 0,
  // the database
  connectionLostBefore: 0.004,
  connectionLostAfter: 0.004,
  commitLostBefore: 0.01,
  commitLostAfter: 0.015,
  catalogSetBack: 0,
  // the clock
  clockJump: 0,
  clockStepBack: 0,
  clockWrong: 0,
  // processes and the network between them
  pause: 0.006,
  requestLost: 0.01,
  answerLost: 0.02,
  agentCrash: 0,
  serverCrash: 0,
  workerCrash: 0,
  landedAfterCrash: 0,
} as const;

export type Fault = keyof typeof rates;
export const allFaults = Object.keys(rates) as Fault[];

export class Faults {
  readonly struck = new Map<Fault, number>(allFaults.map((fault) => [fault, 0]));
  /** Set to false, and nothing goes wrong any more. */
  active = true;
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Whether it strikes now; counted when it does. */
  strikes(fault: Fault): boolean {
    if (!this.active || !this.#random.chance(rates[fault])) return false;
    this.count(fault);
    return true;
  }

  count(fault: Fault): void {
    this.struck.set(fault, this.struck.get(fault)! + 1);
  }

  get total(): number {
    return [...this.struck.values()].reduce((sum, count) => sum + count, 0);
  }
}
