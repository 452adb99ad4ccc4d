/** Alerts for people: what happened, to whose archive, and what to do about it. */
import { type AlertKind, type AlertRow, listAlerts } from '../../storage/catalog/checking/alerts.ts';
import type { Database } from '../../storage/catalog/database.ts';
import { listDevicesOfVault } from '../directory/devices.ts';
import { listUsers, type UserRow } from '../directory/tenant-view.ts';
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
 */
export async function tenantAlerts(
  database: Database,
  of: { tenantId: number; server: boolean },
  options: { reviewed: boolean; limit: number },
): Promise<{ alerts: ShownAlert[]; more: boolean }> {
  const { reviewed, limit } = options;
  const perVault = { reviewed, limit: Math.min(limit + 1, perVaultMax) };
  let latest: { row: AlertRow; user: UserRow | null }[] = [];
  const keep = (rows: readonly AlertRow[], user: UserRow | null): void => {
    if (rows.length === 0) return;
    latest.push(...rows.map((row) => ({ row, user })));
    latest = latest.sort((a, b) => b.row.latestAt.getTime() - a.row.latestAt.getTime()).slice(0, limit + 1);
  };
  if (of.server) keep(await listAlerts(database, 0, perVault), null);
  for await (const user of listUsers(database, of.tenantId))
    if (user.vault !== null) keep(await listAlerts(database, user.vault, perVault), user);

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

/** What an alert means. Its details are whatever raised it said, so that none of them is taken for granted. */
export function explainAlert(kind: AlertKind, details: Record<string, unknown>): { says: string; toDo: string } {
  const the = (name: string): string => String(details[name] ?? 'an unknown number');
  switch (kind) {
    case 'suspicious_run': {
      const { startedAt } = details;
      const when = typeof startedAt === 'number' ? ` of ${moment(startedAt)}` : '';
      return {
        says: `Backup run ${the('run')}${when} changed or deleted ${the('replacedFiles')} of the ${the('liveFilesBefore')} files there were. Retention deletes nothing of this archive meanwhile.`,
        toDo: `Find out what changed the files. If it was not meant, restore with "--before-run ${the('run')}", and do not review this before you have what you need. Reviewing lets retention delete again.`,
      };
    }
    case 'expiry_cap':
      return {
        says: `Retention would delete ${the('expiring')} of the ${the('versionCount')} versions at once; at most ${the('cap')} more go unasked today. It has stopped there.`,
        toDo: 'Look at the plan, and at who changed the policy. Reviewing lets the next prune delete so many, once, under the policy as it is now.',
      };
    case 'refs_drift':
      return {
        says: 'Counts do not agree with what they count, which is a fault of the program. What is concerned is not deleted.',
        toDo: 'Report it with its details. Reviewing closes the alert; it comes back while the cause is there.',
      };
    case 'verify_suspicious':
      return {
        says: `Much more looks damaged than bit rot explains (${the('damaged')} of ${the('blocks')} blocks): a wrong bucket, or a store that lies. Nothing was marked.`,
        toDo: 'Look at the object store first. Reviewing says that the damage is real: for a week, what is found is marked, and agents send it again.',
      };
    case 'damaged':
      return {
        says: `${the('blocks')} blocks do not hold their bytes any more. Agents send again what they still have.`,
        toDo: 'Look at the damage of the devices concerned for what no agent can heal. It closes by itself when all is well.',
      };
    case 'deleting_stopped':
      return {
        says: `Nothing is deleted: ${typeof details.detail === 'string' ? details.detail : 'the fence does not hold'}. Backups and restores go on.`,
        toDo: 'Do what it says. It closes by itself when the fence holds.',
      };
    default:
      return { says: `An alert of the kind "${String(kind)}".`, toDo: 'Look at its details. Reviewing closes it.' };
  }
}
