/**
 * Moves an organization, with all below it, to another place in its tenant's tree.
 *
 * What must stay true: a path is the way up to the top, for every organization, always. So the paths of the subtree
 * change in the transaction that changes the parent, and every change of the tree holds the tenant's row: two moves that are
 * each right alone could otherwise make a circle together.
 * Nothing of the users changes. What they may do by scope `tree` names their organization, and goes where that goes.
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { assertSeatFor } from '../quotas/seats.ts';
import { lockOrganization, lockTenant } from './locking.ts';
import { findPlace, parentFor } from './placing.ts';
import { readOrganization } from './reading.ts';

const sql = {
  // All of them by id, like everybody who locks several: those that move, whose paths an update would lock in whatever
  // order it finds them; and those they come below, whose seats are counted.
  lockWhole: statement(
    'directory.lockForMove',
    `SELECT cardinality(path) AS depth, path @> ARRAY[$2::bigint] AS moves FROM organizations
      WHERE tenant_id = $1 AND (path @> ARRAY[$2::bigint] OR organization_id = ANY ($3::bigint[]))
      ORDER BY organization_id FOR NO KEY UPDATE`,
  ),
  rewritePaths: statement(
    'directory.rewritePaths',
    `UPDATE organizations SET path = $3::bigint[] || path[$4:] WHERE tenant_id = $1 AND path @> ARRAY[$2::bigint]`,
  ),
  setParent: statement(
    'directory.setParent',
    `UPDATE organizations SET parent_id = $3, version = version + 1 WHERE tenant_id = $1 AND organization_id = $2`,
  ),
};

export interface MoveOrganization {
  tenant: number;
  organization: number;
  /** Null: to the top of the tenant. */
  parent: number | null;
  expected: number | null;
}

/**
 * @returns the organization where it is now; nothing is written when it was there before
 * @throws Problem not_found, precondition_failed; conflict (field `parent`): below itself, below a deactivated one, too
 *   deep; conflict: it is itself below a deactivated one; quota_exceeded: there are not as many seats where it goes
 */
export async function moveOrganization(tx: Transaction, by: By, request: MoveOrganization) {
  const { tenant, organization, parent, expected } = request;
  await lockTenant(tx, tenant);
  const to = await findPlace(tx, tenant, parent);
  type Row = { depth: number; moves: boolean };
  const rows = await tx.query<Row>(sql.lockWhole, [tenant, organization, to?.path ?? []]);
  const depths = rows.filter(({ moves }) => moves).map(({ depth }) => depth);
  const moved = await lockOrganization(tx, tenant, organization, expected);
  if (moved.parent !== parent) {
    await assertMovable(tx, tenant, moved);
    const levels = Math.max(...depths) - moved.path.length + 1;
    const above = parentFor(to, { levels, moving: organization });
    await assertSeatFor(tx, tenant, above, { organization });

    await tx.query(sql.rewritePaths, [tenant, organization, `{${above.join(',')}}`, moved.path.length]);
    await tx.query(sql.setParent, [tenant, organization, parent]);
    await record(tx, by, {
      action: 'organization.move',
      target: { kind: 'organization', id: organization, name: moved.name },
      organization,
      result: 'done',
      details: { from: moved.parent, to: parent, organizations: depths.length },
    });
  }
  return readOrganization(tx, { tenant, organization });
}

/** What is deactivated from above stays there: moved out, its archives would come back without anybody saying so. */
async function assertMovable(tx: Transaction, tenant: number, { parent }: { parent: number | null }): Promise<void> {
  const deactivated = (await findPlace(tx, tenant, parent))?.deactivated;
  if (deactivated)
    throw new Problem(
      'conflict',
      `it is below organization ${deactivated.name} (${deactivated.id}), which is deactivated: reactivate that one first`,
      {
        deactivated,
      },
    );
}
