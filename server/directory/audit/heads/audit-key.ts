/**
 * The key that signs the heads of the audit log (Ed25519, RFC 8032). It lies in a file, and the database never holds it:
 * whoever owns the database can rewrite rows, and cannot sign what they add up to.
 * The file holds PEM: the first private key signs; every key in it, private or public, verifies. So a key is replaced by
 * putting a new one above the old, and a file with public keys alone verifies and signs nothing.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign as signBytes,
  verify as verifyBytes,
} from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { sha256 } from '../../../../protocol/hashes.ts';
import { fsyncFolder } from '../../../durable-files.ts';

export class AuditKeyError extends Error {
  override name = 'AuditKeyError';
}

export interface AuditKeys {
  /** Null: nothing is signed with these. */
  signer: { keyId: string; sign(text: string): Buffer } | null;
  /** @returns null when there is no such key here */
  verify(keyId: string, text: string, signature: Uint8Array): boolean | null;
}

/** The first 8 bytes of the SHA-256 of the public key (DER, SubjectPublicKeyInfo), in hex. */
function idOf(key: KeyObject): string {
  return sha256(key.export({ type: 'spki', format: 'der' })).toString('hex', 0, 8);
}

/** @throws AuditKeyError when the text holds something else than Ed25519 keys, or none */
export function readAuditKeys(pem: string): AuditKeys {
  const blocks = pem.match(/-----BEGIN (?:PRIVATE|PUBLIC) KEY-----[\s\S]*?-----END (?:PRIVATE|PUBLIC) KEY-----/g) ?? [];
  const known = new Map<string, KeyObject>();
  let signer: AuditKeys['signer'] = null;
  for (const block of blocks) {
    const isPrivate = block.includes('PRIVATE');
    const [own, open] = parse(block, isPrivate);
    const keyId = idOf(open);
    known.set(keyId, open);
    if (own && !signer) signer = { keyId, sign: (text) => signBytes(null, Buffer.from(text, 'utf8'), own) };
  }
  if (known.size === 0) throw new AuditKeyError('there is no PEM with an Ed25519 key');
  return {
    signer,
    verify(keyId, text, signature) {
      const key = known.get(keyId);
      return key ? verifyBytes(null, Buffer.from(text, 'utf8'), key, signature) : null;
    },
  };
}

function parse(block: string, isPrivate: boolean): [own: KeyObject | null, open: KeyObject] {
  let pair: [KeyObject | null, KeyObject];
  try {
    const own = isPrivate ? createPrivateKey(block) : null;
    pair = [own, createPublicKey(own ?? block)];
  } catch (cause) {
    throw new AuditKeyError('a key cannot be read', { cause });
  }
  if (pair[1].asymmetricKeyType !== 'ed25519') throw new AuditKeyError('a key is not an Ed25519 key');
  return pair;
}

/** What a new key file holds. */
export function newAuditKeyFile(): string {
  const { privateKey } = generateKeyPairSync('ed25519');
  const comment =
    '# Signs the heads of the audit log. Keep a copy elsewhere: without it nobody can show that the log was not altered.';
  return `${comment}\n${privateKey.export({ type: 'pkcs8', format: 'pem' })}`;
}

/**
 * Opens the key file.
 * @param options.create make the file with a new key when it is not there; only while nothing was signed with one
 * @returns null when there is no such file
 * @throws AuditKeyError when it cannot be read or holds something else
 */
export function openAuditKeyFile(file: string, options: { create: boolean }): AuditKeys | null {
  if (!existsSync(file)) {
    if (!options.create) return null;
    // Whole under its name or not at all: half a key would be refused by the next start.
    writeFileSync(`${file}.new`, newAuditKeyFile(), { mode: 0o600, flush: true });
    renameSync(`${file}.new`, file);
    fsyncFolder(dirname(file));
  }
  try {
    return readAuditKeys(readFileSync(file, 'utf8'));
  } catch (cause) {
    const why = (cause as Error).message;
    throw new AuditKeyError(`the audit key file ${file} cannot be used (${why}): set HOLDFAST_AUDIT_KEY_FILE`, {
      cause,
    });
  }
}
