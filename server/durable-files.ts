/** Names that outlive a power failure: a file made or renamed is there for sure when its folder was fsynced after it. */
import { closeSync, fsyncSync, openSync } from 'node:fs';

/** Makes durable which names the folder holds. Windows opens no folders, and needs no such thing. */
export function fsyncFolder(folder: string): void {
  if (process.platform === 'win32') return;
  const descriptor = openSync(folder, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
