import { describe, expect, test } from '@jest/globals';
import { type Grant, may, reachOf } from './may.ts';
import type { Permission } from './permissions.ts';
import type { Role } from './roles.ts';
import { actor, given, type Place, places } from './test-world.ts';

/** How one permission reaches in each scope: what `may` answers with the grant alone. */
const inScopes: [permission: Permission, place: Place, all: boolean, tree: boolean, self: boolean][] = [
  ['restore.all', 'own device', true, true, true],
  ['restore.all', 'own organization', true, true, false],
  ['restore.all', "colleague's device", true, true, false],
  ['restore.all', 'device in child', true, true, false],
  ['restore.all', 'device in grandchild', true, true, false],
  ['restore.all', 'device in sibling', true, false, false],
  ['restore.all', 'device below sibling', true, false, false],
  ['restore.all', 'device in parent', true, false, false],
  ['restore.all', 'topmost organization', true, false, false],
  ['restore.all', 'the tenant itself', true, false, false],
  ['restore.all', 'same numbers in other tenant', false, false, false],
  ['restore.all', 'own files to the device of a colleague', true, true, false],
  ['restore.all', 'files of a colleague to own device', true, true, false],
  ['restore.personal', 'own device', true, true, true],
  ['restore.personal', "colleague's device", false, false, false],
  ['restore.personal', 'own organization', false, false, false],
  ['restore.personal', 'files of a colleague to own device', false, false, false],
  ['computer.read', 'device in grandchild', true, true, false],
  ['computer.read', 'device in sibling', false, false, false], // a tree is the most that a plain one reaches
  ['crossorg_computer.read', 'device in sibling', true, false, false],
  ['crossorg_computer.read', 'device in child', true, true, false],
  ['crossorg_computer.read', 'the tenant itself', false, false, false],
  ['org.create', 'own organization', true, true, false],
  ['org.create', 'the tenant itself', false, false, false],
  ['crossorg_org.create', 'the tenant itself', true, false, false],
];

test.each(inScopes)('%s reaches %s with scope all %s, tree %s, self %s', (permission, place, ...expected) => {
  const [target] = places[place];
  const answers = (['all', 'tree', 'self'] as const).map((scope) => {
    const holder = actor([{ permissions: [permission], scope, organization: 20 }]);
    return may(holder, permission, target).allowed;
  });
  expect(answers).toEqual(expected);
});

const client = (...permissions: Permission[]): Grant => ({ permissions, scope: 'all', organization: 20 });

describe('a grant', () => {
  test('is bounded by its own scope where that is narrower than its role', () => {
    const department = actor([given('Admin Restore', { scope: 'tree' })]);
    expect(may(department, 'restore.all', places['device in child'][0]).allowed).toBe(true);
    expect(may(department, 'restore.all', places['device in sibling'][0]).allowed).toBe(false);
    const crossing = actor([given('Cross Org Admin', { scope: 'tree' })]);
    expect(may(crossing, 'org.create', places['own organization'][0]).allowed).toBe(true);
    expect(may(crossing, 'org.create', places['the tenant itself'][0]).allowed).toBe(false);
  });

  test('never makes a role wider than it is', () => {
    const wide = actor([given('Desktop User', { scope: 'all' }), given('Org Manager', { scope: 'all' })]);
    expect(may(wide, 'plan.create', places.colleague[0]).allowed).toBe(false);
    expect(may(wide, 'restore.limited', places['device in sibling'][0]).allowed).toBe(false);
  });

  test('of a tree is worth nothing once its holder is in another organization: neither there nor where it was', () => {
    const moved = actor([given('Org Admin', { organization: 21 })]);
    for (const place of ['own organization', 'child', 'sibling', 'device in sibling', 'self'] as const)
      expect(may(moved, 'computer.read', places[place][0])).toMatchObject({
        allowed: false,
        why: 'out_of_scope',
        held: [{ misses: 'left_organization' }],
      });
    expect(reachOf(moved, 'computer.read')).toBeNull();
  });

  test('of all or of oneself stays good wherever its holder is moved', () => {
    const moved = actor([given('Cross Org Help Desk', { organization: 21 }), given('PROe User', { organization: 21 })]);
    expect(may(moved, 'user.read', places.colleague[0]).allowed).toBe(true);
    expect(may(moved, 'console.login', places.self[0]).allowed).toBe(true);
  });

  test('of a role that is no more gives nothing, and breaks nothing', () => {
    for (const name of ['Backup Wizard', '__proto__', 'constructor', '']) {
      const holder = actor([given(name as Role), given('PROe User')]);
      expect(may(holder, 'org.read', places['own organization'][0])).toMatchObject({ allowed: false, why: 'not_held' });
      expect(may(holder, 'console.login', places.self[0]).allowed).toBe(true);
    }
  });

  test('with a scope that is none is an error, not a way in', () => {
    const holder = actor([given('Org Admin', { scope: 'galaxy' as never })]);
    expect(() => may(holder, 'org.read', places['own organization'][0])).toThrow('no scope');
  });
});

