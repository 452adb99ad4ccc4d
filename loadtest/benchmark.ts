/**
 * `npm run benchmark`: what an upload, a read and a commit cost the server, beside a bare node:http2 handler that only
 * receives and hashes the same bodies. Both run on this machine, in one run, turn by turn; docs/performance.md says
 * how to read it. Nothing but loopback is spoken to, and everything written is removed.
 */
import { randomBytes } from 'node:crypto';
import { availableParallelism, loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BenchmarkOptions, readBenchmarkOptions, readRounds } from './benchmark-options.ts';
import { type BodyShape, makeBodies, shapeBytes, type UploadBody } from './bodies.ts';
import type { Program } from './child-process.ts';
import { readProfiles, renderProfile } from './cpu-profile.ts';
import { measureDisk } from './disk-yardstick.ts';
import { runLoadTest } from './load-program.ts';
import { type Measurement, measure, type RowResult, summarizeRow } from './measurements.ts';
import { cpuBetween, readTreeCpu } from './process-cpu.ts';
import { type Report, renderReport } from './report.ts';
import { type ServerProcess, startServer } from './server-process.ts';
import { type HoldfastTarget, openBare, openHoldfast, type Target } from './targets.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

const usage = `usage: npm run benchmark -- [options]
  --data FOLDER     where the scratch folder lies, on the disk to be measured (default: the system's for temporary files)
  --rounds N        rounds of each measurement, 1 to 10 (default 5); each writes 272 MiB
  --quick           two small rounds: whether it works, not how fast
  --profile FOLDER  write the server's CPU profiles there, and print where its time goes (slows it down)
  --json            one JSON object instead of tables`;

interface Options extends BenchmarkOptions {
  rounds: number;
  profile: string | null;
}

function readOptions(): Options {
  const { options, given } = readBenchmarkOptions(usage, ['rounds', 'profile']);
  const rounds = readRounds(given.rounds, options.quick ? 2 : 5);
  return { ...options, rounds, profile: given.profile ? resolve(given.profile) : null };
}

interface Shape extends BodyShape {
  name: string;
  /** Requests at a time. The agent sends three uploads of 16 MiB; two of 32 MiB hold as much. */
  parallel: number;
}

/** 5 rounds and the one before them write 6 x (144 + 128) MiB: 1.6 GiB, and PostgreSQL's log as it grows. */
function shapes(quick: boolean): Shape[] {
  return [
    { name: '1 MiB blocks', blockBytes: MiB, blocksPerBody: 16, bodies: quick ? 3 : 9, parallel: 3 },
    { name: '4 KiB blocks', blockBytes: 4 * KiB, blocksPerBody: 8_192, bodies: quick ? 1 : 4, parallel: 2 },
  ];
}

/** Pinned for both servers, so that neither's windows grow while the other's do not: the largest ours grows to. */
const windows = { streamBytes: 4 * MiB, connectionBytes: 16 * MiB };
/** After each turn: what the kernel still does for one server is not to fall on the other. */
const settleMs = 200;
const idleMs = 3_000;

async function inParallel<T>(items: readonly T[], parallel: number, work: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  await Promise.all(
    Array.from({ length: parallel }, async () => {
      for (const item of left) await work(item);
    }),
  );
}

