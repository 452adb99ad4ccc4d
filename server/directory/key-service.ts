/**
 * Seals vault keys of level `standard`, so that the database alone opens no backup. One interface, because an
 * operator may keep the sealing key elsewhere; here is the implementation on a key file.
 * A record names the key that sealed it: a file with a new first key seals with that and still opens the old.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { sha256 } from '../../protocol/hashes.ts';
import { type Database, statement } from '../../storage/catalog/database.ts';
import { fsyncFolder } from '../durable-files.ts';

const anySealed = statement('directory.anySealedKey', "SELECT 1 FROM vault_keys WHERE level = 'standard' LIMIT 1");

/** Whether vault keys are sealed already: a server key that is missing then was lost, and a new one opens none of them. */
export async function hasSealedKeys(db: Database): Promise<boolean> {
  return (await db.query(anySealed)).length > 0;
}

export interface KeyService {
  /** @param context what the secret is; unsealing under another context fails, so records cannot be swapped */
  seal(plain: Uint8Array, context: string): Promise<Buffer>;
  /** @throws KeyServiceError when no key opens the record, or it is not what was sealed under this context */
  unseal(record: Uint8Array, context: string): Promise<Buffer>;
}

export class KeyServiceError extends Error {
  override name = 'KeyServiceError';
}

// A record: format 1, 8 bytes of the key's SHA-256, 12 bytes nonce, ciphertext, 16 bytes tag.
const format = 1;
const keyIdBytes = 8;
const nonceBytes = 12;
const tagBytes = 16;
const headBytes = 1 + keyIdBytes;

interface SealingKey {
  id: Buffer;
  key: Buffer;
}

/**
 * A key service on 32-byte keys: the first seals, every one opens.
 * The nonce is random: one key seals at most 2^32 records (NIST SP 800-38D, 8.3), far more than there are users.
 */
export function localKeyService(keys: readonly Buffer[]): KeyService {
  const known: SealingKey[] = keys.map((key) => {
    if (key.byteLength !== 32) throw new KeyServiceError(`a server key has 32 bytes, this one ${key.byteLength}`);
    return { key, id: sha256(key).subarray(0, keyIdBytes) };
  });
  const first = known[0];
  if (!first) throw new KeyServiceError('there is no server key');

  return {
    async seal(plain, context) {
      const head = Buffer.concat([Buffer.of(format), first.id]);
      const nonce = randomBytes(nonceBytes);
      const cipher = createCipheriv('aes-256-gcm', first.key, nonce).setAAD(associated(head, context));
      return Buffer.concat([head, nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
    },
    async unseal(bytes, context) {
      const record = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      if (record.byteLength < headBytes + nonceBytes + tagBytes || record[0] !== format)
        throw new KeyServiceError('this is no record of the key service');
      const head = record.subarray(0, headBytes);
      const holder = known.find(({ id }) => id.equals(head.subarray(1)));
      if (!holder)
        throw new KeyServiceError(
          `the server key ${head.toString('hex', 1)} that sealed this record is not in the key file`,
        );
      const nonce = record.subarray(headBytes, headBytes + nonceBytes);
      const end = record.byteLength - tagBytes;
      const decipher = createDecipheriv('aes-256-gcm', holder.key, nonce, { authTagLength: tagBytes });
      decipher.setAAD(associated(head, context)).setAuthTag(record.subarray(end));
      try {
        return Buffer.concat([decipher.update(record.subarray(headBytes + nonceBytes, end)), decipher.final()]);
      } catch (cause) {
        throw new KeyServiceError('a sealed record was altered, or belongs to something else', { cause });
      }
    },
  };
}

function associated(head: Uint8Array, context: string): Buffer {
  return Buffer.concat([head, Buffer.from(context, 'utf8')]);
}

/**
 * Opens the key file: one key per line in base64; empty lines and lines beginning with # do not count.
 * @param options.create make the file with a new key when it is not there; only while `hasSealedKeys` says no
 * @throws KeyServiceError when it cannot be read or holds something else
 */
export function openKeyFile(file: string, options: { create: boolean }): KeyService {
  if (options.create && !existsSync(file)) {
    const comment =
      '# Seals the vault keys of level "standard". Keep a copy elsewhere: without it those backups cannot be opened.';
    // Whole under its name or not at all: half a key would be refused by the next start.
    const content = `${comment}\n${randomBytes(32).toString('base64')}\n`;
    writeFileSync(`${file}.new`, content, { mode: 0o600, flush: true });
    renameSync(`${file}.new`, file);
    fsyncFolder(dirname(file));
  }
  let lines: string[];
  try {
    lines = readFileSync(file, 'utf8').split('\n');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT')
      throw new KeyServiceError(
        `the server key file ${file} does not exist. Put your copy of it back, or set HOLDFAST_KEY_FILE to where it is: without it the vault keys sealed with it cannot be opened`,
        { cause },
      );
    throw new KeyServiceError(
      `the server key file ${file} cannot be read (${(cause as Error).message}): set HOLDFAST_KEY_FILE`,
      { cause },
    );
  }
  const keys = lines.map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('#'));
  if (keys.some((key) => !/^[A-Za-z0-9+/]{43}=$/.test(key)))
    throw new KeyServiceError(`the server key file ${file} holds a line that is not 32 bytes in base64`);
  return localKeyService(keys.map((key) => Buffer.from(key, 'base64')));
}
