/** Legal holds on the archives of a tenant's users, as figures. */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { vaultsOfTenant } from './vaults-of-tenant.ts';

const heldVaults = statement(
  'directory.countHeldVaults',
  `SELECT count(DISTINCT vault_id)::int AS vaults, count(*)::int AS holds FROM holds
      WHERE vault_id = ANY ($1::bigint[]) AND (release_effective_at IS NULL OR release_effective_at > now())`,
);

export interface Holds {
  /** In force. */
  holds: number;
  /** Vaults they are on, so users. */
  heldUsers: number;
}

/** In a statement after the tenant's lock. @throws Problem conflict: it has holds, and how many, on how many users */
export async function assertNoHolds(tx: Transaction, tenant: number): Promise<void> {
  const sum: Holds = { holds: 0, heldUsers: 0 };
  for await (const vaults of vaultsOfTenant(tx, tenant)) await addHolds(tx, vaults, sum);
  refuseHolds(sum);
}

/** @throws Problem conflict */
export function refuseHolds({ holds, heldUsers }: Holds): void {
  if (holds === 0) return;
  const detail = `legal holds keep it: ${holds}, on the archives of ${heldUsers} users`;
  throw new Problem('conflict', detail, { holds, heldUsers });
}

/** Counts the holds in force on some vaults, to a sum. A release that takes effect later still holds. */
export async function addHolds(db: Transaction, vaults: readonly number[], sum: Holds): Promise<void> {
  const [found] = await db.query<{ vaults: number; holds: number }>(heldVaults, [vaults]);
  sum.heldUsers += found!.vaults;
  sum.holds += found!.holds;
}
