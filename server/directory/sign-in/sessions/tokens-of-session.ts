/**
 * What a session hands out: an access token of minutes, and a refresh token that is a handle and a secret. The handle stays
 * with the session; the secret is exchanged at each use. All three are drawn before the transaction that may run twice.
 */
import { newToken, tokenHash } from '../tokens.ts';

export const accessTokenMinutes = 15;
/** A refresh token not used for so long ends with its session. */
export const refreshTokenDays = 30;
/** Whoever comes back every day signs in again after so long: a stolen session does not live for ever. */
export const sessionDays = 90;
/** A session at our own page, which refreshes by being used: a working day. */
export const browserSessionHours = 12;
/** How long an answer to a refresh may be lost: the time in which a client gives up waiting and asks again. */
export const refreshGraceSeconds = 60;
/** Sessions of one user at a time; the one not refreshed for longest makes room. */
export const sessionsPerUserMax = 50;

export interface DrawnTokens {
  access: string;
  handle: string;
  secret: string;
}

export function drawTokens(): DrawnTokens {
  return { access: newToken(), handle: newToken(), secret: newToken() };
}

/** 87 characters: the handle, a dot, the secret. */
export function refreshToken(handle: string, secret: string): string {
  return `${handle}.${secret}`;
}

/** What the directory knows the two halves by; null when this is no refresh token. */
export function readRefreshToken(text: string): { handle: string; handleSha256: Buffer; secretSha256: Buffer } | null {
  if (text.length !== 87 || text[43] !== '.') return null;
  const handle = text.slice(0, 43);
  const handleSha256 = tokenHash(handle);
  const secretSha256 = tokenHash(text.slice(44));
  return handleSha256 && secretSha256 && { handle, handleSha256, secretSha256 };
}
