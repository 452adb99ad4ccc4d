/**
 * Which quotas of bytes bind a vault: its user's, and that of each organization above that has one. Both come from the
 * settings of the organizations on the way up. One statement by keys, which finds nothing where nobody has set a quota.
 *
 * A stored quota that cannot be read stops uploads, as an error of the server: passing over it would let in what it was
 * made to keep out.
 */
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { SettingName } from '../settings/definitions.ts';
import { type EffectiveSetting, effectiveSetting, type OwnSettings } from '../settings/effective.ts';

const sql = {
  ofVault: statement(
    'directory.quotasOfVault',
    `SELECT a.organization_id AS id, a.name, s.name AS setting, s.value, s.locked
       FROM vaults v
       JOIN users u ON u.user_id = v.user_id
       JOIN organizations own ON own.organization_id = u.organization_id
      CROSS JOIN LATERAL unnest(own.path) WITH ORDINALITY AS above (organization_id, place)
       JOIN organization_settings s ON s.organization_id = above.organization_id AND s.name IN ('quotas.bytes', 'quotas.bytesPerUser')
       JOIN organizations a ON a.organization_id = above.organization_id
      WHERE v.vault_id = $1 ORDER BY above.place`,
  ),
};

export interface OrganizationQuota {
  id: number;
  name: string;
  limitBytes: number;
}

export interface ByteQuotas {
  /** Null: none. */
  userLimitBytes: number | null;
  /** From the top down; those without a quota are left out. */
  organizations: OrganizationQuota[];
}

interface Row {
  id: number;
  name: string;
  setting: SettingName;
  value: unknown;
  locked: boolean;
}

/** @returns null: no quota binds the vault. @throws Error when a stored quota cannot be read */
export async function findByteQuotas(db: Transaction, vault: number): Promise<ByteQuotas | null> {
  const rows = await db.query<Row>(sql.ofVault, [vault]);
  if (rows.length === 0) return null;
  const path = pathOf(rows);
  const userLimitBytes = limitOf(effectiveSetting('quotas.bytesPerUser', path));
  const organizations = path.flatMap((each) => {
    const limitBytes = limitOf(effectiveSetting('quotas.bytes', [each]));
    return limitBytes === null ? [] : [{ ...each.organization, limitBytes }];
  });
  return userLimitBytes === null && organizations.length === 0 ? null : { userLimitBytes, organizations };
}

function pathOf(rows: readonly Row[]): OwnSettings[] {
  const path = new Map<number, OwnSettings>();
  for (const { id, name, setting, value, locked } of rows) {
    const own = { ...path.get(id)?.own, [setting]: { value, locked } };
    path.set(id, { organization: { id, name }, own });
  }
  return [...path.values()];
}

/** @returns null: no bound. @throws Error when the value cannot be read */
export function limitOf(
  setting: EffectiveSetting<'quotas.bytes' | 'quotas.bytesPerUser' | 'quotas.seats'>,
): number | null {
  const { name, value, from, faults } = setting;
  if (value === null) {
    const whose = from === 'default' ? 'the default' : `organization ${from.organization.id}`;
    throw new Error(`${name} of ${whose} cannot be read: ${faults.map(({ message }) => message).join('; ')}`);
  }
  return value < 0 ? null : value;
}
