/**
 * Who is signed in where: one file, so that server, certificate and tokens always belong together. Whoever signs out
 * leaves the server there, for the next sign-in and for `--help`.
 */
import { join } from 'node:path';
import { SignInNeeded } from '../errors.ts';
import { makeHome, readTextFile, writePrivateFile } from './home.ts';

export interface SignedIn {
  /** Its origin: https://host:port */
  server: string;
  /** 64 lower hex digits; null when the system's certificate authorities vouch for the server. */
  certificateSha256: string | null;
  /** As given; null: the first tenant. */
  tenant: string | null;
  userName: string;
  /** One who runs the server, who is of no tenant. */
  operator: boolean;
  /** Null: signed out. */
  tokens: Tokens | null;
}

export interface Tokens {
  session: number;
  accessToken: string;
  /** By this machine's clock, in ms since the epoch. */
  accessExpiresAt: number;
  refreshToken: string;
  /** By the server's. */
  refreshExpiresAt: string;
}

/** What the server answers a sign-in and an exchange. @throws Error when it is something else */
export function readTokens(answer: unknown, now: number): Tokens {
  const { session, accessToken, accessExpiresInSeconds, refreshToken, refreshExpiresAt } = (answer ?? {}) as Record<
    string,
    unknown
  >;
  const isWhole =
    typeof session === 'number' &&
    typeof accessToken === 'string' &&
    typeof accessExpiresInSeconds === 'number' &&
    typeof refreshToken === 'string' &&
    typeof refreshExpiresAt === 'string';
  if (!isWhole) throw new Error('the server answered the sign-in with something that holds no tokens');
  return {
    session,
    accessToken,
    accessExpiresAt: now + accessExpiresInSeconds * 1_000,
    refreshToken,
    refreshExpiresAt,
  };
}

const fileOf = (home: string): string => join(home, 'sign-in.json');

/** Null when nobody ever was. @throws SignInNeeded when the file is damaged */
export function readSignedIn(home: string): SignedIn | null {
  const text = readTextFile(fileOf(home));
  if (text === null) return null;
  try {
    const read = JSON.parse(text) as SignedIn;
    if (typeof read.server === 'string' && typeof read.userName === 'string' && areTokens(read.tokens)) return read;
  } catch {
    // Told below, as what is whole JSON and no sign-in.
  }
  throw new SignInNeeded(`${fileOf(home)} is damaged. Sign in again: npm run admin -- sign-in`);
}

function areTokens(tokens: Tokens | null): boolean {
  if (tokens === null) return true;
  const texts = [tokens.accessToken, tokens.refreshToken, tokens.refreshExpiresAt];
  return texts.every((each) => typeof each === 'string') && typeof tokens.accessExpiresAt === 'number';
}

export function writeSignedIn(home: string, signedIn: SignedIn): void {
  makeHome(home);
  writePrivateFile(fileOf(home), `${JSON.stringify(signedIn, null, 2)}\n`);
}

/** Forgets the tokens, and keeps where the server is. */
export function forgetTokens(home: string): void {
  const signedIn = readSignedIn(home);
  if (signedIn) writeSignedIn(home, { ...signedIn, tokens: null });
}
