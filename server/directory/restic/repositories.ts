/**
 * Repositories of restic: devices without an agent, each with an archive of its own in its user's vault (docs/restic.md). Made
 * and shown here; renamed, blocked, deactivated and brought back as devices are (devices/changes.ts).
 *
 * What must stay true: a repository is there with its first token, or not at all. Its user's vault is made with it where there
 * is none; then it has no key, for nothing of restic's is ours to open, and gets one when a device first registers.
 *
 * Lock order: the tenant's row for sharing, the user's, what is the engine's, the log's head. Whoever makes repositories and
 * registers devices of one user meets at the user's row.
 */
import { randomBytes } from 'node:crypto';
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import {
  type FolderFigures,
  lastSnapshotAt,
  readDeletesByDay,
  readPlainFigures,
} from '../../../storage/catalog/plain-figures.ts';
import { createArchive, createVault, findVaultOfUser } from '../../../storage/catalog/vaults.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { assertRepositoryName } from '../devices/changes.ts';
import { devicesPerUserMax, hasRoomForDevice, nextDeviceId } from '../devices/devices.ts';
import { type Health, healthOf } from '../devices/health.ts';
import { settingsOfMany } from '../devices/settings-of-many.ts';
import { iso } from '../moments.ts';
import { isGuid } from '../tenant-view.ts';
import { effectiveOf, type HeldRow, heldColumns, heldOfDevice, isOut } from '../users/effective-state.ts';
import { lockUser } from '../users/locks.ts';
import { pageOf, readCursor, type Within, withinValues } from '../users/pages.ts';
import { lockActiveUser } from '../users/people.ts';
import {
  type CreatedRepository,
  type CreateRepositoryRequest,
  deleteDaysShown,
  type ListRepositoriesQuery,
  type RepositoryDetails,
  type RepositoryPage,
  type RepositoryView,
} from './shapes.ts';
import { enterToken, findMadeToken } from './tokens.ts';

const select = `SELECT d.device_id AS "deviceId", d.guid::text AS guid, d.name, d.user_id AS "userId", u.name AS "userName",
            o.organization_id AS "organizationId", o.name AS "organizationName", d.state, d.last_seen_at AS "lastSeenAt",
            d.created_at AS "createdAt", d.version, d.vault_id AS vault, d.archive_id AS archive, now() AS now, ${heldColumns}
       FROM devices d JOIN users u ON u.user_id = d.user_id JOIN organizations o ON o.organization_id = u.organization_id
      CROSS JOIN LATERAL ${heldOfDevice} held`;

const sql = {
  one: statement(
    'directory.readRepository',
    `${select} WHERE d.tenant_id = $1 AND d.guid = $2::bigint AND d.kind = 'restic'`,
  ),
  page: statement(
    'directory.pageRepositories',
    `${select}
      WHERE d.tenant_id = $1 AND d.kind = 'restic' AND d.device_id > $2
        AND ($4::bigint IS NULL OR o.path @> ARRAY[$4::bigint]) AND ($5::bigint IS NULL OR d.user_id = $5)
        AND ($6::bigint IS NULL OR d.user_id = $6)
        AND ($7::bigint IS NULL OR o.path @> ARRAY[$7::bigint])
        AND ($8::text IS NULL OR starts_with(lower(d.name), lower($8)))
      ORDER BY d.device_id LIMIT $3`,
  ),
  insert: statement(
    'directory.insertRepository',
    `INSERT INTO devices (device_id, tenant_id, user_id, guid, name, platform, agent_version, kind, vault_id, archive_id)
     VALUES ($1, $2, $3, $4, $5, 'other', 'restic', 'restic', $6, $7)`,
  ),
};

interface Row extends HeldRow {
  deviceId: number;
  guid: string;
  name: string;
  userId: number;
  userName: string;
  organizationId: number;
  organizationName: string;
  state: z.infer<typeof RepositoryView>['state'];
  lastSeenAt: Date | null;
  createdAt: Date;
  version: number;
  vault: number;
  archive: number;
  now: Date;
}

/** Drawn before the transaction. */
export interface DrawnRepository {
  guid: string;
  token: string;
}

export function drawGuid(): string {
  const value = randomBytes(8).readBigUInt64BE() >> 1n;
  return String(value === 0n ? 1n : value);
}

/**
 * Makes a repository for a user, and its first token.
 * @throws Problem not_found; conflict when the user or something above them is not active, when they have a repository of
 *   that name (field `name`) or as many devices as there may be
 */
export async function createRepository(
  tx: Transaction,
  by: By,
  request: { tenant: number; user: number } & z.output<typeof CreateRepositoryRequest>,
  drawn: DrawnRepository,
): Promise<z.infer<typeof CreatedRepository>> {
  const { tenant, user: userId, name } = request;
  const isActive = await lockActiveUser(tx, userId);
  const user = await lockUser(tx, { tenant, user: userId, expected: null });
  const made = await findMadeRepository(tx, { tenant, ...drawn });
  if (made) return made;
  if (!isActive) throw new Problem('conflict', 'this user, or something above them, is not active');
  await assertRepositoryName(tx, { user: userId, name });
  if (!(await hasRoomForDevice(tx, userId)))
    throw new Problem(
      'conflict',
      `this user has ${devicesPerUserMax} devices and repositories, and there may be no more`,
    );

  const deviceId = await nextDeviceId(tx);
  const vault = (await findVaultOfUser(tx, userId)) ?? (await createVault(tx, { userId }));
  if (vault === null) throw new Error(`user ${userId} got a vault outside of their lock`);
  const archive = await createArchive(tx, { vault, deviceId, kind: 'plain' });
  await tx.query(sql.insert, [deviceId, tenant, userId, drawn.guid, name, vault, archive]);
  await record(tx, by, {
    action: 'repository.create',
    target: { kind: 'device', id: drawn.guid, name },
    organization: user.organization,
    result: 'done',
    details: { user: userId },
  });
  const about = { tenant, guid: drawn.guid, name, user: userId, organization: user.organization };
  const token = await enterToken(tx, by, about, request.token, drawn.token);
  return { repository: await readRepositoryView(tx, { tenant, guid: drawn.guid }), token };
}

