/**
 * Keeps the process small while many buffers come and go. Each MiB read leaves about four behind: the chunk, and what
 * compressing, encrypting and joining made of it. V8 collects them only once some 64 MiB have gathered, and what lived
 * for a few seconds (the entries of a commit) later still, because it looks at what the machine has, which is not ours
 * to use. So whoever lets go of much says so here, and a collection follows sooner.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

type Collect = (options?: { type: 'minor' }) => void;

const MiB = 1024 * 1024;
/** Plain bytes between minor collections (about a millisecond each): about 12 MiB of garbage. */
const minorEveryBytes = 3 * MiB;
/** Small buffers share memory and are many; the collector keeps up with them by itself. */
const largeBytes = 64 * 1024;
/** The agent promises to stay below 256 MiB. Above this, what is old is collected too (5 to 40 ms each). */
const residentBytesMax = 170 * MiB;
/** Of all time, collections of what is old take at most a twentieth. */
const restFactor = 20;

let collect: Collect | null = null;
let letGoBytes = 0;
let notBefore = 0;

/** Makes collections possible. For a process of the agent's own: a program that uses it as a library decides itself. */
export function collectEarly(): void {
  setFlagsFromString('--expose-gc');
  collect = runInNewContext("typeof gc === 'function' ? gc : null") as Collect | null;
}

/** Tells that the buffers made for so many plain bytes are no longer needed. */
export function letGo(bytes: number): void {
  if (collect === null || bytes < largeBytes) return;
  letGoBytes += bytes;
  if (letGoBytes < minorEveryBytes) return;
  letGoBytes = 0;
  if (!collectOld()) collect({ type: 'minor' });
}

/** Tells that many small things that lived for a while are no longer needed. */
export function letGoOfMany(): void {
  collectOld();
}

function collectOld(): boolean {
  const startedAt = performance.now();
  if (collect === null || startedAt < notBefore || process.memoryUsage.rss() < residentBytesMax) return false;
  collect();
  const endedAt = performance.now();
  notBefore = endedAt + (endedAt - startedAt) * restFactor;
  return true;
}
