import { expect, test } from '@jest/globals';
import { type Actor, type Grant, may } from '../../roles/may.ts';
import { type Permission, permissions, type Scope, scopes } from '../../roles/permissions.ts';
import { type Role, roles } from '../../roles/roles.ts';
import { actor, given, places } from '../../roles/test-world.ts';
import { mayGive, notToGive } from './may-give.ts';

const own = [1, 10, 20];
const child = [...own, 30];
const parent = [1, 10];

test.each<[role: Role, permission: Permission, scope: Scope, at: number[], may: 'yes' | 'no']>([
  ['Org Admin', 'user.update', 'tree', own, 'yes'],
  ['Org Admin', 'user.update', 'tree', child, 'yes'],
  ['Org Admin', 'user.update', 'tree', parent, 'no'],
  // A plain permission reaches a tree at most, whatever the scope says.
  ['Org Admin', 'user.update', 'all', own, 'yes'],
  ['Org Admin', 'crossorg_user.update', 'tree', own, 'no'],
  ['Org Admin', 'restore.all', 'tree', own, 'yes'],
  ['Org Admin', 'restore.all', 'all', own, 'no'],
  ['Org Admin', 'legalhold.read', 'tree', own, 'no'],
  ['Org Admin', 'console.login', 'all', own, 'yes'],
  ['Org Admin', 'viewlogs.device', 'tree', own, 'yes'],
  ['Cross Org Admin', 'user.update', 'tree', parent, 'yes'],
  ['Cross Org Admin', 'crossorg_user.update', 'all', own, 'yes'],
  ['Cross Org Admin', 'crossorg_user.update', 'tree', own, 'yes'],
  ['Cross Org Admin', 'restore.all', 'all', own, 'yes'],
  ['Cross Org Admin', 'auditlog.read', 'all', own, 'no'],
  ['Cross Org User Modify', 'user.all', 'tree', own, 'no'],
  ['Customer Cloud Admin', 'customer_admin.all', 'all', own, 'yes'],
  ['PROe User', 'console.login', 'self', own, 'yes'],
  ['PROe User', 'user.read', 'self', own, 'no'],
])('%s gives %s as far as %s at %j: %s', (role, permission, scope, at, expected) => {
  expect(mayGive(actor([given(role)]), [permission], scope, at) ? 'yes' : 'no').toBe(expected);
});

test('whoever has left an organization gives nothing there, or anywhere by it', () => {
  const moved = actor([given('Org Admin', { organization: 21 })]);
  expect(mayGive(moved, ['user.read'], 'tree', own)).toBe(false);
  expect(mayGive(moved, ['user.read'], 'tree', [1, 10, 21])).toBe(false);
});

test('what may not be given is named, and everything has to be there', () => {
  const giver = actor([given('Org Help Desk')]);
  const wanted: Permission[] = ['computer.read', 'computer.update', 'auditlog.read'];
  expect(notToGive(giver, { permissions: wanted, scope: 'tree', organizationPath: own })).toEqual([
    'computer.update',
    'auditlog.read',
  ]);
  expect(mayGive(giver, wanted, 'tree', own)).toBe(false);
});

test('no client, made by whoever it is with whatever they may give, reaches what its maker does not', () => {
  let made = 0;
  for (const role of roles.keys()) {
    const maker = actor([given(role)]);
    for (const permission of permissions.keys()) {
      for (const scope of scopes) {
        for (const [organization, path] of [own, child, parent].map((each) => [each.at(-1)!, each] as const)) {
          if (!mayGive(maker, [permission], scope, path)) continue;
          made++;
          const grants: Grant[] = [{ permissions: [permission], scope, organization }];
          const client: Actor = { tenant: 1, user: null, organization, grants };
          for (const [target] of Object.values(places))
            if (may(client, permission, target).allowed) expect(may(maker, permission, target).allowed).toBe(true);
        }
      }
    }
  }
  expect(made).toBeGreaterThan(1_000);
});
