/** How far the deleting of a tenant's data has come: figures, no name of anybody or anything. */
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { addHolds, type Holds } from '../holds.ts';
import type { TenantDeletion } from '../shapes.ts';
import { vaultsOfTenant } from '../vaults-of-tenant.ts';

const sql = {
  rows: statement(
    'directory.countEngineRowsOfVaults',
    `SELECT (SELECT count(*)::int FROM vaults WHERE vault_id = ANY ($1::bigint[])) AS vaults,
            (SELECT count(*)::int FROM vault_keys WHERE vault_id = ANY ($1::bigint[])) AS keys,
            count(*)::int AS archives, coalesce(sum(version_count), 0)::bigint AS versions
       FROM archives WHERE vault_id = ANY ($1::bigint[])`,
  ),
  isEarly: statement(
    'directory.isTenantEarly',
    'SELECT (delete_after <= now()) IS NOT TRUE AS early FROM tenants WHERE tenant_id = $1',
  ),
};

export interface EngineRows extends Holds {
  vaults: number;
  archives: number;
  versions: number;
  /** Records of vault keys. */
  keys: number;
}

/** Goes through the tenant's vaults once. */
export async function countEngineRows(db: Transaction, tenant: number): Promise<EngineRows> {
  const sum: EngineRows = { vaults: 0, archives: 0, versions: 0, keys: 0, holds: 0, heldUsers: 0 };
  for await (const vaults of vaultsOfTenant(db, tenant)) {
    const [found] = await db.query<Omit<EngineRows, keyof Holds>>(sql.rows, [vaults]);
    for (const name of ['vaults', 'archives', 'versions', 'keys'] as const) sum[name] += found![name];
    await addHolds(db, vaults, sum);
  }
  return sum;
}

/** What is left, and what it waits for. */
export async function readProgress(
  db: Transaction,
  tenant: number,
): Promise<Pick<TenantDeletion, 'left' | 'waitsFor' | 'holds' | 'heldUsers'>> {
  const { holds, heldUsers, ...left } = await countEngineRows(db, tenant);
  const [day] = await db.query<{ early: boolean }>(sql.isEarly, [tenant]);
  if (day!.early) return { left, waitsFor: 'day', holds, heldUsers };
  const waitsFor = holds > 0 ? 'holds' : left.archives > 0 ? 'versions' : left.vaults > 0 ? 'bytes' : 'directory';
  return { left, waitsFor, holds, heldUsers };
}

/** Of one that is deleted. */
export const nothingLeft: Pick<TenantDeletion, 'left' | 'waitsFor' | 'holds' | 'heldUsers'> = {
  left: { vaults: 0, archives: 0, versions: 0, keys: 0 },
  waitsFor: null,
  holds: 0,
  heldUsers: 0,
};
