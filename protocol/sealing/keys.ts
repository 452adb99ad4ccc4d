/**
 * From one vault key, one key per purpose: no key serves two purposes or two formats, so that bytes made for one can
 * never be taken for the other. docs/sealing.md gives the derivations as a table.
 */
import { createSecretKey, hkdfSync, type KeyObject } from 'node:crypto';

/** Bytes of a vault key. Random, never a password: a password wraps it (key-wrap.ts). */
export const vaultKeyBytes = 32;

/** The keys of one generation of one vault, for format 1. As KeyObjects they show nothing when logged. */
export interface VaultKeys {
  /** Block keys and nonces are derived from it; it encrypts nothing itself. */
  readonly encryption: KeyObject;
  /** Makes the synthetic IV of sealed bytes. */
  readonly mac: KeyObject;
  /** Makes the MACs of versions. */
  readonly versionMac: KeyObject;
  /** 256 random 32-bit numbers for the chunker, so that cuts differ from vault to vault. */
  readonly gear: Int32Array;
}

const info = {
  encryption: 'holdfast v1 block enc',
  mac: 'holdfast v1 block mac',
  versionMac: 'holdfast v1 version mac',
  gear: 'holdfast v1 gear table',
  check: 'holdfast v1 key check',
} as const;

/**
 * All keys of a vault key of 32 bytes: HKDF-SHA-256 (RFC 5869) without salt, a fixed `info` per purpose.
 * @throws RangeError when the vault key is not 32 bytes
 */
export function deriveKeys(vaultKey: Uint8Array): VaultKeys {
  return {
    encryption: createSecretKey(derive(vaultKey, info.encryption, 32)),
    mac: createSecretKey(derive(vaultKey, info.mac, 32)),
    versionMac: createSecretKey(derive(vaultKey, info.versionMac, 32)),
    gear: gearTable(derive(vaultKey, info.gear, 256 * 4)),
  };
}

/**
 * 16 bytes by which a mistyped or exchanged vault key is noticed. The server may keep them: the vault key is random,
 * so they help nobody to guess it.
 * @throws RangeError when the vault key is not 32 bytes
 */
export function keyCheck(vaultKey: Uint8Array): Buffer {
  return derive(vaultKey, info.check, 16);
}

function derive(vaultKey: Uint8Array, purpose: string, bytes: number): Buffer {
  if (vaultKey.byteLength !== vaultKeyBytes)
    throw new RangeError(`a vault key is ${vaultKeyBytes} bytes, not ${vaultKey.byteLength}`);
  return Buffer.from(hkdfSync('sha256', vaultKey, Buffer.alloc(0), purpose, bytes));
}

function gearTable(bytes: Buffer): Int32Array {
  return Int32Array.from({ length: 256 }, (_, index) => bytes.readInt32BE(index * 4));
}
