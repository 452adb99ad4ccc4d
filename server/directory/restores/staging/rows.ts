/** Staged archives as rows: one for each try, from before its first object until after its last. */
import { type Statement, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { type OfRestore, silentMsMax } from '../rows.ts';
import type { Asker } from '../thresholds/askers.ts';

/** Under which restores are due: a worker may begin them, or once more, because whoever had begun is not heard of. */
const isDue = `r.kind = 'staged' AND r.stage_after <= now() AND r.stage_tries > 0 AND (
  (r.state = 'planned' AND r.lapses_at > now()) OR r.state = 'broken'
  OR (r.state = 'running' AND r.seen_at < now() - interval '${silentMsMax} ms'))`;

const columns = `s.staged_id AS id, s.tenant_id AS tenant, s.restore_id AS restore, s.attempt, s.state, s.key_record AS "keyRecord",
  s.length, s.part_frames AS "partFrames"`;

const die = "state = 'dead', key_record = NULL, dead_at = now()";

const sql = {
  due: statement(
    'directory.restoresToStage',
    `SELECT r.tenant_id AS tenant, r.restore_id AS restore FROM restore_requests r
      WHERE ${isDue} ORDER BY r.stage_after, r.restore_id LIMIT $1`,
  ),
  dueOne: statement(
    'directory.restoreToStage',
    `SELECT r.tenant_id AS tenant, r.restore_id AS restore, r.attempts FROM restore_requests r WHERE ${isDue} AND r.restore_id = $1`,
  ),
  stageLater: statement(
    'directory.stageRestoreLater',
    `UPDATE restore_requests SET stage_after = now() + $3 * interval '1 ms', stage_tries = stage_tries + $4::smallint, why = coalesce($5, why)
      WHERE tenant_id = $1 AND restore_id = $2 AND stage_after IS NOT NULL`,
  ),
  setTries: statement(
    'directory.setStageTries',
    `UPDATE restore_requests SET stage_tries = $3::smallint, stage_after = CASE WHEN $3::smallint > 0 THEN now() END, why = coalesce($4, why)
      WHERE tenant_id = $1 AND restore_id = $2`,
  ),
  setBytes: statement(
    'directory.setStageBytes',
    'UPDATE restore_requests SET stage_bytes = greatest(stage_bytes, $3) WHERE tenant_id = $1 AND restore_id = $2',
  ),
  tryTaken: statement(
    'directory.takeStageTry',
    'UPDATE restore_requests SET stage_tries = greatest(stage_tries - 1, 0) WHERE tenant_id = $1 AND restore_id = $2',
  ),
  // One at a time asks what there is and takes some of it.
  lockRoom: statement('directory.lockStagingRoom', 'SELECT pg_advisory_xact_lock(4065200722)'),
  room: statement(
    'directory.stagingRoom',
    `SELECT coalesce(sum(reserved_bytes), 0)::bigint AS "takenBytes",
            coalesce(sum(reserved_bytes - least(stored_bytes, reserved_bytes)) FILTER (WHERE state = 'staging'), 0)::bigint AS "comingBytes",
            coalesce(sum(reserved_bytes) FILTER (WHERE tenant_id = $1), 0)::bigint AS "tenantBytes",
            coalesce(sum(reserved_bytes) FILTER (WHERE tenant_id = $1 AND asker_kind = $2 AND asker_id = $3), 0)::bigint AS "personBytes"
       FROM staged_archives`,
  ),
  insert: statement(
    'directory.insertStaged',
    `INSERT INTO staged_archives (tenant_id, user_id, restore_id, asker_kind, asker_id, attempt, key_record, reserved_bytes, part_frames)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
  ),
  // Of an attempt that is dead meanwhile nothing is changed, and whoever makes it stops.
  reserve: statement(
    'directory.reserveStaged',
    `UPDATE staged_archives SET reserved_bytes = $2 WHERE attempt = $1 AND state = 'staging' RETURNING 1`,
  ),
  heard: statement(
    'directory.hearOfStaged',
    `UPDATE staged_archives SET stored_bytes = greatest(stored_bytes, $2)
      WHERE attempt = $1 AND state = 'staging' RETURNING 1`,
  ),
  ready: statement(
    'directory.readyStaged',
    `UPDATE staged_archives SET state = 'ready', length = $2, stored_bytes = $3, reserved_bytes = $3
      WHERE attempt = $1 AND state = 'staging' RETURNING 1`,
  ),
  dieOfRestore: statement(
    'directory.endStagedOfRestore',
    `UPDATE staged_archives SET ${die} WHERE tenant_id = $1 AND restore_id = $2 AND state <> 'dead'`,
  ),
  dieOfAttempt: statement(
    'directory.endStagedAttempt',
    `UPDATE staged_archives SET ${die} WHERE attempt = $1 AND state <> 'dead'`,
  ),
  dieOfUsers: statement(
    'directory.endStagedOfUsers',
    `UPDATE staged_archives SET ${die} WHERE tenant_id = $1 AND user_id = ANY ($2::bigint[]) AND state <> 'dead'`,
  ),
  ofUsers: statement(
    'directory.usersWithStaged',
    'SELECT DISTINCT user_id AS "user" FROM staged_archives WHERE tenant_id = $1 AND user_id = ANY ($2::bigint[])',
  ),
  live: statement(
    'directory.liveStaged',
    `SELECT ${columns} FROM staged_archives s WHERE s.tenant_id = $1 AND s.restore_id = $2 AND s.state <> 'dead'`,
  ),

  // What is damaged is made anew, while its moment is kept.
  damage: statement(
    'directory.damageStaged',
    `UPDATE restore_requests SET state = 'broken', why = $3, lapses_at = now() + $4 * interval '1 ms', version = version + 1
      WHERE tenant_id = $1 AND restore_id = $2`,
  ),
  linked: statement(
    'directory.linkedRestore',
    `SELECT r.tenant_id AS tenant, r.restore_id AS restore, r.asker_kind AS "askerKind", r.asker_id AS "askerId"
       FROM restore_requests r
      WHERE r.restore_id = $1 AND r.kind = 'staged' AND r.state = 'completed' AND r.lapses_at > now()
        AND to_timestamp($2::float8) > now()`,
  ),
  linkEnd: statement(
    'directory.endOfStagedLink',
    `SELECT floor(extract(epoch FROM least(r.lapses_at, now() + $3 * interval '1 s')))::int8 AS ends
       FROM restore_requests r WHERE r.tenant_id = $1 AND r.restore_id = $2`,
  ),
  fetchers: statement(
    'directory.countStagedFetches',
    'SELECT count(*)::int AS n FROM staged_fetches WHERE staged_id = $1 AND (ends_at = 0) = ($2::bigint = 0)',
  ),
  noteFetch: statement(
    'directory.noteStagedFetch',
    `INSERT INTO staged_fetches (staged_id, tenant_id, ends_at, address) VALUES ($1, $2, $3, $4)
     ON CONFLICT DO NOTHING RETURNING 1`,
  ),
  hasFetched: statement(
    'directory.hasFetchedStaged',
    'SELECT 1 FROM staged_fetches WHERE staged_id = $1 AND ends_at = $2 AND address = $3',
  ),
  fetched: statement(
    'directory.addFetchedBytes',
    'UPDATE restore_requests SET fetched_bytes = fetched_bytes + $3 WHERE tenant_id = $1 AND restore_id = $2',
  ),

  // What nobody makes or fetches any more: expired, not a restore's current one, or left by a process that ended. One that
  // is in another state by the time its row is locked (made whole, say) is looked at the next time.
  dieOfOld: statement(
    'directory.endOldStaged',
    `WITH old AS MATERIALIZED (
       SELECT s.staged_id, s.state FROM staged_archives s
         LEFT JOIN restore_requests r ON r.tenant_id = s.tenant_id AND r.restore_id = s.restore_id
        WHERE (s.state = 'ready' AND (r.state IS DISTINCT FROM 'completed' OR r.lapses_at <= now()))
           OR (s.state = 'staging' AND (r.state = 'running' AND r.attempt = s.attempt
               AND r.seen_at > now() - interval '${silentMsMax} ms') IS NOT TRUE)
        ORDER BY s.staged_id LIMIT 100)
     UPDATE staged_archives a SET ${die} FROM old
      WHERE a.staged_id = old.staged_id AND a.state = old.state RETURNING a.staged_id`,
  ),
  dead: statement(
    'directory.deadStaged',
    `SELECT ${columns}, s.dead_at < now() - $2 * interval '1 ms' AS "isOld" FROM staged_archives s
      WHERE s.state = 'dead' AND s.staged_id > $1 ORDER BY s.staged_id LIMIT 100`,
  ),
  empty: statement(
    'directory.emptyStaged',
    `UPDATE staged_archives SET reserved_bytes = 0, stored_bytes = 0 WHERE staged_id = $1 AND state = 'dead'`,
  ),
  forgetFetches: statement('directory.forgetStagedFetches', 'DELETE FROM staged_fetches WHERE staged_id = $1'),
  forget: statement(
    'directory.forgetStaged',
    `DELETE FROM staged_archives WHERE staged_id = $1 AND state = 'dead' RETURNING 1`,
  ),
  known: statement('directory.knownAttempts', 'SELECT attempt FROM staged_archives WHERE attempt = ANY ($1::uuid[])'),
  figures: statement(
    'directory.stagedFigures',
    `SELECT state, count(*)::int AS archives, coalesce(sum(reserved_bytes), 0)::bigint AS bytes FROM staged_archives GROUP BY state`,
  ),
} satisfies Record<string, Statement>;

/** Those that have waited longest first. */
export function restoresToStage(db: Transaction, limit: number): Promise<OfRestore[]> {
  return db.query(sql.due, [limit]);
}

/** A restore that is due, and how often it had been begun by then: another's try makes it one more. */
export interface DueRestore extends OfRestore {
  attempts: number;
}

/** @returns null: nobody is to begin it now */
export async function restoreToStage(db: Transaction, restore: number): Promise<DueRestore | null> {
  return (await db.query<DueRestore>(sql.dueOne, [restore]))[0] ?? null;
}

/** @param tries given back */
export async function stageLater(
  db: Transaction,
  { tenant, restore }: OfRestore,
  { afterMs, tries, why = null }: { afterMs: number; tries: number; why?: string | null },
): Promise<void> {
  await db.query(sql.stageLater, [tenant, restore, afterMs, tries, why]);
}

/** @param tries by workers on their own; 0: none. `why` it is so, where there is something to say */
export async function setStageTries(
  tx: Transaction,
  of: OfRestore,
  tries: number,
  why: string | null = null,
): Promise<void> {
  await tx.query(sql.setTries, [of.tenant, of.restore, tries, why]);
}

/** The next try reserves so much at once, where its plan says less. */
export async function setStageBytes(tx: Transaction, { tenant, restore }: OfRestore, bytes: number): Promise<void> {
  await tx.query(sql.setBytes, [tenant, restore, bytes]);
}

export async function takeStageTry(tx: Transaction, { tenant, restore }: OfRestore): Promise<void> {
  await tx.query(sql.tryTaken, [tenant, restore]);
}

export interface StagingRoom {
  /** Of all: what is reserved, or has yet to be deleted. */
  takenBytes: number;
  /** Of that, what is not written yet. */
  comingBytes: number;
  tenantBytes: number;
  personBytes: number;
}

/**
 * Until the transaction ends nobody else takes any. Asked for after the restore's row, before the head of the log.
 * @param asker whom it counts for (countedFor)
 */
export async function lockStagingRoom(tx: Transaction, asker: Asker): Promise<StagingRoom> {
  await tx.query(sql.lockRoom);
  return readStagingRoom(tx, asker);
}

export async function readStagingRoom(db: Transaction, { tenant, kind, id }: Asker): Promise<StagingRoom> {
  return (await db.query<StagingRoom>(sql.room, [tenant, kind, id]))[0]!;
}

export interface NewStaged extends OfRestore {
  user: number;
  /** Whom its bytes count for. */
  asker: Pick<Asker, 'kind' | 'id'>;
  attempt: string;
  keyRecord: Buffer;
  reservedBytes: number;
  partFrames: number;
}

/** What was staged for the restore before is dead from then on. */
export async function insertStaged(tx: Transaction, made: NewStaged): Promise<void> {
  const { tenant, user, restore, asker, attempt, keyRecord, reservedBytes, partFrames } = made;
  await endStaged(tx, made);
  const values = [tenant, user, restore, asker.kind, asker.id, attempt, keyRecord, reservedBytes, partFrames];
  await tx.query(sql.insert, values);
}

/** @returns false: it is dead */
export const reserveStaged = async (tx: Transaction, attempt: string, reservedBytes: number): Promise<boolean> =>
  (await tx.query(sql.reserve, [attempt, reservedBytes])).length > 0;

/** It is still being made. @returns false: it is dead */
export const hearOfStaged = async (db: Transaction, attempt: string, storedBytes: number): Promise<boolean> =>
  (await db.query(sql.heard, [attempt, storedBytes])).length > 0;

/** @returns false: it is dead */
export const readyStaged = async (
  tx: Transaction,
  attempt: string,
  { length, storedBytes }: { length: number; storedBytes: number },
): Promise<boolean> => (await tx.query(sql.ready, [attempt, length, storedBytes])).length > 0;

/** Its key is gone from then on, and with it all that was staged for the restore; its objects follow. */
export async function endStaged(tx: Transaction, { tenant, restore }: OfRestore): Promise<void> {
  await tx.query(sql.dieOfRestore, [tenant, restore]);
}

export async function endStagedAttempt(tx: Transaction, attempt: string): Promise<void> {
  await tx.query(sql.dieOfAttempt, [attempt]);
}

/** Of these users' archives. */
export async function endStagedOfUsers(tx: Transaction, tenant: number, users: readonly number[]): Promise<void> {
  await tx.query(sql.dieOfUsers, [tenant, users]);
}

/** Those of the users of whose archives something is staged, or has yet to be deleted. */
export async function usersWithStaged(tx: Transaction, tenant: number, users: readonly number[]): Promise<number[]> {
  return (await tx.query<{ user: number }>(sql.ofUsers, [tenant, users])).map(({ user }) => user);
}

export interface StagedRow extends OfRestore {
  id: number;
  attempt: string;
  state: 'staging' | 'ready' | 'dead';
  /** Null: dead. */
  keyRecord: Buffer | null;
  length: number | null;
  partFrames: number;
}

export async function readLiveStaged(db: Transaction, { tenant, restore }: OfRestore): Promise<StagedRow | null> {
  return (await db.query<StagedRow>(sql.live, [tenant, restore]))[0] ?? null;
}

/** What was staged does not open: the restore is `broken`. Its lock is the caller's. */
export async function breakStaged(tx: Transaction, of: OfRestore, why: string, leaseMs: number): Promise<void> {
  await tx.query(sql.damage, [of.tenant, of.restore, why, leaseMs]);
  await endStaged(tx, of);
}

export interface LinkedRestore extends OfRestore {
  askerKind: 'user' | 'client';
  askerId: number;
}

/** What a link would open, by its number alone; null: nothing, or its time is over. @param ends seconds since 1970 */
export async function readLinked(db: Transaction, restore: number, ends: number): Promise<LinkedRestore | null> {
  return (await db.query<LinkedRestore>(sql.linked, [restore, ends]))[0] ?? null;
}

/** @returns seconds since 1970: so many from now, or when the archive expires */
export async function endOfLink(tx: Transaction, { tenant, restore }: OfRestore, seconds: number): Promise<number> {
  return (await tx.query<{ ends: number }>(sql.linkEnd, [tenant, restore, seconds]))[0]!.ends;
}

export interface Fetch {
  staged: number;
  tenant: number;
  /** Of the link, in seconds since 1970; 0: signed in. */
  linkEnds: number;
  address: string;
}

export const hasFetched = async (db: Transaction, { staged, linkEnds, address }: Fetch): Promise<boolean> =>
  (await db.query(sql.hasFetched, [staged, linkEnds, address])).length > 0;

/** @returns `first`: it is; `known`: it was written down before; `full`: too many others were */
export async function noteFetch(
  tx: Transaction,
  fetch: Fetch,
  fetchersMax: number,
): Promise<'first' | 'known' | 'full'> {
  const { staged, tenant, linkEnds, address } = fetch;
  if (await hasFetched(tx, fetch)) return 'known';
  // Whoever is signed in is not kept out by those who have a link.
  const [count] = await tx.query<{ n: number }>(sql.fetchers, [staged, linkEnds]);
  if (count!.n >= fetchersMax) return 'full';
  return (await tx.query(sql.noteFetch, [staged, tenant, linkEnds, address])).length > 0 ? 'first' : 'known';
}

export async function addFetchedBytes(db: Transaction, { tenant, restore }: OfRestore, bytes: number): Promise<void> {
  await db.query(sql.fetched, [tenant, restore, bytes]);
}

/** @returns how many are dead from now on */
export const endOldStaged = async (tx: Transaction): Promise<number> => (await tx.query(sql.dieOfOld)).length;

/** @param oldMs since when one is dead that `isOld` */
export function deadStagedAfter(
  db: Transaction,
  after: number,
  oldMs: number,
): Promise<(StagedRow & { isOld: boolean })[]> {
  return db.query(sql.dead, [after, oldMs]);
}

/** Its objects are gone: what it took up is free. */
export async function emptyStaged(tx: Transaction, id: number): Promise<void> {
  await tx.query(sql.empty, [id]);
}

export async function forgetStaged(tx: Transaction, id: number): Promise<void> {
  await tx.query(sql.forgetFetches, [id]);
  await tx.query(sql.forget, [id]);
}

export async function knownAttempts(db: Transaction, attempts: readonly string[]): Promise<Set<string>> {
  const rows = await db.query<{ attempt: string }>(sql.known, [attempts]);
  return new Set(rows.map(({ attempt }) => attempt));
}

export interface StagedFigures {
  state: StagedRow['state'];
  archives: number;
  bytes: number;
}

export const readStagedFigures = (db: Transaction): Promise<StagedFigures[]> => db.query(sql.figures);
