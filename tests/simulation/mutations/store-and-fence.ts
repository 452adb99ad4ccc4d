/** Guards of compacting, verifying, deleting objects, and the fence. */
import { type Guard, one } from './guard.ts';

const compacting = 'storage/catalog/deleting/compacting.ts';

/** What the transactions themselves ask of the fence rests on the look before them, and would stop all that has none. */
const withoutOwnLook: Guard['edits'][number] = {
  file: 'storage/archive/checking/fence.ts',
  find: 'if (this.heldNonce !== null && [nonce, ...previous].includes(this.heldNonce)) return null;',
  replace: 'if (nonce !== undefined && previous !== undefined) return null;',
};

export const bucketGuards: Guard[] = [
  // --- compact, verify
  {
    name: 'compact moves a block only from where it read it',
    why: 'a block that was healed or moved goes back to old bytes',
    edits: one(
      compacting,
      'AND b.hash = x.hash AND b.object_id = x.old_object AND b.byte_offset = x.old_offset AND b.damaged_at IS NULL',
      'AND b.hash = x.hash',
    ),
  },
  {
    name: 'compact hashes what it moves',
    why: 'rot is copied and called sound',
    edits: one(
      'storage/archive/deleting/compact.ts',
      'return sha256(Buffer.concat(bytes)).equals(block.hash);',
      'return sha256(Buffer.concat(bytes)).length === block.hash.length;',
    ),
  },
  {
    name: "compact's object turns live only while it is writing",
    why: 'its lease has ended and its bytes are being deleted',
    edits: one(compacting, 'if (!(await makeLive(tx, object, 0))) return null;', 'await makeLive(tx, object, 0);'),
    seeds: 120,
  },
  {
    name: 'damage is marked only where it was read',
    why: 'a block that was healed meanwhile is called damaged',
    edits: one(
      'storage/catalog/checking/mark-damaged.ts',
      'AND b.hash = x.hash AND b.object_id = x.object_id AND b.byte_offset = x.byte_offset AND b.damaged_at IS NULL',
      'AND b.hash = x.hash AND b.damaged_at IS NULL',
    ),
    seeds: 120,
  },
  // --- the store
  {
    name: 'a sweeper ends only leases that lapsed',
    why: 'an upload under way is deleted, again and again',
    edits: one(
      'storage/catalog/deleting/dead-objects.ts',
      "SELECT object_id FROM objects WHERE vault_id = $1 AND next_at < now() AND state = 'writing'",
      "SELECT object_id FROM objects WHERE vault_id = $1 AND next_at < now() + interval '1 hour' AND state IN ('writing', 'live')",
    ),
  },
  {
    name: 'a row goes only after its bytes',
    why: 'a late put leaves bytes that only a comparison finds; a failed delete is forgotten',
    edits: one(
      'storage/catalog/deleting/dead-objects.ts',
      "DELETE FROM objects WHERE vault_id = $1 AND object_id = ANY ($2::bigint[]) AND state = 'dead' RETURNING",
      'DELETE FROM objects WHERE vault_id = $1 AND object_id < 0 AND object_id = ANY ($2::bigint[]) RETURNING',
    ),
  },
  {
    name: 'the fence is asked before objects are deleted',
    why: 'a catalog set back in time deletes what the bucket needs',
    edits: [
      {
        file: 'storage/archive/deleting/delete-objects.ts',
        find: '  await fence.assertHeld();\n  const deletedKeys',
        replace: '  const deletedKeys',
      },
      {
        file: 'storage/archive/deleting/delete-objects.ts',
        find: 'if (vaults.length > 0) await fence.assertHeld();',
        replace: '',
      },
      withoutOwnLook,
    ],
  },
  {
    name: 'the fence is asked before orphans are deleted',
    why: 'a catalog set back in time deletes every newer object',
    edits: [
      { file: 'storage/archive/checking/compare-bucket.ts', find: 'await fence.assertHeld();', replace: '' },
      withoutOwnLook,
    ],
  },
  {
    name: 'the fence is asked before versions are deleted',
    why: 'a catalog set back in time deletes what a hold that it has lost keeps',
    edits: [
      {
        file: 'storage/archive/retention/prune.ts',
        find: '  await deps.assertMayDelete();\n  const digest',
        replace: '  const digest',
      },
      {
        file: 'storage/archive/retention/prune.ts',
        find: '    await deps.assertMayDelete();\n    const deleter',
        replace: '    const deleter',
      },
      withoutOwnLook,
    ],
  },
  {
    name: 'a nonce that this catalog never wrote is foreign',
    why: 'a catalog set back in time takes itself for the right one',
    edits: one(
      'storage/archive/checking/fence.ts',
      "return row.previous.includes(nonce) ? 'behind' : 'foreign';",
      "return row.previous.includes(nonce) ? 'behind' : 'agree';",
    ),
  },
  {
    name: 'nothing is deleted when the clocks disagree',
    why: 'a clock that jumps ahead expires years of history',
    edits: [
      {
        file: 'storage/archive/checking/clock-watch.ts',
        find: 'return Math.abs(this.apartMs) > this.toleranceMs ? this.apartMs : 0;',
        replace: 'return 0;',
      },
      {
        file: 'storage/archive/checking/fence.ts',
        find: 'if (apartMs <= this.clockApartMsMax) return null;',
        replace: 'return null;',
      },
    ],
  },
  {
    name: 'adopt marks what the bucket does not hold',
    why: 'rows go on naming objects that are gone',
    edits: one(
      'storage/archive/checking/adopt.ts',
      `        report.missing++;
        if (options.dryRun) continue;`,
      `        report.missing++;
        if (report.missing > 0) continue;`,
    ),
  },
];
