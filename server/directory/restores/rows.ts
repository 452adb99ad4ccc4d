/** Restores as rows, and as they are shown. */

import assert from 'node:assert/strict';
import type { CommandCounts } from '../../../protocol/commands.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { RestoreFormat } from '../../restoring/types.ts';
import type { PushedTo } from '../devices/commands/rows.ts';
import { iso } from '../moments.ts';
import type { RestoreState, RestoreViewed } from './shapes.ts';

/** Not heard of for so long, whoever streamed it is gone. A multiple of how often they are heard of. */
export const silentMsMax = 60_000;

/**
 * What holds now: a lease has ended, or a process, and nobody was there to write it down. A device that is silent is not
 * gone: what was pushed to it goes on when it is back.
 */
const heldState = `CASE WHEN r.state = 'planned' AND r.lapses_at <= now() THEN 'lapsed'
            WHEN r.state = 'completed' AND r.kind = 'staged' AND r.lapses_at <= now() THEN 'lapsed'
            WHEN r.state = 'running' AND r.kind <> 'pushed' AND r.seen_at < now() - interval '${silentMsMax} ms' THEN 'broken' ELSE r.state END`;

const columns = `r.restore_id AS id, r.tenant_id AS tenant, r.user_id AS "user", r.guid::text AS guid, r.vault_id AS vault,
  r.archive_id AS archive, r.asker_kind AS "askerKind", r.asker_id AS "askerId", r.asker_name AS "askerName", r.address, r.kind, r.format,
  r.seq, r.moment_at AS "momentAt", r.reason, r.permission, r.planned_files AS "plannedFiles",
  r.planned_folders AS "plannedFolders", r.planned_links AS "plannedLinks", r.planned_bytes AS "plannedBytes",
  r.planned_damaged AS "plannedDamaged", r.planned_gone AS "plannedGone",
  r.planned_thinned AS "plannedThinned", r.planned_missing AS "plannedMissing",
  ${heldState} AS state, r.attempt, r.attempts, r.done_files AS "doneFiles", r.done_bytes AS "doneBytes",
  r.sent_bytes AS "sentBytes", r.left_out AS "leftOut", r.why, r.created_at AS "createdAt", r.lapses_at AS "lapsesAt",
  r.begun_at AS "begunAt", r.ended_at AS "endedAt", r.version, r.stage_after IS NOT NULL AND r.stage_tries > 0 AS "stagesItself", r.stage_bytes AS "stageBytes",
  r.fetched_bytes AS "fetchedBytes", s.attempt AS "stagedAttempt", s.length AS "stagedLength", (r.selection->>'deleted')::boolean AS deleted,
  r.target_guid::text AS "targetGuid", r.pushed, r.pushed_end AS "pushedEnd",
  jsonb_array_length(r.selection->'paths') AS "pathCount", u.name AS "userName", u.organization_id AS organization,
  d.name AS "deviceName"`;
const joined = `FROM restore_requests r
  JOIN users u ON u.tenant_id = r.tenant_id AND u.user_id = r.user_id
  JOIN organizations o ON o.organization_id = u.organization_id
  LEFT JOIN devices d ON d.tenant_id = r.tenant_id AND d.guid = r.guid AND d.state <> 'replaced'
  LEFT JOIN staged_archives s ON s.tenant_id = r.tenant_id AND s.restore_id = r.restore_id AND s.state <> 'dead'`;
const lists = `r.selection->'paths' AS paths, r.left_out_first AS "leftOutFirst", r.leave_out AS "leaveOut"`;

// Newest first, whatever is asked for: a step along the index of what was.
const page = (by: string): string => `SELECT ${columns} ${joined}
      WHERE r.tenant_id = $1 AND r.restore_id < $2 AND ${by}
        AND ($4::bigint IS NULL OR o.path @> ARRAY[$4::bigint])
        AND ($5::bigint IS NULL OR (r.user_id = $5 AND r.asker_kind = 'user' AND r.asker_id = $5))
        AND ($6::text IS NULL OR ${heldState} = $6)
        AND ($7::timestamptz IS NULL OR r.created_at >= $7) AND ($8::timestamptz IS NULL OR r.created_at < $8)
        AND ($9::bigint IS NULL OR r.guid = $9)
        AND ($10::text IS NULL OR (r.asker_kind = $10 AND r.asker_id = $11))
        AND ($12::text IS NULL OR r.kind = $12) AND ($13::bigint IS NULL OR r.user_id = $13)
        AND ($14::text IS NULL OR strpos(lower(r.asker_name), lower($14)) > 0)
        AND ($15::bigint IS NULL OR r.planned_bytes >= $15)
      ORDER BY r.restore_id DESC LIMIT $3`;

