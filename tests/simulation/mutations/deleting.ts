/** Guards of deleting versions, reclaiming, and lists. */
import { type Guard, one } from './guard.ts';

const refs = 'storage/catalog/refs.ts';
const blocks = 'storage/catalog/writing/blocks.ts';
const deleting = 'storage/catalog/deleting/deleting.ts';
const reclaiming = 'storage/catalog/deleting/reclaiming.ts';
const lists = 'storage/catalog/writing/lists.ts';

/** Without this the blocks of a list that must not go are not at hand to be counted down, and the job fails at once. */
const blocksOfEveryFreedList = {
  file: reclaiming,
  find: 'CASE WHEN refs = 0 AND claimed_until < now() THEN blocks END AS blocks',
  replace: 'blocks',
};

export const deletingGuards: Guard[] = [
  // --- deleting versions
  {
    name: 'holds are read after the vault is locked',
    why: 'a hold that was placed while the lock was waited for is not seen',
    edits: one(
      deleting,
      `  await tx.query(sql.lockVault, [vault]);
  return readHoldsUnlocked(tx, vault);`,
      `  const holds = await readHoldsUnlocked(tx, vault);
  await tx.query(sql.lockVault, [vault]);
  return holds;`,
    ),
    seeds: 120,
  },
  {
    name: 'a deleter locks the vault',
    why: 'a hold is placed between the look and the delete',
    edits: one(
      deleting,
      "'SELECT 1 FROM vaults WHERE vault_id = $1 FOR NO KEY UPDATE'",
      "'SELECT 1 FROM vaults WHERE vault_id = $1'",
    ),
    seeds: 120,
  },
  {
    name: 'a deleter honours holds',
    why: 'held versions are deleted',
    edits: one(
      'storage/archive/deleting/delete-versions.ts',
      "if (pins.holds.some((policy) => holdCovers(policy, lifetime, path))) return { ...version, pinned: 'hold' };",
      '',
    ),
  },
  {
    name: 'a deleter honours the leases of readers',
    why: 'a restore fails half-way',
    edits: one(
      'storage/archive/deleting/delete-versions.ts',
      "return leased.has(row.seq) ? { ...version, pinned: 'restore' } : version;",
      'return leased.size < 0 ? version : version;',
    ),
  },
  {
    name: 'prune counts as commit does',
    why: 'a block that a version repeats is taken away twice',
    edits: one(
      'storage/archive/deleting/delete-versions.ts',
      'toRefCounts(countRefs(deleted.map((version) => version.blocks))),',
      `toRefCounts(
        countRefs(
          deleted.flatMap(({ blocks }) => Array.from({ length: blocks.length / 32 }, (_, i) => blocks.subarray(32 * i, 32 * i + 32))),
        ),
      ),`,
    ),
  },
  {
    name: 'a freed block stays claimed for a window',
    why: 'a claim that only looked is no promise',
    edits: one(
      refs,
      `const claimedOnwards = "greatest(claimed_until, clock_timestamp() + $4 * interval '1 ms')";`,
      `const claimedOnwards = "CASE WHEN $4::float8 > 0 THEN claimed_until END";`,
    ),
  },
  {
    name: 'what falls to 0 is noted as freed',
    why: 'nobody ever looks at it again',
    edits: one(
      refs,
      'INSERT INTO freed (vault_id, hash, check_after) SELECT $1, hash, claimed_until FROM counted WHERE refs = 0 ORDER BY hash',
      'INSERT INTO freed (vault_id, hash, check_after) SELECT $1, hash, claimed_until FROM counted WHERE refs < 0 ORDER BY hash',
    ),
  },
  {
    name: 'a frozen archive keeps everything',
    why: 'what ransomware left is all there is',
    edits: one('storage/archive/retention/prune.ts', 'if (archive.frozen) return null;', ''),
    seeds: 120,
  },
  {
    name: 'a file is kept by any of its policies',
    why: 'what one plan was made to keep goes by another',
    edits: one(
      'storage/archive/retention/prune.ts',
      'const named = policiesOf(path);',
      'const named = [policiesOf(path)[0]!];',
    ),
  },
  {
    name: 'paths are read where policies look at them',
    why: 'all files have the policy of the archive',
    edits: [
      {
        file: 'storage/archive/retention/prune.ts',
        find: 'looksAtPaths: policies.folders.length > 0,',
        replace: 'looksAtPaths: false,',
      },
      {
        file: 'storage/archive/retention/policies.ts',
        find: 'if (path === null) return [own, ...folders];',
        replace: 'if (path === null) return [own];',
      },
    ],
  },
  // --- reclaim
  {
    name: 'reclaim decides under the lock of the block',
    why: 'a commit that counted it meanwhile names nothing',
    edits: [
      {
        file: reclaiming,
        find: `FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) ORDER BY hash FOR UPDATE SKIP LOCKED\``,
        replace: `FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) ORDER BY hash\``,
      },
      {
        file: reclaiming,
        find: `DELETE FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) AND refs = 0 AND claimed_until < now() RETURNING hash`,
        replace: `DELETE FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) RETURNING hash`,
      },
    ],
    seeds: 120,
  },
  {
    name: 'reclaim leaves what is referred to',
    why: 'a version names a block that is not there',
    edits: [
      {
        file: reclaiming,
        find: 'const doomed = locked.filter((row) => row.refs === 0 && row.lapsed);',
        replace: 'const doomed = locked.filter((row) => row.lapsed);',
      },
      {
        file: reclaiming,
        find: `DELETE FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) AND refs = 0 AND claimed_until < now() RETURNING hash`,
        replace: `DELETE FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) RETURNING hash`,
      },
      blocksOfEveryFreedList,
    ],
  },
  {
    name: 'reclaim leaves what is claimed',
    why: 'a promise is broken',
    edits: [
      {
        file: reclaiming,
        find: 'const doomed = locked.filter((row) => row.refs === 0 && row.lapsed);',
        replace: 'const doomed = locked.filter((row) => row.refs === 0);',
      },
      {
        file: reclaiming,
        find: `DELETE FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) AND refs = 0 AND claimed_until < now() RETURNING hash`,
        replace: `DELETE FROM \${table} WHERE vault_id = $1 AND hash = ANY (\${hashArray('$2')}) AND refs = 0 RETURNING hash`,
      },
      blocksOfEveryFreedList,
    ],
  },
  {
    name: 'an object dies only when no block names it',
    why: 'bytes in use are deleted',
    edits: one(
      blocks,
      `
        AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.vault_id = $1 AND b.object_id = $2)`,
      '',
    ),
  },
  {
    name: 'whether an object is empty is asked after the lock',
    why: 'two that each take half leave it for ever',
    edits: one(
      blocks,
      `  for (const id of ids) await tx.query(sql.takeLiveBytes, [vault, id, bytes.get(id)]);
  for (const id of ids) await tx.query(sql.buryEmpty, [vault, id, objectDeleteDelayMs]);`,
      `  for (const id of ids) await tx.query(sql.buryEmpty, [vault, id, objectDeleteDelayMs]);
  for (const id of ids) await tx.query(sql.takeLiveBytes, [vault, id, bytes.get(id)]);`,
    ),
    seeds: 200,
  },
  {
    name: 'objects are locked in the order of their ids',
    why: 'two reclaims wait for one another',
    edits: one(
      blocks,
      'const ids = [...bytes.keys()].sort((a, b) => a - b);',
      'const ids = [...bytes.keys()].sort(() => Math.random() - 0.5);',
    ),
    seeds: 200,
  },
  {
    name: 'settle notes what no commit came for',
    why: 'an upload that was given up stays for ever',
    edits: one(
      reclaiming,
      'b.object_id = x.object_id AND b.refs = 0 OFFSET 0) b',
      'b.object_id = x.object_id AND b.refs < 0 OFFSET 0) b',
    ),
  },
  // --- lists
  {
    name: 'a list counts on its blocks',
    why: 'they are reclaimed behind its back',
    edits: one(
      'storage/archive/writing/lists.ts',
      'const referenced = await addRefs(tx, vault, toRefCounts(counts));',
      'const referenced = await addRefs(tx, vault, { ...toRefCounts(counts), counts: [...counts.values()].map(() => 0) });',
    ),
  },
  {
    name: 'a list that no commit names is found',
    why: 'it keeps its blocks for ever',
    edits: one('storage/archive/writing/lists.ts', 'await insertFreedLists(tx, vault, joinHashes(names));', ''),
  },
  {
    name: 'whether a list is new is known by its row alone',
    why: 'two that store it at once count its blocks twice',
    edits: one(lists, 'xmax = 0 AS is_new', 'true AS is_new'),
  },
  {
    name: 'reclaiming a list counts its blocks down',
    why: 'they stay for ever',
    edits: one(
      'storage/archive/deleting/reclaim.ts',
      'const freed = await takeRefs(tx, vault, toRefCounts(countRefs(reclaimed.blocks)), claimWindowMs + freedMarginMs);',
      'const freed = await takeRefs(tx, vault, toRefCounts(countRefs([])), claimWindowMs + freedMarginMs);',
    ),
  },
];
