/** Tokens of repositories: 256 random bits, marked as what they are, so that one found in a script or a log is known. Only their SHA-256 is kept. */
import { newToken, tokenHash } from '../sign-in/tokens.ts';

const mark = 'hfr_';

/** `hfr_` and 43 characters of base64url: it stands in a URL as it is. */
export function newResticToken(): string {
  return mark + newToken();
}

/** What the directory knows a token by; null when this is no token of a repository. */
export function resticTokenHash(token: string): Buffer | null {
  return token.startsWith(mark) ? tokenHash(token.slice(mark.length)) : null;
}
