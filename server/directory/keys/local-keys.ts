/** Seals with keys that this process holds: AES-256-GCM, the key's name and what the secret is authenticated with it. */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { sha256 } from '../../../protocol/hashes.ts';
import { type KeyHolder, KeyServiceError } from './key-service.ts';
import { fileRecordHead, keyIdOf, nameOfKeyId, packFileRecord, recordFormats, unpackFileRecord } from './records.ts';

export const serverKeyBytes = 32;
const cipherName = 'aes-256-gcm';
const nonceBytes = 12;

export interface LocalKeys extends KeyHolder {
  /** Whether the key that sealed this record is one of these. */
  knows(record: Uint8Array): boolean;
}

export const nameOfServerKey = (key: Uint8Array): string => nameOfKeyId(keyIdOf(sha256(key)));

/**
 * A key service on 32-byte keys: the first seals, every one opens.
 * The nonce is random: one key seals at most 2^32 records (NIST SP 800-38D, 8.3), far more than there are users.
 * @throws KeyServiceError refused: there is no key, or one is not 32 bytes
 */
export function localKeyService(keys: readonly Buffer[]): LocalKeys {
  const known = keys.map((key) => {
    if (key.byteLength !== serverKeyBytes)
      throw new KeyServiceError('refused', `a server key has ${serverKeyBytes} bytes, this one ${key.byteLength}`);
    return { key, id: keyIdOf(sha256(key)) };
  });
  const first = known[0];
  if (!first) throw new KeyServiceError('refused', 'there is no server key');
  const holderOf = (keyId: Buffer) => known.find(({ id }) => id.equals(keyId));

  return {
    format: recordFormats.file,

    async seal(plain, context) {
      const head = fileRecordHead(first.id);
      const nonce = randomBytes(nonceBytes);
      const cipher = createCipheriv(cipherName, first.key, nonce).setAAD(associated(head, context));
      const ciphertext = Buffer.concat([cipher.update(plain), cipher.final()]);
      return packFileRecord({ head, nonce, ciphertext, tag: cipher.getAuthTag() });
    },

    async unseal(record, context) {
      const { keyId, head, nonce, ciphertext, tag } = unpackFileRecord(record);
      const holder = holderOf(keyId);
      if (!holder)
        throw new KeyServiceError(
          'refused',
          `the server key ${nameOfKeyId(keyId)} that sealed this record is not in the key file`,
        );
      const decipher = createDecipheriv(cipherName, holder.key, nonce, { authTagLength: tag.byteLength });
      decipher.setAAD(associated(head, context)).setAuthTag(tag);
      try {
        return Buffer.concat([decipher.update(ciphertext), decipher.final()]);
      } catch (cause) {
        throw new KeyServiceError('damaged', 'a sealed record was altered, or belongs to something else', { cause });
      }
    },

    keys: async () => known.map(({ id }) => nameOfKeyId(id)),
    check: async () => {},
    knows: (record) => holderOf(unpackFileRecord(record).keyId) !== undefined,
  };
}

function associated(head: Uint8Array, context: string): Buffer {
  return Buffer.concat([head, Buffer.from(context, 'utf8')]);
}