/** What a transaction of unknown outcome has made of what was drawn; null: nothing. */
export async function findMadeRepository(
  tx: Transaction,
  { tenant, guid, token }: { tenant: number } & DrawnRepository,
): Promise<z.infer<typeof CreatedRepository> | null> {
  const made = await findMadeToken(tx, { tenant, guid }, token);
  return made && { repository: await readRepositoryView(tx, { tenant, guid }), token: made };
}

/** Of a user's repository in its URL, after the server's name. */
export const repositoryPath = (name: string): string => `/restic/${name}/`;

/** @throws Problem not_found: there is no such device, or it is no repository */
async function readRow(db: Transaction, { tenant, guid }: { tenant: number; guid: string }): Promise<Row> {
  const [row] = isGuid(guid) ? await db.query<Row>(sql.one, [tenant, guid]) : [];
  if (!row) throw new Problem('not_found', 'there is no such repository');
  return row;
}

const alertDays = ['alerts.administratorWarningDays', 'alerts.administratorCriticalDays'] as const;
const settingNames = [...alertDays, 'restic.undeleteDays'] as const;

interface Described {
  row: Row;
  view: z.infer<typeof RepositoryView>;
  figures: readonly FolderFigures[];
  undeleteDays: number | null;
}

async function describe(db: Transaction, tenant: number, rows: readonly Row[]): Promise<Described[]> {
  const figures = await readPlainFigures(db, rows);
  const places = rows.map(({ organizationId }) => organizationId);
  const settings = await settingsOfMany(db, tenant, places, settingNames);
  return rows.map((row) => {
    const of = figures.get(`${row.vault}/${row.archive}`) ?? [];
    const [warningDays, criticalDays] = alertDays.map((name) => settings.value(row.organizationId, name));
    const isExpected = !isOut(row.heldState) && row.heldState !== 'deauthorized';
    const lastBackupAt = lastSnapshotAt(of);
    const health: Health | null =
      isExpected && warningDays != null && criticalDays != null
        ? healthOf({ since: lastBackupAt ?? row.createdAt, now: row.now }, { warningDays, criticalDays })
        : null;
    const undeleteDays = settings.value(row.organizationId, 'restic.undeleteDays');
    return { row, figures: of, undeleteDays, view: viewOf(row, of, { lastBackupAt, health }) };
  });
}

function viewOf(
  row: Row,
  figures: readonly FolderFigures[],
  { lastBackupAt, health }: { lastBackupAt: Date | null; health: Health | null },
): z.infer<typeof RepositoryView> {
  const sum = (pick: (each: FolderFigures) => number): number => figures.reduce((all, each) => all + pick(each), 0);
  return {
    guid: row.guid,
    name: row.name,
    user: { id: row.userId, name: row.userName },
    organization: { id: row.organizationId, name: row.organizationName },
    path: repositoryPath(row.name),
    state: row.state,
    effective: effectiveOf(row),
    health,
    lastBackupAt: iso(lastBackupAt),
    lastConnectedAt: iso(row.lastSeenAt),
    files: sum((each) => each.files),
    bytes: sum((each) => each.bytes),
    hiddenFiles: sum((each) => each.hiddenFiles),
    hiddenBytes: sum((each) => each.hiddenBytes),
    createdAt: row.createdAt.toISOString(),
    version: row.version,
  };
}

/** As in a list. @throws Problem not_found */
async function readRepositoryView(
  db: Transaction,
  of: { tenant: number; guid: string },
): Promise<z.infer<typeof RepositoryView>> {
  const [found] = await describe(db, of.tenant, [await readRow(db, of)]);
  return found!.view;
}

/** What a folder is called by people who know restic: the file at the top is its configuration. */
export const typeOfFolder = (folder: string): string => (folder === '' ? 'config' : folder);

/** @throws Problem not_found */
export async function readRepository(
  db: Transaction,
  of: { tenant: number; guid: string },
): Promise<z.infer<typeof RepositoryDetails>> {
  const [found] = await describe(db, of.tenant, [await readRow(db, of)]);
  const { row, view, figures, undeleteDays } = found!;
  const folders = figures.map(({ folder, lastAddedAt, goneBefore: _, ...counts }) => [
    typeOfFolder(folder),
    { ...counts, lastAddedAt: iso(lastAddedAt) },
  ]);
  return {
    ...view,
    undeleteDays,
    folders: Object.fromEntries(folders),
    deletes: await readDeletesByDay(db, row, deleteDaysShown),
  };
}

/** A page of the tenant's repositories, as far as the reader reaches, by id. @throws Problem out_of_bounds, field `after` */
export async function listRepositories(
  db: Transaction,
  of: { tenant: number; within: Within },
  query: z.infer<typeof ListRepositoriesQuery>,
): Promise<z.infer<typeof RepositoryPage>> {
  const rows = await db.query<Row>(sql.page, [
    of.tenant,
    readCursor(query.after),
    query.limit + 1,
    ...withinValues(of.within),
    query.user ?? null,
    query.below ?? null,
    query.search ?? null,
  ]);
  const described = await describe(db, of.tenant, rows);
  return pageOf(described, query.limit, { id: ({ row }) => row.deviceId, item: ({ view }) => view });
}
