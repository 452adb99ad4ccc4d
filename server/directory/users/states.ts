/**
 * Blocks, deactivates and brings back users. A state is the row's own: what holds for their devices follows when it is
 * asked. Only archives are told, since they go cold with a date.
 *
 * Lock order: the tenant's row, because of its administrators; organizations that count seats; the user's; then archives, in the order of their keys.
 */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { coolArchives, warmArchives } from '../devices/cold.ts';
import { revokeOpenCodes } from '../devices/registering/open-codes.ts';
import { lockTenant } from '../organizations/locking.ts';
import { assertSeatFor } from '../quotas/seats.ts';
import { assertAdministratorLeft } from './administrators-left.ts';
import { findPlace, type LockedUser, lockUser } from './locks.ts';
import { readUser } from './read.ts';
import type { OfUser } from './roles.ts';
import type { UserRecord } from './shapes.ts';

const sql = {
  setState: statement(
    'directory.setUserState',
    `UPDATE users SET state = $3, state_before = CASE $3 WHEN 'deactivated' THEN state END, version = version + 1
      WHERE tenant_id = $1 AND user_id = $2`,
  ),
  isAdministrator: statement(
    'directory.isTenantAdministrator',
    `SELECT 1 FROM user_roles WHERE tenant_id = $1 AND user_id = $2 AND role = 'Customer Cloud Admin' AND scope = 'all' LIMIT 1`,
  ),
};

type State = LockedUser['state'];

interface StateChange {
  action: string;
  from: readonly State[];
  to: State;
}

/** A user who is blocked does not sign in or restore; their devices' backups go on. @throws as `deactivateUser` */
export function blockUser(tx: Transaction, by: By, request: OfUser): Promise<UserRecord> {
  return changeState(tx, by, request, { action: 'user.block', from: ['active'], to: 'blocked' });
}

/** @throws Problem not_found, precondition_failed, conflict when they are deactivated */
export function unblockUser(tx: Transaction, by: By, request: OfUser): Promise<UserRecord> {
  return changeState(tx, by, request, { action: 'user.unblock', from: ['blocked'], to: 'active' });
}

/**
 * Ends a user's sign-ins and their devices' backups; the archives go cold, each until its date.
 * @throws Problem not_found, precondition_failed, and conflict for oneself, and for the last active *Customer Cloud Admin*
 */
export function deactivateUser(tx: Transaction, by: By, request: OfUser): Promise<UserRecord> {
  return changeState(tx, by, request, { action: 'user.deactivate', from: ['active', 'blocked'], to: 'deactivated' });
}

/**
 * Brings a user back, blocked if they were before, and from the cold those archives that nothing else keeps there.
 * @throws Problem not_found, precondition_failed, quota_exceeded (seats), conflict when they are blocked
 */
export function reactivateUser(tx: Transaction, by: By, request: OfUser): Promise<UserRecord> {
  return changeState(tx, by, request, { action: 'user.reactivate', from: ['deactivated'], to: 'active' });
}

/** Whoever comes back takes a seat. Nobody is moved meanwhile: that shares the tenant's row. */
async function assertSeat(tx: Transaction, { tenant, user }: OfUser): Promise<void> {
  const { state, organization } = await readUser(tx, { tenant, user });
  if (state !== 'deactivated') return;
  const { path } = await findPlace(tx, tenant, organization.id);
  await assertSeatFor(tx, tenant, path, { user });
}

/** To the state they are in already: nothing changes. */
async function changeState(tx: Transaction, by: By, request: OfUser, change: StateChange): Promise<UserRecord> {
  const { tenant } = request;
  await lockTenant(tx, tenant);
  if (change.from.includes('deactivated')) await assertSeat(tx, request);
  const locked = await lockUser(tx, request);
  if (locked.state === change.to) return readUser(tx, { tenant, user: locked.id });
  if (!change.from.includes(locked.state))
    throw new Problem('conflict', `the user is ${locked.state}`, { state: locked.state });
  const ends = change.to !== 'active';
  if (ends && by.party.kind === 'user' && by.party.id === locked.id)
    throw new Problem('conflict', 'nobody blocks or deactivates themselves');

  const to = locked.state === 'deactivated' ? (locked.before ?? 'active') : change.to;
  await tx.query(sql.setState, [tenant, locked.id, to]);
  const isAdministrator = (await tx.query(sql.isAdministrator, [tenant, locked.id])).length > 0;
  if (ends && isAdministrator) await assertAdministratorLeft(tx, tenant);
  // Bringing them back does not bring their codes back.
  const codes = ends ? await revokeOpenCodes(tx, locked.id) : 0;
  const scope = { tenant, of: { user: locked.id } };
  if (change.to === 'deactivated') await coolArchives(tx, by, scope);
  if (locked.state === 'deactivated') await warmArchives(tx, by, scope);
  await record(tx, by, {
    action: change.action,
    target: { kind: 'user', id: locked.id, name: locked.name },
    organization: locked.organization,
    result: 'done',
    details: { from: locked.state, to, ...(codes > 0 && { registrationCodes: codes }) },
  });
  return readUser(tx, { tenant, user: locked.id });
}
