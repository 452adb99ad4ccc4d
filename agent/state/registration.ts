/**
 * What a registered agent must remember: its server and that server's certificate, its token, and the keys of its
 * vault. Kept in one file, so that token and keys always belong together.
 */
import { type Keyring, makeKeyring } from '../../protocol/sealing/index.ts';
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
  /** Of the newest key. */
  keyGeneration: number;
  /** The 32 bytes everything is sealed with from now on. */
  vaultKey: Buffer;
  /** Those that it was sealed with before the level was raised, oldest first. Left out: none. */
  olderKeys?: readonly GenerationKey[];
}

export interface GenerationKey {
  generation: number;
  key: Buffer;
}

/** All keys of the vault that this device has, oldest first. */
export function keysOf({ olderKeys = [], keyGeneration, vaultKey }: Registration): GenerationKey[] {
  return [...olderKeys, { generation: keyGeneration, key: vaultKey }];
}

/** The same registration with these keys, of which there is at least one. */
export function withKeys(
  registration: Registration,
  level: Registration['level'],
  keys: readonly GenerationKey[],
): Registration {
  const sorted = keys.toSorted((a, b) => a.generation - b.generation);
  const newest = sorted.pop()!;
  const { olderKeys: _, ...rest } = registration;
  const older = sorted.length > 0 ? { olderKeys: sorted } : {};
  return { ...rest, level, keyGeneration: newest.generation, vaultKey: newest.key, ...older };
}

export const keyringOf = (registration: Registration): Keyring => makeKeyring(keysOf(registration));

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
  const { olderKeys, ...rest } = parsed as unknown as Registration;
  const older = olderKeys as unknown as { generation: number; key: string }[] | undefined;
  return {
    ...rest,
    vaultKey: Buffer.from(parsed.vaultKey as string, 'base64'),
    ...(older && { olderKeys: older.map((each) => ({ ...each, key: Buffer.from(each.key, 'base64') })) }),
  };
}

export function writeRegistration(home: string, registration: Registration): void {
  makeHome(home);
  const { olderKeys } = registration;
  const document = {
    ...registration,
    vaultKey: registration.vaultKey.toString('base64'),
    ...(olderKeys && {
      olderKeys: olderKeys.map(({ generation, key }) => ({ generation, key: key.toString('base64') })),
    }),
  };
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
  const { olderKeys = [] } = parsed;
  if (!Array.isArray(olderKeys) || !olderKeys.every(isOlderKey)) return 'olderKeys does not hold keys';
  return null;
}

function isOlderKey(value: unknown): boolean {
  const { generation, key } = (value ?? {}) as Record<string, unknown>;
  return Number.isSafeInteger(generation) && typeof key === 'string' && Buffer.from(key, 'base64').byteLength === 32;
}
