/**
 * An earlier key of a vault, wrapped by its newest one: so that at the level `custom`, where no password is, the user's
 * own key opens everything. Nothing is random: the same two keys give the same record. Both keys are random, so there is
 * nothing to guess, and no work to make guessing dear.
 *
 *   record  = head (16) || siv (32) || wrapped key (32)
 *   e || m  = HKDF-SHA-256(wrapping key, 'holdfast v1 key in key', 64)
 *   siv     = HMAC(m, head || key);   wrapped = key XOR HMAC(e, siv)
 */
import { hkdfSync, timingSafeEqual } from 'node:crypto';
import { vaultKeyBytes } from './keys.ts';
import { SealError } from './seal-error.ts';
import { hmac, xor } from './wrapping.ts';

/** Format (1), kind (1), zero (2), generation of the wrapping key (4), zero (4), generation of the wrapped key (4). */
const headBytes = 16;
const sivBytes = 32;
export const keyInKeyBytes = headBytes + sivBytes + vaultKeyBytes;
const formatNumber = 1;
export const kindKeyInKey = 2;
const info = 'holdfast v1 key in key';

export interface KeyInKey {
  /** Of the wrapped key. */
  generation: number;
  /** Of the key that wraps it: a later one. */
  by: number;
}

/**
 * The record of 80 bytes that opens with `wrapping` alone.
 * @throws RangeError for keys that are not 32 bytes, and generations that do not follow each other
 */
export function wrapKeyInKey(vaultKey: Uint8Array, wrapping: Uint8Array, of: KeyInKey): Buffer {
  if (vaultKey.byteLength !== vaultKeyBytes) throw new RangeError(`a vault key is ${vaultKeyBytes} bytes`);
  const head = encodeHead(of);
  const keys = wrappingKeys(wrapping);
  const siv = hmac(keys.mac, head, vaultKey);
  return Buffer.concat([head, siv, xor(vaultKey, hmac(keys.encryption, siv))], keyInKeyBytes);
}

/**
 * The vault key of a record.
 * @param expected a record of other generations is refused: the server may know an older key
 * @throws SealError bad_record, wrong_generation, not_authentic
 */
export function unwrapKeyInKey(record: Uint8Array, wrapping: Uint8Array, expected: KeyInKey): Buffer {
  const head = readKeyInKey(record);
  if (head.generation !== expected.generation || head.by !== expected.by) {
    const words = `generation ${head.generation} wrapped by ${head.by}, expected ${expected.generation} by ${expected.by}`;
    throw new SealError('wrong_generation', `the wrapped key is of ${words}`);
  }
  const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
  const keys = wrappingKeys(wrapping);
  const siv = bytes.subarray(headBytes, headBytes + sivBytes);
  const vaultKey = xor(bytes.subarray(headBytes + sivBytes), hmac(keys.encryption, siv));
  if (!timingSafeEqual(hmac(keys.mac, bytes.subarray(0, headBytes), vaultKey), siv))
    throw new SealError('not_authentic', 'the key is not the one that wrapped this, or the wrapped key was altered');
  return vaultKey;
}

/** Which keys a record is about, without any key. @throws SealError bad_record */
export function readKeyInKey(record: Uint8Array): KeyInKey {
  const refuse = (why: string): never => {
    throw new SealError('bad_record', `the wrapped key ${why}`);
  };
  const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
  if (bytes.byteLength !== keyInKeyBytes) return refuse(`has ${bytes.byteLength} bytes, not ${keyInKeyBytes}`);
  if (bytes[0] !== formatNumber || bytes[1] !== kindKeyInKey)
    return refuse(`is of format ${bytes[0]}.${bytes[1]}, expected ${formatNumber}.${kindKeyInKey}`);
  if (bytes.readUInt16BE(2) !== 0 || bytes.readUInt32BE(8) !== 0) return refuse('has reserved bytes that are not zero');
  const of = { by: bytes.readUInt32BE(4), generation: bytes.readUInt32BE(12) };
  return of.by > of.generation ? of : refuse(`is of generation ${of.generation}, wrapped by the earlier ${of.by}`);
}

function encodeHead({ generation, by }: KeyInKey): Buffer {
  const isOne = (value: number): boolean => Number.isInteger(value) && value >= 0 && value < 2 ** 32;
  if (!isOne(generation) || !isOne(by) || by <= generation)
    throw new RangeError(`generation ${generation} is not wrapped by generation ${by}`);
  const head = Buffer.alloc(headBytes);
  head.writeUInt8(formatNumber, 0);
  head.writeUInt8(kindKeyInKey, 1);
  head.writeUInt32BE(by, 4);
  head.writeUInt32BE(generation, 12);
  return head;
}

function wrappingKeys(key: Uint8Array): { encryption: Buffer; mac: Buffer } {
  if (key.byteLength !== vaultKeyBytes) throw new RangeError(`a vault key is ${vaultKeyBytes} bytes`);
  const derived = Buffer.from(hkdfSync('sha256', key, Buffer.alloc(0), info, 64));
  return { encryption: derived.subarray(0, 32), mac: derived.subarray(32) };
}