describe('several grants', () => {
  test('add up, each in its own scope', () => {
    const holder = actor([given('Org Manager'), given('Cross Org Help Desk - No Restore')]);
    expect(may(holder, 'user.read', places['user in sibling'][0]).allowed).toBe(true);
    expect(may(holder, 'restore.limited', places['device in child'][0]).allowed).toBe(true);
    expect(may(holder, 'restore.limited', places['device in sibling'][0]).allowed).toBe(false);
  });

  test('never lend each other their scope', () => {
    const holder = actor([given('Org Admin'), given('Audit Log Viewer'), given('Desktop User')]);
    expect(may(holder, 'auditlog.read', places['the tenant itself'][0]).allowed).toBe(true);
    expect(may(holder, 'user.delete', places['user in parent'][0]).allowed).toBe(false);
    expect(reachOf(holder, 'user.delete')).toBe('tree');
  });

  test('of none allow nothing', () => {
    expect(may(actor([]), 'console.login', places.self[0])).toEqual({
      allowed: false,
      permission: 'console.login',
      why: 'not_held',
      held: [],
      missing: null,
    });
  });
});

describe('an API client', () => {
  const apiClient = (...grants: Grant[]) => actor(grants, { user: null });

  test('has what it was given and nothing more', () => {
    const holder = apiClient(client('user.read'));
    expect(may(holder, 'user.read', places.colleague[0]).allowed).toBe(true);
    expect(may(holder, 'user.update', places.colleague[0]).allowed).toBe(false);
    expect(may(holder, 'crossorg_user.read', places.colleague[0]).allowed).toBe(false);
  });

  test('is nobody: what is for oneself gives it nothing', () => {
    const holder = apiClient(client('restore.personal', 'console.login', 'select.all'));
    expect(may(holder, 'restore.personal', places['own device'][0]).allowed).toBe(false);
    expect(may(holder, 'restore.personal', places['own organization'][0]).allowed).toBe(false);
    expect(may(holder, 'console.login', places.self[0]).allowed).toBe(false);
    expect(may(holder, 'select.all', places["colleague's device"][0]).allowed).toBe(true);
    expect(reachOf(holder, 'restore.personal')).toBeNull();
  });

  test('has the parts of an .all, and not the .all of its parts', () => {
    const whole = apiClient(client('crossorg_computer.all'));
    for (const each of ['computer.read', 'computer.delete', 'crossorg_computer.update', 'computer.all'] as const)
      expect(may(whole, each, places['device in sibling'][0]).allowed).toBe(true);
    const parts = apiClient(client('computer.read', 'computer.update', 'computer.delete'));
    expect(may(parts, 'computer.all', places["colleague's device"][0]).allowed).toBe(false);
    expect(may(apiClient(client('restore.all')), 'cpd.restore', places["colleague's device"][0]).allowed).toBe(false);
  });

  test('reads the logs of the devices that it sees, and of no others', () => {
    expect(may(apiClient(client('viewlogs.device')), 'viewlogs.device', places["colleague's device"][0])).toMatchObject(
      { allowed: false, why: 'needs', missing: 'computer.read', held: [] },
    );
    const both = apiClient(client('viewlogs.device', 'computer.read'));
    expect(may(both, 'viewlogs.device', places["colleague's device"][0]).allowed).toBe(true);
    expect(may(both, 'viewlogs.device', places['device in sibling'][0])).toMatchObject({ why: 'needs' });
    expect(reachOf(both, 'viewlogs.device')).toBe('tree');
    expect(reachOf(apiClient(client('viewlogs.device')), 'viewlogs.device')).toBeNull();
  });
});

