/**
 * The licence report: what each user takes now, and per organization what comes to its day in a month. Read from the
 * history that the database keeps of who counted when (migrations/0013_quotas.sql); nothing here is written.
 *
 * A device that was replaced is the same device as its successor: both have its GUID and archive.
 */

import { Problem } from '../../../protocol/problems.ts';
import { readNow } from '../../../storage/catalog/checking/checking.ts';
import { type Database, statement, type Transaction } from '../../../storage/catalog/database.ts';
import { findOrganizationTarget } from '../targets.ts';
import { readCursor, type Within, withinValues, writeCursor } from '../users/pages.ts';
import { devicesCountingAt, type LicenceHistory, licencesAt, renewalsBetween } from './licences.ts';
import { type LicenceStatement, readMonth, type StatementLine, type UserLicences } from './shapes.ts';

const sql = {
  users: statement(
    'directory.licenceUsers',
    `SELECT u.user_id AS "userId", u.name AS "userName", o.organization_id AS "organizationId", o.name AS "organizationName"
       FROM users u JOIN organizations o ON o.organization_id = u.organization_id
      WHERE u.tenant_id = $1 AND ($2::bigint IS NULL OR o.path @> ARRAY[$2::bigint]) AND ($3::bigint IS NULL OR u.user_id = $3)
        AND u.user_id > $4
      ORDER BY u.user_id LIMIT $5`,
  ),

  changes: statement(
    'directory.licenceChanges',
    `SELECT user_id AS "userId", guid::text AS guid, counts, at FROM licence_history
      WHERE tenant_id = $1 AND user_id = ANY ($2::bigint[]) ORDER BY at, history_id`,
  ),

  // The first backup is the engine's to tell; asked by the key of the archive.
  devices: statement(
    'directory.licenceDevices',
    `SELECT d.user_id AS "userId", d.guid::text AS guid, a.first_committed_at AS "firstBackupAt"
       FROM devices d JOIN archives a ON a.vault_id = d.vault_id AND a.archive_id = d.archive_id
      WHERE d.tenant_id = $1 AND d.user_id = ANY ($2::bigint[]) AND d.state <> 'replaced' AND d.kind = 'agent' AND a.first_committed_at IS NOT NULL`,
  ),
};

/** Users read at a time; a user has up to a thousand devices, and most have two. */
const pageUsers = 200;

interface UserRow {
  userId: number;
  userName: string;
  organizationId: number;
  organizationName: string;
}

interface UserHistory extends UserRow {
  history: LicenceHistory;
}

/**
 * What users take now, a page of users in the order of their ids. Those who take nothing are left out, so a page may hold
 * fewer than `limit`, and none, though there is a next one.
 * @throws Problem out_of_bounds, field `after`
 */
export async function listLicences(
  db: Database | Transaction,
  { tenant, within, limit, after }: { tenant: number; within: Within; limit: number; after?: string },
): Promise<{ items: UserLicences[]; next: string | null }> {
  const now = await readNow(db);
  const users = await readHistories(db, { tenant, within, limit: limit + 1, after: readCursor(after) });
  const page = users.slice(0, limit);
  const last = page.at(-1);
  return {
    items: page.map((user) => licencesOf(user, now)).filter(({ licences }) => licences.length > 0),
    next: users.length > limit && last ? writeCursor(last.userId) : null,
  };
}

/** The same of everybody, some users at a time. */
export async function* eachLicences(
  db: Database | Transaction,
  { tenant, within }: { tenant: number; within: Within },
): AsyncGenerator<UserLicences[]> {
  const now = await readNow(db);
  for await (const users of eachHistories(db, { tenant, within }))
    yield users.map((user) => licencesOf(user, now)).filter(({ licences }) => licences.length > 0);
}

/**
 * What renews, and what ends, in an organization and below it in a month: where its users are now, whoever had them then.
 * @param month as `2026-11`
 * @throws Problem not_found; out_of_bounds, field `month`
 */
export async function readLicenceStatement(
  db: Database | Transaction,
  { tenant, organization, month }: { tenant: number; organization: number; month: string },
): Promise<LicenceStatement> {
  const now = await readNow(db);
  const { from, to } = readMonth(month, now);
  const target = await findOrganizationTarget(db, tenant, organization);
  if (!target) throw new Problem('not_found', 'there is no such organization');
  const lines: StatementLine[] = [];
  for await (const users of eachHistories(db, { tenant, within: { path: organization } }))
    for (const user of users) lines.push(...linesOf(user, { from, to, now }));
  lines.sort((a, b) => a.renewsOn.localeCompare(b.renewsOn) || a.user - b.user || a.number - b.number);
  const renewing = lines.filter(({ renews }) => renews).length;
  return {
    organization: { id: target.id, name: target.name },
    month,
    madeAt: now.toISOString(),
    totals: { renewing, ending: lines.length - renewing },
    lines,
  };
}

function licencesOf({ history, ...user }: UserHistory, now: Date): UserLicences {
  return {
    user: user.userId,
    userName: user.userName,
    organization: user.organizationId,
    organizationName: user.organizationName,
    devices: devicesCountingAt(history, now),
    licences: licencesAt(history, now).map(({ number, takenAt, renewsAt, needed }) => ({
      number,
      takenOn: dayOf(takenAt),
      renewsOn: dayOf(renewsAt),
      needed,
    })),
  };
}

function linesOf({ history, ...user }: UserHistory, span: { from: Date; to: Date; now: Date }): StatementLine[] {
  return renewalsBetween(history, span).map(({ number, takenAt, renewsAt, renews, settled }) => ({
    organization: user.organizationId,
    organizationName: user.organizationName,
    user: user.userId,
    userName: user.userName,
    number,
    takenOn: dayOf(takenAt),
    renewsOn: dayOf(renewsAt),
    renews,
    settled,
  }));
}

const dayOf = (at: Date): string => at.toISOString().slice(0, 10);

async function* eachHistories(db: Transaction, of: { tenant: number; within: Within }): AsyncGenerator<UserHistory[]> {
  for (let after = 0; ; ) {
    const page = await readHistories(db, { ...of, limit: pageUsers, after });
    if (page.length > 0) yield page;
    if (page.length < pageUsers) return;
    after = page.at(-1)!.userId;
  }
}

async function readHistories(
  db: Transaction,
  { tenant, within, limit, after }: { tenant: number; within: Within; limit: number; after: number },
): Promise<UserHistory[]> {
  const users = await db.query<UserRow>(sql.users, [tenant, ...withinValues(within), after, limit]);
  const ids = users.map(({ userId }) => userId);
  type ChangeRow = { userId: number; guid: string | null; counts: boolean; at: Date };
  type DeviceRow = { userId: number; guid: string; firstBackupAt: Date };
  const changes = Map.groupBy(await db.query<ChangeRow>(sql.changes, [tenant, ids]), ({ userId }) => userId);
  const devices = Map.groupBy(await db.query<DeviceRow>(sql.devices, [tenant, ids]), ({ userId }) => userId);
  return users.map((user) => {
    const byGuid = Map.groupBy(changes.get(user.userId) ?? [], ({ guid }) => guid);
    const ofDevices = (devices.get(user.userId) ?? []).map(({ guid, firstBackupAt }) => ({
      firstBackupAt,
      changes: byGuid.get(guid) ?? [],
    }));
    return { ...user, history: { user: byGuid.get(null) ?? [], devices: ofDevices } };
  });
}
