/**
 * Devices as those see them who look after them. The directory tells who and where, the engine what became of the backups;
 * health joins the two. What a list is filtered by and only the engine knows is asked for a batch at a time, so a page
 * may be short and still have a next one: the work for one page is bounded.
 */
import type { z } from 'zod';
import { printablePath } from '../../../protocol/paths.ts';
import { Problem } from '../../../protocol/problems.ts';
import { assertShown } from '../../../storage/archive/reading/shown-archive.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { lastSnapshotAt, readPlainFigures } from '../../../storage/catalog/plain-figures.ts';
import {
  type ArchiveFacts,
  countSkipped,
  listSkipped,
  type RunFacts,
  readArchiveFacts,
} from '../../../storage/catalog/reading/archive-facts.ts';
import { readVaultUsage } from '../../../storage/catalog/usage.ts';
import { iso } from '../moments.ts';
import { isGuid } from '../tenant-view.ts';
import { effectiveOf, type HeldRow, heldColumns, heldOfDevice, isOut } from '../users/effective-state.ts';
import { readCursor, type Within, withinValues, writeCursor } from '../users/pages.ts';
import { channelSilentMs } from './commands/channels.ts';
import { healthOf } from './health.ts';
import { settingsOfMany } from './settings-of-many.ts';
import type {
  ArchiveView,
  DeviceDetails,
  DevicePage,
  DeviceRecord,
  ListDevicesQuery,
  ListSkippedQuery,
  RunView,
  SkippedPage,
} from './shapes.ts';

const select = `SELECT d.device_id AS "deviceId", d.guid::text AS guid, d.name, d.kind, d.user_id AS "userId", u.name AS "userName",
            o.organization_id AS "organizationId", o.name AS "organizationName", d.platform, d.agent_version AS "agentVersion",
            d.state, d.last_seen_at AS "lastSeenAt", d.created_at AS "createdAt", d.version, d.vault_id AS vault, d.archive_id AS archive,
            c.is_open AND c.heard_at > now() - interval '${channelSilentMs} ms' AS "channelIsOpen",
            c.connected_at AS "channelConnectedAt", c.heard_at AS "channelHeardAt", ${heldColumns}
       FROM devices d JOIN users u ON u.user_id = d.user_id JOIN organizations o ON o.organization_id = u.organization_id
       LEFT JOIN device_channels c ON c.guid = d.guid AND c.tenant_id = d.tenant_id
      CROSS JOIN LATERAL ${heldOfDevice} held`;

const sql = {
  one: statement(
    'directory.readDevice',
    `${select} WHERE d.tenant_id = $1 AND d.guid = $2::bigint AND d.state <> 'replaced'`,
  ),

  page: statement(
    'directory.pageDevices',
    `${select}
      WHERE d.tenant_id = $1 AND d.device_id > $2 AND d.state <> 'replaced'
        AND ($4::bigint IS NULL OR o.path @> ARRAY[$4::bigint]) AND ($5::bigint IS NULL OR d.user_id = $5)
        AND ($6::bigint IS NULL OR d.user_id = $6)
        AND ($7::bigint IS NULL OR u.organization_id = $7)
        AND ($8::bigint IS NULL OR o.path @> ARRAY[$8::bigint])
        AND ($9::text IS NULL OR held.state = $9)
        AND ($10::text IS NULL OR starts_with(lower(d.name), lower($10)))
        AND ($11::text IS NULL OR d.platform = $11)
        AND ($12::timestamptz IS NULL OR coalesce(d.last_seen_at, d.created_at) < $12)
      ORDER BY d.device_id LIMIT $3`,
  ),
};

/** Devices whose runs are looked at for one page, at most, and at a time. */
export const listBounds = { devicesLookedAtMax: 5_000, batch: 500 };

interface Row extends HeldRow {
  deviceId: number;
  guid: string;
  name: string;
  kind: DeviceRecord['kind'];
  userId: number;
  userName: string;
  organizationId: number;
  organizationName: string;
  platform: DeviceRecord['platform'];
  agentVersion: string;
  state: DeviceRecord['state'];
  lastSeenAt: Date | null;
  /** Null: it has never had one. */
  channelIsOpen: boolean | null;
  channelConnectedAt: Date | null;
  channelHeardAt: Date | null;
  createdAt: Date;
  version: number;
  vault: number;
  archive: number;
}

