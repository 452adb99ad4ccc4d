/** Users, as rows. */
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { type EffectiveState, heldOfUser } from './effective-state.ts';
import { shareTree } from './locks.ts';

const sql = {
  // Registrations of one user go one after the other; NO KEY, so that rows referring to the user are not kept waiting.
  lockUser: statement('directory.lockUser', 'SELECT 1 FROM users WHERE user_id = $1 FOR NO KEY UPDATE'),

  tenantOfUser: statement('directory.tenantOfUser', 'SELECT tenant_id AS tenant FROM users WHERE user_id = $1'),

  stateOfUser: statement(
    'directory.stateOfUser',
    `SELECT held.state FROM users u JOIN organizations o ON o.organization_id = u.organization_id
      CROSS JOIN LATERAL ${heldOfUser} held WHERE u.user_id = $1`,
  ),

  insertUser: statement(
    'directory.insertUser',
    `INSERT INTO users (tenant_id, organization_id, name, password_hash) VALUES ($1, $2, $3, $4)
     RETURNING user_id AS "userId"`,
  ),
  grantRole: statement(
    'directory.grantRole',
    `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, $3, $4, $5)`,
  ),
};

/**
 * Locks the user's row to the transaction's end, and before it the tenant's for sharing, so that no state above changes
 * meanwhile: a device that is entered now is seen by whoever deactivates what it is in.
 * @returns false when the user is not active (any more), or something above is not
 */
export async function lockActiveUser(tx: Transaction, userId: number): Promise<boolean> {
  const [user] = await tx.query<{ tenant: number }>(sql.tenantOfUser, [userId]);
  if (!user) return false;
  await shareTree(tx, user.tenant);
  await tx.query(sql.lockUser, [userId]);
  const [now] = await tx.query<{ state: EffectiveState }>(sql.stateOfUser, [userId]);
  return now?.state === 'active';
}

export interface NewUser {
  tenantId: number;
  organizationId: number;
  name: string;
  passwordHash: string;
  /** Has every permission in the whole tenant: the role *Customer Cloud Admin*. */
  administrator?: boolean;
}

export async function insertUser(tx: Transaction, user: NewUser): Promise<number> {
  const [row] = await tx.query<{ userId: number }>(sql.insertUser, [
    user.tenantId,
    user.organizationId,
    user.name,
    user.passwordHash,
  ]);
  const { userId } = row!;
  if (user.administrator)
    await tx.query(sql.grantRole, [user.tenantId, userId, 'Customer Cloud Admin', 'all', user.organizationId]);
  return userId;
}
