/** What restic's commands took, side by side: turns measured, put together, and as a table. */
import { cpuBetween, readTreeCpu } from './process-cpu.ts';
import type { SideName } from './restic-sides.ts';
import { inDigits, medianRatio, renderTable, type Summary, summarize } from './statistics.ts';

const GiB = 1024 ** 3;

/** In the order in which they are run. */
export const steps = ['init', 'backup', 'check', 'restore'] as const;
export type Step = (typeof steps)[number];

const words: Record<Step, string> = {
  init: 'init',
  backup: 'backup',
  check: 'check --read-data',
  restore: 'restore',
};

export interface Turn {
  /** Of the command, from its start to its end. */
  seconds: number;
  /** Until the disk had all of it, after the command's end. */
  syncSeconds: number;
  /** Processor seconds of the server's processes, with PostgreSQL's; of PostgreSQL's alone; and of restic. */
  serverCpuSeconds: number;
  postgresCpuSeconds: number;
  clientCpuSeconds: number;
  /** Requests that restic sent again. */
  retries: number;
}

export interface ResticRow {
  step: Step;
  side: SideName;
  seconds: Summary;
  syncSeconds: Summary;
  /** Per GiB of the tree, whatever the command moves. */
  serverCpuPerGiB: Summary;
  postgresCpuPerGiB: Summary;
  clientCpuPerGiB: Summary;
  /** Of all rounds. */
  retries: number;
  /** Seconds by those of each other side, round by round, the median. */
  by: Partial<Record<SideName, number>>;
}

export interface ResticReport {
  at: string;
  node: string;
  processors: number;
  loadBefore: number;
  loadAfter: number;
  rounds: number;
  quick: boolean;
  profiled: boolean;
  bytes: number;
  files: number;
  rows: ResticRow[];
}

export class Turns {
  readonly #bytes: number;
  readonly #turns = new Map<Step, Map<SideName, Turn[]>>();

  /** @param bytes of the tree */
  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  /** Does the work once. @param pid of the server's first process; null: there is no server. @param work answers with retries */
  static async measure(pid: number | null, work: () => Promise<number>, sync: () => Promise<void>): Promise<Turn> {
    const server = (): ReturnType<typeof readTreeCpu> =>
      pid === null ? { seconds: 0, postgresSeconds: 0 } : readTreeCpu(pid);
    const before = server();
    const everythingBefore = readTreeCpu(process.pid);
    const startedAt = performance.now();
    const retries = await work();
    const seconds = (performance.now() - startedAt) / 1000;
    const cpu = cpuBetween(before, server());
    const everything = cpuBetween(everythingBefore, readTreeCpu(process.pid));
    const syncedAt = performance.now();
    await sync();
    return {
      seconds,
      syncSeconds: (performance.now() - syncedAt) / 1000,
      serverCpuSeconds: cpu.seconds,
      postgresCpuSeconds: cpu.postgresSeconds,
      clientCpuSeconds: everything.seconds - cpu.seconds,
      retries,
    };
  }

  add(step: Step, side: SideName, turn: Turn): void {
    const sides = this.#turns.get(step) ?? new Map<SideName, Turn[]>();
    this.#turns.set(step, sides);
    sides.set(side, [...(sides.get(side) ?? []), turn]);
  }

  rows(): ResticRow[] {
    return [...this.#turns].flatMap(([step, sides]) =>
      [...sides].map(([side, turns]) => this.#row(step, side, turns, sides)),
    );
  }

  #row(step: Step, side: SideName, turns: readonly Turn[], sides: ReadonlyMap<SideName, readonly Turn[]>): ResticRow {
    const perGiB = (of: keyof Turn): Summary => summarize(turns.map((turn) => (turn[of] * GiB) / this.#bytes));
    const seconds = turns.map((turn) => turn.seconds);
    const others = [...sides].filter(([name]) => name !== side);
    return {
      step,
      side,
      seconds: summarize(seconds),
      syncSeconds: summarize(turns.map((turn) => turn.syncSeconds)),
      serverCpuPerGiB: perGiB('serverCpuSeconds'),
      postgresCpuPerGiB: perGiB('postgresCpuSeconds'),
      clientCpuPerGiB: perGiB('clientCpuSeconds'),
      retries: turns.reduce((sum, turn) => sum + turn.retries, 0),
      by: Object.fromEntries(
        others.map(([name, theirs]) => [
          name,
          medianRatio(
            seconds,
            theirs.map((turn) => turn.seconds),
          ),
        ]),
      ),
    };
  }
}

const order: readonly SideName[] = ['Holdfast', 'rclone', 'folder'];

export function renderResticReport(report: ResticReport): string {
  const rows = report.rows.toSorted(
    (a, b) => steps.indexOf(a.step) - steps.indexOf(b.step) || order.indexOf(a.side) - order.indexOf(b.side),
  );
  const ratio = (value: number | undefined): string => (value === undefined ? '' : `${inDigits(value)} x`);
  const table = renderTable(
    [
      '',
      's',
      '',
      'by rclone',
      'by a folder',
      'then until synced, s',
      'server CPU s/GiB',
      'of it PostgreSQL',
      'restic CPU s/GiB',
      'retries',
    ],
    rows.map((row) => [
      `${words[row.step]}, ${row.side}`,
      inDigits(row.seconds.median),
      `(${inDigits(row.seconds.min)} to ${inDigits(row.seconds.max)})`,
      ratio(row.by.rclone),
      ratio(row.by.folder),
      inDigits(row.syncSeconds.median),
      inDigits(row.serverCpuPerGiB.median),
      inDigits(row.postgresCpuPerGiB.median),
      inDigits(row.clientCpuPerGiB.median),
      String(row.retries),
    ]),
  );
  const warnings = [
    ...(report.quick ? ['QUICK: too little for figures; it shows that everything works.'] : []),
    ...(report.profiled ? ['PROFILED: slower than it is.'] : []),
  ];
  return `
restic with Holdfast, with rclone serve restic (both over TLS, on loopback), and with a folder: one disk, one machine with
${report.processors} processors, ${report.files} files of ${inDigits(report.bytes / 1e6)} MB, ${report.rounds} rounds, turn by turn; medians (least to most).
Node ${report.node}. Load average before: ${inDigits(report.loadBefore)}, after: ${inDigits(report.loadAfter)} (this run's own share is in it).
${[...warnings, ''].join('\n')}
${table}`;
}
