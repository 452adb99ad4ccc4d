/**
 * Runs a real PostgreSQL for the embedded default, with its cluster inside our data folder and no port or socket but
 * one on the loopback interface. It ends when we end: in order when we stop, soon after when we are killed.
 *
 * Root cannot run PostgreSQL, and the user it hands over to may be unable to enter the folders above the data (a
 * home folder, a 0700 scratch folder). So PostgreSQL gets the open folder itself, as an inherited file descriptor, and
 * reaches its cluster as /proc/self/fd/3/cluster: such a link needs no permission on the folders above.
 */
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fsyncFolder } from '../durable-files.ts';
import { type BoundedLog, openBoundedLog } from './bounded-log.ts';
import { findPostgres, type PostgresPrograms } from './postgres-binaries.ts';
import { clearOrphans } from './postgres-orphans.ts';
import { choosePostgresUser, type PostgresUser } from './postgres-user.ts';

const logBytesMax = 10 * 1024 * 1024;
/** Crash recovery replays at most max_wal_size and a checkpoint: minutes on a slow disk. */
const readyTimeoutMs = 300_000;
const stopTimeoutMs = 30_000;
const initTimeoutMs = 60_000;
const role = 'holdfast';

export interface PostgresOptions {
  /** The data folder; `postgres/`, `postgres-password` and `postgres.log` in it are ours. The caller holds its lock. */
  folder: string;
  /** false: nothing is synced to disk. For tests only. */
  durable: boolean;
  /** Run as this user when we are root. */
  userName?: string | undefined;
  /** Whether a system user may be created when we are root. */
  createUser: boolean;
  sharedBuffersMiB: number;
  connectionsMax: number;
  log: (line: string) => void;
}

export interface EmbeddedPostgres {
  connectionString: string;
  port: number;
  pid: number;
  /** Resolves when PostgreSQL has ended, whoever ended it, with what it said last. */
  ended: Promise<string>;
  /** Ends it: with a checkpoint, or after a bound without. Resolves when it is gone. */
  stop(): Promise<void>;
}

/** How PostgreSQL is run: by whom, from where, and by which path it knows its folder. */
interface Launch {
  programs: PostgresPrograms;
  user: PostgresUser | null;
  /** The folder `postgres/` as we see it, and as PostgreSQL does. */
  ours: string;
  theirs: string;
  /** Open on `postgres/` and inherited as descriptor 3, or null where paths do. */
  descriptor: number | null;
  log: BoundedLog;
  /** The file that is to say where the cluster lies, once there is one: written anew for a place outside the data folder. */
  note: string | null;
}

/**
 * Starts PostgreSQL on the data folder, making the cluster on the first start.
 * What an earlier run left behind is stopped first. Resolves when connections are accepted.
 * @throws Error in words for the operator: no binaries, no user, cluster unreadable, no answer in time
 */
export async function startPostgres(options: PostgresOptions): Promise<EmbeddedPostgres> {
  const launch = prepareLaunch(options);
  try {
    const cluster = join(launch.ours, 'cluster');
    await clearOrphans(cluster, options.log);
    const password = await ensureCluster(launch, options);
    const { child, port } = await launchWithRetries(launch, options);
    const watchdog = startWatchdog(child.pid!, launch.user);
    const ended = new Promise<string>((resolve) => {
      child.once('exit', (code, signal) => {
        watchdog?.kill('SIGKILL');
        resolve(signal ? `it was ended by ${signal}` : `it exited with code ${code}`);
      });
    });
    return {
      connectionString: `postgres://${role}:${password}@127.0.0.1:${port}/${role}`,
      port,
      pid: child.pid!,
      ended,
      stop: () => stopPostgres(child, ended, launch),
    };
  } finally {
    if (launch.descriptor !== null) closeSync(launch.descriptor);
  }
}

