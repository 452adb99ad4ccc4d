/**
 * The keys of all generations of one vault: the newest seals, and each opens what says that it was sealed with it. A
 * generation is never mixed within one version: its attributes and blocks were sealed by one agent with one key.
 */
import { readSealedHeader } from './header.ts';
import { deriveKeys, type VaultKeys } from './keys.ts';
import { SealError } from './seal-error.ts';
import { type MacVersion, verifyVersionMac } from './version-mac.ts';

export interface Keyring {
  /** The newest one: what is sealed now is sealed with it. */
  readonly generation: number;
  readonly newest: VaultKeys;
  /** @throws SealError wrong_generation for one that is not on it */
  of(generation: number): VaultKeys;
  /** The keys of the generation that sealed bytes name. @throws SealError malformed, unsupported_format, wrong_generation */
  for(sealed: Uint8Array): VaultKeys;
}

/** @param keys vault keys of 32 bytes, at least one, in any order. @throws RangeError */
export function makeKeyring(keys: readonly { generation: number; key: Uint8Array }[]): Keyring {
  const byGeneration = new Map(keys.map(({ generation, key }) => [generation, deriveKeys(key)]));
  const generation = Math.max(...byGeneration.keys());
  const newest = byGeneration.get(generation);
  if (!newest) throw new RangeError('a keyring without a key opens nothing');
  const of = (wanted: number): VaultKeys => {
    const found = byGeneration.get(wanted);
    if (found) return found;
    const have = [...byGeneration.keys()].sort((a, b) => a - b).join(', ');
    throw new SealError('wrong_generation', `sealed under key generation ${wanted}; this device has ${have}`);
  };
  return { generation, newest, of, for: (sealed) => of(readSealedHeader(sealed).generation) };
}

/**
 * Whether an agent with one of these keys committed the version to this archive: with the key that its attributes name,
 * the newest where they name none. Not for records of deletions, which have no attributes.
 * @throws SealError wrong_generation when they name one that is not on the ring
 */
export function verifyVersionOf(keyring: Keyring, archive: number, version: MacVersion & { mac: Uint8Array }): boolean {
  return verifyVersionMac(keysNamedBy(keyring, version.attributes), archive, version);
}

function keysNamedBy(keyring: Keyring, sealed: Uint8Array): VaultKeys {
  try {
    return keyring.for(sealed);
  } catch (error) {
    if (error instanceof SealError && error.reason !== 'wrong_generation') return keyring.newest;
    throw error;
  }
}
