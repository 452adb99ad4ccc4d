/** Alerts for people: what happened, to whose archive, and what to do about it. */
import { type AlertKind, type AlertRow, listAlerts } from '../../storage/catalog/checking/alerts.ts';
import type { Database } from '../../storage/catalog/database.ts';
import { listDevicesOfVault } from '../directory/devices.ts';
import { listUsers, type UserRow } from '../directory/tenant-view.ts';
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

/** One vault's alerts are read at most so far back. */
const perVaultMax = 1_000;

/**
 * The tenant's alerts, the latest first.
 * @param of.server also what concerns the server as a whole, which is for those who run it
 * @param options.reviewed also those that somebody has reviewed
 * @param options.signal stops the look, with its reason: a tenant may have many users
 */
export async function tenantAlerts(
  database: Database,
  of: { tenantId: number; server: boolean },
  options: { reviewed: boolean; limit: number; signal?: AbortSignal },
): Promise<{ alerts: ShownAlert[]; more: boolean }> {
  const { reviewed, limit, signal } = options;
  const perVault = { reviewed, limit: Math.min(limit + 1, perVaultMax) };
  let latest: { row: AlertRow; user: UserRow | null }[] = [];
  const keep = (rows: readonly AlertRow[], user: UserRow | null): void => {
    if (rows.length === 0) return;
    latest.push(...rows.map((row) => ({ row, user })));
    latest = latest.sort((a, b) => b.row.latestAt.getTime() - a.row.latestAt.getTime()).slice(0, limit + 1);
  };
  if (of.server) keep(await listAlerts(database, 0, perVault), null);
  for await (const user of listUsers(database, of.tenantId)) {
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
