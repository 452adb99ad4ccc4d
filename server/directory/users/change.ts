/**
 * Makes and changes users. A name, and a mail address, is one user's in a tenant whatever its case: the indexes say so,
 * and whoever comes second is told which of the two it was.
 */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { warmArchives } from '../devices/cold.ts';
import { assertSeatFor } from '../quotas/seats.ts';
import { findPlace, lockUser, type PlaceForUsers, shareTree } from './locks.ts';
import { readUser } from './read.ts';
import type { CreateUserRequest, MovedUser, MoveUserRequest, UpdateUserRequest, UserRecord } from './shapes.ts';

const sql = {
  create: statement(
    'directory.createUser',
    `INSERT INTO users (tenant_id, organization_id, name, display_name, email, password_hash)
     VALUES ($1, $2, $3, $4, $5, $6) RETURNING user_id AS "userId"`,
  ),

  // What is not to be changed comes as it is.
  update: statement(
    'directory.updateUser',
    'UPDATE users SET name = $3, display_name = $4, email = $5, version = version + 1 WHERE tenant_id = $1 AND user_id = $2',
  ),

  move: statement(
    'directory.moveUser',
    'UPDATE users SET organization_id = $3, version = version + 1 WHERE tenant_id = $1 AND user_id = $2',
  ),

  // One that was given there before, and left behind at an earlier move, is the same grant: the wider scope stays.
  rewriteTree: statement(
    'directory.rewriteTreeGrants',
    `WITH taken AS (
       DELETE FROM user_roles WHERE tenant_id = $1 AND user_id = $2 AND organization_id = $3 AND scope = 'tree' RETURNING role, granted_at)
     INSERT INTO user_roles AS r (tenant_id, user_id, role, scope, organization_id, granted_at)
     SELECT $1, $2, role, 'tree', $4, granted_at FROM taken
         ON CONFLICT (user_id, role, organization_id) DO UPDATE SET scope = CASE r.scope WHEN 'self' THEN 'tree' ELSE r.scope END
     RETURNING role`,
  ),

  withoutForce: statement(
    'directory.grantsWithoutForce',
    `SELECT DISTINCT role FROM user_roles
      WHERE tenant_id = $1 AND user_id = $2 AND scope = 'tree' AND organization_id <> $3 ORDER BY role`,
  ),
};

/**
 * @param request.passwordHash null: invited; they have no password until they set one
 * @throws Problem conflict (fields `name`, `email`, `organization`), not_found (field `organization`), quota_exceeded (seats)
 */
export async function createUser(
  tx: Transaction,
  by: By,
  request: z.infer<typeof CreateUserRequest> & { tenant: number; passwordHash: string | null },
): Promise<UserRecord> {
  const { tenant, name, displayName, email, passwordHash } = request;
  await shareTree(tx, tenant);
  const organization = await findPlace(tx, tenant, request.organization);
  assertTakesUsers(organization);
  await assertSeatFor(tx, tenant, organization.path);
  const values = [tenant, organization.id, name, displayName, email, passwordHash];
  const [row] = await namingWhatIsTaken(tx.query<{ userId: number }>(sql.create, values));
  const user = await readUser(tx, { tenant, user: row!.userId });
  await record(tx, by, {
    action: passwordHash === null ? 'user.invite' : 'user.create',
    target: { kind: 'user', id: user.id, name },
    organization: organization.id,
    result: 'done',
    details: { displayName, email },
  });
  return user;
}

/** @throws Problem not_found, precondition_failed, conflict (fields `name`, `email`) */
export async function updateUser(
  tx: Transaction,
  by: By,
  request: { tenant: number; user: number; expected: number | null; change: z.infer<typeof UpdateUserRequest> },
): Promise<UserRecord> {
  const { tenant, change } = request;
  const locked = await lockUser(tx, request);
  const before = await readUser(tx, { tenant, user: locked.id });
  const { name = before.name, displayName = before.displayName, email = before.email } = change;
  const changed = Object.entries({ name, displayName, email }).filter(
    ([field, value]) => before[field as 'name'] !== value,
  );
  if (changed.length === 0) return before;
  await namingWhatIsTaken(tx.query(sql.update, [tenant, locked.id, name, displayName, email]));
  await record(tx, by, {
    action: 'user.update',
    target: { kind: 'user', id: locked.id, name },
    organization: locked.organization,
    result: 'done',
    details: Object.fromEntries(changed.map(([field, to]) => [field, { from: before[field as 'name'], to }])),
  });
  return readUser(tx, { tenant, user: locked.id });
}

/**
 * Moves a user, with their devices, to another organization of the tenant. Roles of scope `tree` count only in the
 * organization they name, so moving hands out nothing: they are rewritten as asked, or stay behind without force.
 * @throws Problem not_found (also field `organization`), precondition_failed, quota_exceeded (seats), conflict when the
 *   organization is deactivated
 */
export async function moveUser(
  tx: Transaction,
  by: By,
  request: z.infer<typeof MoveUserRequest> & { tenant: number; user: number; expected: number | null },
): Promise<z.infer<typeof MovedUser>> {
  const { tenant } = request;
  await shareTree(tx, tenant);
  const to = await findPlace(tx, tenant, request.organization);
  // Seats are locked before users. Who is deactivated has none; who is being deactivated now may be refused once too often.
  const { state } = await readUser(tx, request);
  if (state !== 'deactivated') await assertSeatFor(tx, tenant, to.path, { user: request.user });
  const locked = await lockUser(tx, request);
  const from = locked.organization;
  const isElsewhere = from !== to.id;
  let rewritten: string[] = [];
  let warmed = 0;
  if (isElsewhere) {
    // Their archives would have to go cold by the way, with a date that nobody chose.
    assertTakesUsers(to);
    await tx.query(sql.move, [tenant, locked.id, to.id]);
    if (request.treeGrants === 'rewrite')
      rewritten = rolesOf(await tx.query<{ role: string }>(sql.rewriteTree, [tenant, locked.id, from, to.id]));
    // They may come from an organization that is deactivated.
    warmed = await warmArchives(tx, by, { tenant, of: { user: locked.id } });
  }
  const withoutForce = rolesOf(await tx.query<{ role: string }>(sql.withoutForce, [tenant, locked.id, to.id]));
  const user = await readUser(tx, { tenant, user: locked.id });
  if (isElsewhere)
    await record(tx, by, {
      action: 'user.move',
      target: { kind: 'user', id: locked.id, name: locked.name },
      organization: to.id,
      result: 'done',
      details: { from, to: to.id, rewritten, withoutForce, warmed },
    });
  return { user, rewritten, withoutForce };
}

const rolesOf = (rows: { role: string }[]): string[] => rows.map(({ role }) => role).sort();

function assertTakesUsers({ deactivated }: PlaceForUsers): void {
  if (deactivated)
    throw new Problem('conflict', `the organization ${deactivated} is deactivated and takes no users`, {
      field: 'organization',
    });
}

const takenFields: Record<string, string> = { users_by_name: 'name', users_by_email: 'email' };

/** The statement that broke a unique index broke its transaction too: it ends with this problem. */
async function namingWhatIsTaken<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const { code, constraint } = error as { code?: unknown; constraint?: string };
    const field = code === '23505' ? takenFields[constraint ?? ''] : undefined;
    if (!field) throw error;
    throw new Problem('conflict', `another user of this tenant has this ${field}`, { field }, { cause: error });
  }
}
