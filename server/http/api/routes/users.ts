/** Users and the roles they have. */
import { Problem } from '../../../../protocol/problems.ts';
import type { Transaction } from '../../../../storage/catalog/database.ts';
import { type Actor, may } from '../../../directory/roles/may.ts';
import { narrower, type Scope } from '../../../directory/roles/permissions.ts';
import { isRole, roles } from '../../../directory/roles/roles.ts';
import { notToGive } from '../../../directory/sign-in/clients/may-give.ts';
import { findOrganizationTarget, type UserTarget } from '../../../directory/targets.ts';
import { createUser, moveUser, updateUser } from '../../../directory/users/change.ts';
import { listUsers, readUser } from '../../../directory/users/read.ts';
import { giveRole, listRoles, type OfUser, takeRole } from '../../../directory/users/roles.ts';
import {
  CreateUserRequest,
  GiveRoleRequest,
  ListUsersQuery,
  MovedUser,
  MoveUserRequest,
  RoleList,
  TakeRoleRequest,
  UpdateUserRequest,
  UserPage,
  UserView,
} from '../../../directory/users/shapes.ts';
import { blockUser, deactivateUser, reactivateUser, unblockUser } from '../../../directory/users/states.ts';
import { organizationInBody, userInPath, userParams } from '../finders.ts';
import { type ApiRoute, change, read, stateRoutes } from '../route.ts';

const tag = 'Users';
const one = '/v1/users/:user';

const about = ({ target, expected }: { target: { tenant: number; id: number }; expected: number | null }): OfUser => ({
  tenant: target.tenant,
  user: target.id,
  expected,
});

/**
 * Whoever may give any role may; anybody else gives and takes only what they could do themselves, as far. A role that is
 * none is for the verb to refuse.
 * @throws Problem forbidden
 */
async function assertMayGive(
  tx: Transaction,
  actor: Actor,
  target: UserTarget,
  { role, scope, organization }: { role: string; scope?: Scope | undefined; organization?: number | undefined },
): Promise<void> {
  if (!isRole(role) || may(actor, 'directory.uac.elevated_role_manage', target).allowed) return;
  const { granted, scope: widest } = roles.get(role)!;
  const place = organization === undefined ? target : await findOrganizationTarget(tx, actor.tenant, organization);
  if (!place) throw new Problem('not_found', 'there is no such organization', { field: 'organization' });
  const missing = notToGive(actor, {
    permissions: granted,
    scope: scope === undefined ? widest : narrower(scope, widest),
    organizationPath: place.organizationPath,
  });
  if (missing.length > 0)
    throw new Problem('forbidden', `this role can do more than you can: ${missing.join(', ')}`, {
      field: 'role',
      permissions: missing,
    });
}

const stateRoute = stateRoutes({ path: one, tag, params: userParams, target: userInPath, answer: UserView }, about);

export const userRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/users',
    tag,
    summary: 'List users',
    may: { permission: 'user.read', of: 'listing' },
    query: ListUsersQuery,
    answer: UserPage,
    read: ({ deps, caller, within, query }) =>
      listUsers(deps.directory.database, { tenant: caller.tenant!, within }, query),
  }),
  change({
    method: 'POST',
    path: '/v1/users',
    tag,
    summary: 'Create a user',
    says: 'Without a password: invite them, or let them sign in by an identity provider.',
    may: { permission: 'user.create', target: organizationInBody('organization') },
    body: CreateUserRequest,
    status: 201,
    answer: UserView,
    change: (tx, { by, caller, body }) => createUser(tx, by, { ...body, tenant: caller.tenant!, passwordHash: null }),
  }),
  read({
    path: one,
    tag,
    summary: 'Show a user',
    may: { permission: 'user.read', target: userInPath },
    params: userParams,
    answer: UserView,
    read: ({ deps, target }) => readUser(deps.directory.database, { tenant: target.tenant, user: target.id }),
  }),
  change({
    method: 'PATCH',
    path: one,
    tag,
    summary: 'Change the name or mail address of a user',
    may: { permission: 'user.update', target: userInPath },
    params: userParams,
    body: UpdateUserRequest,
    answer: UserView,
    change: (tx, request) => updateUser(tx, request.by, { ...about(request), change: request.body }),
  }),
  change({
    method: 'POST',
    path: `${one}/move`,
    tag,
    summary: 'Move a user to another organization',
    says: 'Needs `user.update` there, too.',
    may: {
      permission: 'user.update',
      target: userInPath,
      second: { permission: 'user.update', target: organizationInBody('organization') },
    },
    params: userParams,
    body: MoveUserRequest,
    answer: MovedUser,
    change: (tx, request) => moveUser(tx, request.by, { ...about(request), ...request.body }),
  }),
  stateRoute('block', 'user.update', blockUser, {
    summary: 'Block a user',
    says: 'They do not sign in, and nothing of theirs is restored by them; backups go on.',
  }),
  stateRoute('unblock', 'user.update', unblockUser, {
    summary: 'Unblock a user',
    says: 'Unless something above them is blocked.',
  }),
  stateRoute('deactivate', 'user.delete', deactivateUser, {
    summary: 'Deactivate a user',
    says: 'Their devices back up no more, and their archives go cold, each until its date.',
  }),
  stateRoute('reactivate', 'user.delete', reactivateUser, {
    summary: 'Reactivate a user',
    says: 'Their archives come back from the cold, unless something else keeps them there.',
  }),
  read({
    path: '/v1/roles',
    tag,
    summary: 'List the roles there are',
    may: { signedIn: true, kinds: ['user', 'client'] },
    answer: RoleList,
    read: async () => listRoles(),
  }),
  change({
    method: 'POST',
    path: `${one}/roles`,
    tag,
    summary: 'Give a user a role',
    says: 'With `user.update` alone: no role that can do more than you can, where it is given.',
    may: { permission: 'user.update', or: 'directory.uac.elevated_role_manage', target: userInPath },
    params: userParams,
    body: GiveRoleRequest,
    answer: UserView,
    change: async (tx, request) => {
      await assertMayGive(tx, request.caller.actor!, request.target, request.body);
      return giveRole(tx, request.by, { ...about(request), ...request.body });
    },
  }),
  change({
    method: 'POST',
    path: `${one}/roles/take`,
    tag,
    summary: 'Take a role from a user',
    says: 'With `user.update` alone: no role that can do more than you can, where it was given.',
    may: { permission: 'user.update', or: 'directory.uac.elevated_role_manage', target: userInPath },
    params: userParams,
    body: TakeRoleRequest,
    answer: UserView,
    change: async (tx, request) => {
      await assertMayGive(tx, request.caller.actor!, request.target, request.body);
      return takeRole(tx, request.by, { ...about(request), ...request.body });
    },
  }),
];
