/** Settings of many organizations at once: a page of devices, or a whole subtree, asks for all of theirs in one statement. */
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { packArray } from '../../../storage/catalog/writing/packing.ts';
import type { SettingName, SettingValue } from '../settings/definitions.ts';
import { effectiveSetting, type OwnSettings } from '../settings/effective.ts';

const sql = {
  own: statement(
    'directory.ownSettingsAbove',
    `SELECT x.id AS asked, o.organization_id AS id, o.name, s.name AS setting, s.value, s.locked
       FROM unnest($2::bigint[]) AS x (id)
       JOIN organizations a ON a.organization_id = x.id AND a.tenant_id = $1
       JOIN organizations o ON o.organization_id = ANY (a.path)
       LEFT JOIN organization_settings s ON s.organization_id = o.organization_id AND s.name = ANY ($3::text[])
      ORDER BY x.id, cardinality(o.path)`,
  ),
};

interface Row {
  asked: number;
  id: number;
  name: string;
  setting: SettingName | null;
  value: unknown;
  locked: boolean | null;
}

export interface SettingsOfMany {
  /** Null: the stored value cannot be read, so whoever needs it must do nothing. */
  value<Name extends SettingName>(organization: number, name: Name): SettingValue<Name> | null;
}

/** @param names the settings that will be asked for */
export async function settingsOfMany(
  db: Transaction,
  tenant: number,
  organizations: Iterable<number>,
  names: readonly SettingName[],
): Promise<SettingsOfMany> {
  const ids = [...new Set(organizations)];
  const rows = ids.length === 0 ? [] : await db.query<Row>(sql.own, [tenant, packArray(ids), packArray([...names])]);
  const paths = new Map<number, Map<number, { organization: OwnSettings['organization']; own: Own }>>();
  for (const { asked, id, name, setting, value, locked } of rows) {
    const path = paths.get(asked) ?? new Map();
    paths.set(asked, path);
    const place = path.get(id) ?? { organization: { id, name }, own: {} };
    path.set(id, place);
    if (setting !== null) place.own[setting] = { value, locked: locked === true };
  }
  return {
    value(organization, name) {
      if (!names.includes(name)) throw new Error(`${name} was not asked for`);
      return effectiveSetting(name, [...(paths.get(organization)?.values() ?? [])]).value;
    },
  };
}

type Own = { -readonly [Name in keyof OwnSettings['own']]: OwnSettings['own'][Name] };