const sql = {
  read: statement(
    'directory.readRestore',
    `SELECT ${columns}, ${lists} ${joined} WHERE r.tenant_id = $1 AND r.restore_id = $2`,
  ),
  lock: statement(
    'directory.lockRestore',
    `SELECT ${columns}, ${lists} ${joined} WHERE r.tenant_id = $1 AND r.restore_id = $2 FOR NO KEY UPDATE OF r`,
  ),
  list: statement('directory.listRestores', page('true')),
  listOfDevice: statement('directory.listRestoresOfDevice', page('r.guid = $9')),
  listOfAsker: statement('directory.listRestoresOfAsker', page('r.asker_kind = $10 AND r.asker_id = $11')),
  listOfUser: statement('directory.listRestoresOfUser', page('r.user_id = $13')),
};

/** What an agent says at the end of a pushed one. */
export interface PushedEnd {
  outcome: 'completed' | 'incomplete' | 'failed' | 'cancelled';
  counts: CommandCounts;
}

/** A path as it is stored. */
export interface StoredReason {
  /** Base64url. */
  path: string;
  reason: string;
}

export interface RestoreRow {
  id: number;
  tenant: number;
  /** Whose archive. */
  user: number;
  userName: string;
  organization: number;
  guid: string;
  deviceName: string | null;
  vault: number;
  archive: number;
  askerKind: 'user' | 'client';
  askerId: number;
  askerName: string;
  address: string | null;
  kind: 'streamed' | 'staged' | 'pushed';
  /** Null: pushed. */
  format: RestoreFormat | null;
  seq: number;
  momentAt: Date | null;
  reason: string | null;
  permission: string;
  plannedFiles: number;
  plannedFolders: number;
  plannedLinks: number;
  plannedBytes: number;
  plannedDamaged: number;
  plannedGone: number;
  plannedThinned: number;
  plannedMissing: number;
  state: RestoreState;
  attempt: string | null;
  attempts: number;
  doneFiles: number;
  doneBytes: number;
  sentBytes: number;
  leftOut: number;
  why: string | null;
  createdAt: Date;
  lapsesAt: Date;
  begunAt: Date | null;
  endedAt: Date | null;
  version: number;
  /** A worker begins it, or once more, on its own. */
  stagesItself: boolean;
  /** What an earlier try came to in the bucket, for which there was no room. */
  stageBytes: number;
  fetchedBytes: number;
  /** Of what is staged, or is being so; null: nothing. */
  stagedAttempt: string | null;
  /** Bytes of the whole archive; null: it is not whole. */
  stagedLength: number | null;
  deleted: boolean;
  pathCount: number;
  /** Of a pushed one: the device that writes it, and how. */
  targetGuid: string | null;
  pushed: PushedTo | null;
  /** How its agent told that it ended. */
  pushedEnd: PushedEnd | null;
}

export interface RestoreWithLists extends RestoreRow {
  /** Base64url. */
  paths: string[];
  leftOutFirst: StoredReason[];
  leaveOut: StoredReason[];
}

export interface OfRestore {
  tenant: number;
  restore: number;
}

export async function readRestoreRow(db: Transaction, of: OfRestore): Promise<RestoreWithLists | null> {
  const [row] = await db.query<RestoreWithLists>(sql.read, [of.tenant, of.restore]);
  return row ?? null;
}

/** The same, under its lock. */
export async function lockRestoreRow(tx: Transaction, of: OfRestore): Promise<RestoreWithLists | null> {
  const [row] = await tx.query<RestoreWithLists>(sql.lock, [of.tenant, of.restore]);
  return row ?? null;
}

export interface RestoresAsked {
  /** Below this id; 0: from the newest. */
  below: number;
  rows: number;
  /** In this organization and below it; null: everywhere. */
  path: number | null;
  /** Of their own archives, by themselves; null: everybody's. */
  alone: number | null;
  state: RestoreState | null;
  since: string | null;
  until: string | null;
  guid: string | null;
  asker: { kind: 'user' | 'client'; id: number } | null;
  kind: RestoreRow['kind'] | null;
  /** Whose archive. */
  user: number | null;
  /** In the name of who asked. */
  askerName: string | null;
  bytesMin: number | null;
}

