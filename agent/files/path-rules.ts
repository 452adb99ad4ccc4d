/**
 * What each platform means by a path, as pure functions that take the platform as an argument.
 * Going into the archive loses nothing: two local paths that differ have different archive paths, and toLocalPath
 * leads back. Coming out, a name the target cannot hold is changed, and the caller is told, so that it can report it.
 */
import { createHash } from 'node:crypto';
import { joinPath, pathFault, splitPath } from '../../protocol/paths.ts';
import type { LocalPath, Platform } from './types.ts';
import { decodeRuns, decodeWtf8, encodeWtf8 } from './wtf8.ts';

/** A local path that the archive cannot hold, or an archive path that has no place here. */
export class PathRuleError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'PathRuleError';
  }
}

/** The rules for `process.platform`; Unixes we have not tested follow Linux. */
export function platformRules(nodePlatform: string): Platform {
  return nodePlatform === 'win32' || nodePlatform === 'darwin' ? nodePlatform : 'linux';
}

/**
 * The archive path of an absolute local path. Windows: 'c:\a' and '\\?\C:\a' are '/C:/a', '\\server\share\a' is
 * '/UNC/server/share/a'. Elsewhere the bytes are kept as they are (macOS: also their normal form).
 * @throws PathRuleError when it is not absolute, names a device, holds '.' or '..', or is past the archive's bounds
 */
export function toArchivePath(local: LocalPath, platform: Platform): Buffer {
  const path = joinPath(platform === 'win32' ? windowsNames(String(local)) : posixNames(bytesOf(local)));
  const fault = pathFault(path);
  if (fault) throw new PathRuleError(`the path ${fault}`);
  return path;
}

function posixNames(local: Buffer): Buffer[] {
  if (local[0] !== 0x2f) throw new PathRuleError('the path is not absolute');
  return splitPath(local).filter((name) => name.byteLength > 0);
}

function windowsNames(local: string): Buffer[] {
  const path = local.replaceAll('/', '\\');
  const extended = /^\\\\\?\\(?:(UNC)\\|(?=[A-Za-z]:))/.exec(path);
  if (!extended && /^\\\\[?.]\\/.test(path))
    throw new PathRuleError('the path names a device or a volume without a letter');
  const unc = extended ? extended[1] !== undefined : path.startsWith('\\\\');
  const rest = extended ? path.slice(extended[0].length) : unc ? path.slice(2) : path;
  if (!unc && !/^[A-Za-z]:(?:\\|$)/.test(rest)) throw new PathRuleError('the path is not absolute');
  const [first, ...below] = rest.split('\\').filter((name) => name !== '');
  if (unc) {
    if (first === undefined || below.length === 0) throw new PathRuleError('the network path names no share');
    return [Buffer.from('UNC'), encodeWtf8(first), ...below.map(encodeWtf8)];
  }
  return [Buffer.from(first!.toUpperCase()), ...below.map(encodeWtf8)];
}

/**
 * The local path an archive path was made from. On Windows with the prefix that lifts the bound of 260 characters and
 * lets odd names through as they are.
 * @throws PathRuleError when this platform has no such path
 */
export function toLocalPath(archive: Buffer, platform: Platform): LocalPath {
  const fault = pathFault(archive);
  if (fault) throw new PathRuleError(`the path ${fault}`);
  if (platform !== 'win32') return Buffer.from(archive);
  const names = splitPath(archive).map((name) => decodeWtf8(name));
  const [first, ...below] = names;
  if (names.some((name) => name === null || /[\\/]/.test(name)))
    throw new PathRuleError('the path is not one that Windows can have');
  if (first && /^[A-Z]:$/.test(first)) return `\\\\?\\${first}\\${below.join('\\')}`;
  if (first === 'UNC' && below.length >= 2) return `\\\\?\\UNC\\${below.join('\\')}`;
  throw new PathRuleError('the path names no drive and no share');
}

/** A folder's path with one more name. */
export function joinLocal(folder: LocalPath, name: LocalPath, platform: Platform): LocalPath {
  if (platform === 'win32') return `${folder}${String(folder).endsWith('\\') ? '' : '\\'}${name}`;
  const parent = bytesOf(folder);
  const slash = parent[parent.byteLength - 1] === 0x2f ? [] : [Buffer.of(0x2f)];
  return Buffer.concat([parent, ...slash, bytesOf(name)]);
}

/** The bytes the archive keeps for a name found in a folder. */
export function nameBytes(name: LocalPath): Buffer {
  return typeof name === 'string' ? encodeWtf8(name) : name;
}

function bytesOf(path: LocalPath): Buffer {
  return typeof path === 'string' ? Buffer.from(path, 'utf8') : path;
}

// --- names on their way out ------------------------------------------------------------------------------------------

// biome-ignore lint/suspicious/noControlCharactersInRegex: Windows forbids them in names
const windowsForbidden = /[<>:"/\\|?*\u0000-\u001f]/g;
/** Names that mean a device whatever their extension (Microsoft, "Naming Files, Paths, and Namespaces"). */
const windowsDevice =
  /^(?:con|prn|aux|nul|conin\$|conout\$|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])(?=[ ]*(?:\.|$))/i;
const nameUnitsMax = 255;

export interface RestoredName {
  name: LocalPath;
  /** The target cannot hold the name as it was; report it. */
  changed: boolean;
}

/**
 * The name to give a file from the archive: as it was where the platform can hold it, else with the offending
 * characters as %XX, or shortened behind a hash. Never empty, never '.' or '..', never with a separator.
 * Two names can become one: see `foldName` and `markedName`.
 */
