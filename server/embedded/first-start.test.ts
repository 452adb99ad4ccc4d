import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type TestStorage, testStorage } from '../../tests/helpers/storage.ts';
import { type Directory, openDirectory } from '../directory/directory.ts';
import { localKeyService } from '../directory/keys/local-keys.ts';
import { createFirstTenant } from '../directory/organizations/first-tenant.ts';
import { admitOperator } from '../directory/sign-in/operators/basic-sign-in.ts';
import { createFirstOperator } from '../directory/sign-in/operators/operators.ts';
import { signInUser } from '../directory/sign-in/sessions/begin.ts';
import { drawTokens } from '../directory/sign-in/sessions/tokens-of-session.ts';
import { ensureFirstPeople, type FirstStart, firstStartFile, noteAddress, secretsIn } from './first-start.ts';

let storage: TestStorage;
let directory: Directory;
let folder: string;

beforeEach(async () => {
  storage = await testStorage();
  const keys = localKeyService([randomBytes(32)]);
  directory = openDirectory({ database: storage.database, keys, passwordHashesMax: 2, signInsPerMinute: 1_000 });
  folder = mkdtempSync(join(tmpdir(), 'holdfast-first-'));
});
afterEach(async () => {
  await storage?.close();
  rmSync(folder, { recursive: true, force: true });
});

const inFile = (): FirstStart => JSON.parse(readFileSync(firstStartFile(folder), 'utf8'));
const counted = async () => {
  const [row] = await storage.rows<{ tenants: number; operators: number }>(
    'SELECT (SELECT count(*)::int FROM tenants) AS tenants, (SELECT count(*)::int FROM operators) AS operators',
  );
  return row!;
};
const home = { address: '192.0.2.1', program: null };

/** Both passwords in the file open what they are for, and only that. */
async function expectPeople(): Promise<void> {
  const { userName, password, operator } = inFile();
  await signInUser(directory, { userName, password }, home, drawTokens());
  expect(await admitOperator(directory, operator!, home.address)).toMatchObject({ name: 'operator' });
  await expect(admitOperator(directory, { userName, password }, home.address)).rejects.toMatchObject({
    code: 'sign_in_failed',
  });
}

test('the first start makes an administrator and an operator, each with a password of their own, and the next nobody', async () => {
  expect(await ensureFirstPeople(folder, directory)).toEqual({ operator: true });
  await expectPeople();
  const { password, operator } = inFile();
  expect(operator!.password).not.toBe(password);
  expect(secretsIn(folder)).toEqual({ administrator: true, operator: true });

  const before = readFileSync(firstStartFile(folder), 'utf8');
  expect(await ensureFirstPeople(folder, directory)).toEqual({ operator: true });
  expect(readFileSync(firstStartFile(folder), 'utf8')).toBe(before);
  expect(await counted()).toEqual({ tenants: 1, operators: 1 });
});

test('a start that was cut short goes on with the secrets that it wrote down', async () => {
  const operator = { userName: 'operator', password: 'of the operator' };
  const secrets = { registrationKey: 'ABCD-ABCD-ABCD-ABCD', userName: 'admin', password: 'of the admin' };
  const content = { url: '', certificateSha256: null, ...secrets, operator };
  writeFileSync(firstStartFile(folder), JSON.stringify(content));
  await ensureFirstPeople(folder, directory);
  expect(inFile()).toEqual(content);
  await expectPeople();
});

test('a folder of an earlier version gets its operator, in the file that is there', async () => {
  const secrets = { registrationKey: 'ABCD-ABCD-ABCD-ABCD', userName: 'admin', password: 'of the admin' };
  const content = { url: 'https://127.0.0.1:1', certificateSha256: null, ...secrets };
  await createFirstTenant(directory, { name: 'First organization', ...secrets });
  writeFileSync(firstStartFile(folder), JSON.stringify(content));
  expect(await ensureFirstPeople(folder, directory)).toEqual({ operator: true });
  expect(inFile()).toEqual({ ...content, operator: { userName: 'operator', password: expect.any(String) } });
  await expectPeople();
  expect(await counted()).toEqual({ tenants: 1, operators: 1 });
});

test('where the file was removed nothing is made up, and nothing is written', async () => {
  const secrets = { registrationKey: 'ABCD-ABCD-ABCD-ABCD', userName: 'admin', password: 'of the admin' };
  await createFirstTenant(directory, { name: 'First organization', ...secrets });
  expect(await ensureFirstPeople(folder, directory)).toEqual({ operator: false });
  noteAddress(folder, { url: 'https://127.0.0.1:1', certificateSha256: null });
  expect(existsSync(firstStartFile(folder))).toBe(false);
  expect(secretsIn(folder)).toEqual({ administrator: false, operator: false });
  expect(await counted()).toEqual({ tenants: 1, operators: 0 });

  await createFirstOperator(directory, { name: 'olga', password: 'of her own' });
  expect(await ensureFirstPeople(folder, directory)).toEqual({ operator: true });
  expect(await counted()).toEqual({ tenants: 1, operators: 1 });
});

test('an operator that was made by hand is the only one', async () => {
  await createFirstOperator(directory, { name: 'olga', password: 'of her own' });
  await ensureFirstPeople(folder, directory);
  expect(inFile().operator).toBeUndefined();
  expect(await counted()).toEqual({ tenants: 1, operators: 1 });
});

test('starts that race make one operator, and its password is the one in the file', async () => {
  const operator = { userName: 'operator', password: 'of the operator' };
  const secrets = { registrationKey: 'ABCD-ABCD-ABCD-ABCD', userName: 'admin', password: 'of the admin' };
  await createFirstTenant(directory, { name: 'First organization', ...secrets });
  writeFileSync(firstStartFile(folder), JSON.stringify({ url: '', certificateSha256: null, ...secrets, operator }));
  await Promise.all([1, 2, 3].map(() => ensureFirstPeople(folder, directory)));
  await expectPeople();
  expect(await counted()).toEqual({ tenants: 1, operators: 1 });
});
