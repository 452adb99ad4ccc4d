import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { oraclePermissions, oracleRoles } from '../../../tests/helpers/roles-oracle.ts';
import { isPermission, narrower, type Permission, permissions, twinOf, wholeOf } from './permissions.ts';
import { isRole, roles } from './roles.ts';

const named = [...permissions.keys()];

describe('the roles', () => {
  test('there are 31, of 76 permissions', () => {
    expect([roles.size, permissions.size]).toEqual([31, 76]);
    expect([oracleRoles.size, oraclePermissions.length, new Set(oraclePermissions).size]).toEqual([31, 76, 76]);
  });

  test('have the names that administrators know, and no others', () => {
    expect([...roles.keys()]).toEqual([...oracleRoles.keys()]);
    expect([...named].sort()).toEqual(oraclePermissions);
  });

  test.each([...oracleRoles])('%s has the scope and permissions that administrators know', (name, expected) => {
    const role = roles.get(name as never)!;
    const listed = role.permissions === '*' ? ['*'] : [...role.permissions].sort();
    expect({ scope: role.scope, permissions: listed }).toEqual(expected);
  });

  test('name each permission once', () => {
    for (const [name, { permissions: listed }] of roles)
      expect([name, new Set(listed).size]).toEqual([name, listed.length]);
  });

  test('say in a sentence what they are for, and whether they let sign in', () => {
    for (const [name, { description, granted }] of roles) {
      expect([name, description]).toEqual([name, expect.stringMatching(/^[A-Z].+\.$/)]);
      expect([name, /Does not let sign in|which lets sign in/.test(description)]).toEqual([
        name,
        !granted.has('console.login'),
      ]);
    }
  });

  test('with every permission have those of every other role', () => {
    for (const { granted } of roles.values())
      for (const permission of granted) expect(roles.get('Customer Cloud Admin')!.granted).toContain(permission);
  });

  test('are told from what only looks like one', () => {
    for (const text of ['', 'org admin', 'Org Admin ', '__proto__', 'constructor', 'toString'])
      expect([text, isRole(text), isPermission(text)]).toEqual([text, false, false]);
    expect(isRole('Org Admin') && isPermission('org.read')).toBe(true);
  });
});

describe('the permissions', () => {
  test('say in a sentence of their own what they allow', () => {
    const sentences = [...permissions.values()].map(({ allows }) => allows);
    for (const sentence of sentences) expect(sentence).toMatch(/^[A-Z].+\.$/);
    expect(new Set(sentences).size).toBe(76);
  });

  test('that reach a tree are those that have a twin for the tenant, and the twin reaches it all', () => {
    const twins = named.filter((each) => twinOf(each) !== null);
    expect(twins.length).toBe(18);
    expect(named.filter((each) => permissions.get(each)!.reach === 'tree')).toEqual(twins);
    for (const each of twins) expect(permissions.get(twinOf(each)!)!.reach).toBe('all');
    expect(named.filter((each) => each.startsWith('crossorg_'))).toEqual(expect.arrayContaining(twins.map(twinOf)));
    expect(named.filter((each) => each.startsWith('crossorg_')).length).toBe(18);
    expect(named.filter((each) => twinOf(each)?.startsWith('crossorg_crossorg'))).toEqual([]);
  });

  test('that are about their holder alone are these', () => {
    const alone = named.filter((each) => permissions.get(each)!.reach === 'self').sort();
    expect(alone).toEqual([
      'console.login',
      'cpd.restore',
      'pushrestore.personal',
      'restore.personal',
      'select.personal',
    ]);
  });

  test('that are parts of an .all are these', () => {
    const partsOf = (whole: string): string => {
      const parts = named.filter((each) => wholeOf(each) === whole);
      return parts.map((each) => each.split('.').at(-1)).join(' ');
    };
    const wholes = named.filter((each) => each.endsWith('.all')).map((each) => [each, partsOf(each)]);
    expect(Object.fromEntries(wholes)).toEqual({
      'user.all': 'create delete read update',
      'crossorg_user.all': 'create delete read update',
      'computer.all': 'delete read update',
      'crossorg_computer.all': 'delete read update',
      'plan.all': 'create delete read update',
      'crossorg_plan.all': 'create delete read update',
      'restore.all': 'limited personal',
      'pushrestore.all': 'limited personal',
      'select.all': 'personal',
      'legalhold.all': 'create modify_membership read update',
      'customer_admin.all': '',
    });
    expect(named.filter((each) => wholeOf(each)).length).toBe(4 + 4 + 3 + 3 + 4 + 4 + 2 + 2 + 1 + 4);
  });

  test('narrow each other down', () => {
    expect([narrower('all', 'tree'), narrower('self', 'tree'), narrower('all', 'all')]).toEqual([
      'tree',
      'self',
      'all',
    ]);
  });

  test('that are in use are those that something in the server asks for', () => {
    const source = readServer();
    const asked = named.filter((each) => source.includes(`'${each}'`));
    const inUse = named.filter((each) => isAnswered(each, asked));
    expect(named.filter((each) => permissions.get(each)!.inUse)).toEqual(inUse);
  });
});

/** Whether having it answers one of these: it is one, its `.all`, or the twin of either. */
function isAnswered(permission: Permission, asked: readonly Permission[]): boolean {
  const names = (each: Permission): (Permission | null)[] => {
    const whole = wholeOf(each);
    return [each, whole, twinOf(each), whole && twinOf(whole)];
  };
  return asked.some((each) => names(each).includes(permission));
}

/** All of the server that is no test, without the folder where permissions are only described. */
function readServer(): string {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(
    (path) => /(?<!\.(test|child))\.ts$/.test(path) && !path.replaceAll('\\', '/').startsWith('directory/roles/'),
  );
  expect(files.length).toBeGreaterThan(80);
  return files.map((path) => readFileSync(join(root, path), 'utf8')).join('\n');
}
