/**
 * Many restores at once: whether they are served alike, what backups lose beside them, and what the server holds for
 * readers that have stopped reading. Everybody restores the same tree, begins at the same moment, and is a device or a
 * person of their own. Backups run alone before, beside the crowd for as long as it lasts, and alone after.
 */
import { randomBytes } from 'node:crypto';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connect } from '../agent/client/index.ts';
import { enroll } from '../agent/commands/enroll.ts';
import { readRegistration } from '../agent/state/registration.ts';
import { type BodyShape, makeBodies, shapeBytes } from './bodies.ts';
import { type Program, startProgram } from './child-process.ts';
import { residentBytes, watchMemory } from './process-memory.ts';
import {
  type ApiClient,
  type CrowdEnd,
  type CrowdTask,
  MadeUpBytes,
  makeLargeFiles,
  makeSmallFiles,
  runAgent,
  type Stage,
  type WebClient,
} from './restoring-world.ts';
import type { ServerProcess } from './server-process.ts';
import { inDigits, median, renderTable } from './statistics.ts';
import { type HoldfastTarget, openHoldfast } from './targets.ts';

const MiB = 1024 * 1024;
const childMain = fileURLToPath(new URL('./restoring-crowd.child.ts', import.meta.url));
/** Processes that the crowd is spread over: one alone would be what is measured. */
const processes = 4;
const aloneSeconds = 8;
/** What backups send: as the agent does, three at a time. */
const uploads: BodyShape & { parallel: number } = { blockBytes: MiB, blocksPerBody: 8, bodies: 3, parallel: 3 };
const stalledReaders = 50;
const stallSeconds = 10;

export interface CrowdResult {
  name: string;
  members: number;
  seconds: number;
  /** 10^6 bytes a second that all got together. */
  megabytesPerSecond: number;
  /** Slowest by fastest: of bytes by the time since all began, and by the time since their own first byte. */
  fairnessOverall: number;
  fairnessWhileServed: number;
  /** Seconds until somebody's first byte: median and most. */
  firstByteMedian: number;
  firstByteMost: number;
  backups: { before: number; beside: number; after: number } | null;
  /** The server's process: before, and most. */
  serverBytesBefore: number;
  serverBytesMost: number;
}

export interface CrowdReport {
  bytes: number;
  files: number;
  results: CrowdResult[];
  stalled: { readers: number; bytesBefore: number; bytesMost: number };
}

interface CrowdOptions {
  crowd: number;
  /** Bytes of what each restores, in one large file; null: the size that is made otherwise, and small files. */
  eachBytes: number | null;
  who: string | null;
  memory: string;
  quick: boolean;
}

export async function runCrowds(
  stage: Stage,
  server: ServerProcess,
  web: WebClient,
  { crowd, memory, quick, eachBytes, who }: CrowdOptions,
): Promise<CrowdReport> {
  const path = join(stage.scratch, 'tree', 'crowd');
  const made = new MadeUpBytes(randomBytes(32 * MiB));
  const files = eachBytes ? 1 : quick ? 20 : 100;
  const largeBytes = eachBytes ?? (quick ? 4 : 16) * MiB;
  await makeLargeFiles(path, largeBytes, made);
  const bytes = largeBytes + (await makeSmallFiles(path, files, made));
  stage.say(`backing up what a crowd of ${crowd} restores, and registering it`);
  await runAgent(stage, server, ['backup', path]);
  await web.signIn(server);
  const device = await web.device();
  const agents = await registerAgents(stage, server, who === 'browsers' ? 1 : crowd);
  const browsers = await makeClients(web, who === 'agents' ? stalledReaders : crowd);
  const archive = await sharedArchive(agents[0]!);
  const backups = await openHoldfast(server);
  const pool = randomBytes(shapeBytes(uploads));
  await backUp(backups, pool, until(2)); // does not count
  const task = { path, bytes, to: join(memory, `holdfast-crowd-${process.pid}`), device, archive };
  const results: CrowdResult[] = [];
  try {
    for (const [name, members] of [
      ['agents', { agents, browsers: [] }],
      ['browsers', { agents: [], browsers }],
    ] as const)
      for (const beside of who === null || who === name ? [{ backups, pool }, null] : [])
        results.push(await runCrowd(stage, server, { ...task, ...members }, name, beside));
    const stalled = await stall(stage, server, { ...task, agents: [], browsers: browsers.slice(0, stalledReaders) });
    return { bytes, files: files + 1, results, stalled };
  } finally {
    rmSync(task.to, { recursive: true, force: true });
    await backups.close();
  }
}

