/**
 * Processor time of a process and everything it started, from /proc (Linux). What a process of the tree used is
 * counted once: by itself while it lives, and by whoever waited for it after it ended.
 */
import { readdirSync, readFileSync } from 'node:fs';

/** One process, as /proc/PID/stat tells it. Times in seconds. */
export interface ProcessTimes {
  pid: number;
  parentPid: number;
  /** The kernel's name for it: at most 15 bytes, any characters. */
  name: string;
  ownSeconds: number;
  /** Of children that ended and were waited for, and of theirs. */
  endedChildrenSeconds: number;
}

/** Seconds, since the processes began. */
export interface TreeCpu {
  seconds: number;
  /** The part of it that PostgreSQL's processes used. */
  postgresSeconds: number;
}

/** USER_HZ: 100 on every architecture Node runs on, whatever the kernel's own tick is (man 5 proc_pid_stat). */
const ticksPerSecond = 100;

/** @param text of /proc/PID/stat. @throws Error when it is something else */
export function parseProcessTimes(text: string): ProcessTimes {
  // The name stands in parentheses and may itself hold any of them, and spaces: the last one closes it.
  const open = text.indexOf('(');
  const close = text.lastIndexOf(')');
  const fields = text
    .slice(close + 1)
    .trim()
    .split(/\s+/);
  const at = (field: number): number => Number(fields[field - 3]); // numbered as in the manual; the third follows the name
  const times = {
    pid: Number(text.slice(0, open)),
    parentPid: at(4),
    name: text.slice(open + 1, close),
    ownSeconds: (at(14) + at(15)) / ticksPerSecond,
    endedChildrenSeconds: (at(16) + at(17)) / ticksPerSecond,
  };
  if (
    open < 0 ||
    close < open ||
    [times.pid, times.parentPid, times.ownSeconds, times.endedChildrenSeconds].some(Number.isNaN)
  )
    throw new Error(`this is not a process's stat line: ${JSON.stringify(text.slice(0, 80))}`);
  return times;
}

/** What the tree below `root` has used, itself included. Zero when `root` is not among the processes. */
export function sumTree(processes: readonly ProcessTimes[], root: number): TreeCpu {
  const children = Map.groupBy(processes, (each) => each.parentPid);
  const waiting = processes.filter((each) => each.pid === root);
  const seen = new Set<number>();
  const sum: TreeCpu = { seconds: 0, postgresSeconds: 0 };
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    if (seen.has(next.pid)) continue;
    seen.add(next.pid);
    const seconds = next.ownSeconds + next.endedChildrenSeconds;
    sum.seconds += seconds;
    if (next.name.startsWith('postgres')) sum.postgresSeconds += seconds;
    waiting.push(...(children.get(next.pid) ?? []));
  }
  return sum;
}

/** Reads the tree below a process. Exact to a few hundredths of a second: the kernel shows whole ticks. */
export function readTreeCpu(root: number): TreeCpu {
  const processes: ProcessTimes[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      processes.push(parseProcessTimes(readFileSync(`/proc/${name}/stat`, 'utf8')));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT' && code !== 'ESRCH') throw error; // it ended meanwhile: its parent counts it
    }
  }
  return sumTree(processes, root);
}

export function cpuBetween(before: TreeCpu, after: TreeCpu): TreeCpu {
  return {
    seconds: after.seconds - before.seconds,
    postgresSeconds: after.postgresSeconds - before.postgresSeconds,
  };
}
