/** Asks the server for the plans, and falls back on those it told last while it is away. */
import { Problem } from '../../protocol/problems.ts';
import type { Client } from '../client/client.ts';
import { ConnectionLost, NotAServer } from '../client/errors.ts';
import { type KeptPlans, withAnswer } from './kept-plans.ts';

export interface AskedPlans {
  kept: KeptPlans;
  /** Why these are not the server's answer of now; null: they are. */
  away: Error | null;
}

/** Of an error of asking: the server knows no plans. Of a run's the same code says something else. */
export const isWithoutPlans = (error: unknown): boolean => error instanceof Problem && error.code === 'not_found';

/**
 * @param before as kept so far; null: nothing
 * @throws Problem that refuses this device; when nothing is kept, also not_found (the server knows no plans) and whatever kept
 *   the server from answering
 */
export async function askPlans(
  client: Pick<Client, 'plans'>,
  before: KeptPlans | null,
  now: number,
): Promise<AskedPlans> {
  try {
    const answer = await client.plans(before?.etag ?? null);
    if (answer !== null) return { kept: withAnswer(before, answer, now), away: null };
    if (before !== null) return { kept: { ...before, askedAtMs: now }, away: null };
    throw new NotAServer('the server says that nothing has changed, and was told of nothing');
  } catch (error) {
    if (before === null || !isAway(error)) throw error;
    return { kept: before, away: error };
  }
}

/**
 * It cannot be asked, or what it says cannot be understood: nothing that speaks against what it said before. Nor does
 * not_found: one that told plans once and knows none now was put back to an older version, or is being replaced by a newer.
 */
function isAway(error: unknown): error is Error {
  if (error instanceof ConnectionLost || error instanceof NotAServer) return true;
  if (isWithoutPlans(error)) return true;
  return error instanceof Problem && (error.status >= 500 || error.status === 408 || error.status === 429);
}