/** Devices of one user. @returns their folders */
async function registerAgents(stage: Stage, server: ServerProcess, count: number): Promise<string[]> {
  const { url, certificateSha256, registrationKey, userName, password } = server;
  const homes: string[] = [];
  for (let i = 0; i < count; i++) {
    const home = join(stage.scratch, 'agents', String(i));
    mkdirSync(home, { recursive: true, mode: 0o700 });
    const wayIn = { registrationKey, userName, password };
    await enroll({ url, certificateSha256, wayIn, home, deviceName: `crowd ${i}` });
    homes.push(home);
  }
  return homes;
}

/** The archive that the crowd restores from: another device's, of the same user. */
async function sharedArchive(home: string): Promise<number> {
  const client = connect(readRegistration(home)!);
  try {
    const { archives } = await client.self();
    const found = archives.find((archive) => !archive.own && !archive.deviceName.startsWith('crowd'));
    if (!found) throw new Error('a device of the crowd cannot read the archive that was backed up');
    return found.archive;
  } finally {
    client.destroy();
  }
}

async function makeClients(web: WebClient, count: number): Promise<ApiClient[]> {
  const { items } = await web.ask<{ items: { id: number }[] }>('GET', '/v1/organizations');
  const clients: ApiClient[] = [];
  for (let i = 0; i < count; i++)
    clients.push(
      await web.ask<ApiClient>('POST', '/v1/clients', {
        name: `crowd ${i}`,
        organization: items[0]!.id,
        permissions: ['restore.limited'],
        scope: 'all',
        expiresAt: new Date(Date.now() + 86_400_000).toISOString(),
      }),
    );
  return clients;
}

const until = (seconds: number): (() => boolean) => {
  const endAt = performance.now() + seconds * 1000;
  return () => performance.now() >= endAt;
};

/** Uploads, claims and commits new blocks until it is told. @returns 10^6 bytes a second */
async function backUp(target: HoldfastTarget, pool: Buffer, isOver: () => boolean): Promise<number> {
  let bytes = 0;
  const startedAt = performance.now();
  await Promise.all(
    Array.from({ length: uploads.parallel }, async (_, index) => {
      const bodyBytes = uploads.blockBytes * uploads.blocksPerBody;
      const own = pool.subarray(index * bodyBytes, (index + 1) * bodyBytes); // it is changed while others are sent
      while (!isOver()) {
        const [body] = makeBodies(own, { ...uploads, bodies: 1 });
        const [commit] = target.prepareCommits([body!]);
        await target.upload(body!);
        await target.claim(body!.hashes);
        await target.commit(commit!);
        bytes += bodyBytes;
      }
    }),
  );
  return bytes / 1e6 / ((performance.now() - startedAt) / 1000);
}

type Members = Omit<CrowdTask, 'url' | 'certificateSha256' | 'go' | 'stallSeconds'>;

interface Running {
  begin(): void;
  ends: CrowdEnd[];
  done: Promise<void>;
}

async function startMembers(
  { scratch, onStart }: Stage,
  server: ServerProcess,
  members: Members,
  stallSecondsOfEach = 0,
): Promise<Running> {
  const go = join(scratch, `go-${randomBytes(4).toString('hex')}`);
  const ends: CrowdEnd[] = [];
  const programs: Program[] = [];
  for (let i = 0; i < processes; i++) {
    const part = <T>(all: readonly T[]): T[] => all.filter((_, index) => index % processes === i);
    const task: CrowdTask = {
      ...members,
      to: join(members.to, String(i)),
      url: server.url,
      certificateSha256: server.certificateSha256,
      go,
      agents: part(members.agents),
      browsers: part(members.browsers),
      stallSeconds: stallSecondsOfEach,
    };
    if (task.agents.length + task.browsers.length === 0) continue;
    const file = `${go}-${i}.json`;
    writeFileSync(file, JSON.stringify(task), { mode: 0o600 });
    const program = startProgram(childMain, [file], {
      onLine: (line) => {
        const said = JSON.parse(line) as { end?: CrowdEnd };
        if (said.end) ends.push(said.end);
      },
    });
    onStart(program);
    programs.push(program);
  }
  await Promise.all(programs.map((program) => program.says(/"ready"/, 300_000)));
  const done = Promise.all(
    programs.map(async (program) => {
      const code = await program.ended;
      if (code !== 0) throw new Error(`a part of the crowd ended with ${code}: ${program.errors()}`);
    }),
  ).then(() => {});
  done.catch(() => {});
  return { begin: () => writeFileSync(go, ''), ends, done };
}

