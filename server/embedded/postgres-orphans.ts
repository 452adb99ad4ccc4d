/**
 * Stops what an earlier PostgreSQL left running on a cluster when our process was killed before it could.
 * Whoever calls this holds the data folder's lock, so no living server of ours uses the cluster. A process is only
 * touched when it is PostgreSQL and works in this very folder: a pid alone says nothing, pids are reused.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const waits: [NodeJS.Signals, number][] = [
  ['SIGINT', 20_000], // fast shutdown, with a checkpoint
  ['SIGQUIT', 5_000], // at once; recovery follows at the next start
  ['SIGKILL', 5_000],
];

/**
 * Leaves the cluster without processes and without a lock file that would keep a new one from starting.
 * @param cluster path of the cluster's folder as we see it
 * @throws Error when a process survives SIGKILL for five seconds
 */
export async function clearOrphans(cluster: string, log: (line: string) => void): Promise<void> {
  for (const [signal, waitMs] of waits) {
    const pids = findProcesses(cluster);
    if (pids.length === 0) break;
    const postmaster = readPostmasterPid(cluster);
    // The postmaster takes its children along; without it they are told one by one.
    const told = postmaster !== null && pids.includes(postmaster) && signal !== 'SIGKILL' ? [postmaster] : pids;
    log(`stopping PostgreSQL left over from an earlier run (${signal} to process ${told.join(', ')})`);
    for (const pid of told) signalProcess(pid, signal);
    const until = performance.now() + waitMs;
    while (performance.now() < until && findProcesses(cluster).length > 0) await sleep(50);
  }
  const left = findProcesses(cluster);
  if (left.length > 0)
    throw new Error(
      `PostgreSQL left over from an earlier run does not end (process ${left.join(', ')}): end it, then start again`,
    );
  // Nothing of PostgreSQL runs here, so whatever process has that pid now is someone else's.
  rmSync(join(cluster, 'postmaster.pid'), { force: true });
}

/** The pids of PostgreSQL processes working in this cluster. */
function findProcesses(cluster: string): number[] {
  const folder = statSync(cluster, { throwIfNoEntry: false });
  if (!folder) return [];
  if (process.platform !== 'linux') {
    const pid = readPostmasterPid(cluster);
    return pid !== null && looksLikePostmaster(pid, cluster) ? [pid] : [];
  }
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        // PostgreSQL's working directory is its cluster, whatever path it was started with.
        const cwd = statSync(`/proc/${pid}/cwd`);
        // A program replaced by an upgrade reads as "postgres (deleted)".
        return (
          cwd.dev === folder.dev &&
          cwd.ino === folder.ino &&
          basename(readlinkSync(`/proc/${pid}/exe`)).startsWith('postgres')
        );
      } catch {
        return false; // ended meanwhile, or not ours to look at
      }
    });
}

/** Where there is no /proc: the command line tells. */
function looksLikePostmaster(pid: number, cluster: string): boolean {
  if (process.platform === 'win32') {
    const listed = spawnSync('tasklist', ['/FI', `PID eq ${pid}`, '/NH'], { encoding: 'utf8', timeout: 5_000 });
    return /postgres/i.test(listed.stdout ?? '');
  }
  const { stdout } = spawnSync('ps', ['-p', String(pid), '-o', 'command='], { encoding: 'utf8', timeout: 5_000 });
  return stdout.includes('postgres') && stdout.includes(cluster);
}

/** The pid in the cluster's lock file, or null. */
export function readPostmasterPid(cluster: string): number | null {
  try {
    const pid = Number.parseInt(readFileSync(join(cluster, 'postmaster.pid'), 'utf8'), 10);
    return Number.isInteger(pid) && pid > 1 ? pid : null;
  } catch {
    return null;
  }
}

function signalProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It ended meanwhile.
  }
}