/** For whom health is judged: users are warned earlier than those who look after them. */
export type JudgedFor = 'user' | 'administrator';

const bounds = {
  user: ['alerts.userWarningDays', 'alerts.userCriticalDays'],
  administrator: ['alerts.administratorWarningDays', 'alerts.administratorCriticalDays'],
} as const;

interface Found {
  row: Row;
  facts: ArchiveFacts;
  view: DeviceRecord;
}

/** Joins rows of the directory with what the engine knows of their archives. */
async function describe(db: Transaction, tenant: number, rows: readonly Row[], judgedFor: JudgedFor): Promise<Found[]> {
  const facts = new Map((await readArchiveFacts(db, rows)).map((each) => [`${each.vault}/${each.archive}`, each]));
  const figures = await readPlainFigures(
    db,
    rows.filter(({ kind }) => kind === 'restic'),
  );
  const [warning, critical] = bounds[judgedFor];
  const places = rows.map(({ organizationId }) => organizationId);
  const settings = await settingsOfMany(db, tenant, places, [warning, critical]);
  return rows.map((row) => {
    const of = facts.get(`${row.vault}/${row.archive}`);
    if (!of) throw new Error(`device ${row.guid} has no archive`);
    const warningDays = settings.value(row.organizationId, warning);
    const criticalDays = settings.value(row.organizationId, critical);
    const isExpected = !isOut(row.heldState) && row.heldState !== 'deauthorized';
    const completedAt =
      row.kind === 'restic'
        ? lastSnapshotAt(figures.get(`${row.vault}/${row.archive}`) ?? [])
        : (of.completed?.finishedAt ?? null);
    const since = completedAt ?? row.createdAt;
    const health =
      isExpected && warningDays !== null && criticalDays !== null
        ? healthOf({ since, now: of.now }, { warningDays, criticalDays })
        : null;
    return { row, facts: of, view: viewOf(row, of, { health, completedAt }) };
  });
}

function viewOf(
  row: Row,
  facts: ArchiveFacts,
  { health, completedAt }: { health: DeviceRecord['health']; completedAt: Date | null },
): DeviceRecord {
  return {
    guid: row.guid,
    name: row.name,
    kind: row.kind,
    user: { id: row.userId, name: row.userName },
    organization: { id: row.organizationId, name: row.organizationName },
    platform: row.platform,
    agentVersion: row.agentVersion,
    state: row.state,
    effective: effectiveOf(row),
    health,
    lastConnectedAt: iso(row.lastSeenAt),
    channel: channelOf(row),
    lastActivityAt: iso(facts.latest?.progressedAt),
    lastCompletedAt: iso(completedAt),
    lastRun: runOf(facts.latest),
    archive: archiveOf(facts),
    createdAt: row.createdAt.toISOString(),
    version: row.version,
  };
}

function channelOf({ channelIsOpen, channelConnectedAt, channelHeardAt }: Row): DeviceRecord['channel'] {
  if (channelIsOpen === null) return null;
  return {
    isOpen: channelIsOpen,
    connectedAt: channelConnectedAt!.toISOString(),
    heardAt: channelHeardAt!.toISOString(),
  };
}

function archiveOf(facts: ArchiveFacts): z.infer<typeof ArchiveView> {
  const { archive: id, state, versions, liveFiles, completed } = facts;
  return {
    id,
    state,
    coldUntil: iso(facts.coldUntil),
    expiredAt: iso(facts.expiredAt),
    versions,
    liveFiles,
    bytesSelected: completed?.counts.bytesSeen ?? null,
  };
}

function runOf(run: RunFacts | null): z.infer<typeof RunView> | null {
  if (!run) return null;
  return {
    run: run.run,
    startedAt: run.startedAt.toISOString(),
    lastHeardAt: run.progressedAt.toISOString(),
    finishedAt: iso(run.finishedAt),
    outcome: run.outcome,
    reason: run.reason,
    counts: Object.keys(run.counts).length > 0 ? run.counts : null,
  };
}

