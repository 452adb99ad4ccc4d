/**
 * Trees of files to back up, and what they are: every name, kind, mode, time, link and byte below a folder as one
 * map, so that two trees are the same when the maps are. Names are bytes throughout.
 */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  copyFileSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Random } from './random.ts';

export interface Item {
  kind: 'file' | 'directory' | 'symlink';
  /** Permissions; of a symlink none are kept. */
  mode: number;
  mtimeNs: bigint;
  /** SHA-256 of a file's bytes, a symlink's target, or nothing. */
  content: string;
  size: number;
  /** The first path, in byte order, of the files that are one by hard link; null when it is alone. */
  linkedTo: string | null;
  /** Whether it takes clearly less room than it is long. */
  sparse: boolean;
}

/** By path below the folder, as latin1; the folder itself is ''. */
export type Snapshot = Map<string, Item>;

export function snapshot(root: string): Snapshot {
  const items: Snapshot = new Map();
  const firstOfInode = new Map<bigint, string>();
  const look = (path: Buffer, name: string): void => {
    const stat = lstatSync(path, { bigint: true });
    const kind = stat.isFile() ? 'file' : stat.isDirectory() ? 'directory' : stat.isSymbolicLink() ? 'symlink' : null;
    if (!kind) throw new Error(`${path} is neither file, folder nor symlink`);
    let linkedTo: string | null = null;
    if (kind === 'file' && stat.nlink > 1n) {
      linkedTo = firstOfInode.get(stat.ino) ?? name;
      firstOfInode.set(stat.ino, linkedTo);
    }
    const content =
      kind === 'file'
        ? createHash('sha256').update(readFileSync(path)).digest('hex')
        : kind === 'symlink'
          ? readlinkSync(path, 'latin1')
          : '';
    items.set(name, {
      kind,
      mode: kind === 'symlink' ? 0 : Number(stat.mode & 0o7777n),
      mtimeNs: stat.mtimeNs,
      content,
      size: kind === 'file' ? Number(stat.size) : 0,
      linkedTo,
      sparse: kind === 'file' && stat.blocks * 512n + 65_536n < stat.size,
    });
    if (kind !== 'directory') return;
    const names = readdirSync(path, { encoding: 'buffer' }).sort(Buffer.compare);
    for (const each of names) {
      const below = Buffer.concat([path, Buffer.from('/'), each]);
      look(below, `${name}${name === '' ? '' : '/'}${each.toString('latin1')}`);
    }
  };
  look(Buffer.from(root), '');
  return items;
}

/** Every way in which two trees differ, in words; empty when they are the same. Times are compared to the microsecond. */
export function differences(expected: Snapshot, actual: Snapshot): string[] {
  const found: string[] = [];
  for (const [name, item] of expected) {
    const other = actual.get(name);
    if (!other) {
      found.push(`${name}: missing`);
      continue;
    }
    for (const field of ['kind', 'mode', 'content', 'size', 'linkedTo', 'sparse'] as const)
      if (item[field] !== other[field]) found.push(`${name}: ${field} is ${other[field]}, was ${item[field]}`);
    const apartNs = item.mtimeNs - other.mtimeNs;
    if (apartNs < -1_000n || apartNs > 1_000n) found.push(`${name}: its time is ${other.mtimeNs}, was ${item.mtimeNs}`);
  }
  for (const name of actual.keys()) if (!expected.has(name)) found.push(`${name}: not there before`);
  return found;
}

/** Copies the first files below a folder, in order of names, with modes, times and symlinks, up to a bound of each. */
export function copyBounded(from: string, to: string, bounds: { bytesMax: number; filesMax: number }): void {
  let { bytesMax: bytes, filesMax: files } = bounds;
  const copy = (source: string, target: string): void => {
    const stat = lstatSync(source);
    if (files <= 0 || (stat.isFile() && stat.size > bytes)) return;
    files--;
    if (stat.isSymbolicLink()) {
      symlinkSync(readlinkSync(source), target);
      lutimesSync(target, stat.atime, stat.mtime);
    } else if (stat.isFile()) {
      bytes -= stat.size;
      copyFileSync(source, target);
      chmodSync(target, stat.mode & 0o777);
      utimesSync(target, stat.atime, stat.mtime);
    } else if (stat.isDirectory()) {
      mkdirSync(target);
      for (const name of readdirSync(source).sort()) copy(join(source, name), join(target, name));
      chmodSync(target, stat.mode & 0o777);
      utimesSync(target, stat.atime, stat.mtime);
    }
  };
  copy(from, to);
}

