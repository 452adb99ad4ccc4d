/** Which operations overlapped with which: one took a step while the other had begun and not ended. */
import { allFaults, type Fault } from './faults.ts';

export interface CoverageReport {
  operations: Record<string, number>;
  pairs: Record<string, number>;
  faults: Record<string, number>;
}

export class Coverage {
  readonly operations = new Map<string, number>();
  readonly pairs = new Map<string, number>();
  readonly #open = new Map<number, string>();

  begin(task: number, operation: string): void {
    this.operations.set(operation, (this.operations.get(operation) ?? 0) + 1);
    this.#open.set(task, operation);
  }

  end(task: number): void {
    this.#open.delete(task);
  }

  /** A step of a task that is in an operation. */
  step(task: number): void {
    const moving = this.#open.get(task);
    if (!moving) return;
    for (const [other, operation] of this.#open) {
      if (other === task) continue;
      const pair = pairOf(moving, operation);
      this.pairs.set(pair, (this.pairs.get(pair) ?? 0) + 1);
    }
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
      pairs: Object.fromEntries(this.pairs),
      faults: Object.fromEntries(struck),
    };
  }
}

const pairOf = (a: string, b: string): string => (a < b ? `${a} x ${b}` : `${b} x ${a}`);

export function addReports(reports: readonly CoverageReport[]): CoverageReport {
  const sum: CoverageReport = { operations: {}, pairs: {}, faults: {} };
  for (const report of reports)
    for (const part of ['operations', 'pairs', 'faults'] as const)
      for (const [key, count] of Object.entries(report[part])) sum[part][key] = (sum[part][key] ?? 0) + count;
  return sum;
}

/** There is one operator, who adopts once at a time. */
const oneOperator = 'adopt x adopt';

/** Pairs of the operations that never overlapped, and faults that never struck: what a long run must not have. */
export function missing(report: CoverageReport, operations: readonly string[]): string[] {
  const pairs = operations
    .flatMap((a, i) => operations.slice(i).map((b) => pairOf(a, b)))
    .filter((pair) => pair !== oneOperator);
  return [
    ...pairs.filter((pair) => !report.pairs[pair]),
    ...allFaults.filter((fault) => !report.faults[fault]).map((fault) => `fault ${fault}`),
  ];
}

/** A table of how many steps each pair overlapped in, and the faults below it. */
export function describe(report: CoverageReport): string {
  const names = Object.keys(report.operations).sort();
  const width = Math.max(0, ...names.map((name) => name.length));
  const short = (count: number): string => (count < 100_000 ? `${count}` : `${Math.round(count / 1000)}k`);
  const head = `${' '.repeat(width)}  ${names.map((_, i) => `${i + 1}`.padStart(6)).join('')}   begun`;
  const lines = names.map((name, row) => {
    const cells = names.map((other, column) =>
      (column > row ? '' : short(report.pairs[pairOf(name, other)] ?? 0)).padStart(6),
    );
    return `${name.padEnd(width)}${`${row + 1}`.padStart(2)}${cells.join('')}  ${report.operations[name]}`;
  });
  const faults = Object.entries(report.faults).map(([fault, count]) => `${fault} ${count}`);
  return ['steps in which two operations overlapped:', head, ...lines, `faults: ${faults.join(', ')}`].join('\n');
}