/** One shape's rounds: each uploads new bodies to the one and the other, reads them back, and commits ours. */
async function runShape(
  shape: Shape,
  rounds: number,
  pool: Buffer,
  holdfast: HoldfastTarget,
  bare: Target,
  say: (line: string) => void,
): Promise<RowResult[]> {
  const bytes = shapeBytes(shape);
  const blocks = shape.blocksPerBody * shape.bodies;
  const results = { upload: { holdfast: [], bare: [] }, read: { holdfast: [], bare: [] }, commit: [] } as {
    upload: Record<Target['name'], Measurement[]>;
    read: Record<Target['name'], Measurement[]>;
    commit: Measurement[];
  };
  const turn = async (
    target: Target,
    items: readonly UploadBody[],
    work: (body: UploadBody) => Promise<void>,
  ): Promise<Measurement> => {
    const measured = await measure(target.pid, bytes, () => inParallel(items, shape.parallel, work));
    await sleep(settleMs);
    return measured;
  };

  // A whole round that does not count: code is compiled, files and tables have grown, memory has been touched.
  const warmUp = makeBodies(pool, shape);
  for (const target of [holdfast, bare]) {
    await inParallel(warmUp, shape.parallel, (body) => target.upload(body));
    await inParallel(warmUp, shape.parallel, (body) => target.read(body));
  }
  for (const body of warmUp) await holdfast.verify(body);

  for (let round = 1; round <= rounds; round++) {
    say(`${shape.name}: round ${round} of ${rounds}`);
    const bodies = makeBodies(pool, shape);
    const commits = holdfast.prepareCommits(bodies);
    for (const target of [holdfast, bare])
      results.upload[target.name].push(await turn(target, bodies, (body) => target.upload(body)));
    for (const target of [holdfast, bare])
      results.read[target.name].push(await turn(target, bodies, (body) => target.read(body)));
    const encoded = new Map(bodies.map((body, index) => [body, commits[index]!]));
    results.commit.push(
      await turn(holdfast, bodies, async (body) => {
        await holdfast.claim(body.hashes);
        await holdfast.commit(encoded.get(body)!);
      }),
    );
  }
  return [
    summarizeRow({
      name: `upload, ${shape.name}`,
      blocks,
      holdfast: results.upload.holdfast,
      bare: results.upload.bare,
    }),
    summarizeRow({
      name: `read back, ${shape.name}`,
      blocks,
      holdfast: results.read.holdfast,
      bare: results.read.bare,
    }),
    summarizeRow({ name: `claim + commit, ${shape.name}`, blocks, holdfast: results.commit, bare: null }),
  ];
}

/** Seconds of processor per second while nobody asks anything. */
async function idleShare(server: ServerProcess): Promise<number> {
  const before = readTreeCpu(server.pid);
  const startedAt = performance.now();
  await sleep(idleMs);
  return cpuBetween(before, readTreeCpu(server.pid)).seconds / ((performance.now() - startedAt) / 1000);
}

async function runBenchmark(options: Options, scratch: string, onStart: (program: Program) => void): Promise<Report> {
  const say = (line: string): void => {
    if (!options.json) process.stderr.write(`  ${line}\n`);
  };
  const [loadBefore = 0] = loadavg();
  say('starting a server on a scratch folder');
  const server = await startServer({
    data: join(scratch, 'server'),
    settings: {
      HOLDFAST_STREAM_WINDOW: `${windows.streamBytes / KiB}KiB`,
      HOLDFAST_STREAM_WINDOW_MAX: `${windows.streamBytes / KiB}KiB`,
      HOLDFAST_CONNECTION_WINDOW: `${windows.connectionBytes / KiB}KiB`,
      // Two uploads of 32 MiB and their headers are a little more than the default of 64 MiB: one would wait for the
      // other, and on a slow disk be told to come back.
      HOLDFAST_UPLOAD_BUDGET: '128MiB',
    },
    nodeArguments: options.profile ? ['--cpu-prof', `--cpu-prof-dir=${options.profile}`] : [],
    onStart,
  });
  const bare = await openBare(server, windows, onStart);
  const holdfast = await openHoldfast(server);
  const idleCores = await idleShare(server);
  const wanted = shapes(options.quick);
  const pool = randomBytes(Math.max(...wanted.map(shapeBytes)));
  const disk = measureDisk(scratch, pool);
  const rows: RowResult[] = [];
  for (const shape of wanted) rows.push(...(await runShape(shape, options.rounds, pool, holdfast, bare, say)));
  await holdfast.close();
  await bare.close();
  await server.stop();
  return {
    at: new Date().toISOString(),
    node: process.versions.node,
    processors: availableParallelism(),
    loadBefore,
    rounds: options.rounds,
    quick: options.quick,
    profiled: options.profile !== null,
    windows,
    idleCores,
    disk,
    rows,
  };
}

await runLoadTest({
  name: 'holdfast-benchmark-',
  usage,
  readOptions,
  run: runBenchmark,
  render: (report) => {
    const { profile } = readOptions();
    return profile ? `${renderReport(report)}\n${renderProfile(readProfiles(profile))}` : renderReport(report);
  },
});
