/**
 * `npm run benchmark:garbage`: whether deleting costs what there is to delete, or what there is. Two catalogs of the same
 * size, in one of which a hundredth of the files have versions due to expire and in the other all; each is pruned, and
 * what it took is compared. Then what reclaim costs when there is something, and when there is nothing; and the memory
 * of the worker that does each. Everything written is removed. docs/performance.md says how to read it.
 */
import { mkdirSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BenchmarkOptions, readBenchmarkOptions } from './benchmark-options.ts';
import { type Program, startProgram } from './child-process.ts';
import { compareCosts, type NothingDue, type StepCost } from './garbage-figures.ts';
import { runLoadTest, serverNodeArguments } from './load-program.ts';
import { inDigits, renderTable } from './statistics.ts';

const seedMain = fileURLToPath(new URL('../server/commands/seed.ts', import.meta.url));
const postgresMain = fileURLToPath(new URL('./garbage-postgres.child.ts', import.meta.url));
const workerMain = fileURLToPath(new URL('./garbage-worker.child.ts', import.meta.url));

const usage = `usage: npm run benchmark:garbage -- [options]
  --data FOLDER   where the scratch folder lies, on the disk to be measured (default: the system's for temporary files)
  --quick         a hundredth of the size: whether it works, not what it costs
  --json          one JSON object instead of tables`;

/** The same in both catalogs but for who expires. Ten users; a tenth of the blocks are for reclaim. */
const sizeOf = (quick: boolean): string[] => [
  '--blocks',
  quick ? '50000' : '5000000',
  '--versions',
  quick ? '10000' : '1000000',
  '--vaults',
  '10',
  '--freed',
  '0.1',
];
/** What compact and verify have to do: 0.4 GiB in sparse objects, as much in full ones. */
const bytesOf = (quick: boolean): string[] => [
  '--blocks',
  quick ? '640' : '6400',
  '--versions',
  '500',
  '--block-bytes',
  '65536',
  '--sparse',
  quick ? '3' : '25',
];

const seedTimeoutMs = 900_000;
const stepTimeoutMs = 900_000;

interface Stage {
  scratch: string;
  postgresPid: number;
  urls: Record<string, string>;
  say: (line: string) => void;
  onStart: (program: Program) => void;
}

async function seed(stage: Stage, catalog: string, args: readonly string[]): Promise<Record<string, number>> {
  stage.say(`seeding the catalog "${catalog}"`);
  const program = startProgram(seedMain, [...args, '--json'], {
    environment: {
      HOLDFAST_DATABASE_URL: stage.urls[catalog]!,
      HOLDFAST_OBJECTS_FOLDER: join(stage.scratch, `objects-${catalog}`),
    },
  });
  stage.onStart(program);
  const [said] = await program.says(/^\{.*\}$/m, seedTimeoutMs);
  return JSON.parse(said) as Record<string, number>;
}

async function runStep<Result>(stage: Stage, catalog: string, step: string): Promise<StepCost<Result>> {
  stage.say(`${step} in "${catalog}"`);
  const objects = join(stage.scratch, `objects-${catalog}`);
  mkdirSync(objects, { recursive: true });
  const program = startProgram(workerMain, [stage.urls[catalog]!, objects, String(stage.postgresPid), step], {
    nodeArguments: serverNodeArguments,
  });
  stage.onStart(program);
  const [said] = await program.says(/^\{.*\}$/m, stepTimeoutMs);
  return JSON.parse(said) as StepCost<Result>;
}

interface Report {
  at: string;
  node: string;
  processors: number;
  load: { before: number; after: number };
  quick: boolean;
  seeded: Record<string, number>;
  few: StepCost<Record<string, number>>;
  all: StepCost<Record<string, number>>;
  ratio: ReturnType<typeof compareCosts>;
  reclaim: StepCost<Record<string, number>>;
  nothing: StepCost<NothingDue>;
  compact: StepCost<Record<string, number>>;
  verify: StepCost<Record<string, number>>;
  peakMemoryMiB: number;
}

