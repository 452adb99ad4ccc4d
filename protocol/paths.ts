/**
 * Paths as the archive holds them: bytes, absolute, names separated by '/', compared byte by byte.
 * What a file system means by them (case, drives, separators) is the agent's matter (agent/files/).
 */
import { limits } from './limits.ts';

const SLASH = 0x2f;

/**
 * Why bytes are not a path the archive can hold, or null when they are one: '/' or '/name/name', no empty name,
 * no '.', no '..', no NUL, within the bounds on length, name and depth.
 */
export function pathFault(path: Uint8Array): string | null {
  if (path.byteLength === 0 || path[0] !== SLASH) return 'must begin with a slash';
  if (path.byteLength > limits.pathBytesMax) return `is longer than ${limits.pathBytesMax} bytes`;
  if (path.byteLength === 1) return null;
  if (path.includes(0)) return 'holds a NUL byte';
  const names = splitPath(path);
  if (names.length > limits.pathDepthMax) return `has more than ${limits.pathDepthMax} names`;
  for (const name of names) {
    if (name.byteLength === 0) return 'has an empty name';
    if (name.byteLength > limits.nameBytesMax) return `has a name longer than ${limits.nameBytesMax} bytes`;
    if (name[0] === 0x2e && (name.byteLength === 1 || (name.byteLength === 2 && name[1] === 0x2e)))
      return "has a name '.' or '..'";
  }
  return null;
}

/** The names of a path, as views. The root has none. */
export function splitPath(path: Uint8Array): Buffer[] {
  const bytes = Buffer.from(path.buffer, path.byteOffset, path.byteLength);
  if (bytes.byteLength <= 1) return [];
  const names: Buffer[] = [];
  let start = 1;
  for (;;) {
    const end = bytes.indexOf(SLASH, start);
    if (end < 0) return [...names, bytes.subarray(start)];
    names.push(bytes.subarray(start, end));
    start = end + 1;
  }
}

export function joinPath(names: readonly Uint8Array[]): Buffer {
  if (names.length === 0) return Buffer.of(SLASH);
  return Buffer.concat(names.flatMap((name) => [Buffer.of(SLASH), name]));
}

/** The order of an archive: name by name in byte order, a folder before what lies in it. */
export function comparePaths(a: Uint8Array, b: Uint8Array): number {
  const [x, y] = [splitPath(a), splitPath(b)];
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    const order = Buffer.compare(x[i]!, y[i]!);
    if (order !== 0) return order;
  }
  return x.length - y.length;
}

/** Whether a path lies in a folder, at any depth. */
export function isPathBelow(path: Uint8Array, folder: Uint8Array): boolean {
  if (folder.byteLength === 1) return path.byteLength > 1;
  return (
    path.byteLength > folder.byteLength &&
    path[folder.byteLength] === SLASH &&
    Buffer.compare(path.subarray(0, folder.byteLength), folder) === 0
  );
}

/** For people and logs: bytes that are not UTF-8 show as replacement characters. */
export function printablePath(path: Uint8Array): string {
  return Buffer.from(path.buffer, path.byteOffset, path.byteLength).toString('utf8');
}
