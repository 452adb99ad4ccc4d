/**
 * `npm run benchmark:restoring`: how fast files come back, beside reading the same objects straight from the store: by
 * the agent, to the disk and to memory, and as a zip and a tar over HTTP/2. A real server, a real agent's backup, turn by
 * turn in one run. With --crowd also many restores at once, beside backups; with --link over a link that takes its time.
 * Nothing but loopback is spoken to, and everything written is removed. docs/performance.md says how to read it.
 */
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type BenchmarkOptions, readBenchmarkOptions, readRounds } from './benchmark-options.ts';
import type { Program } from './child-process.ts';
import { readProfiles, renderProfile } from './cpu-profile.ts';
import { runLoadTest } from './load-program.ts';
import { type CrowdReport, renderCrowds, runCrowds } from './restoring-crowd.ts';
import { type Row, RowOfTurns, renderRows } from './restoring-figures.ts';
import { type LinkReport, renderLink, runLink } from './restoring-link.ts';
import {
  agentRestore,
  MadeUpBytes,
  makeLargeFiles,
  makeSmallFiles,
  objectFiles,
  readFiles,
  runAgent,
  type Stage,
  WebClient,
} from './restoring-world.ts';
import { type ServerProcess, startServer } from './server-process.ts';
import { inDigits } from './statistics.ts';

const MiB = 1024 * 1024;

const usage = `usage: npm run benchmark:restoring -- [options]
  --data FOLDER     where the scratch folder lies, on the disk to be measured (default: the system's for temporary files)
  --memory FOLDER   where restores go that are not to measure the disk (default /dev/shm)
  --large MIB       size of the large file (default 512)
  --small N         how many small files, of 16 KiB on average (default 10000)
  --rounds N        rounds of each measurement, 1 to 10 (default 3)
  --crowd N         then so many restores at once, by agents and by browsers, beside backups (default 0: none)
  --each MiB        what each of them restores: one file of that size (default: a file of 16 MiB and a hundred small ones)
  --who WHO         agents or browsers alone (default: both, one after the other)
  --link MS         then the agent over a link with so long a round trip, and 1 Gbit/s (default 0: none)
  --only WHAT       one way alone: zip, tar, memory or disk (the agent's); every round counts then
  --profile FOLDER  write the agent's and the server's CPU profiles there, and print where their time goes (slows both down)
  --quick           one small round: whether it works, not how fast
  --json            one JSON object instead of tables`;

interface Options extends BenchmarkOptions {
  memory: string;
  largeBytes: number;
  small: number;
  rounds: number;
  crowd: number;
  eachBytes: number | null;
  who: string | null;
  linkMs: number;
  profile: string | null;
  only: string | null;
}

function wholeNumber(name: string, given: string | undefined, byDefault: number, max: number): number {
  const number = Number(given ?? byDefault);
  if (!Number.isInteger(number) || number < 0 || number > max)
    throw new RangeError(`--${name} is a number from 0 to ${max}`);
  return number;
}

function wayOf(given: string | undefined): string | null {
  if (given === undefined) return null;
  if (!['zip', 'tar', 'memory', 'disk'].includes(given)) throw new RangeError('--only is zip, tar, memory or disk');
  return given;
}

function readOptions(): Options {
  const { options, given } = readBenchmarkOptions(usage, [
    'memory',
    'large',
    'small',
    'rounds',
    'crowd',
    'each',
    'who',
    'link',
    'profile',
    'only',
  ]);
  const { quick } = options;
  return {
    ...options,
    memory: resolve(given.memory ?? (existsSync('/dev/shm') ? '/dev/shm' : tmpdir())),
    largeBytes: wholeNumber('large', given.large, quick ? 32 : 512, 100_000) * MiB,
    small: wholeNumber('small', given.small, quick ? 500 : 10_000, 1_000_000),
    rounds: readRounds(given.rounds, quick ? 1 : 3),
    crowd: wholeNumber('crowd', given.crowd, 0, 250),
    eachBytes: given.each === undefined ? null : wholeNumber('each', given.each, 1, 10_000) * MiB,
    who: given.who ?? null,
    linkMs: wholeNumber('link', given.link, 0, 1_000),
    profile: given.profile ? resolve(given.profile) : null,
    only: wayOf(given.only),
  };
}

/** A tree that was backed up, and the objects it is in. */
interface Shape {
  name: string;
  path: string;
  bytes: number;
  files: number;
  objects: readonly string[];
  objectBytes: number;
}

async function backUpShapes(stage: Stage, server: ServerProcess, options: Options): Promise<Shape[]> {
  const made = new MadeUpBytes(randomBytes(64 * MiB));
  const known = new Set<string>();
  const shapes: Shape[] = [];
  const add = async (name: string, path: string, bytes: number, files: number): Promise<void> => {
    stage.say(`backing up ${name}`);
    await runAgent(stage, server, ['backup', path]);
    const objects = await objectFiles(server, known);
    for (const file of objects.files) known.add(file);
    if (objects.bytes < bytes) throw new Error(`${bytes} bytes were backed up, and ${objects.bytes} are in the store`);
    shapes.push({ name, path, bytes, files, objects: objects.files, objectBytes: objects.bytes });
  };
  const large = join(stage.scratch, 'tree', 'large');
  if (options.largeBytes > 0) {
    await makeLargeFiles(large, options.largeBytes, made);
    await add(`a file of ${options.largeBytes / MiB} MiB`, large, options.largeBytes, 1);
  }
  const small = join(stage.scratch, 'tree', 'small');
  if (options.small > 0)
    await add(
      `${options.small} files of 16 KiB`,
      small,
      await makeSmallFiles(small, options.small, made),
      options.small,
    );
  return shapes;
}

