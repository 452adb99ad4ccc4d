/** One turn of the benchmark measured, and the turns of a row put together. */
import { cpuBetween, readTreeCpu } from './process-cpu.ts';
import { medianRatio, type Summary, summarize } from './statistics.ts';

const GiB = 1024 ** 3;

export interface Measurement {
  seconds: number;
  /** 10^6 bytes of blocks per second. */
  megabytesPerSecond: number;
  /** Processor seconds of the server's processes per GiB of blocks, PostgreSQL's included. */
  cpuSecondsPerGiB: number;
  postgresCpuSecondsPerGiB: number;
  /** Processors the client kept busy: at 1 it, and not the server, may be the limit. */
  clientCores: number;
}

/** Does the work once. @param pid of the server's first process; @param bytes of blocks that the work moves */
export async function measure(pid: number, bytes: number, work: () => Promise<void>): Promise<Measurement> {
  const clientBefore = process.cpuUsage();
  const before = readTreeCpu(pid);
  const startedAt = performance.now();
  await work();
  const seconds = (performance.now() - startedAt) / 1000;
  const cpu = cpuBetween(before, readTreeCpu(pid));
  const client = process.cpuUsage(clientBefore);
  return {
    seconds,
    megabytesPerSecond: bytes / 1e6 / seconds,
    cpuSecondsPerGiB: (cpu.seconds * GiB) / bytes,
    postgresCpuSecondsPerGiB: (cpu.postgresSeconds * GiB) / bytes,
    clientCores: (client.user + client.system) / 1e6 / seconds,
  };
}

export interface SideResult {
  megabytesPerSecond: Summary;
  cpuSecondsPerGiB: Summary;
  postgresCpuSecondsPerGiB: Summary;
  clientCores: Summary;
}

export interface RowResult {
  name: string;
  /** Blocks moved in one round; for commits, also the files. */
  blocks: number;
  /** Seconds of a round of ours. */
  seconds: Summary;
  holdfast: SideResult;
  bare: SideResult | null;
  /** Ours by the bare handler's, round by round, the median. Null where there is nothing to stand beside. */
  ratio: { megabytesPerSecond: number; cpuSecondsPerGiB: number } | null;
}

/** @param bare as many rounds as ours, or null */
export function summarizeRow(row: {
  name: string;
  blocks: number;
  holdfast: readonly Measurement[];
  bare: readonly Measurement[] | null;
}): RowResult {
  const { holdfast, bare } = row;
  const ratioOf = (of: keyof Measurement): number =>
    medianRatio(
      holdfast.map((each) => each[of]),
      bare!.map((each) => each[of]),
    );
  return {
    name: row.name,
    blocks: row.blocks,
    seconds: summarize(holdfast.map((each) => each.seconds)),
    holdfast: summarizeSide(holdfast),
    bare: bare && summarizeSide(bare),
    ratio: bare && { megabytesPerSecond: ratioOf('megabytesPerSecond'), cpuSecondsPerGiB: ratioOf('cpuSecondsPerGiB') },
  };
}

function summarizeSide(rounds: readonly Measurement[]): SideResult {
  const of = (key: keyof Measurement): Summary => summarize(rounds.map((each) => each[key]));
  return {
    megabytesPerSecond: of('megabytesPerSecond'),
    cpuSecondsPerGiB: of('cpuSecondsPerGiB'),
    postgresCpuSecondsPerGiB: of('postgresCpuSecondsPerGiB'),
    clientCores: of('clientCores'),
  };
}
