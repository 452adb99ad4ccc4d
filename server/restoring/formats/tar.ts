/**
 * Writes the headers of a tar (POSIX.1-2001 "pax"; docs/decisions/restoring.md). What the old header holds exactly is
 * written there; the rest (fractions of seconds, names beyond 100 bytes or ASCII, large numbers) goes into pax
 * records. Those are UTF-8 by definition, so a name that is none is written as raw bytes in the old header, or, beyond
 * 100 bytes, in GNU's long-name entry: GNU tar, bsdtar and Python read both as they are.
 */
import { isAscii, isUtf8 } from 'node:buffer';

export interface TarEntry {
  /** Raw bytes, without '/' in front. A directory's gets its '/' here. */
  path: Buffer;
  type: 'file' | 'link' | 'symlink' | 'directory';
  mode: number;
  uid: number;
  gid: number;
  owner?: string | undefined;
  group?: string | undefined;
  mtimeMs: number;
  /** Nanoseconds beyond the milliseconds. */
  mtimeNs: number;
  /** Bytes of content; 0 for all but a file. */
  size: number;
  /** Target of a symlink, or path of the entry that a link is another name of. Raw bytes. */
  linkPath?: Buffer | undefined;
}

const blockBytes = 512;
const nameBytes = 100;
const accountBytes = 31;
const flags = { file: '0', link: '1', symlink: '2', directory: '5' } as const;
const longName = Buffer.from('././@LongLink');
const paxName = Buffer.from('PaxHeaders/entry');

/** Two empty blocks: the end of a tar. */
export const tarEnd = Buffer.alloc(2 * blockBytes);

/** What precedes an entry's content. */
export function tarHeader(entry: TarEntry): Buffer {
  const path = entry.type === 'directory' ? Buffer.concat([entry.path, Buffer.from('/')]) : entry.path;
  const linkPath = entry.linkPath ?? Buffer.alloc(0);
  const records: Buffer[] = [];
  const parts: Buffer[] = [];
  for (const [key, flag, name] of [
    ['path', 'L', path],
    ['linkpath', 'K', linkPath],
  ] as const) {
    if (name.byteLength <= nameBytes && (isAscii(name) || !isUtf8(name))) continue;
    if (isUtf8(name)) records.push(paxRecord(key, name));
    else parts.push(auxiliary(longName, flag, Buffer.concat([name, Buffer.of(0)])));
  }
  const seconds = Math.floor(entry.mtimeMs / 1000);
  const isWhole = entry.mtimeNs === 0 && entry.mtimeMs % 1000 === 0;
  if (!isWhole || seconds < 0 || seconds >= 8 ** 11) records.push(paxRecord('mtime', decimalSeconds(entry)));
  if (entry.uid >= 8 ** 7) records.push(paxRecord('uid', String(entry.uid)));
  if (entry.gid >= 8 ** 7) records.push(paxRecord('gid', String(entry.gid)));
  if (entry.size >= 8 ** 11) records.push(paxRecord('size', String(entry.size)));
  const owner = accountName(entry.owner);
  const group = accountName(entry.group);
  if (!fitsHeader(owner)) records.push(paxRecord('uname', owner));
  if (!fitsHeader(group)) records.push(paxRecord('gname', group));
  if (records.length > 0) parts.unshift(auxiliary(paxName, 'x', Buffer.concat(records)));
  parts.push(block({ ...entry, path, linkPath, flag: flags[entry.type], owner, group }));
  return Buffer.concat(parts);
}

/** What follows content of so many bytes: zeros up to a whole block. */
export function tarPadding(size: number): Buffer {
  return tarEnd.subarray(0, (blockBytes - (size % blockBytes)) % blockBytes);
}

interface Block {
  path: Buffer;
  linkPath: Buffer;
  flag: string;
  mode: number;
  uid: number;
  gid: number;
  owner: Buffer;
  group: Buffer;
  mtimeMs: number;
  size: number;
}

function block(fields: Block): Buffer {
  const bytes = Buffer.alloc(blockBytes);
  fields.path.copy(bytes, 0, 0, nameBytes);
  octal(bytes, 100, 8, fields.mode & 0o7777);
  octal(bytes, 108, 8, fields.uid);
  octal(bytes, 116, 8, fields.gid);
  writeSize(bytes, fields.size);
  octal(bytes, 136, 12, Math.min(Math.max(Math.floor(fields.mtimeMs / 1000), 0), 8 ** 11 - 1));
  bytes.write(fields.flag, 156, 'latin1');
  fields.linkPath.copy(bytes, 157, 0, nameBytes);
  bytes.write('ustar\x0000', 257, 'latin1');
  if (fitsHeader(fields.owner)) fields.owner.copy(bytes, 265);
  if (fitsHeader(fields.group)) fields.group.copy(bytes, 297);
  octal(bytes, 329, 8, 0);
  octal(bytes, 337, 8, 0);
  bytes.fill(' ', 148, 156);
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, '0')}\x00 `, 148, 'latin1');
  return bytes;
}

/** An entry that says something about the one behind it. */
function auxiliary(path: Buffer, flag: string, content: Buffer): Buffer {
  const none = Buffer.alloc(0);
  const header = { path, linkPath: none, flag, mode: 0o644, uid: 0, gid: 0, owner: none, group: none, mtimeMs: 0 };
  return Buffer.concat([block({ ...header, size: content.byteLength }), content, tarPadding(content.byteLength)]);
}

/** A number that does not fit is 0 here: a pax record has it. */
function octal(bytes: Buffer, at: number, width: number, value: number): void {
  const digits = width - 1;
  bytes.write(`${(value < 8 ** digits ? value : 0).toString(8).padStart(digits, '0')}\x00`, at, 'latin1');
}

/** 8 GiB and more: in base 256 (GNU, and all who read pax too), beside the pax record. */
function writeSize(bytes: Buffer, size: number): void {
  if (size < 8 ** 11) {
    octal(bytes, 124, 12, size);
    return;
  }
  bytes.writeUInt8(0x80, 124);
  bytes.writeBigUInt64BE(BigInt(size), 128);
}

/** "LENGTH KEY=VALUE\n", where LENGTH counts all of it, itself too. */
function paxRecord(key: string, value: string | Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')]);
  let length = rest.byteLength;
  while (String(length).length + rest.byteLength !== length) length = String(length).length + rest.byteLength;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function decimalSeconds({ mtimeMs, mtimeNs }: TarEntry): string {
  const ns = BigInt(mtimeMs) * 1_000_000n + BigInt(mtimeNs);
  const digits = (ns < 0n ? -ns : ns).toString().padStart(10, '0');
  const fraction = digits.slice(-9).replace(/0+$/, '');
  return `${ns < 0n ? '-' : ''}${digits.slice(0, -9)}${fraction === '' ? '' : `.${fraction}`}`;
}

/** No name at all for one that no system has: readers would cut it at the NUL, or stumble. */
function accountName(name: string | undefined): Buffer {
  return name === undefined || name.includes('\0') ? Buffer.alloc(0) : Buffer.from(name);
}

function fitsHeader(name: Buffer): boolean {
  return name.byteLength <= accountBytes && isAscii(name);
}
