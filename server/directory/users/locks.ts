/**
 * The rows that changes of people lock, in the order of the directory: tenant, organizations by id, users by id, devices by
 * id, then everything else, the head of the audit log last.
 *
 * States and places of organizations change under the tenant's row (organizations/locking.ts). Whoever puts something into
 * an organization (a user that comes, a device that registers) locks that row for sharing: many may do so side by side, and
 * whoever deactivates the organization afterwards sees what came.
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { noSuchUser } from './read.ts';

const sql = {
  shareTree: statement('directory.shareTree', 'SELECT 1 FROM tenants WHERE tenant_id = $1 FOR SHARE'),

  organization: statement(
    'directory.placeForUsers',
    `SELECT o.organization_id AS id, o.name, to_json(o.path) AS path,
            (SELECT a.name FROM organizations a WHERE a.organization_id = ANY (o.path) AND a.state = 'deactivated'
              ORDER BY cardinality(a.path) DESC LIMIT 1) AS deactivated
       FROM organizations o WHERE o.tenant_id = $1 AND o.organization_id = $2`,
  ),

  user: statement(
    'directory.lockUserOfTenant',
    `SELECT user_id AS id, organization_id AS organization, name, state, state_before AS before, version FROM users
      WHERE tenant_id = $1 AND user_id = $2 FOR NO KEY UPDATE`,
  ),
};

/** Keeps the tenant's tree, and the states in it, as they are to the transaction's end. */
export async function shareTree(tx: Transaction, tenant: number): Promise<void> {
  await tx.query(sql.shareTree, [tenant]);
}

export interface PlaceForUsers {
  id: number;
  name: string;
  /** From the tenant's top down to it. */
  path: number[];
  /** The nearest that is deactivated, of itself and those above it; null: none is. */
  deactivated: string | null;
}

/** An organization that something is put into, under `shareTree`. @throws Problem not_found, field `organization` */
export async function findPlace(tx: Transaction, tenant: number, organization: number): Promise<PlaceForUsers> {
  const [row] = await tx.query<PlaceForUsers>(sql.organization, [tenant, organization]);
  if (!row) throw new Problem('not_found', 'there is no such organization', { field: 'organization' });
  return row;
}

export interface LockedUser {
  id: number;
  organization: number;
  name: string;
  state: 'active' | 'blocked' | 'deactivated';
  /** What they were before they were deactivated. */
  before: 'active' | 'blocked' | null;
  version: number;
}

/**
 * @param of.expected the version the change was made from; null: whichever
 * @throws Problem not_found, precondition_failed { version }
 */
export async function lockUser(
  tx: Transaction,
  of: { tenant: number; user: number; expected: number | null },
): Promise<LockedUser> {
  const [row] = await tx.query<LockedUser>(sql.user, [of.tenant, of.user]);
  if (!row) throw noSuchUser();
  assertExpected(row.version, of.expected);
  return row;
}

/** @throws Problem precondition_failed { version } */
export function assertExpected(version: number, expected: number | null): void {
  if (expected !== null && expected !== version)
    throw new Problem('precondition_failed', 'it was changed since you looked at it', { version });
}