export function restoredName(name: Buffer, platform: Platform): RestoredName {
  if (platform === 'linux') return shortened(name, platform);
  const runs = decodeRuns(name, { surrogates: platform === 'win32' });
  const spelled = runs.map((run) => (run.invalid ? percent(run.text) : run.text)).join('');
  const safe = platform === 'win32' ? windowsName(spelled) : spelled;
  const fitted = shortened(safe, platform);
  const changed = fitted.changed || safe !== spelled || runs.some((run) => run.invalid);
  return { name: platform === 'win32' ? fitted.name : bytesOf(fitted.name), changed };
}

/** 'C:', the folder of a drive, becomes a plain folder named 'C': that change goes without saying. */
export function isDriveName(name: Buffer): boolean {
  return name.byteLength === 2 && /^[A-Z]:$/.test(name.toString('latin1'));
}

function windowsName(name: string): string {
  return name
    .replace(windowsForbidden, percent)
    .replace(/[. ]$/, percent)
    .replace(windowsDevice, (device) => percent(device[0]!) + device.slice(1));
}

function percent(character: string): string {
  return `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`;
}

/** Linux counts bytes, macOS and Windows count 16-bit units; all stop at 255. */
function shortened(name: LocalPath, platform: Platform): RestoredName {
  if (nameLength(name, platform) <= nameUnitsMax) return { name, changed: false };
  const tail = `~${createHash('sha256').update(bytesOf(name)).digest('hex').slice(0, 16)}`;
  const head = name.slice(0, nameUnitsMax - tail.length);
  return {
    name: typeof head === 'string' ? head.toWellFormed() + tail : Buffer.concat([cutUtf8(head), Buffer.from(tail)]),
    changed: true,
  };
}

function nameLength(name: LocalPath, platform: Platform): number {
  return platform === 'linux' ? bytesOf(name).byteLength : name.toString().length;
}

/** Without the part of a character that a cut left at the end. */
function cutUtf8(bytes: Buffer): Buffer {
  let end = bytes.byteLength;
  for (let back = 1; back <= 3 && back < end; back++) {
    const byte = bytes[end - back]!;
    if (byte < 0x80) break;
    if (byte < 0xc0) continue;
    const length = byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    if (length > back) end -= back;
    break;
  }
  return bytes.subarray(0, end);
}

/**
 * What a file system compares when it looks for a name: two names with equal folds are one file there.
 * `caseSensitive` is a property of the volume, not of the platform; macOS also ignores the normal form.
 */
export function foldName(name: LocalPath, platform: Platform, caseSensitive: boolean): string {
  if (platform === 'linux' && caseSensitive) return bytesOf(name).toString('latin1');
  const text = platform === 'darwin' ? name.toString().normalize('NFD') : name.toString();
  // Upper then lower: 'ſ' and 's', 'ß' and 'ẞ' meet, as in the tables of NTFS and APFS or beyond them. One fold too
  // many costs a number behind a name; one too few would cost a file.
  return caseSensitive ? text : text.toUpperCase().toLowerCase();
}

/** A name with a mark before its extension, cut where it would be too long: 'a.txt', ' (2)' -> 'a (2).txt'. */
export function markedName(name: LocalPath, mark: string, platform: Platform): LocalPath {
  const text = typeof name === 'string' ? name : name.toString('latin1');
  const dot = text.lastIndexOf('.');
  const cut = dot > 0 && text.length - dot <= 16 ? dot : text.length;
  const room = nameUnitsMax - mark.length - (text.length - cut);
  if (typeof name === 'string') return name.slice(0, Math.min(cut, room)) + mark + name.slice(cut);
  // macOS counts units, of which a name never has more than bytes: cutting by bytes keeps it within.
  const stem = name.subarray(0, cut);
  const tooLong = nameLength(name, platform) + mark.length > nameUnitsMax;
  return Buffer.concat([tooLong ? cutUtf8(stem.subarray(0, room)) : stem, Buffer.from(mark), name.subarray(cut)]);
}

/** Paths that are of the same file are equal by it, whatever the case of their letters where the platform asks for none. */
function sameFile(path: Buffer, platform: Platform): Buffer {
  // macOS knows no difference between the ways to write an accent either, and Windows is asked too much rather than too little.
  return platform === 'linux' ? path : Buffer.from(path.toString('utf8').normalize('NFC').toUpperCase().toLowerCase());
}

/** Whether an archive path is another one or lies below it. */
export function isAtOrBelow(path: Buffer, root: Buffer): boolean {
  if (root.byteLength === 1) return true;
  return (
    path.byteLength >= root.byteLength &&
    path.subarray(0, root.byteLength).equals(root) &&
    (path.byteLength === root.byteLength || path[root.byteLength] === 0x2f)
  );
}

/** The deepest folder that all of these archive paths lie in; of none, the root. */
export function commonFolder(paths: readonly Buffer[]): Buffer {
  const [first = [], ...others] = paths.map((path) => splitPath(path).slice(0, -1));
  let names = first;
  for (const other of others) {
    const parted = names.findIndex((name, index) => !other[index]?.equals(name));
    if (parted >= 0) names = names.slice(0, parted);
  }
  return joinPath(names);
}

/** Whether a path is at or below one of those of `folders` that lie below the root. */
export function untouchedBelow(
  root: Buffer,
  folders: readonly Buffer[],
  platform: Platform,
): (path: Buffer) => boolean {
  const top = sameFile(root, platform);
  const below = folders
    .map((path) => sameFile(path, platform))
    .filter((path) => isAtOrBelow(path, top) && !path.equals(top));
  if (below.length === 0) return () => false;
  return (path) => {
    const at = sameFile(path, platform);
    return below.some((folder) => isAtOrBelow(at, folder));
  };
}
