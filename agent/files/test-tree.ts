/** For tests: scratch folders, and what a tree looks like when read with nothing of ours. */
import { createHash } from 'node:crypto';
import { lstatSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A scratch folder outside of the repository; `remove` takes it away whatever modes are in it. */
export function scratchFolder(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-files-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true, maxRetries: 3 }) };
}

/** What this process holds open below a folder (Linux; elsewhere nothing can be said). A test that leaves some leaks. */
export function heldOpenBelow(folder: string): string[] {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc/self/fd')
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return ''; // the descriptor of this very listing
      }
    })
    .filter((path) => path.startsWith(folder));
}

export function bytesPath(...parts: (string | Buffer)[]): Buffer {
  return Buffer.concat(
    parts.flatMap((part, index) => [index > 0 ? Buffer.from('/') : Buffer.alloc(0), Buffer.from(part)]),
  );
}

/**
 * One line per path below a folder, by name as latin1: kind, mode, time in microseconds, and content's sum or target.
 * Names of one inode show as the first of them.
 */
export function snapshot(folder: string | Buffer, options: { modes?: boolean } = {}): Record<string, string> {
  const found: Record<string, string> = {};
  const firstNames = new Map<bigint, string>();
  const visit = (path: Buffer, name: string): void => {
    const stat = lstatSync(path, { bigint: true });
    const head = `${options.modes === false ? '' : (stat.mode & 0o7777n).toString(8)} ${stat.mtimeNs / 1000n}`;
    if (stat.isSymbolicLink()) found[name] = `symlink ${stat.mtimeNs / 1000n} ${readlinkSync(path, 'latin1')}`;
    else if (stat.isFile()) {
      const sum = createHash('sha256').update(readFileSync(path)).digest('hex').slice(0, 16);
      const first = firstNames.get(stat.ino);
      if (stat.nlink > 1n && !first) firstNames.set(stat.ino, name);
      found[name] = `file ${head} ${stat.size} ${sum}${first ? ` = ${first}` : ''}`;
    } else if (stat.isDirectory()) {
      found[name] = `folder ${head}`;
      const entries = readdirSync(path, { encoding: 'buffer' }).sort(Buffer.compare);
      for (const entry of entries) visit(bytesPath(path, entry), `${name}/${entry.toString('latin1')}`);
    } else found[name] = 'special';
  };
  visit(Buffer.from(folder), '');
  return found;
}

/** Bytes that look random and are the same for the same seed (xorshift32). */
export function seededBytes(seed: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(Math.ceil(length / 4) * 4);
  const next = seededNumbers(seed);
  for (let at = 0; at < bytes.byteLength; at += 4) bytes.writeUInt32LE(next(), at);
  return bytes.subarray(0, length);
}

/** Numbers from 0 to 2^32 - 1, the same for the same seed. */
export function seededNumbers(seed: number): () => number {
  let state = (seed * 2_654_435_761) >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state;
  };
}
