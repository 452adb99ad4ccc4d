/**
 * `npm run benchmark:restic`: how long restic takes with Holdfast, beside `rclone serve restic` and a folder of this machine's,
 * on one disk, in one run, turn by turn; and what the servers' processors do meanwhile. restic itself is part of each
 * figure: what is to be compared is the ratio. Nothing but loopback is spoken to, and everything written is removed.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { availableParallelism, loadavg } from 'node:os';
import { join, resolve } from 'node:path';
import { type BenchmarkOptions, readBenchmarkOptions, readRounds } from './benchmark-options.ts';
import type { Program } from './child-process.ts';
import { compareTrees } from './compare-trees.ts';
import { readProfiles, renderProfile } from './cpu-profile.ts';
import { runLoadTest } from './load-program.ts';
import { type ResticReport, renderResticReport, type Step, steps, Turns } from './restic-figures.ts';
import {
  assertInstalled,
  openFolder,
  openHoldfast,
  openRclone,
  type Repository,
  runRestic,
  type Side,
  type SideName,
  syncDisk,
} from './restic-sides.ts';
import { MadeUpBytes, makeLargeFiles, makeSmallFiles, type Stage } from './restoring-world.ts';
import { startServer } from './server-process.ts';
import { inDigits } from './statistics.ts';

const MiB = 1024 * 1024;
/** On average; see `makeSmallFiles`. */
const smallFileBytes = 16 * 1024;

const usage = `usage: npm run benchmark:restic -- [options]      (needs restic and rclone)
  --data FOLDER     where the scratch folder lies, on the disk to be measured (default: the system's for temporary files)
  --size MIB        of the tree: three quarters in one file, a quarter in files of 16 KiB (default 1024)
  --rounds N        rounds of each measurement, 1 to 10 (default 3); each leaves SIZE in Holdfast's store until the end
  --side NAME       one side alone: Holdfast, rclone or folder
  --profile FOLDER  write the server's CPU profiles there, and print where its time goes (slows it down)
  --quick           one small round: whether it works, not how fast
  --json            one JSON object instead of tables`;

interface Options extends BenchmarkOptions {
  sizeBytes: number;
  rounds: number;
  side: SideName | null;
  profile: string | null;
}

function readOptions(): Options {
  const { options, given } = readBenchmarkOptions(usage, ['size', 'rounds', 'side', 'profile']);
  const size = Number(given.size ?? (options.quick ? 48 : 1024));
  if (!Number.isInteger(size) || size < 4 || size > 102_400)
    throw new RangeError('--size is a number from 4 to 102400');
  const { side = null } = given;
  if (side !== null && side !== 'Holdfast' && side !== 'rclone' && side !== 'folder')
    throw new RangeError('--side is Holdfast, rclone or folder');
  return {
    ...options,
    sizeBytes: size * MiB,
    rounds: readRounds(given.rounds, options.quick ? 1 : 3),
    side,
    profile: given.profile ? resolve(given.profile) : null,
  };
}

/** One side's repository of one round, and all that is done with it. */
class Course {
  readonly #stage: Stage;
  readonly #side: Side;
  readonly #home: string;
  readonly #certificate: string;
  readonly #tree: string;
  #repository: Repository | undefined;

  constructor(stage: Stage, side: Side, of: { round: number; certificate: string; tree: string }) {
    this.#stage = stage;
    this.#side = side;
    this.#home = join(stage.scratch, `restic-${side.name}-${of.round}`);
    this.#certificate = of.certificate;
    this.#tree = of.tree;
  }

  get #restored(): string {
    return join(this.#home, 'restored');
  }