/** What real trees seldom hold all of: names, modes, times, links and shapes that a backup gets wrong first. */
export function makeOddities(folder: string): void {
  mkdirSync(folder);
  const at = (name: string): string => join(folder, name);
  const bytes = (latin1: string): Buffer => Buffer.concat([Buffer.from(`${folder}/`), Buffer.from(latin1, 'latin1')]);

  writeFileSync(at('empty file'), '');
  mkdirSync(at('empty folder'));
  mkdirSync(at('only/folders/inside'), { recursive: true });
  writeFileSync(at('two\nlines and a \t tab'), 'newline in the name');
  writeFileSync(at(' leading and trailing '), 'spaces');
  writeFileSync(at('-rf'), 'looks like an option');
  writeFileSync(at('ünïcödé 🗄️ 文件'), 'composed');
  writeFileSync(at('u\u0308n-decomposed'), 'decomposed');
  writeFileSync(at('x'.repeat(255)), 'the longest name');
  writeFileSync(bytes('not utf-8 \xff\xfe\x80'), 'bytes');
  mkdirSync(bytes('folder \xe4'));
  writeFileSync(bytes('folder \xe4/inside'), 'below a name that is not UTF-8');
  writeFileSync(at('CASE'), 'upper');
  writeFileSync(at('case'), 'lower');

  for (const mode of [0o400, 0o444, 0o600, 0o640, 0o755, 0o777]) {
    writeFileSync(at(`mode-${mode.toString(8)}`), `${mode}`);
    chmodSync(at(`mode-${mode.toString(8)}`), mode);
  }
  mkdirSync(at('private'));
  writeFileSync(at('private/inside'), 'kept');
  chmodSync(at('private'), 0o700);

  writeFileSync(at('old'), 'from before the epoch');
  utimesSync(at('old'), -86_400, -86_400);
  writeFileSync(at('future'), 'from 2100');
  utimesSync(at('future'), 4_102_444_800, 4_102_444_800.123456);

  symlinkSync('old', at('link'));
  symlinkSync('nowhere/at all', at('dangling'));
  symlinkSync('/etc', at('absolute'));
  symlinkSync('..', at('upwards'));
  symlinkSync('loop', at('loop'));
  lutimesSync(at('link'), 1_000_000_000, 1_000_000_000);

  writeFileSync(at('hard-1'), 'one file with three names');
  linkSync(at('hard-1'), at('hard-2'));
  mkdirSync(at('elsewhere'));
  linkSync(at('hard-1'), at('elsewhere/hard-3'));

  const sparse = openSync(at('sparse'), 'w');
  ftruncateSync(sparse, 6 * 1024 * 1024);
  writeSync(sparse, 'an island', 3 * 1024 * 1024);
  closeSync(sparse);
}

/** Bytes that neither compress nor repeat, quickly: SHA-256 of a counter would be the bottleneck. */
export function noise(random: Random, length: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(length);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, length >> 2);
  let [a, b, c, d] = [random.below(2 ** 32), random.below(2 ** 32), random.below(2 ** 32), random.below(2 ** 32) | 1];
  // xorshift128 (Marsaglia 2003).
  for (let i = 0; i < words.length; i++) {
    const t = a ^ (a << 11);
    a = b;
    b = c;
    c = d;
    d = (d ^ (d >>> 19) ^ t ^ (t >>> 8)) | 0;
    words[i] = d;
  }
  for (let i = words.length * 4; i < length; i++) bytes[i] = random.below(256);
  return bytes;
}
