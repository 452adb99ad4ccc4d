/**
 * Changes what an organization says itself: values, and locks that bind those below.
 *
 * Under the lock of the organization's row. What those above have locked is read after it and not kept from changing: if one
 * locks a setting at the same moment, the value set here is put aside by that lock, as if it had been set before.
 */
import { isDeepStrictEqual } from 'node:util';
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By, JsonValue } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { lockOrganization } from '../organizations/locking.ts';
import { groupOf, readSetting, type SettingName, settingNames } from './definitions.ts';
import { effectiveSetting, type OwnSettings } from './effective.ts';
import { type ChangeSettingsRequest, keyOf, namesIn } from './shapes.ts';
import { readSettings, settingsOnPath } from './stored.ts';

const sql = {
  set: statement(
    'directory.setSetting',
    `INSERT INTO organization_settings (tenant_id, organization_id, name, value, locked) VALUES ($1, $2, $3, $4::jsonb, $5)
         ON CONFLICT (organization_id, name) DO UPDATE SET value = EXCLUDED.value, locked = EXCLUDED.locked`,
  ),
  clear: statement(
    'directory.clearSetting',
    'DELETE FROM organization_settings WHERE tenant_id = $1 AND organization_id = $2 AND name = $3',
  ),
  raise: statement(
    'directory.raiseOrganizationVersion',
    'UPDATE organizations SET version = version + 1 WHERE tenant_id = $1 AND organization_id = $2',
  ),
};

type Own = { value: unknown; locked: boolean };

interface Change {
  name: SettingName;
  from: Own | null;
  /** Null: it inherits. */
  to: Own | null;
}

/**
 * @returns the settings as they are then
 * @throws Problem not_found, precondition_failed; out_of_bounds with all `faults`, the first one's `field` as
 *   `settings.quotas.seats`; conflict (`lockedBy`): an organization above has locked it
 */
export async function changeSettings(
  tx: Transaction,
  by: By,
  request: {
    tenant: number;
    organization: number;
    changes: z.infer<typeof ChangeSettingsRequest>;
    expected: number | null;
  },
) {
  const { tenant, organization, changes, expected } = request;
  const { name: organizationName } = await lockOrganization(tx, tenant, organization, expected);
  const { path } = await settingsOnPath(tx, request, settingNames);
  const planned = planChanges(path, changes);
  for (const { name, to } of planned) {
    if (to === null) await tx.query(sql.clear, [tenant, organization, name]);
    else await tx.query(sql.set, [tenant, organization, name, JSON.stringify(to.value), to.locked]);
  }
  if (planned.length > 0) await tx.query(sql.raise, [tenant, organization]);
  // One act each: what does not fit into one is left out of it.
  for (const { name, from, to } of planned) {
    await record(tx, by, {
      action: 'settings.change',
      target: { kind: 'organization', id: organization, name: organizationName },
      organization,
      result: 'done',
      details: { setting: name, from: inLog(from), to: inLog(to) },
    });
  }
  return readSettings(tx, request);
}

/**
 * Decides what changes: pure. What is asked for and is so already is no change.
 * @param path from the top down to the organization that changes
 * @throws Problem, as above
 */
export function planChanges(
  path: readonly OwnSettings[],
  { settings, locked }: z.infer<typeof ChangeSettingsRequest>,
): Change[] {
  const own = path.at(-1)!.own;
  const named = new Set([...namesIn(settings), ...namesIn(locked)]);
  assertValues(settings);
  return [...named]
    .map((name): Change => {
      const from = own[name] ?? null;
      const asked = { value: settings[groupOf(name)]?.[keyOf(name)], locked: locked[groupOf(name)]?.[keyOf(name)] };
      return { name, from, to: planned(path, name, from, asked) };
    })
    .filter(({ from, to }) => !isDeepStrictEqual(from, to));
}

function planned(
  path: readonly OwnSettings[],
  name: SettingName,
  from: Own | null,
  asked: { value: unknown; locked: boolean | undefined },
): Own | null {
  const holds = effectiveSetting(name, path);
  const { lockedBy } = holds;
  if (lockedBy)
    throw new Problem('conflict', `organization ${lockedBy.name} (${lockedBy.id}) has locked ${name}`, {
      field: `settings.${name}`,
      lockedBy,
    });
  if (asked.value === null) {
    if (!asked.locked) return null;
    throw new Problem('out_of_bounds', `${name} cannot be inherited and locked at once`, { field: `locked.${name}` });
  }
  if (asked.value !== undefined)
    return { value: readSetting(name, asked.value).value, locked: asked.locked ?? from?.locked ?? false };
  if (from) return { ...from, locked: asked.locked ?? from.locked };
  if (!asked.locked) return null;
  // A lock is of a value: from now on its own, so that it binds to what its administrator sees now.
  if (holds.value === null)
    throw new Problem('conflict', `${name} is stored in a way that cannot be read: set it, then lock it`, {
      field: `locked.${name}`,
    });
  return { value: holds.value, locked: true };
}

/** @throws Problem out_of_bounds */
function assertValues(settings: z.infer<typeof ChangeSettingsRequest>['settings']): void {
  const faults = namesIn(settings).flatMap((name) => {
    const value = settings[groupOf(name)]?.[keyOf(name)];
    return value === null ? [] : (readSetting(name, value).faults ?? []);
  });
  if (faults.length === 0) return;
  const named = faults.map(({ field, message }) => ({ field: `settings.${field}`, message }));
  const detail = named.map(({ message }) => message).join('; ');
  throw new Problem('out_of_bounds', detail, { field: named[0]!.field, faults: named });
}

const inLog = (own: Own | null): JsonValue => own && { value: own.value as JsonValue, locked: own.locked };