function prepareLaunch(options: PostgresOptions): Launch {
  const log = openBoundedLog(join(options.folder, 'postgres.log'), logBytesMax);
  let ours = join(options.folder, 'postgres');
  const moved = join(options.folder, 'postgres-folder'); // names the cluster's place where it cannot lie in the data folder
  if (existsSync(moved)) ours = readFileSync(moved, 'utf8').trim();
  refuseLostCluster(join(ours, 'cluster'), [moved, passwordFileOf(options)]);
  const user = choosePostgresUser({
    clusterFolder: ours,
    name: options.userName,
    create: options.createUser,
    log: options.log,
  });
  const programs = findPostgres(user, options.log);
  makeFolder(ours, user);
  if (!user || canEnter(user, ours)) return { programs, user, ours, theirs: ours, descriptor: null, log, note: null };

  const descriptor = openSync(ours, 'r');
  if (canEnter(user, '/proc/self/fd/3', descriptor))
    return { programs, user, ours, theirs: '/proc/self/fd/3', descriptor, log, note: null };
  closeSync(descriptor);
  if (existsSync(join(ours, 'cluster')))
    throw new Error(
      `${user.name} cannot enter ${ours}, where the database lies: open the folders above it to others (mode 0711)`,
    );

  const elsewhere = join('/var/lib/holdfast-postgres', randomBytes(8).toString('hex'));
  makeFolder(elsewhere, user);
  if (!canEnter(user, elsewhere))
    throw new Error(
      `${user.name} can enter neither ${ours} nor ${elsewhere}, so the database has no place: open the folders above to others (mode 0711)`,
    );
  options.log(`the database lies in ${elsewhere}, because ${user.name} cannot enter ${options.folder}`);
  return { programs, user, ours: elsewhere, theirs: elsewhere, descriptor: null, log, note: moved };
}

const passwordFileOf = (options: PostgresOptions): string => join(options.folder, 'postgres-password');

/**
 * Both files are written when the cluster is there, so that either without the cluster says that it was lost: a disk
 * that is not mounted, or a restore without it. A new cluster in its place would know of no backup.
 */
function refuseLostCluster(cluster: string, traces: readonly string[]): void {
  const found = traces.filter((file) => existsSync(file));
  if (found.length === 0 || existsSync(cluster)) return;
  throw new Error(
    `the database is missing: ${cluster} does not exist, but ${found.join(' and ')} shows that there was one. ` +
      `Mount its disk, or put it back from a copy. To give up all backups and begin anew, remove ${found.join(' and ')}`,
  );
}

function makeFolder(folder: string, user: PostgresUser | null): void {
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  chmodSync(folder, 0o700);
  if (user) chownSync(folder, user.uid, user.gid);
}

function canEnter(user: PostgresUser, folder: string, descriptor?: number): boolean {
  const stdio: SpawnOptions['stdio'] = [
    'ignore',
    'ignore',
    'ignore',
    ...(descriptor === undefined ? [] : [descriptor]),
  ];
  // Two levels of shell, as initdb starts its children.
  const probe = spawnSync('/bin/sh', ['-c', 'sh -c \'test -w "$1" && cd "$1"\' sh "$1"', 'sh', `${folder}/.`], {
    uid: user.uid,
    gid: user.gid,
    cwd: '/',
    stdio,
    timeout: 10_000,
  });
  return probe.status === 0;
}

/** What every program of PostgreSQL is started with: nothing of our environment, where PG... variables may stand. */
function spawnOptions(launch: Launch, stdin: 'ignore' | 'pipe'): SpawnOptions {
  const env = { PATH: '/usr/local/bin:/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' };
  return {
    ...(launch.user ? { uid: launch.user.uid, gid: launch.user.gid } : {}),
    cwd: process.platform === 'win32' ? launch.ours : '/',
    ...(process.platform === 'win32' ? {} : { env }), // Windows programs do not start without its own variables
    stdio: [stdin, 'pipe', 'pipe', ...(launch.descriptor === null ? [] : [launch.descriptor])],
    windowsHide: true,
  };
}

