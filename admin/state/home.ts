/**
 * The folder of the administrator's command: who is signed in, and what the servers said they can do. Only its owner can
 * enter it (0700) or read what is in it (0600); a file is replaced whole or not at all. The environment is read here alone.
 */
import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, posix, win32 } from 'node:path';

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

/** What scripts set, since nobody is there to sign in. */
export interface FromEnvironment {
  server: string | undefined;
  fingerprint: string | undefined;
  token: string | undefined;
  clientId: string | undefined;
  clientSecret: string | undefined;
}

/** A variable that is empty is not set. */
export function fromEnvironment({ env }: Surroundings): FromEnvironment {
  return {
    server: env.HOLDFAST_ADMIN_SERVER || undefined,
    fingerprint: env.HOLDFAST_ADMIN_FINGERPRINT || undefined,
    token: env.HOLDFAST_ADMIN_TOKEN || undefined,
    clientId: env.HOLDFAST_ADMIN_CLIENT_ID || undefined,
    clientSecret: env.HOLDFAST_ADMIN_CLIENT_SECRET || undefined,
  };
}

export function adminHome({ env, platform, homeDir }: Surroundings): string {
  if (env.HOLDFAST_ADMIN_HOME) return env.HOLDFAST_ADMIN_HOME;
  const { join } = platform === 'win32' ? win32 : posix;
  if (platform === 'win32') return join(env.APPDATA ?? join(homeDir, 'AppData', 'Roaming'), 'holdfast-admin');
  if (platform === 'darwin') return join(homeDir, 'Library', 'Application Support', 'holdfast-admin');
  return join(env.XDG_CONFIG_HOME || join(homeDir, '.config'), 'holdfast-admin');
}

/** Where an embedded server of this machine says how to reach it. */
export function firstStartFile({ env, platform, homeDir, isRoot }: Surroundings): string {
  const at = (folder: string): string => join(folder, 'first-start.json');
  if (env.HOLDFAST_DATA) return at(env.HOLDFAST_DATA);
  if (platform === 'win32') return at(join(env.LOCALAPPDATA ?? join(homeDir, 'AppData', 'Local'), 'Holdfast'));
  if (platform === 'darwin') return at(join(homeDir, 'Library', 'Application Support', 'Holdfast'));
  if (isRoot) return at('/var/lib/holdfast');
  return at(join(env.XDG_DATA_HOME || join(homeDir, '.local', 'share'), 'holdfast'));
}

/** Makes the folder, closed to others. One that exists is left as it is. */
export function makeHome(home: string): void {
  mkdirSync(home, { recursive: true, mode: 0o700 });
}

/** Replaces a file: after a crash it holds the old text or the new one, never a part. */
export function writePrivateFile(path: string, text: string): void {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.new`;
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.byteLength; ) at += writeSync(fd, bytes, at);
    fsyncSync(fd);
  } catch (error) {
    closeSync(fd);
    rmSync(temporary, { force: true });
    throw error;
  }
  closeSync(fd);
  renameSync(temporary, path);
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
