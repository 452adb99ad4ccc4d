/** Numbers, times and paths as people read them. */
import { printablePath } from '../../protocol/paths.ts';

export function bytesInWords(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

export function countInWords(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ','); // not toLocaleString, which loads the data of all languages
}

export function durationInWords(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Local time, to the second. */
export function momentInWords(ms: number): string {
  const date = new Date(ms);
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** For a terminal: control characters, which could move its cursor, are shown as \x.. instead. */
export function pathInWords(path: Uint8Array): string {
  return printablePath(path).replace(
    /\p{Cc}/gu,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

/** For --json: the text, and the exact bytes where they are not UTF-8. */
export function pathForJson(path: Uint8Array): { path: string; pathBase64?: string } {
  const text = printablePath(path);
  return Buffer.from(text).equals(path)
    ? { path: text }
    : { path: text, pathBase64: Buffer.from(path).toString('base64') };
}

/** As a shell takes it for one word, in a command that is shown to be typed. */
export function wordInShell(text: string): string {
  return /^[\w./:@+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
