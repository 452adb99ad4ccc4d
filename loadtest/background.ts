/**
 * `npm run benchmark:background`: what backups lose while prune, reclaim, compact and verify work beside them. A real
 * server is backed up to alone, beside a worker that has all four to do, and alone again, in one run; how far each of
 * the four came meanwhile is shown, and the run fails when one of them had nothing to do. Nothing but loopback is
 * spoken to, and everything written is removed. docs/performance.md says how to read it.
 */
import { randomBytes } from 'node:crypto';
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type BackgroundProgress,
  backgroundVerbs,
  type Comparison,
  compareRounds,
  progressBetween,
  type Round,
  type Stretch,
} from './background-figures.ts';
import { prepareServer, startApi } from './background-server.ts';
import { type BenchmarkOptions, readBenchmarkOptions, readRounds } from './benchmark-options.ts';
import { type BodyShape, makeBodies, shapeBytes } from './bodies.ts';
import { type Program, startProgram } from './child-process.ts';
import { runLoadTest, serverNodeArguments } from './load-program.ts';
import { inDigits, renderTable } from './statistics.ts';
import { type HoldfastTarget, openHoldfast } from './targets.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const seedMain = fileURLToPath(new URL('../server/commands/seed.ts', import.meta.url));
const postgresMain = fileURLToPath(new URL('./garbage-postgres.child.ts', import.meta.url));
const workerMain = fileURLToPath(new URL('./background-worker.child.ts', import.meta.url));

const usage = `usage: npm run benchmark:background -- [options]
  --data FOLDER   where the scratch folder lies, on the disk to be measured (default: the system's for temporary files)
  --rounds N      rounds of each measurement, 1 to 10 (default 3)
  --verify N      MB a second that verify reads (default 60)
  --share N       share of its time that each of the others works, 0 to 1 (default 0.1)
  --quick         one small round: whether it works, not how fast
  --json          one JSON object instead of tables`;

interface Options extends BenchmarkOptions {
  rounds: number;
  verifyBytesPerSecond: number;
  share: number;
}

function readOptions(): Options {
  const { options, given } = readBenchmarkOptions(usage, ['rounds', 'verify', 'share']);
  const rounds = readRounds(given.rounds, options.quick ? 1 : 3);
  const verify = Number(given.verify ?? 60);
  if (!(verify >= 1 && verify <= 10_000)) throw new RangeError('--verify is a number of MB from 1 to 10000');
  const share = Number(given.share ?? 0.1);
  if (!(share > 0 && share <= 1)) throw new RangeError('--share is a number above 0, and 1 at most');
  return { ...options, rounds, share, verifyBytesPerSecond: verify * 1e6 };
}

interface Shape extends BodyShape {
  name: string;
  /** Requests at a time, as the agent sends them. */
  parallel: number;
  /** Of one stretch, in seconds of backing up. */
  secondsMin: number;
}

const shapes: readonly Shape[] = [
  { name: '1 MiB blocks', blockBytes: MiB, blocksPerBody: 16, bodies: 6, parallel: 3, secondsMin: 10 },
  {
    name: '4 KiB blocks',
    blockBytes: 4 * KiB,
    blocksPerBody: 4_096,
    bodies: 3,
    parallel: 3,
    secondsMin: 10,
  },
];

/**
 * What there is to do: more than the worker can do while it is measured. Of objects whose bytes are not there at least
 * half stays in use, so that nobody wants to compact them.
 */
const backlog = (quick: boolean): string[][] => [
  // Bytes, for verify and, those of the sparse objects, for compact. What is backed up meanwhile is verified, too.
  [
    '--blocks',
    '2560',
    '--versions',
    '1000',
    '--block-bytes',
    '65536',
    '--sparse',
    quick ? '60' : '200',
    '--with-objects',
  ],
  // Rows alone: for prune,
  [
    '--blocks',
    quick ? '200000' : '800000',
    '--versions',
    quick ? '40000' : '160000',
    '--vaults',
    '20',
    '--expiring',
    '1',
  ],
  // and for reclaim.
  ['--blocks', quick ? '200000' : '1200000', '--versions', '10000', '--vaults', '20', '--freed', '0.45'],
];