  async open(round: number): Promise<void> {
    await mkdir(this.#home);
    this.#repository = await this.#side.newRepository(`round-${round}`);
  }

  /** @returns how often restic had to send a request again */
  async take(step: Step): Promise<number> {
    const words = {
      init: ['init'],
      backup: ['backup', this.#tree],
      check: ['check', '--read-data'],
      restore: ['restore', 'latest', '--target', this.#restored],
    }[step];
    const user = { url: this.#repository!.url, certificate: this.#certificate, home: this.#home };
    const { said, retries } = await runRestic(this.#stage, user, words);
    if (step === 'check' && !said.includes('no errors were found')) throw new Error(`restic check said: ${said}`);
    return retries;
  }

  /** @throws Error unless the restored tree is the tree. @returns bytes that came back */
  async assertRestored(): Promise<number> {
    const compared = await compareTrees(this.#tree, join(this.#restored, this.#tree));
    if (compared.differences > 0)
      throw new Error(`${this.#side.name} restored another tree: ${compared.examples.join('; ')}`);
    return compared.bytes;
  }

  async close(): Promise<void> {
    await rm(this.#home, { recursive: true, force: true });
    await this.#repository?.remove();
  }
}

async function runRound(
  stage: Stage,
  sides: readonly Side[],
  of: { round: number; certificate: string; tree: string; bytes: number },
  turns: Turns | null,
): Promise<void> {
  // Whoever comes first in one round comes last in another: the disk is not as busy for all of them.
  const first = of.round % sides.length;
  const inTurn = [...sides.slice(first), ...sides.slice(0, first)];
  const courses = new Map(inTurn.map((side) => [side, new Course(stage, side, of)]));
  try {
    for (const course of courses.values()) await course.open(of.round);
    for (const step of steps)
      for (const [side, course] of courses) {
        const work = (): Promise<number> => course.take(step);
        const measured = await Turns.measure(side.pid, work, () => syncDisk(stage));
        stage.say(`  ${step}, ${side.name}: ${inDigits(measured.seconds)} s`);
        turns?.add(step, side.name, measured);
        if (step === 'restore' && (await course.assertRestored()) !== of.bytes)
          throw new Error(`${side.name} did not restore all ${of.bytes} bytes`);
      }
  } finally {
    for (const course of courses.values()) await course.close();
    await syncDisk(stage);
  }
}

async function run(options: Options, scratch: string, onStart: (program: Program) => void): Promise<ResticReport> {
  assertInstalled('restic', 'rclone', 'timeout', 'sync');
  const stage: Stage = {
    scratch,
    onStart,
    say: (line) => {
      if (!options.json) process.stderr.write(`  ${line}\n`);
    },
  };
  const [loadBefore = 0] = loadavg();
  stage.say('starting a server on a scratch folder, and rclone');
  const server = await startServer({
    data: join(scratch, 'server'),
    nodeArguments: options.profile ? ['--cpu-prof', `--cpu-prof-dir=${options.profile}`] : [],
    onStart,
  });
  const opened = [openHoldfast(server), await openRclone(stage, server), await openFolder(stage)];
  const sides = opened.filter(({ name }) => options.side === null || options.side === name);
  const tree = join(scratch, 'tree');
  const made = new MadeUpBytes(randomBytes(64 * MiB));
  const largeBytes = Math.floor((options.sizeBytes * 3) / 4);
  await makeLargeFiles(join(tree, 'large'), largeBytes, made);
  const smallFiles = Math.floor((options.sizeBytes - largeBytes) / smallFileBytes);
  const bytes = largeBytes + (await makeSmallFiles(join(tree, 'small'), smallFiles, made));
  await syncDisk(stage);
  const turns = new Turns(bytes);
  for (let round = 0; round <= options.rounds; round++) {
    // The first one does not count: code is compiled, tables and files have grown, memory has been touched.
    stage.say(round === 0 ? 'a round that does not count' : `round ${round} of ${options.rounds}`);
    await runRound(
      stage,
      sides,
      { round, certificate: server.certificateFiles.cert, tree, bytes },
      round === 0 ? null : turns,
    );
  }
  for (const side of opened) await side.stop();
  await server.stop();
  return {
    at: new Date().toISOString(),
    node: process.versions.node,
    processors: availableParallelism(),
    loadBefore,
    loadAfter: loadavg()[0] ?? 0,
    rounds: options.rounds,
    quick: options.quick,
    profiled: options.profile !== null,
    bytes,
    files: smallFiles + 1,
    rows: turns.rows(),
  };
}

await runLoadTest({
  name: 'holdfast-restic-',
  usage,
  readOptions,
  run,
  render: (report) => {
    const { profile } = readOptions();
    return profile
      ? `${renderResticReport(report)}\n${renderProfile(readProfiles(profile))}`
      : renderResticReport(report);
  },
});
