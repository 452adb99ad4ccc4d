/**
 * Seats: how many users an organization may have, itself and below it. Asked when a user comes into it: made, brought
 * back, or moved there alone or with their organization. Blocked users have a seat, for their backups go on. So have users
 * of a deactivated organization: reactivating it brings nobody back that was not counted.
 *
 * Lock order: whoever asks holds the tenant's row, shared at least, so that the tree stays as it is, and no user's yet.
 * The rows of the organizations that have a quota are locked here, by id; so two that would both take the last seat come
 * one after the other, and the second counts in a later statement.
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { effectiveSetting } from '../settings/effective.ts';
import { limitOf } from './quotas.ts';

const sql = {
  // The lock is on organizations, which are found by the settings; what it protects is counted in the next statement.
  lock: statement(
    'directory.lockSeats',
    `SELECT o.organization_id AS id, o.name, s.value, s.locked
       FROM organizations o JOIN organization_settings s ON s.organization_id = o.organization_id AND s.name = 'quotas.seats'
      WHERE o.tenant_id = $1 AND o.organization_id = ANY ($2::bigint[])
      ORDER BY o.organization_id FOR NO KEY UPDATE OF o`,
  ),

  // Counted once who is below and comes again, as one who moves within the organization.
  count: statement(
    'directory.countSeats',
    `SELECT count(*)::int AS seats FROM (
       SELECT u.user_id FROM organizations o JOIN users u ON u.organization_id = o.organization_id
        WHERE o.tenant_id = $1 AND o.path @> ARRAY[$2::bigint] AND u.state <> 'deactivated'
       UNION
       SELECT u.user_id FROM users u WHERE u.tenant_id = $1 AND u.user_id = $3::bigint
       UNION
       SELECT u.user_id FROM organizations o JOIN users u ON u.organization_id = o.organization_id
        WHERE o.tenant_id = $1 AND o.path @> ARRAY[$4::bigint] AND u.state <> 'deactivated') seated`,
  ),
};

/** Who comes: a user to be made, one that is there (brought back, or moved), or all of an organization that moves. */
export type Coming = 'new' | { user: number } | { organization: number };

/**
 * @param path from the top down to where they come; that organization included
 * @throws Problem quota_exceeded { quota: 'seats', organization, limitSeats, usedSeats }: used without those who come
 */
export async function assertSeatFor(
  tx: Transaction,
  tenant: number,
  path: readonly number[],
  coming: Coming = 'new',
): Promise<void> {
  type Row = { id: number; name: string; value: unknown; locked: boolean };
  const rows = await tx.query<Row>(sql.lock, [tenant, path]);
  for (const { id, name, value, locked } of rows) {
    const own = { organization: { id, name }, own: { 'quotas.seats': { value, locked } } };
    const limitSeats = limitOf(effectiveSetting('quotas.seats', [own]));
    if (limitSeats === null) continue;
    const usedSeats = await countSeats(tx, tenant, id);
    const neededSeats = coming === 'new' ? usedSeats + 1 : await countSeats(tx, tenant, id, coming);
    // Nobody is refused who has a seat already, though there be fewer seats by now.
    if (neededSeats <= limitSeats || neededSeats === usedSeats) continue;
    throw new Problem(
      'quota_exceeded',
      `organization ${name} has ${limitSeats} seats, ${usedSeats} of them taken, and needs ${neededSeats - usedSeats} more`,
      { quota: 'seats', organization: { id, name }, limitSeats, usedSeats },
    );
  }
}

/** Seats taken in an organization and below it, those of who comes included. */
export async function countSeats(
  db: Transaction,
  tenant: number,
  organization: number,
  coming?: { user: number } | { organization: number },
): Promise<number> {
  const user = coming && 'user' in coming ? coming.user : null;
  const moving = coming && 'organization' in coming ? coming.organization : null;
  const [row] = await db.query<{ seats: number }>(sql.count, [tenant, organization, user, moving]);
  return row!.seats;
}
