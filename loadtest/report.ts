/** A benchmark's result, for people: ratios, then figures, then what bounds them. */
import type { DiskYardstick } from './disk-yardstick.ts';
import type { RowResult, SideResult } from './measurements.ts';
import { inDigits, renderTable, type Summary } from './statistics.ts';

export interface Report {
  /** When it ended (ISO 8601). */
  at: string;
  node: string;
  processors: number;
  /** Load average of the minute before it began: what others were doing. */
  loadBefore: number;
  rounds: number;
  quick: boolean;
  profiled: boolean;
  windows: { streamBytes: number; connectionBytes: number };
  /** Processors the server keeps busy while nobody asks anything. */
  idleCores: number;
  /** Writing and flushing alone, on the same disk. */
  disk: DiskYardstick;
  rows: RowResult[];
}

export function renderReport(report: Report): string {
  const beside = report.rows.filter((row) => row.bare !== null);
  const alone = report.rows.filter((row) => row.bare === null);
  const { windows } = report;
  return `
Holdfast beside a bare node:http2 handler that only receives and hashes the same bodies (reading: sends as many bytes).
One machine with ${report.processors} processors, loopback, one TLS connection setup, HTTP/2 windows of ${windows.streamBytes / 2 ** 20} MiB a stream and ${windows.connectionBytes / 2 ** 20} MiB a connection for both,
the same client for both; ${report.rounds} rounds, turn by turn, medians (least to most). Node ${report.node}.${report.loadBefore > 0.5 ? `\nThe machine was busy with other things (load average ${inDigits(report.loadBefore)}): MB/s say little then, CPU seconds more, ratios most.` : ''}${report.quick ? '\nQUICK: too little for figures; it shows that everything works.' : ''}${report.profiled ? '\nPROFILED: the server was slowed down by its profiler; do not compare.' : ''}

Holdfast by bare (MB/s: more is better; CPU: less is better)
${renderTable(
  ['', 'MB/s', 'CPU s/GiB'],
  beside.map((row) => [
    row.name,
    `${inDigits(row.ratio!.megabytesPerSecond)} x`,
    `${inDigits(row.ratio!.cpuSecondsPerGiB)} x`,
  ]),
)}

MB/s (10^6 bytes of blocks per second)
${renderTable(
  ['', 'Holdfast', '', 'bare', ''],
  beside.map((row) => [
    row.name,
    ...inColumns(row.holdfast.megabytesPerSecond),
    ...inColumns(row.bare!.megabytesPerSecond),
  ]),
)}

CPU seconds per GiB of blocks, of all the server's processes
${renderTable(
  ['', 'Holdfast', '', 'of it PostgreSQL', 'bare', ''],
  beside.map((row) => [
    row.name,
    ...inColumns(row.holdfast.cpuSecondsPerGiB),
    inDigits(row.holdfast.postgresCpuSecondsPerGiB.median),
    ...inColumns(row.bare!.cpuSecondsPerGiB),
  ]),
)}

Claim of blocks the server has, and commit of one file for each (the bare handler has nothing like it)
${renderTable(['', 'files/s', 'CPU ms per 1,000 files', 'CPU s/GiB', 'of it PostgreSQL'], alone.map(commitLine))}

What bounds it
${[...beside.map(boundLine), `To write and flush bytes to this disk, and nothing else, took ${inDigits(report.disk.cpuSecondsPerGiB)} CPU s/GiB (${inDigits(report.disk.megabytesPerSecond)} MB/s), once: Holdfast's uploads include such writes, the bare handler's do not.`, `At rest the server uses ${inDigits(report.idleCores * 100)} % of one processor.`].map((line) => `  ${line}`).join('\n')}
`;
}

function inColumns(summary: Summary): [string, string] {
  return [inDigits(summary.median), `(${inDigits(summary.min)} to ${inDigits(summary.max)})`];
}

function commitLine(row: RowResult): string[] {
  const { cpuSecondsPerGiB, postgresCpuSecondsPerGiB, megabytesPerSecond } = row.holdfast;
  const filesPerSecond = row.blocks / row.seconds.median;
  const gibPerRound = (megabytesPerSecond.median * 1e6 * row.seconds.median) / 2 ** 30;
  const cpuMsPerThousand = (cpuSecondsPerGiB.median * gibPerRound * 1e6) / row.blocks;
  return [
    row.name,
    inDigits(filesPerSecond),
    inDigits(cpuMsPerThousand),
    inDigits(cpuSecondsPerGiB.median),
    inDigits(postgresCpuSecondsPerGiB.median),
  ];
}

/** What one processor could carry if the rest of the machine did not matter, and what was busy at the measured rate. */
function boundLine(row: RowResult): string {
  const perProcessor = (side: SideResult): string => inDigits(2 ** 30 / 1e6 / side.cpuSecondsPerGiB.median);
  const busy = (side: SideResult): string =>
    inDigits((side.megabytesPerSecond.median * 1e6 * side.cpuSecondsPerGiB.median) / 2 ** 30);
  return `${row.name}: a processor's worth of work is ${perProcessor(row.holdfast)} MB/s, of the bare handler ${perProcessor(row.bare!)}; busy were ${busy(row.holdfast)} processors (bare ${busy(row.bare!)}) and ${inDigits(row.holdfast.clientCores.median)} (${inDigits(row.bare!.clientCores.median)}) for the client.`;
}
