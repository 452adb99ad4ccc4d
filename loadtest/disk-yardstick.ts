/**
 * What it takes to put bytes on the disk through the file cache: files of an upload's size written and flushed, with
 * nothing else done. One pass, so an indication of what uploads include and the bare handler does not, and no floor.
 */
import { closeSync, fdatasyncSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';

export interface DiskYardstick {
  megabytesPerSecond: number;
  cpuSecondsPerGiB: number;
}

const fileBytes = 16 * 1024 * 1024;

/** Writes `content` as files of 16 MiB below `folder`, one after the other, and removes them. */
export function measureDisk(folder: string, content: Buffer): DiskYardstick {
  const own = join(folder, 'disk');
  mkdirSync(own);
  const before = process.cpuUsage();
  const startedAt = performance.now();
  for (let at = 0; at < content.byteLength; at += fileBytes) {
    const file = openSync(join(own, String(at)), 'wx');
    const end = Math.min(content.byteLength, at + fileBytes);
    for (let written = at; written < end; ) written += writeSync(file, content, written, end - written);
    fdatasyncSync(file);
    closeSync(file);
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const { user, system } = process.cpuUsage(before);
  rmSync(own, { recursive: true });
  return {
    megabytesPerSecond: content.byteLength / 1e6 / seconds,
    cpuSecondsPerGiB: ((user + system) / 1e6) * (2 ** 30 / content.byteLength),
  };
}