describe('what is said about it', () => {
  test('names the grant and what in it gives the permission', () => {
    const holder = actor([given('PROe User'), given('Org Admin'), given('Cross Org Admin')]);
    expect(may(holder, 'computer.read', places["colleague's device"][0])).toEqual({
      allowed: true,
      permission: 'computer.read',
      by: { grant: 1, role: 'Org Admin', through: 'computer.read', scope: 'tree', organization: 20 },
    });
    expect(may(holder, 'computer.read', places['device in sibling'][0])).toMatchObject({
      by: { grant: 2, role: 'Cross Org Admin', through: 'crossorg_computer.read', scope: 'all' },
    });
    expect(may(actor([client('plan.all')]), 'plan.delete', places.child[0])).toMatchObject({
      by: { grant: 0, role: null, through: 'plan.all', scope: 'tree' },
    });
  });

  test('names every grant that has the permission, and what each misses', () => {
    const holder = actor([given('Desktop User'), given('Org Admin'), given('Alert Emails')]);
    expect(may(holder, 'restore.personal', places['device in sibling'][0])).toEqual({
      allowed: false,
      permission: 'restore.personal',
      why: 'out_of_scope',
      held: [
        {
          grant: 0,
          role: 'Desktop User',
          through: 'restore.personal',
          scope: 'self',
          organization: 20,
          misses: 'not_self',
        },
        {
          grant: 1,
          role: 'Org Admin',
          through: 'restore.personal',
          scope: 'self',
          organization: 20,
          misses: 'not_self',
        },
      ],
      missing: null,
    });
    expect(may(holder, 'org.read', places.parent[0])).toMatchObject({ held: [{ misses: 'other_organization' }] });
    expect(may(holder, 'org.create', places['the tenant itself'][0])).toMatchObject({
      held: [{ misses: 'tenant_itself' }],
    });
  });

  test('is the same for everything in another tenant, whatever the actor has', () => {
    for (const place of ['other tenant', 'same numbers in other tenant', 'the other tenant itself'] as const)
      expect(may(actor([given('Customer Cloud Admin')]), 'org.read', places[place][0])).toEqual({
        allowed: false,
        permission: 'org.read',
        why: 'other_tenant',
        held: [],
        missing: null,
      });
  });

  test('says when files would go to somebody else', () => {
    const helper = actor([given('Org Help Desk')]);
    expect(may(helper, 'pushrestore.limited', places['files of a colleague to own device'][0])).toMatchObject({
      allowed: false,
      why: 'other_users_device',
    });
    // Whose files they are is left out: then they are not known to be this user's.
    const target = { tenant: 1, organizationPath: [1, 10, 20], deviceUser: 501 };
    expect(may(helper, 'pushrestore.limited', target)).toMatchObject({ why: 'other_users_device' });
  });

  test('does not exist for what is no permission', () => {
    expect(() => may(actor([]), 'computer.reed' as never, places.self[0])).toThrow('computer.reed is no permission');
  });
});

test('how far a permission reaches is the widest of its grants', () => {
  const holder = actor([given('Desktop User'), given('Org Manager'), given('Admin Restore Limited')]);
  expect(reachOf(holder, 'restore.limited')).toBe('all');
  expect(reachOf(holder, 'user.read')).toBe('tree');
  expect(reachOf(holder, 'restore.personal')).toBe('self');
  expect(reachOf(holder, 'org.create')).toBeNull();
});
