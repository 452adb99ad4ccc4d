/** Tells an agent which blocks it need not send, and promises to keep those for a while. */
import { bitmapOf, hashCount } from '../../../protocol/hashes.ts';
import { claimHeldBlocks } from '../../catalog/writing/blocks.ts';
import type { Storage } from '../../storage.ts';

/**
 * @param hashes n x 32 bytes; repeats are allowed
 * @returns a bit per hash, 1 = send it (absent or damaged), and the moment until which the others stay
 */
export async function claimBlocks(
  storage: Storage,
  vault: number,
  hashes: Buffer,
): Promise<{ send: Buffer; until: Date }> {
  const { kept, until } = await claimHeldBlocks(storage.database, vault, hashes, storage.settings.claimWindowMs);
  return { send: bitmapOf(hashCount(hashes), (index) => !kept.has(index)), until };
}
