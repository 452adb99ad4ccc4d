/**
 * The agent's folder: where its registration, keys and cache lie. Only its owner can enter it (0700) or read what is
 * in it (0600); a file is replaced whole or not at all.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, posix, win32 } from 'node:path';

export interface Surroundings {
  env: Record<string, string | undefined>;
  platform: string;
  homeDir: string;
  isRoot: boolean;
}

/** What the defaults depend on, read once. */
export function surroundings(): Surroundings {
  return { env: process.env, platform: process.platform, homeDir: homedir(), isRoot: process.getuid?.() === 0 };
}

/** Where the agent keeps what it must remember, when no --home says otherwise. */
export function defaultAgentHome({ env, platform, homeDir }: Surroundings): string {
  if (env.HOLDFAST_AGENT_HOME) return env.HOLDFAST_AGENT_HOME;
  const { join } = platform === 'win32' ? win32 : posix;
  // A server's data folder chosen by hand is most often a trial: its agent stays within it.
  if (env.HOLDFAST_DATA) return join(env.HOLDFAST_DATA, 'agent');
  if (platform === 'win32') return join(env.APPDATA ?? join(homeDir, 'AppData', 'Roaming'), 'holdfast-agent');
  if (platform === 'darwin') return join(homeDir, 'Library', 'Application Support', 'holdfast-agent');
  return join(env.XDG_CONFIG_HOME || join(homeDir, '.config'), 'holdfast-agent');
}

/** Where a server on this same machine keeps its data, when nothing else was set for it. */
export function defaultServerData({ env, platform, homeDir, isRoot }: Surroundings): string {
  if (env.HOLDFAST_DATA) return env.HOLDFAST_DATA;
  if (platform === 'win32') return win32.join(env.LOCALAPPDATA ?? win32.join(homeDir, 'AppData', 'Local'), 'Holdfast');
  if (platform === 'darwin') return posix.join(homeDir, 'Library', 'Application Support', 'Holdfast');
  if (isRoot) return '/var/lib/holdfast';
  return posix.join(env.XDG_DATA_HOME || posix.join(homeDir, '.local', 'share'), 'holdfast');
}

/** Makes the agent's folder, closed to others. One that exists is left as it is. */
export function makeHome(home: string): void {
  mkdirSync(home, { recursive: true, mode: 0o700 });
}

/** Replaces a file of the agent's folder: after a crash it holds the old bytes or the new ones, never a part. */
export function writePrivateFile(path: string, bytes: string | Uint8Array): void {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.new`;
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    const buffer = Buffer.from(bytes as string);
    for (let at = 0; at < buffer.byteLength; ) at += writeSync(fd, buffer, at);
    fsyncSync(fd);
  } catch (error) {
    closeSync(fd);
    rmSync(temporary, { force: true });
    throw error;
  }
  closeSync(fd);
  renameSync(temporary, path);
  if (process.platform === 'win32') return; // Windows cannot open a folder to flush it
  const folder = openSync(dirname(path), 'r');
  fsyncSync(folder);
  closeSync(folder);
}

/** A file's text; null when there is none. */
export function readTextFile(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

export function homeFile(
  home: string,
  name:
    | 'registration.json'
    | 'registering.json'
    | 'plans.json'
    | 'commands.json'
    | 'restoring'
    | 'cache.db'
    | 'lock.db',
): string {
  return join(home, name);
}
