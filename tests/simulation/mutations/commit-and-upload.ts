/** Guards of commit, claim and upload. */
import { type Guard, one } from './guard.ts';

const lockRows = 'storage/catalog/lock-rows.ts';
const blocks = 'storage/catalog/writing/blocks.ts';
const commits = 'storage/catalog/writing/commits.ts';

export const storingGuards: Guard[] = [
  // --- commit
  {
    name: 'commit locks the blocks it names',
    why: 'reclaim deletes a block between the look and the count',
    edits: one(
      lockRows,
      `SELECT hash FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) AND (damaged_at IS NULL OR $3)
        ORDER BY hash FOR NO KEY UPDATE)`,
      `SELECT hash FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) AND (damaged_at IS NULL OR $3)
        ORDER BY hash)`,
    ),
  },
  {
    name: 'blocks are locked in the order of hashes',
    why: 'two commits wait for one another',
    edits: one(
      lockRows,
      `SELECT hash FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) AND (damaged_at IS NULL OR $3)
        ORDER BY hash FOR NO KEY UPDATE)`,
      `SELECT hash FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) AND (damaged_at IS NULL OR $3)
        ORDER BY random() FOR NO KEY UPDATE)`,
    ),
  },
  {
    name: 'commit takes no damaged block',
    why: 'what is acknowledged cannot be read',
    edits: one(
      lockRows,
      `SELECT hash FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) AND (damaged_at IS NULL OR $3)`,
      `SELECT hash FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) AND ($3 OR NOT $3)`,
    ),
  },
  {
    name: 'commit locks its archive',
    why: 'two commits get the same numbers',
    edits: one(
      commits,
      'FROM archives WHERE vault_id = $1 AND archive_id = $2 FOR NO KEY UPDATE`',
      'FROM archives WHERE vault_id = $1 AND archive_id = $2`',
    ),
  },
  {
    name: 'a commit sent twice is made once',
    why: 'a COMMIT of unknown outcome makes its versions twice',
    edits: one('storage/archive/writing/commit.ts', 'if (earlier) {', 'if (earlier && !earlier) {'),
  },
  // --- claim and upload
  {
    name: 'claim answers "send it" for a damaged block',
    why: 'no backup ever heals it',
    edits: one(
      'storage/catalog/writing/claims.ts',
      `FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) AND damaged_at IS NULL\`,
  );
  const renew =`,
      `FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')})\`,
  );
  const renew =`,
    ),
  },
  {
    name: 'upload drops only what a claim confirms',
    why: 'a 2xx covers a block that is deleted the next moment',
    edits: one(
      'storage/archive/writing/upload.ts',
      'const { kept, until } = await claimHeldBlocks(storage.database, vault, header.blocks, storage.settings.claimWindowMs);',
      `const { until } = await claimHeldBlocks(storage.database, vault, Buffer.alloc(0), storage.settings.claimWindowMs);
  const { kept } = await claimHeldBlocks(storage.database, vault, header.blocks, -1e12);`,
    ),
  },
  {
    // Without the look beforehand, or two uploads would have to meet between the look and the row for it to matter.
    name: 'a claim is never shortened',
    why: 'an upload that repeats a block ends the promise of another',
    edits: [
      {
        file: 'storage/archive/writing/upload.ts',
        find: 'const { kept, until } = await claimHeldBlocks(storage.database, vault, header.blocks, storage.settings.claimWindowMs);',
        replace:
          'const { kept, until } = await claimHeldBlocks(storage.database, vault, Buffer.alloc(0), storage.settings.claimWindowMs);',
      },
      {
        file: blocks,
        find: 'ON CONFLICT (vault_id, hash) DO UPDATE SET claimed_until = greatest(blocks.claimed_until, excluded.claimed_until)',
        replace:
          "ON CONFLICT (vault_id, hash) DO UPDATE SET claimed_until = excluded.claimed_until - interval '1 hour'",
      },
    ],
  },
  {
    name: 'an object turns live only while its row is writing',
    why: 'its lease has ended and its bytes are being deleted',
    edits: one(
      blocks,
      "WHERE vault_id = $1 AND object_id = $2 AND key = $3 AND state = 'writing' RETURNING object_id`",
      'WHERE vault_id = $1 AND object_id = $2 AND key = $3 RETURNING object_id`',
    ),
  },
  {
    name: 'an object without a needed block dies',
    why: 'its bytes stay for ever',
    edits: one(
      blocks,
      `UPDATE objects SET live_bytes = $3::bigint,
            state = CASE WHEN $3::bigint = 0 THEN 'dead' ELSE state END,`,
      `UPDATE objects SET live_bytes = $3::bigint,
            state = CASE WHEN $3::bigint < 0 THEN 'dead' ELSE state END,`,
    ),
  },
  {
    name: 'a key is never used twice',
    why: 'an old delete takes new bytes',
    edits: one('storage/archive/writing/upload.ts', "randomBytes(8).toString('hex')", "'0123456789abcdef'"),
  },
  {
    name: 'the row of an object comes before its bytes',
    why: 'whoever compares the bucket with the rows deletes what is being written',
    edits: one(
      'storage/catalog/checking/checking.ts',
      "'SELECT key FROM objects WHERE vault_id = $1 AND key = ANY ($2::text[])'",
      "`SELECT key FROM objects WHERE vault_id = $1 AND key = ANY ($2::text[]) AND state = 'live'`",
    ),
  },
  {
    name: 'no request cleans up after an error',
    why: 'the COMMIT it saw fail was done',
    edits: one(
      'storage/archive/writing/upload.ts',
      'const stored = await database.transaction((tx) => recordObject(tx, { vault, objectId, key }, places, settings));',
      `const stored = await database
      .transaction((tx) => recordObject(tx, { vault, objectId, key }, places, settings))
      .catch(async (error: unknown) => {
        await objects.delete(key);
        throw error;
      });`,
    ),
  },
];
