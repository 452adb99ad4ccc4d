/**
 * Registers this installation as a device: from a registration key and a user's sign-in, or a registration code, to an
 * archive and the key of the user's vault. The key's protection is the vault's; what the agent asks for counts only for a
 * new one.
 *
 * What must stay true: the token is kept before the server is asked, and forgotten after the registration is kept. So one
 * that is cut off anywhere is taken up again, as the same device.
 */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type { RegisterAnswer, RegisterRequest, VaultKeyProposal } from '../../protocol/messages.ts';
import { Problem } from '../../protocol/problems.ts';
import { keyCheck, vaultKeyBytes, wrapKey } from '../../protocol/sealing/index.ts';
import { type Client, connect } from '../client/client.ts';
import { forgetPendingRegistration, pendingRegistration } from '../state/pending-registration.ts';
import { type Registration, readRegistration, writeRegistration } from '../state/registration.ts';
import { need, openKeptKeys } from './keys/kept-keys.ts';
import { agentVersion } from './version.ts';

/** What lets a device in: a user's sign-in, or a code that stands for one. */
export type WayIn =
  | { registrationKey: string; userName: string; password: string; code?: string }
  | { registrationCode: string };

export interface EnrollOptions {
  url: string;
  /** null: the system's certificate authorities vouch for the server. */
  certificateSha256: string | null;
  wayIn: WayIn;
  /** The agent's folder, which the registration is kept in. */
  home: string;
  deviceName?: string;
  /** Wanted for a vault that does not exist yet; default standard. */
  level?: Registration['level'];
  /** Asked only when the vault's level is `password`. */
  archivePassword?: () => Promise<string>;
  /** Asked only when the level is `custom`: the user's own 32 bytes. */
  customKey?: () => Promise<Buffer>;
  /** The GUID of the device whose place and archive this one takes. */
  replace?: string;
  signal?: AbortSignal;
}

/** A vault's first key. The wrapped record names its generation, so that a server cannot hand back an older one. */
const firstGeneration = 1;

/**
 * Registers, and keeps the registration.
 * @throws Problem sign_in_failed, second_factor_needed and others; Error when the vault's key cannot be opened with what
 *   the user has
 */
export async function enroll(options: EnrollOptions): Promise<Registration> {
  const { url, certificateSha256, home, wayIn } = options;
  const client = connect({ url, certificateSha256, signal: options.signal, retry: { giveUpAfterMs: 30_000 } });
  try {
    const request = {
      ...wayInFields(wayIn),
      device: {
        name: (options.deviceName ?? hostname()).slice(0, 255) || 'device',
        platform: platformName(),
        agentVersion: agentVersion(),
      },
      ...(options.replace ? { replace: options.replace } : {}),
      vaultKey: await proposeKey(options),
    };
    const answer = await registerOnce(client, options, request);
    const userName = answer.userName ?? ('userName' in wayIn ? wayIn.userName : '');
    const { guid, deviceName, token, vault, archive } = answer;
    const registration = { url, certificateSha256, userName, guid, deviceName, token, vault, archive };
    const made = { ...registration, ...(await keysFor(options, answer)) };
    writeRegistration(home, made);
    forgetPendingRegistration(home);
    return made;
  } finally {
    await client.close();
  }
}

/** What of it goes into a request: what else a caller's object holds stays here. */
export function wayInFields(wayIn: WayIn): WayIn {
  if ('registrationCode' in wayIn) return { registrationCode: wayIn.registrationCode };
  const { registrationKey, userName, password, code } = wayIn;
  return { registrationKey, userName, password, ...(code === undefined ? {} : { code }) };
}

/** With a token that was drawn before; or with another, when that belongs to something else by now. */
async function registerOnce(
  client: Client,
  { url, home, ...options }: EnrollOptions,
  request: Omit<RegisterRequest, 'token'>,
): Promise<RegisterAnswer> {
  const replace = options.replace ?? null;
  // Killed after the registration was kept: the token is that of the device which is there.
  const isKept = (token: string): boolean => tokenThere(home) === token;
  let { token } = pendingRegistration(home, { url, replace });
  if (isKept(token)) ({ token } = pendingRegistration(home, { url, replace, anew: true }));
  try {
    return await client.register({ ...request, token });
  } catch (error) {
    const isTaken = error instanceof Problem && error.code === 'conflict' && error.extras.field === 'token';
    if (!isTaken) throw error;
    return client.register({ ...request, token: pendingRegistration(home, { url, replace, anew: true }).token });
  }
}

/** Of a registration before this one; null when there is none, or it is damaged, which is a reason to register again. */
function tokenThere(home: string): string | null {
  try {
    return readRegistration(home)?.token ?? null;
  } catch {
    return null;
  }
}

async function proposeKey(options: EnrollOptions): Promise<VaultKeyProposal> {
  if (options.level === 'password') {
    const password = await need(options.archivePassword, 'an archive password');
    return {
      level: 'password',
      wrapped: await wrapKey(randomBytes(vaultKeyBytes), password, { generation: firstGeneration }),
    };
  }
  if (options.level === 'custom')
    return { level: 'custom', check: keyCheck(await need(options.customKey, 'your own key')) };
  return { level: 'standard' };
}

/** The vault's keys, with the vault's own records and the user's secret: that of a first device as of a later one. */
async function keysFor(
  options: EnrollOptions,
  answer: RegisterAnswer,
): Promise<Pick<Registration, 'level' | 'keyGeneration' | 'vaultKey' | 'olderKeys'>> {
  const { vaultKey, vaultKeys } = answer;
  try {
    // A server that knows one generation only names it alone.
    const keys = await openKeptKeys(vaultKeys.length > 0 ? vaultKeys : [vaultKey], options);
    const newest = keys.pop()!;
    const older = keys.length > 0 ? { olderKeys: keys } : {};
    return { level: vaultKey.level, keyGeneration: newest.generation, vaultKey: newest.key, ...older };
  } catch (error) {
    const again = `The server has registered this device as ${answer.guid}, but it cannot read or write its vault`;
    throw new Error(
      `${(error as Error).message}. ${again}. Run the same command again, with the right one: it goes on with that device.`,
      { cause: error },
    );
  }
}

function platformName(): 'linux' | 'darwin' | 'win32' | 'other' {
  const { platform } = process;
  return platform === 'linux' || platform === 'darwin' || platform === 'win32' ? platform : 'other';
}