interface Stage {
  databaseUrl: string;
  objects: string;
  options: Options;
  say: (line: string) => void;
  onStart: (program: Program) => void;
}

async function seedBacklog(stage: Stage, args: readonly string[]): Promise<void> {
  const { databaseUrl, objects, onStart } = stage;
  const program = startProgram(seedMain, [...args, '--json', '--force'], {
    environment: { HOLDFAST_DATABASE_URL: databaseUrl, HOLDFAST_OBJECTS_FOLDER: objects },
  });
  onStart(program);
  if ((await program.ended) !== 0) throw new Error(`seeding failed: ${program.output()}${program.errors()}`);
}

interface Worker {
  progress(): BackgroundProgress;
  stop(): Promise<void>;
}

/** Resolves when each of the four has begun. */
async function startWorker({ databaseUrl, objects, options, onStart }: Stage): Promise<Worker> {
  let latest: BackgroundProgress | null = null;
  const begun = Promise.withResolvers<void>();
  const program = startProgram(
    workerMain,
    [databaseUrl, objects, String(options.verifyBytesPerSecond), String(options.share)],
    {
      nodeArguments: serverNodeArguments,
      onLine: (line) => {
        latest = JSON.parse(line) as BackgroundProgress;
        if (backgroundVerbs.every((verb) => latest!.done[verb] > 0)) begun.resolve();
      },
    },
  );
  onStart(program);
  const ended = program.ended.then((code) => {
    throw new Error(`the worker ended with ${code}: ${program.errors()}`);
  });
  ended.catch(() => {});
  const late = setTimeout(() => begun.reject(new Error(`not all has begun: ${program.output().slice(-300)}`)), 60_000);
  await Promise.race([begun.promise, ended]).finally(() => clearTimeout(late));
  return { progress: () => latest!, stop: () => program.stop(30_000) };
}

/** Backs up new blocks for so long: uploads, claims and commits, as many at a time as the agent has. */
async function backUp(target: HoldfastTarget, shape: Shape, pool: Buffer): Promise<number> {
  let seconds = 0;
  let bytes = 0;
  while (seconds < shape.secondsMin) {
    const bodies = makeBodies(pool, shape);
    const commits = target.prepareCommits(bodies);
    const left = bodies.entries();
    const startedAt = performance.now();
    await Promise.all(
      Array.from({ length: shape.parallel }, async () => {
        for (const [index, body] of left) {
          await target.upload(body);
          await target.claim(body.hashes);
          await target.commit(commits[index]!);
        }
      }),
    );
    seconds += (performance.now() - startedAt) / 1000;
    bytes += shapeBytes(shape);
  }
  return bytes / 1e6 / seconds;
}

async function measureBeside(
  stage: Stage,
  target: HoldfastTarget,
  shape: Shape,
  pool: Buffer,
): Promise<{ stretch: Stretch; peakMemoryMiB: number }> {
  const worker = await startWorker(stage);
  try {
    const before = worker.progress();
    const startedAt = performance.now();
    const megabytesPerSecond = await backUp(target, shape, pool);
    const seconds = (performance.now() - startedAt) / 1000;
    const after = worker.progress();
    const background = progressBetween(before, after, seconds);
    stage.say(`    ${rates(background)}`);
    return { stretch: { megabytesPerSecond, background }, peakMemoryMiB: after.peakMemoryMiB };
  } finally {
    await worker.stop();
  }
}

const rates = (each: Comparison['background']): string =>
  `a second: ${inDigits(each.prune)} versions pruned, ${inDigits(each.reclaim)} blocks reclaimed, ` +
  `${inDigits(each.compact / 1e6)} MB compacted, ${inDigits(each.verify / 1e6)} MB verified`;

