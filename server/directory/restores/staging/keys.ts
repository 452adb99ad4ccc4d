/** The keys of staged archives: each drawn for one try, sealed in its row, and opened by whoever reads or verifies. */
import { forCaller, type KeyService } from '../../keys/key-service.ts';

export const stagedKeyContext = (attempt: string): string => `holdfast staged restore ${attempt}`;

const cachedMax = 200;
const cachedMs = 10 * 60_000;

/** Asked for with every range, and by everybody who tries a link: so a process opens each once in a while. */
const opened = new WeakMap<KeyService, Map<string, { secret: Promise<Buffer>; at: number }>>();

/**
 * @param sealed of an attempt whose row is there: what is dead has none
 * @throws Problem unavailable; KeyServiceError damaged
 */
export async function openStagedKey(keys: KeyService, attempt: string, sealed: Buffer): Promise<Buffer> {
  const cache = opened.get(keys) ?? new Map<string, { secret: Promise<Buffer>; at: number }>();
  opened.set(keys, cache);
  const now = performance.now();
  const known = cache.get(attempt);
  if (known && now - known.at < cachedMs) return known.secret;
  const secret = forCaller(keys.unseal(sealed, stagedKeyContext(attempt)));
  cache.delete(attempt);
  cache.set(attempt, { secret, at: now });
  for (const [oldest] of cache) {
    if (cache.size <= cachedMax) break;
    cache.delete(oldest);
  }
  secret.catch(() => cache.delete(attempt));
  return secret;
}
