/**
 * A vault key wrapped by the user's archive password. The server keeps the record and cannot open it; it could try to
 * make guessing cheap, the agent run out of memory, or hand back the record of an earlier key it knows. So the bounds
 * are enforced here, on both ways, and the record names its key's generation.
 */
import { argon2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { vaultKeyBytes } from './keys.ts';
import { SealError } from './seal-error.ts';
import { hmac, xor } from './wrapping.ts';

const deriveAsync = promisify(argon2);

/**
 * Argon2id's parameters: least (OWASP's recommendation of 2023: 19 MiB, 2 passes), usual (RFC 9106, section 4, second
 * recommended option) and largest, which an agent on a small machine still survives.
 */
export const wrapBounds = {
  memoryKiB: { least: 19 * 1024, usual: 64 * 1024, largest: 256 * 1024 },
  passes: { least: 2, usual: 3, largest: 16 },
  parallelism: { least: 1, usual: 4, largest: 16 },
  passwordBytesMax: 4096,
} as const;

/** Format (1), kdf (1), parallelism (1), zero (1), memory in KiB (4), passes (4), generation (4), salt (16). */
const headBytes = 32;
const saltAt = 16;
const sivBytes = 32;
const recordBytes = headBytes + sivBytes + vaultKeyBytes;
const formatNumber = 1;
const kdfArgon2id = 1;

export interface WrapOptions {
  /** Of the vault key; 0 when not said. */
  generation?: number;
  memoryKiB?: number;
  passes?: number;
  parallelism?: number;
  /** 16 bytes. Random unless given; given only to make test vectors. */
  salt?: Uint8Array;
}

interface Head {
  generation: number;
  memoryKiB: number;
  passes: number;
  parallelism: number;
  salt: Uint8Array;
}

/**
 * The record of 96 bytes that opens with the password alone. Takes about 0.2 s and 64 MiB with the usual parameters.
 * @throws RangeError for a parameter outside `wrapBounds`, an empty or overlong password, a key that is not 32 bytes
 */
export async function wrapKey(vaultKey: Uint8Array, password: string, options: WrapOptions = {}): Promise<Buffer> {
  if (vaultKey.byteLength !== vaultKeyBytes)
    throw new RangeError(`a vault key is ${vaultKeyBytes} bytes, not ${vaultKey.byteLength}`);
  const passwordBytes = encodePassword(password);
  if (passwordBytes === null) throw new RangeError(`a password is 1 to ${wrapBounds.passwordBytesMax} bytes`);
  const head: Head = {
    generation: options.generation ?? 0,
    memoryKiB: options.memoryKiB ?? wrapBounds.memoryKiB.usual,
    passes: options.passes ?? wrapBounds.passes.usual,
    parallelism: options.parallelism ?? wrapBounds.parallelism.usual,
    salt: options.salt ?? randomBytes(headBytes - saltAt),
  };
  const fault = headFault(head);
  if (fault) throw new RangeError(fault);

  const encoded = encodeHead(head);
  const keys = await passwordKeys(passwordBytes, head);
  const siv = hmac(keys.mac, encoded, vaultKey);
  return Buffer.concat([encoded, siv, xor(vaultKey, hmac(keys.encryption, siv))], recordBytes);
}

/**
 * The vault key of a record.
 * @param expected.generation when given, a record of another generation is refused: the server may know an older key
 * @throws SealError bad_record (before any work is done), wrong_generation, wrong_password
 */
export async function unwrapKey(
  record: Uint8Array,
  password: string,
  expected: { generation?: number } = {},
): Promise<Buffer> {
  const bytes = Buffer.from(record.buffer, record.byteOffset, record.byteLength);
  const head = decodeHead(bytes);
  if (expected.generation !== undefined && head.generation !== expected.generation) {
    throw new SealError(
      'wrong_generation',
      `the wrapped key is of generation ${head.generation}, expected ${expected.generation}`,
    );
  }
  const passwordBytes = encodePassword(password);
  if (passwordBytes === null) throw wrongPassword();

  const keys = await passwordKeys(passwordBytes, head);
  const siv = bytes.subarray(headBytes, headBytes + sivBytes);
  const vaultKey = xor(bytes.subarray(headBytes + sivBytes), hmac(keys.encryption, siv));
  if (!timingSafeEqual(hmac(keys.mac, bytes.subarray(0, headBytes), vaultKey), siv)) throw wrongPassword();
  return vaultKey;
}

/** The generation of the key in a record, without the password. @throws SealError bad_record */
export function readWrappedGeneration(record: Uint8Array): number {
  return decodeHead(Buffer.from(record.buffer, record.byteOffset, record.byteLength)).generation;
}

function wrongPassword(): SealError {
  return new SealError(
    'wrong_password',
    'the password is not the one the key was wrapped with, or the wrapped key was altered',
  );
}

function encodeHead(head: Head): Buffer {
  const bytes = Buffer.alloc(headBytes);
  bytes.writeUInt8(formatNumber, 0);
  bytes.writeUInt8(kdfArgon2id, 1);
  bytes.writeUInt8(head.parallelism, 2);
  bytes.writeUInt32BE(head.memoryKiB, 4);
  bytes.writeUInt32BE(head.passes, 8);
  bytes.writeUInt32BE(head.generation, 12);
  bytes.set(head.salt, saltAt);
  return bytes;
}

function decodeHead(record: Buffer): Head {
  const refuse = (why: string): never => {
    throw new SealError('bad_record', `the wrapped key ${why}`);
  };
  if (record.byteLength !== recordBytes) refuse(`has ${record.byteLength} bytes, not ${recordBytes}`);
  if (record[0] !== formatNumber || record[1] !== kdfArgon2id)
    refuse(`is of format ${record[0]}.${record[1]}, which this program does not know`);
  if (record[3] !== 0) refuse('has a reserved byte that is not zero');
  const head: Head = {
    parallelism: record[2]!,
    memoryKiB: record.readUInt32BE(4),
    passes: record.readUInt32BE(8),
    generation: record.readUInt32BE(12),
    salt: record.subarray(saltAt, headBytes),
  };
  const fault = headFault(head);
  if (fault) refuse(`is not acceptable: ${fault}`);
  return head;
}

/** Why parameters may not be used, whoever chose them; null when they may. */
function headFault(head: Head): string | null {
  for (const name of ['memoryKiB', 'passes', 'parallelism'] as const) {
    const { least, largest } = wrapBounds[name];
    const value = head[name];
    if (!Number.isInteger(value) || value < least || value > largest)
      return `${name} ${value} is not within ${least} and ${largest}`;
  }
  if (!Number.isInteger(head.generation) || head.generation < 0 || head.generation >= 2 ** 32)
    return `generation ${head.generation} is not one`;
  if (head.salt.byteLength !== headBytes - saltAt)
    return `the salt has ${head.salt.byteLength} bytes, not ${headBytes - saltAt}`;
  return null;
}

/** UTF-8 of the NFC form, so that a password typed on macOS opens what was wrapped on Windows. Null when out of bounds. */
function encodePassword(password: string): Buffer | null {
  const bytes = Buffer.from(password.normalize('NFC'), 'utf8');
  return bytes.byteLength >= 1 && bytes.byteLength <= wrapBounds.passwordBytesMax ? bytes : null;
}

async function passwordKeys(password: Buffer, head: Head): Promise<{ encryption: Buffer; mac: Buffer }> {
  const { memoryKiB: memory, passes, parallelism, salt: nonce } = head;
  const derived = await deriveAsync('argon2id', {
    message: password,
    nonce,
    memory,
    passes,
    parallelism,
    tagLength: 64,
  });
  return { encryption: derived.subarray(0, 32), mac: derived.subarray(32) };
}