interface Report {
  at: string;
  node: string;
  processors: number;
  loadBefore: number;
  rounds: number;
  quick: boolean;
  share: number;
  workerPeakMemoryMiB: number;
  rows: (Comparison & { name: string })[];
}

async function run(options: Options, scratch: string, onStart: (program: Program) => void): Promise<Report> {
  const say = (line: string): void => {
    if (!options.json) process.stderr.write(`  ${line}\n`);
  };
  const [loadBefore = 0] = loadavg();
  say('starting PostgreSQL and a server on a scratch folder');
  const postgres = startProgram(postgresMain, [join(scratch, 'postgres'), 'backups'], { endsByItself: true });
  onStart(postgres);
  const [said] = await postgres.says(/^\{.*\}$/m, 180_000);
  const { urls } = JSON.parse(said) as { urls: Record<string, string> };
  const parts = { data: join(scratch, 'server'), databaseUrl: urls.backups!, onStart };
  const prepared = await prepareServer(parts);
  const stage: Stage = { databaseUrl: urls.backups!, objects: join(parts.data, 'objects'), options, say, onStart };
  say('seeding what there is to prune, reclaim, compact and verify');
  for (const args of backlog(options.quick)) await seedBacklog(stage, args);
  const server = await startApi(prepared, parts);
  const target = await openHoldfast(server);
  const wanted = shapes;
  const pool = randomBytes(Math.max(...wanted.map(shapeBytes)));
  const results: Report['rows'] = [];
  let workerPeakMemoryMiB = 0;
  for (const shape of wanted) {
    await backUp(target, { ...shape, secondsMin: 1 }, pool); // does not count: code is compiled, tables have grown
    const rounds: Round[] = [];
    for (let round = 1; round <= options.rounds; round++) {
      say(`${shape.name}: round ${round} of ${options.rounds}`);
      const before = { megabytesPerSecond: await backUp(target, shape, pool), background: null };
      const { stretch: beside, peakMemoryMiB } = await measureBeside(stage, target, shape, pool);
      const after = { megabytesPerSecond: await backUp(target, shape, pool), background: null };
      workerPeakMemoryMiB = Math.max(workerPeakMemoryMiB, peakMemoryMiB);
      rounds.push({ before, beside, after });
      say(`    ${[before, beside, after].map((each) => inDigits(each.megabytesPerSecond)).join(', ')} MB/s`);
    }
    results.push({ name: shape.name, ...compareRounds(rounds) });
  }
  await target.close();
  await server.stop();
  return {
    at: new Date().toISOString(),
    node: process.versions.node,
    processors: availableParallelism(),
    loadBefore,
    rounds: options.rounds,
    quick: options.quick,
    share: options.share,
    workerPeakMemoryMiB,
    rows: results,
  };
}

function render(report: Report): string {
  const { rows } = report;
  return `
Backups (upload, claim, commit) alone, and beside a worker that prunes, reclaims, compacts and verifies.
Prune, reclaim and compact each work a share of ${report.share} of their time. ${report.processors} processors, ${report.rounds} rounds, medians (least to most). Node ${report.node}. Load average before: ${inDigits(report.loadBefore)}.${report.quick ? '\nQUICK: too little for figures; it shows that everything works.' : ''}

${renderTable(
  ['', 'beside by alone', 'alone MB/s', '', 'beside MB/s', ''],
  rows.map(({ name, ratio, alone, beside }) => [
    name,
    `${inDigits(ratio)} x`,
    inDigits(alone.median),
    `(${inDigits(alone.min)} to ${inDigits(alone.max)})`,
    inDigits(beside.median),
    `(${inDigits(beside.min)} to ${inDigits(beside.max)})`,
  ]),
)}

What the worker did meanwhile
${rows.map(({ name, background }) => `  ${name}: ${rates(background)}`).join('\n')}
Its peak memory: ${inDigits(report.workerPeakMemoryMiB)} MiB
`;
}

await runLoadTest({
  name: 'holdfast-background-',
  usage,
  readOptions,
  run,
  render,
});
