/** Alerts for people: what happened, to whose archive, and what to do about it. */
import { type AlertKind, type AlertRow, listAlerts } from '../../storage/catalog/checking/alerts.ts';
import type { Database } from '../../storage/catalog/database.ts';
import { listDevicesOfVault } from '../directory/devices/devices.ts';
import { listUsers, type Reading, type UserRow } from '../directory/tenant-view.ts';
import { explainAlert } from './alert-words.ts';
import { moment, type ShownDevice, shownDevice } from './shapes.ts';

export interface ShownAlert {
  /** Together with `alert` its name. 0: about the whole server. */
  vault: number;
  alert: number;
  kind: AlertKind;
  says: string;
  /** What reviewing it does, and what to do before. */
  toDo: string;
  user: { id: number; name: string } | null;
  /** Null: it is about all of the vault. */
  device: ShownDevice | null;
  details: Record<string, unknown>;
  raisedAt: string | null;
  latestAt: string | null;
  /** How often it was found. */
  count: number;
  reviewedAt: string | null;
  reviewedBy: string | null;
}

/** In the place of a vault: alerts about the whole server. */
export const serverVault = 0;

/** One vault's alerts are read at most so far back. */
const perVaultMax = 1_000;

export interface AlertsAsked {
  /** Also those that somebody has reviewed. */
  reviewed: boolean;
  /** At most so many. */
  limit: number;
}

export interface ShownAlerts {
  alerts: ShownAlert[];
  /** There are older ones. */
  more: boolean;
}

/** What concerns the server as a whole, the latest first: for those who run it. */
export async function serverAlerts(database: Database, { reviewed, limit }: AlertsAsked): Promise<ShownAlerts> {
  const rows = await listAlerts(database, serverVault, { reviewed, limit: limit + 1 });
  const latest = rows.sort((a, b) => b.latestAt.getTime() - a.latestAt.getTime());
  const alerts = await Promise.all(latest.slice(0, limit).map((row) => shown(database, row, null)));
  return { alerts, more: rows.length > limit };
}

/**
 * The alerts of a tenant's users, as far as the reader reaches, the latest first.
 * @param options.signal stops the look, with its reason: a tenant may have many users
 */
export async function tenantAlerts(
  database: Database,
  of: Reading,
  options: AlertsAsked & { signal?: AbortSignal },
): Promise<ShownAlerts> {
  const { reviewed, limit, signal } = options;
  const perVault = { reviewed, limit: Math.min(limit + 1, perVaultMax) };
  let latest: { row: AlertRow; user: UserRow }[] = [];
  const keep = (rows: readonly AlertRow[], user: UserRow): void => {
    if (rows.length === 0) return;
    latest.push(...rows.map((row) => ({ row, user })));
    latest = latest.sort((a, b) => b.row.latestAt.getTime() - a.row.latestAt.getTime()).slice(0, limit + 1);
  };
  for await (const user of listUsers(database, of)) {
    signal?.throwIfAborted();
    if (user.vault !== null) keep(await listAlerts(database, user.vault, perVault), user);
  }

  const alerts: ShownAlert[] = [];
  for (const { row, user } of latest.slice(0, limit)) alerts.push(await shown(database, row, user));
  return { alerts, more: latest.length > limit };
}

async function shown(database: Database, row: AlertRow, user: UserRow | null): Promise<ShownAlert> {
  const { vault, alert, archive, kind, details, raisedAt, latestAt, count, reviewedAt, reviewedBy } = row;
  const devices = archive === 0 ? [] : await listDevicesOfVault(database, vault);
  const device = devices.find((each) => each.archive === archive);
  return {
    vault,
    alert,
    kind,
    ...explainAlert(kind, details),
    user: user && { id: user.userId, name: user.userName },
    device: device ? shownDevice(device) : null,
    details,
    raisedAt: moment(raisedAt),
    latestAt: moment(latestAt),
    count,
    reviewedAt: moment(reviewedAt),
    reviewedBy,
  };
}
