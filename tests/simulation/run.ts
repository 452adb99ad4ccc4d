/**
 * Runs simulations: `node tests/simulation/run.ts --seeds N --first-seed M [--ops 500] [--faults 50] [--jobs 2]`.
 * Each seed is a world of its own. A failing one prints itself, its last steps and how to run it again; the exit code
 * says whether all were well. A run of 500 seeds or more also fails when, in all seeds together, two operations never
 * overlapped, a fault never struck, or something never took effect while a main operation of others was under way.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { testDatabase } from '../helpers/postgres.ts';
import { addReports, type CoverageReport, describe, missing } from './coverage.ts';
import { Lane } from './lane.ts';
import { runSeed, type SeedOptions, type SeedResult } from './seed.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '1000' },
    'first-seed': { type: 'string', default: '1' },
    ops: { type: 'string', default: '500' },
    faults: { type: 'string', default: '50' },
    jobs: { type: 'string', default: '2' },
    /** Run each seed so often: where PostgreSQL decides (scheduler.ts), one time is not like the other. */
    repeat: { type: 'string', default: '1' },
    'keep-going': { type: 'boolean', default: false },
    trace: { type: 'boolean', default: false },
    /** Internal: this process runs seeds as its parent tells, on this cluster. */
    cluster: { type: 'string' },
  },
});

const seedsForCoverage = 500;
const options: SeedOptions = { operations: Number(values.ops), faults: Number(values.faults) };

if (values.cluster) await beLane(values.cluster);
else process.exitCode = await runAll();

/** Runs each seed it is sent, and answers with its result. */
async function beLane(cluster: string): Promise<void> {
  const lane = new Lane(cluster);
  let last = Promise.resolve();
  process.on('message', (seed: number) => {
    last = last.then(async () => void process.send!(await runSeed(lane, seed, options)));
  });
  process.on('disconnect', () => void last.finally(() => lane.close()).finally(() => process.exit()));
}

async function runAll(): Promise<number> {
  const first = Number(values['first-seed']);
  const each = Array.from({ length: Number(values.seeds) }, (_, i) => first + i);
  const seeds = Array.from({ length: Number(values.repeat) }, () => each).flat();
  const lanes = Math.max(1, Math.min(Number(values.jobs), seeds.length));
  const database = await testDatabase({ migrated: false });
  const begun = performance.now();
  const failed: SeedResult[] = [];
  const reports: CoverageReport[] = [];
  const sum = { steps: 0, checks: 0, operations: 0, faults: 0, read: 0, ms: 0 };
  const onResult = (result: SeedResult): void => {
    reports.push(result.coverage);
    sum.steps += result.steps;
    sum.checks += result.checks;
    sum.operations += result.operations;
    sum.faults += result.faults;
    sum.read += result.versionsRead;
    sum.ms += result.ms;
    if (result.failure !== null) failed.push(result);
    if (result.failure !== null) tell(result);
    else if (reports.length % 10 === 0 || seeds.length <= 10)
      console.log(
        `seed ${result.seed}: ${result.operations} operations, ${result.faults} faults, ${result.steps} steps, ` +
          `${result.checks} checks, ${result.versionsRead} versions read back, ${(result.ms / 1000).toFixed(1)} s ` +
          `(${reports.length}/${seeds.length})`,
      );
  };
  await Promise.all(
    Array.from({ length: lanes }, () =>
      runLane(
        database.connectionString,
        () => (failed.length > 0 && !values['keep-going'] ? undefined : seeds.shift()),
        onResult,
      ),
    ),
  );
  await database.drop();

  const report = addReports(reports);
  console.log(describe(report));
  console.log(
    `${reports.length} seeds, ${failed.length} failed; ${sum.operations} operations, ${sum.faults} faults, ${sum.steps} steps, ` +
      `${sum.checks} checks of the whole catalog, ${sum.read} versions read back; ` +
      `${((performance.now() - begun) / 1000).toFixed(0)} s, ${(sum.ms / 1000 / reports.length).toFixed(2)} s a seed`,
  );
  if (failed.length > 0) {
    console.log(`failed: ${failed.map((each) => each.seed).join(' ')}`);
    return 1;
  }
  const gaps = missing(report, Object.keys(report.operations).sort());
  if (gaps.length > 0) console.log(`not seen: ${gaps.join(', ')}`);
  return reports.length >= seedsForCoverage && gaps.length > 0 ? 1 : 0;
}

function tell(result: SeedResult): void {
  const lines = values.trace ? result.trace : result.trace.slice(-40);
  console.log(`seed ${result.seed} FAILED after ${result.steps} steps:\n${result.failure}`);
  console.log(`its last steps:\n  ${lines.join('\n  ')}`);
  const { ops, faults } = values;
  console.log(
    `again: node tests/simulation/run.ts --seeds 1 --first-seed ${result.seed} --ops ${ops} --faults ${faults} --trace --repeat 5`,
  );
}

/** One process that runs seeds for as long as there are any. */
async function runLane(
  cluster: string,
  nextSeed: () => number | undefined,
  onResult: (result: SeedResult) => void,
): Promise<void> {
  const child: ChildProcess = fork(
    fileURLToPath(import.meta.url),
    [...process.argv.slice(2).filter((each) => each !== '--trace'), '--cluster', cluster],
    { execArgv: ['--disable-warning=ExperimentalWarning'] },
  );
  try {
    for (let seed = nextSeed(); seed !== undefined; seed = nextSeed()) {
      child.send(seed);
      onResult(await answerOf(child));
    }
  } finally {
    child.disconnect();
  }
}

function answerOf(child: ChildProcess): Promise<SeedResult> {
  return new Promise((resolve, reject) => {
    const onExit = (code: number | null): void => reject(new Error(`a lane ended with ${code}`));
    child.once('exit', onExit);
    child.once('message', (result) => {
      child.off('exit', onExit);
      resolve(result as SeedResult);
    });
  });
}
