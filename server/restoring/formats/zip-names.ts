/**
 * Names as a zip can carry them to any system that opens it. What it cannot carry is written as %{XX}, a byte in
 * hexadecimal, and so is the '%' of a name that holds such a thing already: so every name has one form, two different
 * names have two, and whoever reads the list of changed names can turn them back. What grows too long by it is cut, and
 * ends in a digest instead.
 */
import { isUtf8 } from 'node:buffer';
import { sha256 } from '../../../protocol/hashes.ts';
import { splitPath } from '../../../protocol/paths.ts';

/** Characters that Windows refuses in names; a backslash would be a separator to some. */
const refused = new Set('<>:"|?*\\'.split('').map((character) => character.charCodeAt(0)));
/** Devices of Windows, in any case, with anything behind a dot. */
const devices = /^(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?$/i;
/** An escaped byte, or the digest of a name that was shortened. */
const escapeLike = /^%\{(?:[0-9A-F]{2}|[0-9A-F]{32})\}/;
const escapeBytesMax = 35;
/** What may have to be escaped; a name without it has not. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const suspect = /[\x00-\x1f\x7f-\x9f<>:"|?*\\]|%\{|[. ]$|^(?:con|prn|aux|nul|com.|lpt.)/i;
/** A drive of Windows as an archive names it, which is written as its letter; a name that is a letter already is not. */
const drive = /^[A-Z]:$/;
const driveLetter = /^[A-Z]$/;
/** What most file systems take. A name that was not changed is left as long as it is: somewhere it was possible. */
const changedBytesMax = 255;

/**
 * The name of an entry for a path of the archive, without what lies above the selection.
 * @param above how many of the path's names are left out
 * @returns names joined by '/', without one in front, and whether any was changed. A drive, 'C:', becomes 'C': that
 *   goes without saying, as in a restore by the agent. A folder 'C' at the top is escaped instead, so that the two are
 *   never one
 */
export function zipName(path: Uint8Array, above: number): { name: string; changed: boolean } {
  let changed = false;
  const names = splitPath(path).slice(above);
  const written = names.map((bytes, index) => {
    const top = above === 0 && index === 0 && bytes.byteLength <= 2 ? bytes.toString('latin1') : '';
    if (drive.test(top)) return top[0]!;
    const name = driveLetter.test(top) ? escapeBytes(bytes) : escapeName(bytes);
    changed ||= !bytes.equals(Buffer.from(name));
    return name;
  });
  return { name: written.join('/'), changed };
}

/** One name. It is the same for the same bytes everywhere, and no other bytes have it. */
export function escapeName(bytes: Buffer): string {
  const text = bytes.toString('utf8');
  if (!suspect.test(text) && isUtf8(bytes)) return text; // nearly all
  const whole = escapeWhere(
    bytes,
    (code, isLast) => isControl(code) || refused.has(code) || (isLast && (code === 0x2e || code === 0x20)), // Windows drops them
  );
  const name = devices.test(whole) ? escapeBytes(bytes.subarray(0, 1)) + whole.slice(1) : whole;
  if (Buffer.byteLength(name) <= changedBytesMax || bytes.equals(Buffer.from(name))) return name;
  return shorten(name, bytes);
}

/** A path for people to read: on one line whatever it holds, and nothing of it lost. */
export function shownPath(path: Uint8Array): string {
  const bytes = Buffer.from(path.buffer, path.byteOffset, path.byteLength);
  return escapeWhere(bytes, isControl);
}

const isControl = (code: number): boolean => code < 0x20 || (code >= 0x7f && code < 0xa0);

/** Escapes what is no UTF-8, what looks like an escape, and the characters asked for. */
function escapeWhere(bytes: Buffer, isRefused: (code: number, isLast: boolean) => boolean): string {
  let name = '';
  for (let at = 0; at < bytes.byteLength; ) {
    const length = characterLength(bytes, at);
    const end = at + Math.max(1, length);
    const character = bytes.toString('utf8', at, end);
    const escapes = character === '%' && escapeLike.test(bytes.toString('latin1', at, at + escapeBytesMax));
    const refuse = length === 0 || escapes || isRefused(character.codePointAt(0)!, end === bytes.byteLength);
    name += refuse ? escapeBytes(bytes.subarray(at, end)) : character;
    at = end;
  }
  return name;
}

/** Its beginning, and a digest of the name as it was: the list of changed names has the rest. */
function shorten(name: string, bytes: Buffer): string {
  const digest = `%{${sha256(bytes).toString('hex').slice(0, 32).toUpperCase()}}`;
  const parts = name.match(/%\{[0-9A-F]{2}\}|./gsu)!;
  let start = '';
  for (const part of parts) {
    if (Buffer.byteLength(start) + Buffer.byteLength(part) + digest.length > changedBytesMax) break;
    start += part;
  }
  return start + digest;
}

function escapeBytes(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => `%{${byte.toString(16).toUpperCase().padStart(2, '0')}}`).join('');
}

/** Bytes of the UTF-8 character at a place; 0: there is none (RFC 3629: no overlong forms, no surrogates). */
function characterLength(bytes: Buffer, at: number): number {
  const first = bytes[at]!;
  if (first < 0x80) return 1;
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
  if (length === 0 || first > 0xf4 || at + length > bytes.byteLength) return 0;
  const second = bytes[at + 1]!;
  const low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
  const high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
  if (second < low || second > high) return 0;
  for (let i = 2; i < length; i++) if ((bytes[at + i]! & 0xc0) !== 0x80) return 0;
  return length;
}
