/**
 * Counting references: what a commit or a list adds, and what deleting takes away again. `refs` of a block is how many
 * versions and lists name it directly, of a list how many versions do. Counts are made by countRefs() alone.
 *
 * Lock order: lists by hash, then blocks by hash, each in one pass; then freed rows by hash. An arithmetic that does
 * not close is a bug somewhere: it rolls back (RefsDrift) and never deletes.
 */
import { hashAt, hashCount, joinHashes } from '../../protocol/hashes.ts';
import { statement, type Transaction } from './database.ts';
import { lockRows } from './lock-rows.ts';
import { addUsage } from './usage.ts';
import { hashArray } from './writing/packing.ts';

/** A freed block stays claimed for one window from now on, so that a claim that only looked is still a promise. */
const claimedOnwards = "greatest(claimed_until, clock_timestamp() + $4 * interval '1 ms')";

const sql = {
  addBlockRefs: statement(
    'blocks.addRefs',
    `WITH counted AS (
       UPDATE blocks SET refs = refs + $3 WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) RETURNING refs, byte_length),
     shown AS (
       DELETE FROM hidden_blocks WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) RETURNING byte_length)
     SELECT coalesce(sum(byte_length) FILTER (WHERE refs = $3), 0)::bigint AS bytes,
            (SELECT coalesce(sum(byte_length), 0)::bigint FROM shown) AS "shownBytes" FROM counted`,
  ),

  takeBlockRefs: statement(
    'blocks.takeRefs',
    `WITH counted AS (
       UPDATE blocks SET refs = refs - $3, claimed_until = CASE WHEN refs = $3 THEN ${claimedOnwards} ELSE claimed_until END
        WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) RETURNING hash, refs, byte_length, claimed_until),
     fallen AS (
       INSERT INTO freed (vault_id, hash, check_after) SELECT $1, hash, claimed_until FROM counted WHERE refs = 0 ORDER BY hash
       ON CONFLICT (vault_id, hash) DO UPDATE SET check_after = excluded.check_after)
     SELECT count(*) AS counted, coalesce(sum(byte_length) FILTER (WHERE refs = 0), 0)::bigint AS bytes FROM counted`,
  ),

  addListRefs: statement(
    'lists.addRefs',
    `UPDATE lists SET refs = refs + $3 WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')})`,
  ),

  takeListRefs: statement(
    'lists.takeRefs',
    `WITH counted AS (
       UPDATE lists SET refs = refs - $3, claimed_until = CASE WHEN refs = $3 THEN ${claimedOnwards} ELSE claimed_until END
        WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) RETURNING hash, refs, claimed_until),
     fallen AS (
       INSERT INTO freed_lists (vault_id, hash, check_after) SELECT $1, hash, claimed_until FROM counted WHERE refs = 0 ORDER BY hash
       ON CONFLICT (vault_id, hash) DO UPDATE SET check_after = excluded.check_after)
     SELECT count(*) AS counted FROM counted`,
  ),
};

/** Distinct hashes, and how many versions or lists name each. */
export interface RefCounts {
  /** n x 32 bytes. */
  hashes: Buffer;
  counts: readonly number[];
}

/** A count did not close: rows are missing that must be there, or a count would fall below zero. */
export class RefsDrift extends Error {
  override name = 'RefsDrift';
}

/** Almost every name is counted once, so there are few groups. */
function groupsOf({ hashes, counts }: RefCounts): { count: number; hashes: Buffer }[] {
  const groups = Map.groupBy(counts.keys(), (i) => counts[i]!);
  return [...groups].map(([count, members]) => ({ count, hashes: joinHashes(members.map((i) => hashAt(hashes, i))) }));
}

/**
 * Counts names onto blocks, after locking all of them in hash order. Damaged blocks are as good as absent. What only hidden
 * files named (hidden-blocks.ts) is needed again, and quotas charge it.
 * @returns bytes of blocks that nothing referred to before; null when one is missing: the caller must roll back
 */
export async function addRefs(tx: Transaction, vault: number, refs: RefCounts): Promise<{ bytes: number } | null> {
  if (refs.counts.length === 0) return { bytes: 0 };
  const locked = await lockRows(tx, vault, 'blocks', refs.hashes, { damagedToo: false });
  if (locked !== refs.counts.length) return null;
  let bytes = 0;
  for (const group of groupsOf(refs)) {
    const values = [vault, group.hashes, group.count];
    const [counted] = await tx.query<{ bytes: number; shownBytes: number }>(sql.addBlockRefs, values);
    bytes += counted!.bytes;
    await addUsage(tx, vault, { hiddenBytes: -counted!.shownBytes });
  }
  return { bytes };
}

/** The same for lists; the blocks behind them are not touched. @returns whether all were there, undamaged */
export async function addListRefs(tx: Transaction, vault: number, refs: RefCounts): Promise<boolean> {
  if (refs.counts.length === 0) return true;
  const locked = await lockRows(tx, vault, 'lists', refs.hashes, { damagedToo: false });
  if (locked !== refs.counts.length) return false;
  for (const group of groupsOf(refs)) await tx.query(sql.addListRefs, [vault, group.hashes, group.count]);
  return true;
}

/**
 * Takes names off blocks, after locking all of them in hash order; whatever falls to 0 stays claimed for
 * `keepForMs`, and a freed row says when to look at it again.
 * @returns bytes of blocks that fell to 0
 * @throws RefsDrift
 */
export async function takeRefs(
  tx: Transaction,
  vault: number,
  refs: RefCounts,
  keepForMs: number,
): Promise<{ bytes: number }> {
  if (refs.counts.length === 0) return { bytes: 0 };
  const locked = await lockRows(tx, vault, 'blocks', refs.hashes, { damagedToo: true });
  if (locked !== refs.counts.length) throw missing('blocks', refs, locked);
  let bytes = 0;
  for (const group of groupsOf(refs)) {
    const values = [vault, group.hashes, group.count, keepForMs];
    const [taken] = await tx.query<{ bytes: number }>(sql.takeBlockRefs, values).catch(asDrift);
    bytes += taken!.bytes;
  }
  return { bytes };
}

/** The same for lists; the blocks of a list are counted down when reclaim deletes its row. @throws RefsDrift */
export async function takeListRefs(tx: Transaction, vault: number, refs: RefCounts, keepForMs: number): Promise<void> {
  if (refs.counts.length === 0) return;
  const locked = await lockRows(tx, vault, 'lists', refs.hashes, { damagedToo: true });
  if (locked !== refs.counts.length) throw missing('lists', refs, locked);
  for (const group of groupsOf(refs))
    await tx.query(sql.takeListRefs, [vault, group.hashes, group.count, keepForMs]).catch(asDrift);
}

function missing(what: string, refs: RefCounts, found: number): RefsDrift {
  return new RefsDrift(`${hashCount(refs.hashes) - found} of ${refs.counts.length} ${what} named by versions are gone`);
}

const checkViolation = '23514'; // SQLSTATE

function asDrift(error: unknown): never {
  if ((error as { code?: string }).code === checkViolation)
    throw new RefsDrift('a count of references would fall below zero', { cause: error });
  throw error;
}
