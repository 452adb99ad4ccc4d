/**
 * Whether a vault is what its rows say: every block's bytes, asked for as an agent would, hash to its name; every count
 * is what a recount from scratch gives; what nothing refers to is known to be garbage; and every object in the store has
 * a row, but for those of uploads that were cut off. Asked of a server at rest, or (`checkVaultAtWork`) of one whose jobs
 * go on: then what is so at one look only is no fault.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '../../agent/client/index.ts';
import { hashAt, joinHashes, sha256 } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import type { RunningServer } from './server.ts';

export interface VaultCheck {
  /** What is wrong, in words; empty when nothing is. */
  faults: string[];
  blocks: number;
  versions: number;
}

export interface VaultParts {
  vault: number;
  client: Client;
  objects: ObjectStore;
  /** Keys that may be in the store without a row: PostgreSQL was killed before that row was on disk. */
  halfStored?: ReadonlySet<string>;
}

/**
 * Notes of blocks as hidden that are not true, by vault: of something that is there, which quotas would not charge. A name is
 * hidden when a deletion of its file stands behind it.
 */
export const untrueNotes = `SELECT encode(h.hash, 'hex') AS hash, b.refs
       FROM hidden_blocks h LEFT JOIN blocks b USING (vault_id, hash)
      WHERE h.vault_id = $1 AND (b.byte_length IS DISTINCT FROM h.byte_length
         OR EXISTS (
          SELECT 1 FROM versions v JOIN archives a USING (vault_id, archive_id)
            CROSS JOIN LATERAL generate_series(0, octet_length(v.blocks) / 32 - 1) i
           WHERE v.vault_id = h.vault_id AND substr(v.blocks, 1 + 32 * i, 32) = h.hash
             AND (a.kind <> 'plain' OR NOT EXISTS (
               SELECT 1 FROM versions d WHERE (d.vault_id, d.archive_id, d.file_id) = (v.vault_id, v.archive_id, v.file_id)
                  AND d.seq > v.seq AND d.deleted)))
         OR EXISTS (
          SELECT 1 FROM lists l CROSS JOIN LATERAL generate_series(0, octet_length(l.blocks) / 32 - 1) i
           WHERE l.vault_id = h.vault_id AND substr(l.blocks, 1 + 32 * i, 32) = h.hash))`;

