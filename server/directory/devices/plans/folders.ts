/**
 * The folders of a plan as the archive has them. The one place on the server that reads a path as people write it; an agent
 * finds out by itself what it means on its device (agent/files/path-rules.ts), and both must come to the same.
 */
import { joinPath, pathFault } from '../../../../protocol/paths.ts';
import type { Folder } from '../../../../storage/archive/retention/policies.ts';

export type ReadFolder = { folder: Folder; fault?: never } | { folder?: never; fault: string };

/**
 * `C:\Users` and `C:/Users` are `/C:/Users`, `\\server\share\x` is `/UNC/server/share/x`; what begins with one slash stays as it
 * is. Whatever is no absolute path, or may mean more than one folder, is a fault: which files it is about is not known here.
 */
export function readFolder(text: string): ReadFolder {
  const names = namesIn(text);
  if (typeof names === 'string') return { fault: names };
  if (/[*?]/.test(names.join('/'))) return { fault: 'holds a wildcard: it has to name one folder' };
  const path = joinPath(names.map((name) => Buffer.from(name)));
  const fault = pathFault(path);
  if (fault) return { fault };
  return { folder: { path, anyCase: isOfWindows(text) } };
}

const isOfWindows = (text: string): boolean => text.startsWith('\\\\') || /^[A-Za-z]:[\\/]/.test(text);

/** The names of the archive's path, or why there are none. */
function namesIn(text: string): string[] | string {
  if (!isOfWindows(text)) {
    if (text.startsWith('//')) return 'begins with two slashes: a network path is written \\\\server\\share';
    return text.startsWith('/') ? namesBetween(text, '/') : 'is no absolute path, such as /home or C:\\Users';
  }
  const path = text.replaceAll('/', '\\');
  // `\\?\` takes a path of Windows as it is; a device or a volume without a letter has no place in an archive.
  const extended = /^\\\\\?\\(?:(UNC)\\|(?=[A-Za-z]:\\))/.exec(path);
  if (!extended && /^\\\\[?.]\\/.test(path)) return 'names a device or a volume without a letter';
  const rest = extended ? path.slice(extended[0].length) : path;
  const [first, ...below] = namesBetween(rest, '\\');
  if (extended ? extended[1] === undefined : !path.startsWith('\\\\')) return [first!.toUpperCase(), ...below];
  if (first === undefined || below.length === 0) return 'names a server and no share';
  return ['UNC', first, ...below];
}

const namesBetween = (path: string, separator: string): string[] => path.split(separator).filter((name) => name !== '');