async function findOne(db: Transaction, of: { tenant: number; guid: string }, judgedFor: JudgedFor): Promise<Found> {
  const rows = isGuid(of.guid) ? await db.query<Row>(sql.one, [of.tenant, of.guid]) : [];
  if (rows.length === 0) throw noSuchDevice();
  const [found] = await describe(db, of.tenant, rows, judgedFor);
  return found!;
}

export function noSuchDevice(): Problem {
  return new Problem('not_found', 'there is no such device');
}

/** As in a list. @throws Problem not_found */
export async function readDeviceView(
  db: Transaction,
  of: { tenant: number; guid: string },
  judgedFor: JudgedFor = 'administrator',
): Promise<DeviceRecord> {
  return (await findOne(db, of, judgedFor)).view;
}

/** One device, with what its last run left out. @throws Problem not_found */
export async function readDevice(
  db: Transaction,
  of: { tenant: number; guid: string },
  judgedFor: JudgedFor = 'administrator',
): Promise<z.infer<typeof DeviceDetails>> {
  const { row, facts, view } = await findOne(db, of, judgedFor);
  const skipped = facts.latest ? await countSkipped(db, { ...facts, run: facts.latest.run }) : [];
  const { storedBytes } = await readVaultUsage(db, row.vault);
  return {
    ...view,
    lastCompletedRun: runOf(facts.completed),
    skipped: skipped as z.infer<typeof DeviceDetails>['skipped'],
    userStoredBytes: storedBytes,
  };
}

/**
 * A page of the tenant's devices, as far as the reader reaches, by id.
 * @throws Problem out_of_bounds, field `after`
 */
export async function listDevices(
  db: Transaction,
  of: { tenant: number; within: Within; judgedFor?: JudgedFor },
  query: z.infer<typeof ListDevicesQuery>,
): Promise<z.infer<typeof DevicePage>> {
  const { limit } = query;
  const items: DeviceRecord[] = [];
  let last = readCursor(query.after);
  for (let looked = 0; looked < listBounds.devicesLookedAtMax; ) {
    const asked = Math.min(listBounds.batch, listBounds.devicesLookedAtMax - looked);
    const rows = await db.query<Row>(sql.page, [
      of.tenant,
      last,
      asked,
      ...withinValues(of.within),
      query.user ?? null,
      query.organization ?? null,
      query.below ?? null,
      query.state ?? null,
      query.search ?? null,
      query.platform ?? null,
      query.connectedBefore ?? null,
    ]);
    for (const { row, view } of await describe(db, of.tenant, rows, of.judgedFor ?? 'administrator')) {
      if (!isWanted(view, query)) {
        last = row.deviceId;
        continue;
      }
      // One more than the page holds: so there is a next one.
      if (items.length === limit) return { items, next: writeCursor(last) };
      items.push(view);
      last = row.deviceId;
    }
    if (rows.length < asked) return { items, next: null };
    looked += rows.length;
  }
  return { items, next: writeCursor(last) };
}

function isWanted(view: DeviceRecord, query: z.infer<typeof ListDevicesQuery>): boolean {
  if (query.health !== undefined && view.health !== query.health) return false;
  if (query.completedBefore === undefined || view.lastCompletedAt === null) return true;
  return Date.parse(view.lastCompletedAt) < Date.parse(query.completedBefore);
}

/** What the last run of a device left out, and why; in pages. @throws Problem not_found; conflict when its archive has expired */
export async function listSkippedFiles(
  db: Transaction,
  of: { tenant: number; guid: string },
  query: z.infer<typeof ListSkippedQuery>,
): Promise<z.infer<typeof SkippedPage>> {
  const { facts } = await findOne(db, of, 'administrator');
  await assertShown(db, facts);
  if (!facts.latest) return { run: null, items: [], next: null };
  const { run } = facts.latest;
  const after = Buffer.from(query.after ?? '', 'hex');
  const page = { after, limit: query.limit + 1, reason: query.reason ?? null };
  const rows = await listSkipped(db, { ...facts, run }, page);
  const items = rows.slice(0, query.limit).map(({ path, reason, detail }) => ({
    path: printablePath(path),
    pathBytes: path.toString('base64url'),
    reason: reason as z.infer<typeof SkippedPage>['items'][number]['reason'],
    detail,
  }));
  const last = rows[query.limit - 1];
  return { run, items, next: rows.length > query.limit && last ? last.pathSha256.toString('hex') : null };
}
