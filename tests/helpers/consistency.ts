/**
 * Whether a vault is what its rows say: every block's bytes, asked for as an agent would, hash to its name; every count
 * is what a recount from scratch gives; and every object in the store has a row, but for those of uploads that were
 * cut off. Asked of a server at rest.
 */
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

/** What rows say that cannot be: each query's rows are faults. `$1` is the vault. */
const recounts: Record<string, string> = {
  'the references of a block': `WITH named AS (
       SELECT substr(v.blocks, 1 + 32 * i, 32) AS hash, count(DISTINCT (archive_id, file_id, seq)) AS refs
         FROM versions v CROSS JOIN LATERAL generate_series(0, octet_length(v.blocks) / 32 - 1) i
        WHERE v.vault_id = $1 GROUP BY 1)
     SELECT encode(coalesce(b.hash, n.hash), 'hex') AS hash, b.refs AS kept, n.refs AS counted
       FROM (SELECT * FROM blocks WHERE vault_id = $1) b FULL JOIN named n USING (hash)
      WHERE b.refs IS DISTINCT FROM coalesce(n.refs, 0)`,
  'the bytes in use of an object, or its state': `SELECT o.object_id, o.state, o.live_bytes, sum(b.byte_length) AS counted
       FROM objects o LEFT JOIN blocks b USING (vault_id, object_id) WHERE o.vault_id = $1
      GROUP BY o.vault_id, o.object_id
     HAVING o.live_bytes <> coalesce(sum(b.byte_length), 0) OR (o.state = 'live') <> (count(b.hash) > 0)`,
  "the numbers or times of an archive's versions": `SELECT archive_id, seq FROM (
       SELECT archive_id, seq, committed_at, lag(seq) OVER w AS before, lag(committed_at) OVER w AS earlier FROM versions
        WHERE vault_id = $1 WINDOW w AS (PARTITION BY archive_id ORDER BY seq)) v
      WHERE seq <> coalesce(before, 0) + 1 OR committed_at < earlier`,
  'a version without its file': `SELECT v.archive_id, v.file_id, v.seq FROM versions v LEFT JOIN files f USING (vault_id, archive_id, file_id)
      WHERE v.vault_id = $1 AND f.file_id IS NULL`,
  'the versions of a commit': `SELECT c.archive_id, c.first_seq, c.count FROM commits c WHERE c.vault_id = $1 AND c.count <> (
       SELECT count(*) FROM versions v WHERE v.vault_id = $1 AND v.archive_id = c.archive_id
          AND v.seq >= c.first_seq AND v.seq < c.first_seq + c.count)`,
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
    if (!stateOf.has(key) && !halfStored?.has(key)) faults.push(`object ${key}: no row`);
  }
  for (const [key, state] of stateOf) if (state === 'live' && !found.has(key)) faults.push(`object ${key}: not there`);

  const [{ count } = { count: '0' }] = await server.query<{ count: string }>(
    'SELECT count(*) FROM versions WHERE vault_id = $1',
    [vault],
  );
  return { faults, blocks: rows.length, versions: Number(count) };
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
