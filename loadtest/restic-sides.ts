/**
 * What restic is measured against: Holdfast, `rclone serve restic`, and a folder of this machine's. Each gives new, empty
 * repositories, on the same disk; the two servers are spoken to over TLS with the same certificate, and ask for a password.
 * Nothing that is started here outlives its bound, even when we are killed: timeout(1) stands before each command.
 */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Program, startCommand } from './child-process.ts';
import { type Stage, WebClient } from './restoring-world.ts';
import type { ServerProcess } from './server-process.ts';

/** A command of restic's on a large tree and a busy machine. */
const commandBoundSeconds = 30 * 60;
/** As long as all rounds may take. */
const peerBoundSeconds = 6 * 3600;

export type SideName = 'Holdfast' | 'rclone' | 'folder';

export interface Repository {
  /** As `restic -r` takes it. */
  url: string;
  /** Frees the disk, where that can be done at once. */
  remove(): Promise<void>;
}

export interface Side {
  name: SideName;
  /** The first process of its server; null: there is none. */
  pid: number | null;
  newRepository(name: string): Promise<Repository>;
  stop(): Promise<void>;
}

/** @throws Error in words when one of the programs is not there */
export function assertInstalled(...commands: string[]): void {
  const folders = (process.env.PATH ?? '').split(':');
  const missing = commands.filter((command) => !folders.some((folder) => existsSync(join(folder, command))));
  if (missing.length > 0)
    throw new Error(`${missing.join(' and ')} must be installed (Debian and Ubuntu: apt-get install restic rclone)`);
}

export function openHoldfast(server: ServerProcess): Side {
  const web = new WebClient(server.url, server.certificateSha256);
  return {
    name: 'Holdfast',
    pid: server.pid,
    newRepository: async (name) => {
      await web.signIn(server);
      const { token } = await web.ask<{ token: { url: string } }>('POST', '/v1/me/repositories', {
        name,
        password: server.password,
      });
      // Nothing goes from a repository at once: that is what it is for. The scratch folder goes as a whole.
      return { url: token.url, remove: async () => {} };
    },
    stop: async () => web.close(),
  };
}

/** @param server whose certificate it shows, too */
export async function openRclone(stage: Stage, server: ServerProcess): Promise<Side> {
  const root = join(stage.scratch, 'rclone');
  await mkdir(root);
  const port = await freePort();
  const password = randomBytes(24).toString('hex');
  const program = startBounded(peerBoundSeconds, 'rclone', ['serve', 'restic', root], {
    HOME: stage.scratch,
    RCLONE_ADDR: `127.0.0.1:${port}`,
    RCLONE_CERT: server.certificateFiles.cert,
    RCLONE_KEY: server.certificateFiles.key,
    RCLONE_USER: 'restic',
    RCLONE_PASS: password,
  });
  stage.onStart(program);
  await untilListening(port, program);
  const host = new URL(server.url).hostname;
  return {
    name: 'rclone',
    pid: program.pid,
    newRepository: async (name) => ({
      url: `rest:https://restic:${password}@${host}:${port}/${name}/`,
      remove: () => rm(join(root, name), { recursive: true, force: true }),
    }),
    stop: () => program.stop(10_000),
  };
}

export async function openFolder(stage: Stage): Promise<Side> {
  const root = join(stage.scratch, 'folder');
  await mkdir(root);
  return {
    name: 'folder',
    pid: null,
    newRepository: async (name) => ({
      url: join(root, name),
      remove: () => rm(join(root, name), { recursive: true, force: true }),
    }),
    stop: async () => {},
  };
}

/** A restic with a cache of its own, on one repository. */
export interface ResticUser {
  url: string;
  /** PEM file of the server's certificate. */
  certificate: string;
  /** For its cache and its temporary files. */
  home: string;
}

export interface ResticEnd {
  said: string;
  /** Requests that it sent again: a server had no room for them, or failed. Waiting for that is in the command's time. */
  retries: number;
}

/** @throws Error with what it said when it did not end well, or not in half an hour */
export async function runRestic(
  stage: Pick<Stage, 'onStart'>,
  user: ResticUser,
  words: readonly string[],
): Promise<ResticEnd> {
  const { url, certificate, home } = user;
  const program = startBounded(commandBoundSeconds, 'restic', ['--cacert', certificate, ...words], {
    HOME: home,
    TMPDIR: home,
    RESTIC_CACHE_DIR: join(home, 'cache'),
    RESTIC_PASSWORD: 'of a benchmark',
    RESTIC_REPOSITORY: url,
  });
  stage.onStart(program);
  const code = await program.ended;
  if (code !== 0) throw new Error(`restic ${words[0]} ended with ${code}: ${program.output()}${program.errors()}`);
  return { said: program.output(), retries: (program.errors().match(/, retrying after /g) ?? []).length };
}

/** What was written before is not to fall on the next turn. */
export async function syncDisk(stage: Pick<Stage, 'scratch' | 'onStart'>): Promise<void> {
  const program = startBounded(commandBoundSeconds, 'sync', ['--file-system', stage.scratch], {});
  stage.onStart(program);
  if ((await program.ended) !== 0) throw new Error(`sync failed: ${program.errors()}`);
}

function startBounded(
  boundSeconds: number,
  command: string,
  words: readonly string[],
  environment: Record<string, string>,
): Program {
  return startCommand('timeout', ['--kill-after=10', String(boundSeconds), command, ...words], {
    environment,
    name: command,
  });
}

/** Free now; whoever takes it before rclone does is told by rclone. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function untilListening(port: number, program: Program): Promise<void> {
  const ended = program.ended.then((code): never => {
    throw new Error(`rclone ended with ${code}: ${program.errors()}`);
  });
  const answered = async (): Promise<void> => {
    for (let attempt = 0; attempt < 300; attempt++) {
      if (await connects(port)) return;
      await sleep(100);
    }
    throw new Error(`rclone does not answer: ${program.errors()}`);
  };
  await Promise.race([answered(), ended]);
  ended.catch(() => {});
}

function connects(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  return new Promise((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
  }).finally(() => socket.destroy()) as Promise<boolean>;
}
