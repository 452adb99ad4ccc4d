/**
 * Archives of what is deactivated go cold, each with a date, and come back with what it belongs to. A device, a user and
 * the organizations above may each be deactivated: an archive is cold while any of them is, whichever came first, and
 * keeps the date it got then.
 *
 * Called in the transaction that changes the state, after the change, under the lock of the tenant's row (for sharing,
 * where the change is one device's). Archives are locked after all rows of the directory, a page of devices at a time and
 * those of one date in the order of their keys: archives of several users are changed by whoever has the tenant's row alone,
 * so that two of them never meet, and whoever else locks archives (a commit, a deleter) has those of one vault.
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import {
  coolArchiveRows,
  lockColdArchive,
  setColdUntilRow,
  warmArchiveRows,
} from '../../../storage/catalog/deleting/cold.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { isGuid } from '../tenant-view.ts';
import { type EffectiveState, heldOfDevice, isOut } from '../users/effective-state.ts';
import { settingsOfMany } from './settings-of-many.ts';

/** As long as a setting may say: 100 years. */
const coldDaysMax = 36_500;
const dayMs = 86_400_000;
/** Devices dealt with together. */
const pageDevices = 1_000;

const sql = {
  devices: statement(
    'directory.devicesInScope',
    `SELECT d.device_id AS "deviceId", d.guid::text AS guid, d.vault_id AS vault, d.archive_id AS archive, u.organization_id AS organization, held.state
       FROM devices d JOIN users u ON u.user_id = d.user_id JOIN organizations o ON o.organization_id = u.organization_id
      CROSS JOIN LATERAL ${heldOfDevice} held
      WHERE d.tenant_id = $1 AND d.device_id > $2 AND d.state <> 'replaced'
        AND ($4::bigint IS NULL OR d.device_id = $4) AND ($5::bigint IS NULL OR d.user_id = $5)
        AND ($6::bigint IS NULL OR o.path @> ARRAY[$6::bigint])
      ORDER BY d.device_id LIMIT $3`,
  ),

  archive: statement(
    'directory.archiveOfDevice',
    `SELECT d.name, d.vault_id AS vault, d.archive_id AS archive, u.organization_id AS organization
       FROM devices d JOIN users u ON u.user_id = d.user_id
      WHERE d.tenant_id = $1 AND d.guid = $2::bigint AND d.state <> 'replaced'`,
  ),
};

/** Whose archives: a device's (its row's id), all of a user's, or all in an organization and below it. */
export type ColdScope = { device: number } | { user: number } | { organization: number };

interface ScopeRow {
  deviceId: number;
  guid: string;
  vault: number;
  archive: number;
  organization: number;
  state: EffectiveState;
}

async function* devicesIn(tx: Transaction, tenant: number, of: ColdScope): AsyncGenerator<ScopeRow[]> {
  const scope = [
    'device' in of ? of.device : null,
    'user' in of ? of.user : null,
    'organization' in of ? of.organization : null,
  ];
  for (let last = 0; ; ) {
    const page = await tx.query<ScopeRow>(sql.devices, [tenant, last, pageDevices, ...scope]);
    yield page;
    if (page.length < pageDevices) return;
    last = page.at(-1)!.deviceId;
  }
}

/**
 * Makes cold what is deactivated now and was in use, for as many days as `coldStorage.days` says where it is.
 * @returns how many archives
 * @throws Problem conflict when that setting cannot be read
 */
export async function coolArchives(
  tx: Transaction,
  by: By,
  { tenant, of }: { tenant: number; of: ColdScope },
): Promise<number> {
  const dates: number[] = [];
  let example: ScopeRow | undefined;
  for await (const devices of devicesIn(tx, tenant, of)) {
    const out = devices.filter(({ state }) => isOut(state));
    example ??= out[0];
    const places = out.map(({ organization }) => organization);
    const settings = await settingsOfMany(tx, tenant, places, ['coldStorage.days']);
    const daysOf = ({ organization }: ScopeRow): number => {
      const days = settings.value(organization, 'coldStorage.days');
      if (days === null)
        throw new Problem('conflict', `coldStorage.days of organization ${organization} cannot be read; set it first`, {
          organization,
        });
      return days;
    };
    for (const [days, archives] of Map.groupBy(out, daysOf))
      for (const until of await coolArchiveRows(tx, archives, days)) dates.push(until.getTime());
  }
  if (dates.length > 0)
    await recordArchives(
      tx,
      by,
      { of, example: example! },
      {
        action: 'archive.cool',
        details: {
          archives: dates.length,
          firstUntil: new Date(dates.reduce((a, b) => Math.min(a, b))).toISOString(),
          lastUntil: new Date(dates.reduce((a, b) => Math.max(a, b))).toISOString(),
        },
      },
    );
  return dates.length;
}

/** Takes back into use what is not deactivated any more. @returns how many archives */
export async function warmArchives(
  tx: Transaction,
  by: By,
  { tenant, of }: { tenant: number; of: ColdScope },
): Promise<number> {
  let archives = 0;
  let example: ScopeRow | undefined;
  for await (const devices of devicesIn(tx, tenant, of)) {
    const back = devices.filter(({ state }) => !isOut(state));
    example ??= back[0];
    if (back.length > 0) archives += (await warmArchiveRows(tx, back)).length;
  }
  if (archives > 0)
    await recordArchives(tx, by, { of, example: example! }, { action: 'archive.warm', details: { archives } });
  return archives;
}

function recordArchives(
  tx: Transaction,
  by: By,
  { of, example }: { of: ColdScope; example: ScopeRow },
  act: { action: string; details: Record<string, number | string> },
): Promise<void> {
  const [kind, id] =
    'device' in of
      ? (['device', example.guid] as const)
      : 'user' in of
        ? (['user', of.user] as const)
        : (['organization', of.organization] as const);
  const organization = 'organization' in of ? of.organization : example.organization;
  return record(tx, by, { ...act, target: { kind, id, name: null }, organization, result: 'done' });
}

/**
 * Sets the date until which a cold archive is kept. One that has expired is recovered by it: it is cold again.
 * @returns the date
 * @throws Problem not_found; conflict { state } when the archive is in use, or has expired and lost its versions;
 *   out_of_bounds (field `until`) for a moment that is past, or too far off
 */
export async function setColdUntil(
  tx: Transaction,
  by: By,
  request: { tenant: number; guid: string; until: Date },
): Promise<Date> {
  const { tenant, guid, until } = request;
  type Row = { name: string; vault: number; archive: number; organization: number };
  const [device] = isGuid(guid) ? await tx.query<Row>(sql.archive, [tenant, guid]) : [];
  const archive = device && (await lockColdArchive(tx, device));
  if (!device || !archive) throw new Problem('not_found', 'there is no such device');
  const { state, versions, now } = archive;
  if (state === 'active') throw new Problem('conflict', 'the archive is in use, and kept', { state });
  if (state === 'expired' && versions === 0)
    throw new Problem('conflict', 'the archive has expired, and its versions were deleted', { state });
  const ahead = until.getTime() - now.getTime();
  if (!(ahead > 0 && ahead <= coldDaysMax * dayMs))
    throw new Problem('out_of_bounds', `a date from now on, at most ${coldDaysMax} days ahead`, { field: 'until' });
  await setColdUntilRow(tx, device, until);
  await record(tx, by, {
    action: 'archive.set_cold_until',
    target: { kind: 'archive', id: device.archive, name: device.name },
    organization: device.organization,
    result: 'done',
    details: { device: guid, state, from: archive.until?.toISOString() ?? null, to: until.toISOString() },
  });
  return until;
}