async function runCrowd(
  stage: Stage,
  server: ServerProcess,
  members: Members,
  who: string,
  beside: { backups: HoldfastTarget; pool: Buffer } | null,
): Promise<CrowdResult> {
  const count = members.agents.length + members.browsers.length;
  const name = `${count} ${who}${beside ? ', beside backups' : ''}`;
  stage.say(name);
  const running = await startMembers(stage, server, members);
  const before = beside ? await backUp(beside.backups, beside.pool, until(aloneSeconds)) : 0;
  const serverBytesBefore = residentBytes(server.pid) ?? 0;
  const memory = watchMemory(server.pid);
  let isOver = false;
  const startedAt = performance.now();
  running.begin();
  const backingUp = beside ? backUp(beside.backups, beside.pool, () => isOver) : Promise.resolve(0);
  await running.done;
  const seconds = (performance.now() - startedAt) / 1000;
  isOver = true;
  const during = await backingUp;
  const serverBytesMost = memory();
  const after = beside ? await backUp(beside.backups, beside.pool, until(aloneSeconds)) : 0;
  const { ends } = running;
  if (ends.length !== count) throw new Error(`${ends.length} of ${count} ended`);
  const overall = ends.map(({ bytes, endMs }) => bytes / endMs);
  const served = ends.map(({ bytes, endMs, firstMs }) => bytes / (endMs - firstMs));
  const first = ends.map(({ firstMs }) => firstMs / 1000);
  const result = {
    name,
    members: count,
    seconds,
    megabytesPerSecond: (count * members.bytes) / 1e6 / seconds,
    fairnessOverall: Math.min(...overall) / Math.max(...overall),
    fairnessWhileServed: Math.min(...served) / Math.max(...served),
    firstByteMedian: median(first),
    firstByteMost: Math.max(...first),
    backups: beside ? { before, beside: during, after } : null,
    serverBytesBefore,
    serverBytesMost,
  };
  const besideAlone = beside ? `; backups ${inDigits(before)}, ${inDigits(during)}, ${inDigits(after)} MB/s` : '';
  stage.say(
    `    ${inDigits(seconds)} s, slowest by fastest ${inDigits(result.fairnessOverall)}, while served ${inDigits(result.fairnessWhileServed)}${besideAlone}`,
  );
  return result;
}

/** Readers that take the first bytes and then nothing, and go away. */
async function stall(stage: Stage, server: ServerProcess, members: Members): Promise<CrowdReport['stalled']> {
  stage.say(`${members.browsers.length} readers that stop reading`);
  const running = await startMembers(stage, server, members, stallSeconds);
  await sleep(1_000);
  const bytesBefore = residentBytes(server.pid) ?? 0;
  const memory = watchMemory(server.pid);
  running.begin();
  await running.done;
  return { readers: members.browsers.length, bytesBefore, bytesMost: memory() };
}

const inMiB = (bytes: number): string => inDigits(bytes / MiB);

export function renderCrowds({ bytes, files, results, stalled }: CrowdReport): string {
  return `Many restores at once, each of ${inMiB(bytes)} MiB in ${files} files
${renderTable(
  ['', 's', 'MB/s', 'slowest by fastest', 'while served', 'first byte s', 'most s', 'server MiB before', 'most'],
  results.map((each) => [
    each.name,
    inDigits(each.seconds),
    inDigits(each.megabytesPerSecond),
    inDigits(each.fairnessOverall),
    inDigits(each.fairnessWhileServed),
    inDigits(each.firstByteMedian),
    inDigits(each.firstByteMost),
    inMiB(each.serverBytesBefore),
    inMiB(each.serverBytesMost),
  ]),
)}

Backups meanwhile, MB/s
${renderTable(
  ['', 'alone before', 'beside', 'alone after', 'beside by alone'],
  results.flatMap(({ name, backups }) =>
    backups
      ? [
          [
            name,
            inDigits(backups.before),
            inDigits(backups.beside),
            inDigits(backups.after),
            `${inDigits((2 * backups.beside) / (backups.before + backups.after))} x`,
          ],
        ]
      : [],
  ),
)}

${stalled.readers} readers that take the first bytes and then nothing for ${stallSeconds} s: ${inMiB(stalled.bytesBefore)} MiB before, ${inMiB(stalled.bytesMost)} MiB at most`;
}
