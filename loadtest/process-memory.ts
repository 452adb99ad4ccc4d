/** Memory of a process while something goes on, from /proc (Linux): sampled, since the kernel's own peak is of all its life. */
import { readFileSync } from 'node:fs';

const everyMs = 50;

/** Resident bytes of a process now; null when it has ended. */
export function residentBytes(pid: number): number | null {
  try {
    const found = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return found ? Number(found[1]) * 1024 : null;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ESRCH') throw error;
    return null;
  }
}

/** Looks every 50 ms. @returns ends it, and says the most bytes seen */
export function watchMemory(pid: number): () => number {
  let most = residentBytes(pid) ?? 0;
  const timer = setInterval(() => {
    most = Math.max(most, residentBytes(pid) ?? 0);
  }, everyMs);
  return () => {
    clearInterval(timer);
    return Math.max(most, residentBytes(pid) ?? 0);
  };
}
