import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Problem } from '../../protocol/problems.ts';
import { type Database, databaseDefaults, openDatabase, statement } from '../../storage/catalog/database.ts';
import { type TestDatabase, testDatabase } from '../../tests/helpers/postgres.ts';
import { createCredentials, signInAdministrator } from './administrators.ts';
import { type Directory, openDirectory } from './directory.ts';
import { createFirstTenant, newRegistrationKey } from './first-tenant.ts';
import { localKeyService } from './key-service.ts';
import { insertOrganization, insertTenant, insertUser } from './people.ts';

let test_: TestDatabase;
let database: Database;
let directory: Directory;
let secondTenant: number;
const address = '192.0.2.1';
const password = 'the first one';

function fresh(signInsPerMinute = 1_000): Directory {
  const keys = localKeyService([randomBytes(32)]);
  return openDirectory({ database, keys, passwordHashesMax: 2, signInsPerMinute });
}

beforeAll(async () => {
  test_ = await testDatabase();
  database = openDatabase({ ...databaseDefaults, connectionString: test_.connectionString });
  directory = fresh();
  const registrationKey = newRegistrationKey();
  await createFirstTenant(directory, { name: 'first', registrationKey, userName: 'Admin', password });
  const passwordHash = await directory.passwords.hash('the second one');
  secondTenant = await database.transaction(async (tx) => {
    const tenantId = await insertTenant(tx, 'second');
    const organizationId = await insertOrganization(tx, {
      tenantId,
      parentId: null,
      name: 'root',
      registrationKey: newRegistrationKey(),
    });
    const common = { tenantId, organizationId, passwordHash };
    await insertUser(tx, { ...common, name: 'admin', administrator: true });
    await insertUser(tx, { ...common, name: 'somebody' });
    return tenantId;
  });
});

afterAll(async () => {
  await database?.close();
  await test_?.drop();
});

const signIn = (userName: string, given: string, of = directory) =>
  signInAdministrator(of, { userName, password: given }, address);
const codeOf = (error: unknown): string => (error instanceof Problem ? error.code : String(error));
const refusal = (userName: string, given: string, of = directory): Promise<string> =>
  signIn(userName, given, of).then(() => 'let in', codeOf);

describe('an administrator', () => {
  test('of the first tenant signs in by name, and runs the server', async () => {
    expect(await signIn('admin', password)).toMatchObject({ operator: true });
    expect(await signIn('ADMIN', password)).toMatchObject({ operator: true });
  });

  test('of another tenant says which, and does not run the server', async () => {
    const found = await signIn(`${secondTenant}/admin`, 'the second one');
    expect(found).toEqual({ userId: expect.any(Number), tenantId: secondTenant, operator: false });
    expect(await refusal('admin', 'the second one')).toBe('sign_in_failed');
    expect(await refusal(`${secondTenant}/admin`, password)).toBe('sign_in_failed');
  });

  test.each([
    ['admin', 'wrong'],
    ['admin', ''],
    ['nobody', password],
    ['999999/admin', password],
    ['999999999999999999999/admin', password],
    ['admin\0', password],
    ['', password],
  ])('is not %j with %j', async (userName, given) => {
    expect(await refusal(userName, given)).toBe('sign_in_failed');
  });

  test('is not everybody who can sign in', async () => {
    expect(await refusal(`${secondTenant}/somebody`, 'the second one')).toBe('forbidden');
    expect(await refusal(`${secondTenant}/somebody`, 'wrong')).toBe('sign_in_failed');
  });
});

test('whether a person still may is asked every time, also while the password is known', async () => {
  let changes = 0;
  const set = (what: string, userName: string) =>
    database.query(
      statement(`test.change${++changes}`, `UPDATE users SET ${what} WHERE tenant_id = $1 AND name = $2`),
      [secondTenant, userName],
    );
  const name = `${secondTenant}/admin`;
  await signIn(name, 'the second one');
  await set(`state = 'blocked'`, 'admin');
  expect(await refusal(name, 'the second one')).toBe('sign_in_failed');
  await set(`state = 'active'`, 'admin');
  const setRoles = (role: string) =>
    database.query({ name: '', text: 'UPDATE user_roles SET role = $2 WHERE tenant_id = $1' }, [secondTenant, role]);
  await setRoles('Help Desk');
  expect(await refusal(name, 'the second one')).toBe('forbidden');
  await setRoles('Customer Cloud Admin');
  expect(await refusal(name, 'the second one')).toBe('let in');
  await set(`password_hash = '${await directory.passwords.hash('a new one')}'`, 'admin');
  expect(await refusal(name, 'the second one')).toBe('sign_in_failed');
  expect(await refusal(name, 'a new one')).toBe('let in');
});

test('guesses are bounded, and do not shut out who is known', async () => {
  const bounded = fresh(3);
  expect(await refusal('admin', password, bounded)).toBe('let in');
  for (let i = 0; i < 3; i++) expect(await refusal('admin', `guess ${i}`, bounded)).toBe('sign_in_failed');
  expect(await refusal('admin', 'guess 3', bounded)).toBe('too_many_requests');
  for (let i = 0; i < 10; i++) expect(await refusal('admin', password, bounded)).toBe('let in');
});

test('many requests at once cost one hash and one attempt', async () => {
  const bounded = fresh(3);
  let hashes = 0;
  const counting: Directory = {
    ...bounded,
    passwords: {
      ...bounded.passwords,
      verify: (...args) => {
        hashes++;
        return bounded.passwords.verify(...args);
      },
    },
  };
  const all = await Promise.all(Array.from({ length: 40 }, () => refusal('admin', password, counting)));
  expect(new Set(all)).toEqual(new Set(['let in']));
  expect(hashes).toBe(1);
});

describe('passwords that were right', () => {
  const credential = { userName: 'a', password: 'p', passwordHash: 'h', address };

  test('are known for their time, and no others', async () => {
    let now = 0;
    let asked = 0;
    const judge = (right: boolean) => async () => {
      asked++;
      return right;
    };
    const credentials = createCredentials({ forMs: 60_000, entriesMax: 10, now: () => now });
    expect(await credentials.isRight(credential, judge(true))).toBe(true);
    now = 59_999;
    expect(await credentials.isRight(credential, judge(false))).toBe(true);
    expect(asked).toBe(1);
    for (const other of [{ userName: 'b' }, { password: 'q' }, { passwordHash: 'i' }, { passwordHash: null }])
      expect(await credentials.isRight({ ...credential, ...other }, judge(false))).toBe(false);
    expect(asked).toBe(5);
    now = 60_000;
    expect(await credentials.isRight(credential, judge(false))).toBe(false);
    expect(asked).toBe(6);
  });

  test('are forgotten, the oldest first, before they are too many; wrong ones are never kept', async () => {
    const credentials = createCredentials({ forMs: 60_000, entriesMax: 2, now: () => 0 });
    const known = async (userName: string): Promise<boolean> =>
      credentials.isRight({ ...credential, userName }, async () => false);
    for (const userName of ['a', 'b', 'c']) await credentials.isRight({ ...credential, userName }, async () => true);
    expect([await known('a'), await known('b'), await known('c')]).toEqual([false, true, true]);
  });

  test('an error is told to those who wait for the same, and is not kept', async () => {
    const credentials = createCredentials({ forMs: 60_000, entriesMax: 2, now: () => 0 });
    const away = () => Promise.reject(new Error('the database is away'));
    const both = await Promise.allSettled([
      credentials.isRight(credential, away),
      credentials.isRight(credential, away),
    ]);
    expect(both.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(await credentials.isRight(credential, async () => true)).toBe(true);
  });
});
