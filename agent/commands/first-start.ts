/**
 * A server on this same machine leaves, at its first start, a file in its data folder with all an agent needs to
 * register. So the first backup on the machine one tries Holdfast on takes one command.
 */
import { join } from 'node:path';
import { Problem } from '../../protocol/problems.ts';
import { CertificateRefused } from '../client/errors.ts';
import { parseFingerprint } from '../client/pinned-session.ts';
import { defaultServerData, readTextFile, type Surroundings } from '../state/home.ts';
import type { Registration } from '../state/registration.ts';

export interface FirstStart {
  /** The file it was read from. */
  file: string;
  url: string;
  certificateSha256: string;
  registrationKey: string;
  userName: string;
  password: string;
}

/** The first-start file of a server on this machine; null when there is none to read. @throws when it is damaged */
export function findFirstStart(surroundings: Surroundings): FirstStart | null {
  const file = join(defaultServerData(surroundings), 'first-start.json');
  let text: string | null;
  try {
    text = readTextFile(file);
  } catch (error) {
    // Another user's server: its file is closed to us, and that is as it should be.
    if (['EACCES', 'EPERM', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
  if (text === null) return null;
  const damaged = (): Error =>
    new Error(
      `${file} is not a first-start file. Register with the server's address instead: register --server URL ...`,
    );
  let parsed: Record<string, unknown>;
  try {
    parsed = JSON.parse(text) as Record<string, unknown>;
  } catch {
    throw damaged();
  }
  const { url, registrationKey, userName, password } = parsed;
  const certificateSha256 = parseFingerprint(String(parsed.certificateSha256));
  if (
    ![url, registrationKey, userName, password].every((value) => typeof value === 'string') ||
    certificateSha256 === null
  )
    throw damaged();
  return {
    file,
    url: url as string,
    certificateSha256,
    registrationKey: registrationKey as string,
    userName: userName as string,
    password: password as string,
  };
}

/**
 * What to tell a person whose registration the server does not take, when a server was set up anew on this machine;
 * null when that is not what happened. Nothing is registered anew by itself: the old archive may still be wanted.
 */
export function setUpAnewAdvice(
  error: unknown,
  registration: Registration,
  firstStart: FirstStart | null,
): string | null {
  const refused = error instanceof CertificateRefused || (error instanceof Problem && error.code === 'unauthorized');
  if (!refused || !firstStart) return null;
  const sameServer = firstStart.certificateSha256 === registration.certificateSha256;
  if (error instanceof CertificateRefused && (sameServer || error.shown !== firstStart.certificateSha256)) return null;
  return (
    `This agent is registered with a server at ${registration.url} that no longer knows it, and a server on this machine was set up ` +
    `since (${firstStart.file}).\nIf the earlier server's data is gone for good, register with the new one and begin a new archive:\n` +
    `  npm run agent -- register --local --force\n` +
    'If it is not, start the earlier server with its own data folder (HOLDFAST_DATA) and try again.'
  );
}