/** What rows say that cannot be: each query's rows are faults. `$1` is the vault. Each is one snapshot. */
const recounts: Record<string, string> = {
  'the references of a block': `WITH named AS (
       SELECT hash, count(*) AS refs FROM (
         SELECT DISTINCT archive_id, file_id, seq, ''::bytea AS list, substr(v.blocks, 1 + 32 * i, 32) AS hash
           FROM versions v CROSS JOIN LATERAL generate_series(0, octet_length(v.blocks) / 32 - 1) i WHERE v.vault_id = $1
         UNION ALL
         SELECT DISTINCT 0, 0, 0, l.hash, substr(l.blocks, 1 + 32 * i, 32)
           FROM lists l CROSS JOIN LATERAL generate_series(0, octet_length(l.blocks) / 32 - 1) i WHERE l.vault_id = $1) each
        GROUP BY hash)
     SELECT encode(coalesce(b.hash, n.hash), 'hex') AS hash, b.refs AS kept, n.refs AS counted
       FROM (SELECT * FROM blocks WHERE vault_id = $1) b FULL JOIN named n USING (hash)
      WHERE b.refs IS DISTINCT FROM coalesce(n.refs, 0)`,
  'the references of a list': `WITH named AS (
       SELECT substr(v.lists, 1 + 32 * i, 32) AS hash, count(DISTINCT (archive_id, file_id, seq)) AS refs
         FROM versions v CROSS JOIN LATERAL generate_series(0, octet_length(v.lists) / 32 - 1) i
        WHERE v.vault_id = $1 GROUP BY 1)
     SELECT encode(coalesce(l.hash, n.hash), 'hex') AS hash, l.refs AS kept, n.refs AS counted
       FROM (SELECT * FROM lists WHERE vault_id = $1) l FULL JOIN named n USING (hash)
      WHERE l.refs IS DISTINCT FROM coalesce(n.refs, 0)`,
  'a list that is not what its name says': `SELECT encode(hash, 'hex') AS hash FROM lists
      WHERE vault_id = $1 AND sha256(blocks) <> hash`,
  // In an object that is not settled yet it may just have been uploaded.
  'a block that nothing refers to and nobody will look at': `SELECT encode(b.hash, 'hex') AS hash
       FROM blocks b JOIN objects o USING (vault_id, object_id) LEFT JOIN freed f USING (vault_id, hash)
      WHERE b.vault_id = $1 AND b.refs = 0 AND o.settled AND f.hash IS NULL`,
  'a list that nothing refers to and nobody will look at': `SELECT encode(l.hash, 'hex') AS hash
       FROM lists l LEFT JOIN freed_lists f USING (vault_id, hash)
      WHERE l.vault_id = $1 AND l.refs = 0 AND f.hash IS NULL`,
  'the bytes in use of an object, or its state': `SELECT o.object_id, o.state, o.live_bytes, sum(b.byte_length) AS counted
       FROM objects o LEFT JOIN blocks b USING (vault_id, object_id) WHERE o.vault_id = $1
      GROUP BY o.vault_id, o.object_id
     HAVING o.live_bytes <> coalesce(sum(b.byte_length), 0) OR (o.state = 'live') <> (count(b.hash) > 0)`,
  // Only retention leaves gaps between the numbers.
  "the numbers or times of an archive's versions": `SELECT archive_id, seq FROM (
       SELECT archive_id, seq, committed_at, lag(seq) OVER w AS before, lag(committed_at) OVER w AS earlier FROM versions
        WHERE vault_id = $1 WINDOW w AS (PARTITION BY archive_id ORDER BY seq)) v JOIN archives a USING (archive_id)
      WHERE a.vault_id = $1 AND (seq >= a.next_seq OR seq = before OR committed_at < earlier
         OR (a.pruned_at IS NULL AND seq <> coalesce(before, 0) + 1))`,
  'a version without its file': `SELECT v.archive_id, v.file_id, v.seq FROM versions v LEFT JOIN files f USING (vault_id, archive_id, file_id)
      WHERE v.vault_id = $1 AND f.file_id IS NULL`,
  'a file without its folder': `SELECT f.archive_id, f.file_id FROM files f
      WHERE f.vault_id = $1 AND f.parent_id <> 0 AND NOT EXISTS (
        SELECT 1 FROM files p WHERE (p.vault_id, p.archive_id, p.file_id) = (f.vault_id, f.archive_id, f.parent_id))`,
  'a file with history that nobody will plan': `SELECT f.archive_id, f.file_id FROM files f JOIN versions v USING (vault_id, archive_id, file_id)
      WHERE f.vault_id = $1 AND f.prune_after IS NULL GROUP BY 1, 2 HAVING count(*) > 1 OR bool_or(v.deleted)`,
  'the versions of a commit': `SELECT c.archive_id, c.first_seq, c.count, kept FROM commits c JOIN archives a USING (vault_id, archive_id)
      CROSS JOIN LATERAL (
       SELECT count(*) AS kept FROM versions v WHERE v.vault_id = $1 AND v.archive_id = c.archive_id
          AND v.seq >= c.first_seq AND v.seq < c.first_seq + c.count) v
      WHERE c.vault_id = $1 AND (kept > c.count OR (kept < c.count AND a.pruned_at IS NULL))`,
  "an archive's counts": `SELECT a.archive_id, a.version_count, versions, a.live_files, files FROM archives a
      CROSS JOIN LATERAL (
       SELECT count(*) AS versions, count(*) FILTER (WHERE newest AND size > 0) AS files FROM (
         SELECT size, seq = max(seq) OVER (PARTITION BY file_id) AS newest FROM versions v
          WHERE v.vault_id = $1 AND v.archive_id = a.archive_id) v) v
      WHERE a.vault_id = $1 AND (a.version_count, a.live_files) <> (versions, files)`,
  'a block noted as hidden that something there names': untrueNotes,
  "the vault's usage": `SELECT kept, counted FROM (
       SELECT jsonb_build_object('logical', coalesce(sum(logical_bytes), 0), 'stored', coalesce(sum(stored_bytes), 0),
                'referenced', coalesce(sum(referenced_bytes), 0), 'objects', coalesce(sum(object_bytes), 0),
                'versions', coalesce(sum(versions), 0), 'hidden', coalesce(sum(hidden_bytes), 0)) AS kept
         FROM (SELECT logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions, hidden_bytes FROM vault_usage WHERE vault_id = $1
               UNION ALL
               SELECT logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions, hidden_bytes FROM usage_deltas WHERE vault_id = $1) u) k,
      (SELECT jsonb_build_object(
                'logical', (SELECT coalesce(sum(size), 0) FROM versions WHERE vault_id = $1),
                'stored', (SELECT coalesce(sum(byte_length), 0) FROM blocks WHERE vault_id = $1),
                'referenced', (SELECT coalesce(sum(byte_length), 0) FROM blocks WHERE vault_id = $1 AND refs > 0),
                'objects', (SELECT coalesce(sum(size_bytes), 0) FROM objects WHERE vault_id = $1),
                'versions', (SELECT count(*) FROM versions WHERE vault_id = $1),
                'hidden', (SELECT coalesce(sum(byte_length), 0) FROM hidden_blocks WHERE vault_id = $1)) AS counted) c
      WHERE kept <> counted`,
};

