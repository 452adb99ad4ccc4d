/**
 * Sealed records as bytes: which service made one, with which key, and what it made. A record says so itself, so that
 * this can be told without the service.
 */
import { KeyServiceError } from './key-service.ts';

/** The first byte of a record. */
export const recordFormats = { file: 1, kms: 2 } as const;

// 1: 8 bytes of the key's SHA-256, 12 bytes nonce, ciphertext, 16 bytes tag.
const keyIdBytes = 8;
const nonceBytes = 12;
const tagBytes = 16;
const fileHeadBytes = 1 + keyIdBytes;

export interface FileRecord {
  keyId: Buffer;
  /** What is authenticated with the ciphertext. */
  head: Buffer;
  nonce: Buffer;
  ciphertext: Buffer;
  tag: Buffer;
}

export function fileRecordHead(keyId: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(recordFormats.file), keyId], fileHeadBytes);
}

export function packFileRecord({ head, nonce, ciphertext, tag }: Omit<FileRecord, 'keyId'>): Buffer {
  return Buffer.concat([head, nonce, ciphertext, tag]);
}

/** @throws KeyServiceError damaged */
export function unpackFileRecord(bytes: Uint8Array): FileRecord {
  const record = asBuffer(bytes);
  if (record.byteLength < fileHeadBytes + nonceBytes + tagBytes || record[0] !== recordFormats.file) throw noRecord();
  const head = record.subarray(0, fileHeadBytes);
  const [body, end] = [fileHeadBytes + nonceBytes, record.byteLength - tagBytes];
  return {
    keyId: head.subarray(1),
    head,
    nonce: record.subarray(fileHeadBytes, body),
    ciphertext: record.subarray(body, end),
    tag: record.subarray(end),
  };
}

// 2: 2 bytes length of the key's ARN, the ARN, what KMS made.
const arnAt = 3;
const arnBytesMax = 2_048;
/** AWS KMS API Reference, Encrypt: the longest CiphertextBlob. */
const kmsSealedBytesMax = 6_144;
const keyArn = /^arn:[a-z-]+:kms:([a-z0-9-]+):\d{12}:key\/[A-Za-z0-9-]+$/;

/** The region of a key's ARN; null: this is none. */
export function regionOfKeyArn(text: string): string | null {
  return keyArn.exec(text)?.[1] ?? null;
}

export interface KmsRecord {
  arn: string;
  sealed: Buffer;
}

/** @throws KeyServiceError damaged: what is to be packed is none of KMS */
export function packKmsRecord({ arn, sealed }: KmsRecord): Buffer {
  const name = Buffer.from(arn, 'latin1');
  const head = Buffer.alloc(arnAt);
  head.writeUInt8(recordFormats.kms, 0);
  head.writeUInt16BE(name.byteLength % 65_536, 1);
  const record = Buffer.concat([head, name, sealed]);
  unpackKmsRecord(record);
  return record;
}

/** @throws KeyServiceError damaged */
export function unpackKmsRecord(bytes: Uint8Array): KmsRecord {
  const record = asBuffer(bytes);
  const length = record.byteLength > arnAt ? record.readUInt16BE(1) : 0;
  const arn = record.toString('latin1', arnAt, arnAt + length);
  const sealed = record.subarray(arnAt + length);
  const whole = sealed.byteLength > 0 && sealed.byteLength <= kmsSealedBytesMax;
  if (record[0] !== recordFormats.kms || length > arnBytesMax || regionOfKeyArn(arn) === null || !whole)
    throw noRecord();
  return { arn, sealed };
}

/** How the key of a file is called: `file:` and a part of its hash, of which it cannot be found out. */
export const nameOfKeyId = (keyId: Uint8Array): string => `file:${Buffer.from(keyId).toString('hex')}`;

export const keyIdOf = (sha256OfKey: Buffer): Buffer => sha256OfKey.subarray(0, keyIdBytes);

/** The name of the key that sealed a record: `file:HEX`, or an ARN. @throws KeyServiceError damaged: this is no record */
export function sealingKeyOf(record: Uint8Array): string {
  switch (record[0]) {
    case recordFormats.file:
      return nameOfKeyId(unpackFileRecord(record).keyId);
    case recordFormats.kms:
      return unpackKmsRecord(record).arn;
    default:
      throw noRecord();
  }
}

const noRecord = (): KeyServiceError => new KeyServiceError('damaged', 'this is no record of the key service');

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
