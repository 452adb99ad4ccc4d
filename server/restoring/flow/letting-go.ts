/**
 * Keeps the process small while large buffers come and go. Each MiB restored leaves about three behind: what was read, what it
 * was joined to, and what it was opened to. V8 collects them only once some 64 MiB have gathered, and what has waited for a
 * slow reader later still. So what nobody reads any more is freed at once, where that is known; else a small collection
 * follows sooner.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

const MiB = 1024 * 1024;
/** Plain bytes between small collections (one or two milliseconds each): about 12 MiB of garbage. */
const collectEveryBytes = 6 * MiB;

let collect: ((options: { type: 'minor' }) => void) | null = null;
let letGoBytes = 0;

/** Makes collections possible. For a process of the server's own; without it V8 decides alone. */
export function collectEarly(): void {
  setFlagsFromString('--expose-gc');
  collect = runInNewContext("typeof gc === 'function' ? gc : null") as typeof collect;
}

/** Tells that so many plain bytes were given away. */
export function letGo(bytes: number): void {
  if (collect === null) return;
  letGoBytes += bytes;
  if (letGoBytes < collectEveryBytes) return;
  letGoBytes = 0;
  collect({ type: 'minor' });
}

/** Frees bytes that nobody reads any more, if their memory is theirs alone: they are of length 0 then. */
export function free(bytes: Buffer): void {
  const { buffer } = bytes;
  if (buffer instanceof ArrayBuffer && buffer.byteLength === bytes.byteLength) buffer.transfer(0);
}
