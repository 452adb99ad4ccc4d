/** Turns of one way to get files back, measured and put together, and the rows as a table. */
import { cpuBetween, readTreeCpu } from './process-cpu.ts';
import { residentBytes, watchMemory } from './process-memory.ts';
import { settle } from './restoring-world.ts';
import { inDigits, medianRatio, renderTable, type Summary, summarize } from './statistics.ts';

const GiB = 1024 ** 3;
const MiB = 1024 ** 2;

interface Turn {
  seconds: number;
  /** 10^6 plain bytes of files per second. */
  megabytesPerSecond: number;
  /** Processor seconds per GiB of plain bytes: of the server with its PostgreSQL, and of whoever asked. */
  serverCpu: number;
  postgresCpu: number;
  clientCpu: number;
  /** Most resident bytes of the server's process, and of the agent's, seen in the turn. */
  serverBytes: number;
  agentBytes: number;
}

export interface Row {
  name: string;
  files: number;
  turns: readonly Turn[];
}

export class RowOfTurns {
  readonly #name: string;
  readonly #of: { server: number; bytes: number; files: number };
  readonly #turns: Turn[] = [];

  /** @param of the server's process, and what a turn brings back */
  constructor(name: string, of: { server: number; bytes: number; files: number }) {
    this.#name = name;
    this.#of = of;
  }

  /** @param work answers with the seconds it counts itself, if it starts a process first */
  async take(work: () => Promise<{ seconds?: number; peakBytes?: number }>, counts: boolean): Promise<void> {
    const { server, bytes } = this.#of;
    const everything = readTreeCpu(process.pid);
    const before = readTreeCpu(server);
    const memory = watchMemory(server);
    const startedAt = performance.now();
    const { seconds: told, peakBytes = 0 } = await work();
    const seconds = told ?? (performance.now() - startedAt) / 1000;
    const cpu = cpuBetween(before, readTreeCpu(server));
    const all = cpuBetween(everything, readTreeCpu(process.pid));
    const serverBytes = memory();
    await settle();
    if (!counts) return;
    this.#turns.push({
      seconds,
      megabytesPerSecond: bytes / 1e6 / seconds,
      serverCpu: (cpu.seconds * GiB) / bytes,
      postgresCpu: (cpu.postgresSeconds * GiB) / bytes,
      clientCpu: ((all.seconds - cpu.seconds) * GiB) / bytes,
      serverBytes: Math.max(serverBytes, residentBytes(server) ?? 0),
      agentBytes: peakBytes,
    });
  }

  summary(): Row {
    return { name: this.#name, files: this.#of.files, turns: this.#turns };
  }
}

/** @param rows the first is what the others stand beside */
export function renderRows(rows: readonly Row[]): string {
  const of = (row: Row, what: keyof Turn): number[] => row.turns.map((turn) => turn[what]);
  const shown = (summary: Summary): string[] => [
    inDigits(summary.median),
    `(${inDigits(summary.min)} to ${inDigits(summary.max)})`,
  ];
  const first = rows[0]!;
  return renderTable(
    [
      '',
      'MB/s',
      '',
      'by the store',
      'files/s',
      'server CPU s/GiB',
      '',
      'of it PostgreSQL',
      'client CPU s/GiB',
      'server MiB',
      'agent MiB',
    ],
    rows.map((row) => [
      row.name,
      ...shown(summarize(of(row, 'megabytesPerSecond'))),
      `${inDigits(medianRatio(of(row, 'megabytesPerSecond'), of(first, 'megabytesPerSecond')))} x`,
      inDigits(row.files / summarize(of(row, 'seconds')).median),
      ...shown(summarize(of(row, 'serverCpu'))),
      inDigits(summarize(of(row, 'postgresCpu')).median),
      inDigits(summarize(of(row, 'clientCpu')).median),
      inDigits(Math.max(...of(row, 'serverBytes')) / MiB),
      inDigits(Math.max(...of(row, 'agentBytes')) / MiB),
    ]),
  );
}