export async function checkVault(
  server: RunningServer,
  { vault, client, objects, halfStored }: VaultParts,
): Promise<VaultCheck> {
  const faults: string[] = [];
  for (const [what, sql] of Object.entries(recounts))
    for (const row of await server.query(sql, [vault])) faults.push(`${what}: ${JSON.stringify(row)}`);

  const rows = await server.query<{ hash: Buffer }>('SELECT hash FROM blocks WHERE vault_id = $1', [vault]);
  for (let at = 0; at < rows.length; at += limits.fetchBlocksMax) {
    const asked = joinHashes(rows.slice(at, at + limits.fetchBlocksMax).map(({ hash }) => hash));
    for await (const { index, bytes } of client.fetchBlocks(asked)) {
      const hash = hashAt(asked, index);
      if (!bytes) faults.push(`block ${hash.toString('hex')}: not given back`);
      else if (!sha256(bytes).equals(hash)) faults.push(`block ${hash.toString('hex')}: other bytes`);
    }
  }

  const keys = await server.query<{ key: string; state: string }>('SELECT key, state FROM objects');
  const stateOf = new Map(keys.map(({ key, state }) => [key, state]));
  const [catalog] = await server.query<{ id: string }>('SELECT catalog_id AS id FROM catalog');
  const found = new Set<string>();
  for await (const key of listAll(objects, `${catalog!.id}/`)) {
    found.add(key);
    const isFence = key === `${catalog!.id}/fence`;
    if (!stateOf.has(key) && !isFence && !halfStored?.has(key)) faults.push(`object ${key}: no row`);
  }
  for (const [key, state] of stateOf) if (state === 'live' && !found.has(key)) faults.push(`object ${key}: not there`);

  const [{ count } = { count: '0' }] = await server.query<{ count: string }>(
    'SELECT count(*) FROM versions WHERE vault_id = $1',
    [vault],
  );
  return { faults, blocks: rows.length, versions: Number(count) };
}

/**
 * The same while jobs take away blocks and objects, so that what one look has seen may be gone before it is asked for:
 * only what is found in every look, for `settleMs`, is a fault.
 */
export async function checkVaultAtWork(
  server: RunningServer,
  parts: VaultParts,
  settleMs: number,
): Promise<VaultCheck> {
  const until = performance.now() + settleMs;
  for (let lasting: Set<string> | null = null; ; await sleep(settleMs / 10)) {
    const look = await checkVault(server, parts);
    lasting = new Set(look.faults.filter((fault) => lasting?.has(fault) ?? true));
    if (lasting.size === 0 || performance.now() > until) return { ...look, faults: [...lasting] };
  }
}

/** Every key that begins with the prefix. */
export async function* listAll(objects: ObjectStore, prefix: string): AsyncGenerator<string> {
  for (let after = '', more = true; more; ) {
    const page = await objects.list(prefix, { after, limit: 1_000 });
    for (const { key } of page.objects) yield key;
    after = page.objects.at(-1)?.key ?? after;
    more = page.more;
  }
}
