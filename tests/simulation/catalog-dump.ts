/** The whole catalog as one statement sees it, so from one snapshot; small, because it is read after every commit. */
import type pg from 'pg';

export interface BlockDump {
  vault: number;
  hash: string;
  object: number;
  offset: number;
  length: number;
  refs: number;
  damaged: boolean;
}

export interface ObjectDump {
  vault: number;
  object: number;
  key: string;
  state: 'writing' | 'live' | 'dead';
  size: number;
  live: number;
  settled: boolean;
  /** Until when an upload has time for it; null: nobody is writing it. */
  leaseMs: number | null;
}

export interface VersionDump {
  vault: number;
  archive: number;
  file: number;
  seq: number;
  mac: string;
  committedMs: number;
}

export interface ListDump {
  vault: number;
  hash: string;
  refs: number;
  damaged: boolean;
}

export interface HoldDump {
  vault: number;
  policy: unknown;
  releaseMs: number | null;
}

export interface ArchiveDump {
  vault: number;
  archive: number;
  nextSeq: number;
  versionCount: number;
  liveFiles: number;
  frozen: boolean;
}

export interface UsageDump {
  vault: number;
  logical: number;
  stored: number;
  referenced: number;
  objects: number;
  versions: number;
}

/** Hashes are hexadecimal, 16 digits: enough to tell blocks of a simulation apart. */
export interface CatalogDump {
  blocks: BlockDump[];
  objects: ObjectDump[];
  versions: VersionDump[];
  lists: ListDump[];
  /** `vault/hash` of what waits for reclaim. */
  freed: Set<string>;
  freedLists: Set<string>;
  holds: HoldDump[];
  /** Moments of archives that a reader needs. */
  leases: { vault: number; archive: number; seq: number; untilMs: number }[];
  archives: ArchiveDump[];
  usage: UsageDump[];
}

const name = (column: string): string => `encode(substr(${column}, 1, 8), 'hex')`;
const ms = (column: string): string => `(extract(epoch FROM ${column}) * 1000)::float8`;
const rows = (fields: string[], from: string): string =>
  `(SELECT coalesce(string_agg(concat_ws('|', ${fields.join(', ')}), ',' ORDER BY ${fields.slice(0, 4).join(', ')}), '') FROM ${from})`;

const text = `SELECT
  ${rows(['vault_id', name('hash'), 'object_id', 'byte_offset', 'byte_length', 'refs', 'CASE WHEN damaged_at IS NULL THEN 0 ELSE 1 END'], 'blocks')} AS blocks,
  ${rows(['vault_id', 'object_id', 'key', 'state', 'size_bytes', 'live_bytes', 'settled::int', `CASE state WHEN 'writing' THEN ${ms('next_at')} END`], 'objects')} AS objects,
  ${rows(['vault_id', 'archive_id', 'file_id', 'seq', name('mac'), ms('committed_at')], 'versions')} AS versions,
  ${rows(['vault_id', name('hash'), 'refs', 'CASE WHEN damaged_at IS NULL THEN 0 ELSE 1 END'], 'lists')} AS lists,
  ${rows(['vault_id', name('hash')], 'freed')} AS freed,
  ${rows(['vault_id', name('hash')], 'freed_lists')} AS "freedLists",
  (SELECT coalesce(jsonb_agg(jsonb_build_object('vault', vault_id, 'policy', policy, 'releaseMs', ${ms('release_effective_at')})), '[]') FROM holds) AS holds,
  ${rows(['vault_id', 'archive_id', 'seq', ms('lease_until')], 'restores')} AS leases,
  ${rows(['vault_id', 'archive_id', 'next_seq', 'version_count', 'live_files', 'CASE WHEN frozen_at IS NULL THEN 0 ELSE 1 END'], 'archives')} AS archives,
  ${rows(
    ['vault_id', 'logical_bytes', 'stored_bytes', 'referenced_bytes', 'object_bytes', 'versions'],
    `(SELECT vault_id, sum(logical_bytes) AS logical_bytes, sum(stored_bytes) AS stored_bytes, sum(referenced_bytes) AS referenced_bytes,
             sum(object_bytes) AS object_bytes, sum(versions) AS versions
        FROM (SELECT vault_id, logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions FROM vault_usage
              UNION ALL
              SELECT vault_id, logical_bytes, stored_bytes, referenced_bytes, object_bytes, versions FROM usage_deltas) each
       GROUP BY vault_id) summed`,
  )} AS usage`;

/** Parsed once for as long as a column's text is the same: most commits change few tables. */
export class CatalogReader {
  readonly #parsed = new Map<string, { text: string; value: unknown }>();

  async read(client: pg.Client): Promise<CatalogDump> {
    const { rows: found } = await client.query({ name: 'dump', text });
    const row = found[0] as Record<string, string> & { holds: HoldDump[] };
    const table = <T>(column: string, parse: (fields: string[]) => T): T[] =>
      this.#cached(column, row[column]!, (all) =>
        all === '' ? [] : all.split(',').map((each) => parse(each.split('|'))),
      );
    const set = (column: string): Set<string> =>
      this.#cached(column, row[column]!, (all) => new Set(all.replaceAll('|', '/').split(',').filter(Boolean)));
    const n = Number;
    return {
      blocks: table('blocks', ([vault, hash, object, offset, length, refs, damaged]) => ({
        vault: n(vault),
        hash: hash!,
        object: n(object),
        offset: n(offset),
        length: n(length),
        refs: n(refs),
        damaged: damaged === '1',
      })),
      objects: table('objects', ([vault, object, key, state, size, live, settled, lease]) => ({
        vault: n(vault),
        object: n(object),
        key: key!,
        state: state as ObjectDump['state'],
        size: n(size),
        live: n(live),
        settled: settled === '1',
        leaseMs: lease ? n(lease) : null,
      })),
      versions: table('versions', ([vault, archive, file, seq, mac, committedMs]) => ({
        vault: n(vault),
        archive: n(archive),
        file: n(file),
        seq: n(seq),
        mac: mac!,
        committedMs: n(committedMs),
      })),
      lists: table('lists', ([vault, hash, refs, damaged]) => ({
        vault: n(vault),
        hash: hash!,
        refs: n(refs),
        damaged: damaged === '1',
      })),
      freed: set('freed'),
      freedLists: set('freedLists'),
      holds: row.holds,
      leases: table('leases', ([vault, archive, seq, untilMs]) => ({
        vault: n(vault),
        archive: n(archive),
        seq: n(seq),
        untilMs: n(untilMs),
      })),
      archives: table('archives', ([vault, archive, nextSeq, versionCount, liveFiles, frozen]) => ({
        vault: n(vault),
        archive: n(archive),
        nextSeq: n(nextSeq),
        versionCount: n(versionCount),
        liveFiles: n(liveFiles),
        frozen: frozen === '1',
      })),
      usage: table('usage', ([vault, logical, stored, referenced, objects, versions]) => ({
        vault: n(vault),
        logical: n(logical),
        stored: n(stored),
        referenced: n(referenced),
        objects: n(objects),
        versions: n(versions),
      })),
    };
  }

  #cached<T>(column: string, columnText: string, parse: (text: string) => T): T {
    const known = this.#parsed.get(column);
    if (known?.text === columnText) return known.value as T;
    const value = parse(columnText);
    this.#parsed.set(column, { text: columnText, value });
    return value;
  }
}
