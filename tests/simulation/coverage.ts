/**
 * Which operations overlapped with which (one took a step while the other had begun and not ended), and what took effect
 * while which others were under way. The second is what counts: two operations that find nothing to do overlap as well.
 */
import { allEffects, type Effect } from './effects.ts';
import { allFaults, type Fault } from './faults.ts';

export interface CoverageReport {
  operations: Record<string, number>;
  pairs: Record<string, number>;
  faults: Record<string, number>;
  /** How often each took effect while everything was going on. */
  effects: Record<string, number>;
  /** `effect | operation`: how often it did so while somebody else was in such an operation. */
  met: Record<string, number>;
  /** `operation: how it ended`. */
  outcomes: Record<string, number>;
}

type Part = keyof CoverageReport;
const parts = ['operations', 'pairs', 'faults', 'effects', 'met', 'outcomes'] as const satisfies Part[];

/** What every effect has to meet in a long run: those that need what may be taken away, and those that take it. */
const mainOperations = [
  'claim',
  'upload',
  'commit',
  'read',
  'hold',
  'prune',
  'reclaim',
  'settle',
  'compact',
  'delete objects',
];

export class Coverage {
  readonly operations = new Map<string, number>();
  /** Set to false when the world comes to rest: what happens then happens alone. */
  isLive = true;
  readonly #pairs = new Map<string, number>();
  readonly #effects = new Map<string, number>();
  readonly #met = new Map<string, number>();
  readonly #outcomes = new Map<string, number>();
  readonly #open = new Map<number, string>();

  begin(task: number, operation: string): void {
    if (this.isLive) raise(this.operations, operation);
    this.#open.set(task, operation);
  }

  end(task: number): void {
    this.#open.delete(task);
  }

  /** A step of a task that is in an operation. */
  step(task: number): void {
    const moving = this.#open.get(task);
    if (!moving) return;
    for (const [other, operation] of this.#open) if (other !== task) raise(this.#pairs, pairOf(moving, operation));
  }

  /** @param task who did it; null: it happened late, by nobody who is still there */
  tookEffect(task: number | null, effects: readonly Effect[]): void {
    if (!this.isLive) return;
    const others = new Set([...this.#open].filter(([other]) => other !== task).map(([, operation]) => operation));
    for (const effect of effects) {
      raise(this.#effects, effect);
      for (const operation of others) raise(this.#met, `${effect} | ${operation}`);
    }
  }

  ended(operation: string, outcome: string): void {
    if (this.isLive) raise(this.#outcomes, `${operation}: ${outcome}`);
  }

  /** Whether some task is in such an operation now. */
  isUnderWay(operation: string): boolean {
    return this.#open.values().some((open) => open === operation);
  }

  get begun(): number {
    return [...this.operations.values()].reduce((sum, count) => sum + count, 0);
  }

  report(struck: ReadonlyMap<Fault, number>): CoverageReport {
    return {
      operations: Object.fromEntries(this.operations),
      pairs: Object.fromEntries(this.#pairs),
      faults: Object.fromEntries(struck),
      effects: Object.fromEntries(this.#effects),
      met: Object.fromEntries(this.#met),
      outcomes: Object.fromEntries(this.#outcomes),
    };
  }
}

const pairOf = (a: string, b: string): string => (a < b ? `${a} x ${b}` : `${b} x ${a}`);

function raise(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

export function addReports(reports: readonly CoverageReport[]): CoverageReport {
  const sum: CoverageReport = { operations: {}, pairs: {}, faults: {}, effects: {}, met: {}, outcomes: {} };
  for (const report of reports)
    for (const part of parts)
      for (const [key, count] of Object.entries(report[part])) sum[part][key] = (sum[part][key] ?? 0) + count;
  return sum;
}

/** There is one operator, who adopts once at a time. */
const oneOperator = 'adopt x adopt';

/** What a long run must not have: operations that never overlapped, faults that never struck, effects that met nobody. */
export function missing(report: CoverageReport, operations: readonly string[]): string[] {
  const pairs = operations
    .flatMap((a, i) => operations.slice(i).map((b) => pairOf(a, b)))
    .filter((pair) => pair !== oneOperator);
  const meetings = allEffects.flatMap((effect) => mainOperations.map((operation) => `${effect} | ${operation}`));
  return [
    ...pairs.filter((pair) => !report.pairs[pair]),
    ...allFaults.filter((fault) => !report.faults[fault]).map((fault) => `fault ${fault}`),
    ...allEffects.filter((effect) => !report.effects[effect]).map((effect) => `effect ${effect}`),
    ...meetings.filter((meeting) => !report.met[meeting]),
  ];
}

const short = (count: number): string => (count < 100_000 ? `${count}` : `${Math.round(count / 1000)}k`).padStart(6);

/** How many steps each pair overlapped in, what took effect beside what, and the faults below. */
export function describe(report: CoverageReport): string {
  const names = Object.keys(report.operations).sort();
  const width = Math.max(16, ...names.map((name) => name.length));
  const head = `${' '.repeat(width)}  ${names.map((_, i) => `${i + 1}`.padStart(6)).join('')}   begun`;
  const pairs = names.map((name, row) => {
    const cells = names.map((other, column) =>
      column > row ? ' '.repeat(6) : short(report.pairs[pairOf(name, other)] ?? 0),
    );
    return `${name.padEnd(width)}${`${row + 1}`.padStart(2)}${cells.join('')}  ${report.operations[name]}`;
  });
  const effects = allEffects.map((effect) => {
    const cells = names.map((operation) => short(report.met[`${effect} | ${operation}`] ?? 0));
    return `${effect.padEnd(width)}  ${cells.join('')}  ${report.effects[effect] ?? 0}`;
  });
  const list = (counts: Record<string, number>): string =>
    Object.entries(counts)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, count]) => `${name} ${count}`)
      .join(', ');
  return [
    'steps in which two operations overlapped:',
    head,
    ...pairs,
    'what took effect while which others were under way, and how often:',
    head,
    ...effects,
    `how operations ended: ${list(report.outcomes)}`,
    `faults: ${list(report.faults)}`,
  ].join('\n');
}