/** Makes the cluster on the first start. Under another name until it is whole, so that a start cut short leaves nothing half done. */
async function ensureCluster(launch: Launch, options: PostgresOptions): Promise<string> {
  const passwordFile = passwordFileOf(options);
  const known = existsSync(passwordFile) ? readFileSync(passwordFile, 'utf8').trim() : '';
  const password = known || randomBytes(24).toString('hex');
  const cluster = join(launch.ours, 'cluster');

  if (!existsSync(cluster)) {
    const fresh = join(launch.ours, 'cluster.new');
    const initial = join(launch.ours, 'initial-password');
    rmSync(fresh, { recursive: true, force: true });
    writeFileSync(initial, `${password}\n`, { mode: 0o600 });
    if (launch.user) chownSync(initial, launch.user.uid, launch.user.gid);
    const args = [
      '-D',
      `${launch.theirs}/cluster.new`,
      '--username',
      role,
      '--pwfile',
      `${launch.theirs}/initial-password`,
    ];
    const sync = options.durable ? [] : ['--no-sync'];
    await runToEnd(
      launch,
      launch.programs.initdb,
      [...args, '--encoding=UTF8', '--locale=C', '--auth=scram-sha-256', '--data-checksums', ...sync],
      '',
    );
    rmSync(initial);
    await runSingleUser(launch, 'cluster.new', `CREATE DATABASE ${role}\n`, options);
    renameSync(fresh, cluster);
    // In this order: a start cut short in between finds a cluster without a password, which is set anew.
    fsyncFolder(launch.ours);
    if (launch.note) writeFileSync(launch.note, `${launch.ours}\n`, { mode: 0o600, flush: true });
    writeFileSync(passwordFile, `${password}\n`, { mode: 0o600, flush: true });
    fsyncFolder(options.folder);
  } else if (!known) {
    // The password file was lost. Whoever owns the folder may set a new password.
    await runSingleUser(launch, 'cluster', `ALTER ROLE ${role} PASSWORD '${password}'\n`, options);
    writeFileSync(passwordFile, `${password}\n`, { mode: 0o600, flush: true });
    fsyncFolder(options.folder);
    options.log('the database password was missing and has been set anew');
  }
  return password;
}

async function runSingleUser(launch: Launch, name: string, sql: string, options: PostgresOptions): Promise<void> {
  await runToEnd(
    launch,
    launch.programs.postgres,
    ['--single', ...durability(options), '-D', `${launch.theirs}/${name}`, 'postgres'],
    sql,
  );
}

/** Runs one of PostgreSQL's programs to its end. @throws Error with what it said, when it fails or takes over a minute */
async function runToEnd(launch: Launch, program: string, args: string[], input: string): Promise<void> {
  const child = spawn(program, args, spawnOptions(launch, 'pipe'));
  let said = '';
  const keep = (bytes: Buffer): void => {
    launch.log.append(bytes);
    said = (said + bytes.toString()).slice(-2_000);
  };
  child.stdout!.on('data', keep);
  child.stderr!.on('data', keep);
  child.stdin!.on('error', () => {}); // it ended before it read: the exit code tells
  child.stdin!.end(input);
  const timer = setTimeout(() => child.kill('SIGKILL'), initTimeoutMs);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  }).finally(() => clearTimeout(timer));
  // Single-user mode ends with 0 even when a statement failed.
  if (code === 0 && !/\b(ERROR|FATAL|PANIC):/.test(said)) return;
  const hint = said.includes('could not look up effective user ID')
    ? '. PostgreSQL wants its user to have a name: add this one to /etc/passwd'
    : '';
  throw new Error(`PostgreSQL could not prepare its folder ${launch.ours}: ${said.trim()}${hint}`);
}

function durability(options: PostgresOptions): string[] {
  return options.durable
    ? ['-c', 'fsync=on']
    : ['-c', 'fsync=off', '-c', 'full_page_writes=off', '-c', 'synchronous_commit=off'];
}

function settings(options: PostgresOptions, port: number): string[] {
  const values: Record<string, string | number> = {
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
    max_connections: options.connectionsMax,
    shared_buffers: `${options.sharedBuffersMiB}MB`,
    // Checkpoints rewrite whole pages into the log: fewer of them, compressed. 2 GB replays in about a minute.
    max_wal_size: '2GB',
    min_wal_size: '256MB',
    checkpoint_timeout: '15min',
    wal_compression: 'on',
    jit: 'off', // statements are short: compiling them costs more than it saves
    log_checkpoints: 'off',
    log_timezone: 'UTC',
    timezone: 'UTC',
    logging_collector: 'off', // stderr comes to us and is bounded here
    log_parameter_max_length_on_error: 0, // parameters hold names and hashes
  };
  return [...Object.entries(values).flatMap(([name, value]) => ['-c', `${name}=${value}`]), ...durability(options)];
}