async function measureShape(
  stage: Stage,
  server: ServerProcess,
  web: WebClient,
  shape: Shape,
  options: Options,
): Promise<Row[]> {
  const { path, bytes, files } = shape;
  const row = (name: string): RowOfTurns => new RowOfTurns(name, { server: server.pid, bytes, files });
  const rows = {
    store: row('reading its objects from the store'),
    memory: row('agent, to memory'),
    disk: row('agent, to the disk'),
    zip: row('zip over HTTP'),
    tar: row('tar over HTTP'),
    staging: row('staging a zip'),
    staged: row('fetching what is staged'),
  };
  const ways = (Object.keys(rows) as (keyof typeof rows)[]).filter(
    (name) => options.only === null || name === 'store' || name === options.only,
  );
  const device = await web.device();
  const nodeArguments = options.profile ? ['--cpu-prof', `--cpu-prof-dir=${join(options.profile, 'agent')}`] : [];
  const memory = mkdtempSync(join(options.memory, 'holdfast-restoring-'));
  try {
    const turns: Record<keyof typeof rows, () => Promise<{ seconds?: number; peakBytes?: number }>> = {
      async store() {
        if ((await readFiles(shape.objects)) !== shape.objectBytes) throw new Error('the objects have changed');
        return {};
      },
      memory: () => byAgent(join(memory, 'to')),
      disk: () => byAgent(join(stage.scratch, 'to')),
      zip: () => byWeb('zip'),
      tar: () => byWeb('tar'),
      async staging() {
        staged = await web.stage({ device, path, format: 'zip', bytes });
        return {};
      },
      async staged() {
        await web.fetch(staged);
        return {};
      },
    };
    let staged = 0;
    const byAgent = async (to: string) => {
      const end = await agentRestore(stage, server, { path, to, bytes, nodeArguments });
      return { seconds: end.elapsedMs / 1000, peakBytes: end.peakBytes };
    };
    const byWeb = async (format: 'zip' | 'tar') => {
      await web.restore({ device, path, format, bytes });
      return {};
    };
    for (let round = options.only === null ? 0 : 1; round <= options.rounds; round++) {
      // The first of several ways does not count: code is compiled, memory has been touched.
      stage.say(
        `${shape.name}: ${round === 0 ? 'a round that does not count' : `round ${round} of ${options.rounds}`}`,
      );
      await web.signIn(server);
      for (const name of ways) await rows[name].take(turns[name], round > 0);
      if (staged > 0) await web.cancel(staged); // its room is for the next
    }
  } finally {
    rmSync(memory, { recursive: true, force: true });
  }
  return ways.map((name) => rows[name].summary());
}

interface Report {
  at: string;
  node: string;
  processors: number;
  loadBefore: number;
  rounds: number;
  quick: boolean;
  shapes: { name: string; rows: Row[] }[];
  link: LinkReport | null;
  crowds: CrowdReport | null;
}

async function run(options: Options, scratch: string, onStart: (program: Program) => void): Promise<Report> {
  const stage: Stage = {
    scratch,
    onStart,
    say: (line) => {
      if (!options.json) process.stderr.write(`  ${line}\n`);
    },
  };
  const [loadBefore = 0] = loadavg();
  stage.say('starting a server on a scratch folder');
  const server = await startServer({
    data: join(scratch, 'server'),
    nodeArguments: options.profile ? ['--cpu-prof', `--cpu-prof-dir=${join(options.profile, 'server')}`] : [],
    onStart,
  });
  const shapes = await backUpShapes(stage, server, options);
  const web = new WebClient(server.url, server.certificateSha256);
  await web.signIn(server);
  const measured: Report['shapes'] = [];
  for (const shape of shapes)
    measured.push({ name: shape.name, rows: await measureShape(stage, server, web, shape, options) });
  const link = options.linkMs > 0 ? await runLink(stage, server, shapes, options) : null;
  const crowds = options.crowd > 0 ? await runCrowds(stage, server, web, options) : null;
  web.close();
  await server.stop();
  return {
    at: new Date().toISOString(),
    node: process.versions.node,
    processors: availableParallelism(),
    loadBefore,
    rounds: options.rounds,
    quick: options.quick,
    shapes: measured,
    link,
    crowds,
  };
}

function render(report: Report): string {
  const { profile } = readOptions();
  const parts = [
    `
Restores beside reading the same objects straight from the store. One machine with ${report.processors} processors, loopback, ${report.rounds} rounds, turn by turn,
medians (least to most). Node ${report.node}. Load average before: ${inDigits(report.loadBefore)}.${report.quick ? '\nQUICK: too little for figures; it shows that everything works.' : ''}`,
    ...report.shapes.map(({ name, rows }) => `${name}\n${renderRows(rows)}`),
    ...(report.link ? [renderLink(report.link)] : []),
    ...(report.crowds ? [renderCrowds(report.crowds)] : []),
  ];
  if (profile)
    for (const who of ['agent', 'server'] as const)
      parts.push(renderProfile(readProfiles(join(profile, who))).replace("server's own", `${who}'s own`));
  return parts.join('\n\n');
}

await runLoadTest({ name: 'holdfast-restoring-', usage, readOptions, run, render });
