/**
 * From what the server keeps of a vault's keys, and what the user alone has, to the keys. A server is not believed: it
 * cannot hand back an earlier key as a new one, nor lower a level, nor exchange a key that this device has already.
 */
import { timingSafeEqual } from 'node:crypto';
import type { KeptKey } from '../../../protocol/messages.ts';
import { keyCheck, unwrapKey, unwrapKeyInKey } from '../../../protocol/sealing/index.ts';
import type { Client } from '../../client/client.ts';
import { type GenerationKey, keysOf, type Registration, withKeys } from '../../state/registration.ts';
import { UsageError } from '../output.ts';

export type Level = Registration['level'];
/** Each may be raised to a later one. */
export const levels: readonly Level[] = ['standard', 'password', 'custom'];

/** What only the user has; asked when the level needs it. */
export interface KeySecrets {
  archivePassword?: (() => Promise<string>) | undefined;
  /** The user's own 32 bytes. */
  customKey?: (() => Promise<Buffer>) | undefined;
}

/**
 * All keys, oldest first.
 * @throws SealError wrong_password and others, Error when the user's own key is not the vault's, or records do not go
 *   together
 */
export async function openKeptKeys(kept: readonly KeptKey[], secrets: KeySecrets): Promise<GenerationKey[]> {
  const newest = kept.at(-1);
  if (!newest || kept.some(({ level }) => level !== newest.level)) throw notAsPromised();
  if (kept.some(({ generation }, index) => index > 0 && generation <= kept[index - 1]!.generation))
    throw notAsPromised();
  if (newest.level === 'custom') return openCustom(kept, newest.check, await need(secrets.customKey, 'your own key'));
  const keys: GenerationKey[] = [];
  for (const each of kept) {
    const { generation } = each;
    if (each.level === 'password') {
      const password = await need(secrets.archivePassword, 'the archive password');
      keys.push({ generation, key: await unwrapKey(each.wrapped, password, { generation }) });
    } else if (each.level === 'standard' && each.key) keys.push({ generation, key: Buffer.from(each.key) });
    else throw notAsPromised();
  }
  return keys;
}

function openCustom(kept: readonly KeptKey[], check: Buffer | undefined, own: Buffer): GenerationKey[] {
  const by = kept.at(-1)!.generation;
  if (!check) throw notAsPromised();
  if (!timingSafeEqual(keyCheck(own), check)) throw new Error('the key is not the one this vault was made with');
  const older = kept.slice(0, -1).map((each) => {
    if (each.level !== 'custom' || !each.wrapped) throw notAsPromised();
    const { generation } = each;
    return { generation, key: unwrapKeyInKey(each.wrapped, own, { generation, by }) };
  });
  return [...older, { generation: by, key: own }];
}

export function need<T>(ask: (() => Promise<T>) | undefined, what: string): Promise<T> {
  if (!ask) throw new Error(`this vault needs ${what}`);
  return ask();
}

/**
 * The registration with all keys that the server keeps.
 * @throws as `openKeptKeys`; Error for a level below the one this device knows, or another key than it has
 */
export async function unlocked(
  registration: Registration,
  kept: readonly KeptKey[],
  secrets: KeySecrets,
): Promise<Registration> {
  const level = kept.at(-1)?.level;
  if (!level || levels.indexOf(level) < levels.indexOf(registration.level))
    throw new Error(
      `the server says that the keys are at level '${level ?? 'none'}'; this device knows '${registration.level}', and a level is never lowered`,
    );
  const keys = await openKeptKeys(kept, secrets);
  for (const { generation, key } of keysOf(registration)) {
    const again = keys.find((each) => each.generation === generation);
    if (!again?.key.equals(key))
      throw new Error(`the server keeps another key of generation ${generation} than this device has`);
  }
  return withKeys(registration, level, keys);
}

/** What the server keeps and this device does not have. */
export function missingOf(registration: Registration, kept: readonly KeptKey[]): KeptKey[] {
  const have = new Set(keysOf(registration).map(({ generation }) => generation));
  return kept.filter(({ generation }) => !have.has(generation));
}

/** Another device has raised the level: this one needs what only the user has. It does not pass by itself. */
export class KeysRaised extends UsageError {}

/**
 * Refuses to go on with keys that are no longer the newest: what is sealed with them could be opened by those from whom
 * the new ones are to keep it. And with one that the server does not keep, because it was set back to before the raise:
 * what is sealed with it would be lost with this user's devices.
 * @throws KeysRaised naming the command
 */
export async function requireNewestKey(client: Pick<Client, 'self'>, registration: Registration): Promise<void> {
  const { vaultKeys } = await client.self();
  const newest = vaultKeys.at(-1);
  if (!newest || newest.generation === registration.keyGeneration) return;
  throw new KeysRaised(
    newest.generation > registration.keyGeneration ? raisedWords(newest.level) : setBackWords(registration.level),
  );
}

const setBackWords = (level: Level): string =>
  `The server was set back to before the keys of your backups were raised to level '${level}', and does not keep the newest. Run: npm run agent -- raise --to ${level}`;

export function raisedWords(level: Level): string {
  const secret = level === 'custom' ? 'key file' : 'archive password';
  return `The keys of your backups were raised to level '${level}' on another device, and this one needs the ${secret}. Run: npm run agent -- unlock`;
}

const notAsPromised = (): Error => new Error("the server's keys of this vault do not go together");