/** A port can be taken between choosing and binding, and the memory of a killed PostgreSQL can outlive it for a moment. */
async function launchWithRetries(
  launch: Launch,
  options: PostgresOptions,
): Promise<{ child: ChildProcess; port: number }> {
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    try {
      return { child: await launchOnce(launch, options, port), port };
    } catch (error) {
      const transient = /could not bind|could not create any TCP\/IP sockets|pre-existing shared memory block/.test(
        (error as Error).message,
      );
      if (!transient || attempt === 20) throw error;
      await sleep(500);
    }
  }
}

async function launchOnce(launch: Launch, options: PostgresOptions, port: number): Promise<ChildProcess> {
  // Its own session: Ctrl-C reaches us only, and we stop PostgreSQL after the requests have drained.
  const child = spawn(launch.programs.postgres, ['-D', `${launch.theirs}/cluster`, ...settings(options, port)], {
    ...spawnOptions(launch, 'ignore'),
    detached: true,
  });
  let said = '';
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const listen = (bytes: Buffer): void => {
    launch.log.append(bytes);
    said = (said + bytes.toString()).slice(-4_000);
    if (said.includes('database system is ready to accept connections')) resolve();
  };
  child.stdout!.on('data', listen);
  child.stderr!.on('data', listen);
  child.once('error', reject);
  child.once('close', () => reject(new Error(`PostgreSQL did not start: ${said.trim()}`)));
  const recovering = setInterval(
    () => options.log('PostgreSQL is still starting (it replays its log after a crash)'),
    10_000,
  );
  const late = setTimeout(() => {
    child.kill('SIGQUIT');
    reject(new Error(`PostgreSQL did not accept connections within ${readyTimeoutMs / 1000} s: ${said.trim()}`));
  }, readyTimeoutMs);
  try {
    await promise;
    return child;
  } finally {
    clearInterval(recovering);
    clearTimeout(late);
  }
}

/** Ends PostgreSQL should we be killed: the pipe to this shell closes with us, however we end. */
function startWatchdog(pid: number, user: PostgresUser | null): ChildProcess | null {
  if (process.platform === 'win32') return null; // the next start finds and stops what was left
  const as = user ? { uid: user.uid, gid: user.gid } : {};
  const shell = spawn('/bin/sh', ['-c', 'read -r _; kill -INT "$1"', 'holdfast-watchdog', String(pid)], {
    ...as,
    cwd: '/',
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  shell.on('error', () => {}); // no shell: the next start finds and stops what was left
  shell.stdin?.on('error', () => {});
  return shell;
}

async function stopPostgres(child: ChildProcess, ended: Promise<string>, launch: Launch): Promise<void> {
  const steps: [NodeJS.Signals, number][] = [
    ['SIGINT', stopTimeoutMs], // fast: sessions end, a checkpoint is written
    ['SIGQUIT', 5_000], // at once: the next start recovers
    ['SIGKILL', 5_000],
  ];
  for (const [signal, waitMs] of steps) {
    if (child.exitCode !== null || child.signalCode !== null) return;
    // Windows has no SIGINT for others: pg_ctl asks PostgreSQL in its own way.
    if (process.platform === 'win32' && signal === 'SIGINT')
      spawn(launch.programs.pgCtl, ['stop', '-m', 'fast', '-D', join(launch.ours, 'cluster')], { stdio: 'ignore' });
    else child.kill(signal);
    const timer = new AbortController();
    await Promise.race([ended, sleep(waitMs, undefined, { signal: timer.signal }).catch(() => {})]);
    timer.abort();
  }
}

/** A port nobody listens on now. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('the system gave no port');
  return address.port;
}
