/**
 * Shows how far a run is: a bar with rate and time left on a terminal, an object a second for scripts, nothing
 * otherwise (a log file is not helped by a thousand lines).
 */
import { SingleBar } from 'cli-progress';
import type { Output } from './output.ts';
import { bytesInWords, durationInWords } from './words.ts';

export interface Reading {
  doneBytes: number;
  /** null while it is not known. */
  totalBytes: number | null;
  /** What the bar says behind the numbers. */
  words: string;
  /** What --json says. */
  fields: object;
}

const everyMs = 250;
const jsonEveryMs = 1_000;
/** Rate over the last seconds: a run's beginning says little about its end. */
const rateWindowMs = 15_000;

/** Starts showing `read`'s answers. @returns ends it */
export function startMeter(output: Output, read: () => Reading): () => void {
  if (output.json) {
    const timer = setInterval(() => output.emit('progress', read().fields), jsonEveryMs);
    return () => clearInterval(timer);
  }
  if (!output.terminal) return () => undefined;

  const bar = new SingleBar({
    format: '{bar} {percent} {bytes}  {rate}  {left}  {words}',
    barsize: 24,
    hideCursor: true,
    clearOnComplete: true,
    linewrap: false,
    stream: process.stderr,
    fps: 10,
  });
  const samples: { at: number; bytes: number }[] = [];
  bar.start(1, 0, { percent: '', bytes: '', rate: '', left: '', words: '' });
  const timer = setInterval(() => {
    const { doneBytes, totalBytes, words } = read();
    const now = performance.now();
    samples.push({ at: now, bytes: doneBytes });
    while (samples.length > 2 && samples[0]!.at < now - rateWindowMs) samples.shift();
    const rate = rateOf(samples);
    const total = totalBytes === null ? null : Math.max(totalBytes, doneBytes);
    bar.setTotal(total ?? Math.max(1, doneBytes * 2));
    bar.update(doneBytes, {
      percent: total ? `${Math.floor((doneBytes / total) * 100)}%` : '',
      bytes: total ? `${bytesInWords(doneBytes)} of ${bytesInWords(total)}` : bytesInWords(doneBytes),
      rate: `${bytesInWords(rate)}/s`,
      left: total && rate > 0 ? `${durationInWords(((total - doneBytes) / rate) * 1000)} left` : '',
      words: words.slice(0, 60),
    });
  }, everyMs);
  return () => {
    clearInterval(timer);
    bar.stop();
  };
}

function rateOf(samples: readonly { at: number; bytes: number }[]): number {
  const first = samples[0];
  const last = samples.at(-1);
  return first && last && last.at > first.at ? ((last.bytes - first.bytes) * 1000) / (last.at - first.at) : 0;
}
