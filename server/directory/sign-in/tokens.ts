/** Device tokens: 256 random bits. Only their SHA-256 is kept: what is that random needs no slow hash. */
import { randomBytes } from 'node:crypto';
import { sha256 } from '../../../protocol/hashes.ts';

const tokenBytes = 32;

/** 43 characters of base64url. */
export function newToken(): string {
  return randomBytes(tokenBytes).toString('base64url');
}

/** What the directory knows a token by; null when this is no token. */
export function tokenHash(token: string): Buffer | null {
  if (!/^[A-Za-z0-9_-]{43}$/.test(token)) return null;
  const bytes = Buffer.from(token, 'base64url');
  // The last character carries 4 bits that mean nothing; only one way of writing a token counts.
  return bytes.byteLength === tokenBytes && bytes.toString('base64url') === token ? sha256(bytes) : null;
}