export async function listRestoreRows(db: Transaction, tenant: number, asked: RestoresAsked): Promise<RestoreRow[]> {
  const { below, rows, path, alone, state, since, until, guid, asker, kind, user, askerName, bytesMin } = asked;
  // Whoever sees only their own walks along those, and not along everybody's.
  const self = alone === null ? null : { kind: 'user', id: alone };
  if (self && asker && (asker.kind !== self.kind || asker.id !== self.id)) return [];
  const by = self ?? asker;
  const wide = user === null ? sql.list : sql.listOfUser;
  const way = guid !== null && !self ? sql.listOfDevice : by ? sql.listOfAsker : wide;
  const from = below === 0 ? Number.MAX_SAFE_INTEGER : below;
  const rest = [by?.kind ?? null, by?.id ?? null, kind, user, askerName, bytesMin];
  const values = [tenant, from, rows, path, alone, state, since, until, guid, ...rest];
  return db.query<RestoreRow>(way, values);
}

/** Of one that is sent or staged. */
export function formatOf({ format }: Pick<RestoreRow, 'format'>): NonNullable<RestoreRow['format']> {
  assert(format !== null, 'what is pushed has no format');
  return format;
}

/** How much of it is made, of 100. Of what was planned, so it may never be all. */
export function percentOf({ state, doneBytes, plannedBytes }: RestoreRow): number {
  if (state === 'completed') return 100;
  if (state !== 'running' || plannedBytes === 0) return 0;
  return Math.min(99, Math.floor((100 * doneBytes) / plannedBytes));
}

function shownStaging(row: RestoreRow): NonNullable<RestoreViewed['staged']> {
  const waits = row.state === 'planned' || row.state === 'broken' || row.state === 'refused';
  return {
    percent: percentOf(row),
    length: row.state === 'completed' ? row.stagedLength : null,
    waitsFor: waits ? (row.stagesItself ? 'worker' : 'request') : null,
    fetchedBytes: row.fetchedBytes,
  };
}

export function viewOf(row: RestoreRow): RestoreViewed {
  return {
    id: row.id,
    kind: row.kind,
    device: { guid: row.guid, name: row.deviceName },
    user: { id: row.user, name: row.userName },
    askedBy: { kind: row.askerKind, id: row.askerId, name: row.askerName },
    address: row.address,
    permission: row.permission,
    reason: row.reason,
    format: row.format,
    seq: row.seq,
    at: iso(row.momentAt),
    deleted: row.deleted,
    paths: row.pathCount,
    planned: {
      files: row.plannedFiles,
      folders: row.plannedFolders,
      links: row.plannedLinks,
      bytes: row.plannedBytes,
      damaged: row.plannedDamaged,
      gone: row.plannedGone,
      thinned: row.plannedThinned,
      missing: row.plannedMissing,
    },
    state: row.state,
    tries: row.attempts,
    done: { files: row.doneFiles, bytes: row.doneBytes, sentBytes: row.sentBytes, leftOut: row.leftOut },
    staged: row.kind === 'staged' ? shownStaging(row) : null,
    why: row.why,
    createdAt: row.createdAt.toISOString(),
    lapsesAt: row.lapsesAt.toISOString(),
    pushed: row.pushed && shownPush(row),
    begunAt: iso(row.begunAt),
    endedAt: iso(row.endedAt),
    version: row.version,
  };
}

function shownPush({ targetGuid, pushed, pushedEnd }: RestoreRow): RestoreViewed['pushed'] {
  const { name, folder, existing, permissions } = pushed!;
  return {
    device: { guid: targetGuid!, name },
    folder: folder === null ? null : shownPath(folder),
    existing,
    permissions,
    end: pushedEnd && { outcome: pushedEnd.outcome, counts: pushedEnd.counts },
  };
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** As text, and where it is none as bytes. */
export function shownPath(stored: string): { path: string | null; pathBytes?: string } {
  try {
    return { path: utf8.decode(Buffer.from(stored, 'base64url')) };
  } catch {
    return { path: null, pathBytes: stored };
  }
}
