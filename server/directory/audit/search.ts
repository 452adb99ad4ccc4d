/**
 * Looks into a tenant's log: newest first by time, page by page. Each way of asking that finds few among many has an
 * index that gives its acts in the order of time, and a statement that uses it; whatever else was asked is looked at on
 * the way. Free text has none: it reads on until a page is full (some seconds for a word nobody has in a million acts).
 */
import { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { Moment } from '../moments.ts';
import { type ActingParty, type ActResult, type JsonValue, serverLog, type TargetKind } from './act.ts';

/** What may be asked for. Everything given has to be so. */
export interface ActFilter {
  /** From this moment on (ISO 8601), and before that one. */
  from?: string | undefined;
  to?: string | undefined;
  /** Begins the action: `user.` for all about users. */
  action?: string | undefined;
  partyKind?: ActingParty['kind'] | undefined;
  /** Goes with `partyKind`. */
  partyId?: string | undefined;
  targetKind?: TargetKind | undefined;
  /** Goes with `targetKind`. */
  targetId?: string | undefined;
  /** In this organization or below it. */
  organization?: number | undefined;
  result?: ActResult | undefined;
  address?: string | undefined;
  /** Somewhere in the name of who acted or of what it was done to; upper and lower case are the same. */
  text?: string | undefined;
}

/** How far the reader reaches: `path`, acts in that organization and below it; `user`, by them or about them. */
export type ActReach = { all: true } | { path: number } | { user: number };

/** An act as it is shown. */
export interface ShownAct {
  number: number;
  /** ISO 8601, with microseconds. */
  at: string;
  party: { kind: string; id: number | string | null; name: string };
  address: string | null;
  action: string;
  target: { kind: string; id: number | string; name: string | null } | null;
  organization: number | null;
  result: ActResult;
  details: Record<string, JsonValue>;
  /** SHA-256 in hex: of this act and, through it, of all before it. */
  hash: string;
}

export interface ActPage {
  items: ShownAct[];
  next: string | null;
}

/** What every statement asks beside what it is for. The same parameters in all of them. */
const asked = `a.tenant_id = $1 AND a.at >= coalesce($2::timestamptz, '-infinity') AND a.at < coalesce($3::timestamptz, 'infinity')
  AND (a.at, a.number) < (coalesce($4::timestamptz, 'infinity'), coalesce($5::bigint, 9223372036854775807))
  AND ($7::text IS NULL OR a.party_kind = $7) AND ($8::text IS NULL OR a.party_id = $8)
  AND ($9::text IS NULL OR a.target_kind = $9) AND ($10::text IS NULL OR a.target_id = $10)
  AND ($11::text IS NULL OR starts_with(a.action, $11))
  AND ($12::bigint[] IS NULL OR EXISTS (
        SELECT 1 FROM organizations o WHERE o.organization_id = a.organization_id AND o.tenant_id = $1 AND o.path @> $12))
  AND ($13::text IS NULL OR a.result = $13) AND ($14::text IS NULL OR a.address = $14)
  AND ($15::text IS NULL OR position($15 IN lower(a.party_name)) > 0 OR position($15 IN lower(a.target_name)) > 0)
  AND ($16::text IS NULL OR (a.party_kind = 'user' AND a.party_id = $16) OR (a.target_kind = 'user' AND a.target_id = $16))`;
const newestFirst = 'ORDER BY a.at DESC, a.number DESC LIMIT $6';
const shown = `a.number, to_char(a.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at, a.party_kind AS "partyKind",
  a.party_id AS "partyId", a.party_name AS "partyName", a.address, a.action, a.target_kind AS "targetKind", a.target_id AS "targetId",
  a.target_name AS "targetName", a.organization_id AS organization, a.result, a.details, encode(a.hash, 'hex') AS hash`;

const sql = {
  byTime: statement('directory.actsByTime', `SELECT ${shown} FROM acts a WHERE ${asked} ${newestFirst}`),
  byParty: statement(
    'directory.actsByParty',
    `SELECT ${shown} FROM acts a WHERE a.party_kind = $7 AND a.party_id = $8 AND ${asked} ${newestFirst}`,
  ),
  byTarget: statement(
    'directory.actsByTarget',
    `SELECT ${shown} FROM acts a WHERE a.target_kind = $9 AND a.target_id = $10 AND ${asked} ${newestFirst}`,
  ),
  byAddress: statement(
    'directory.actsByAddress',
    `SELECT ${shown} FROM acts a WHERE a.address = $14 AND ${asked} ${newestFirst}`,
  ),
  refused: statement(
    'directory.actsNotDone',
    `SELECT ${shown} FROM acts a WHERE a.result = $13 AND a.result <> 'done' AND ${asked} ${newestFirst}`,
  ),
  // Of each action that begins so (there are about a hundred in all) the newest page, and of those the newest.
  byAction: statement(
    'directory.actsByAction',
    `WITH RECURSIVE actions AS (
       (SELECT action FROM acts WHERE tenant_id = $1 AND action >= $11 ORDER BY action LIMIT 1)
       UNION ALL
       SELECT (SELECT n.action FROM acts n WHERE n.tenant_id = $1 AND n.action > actions.action ORDER BY n.action LIMIT 1)
         FROM actions WHERE starts_with(actions.action, $11))
     SELECT ${shown} FROM actions CROSS JOIN LATERAL (
         SELECT * FROM acts a WHERE a.action = actions.action AND ${asked} ${newestFirst}) a
      WHERE starts_with(actions.action, $11) ${newestFirst}`,
  ),
  // The same of each organization of the part of the tree; but first the newest act alone of each. Where there are enough
  // of them for a page, nothing that is older than the last of those is in it.
  byOrganization: statement(
    'directory.actsByOrganization',
    `WITH newest AS (
       SELECT part.organization_id AS id, a.at FROM organizations part CROSS JOIN LATERAL (
           SELECT a.at FROM acts a WHERE a.organization_id = part.organization_id AND ${asked}
            ORDER BY a.at DESC, a.number DESC LIMIT 1) a
        WHERE part.tenant_id = $1 AND part.path @> $12),
     oldest AS (SELECT coalesce((SELECT at FROM newest ORDER BY at DESC OFFSET $6 - 1 LIMIT 1), '-infinity') AS at)
     SELECT ${shown} FROM oldest CROSS JOIN newest CROSS JOIN LATERAL (
         SELECT * FROM acts a WHERE a.organization_id = newest.id AND a.at >= oldest.at AND ${asked} ${newestFirst}) a
      WHERE newest.at >= oldest.at ${newestFirst}`,
  ),
  // By a user, or about them.
  byUser: statement(
    'directory.actsOfUser',
    `SELECT ${shown} FROM (
       (SELECT * FROM acts a WHERE a.party_kind = 'user' AND a.party_id = $16 AND ${asked} ${newestFirst})
       UNION ALL
       (SELECT * FROM acts a WHERE a.target_kind = 'user' AND a.target_id = $16
           AND (a.party_kind = 'user' AND a.party_id = $16) IS NOT TRUE AND ${asked} ${newestFirst})) a ${newestFirst}`,
  ),
};

/** All of them, for whoever looks at their plans. */
export const searchStatements = sql;

const Cursor = z.strictObject({ at: z.iso.datetime({ precision: 6 }).pipe(Moment), number: z.int().min(1) });

/**
 * @param tenant null: the server's own log
 * @param page.limit 1 to 1000
 * @throws Problem out_of_bounds, malformed_request
 */
export async function searchActs(
  db: Transaction,
  tenant: number | null,
  filter: ActFilter,
  { reach, cursor, limit }: { reach: ActReach; cursor: string | null; limit: number },
): Promise<ActPage> {
  refuseWrong(filter, limit);
  const { from = null, to = null, action = null, partyKind = null, partyId = null } = filter;
  const { targetKind = null, targetId = null, organization, result = null, address = null, text } = filter;
  const after = cursor === null ? null : readCursor(cursor);
  const within = [...('path' in reach ? [reach.path] : []), ...(organization === undefined ? [] : [organization])];
  const values = [
    tenant ?? serverLog,
    from,
    to,
    after?.at ?? null,
    after?.number ?? null,
    limit + 1,
    partyKind,
    partyId,
    targetKind,
    targetId,
    action,
    within.length > 0 ? within : null,
    result,
    address,
    text ? text.toLowerCase() : null,
    'user' in reach ? String(reach.user) : null,
  ];
  const rows = await db.query<Row>(statementFor(filter, reach, within.length > 0), values);
  const items = rows.slice(0, limit).map(show);
  return { items, next: rows.length > limit ? writeCursor(items.at(-1)!) : null };
}

/** The one that finds fewest first. */
function statementFor(filter: ActFilter, reach: ActReach, isPart: boolean) {
  if ('user' in reach) return sql.byUser;
  if (filter.targetId !== undefined) return sql.byTarget;
  if (filter.partyId !== undefined) return sql.byParty;
  if (filter.address !== undefined) return sql.byAddress;
  if (filter.action) return sql.byAction;
  if (filter.result !== undefined && filter.result !== 'done') return sql.refused;
  // A word that few have would be looked for in each organization to its end; once along the time is less.
  return isPart && !filter.text ? sql.byOrganization : sql.byTime;
}

const limitMax = 1_000;
const textMax = 512;

function refuseWrong(filter: ActFilter, limit: number): void {
  const out = (field: string, detail: string): never => {
    throw new Problem('out_of_bounds', detail, { field });
  };
  if (!Number.isInteger(limit) || limit < 1 || limit > limitMax) out('limit', `a page has 1 to ${limitMax} acts`);
  if (filter.partyId !== undefined && filter.partyKind === undefined) out('partyKind', 'partyId goes with partyKind');
  if (filter.targetId !== undefined && filter.targetKind === undefined)
    out('targetKind', 'targetId goes with targetKind');
  for (const field of ['from', 'to'] as const) {
    const time = filter[field];
    if (time !== undefined && !Moment.safeParse(time).success)
      out(field, `${field} is a moment as 2026-01-02T03:04:05Z`);
  }
  for (const field of ['action', 'partyId', 'targetKind', 'targetId', 'address', 'text'] as const) {
    const value = filter[field];
    if (value !== undefined && (value.length > textMax || value.includes('\0')))
      out(field, `${field} has at most ${textMax} characters, and no NUL`);
  }
}

function readCursor(text: string): z.infer<typeof Cursor> {
  try {
    return Cursor.parse(JSON.parse(Buffer.from(text, 'base64url').toString('utf8')));
  } catch (cause) {
    throw new Problem('malformed_request', 'this is no cursor of this list', { field: 'cursor' }, { cause });
  }
}

function writeCursor({ at, number }: ShownAct): string {
  return Buffer.from(JSON.stringify({ at, number })).toString('base64url');
}

interface Row {
  number: number;
  at: string;
  partyKind: string;
  partyId: string | null;
  partyName: string;
  address: string | null;
  action: string;
  targetKind: string | null;
  targetId: string | null;
  targetName: string | null;
  organization: number | null;
  result: ActResult;
  details: Record<string, JsonValue>;
  hash: string;
}

function show(row: Row): ShownAct {
  const { partyKind, partyId, partyName, targetKind, targetId, targetName, ...rest } = row;
  const party = { kind: partyKind, id: partyId === null ? null : shownId(partyKind, partyId), name: partyName };
  const target =
    targetKind === null || targetId === null
      ? null
      : { kind: targetKind, id: shownId(targetKind, targetId), name: targetName };
  const { number, at, address, action, organization, result, details, hash } = rest;
  return { number, at, party, address, action, target, organization, result, details, hash };
}

/** Devices are named by their GUID, which is past what a number holds. */
function shownId(kind: string, id: string): number | string {
  const number = Number(id);
  return kind !== 'device' && /^\d+$/.test(id) && Number.isSafeInteger(number) ? number : id;
}
