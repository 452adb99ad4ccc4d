/** The history of restores: who restored what of whose archive, and how it went. */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import type { Transaction } from '../../../storage/catalog/database.ts';
import { type Actor, may } from '../roles/may.ts';
import { type DeviceTarget, findDeviceTarget } from '../targets.ts';
import { pageOf, readCursor, type Within, withinValues } from '../users/pages.ts';
import { listRestoreRows, type RestoreWithLists, readRestoreRow, shownPath, viewOf } from './rows.ts';
import type { ListRestoresQuery, RestoreDetails, RestorePage, RestoreViewed } from './shapes.ts';

/**
 * A page of it, newest first. Whoever reaches nobody's archives but their own sees what they restored themselves: what an
 * administrator looks into is in the audit log.
 */
export async function list(
  db: Transaction,
  { tenant, within }: { tenant: number; within: Within },
  query: z.output<typeof ListRestoresQuery>,
): Promise<z.output<typeof RestorePage>> {
  const { device, askedBy, askedByClient, state, since, until, kind, user, askedByName, bytesMin, after, limit } =
    query;
  if (askedBy !== undefined && askedByClient !== undefined)
    throw new Problem('malformed_request', 'who asked is a user or an API client', { field: 'askedByClient' });
  const [path, alone] = withinValues(within);
  const rows = await listRestoreRows(db, tenant, {
    below: readCursor(after),
    rows: limit + 1,
    path,
    alone,
    state: state ?? null,
    since: since ?? null,
    until: until ?? null,
    guid: device ?? null,
    asker:
      askedBy !== undefined
        ? { kind: 'user', id: askedBy }
        : askedByClient !== undefined
          ? { kind: 'client', id: askedByClient }
          : null,
    kind: kind ?? null,
    user: user ?? null,
    askerName: askedByName ?? null,
    bytesMin: bytesMin ?? null,
  });
  return pageOf(rows, limit, { id: (row) => row.id, item: (row): RestoreViewed => viewOf(row) });
}

/** A restore, as what a request is about: the device whose archive it is of. */
export interface RestoreTarget extends DeviceTarget {
  restore: RestoreWithLists;
}

/** @param permission by which those see it who did not ask for it
 * @returns null: there is none, it is not for this actor to see, or the device has another archive now */
export async function findRestoreTarget(
  db: Transaction,
  actor: Actor,
  restore: number,
  permission: 'restore.limited' | 'pushrestore.limited' = 'restore.limited',
): Promise<RestoreTarget | null> {
  const row = await readRestoreRow(db, { tenant: actor.tenant, restore });
  const device = row && (await findDeviceTarget(db, actor.tenant, row.guid));
  if (!device || device.vault !== row.vault || device.archive !== row.archive) return null;
  const isAsker = actor.user !== null && row.askerKind === 'user' && row.askerId === actor.user;
  if (!isAsker && !may(actor, permission, device).allowed) return null;
  return { ...device, restore: row };
}

export function read({ restore }: RestoreTarget): z.output<typeof RestoreDetails> {
  const notHad = (stored: RestoreWithLists['leaveOut']) =>
    stored.map(({ path, reason }) => ({ ...shownPath(path), reason }));
  return {
    ...viewOf(restore),
    selected: restore.paths.map(shownPath),
    leftOutFirst: notHad(restore.leftOutFirst),
    brokeOffAt: notHad(restore.leaveOut),
  };
}
