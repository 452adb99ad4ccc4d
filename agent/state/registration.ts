/**
 * What a registered agent must remember: its server and that server's certificate, its token, and the key of its
 * vault. Kept in one file, so that token and key always belong together.
 */
import { homeFile, makeHome, readTextFile, writePrivateFile } from './home.ts';

export interface Registration {
  url: string;
  /** 64 lower hex digits; null when the system's certificate authorities vouch for the server. */
  certificateSha256: string | null;
  userName: string;
  guid: string;
  deviceName: string;
  token: string;
  vault: number;
  archive: number;
  level: 'standard' | 'password' | 'custom';
  keyGeneration: number;
  /** The 32 bytes everything in the vault is sealed with. */
  vaultKey: Buffer;
}

/** The registration in an agent's folder; null when it was never registered. @throws when the file is damaged */
export function readRegistration(home: string): Registration | null {
  const path = homeFile(home, 'registration.json');
  const text = readTextFile(path);
  if (text === null) return null;
  const damaged = (why: string): Error =>
    new Error(`${path} is damaged (${why}). Register again with 'register --replace'.`);
  let parsed: Record<string, unknown>;
  try {
    parsed = JSON.parse(text) as Record<string, unknown>;
  } catch {
    throw damaged('it is not JSON');
  }
  const fault = faultOf(parsed);
  if (fault) throw damaged(fault);
  return { ...(parsed as unknown as Registration), vaultKey: Buffer.from(parsed.vaultKey as string, 'base64') };
}

export function writeRegistration(home: string, registration: Registration): void {
  makeHome(home);
  const document = { ...registration, vaultKey: registration.vaultKey.toString('base64') };
  writePrivateFile(homeFile(home, 'registration.json'), `${JSON.stringify(document, null, 2)}\n`);
}

function faultOf(parsed: Record<string, unknown>): string | null {
  for (const name of ['url', 'userName', 'guid', 'deviceName', 'token', 'vaultKey']) {
    if (typeof parsed[name] !== 'string' || parsed[name] === '') return `${name} is missing`;
  }
  for (const name of ['vault', 'archive', 'keyGeneration']) {
    if (!Number.isSafeInteger(parsed[name])) return `${name} is not a number`;
  }
  if (parsed.certificateSha256 !== null && !/^[0-9a-f]{64}$/.test(String(parsed.certificateSha256)))
    return 'certificateSha256 is not a SHA-256';
  if (!['standard', 'password', 'custom'].includes(String(parsed.level))) return 'level is unknown';
  if (Buffer.from(parsed.vaultKey as string, 'base64').byteLength !== 32) return 'vaultKey does not hold 32 bytes';
  return null;
}