async function run(options: BenchmarkOptions, scratch: string, onStart: (program: Program) => void): Promise<Report> {
  const say = (line: string): void => {
    if (!options.json) process.stderr.write(`  ${line}\n`);
  };
  const [before = 0] = loadavg();
  say('starting a PostgreSQL on a scratch folder');
  const program = startProgram(postgresMain, [join(scratch, 'postgres'), 'few', 'all', 'bytes'], {
    endsByItself: true,
  });
  onStart(program);
  const [said] = await program.says(/^\{.*\}$/m, 180_000);
  const { pid, urls } = JSON.parse(said) as { pid: number; urls: Record<string, string> };
  const stage: Stage = { scratch, postgresPid: pid, urls, say, onStart };

  const size = sizeOf(options.quick);
  await seed(stage, 'few', [...size, '--expiring', '0.01']);
  const seeded = await seed(stage, 'all', [...size, '--expiring', '1']);
  await seed(stage, 'bytes', [...bytesOf(options.quick), '--with-objects']);
  const few = await runStep<Record<string, number>>(stage, 'few', 'prune');
  const all = await runStep<Record<string, number>>(stage, 'all', 'prune');
  const reclaim = await runStep<Record<string, number>>(stage, 'all', 'reclaim');
  const nothing = await runStep<NothingDue>(stage, 'all', 'reclaim-nothing');
  const compact = await runStep<Record<string, number>>(stage, 'bytes', 'compact');
  const verify = await runStep<Record<string, number>>(stage, 'bytes', 'verify');
  const [after = 0] = loadavg();
  return {
    at: new Date().toISOString(),
    node: process.versions.node,
    processors: availableParallelism(),
    load: { before, after },
    quick: options.quick,
    seeded,
    few,
    all,
    ratio: compareCosts(few, all),
    reclaim,
    nothing,
    compact,
    verify,
    peakMemoryMiB: Math.max(...[few, all, reclaim, nothing, compact, verify].map((each) => each.peakMemoryMiB)),
  };
}

function render(report: Report): string {
  const { seeded, few, all, ratio, reclaim, nothing, compact, verify } = report;
  const cost = (name: string, step: StepCost<unknown>): string[] => [
    name,
    inDigits(step.seconds),
    inDigits(step.workerCpuSeconds + step.postgresCpuSeconds),
    inDigits(step.postgresCpuSeconds),
    inDigits(step.walBytes / 1e6),
    inDigits(step.peakMemoryMiB),
  ];
  const percent = (share: number): string => `${inDigits(share * 100)} %`;
  const { result } = nothing;
  return `
Catalogs of ${seeded.blocks} blocks and ${seeded.versions} versions, ten users. ${report.processors} processors, Node ${report.node}, load average ${inDigits(report.load.before)} before and ${inDigits(report.load.after)} after.${report.quick ? '\nQUICK: too little for figures; it shows that everything works.' : ''}

${renderTable(
  ['', 'seconds', 'CPU s', 'of it PostgreSQL', 'WAL MB', 'peak MiB'],
  [
    cost(`prune, ${few.result.versions} versions`, few),
    cost(`prune, ${all.result.versions} versions`, all),
    cost(`reclaim, ${reclaim.result.blocks} blocks`, reclaim),
    cost(`compact, ${inDigits(compact.result.bytes! / 1e6)} MB`, compact),
    cost(`verify, ${inDigits(verify.result.bytes! / 1e6)} MB`, verify),
  ],
)}

Pruning ${percent(ratio.versions)} of the versions that can go costs, of what pruning all of them costs,
  ${percent(ratio.cpuSeconds)} of the processor time, ${percent(ratio.seconds)} of the time, ${percent(ratio.walBytes)} of the WAL.
Reclaim with nothing due, and ${result.waiting} blocks waiting for the end of their claims: ${inDigits(result.medianMs)} ms (median of ${result.calls}; 99 % within ${inDigits(result.p99Ms)} ms).
  WAL of ${result.walBytesOfSeries.length} series of ${result.calls / result.walBytesOfSeries.length}: ${result.walBytesOfSeries.join(', ')} bytes.
Peak memory of a worker: ${inDigits(report.peakMemoryMiB)} MiB.
`;
}

await runLoadTest({
  name: 'holdfast-garbage-',
  usage,
  readOptions: () => readBenchmarkOptions(usage).options,
  run,
  render,
});
