/**
 * A registration on its way: the token that this installation has drawn, and what it asked for. Kept before the server is
 * asked and until its answer is kept, so that an agent that is killed in between asks for the same device again, and does
 * not make a second one.
 */
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { homeFile, makeHome, readTextFile, writePrivateFile } from './home.ts';

export interface PendingRegistration {
  url: string;
  /** The GUID of the device whose place it takes; null: it is a new one. */
  replace: string | null;
  /** 32 random bytes, base64url. */
  token: string;
}

const fileOf = (home: string): string => homeFile(home, 'registering.json');

/**
 * What was begun and not ended for the same thing, else a new one, which is kept when this returns.
 * @param of.anew forgets what was begun: its token is no longer one to register with
 */
export function pendingRegistration(
  home: string,
  of: Omit<PendingRegistration, 'token'> & { anew?: boolean },
): PendingRegistration {
  const { url, replace, anew = false } = of;
  const there = anew ? null : read(home);
  if (there?.url === url && there.replace === replace) return there;
  const pending = { url, replace, token: randomBytes(32).toString('base64url') };
  makeHome(home);
  writePrivateFile(fileOf(home), `${JSON.stringify(pending, null, 2)}\n`);
  return pending;
}

/** After the registration is kept. A file that stays, because the agent was killed just now, names a token that is in use. */
export function forgetPendingRegistration(home: string): void {
  rmSync(fileOf(home), { force: true });
}

/** One that cannot be read is none: a device more is better than none. */
function read(home: string): PendingRegistration | null {
  try {
    const { url, replace, token } = JSON.parse(readTextFile(fileOf(home)) ?? '{}') as Partial<PendingRegistration>;
    const isOne =
      typeof url === 'string' && (replace === null || typeof replace === 'string') && typeof token === 'string';
    return isOne && Buffer.from(token, 'base64url').byteLength === 32 ? { url, replace, token } : null;
  } catch {
    return null;
  }
}
