/**
 * Registers this installation as a device: from a registration key and a user's sign-in to a token, an archive and
 * the key of the user's vault. The key's protection is the vault's; what the agent asks for counts only for a new one.
 */
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type { RegisterAnswer, VaultKeyProposal } from '../../protocol/messages.ts';
import { keyCheck, vaultKeyBytes, wrapKey } from '../../protocol/sealing/index.ts';
import { connect } from '../client/client.ts';
import type { Registration } from '../state/registration.ts';
import { need, openKeptKeys } from './keys/kept-keys.ts';
import { agentVersion } from './version.ts';

export interface EnrollOptions {
  url: string;
  /** null: the system's certificate authorities vouch for the server. */
  certificateSha256: string | null;
  registrationKey: string;
  userName: string;
  password: string;
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

/** @throws Problem sign_in_failed and others; Error when the vault's key cannot be opened with what the user has */
export async function enroll(options: EnrollOptions): Promise<Registration> {
  const client = connect({
    url: options.url,
    certificateSha256: options.certificateSha256,
    signal: options.signal,
    retry: { giveUpAfterMs: 30_000 },
  });
  try {
    const answer = await client.register({
      registrationKey: options.registrationKey,
      userName: options.userName,
      password: options.password,
      device: {
        name: (options.deviceName ?? hostname()).slice(0, 255) || 'device',
        platform: platformName(),
        agentVersion: agentVersion(),
      },
      ...(options.replace ? { replace: options.replace } : {}),
      vaultKey: await proposeKey(options),
    });
    const registration = {
      url: options.url,
      certificateSha256: options.certificateSha256,
      userName: options.userName,
      guid: answer.guid,
      deviceName: answer.deviceName,
      token: answer.token,
      vault: answer.vault,
      archive: answer.archive,
    };
    return { ...registration, ...(await keysFor(options, answer)) };
  } finally {
    await client.close();
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
    const again = `This device is registered as ${answer.guid}, but cannot read or write its vault. Register again with --replace ${answer.guid}`;
    throw new Error(`${(error as Error).message}. ${again} and the right one.`, { cause: error });
  }
}

function platformName(): 'linux' | 'darwin' | 'win32' | 'other' {
  const { platform } = process;
  return platform === 'linux' || platform === 'darwin' || platform === 'win32' ? platform : 'other';
}
