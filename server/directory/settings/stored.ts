/**
 * The settings of an organization as they are stored on its way up, and what follows from them. One statement, whose cost
 * is the depth of the tree.
 */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { groupOf, type SettingName, settingNames } from './definitions.ts';
import { type EffectiveSetting, effectiveSetting, type OwnSettings } from './effective.ts';
import { keyOf, type SettingsView, type SettingView } from './shapes.ts';

const sql = {
  // `asked.version` on every row: how the organization was when this was read.
  wayDown: statement(
    'directory.settingsOnPath',
    `SELECT a.organization_id AS id, a.name, asked.version,
            (SELECT json_object_agg(s.name, json_build_object('value', s.value, 'locked', s.locked))
               FROM organization_settings s WHERE s.organization_id = a.organization_id AND s.name = ANY ($3::text[])) AS own
       FROM organizations asked CROSS JOIN LATERAL unnest(asked.path) WITH ORDINALITY AS above (id, place)
       JOIN organizations a ON a.organization_id = above.id
      WHERE asked.tenant_id = $1 AND asked.organization_id = $2 ORDER BY above.place`,
  ),
};

export interface SettingsOnPath {
  /** Of the organization asked about. */
  version: number;
  /** From the tenant's top down to the organization asked about. */
  path: OwnSettings[];
}

/** @throws Problem not_found */
export async function settingsOnPath(
  db: Transaction,
  of: { tenant: number; organization: number },
  names: readonly SettingName[],
): Promise<SettingsOnPath> {
  type Row = { id: number; name: string; version: number; own: OwnSettings['own'] | null };
  const rows = await db.query<Row>(sql.wayDown, [of.tenant, of.organization, names]);
  if (rows.length === 0) throw new Problem('not_found', 'there is no such organization');
  const path = rows.map(({ id, name, own }) => ({ organization: { id, name }, own: own ?? {} }));
  return { version: rows[0]!.version, path };
}

/**
 * What some settings are for an organization, for other parts of the server. A setting whose `value` is null is stored in a
 * way this code cannot read: whoever needs it does nothing, and does not take the default instead.
 * @throws Problem not_found
 */
export async function effectiveSettingsOf<Name extends SettingName>(
  db: Transaction,
  tenant: number,
  organization: number,
  names: readonly Name[],
): Promise<{ [Each in Name]: EffectiveSetting<Each> }> {
  const { path } = await settingsOnPath(db, { tenant, organization }, names);
  const found = names.map((name) => [name, effectiveSetting(name, path)] as const);
  return Object.fromEntries(found) as { [Each in Name]: EffectiveSetting<Each> };
}

/**
 * All settings of an organization by group: what holds, where that comes from, and what is its own.
 * @throws Problem not_found
 */
export async function readSettings(
  db: Transaction,
  of: { tenant: number; organization: number },
): Promise<z.infer<typeof SettingsView>> {
  const { version, path } = await settingsOnPath(db, of, settingNames);
  const { organization, own } = path.at(-1)!;
  const settings: Record<string, Record<string, z.infer<typeof SettingView>>> = {};
  for (const name of settingNames) {
    const group = groupOf(name);
    settings[group] ??= {};
    const { name: _, ...effective } = effectiveSetting(name, path);
    settings[group][keyOf(name)] = { ...effective, own: own[name]?.value ?? null };
  }
  return { organization, version, settings };
}
