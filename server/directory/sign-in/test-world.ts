/** A directory on a real database, with a tenant and people to sign in as, for the tests in these folders. */
import { randomBytes } from 'node:crypto';
import { Problem } from '../../../protocol/problems.ts';
import { type Database, databaseDefaults, openDatabase } from '../../../storage/catalog/database.ts';
import { testDatabase } from '../../../tests/helpers/postgres.ts';
import type { By } from '../audit/act.ts';
import { type Directory, openDirectory } from '../directory.ts';
import { localKeyService } from '../keys/local-keys.ts';
import { insertOrganization, insertTenant } from '../organizations/inserting.ts';
import { newRegistrationKey } from '../organizations/registration-key.ts';
import { insertUser } from '../users/people.ts';
import { type ComesFrom, type SignInGiven, signInUser } from './sessions/begin.ts';
import type { SessionTokens } from './sessions/sessions.ts';
import { drawTokens } from './sessions/tokens-of-session.ts';

export const password = 'a horse of many colours';
export const home: ComesFrom = { address: '192.0.2.1', program: 'test' };

export interface World {
  database: Database;
  directory: Directory;
  /** Another process of the same server. */
  anotherReplica(signInsPerMinute?: number): Directory;
  /** The hash of `password`. */
  passwordHash: string;
  tenant: number;
  root: number;
  child: number;
  registrationKey: string;
  by: By;
  /** A user of that name, in the child organization unless said otherwise, with `password`. */
  addUser(name: string, of?: { organization?: number; administrator?: boolean }): Promise<number>;
  signIn(userName: string, given?: Partial<SignInGiven>, from?: Partial<ComesFrom>): Promise<SessionTokens>;
  query<Row = Record<string, unknown>>(text: string, values?: unknown[]): Promise<Row[]>;
  /** Acts of an action, as they were written, oldest first. */
  acts(
    action: string,
  ): Promise<{ result: string; details: Record<string, unknown>; party: string; partyId: string | null }[]>;
  close(): Promise<void>;
}

export async function signInWorld(): Promise<World> {
  const test = await testDatabase();
  const database = openDatabase({ ...databaseDefaults, connectionString: test.connectionString });
  const key = randomBytes(32);
  const anotherReplica = (signInsPerMinute = 10_000): Directory =>
    openDirectory({ database, keys: localKeyService([key]), passwordHashesMax: 2, signInsPerMinute });
  const directory = anotherReplica();
  const passwordHash = await directory.passwords.hash(password);
  const registrationKey = newRegistrationKey();
  const place = await database.transaction(async (tx) => {
    const tenant = await insertTenant(tx, 'Example Ltd');
    const common = { tenantId: tenant };
    const root = await insertOrganization(tx, { ...common, parentId: null, name: 'root', registrationKey });
    const key = newRegistrationKey();
    const child = await insertOrganization(tx, { ...common, parentId: root, name: 'child', registrationKey: key });
    return { tenant, root, child };
  });
  const query = <Row>(text: string, values: unknown[] = []): Promise<Row[]> =>
    database.query({ name: '', text }, values);

  return {
    database,
    directory,
    anotherReplica,
    passwordHash,
    registrationKey,
    ...place,
    by: { tenant: place.tenant, party: { kind: 'server', id: null, name: 'test' }, address: null },
    addUser: (name, { organization = place.child, administrator = false } = {}) =>
      database.transaction((tx) =>
        insertUser(tx, { tenantId: place.tenant, organizationId: organization, name, passwordHash, administrator }),
      ),
    signIn: (userName, given = {}, from = {}) =>
      signInUser(directory, { userName, password, ...given }, { ...home, ...from }, drawTokens()),
    query,
    acts: (action) =>
      query(
        `SELECT result, details, party_name AS party, party_id AS "partyId" FROM acts WHERE action = $1 ORDER BY 1 = 1, at`,
        [action],
      ),
    close: async () => {
      await database.close();
      await test.drop();
    },
  };
}

/** The code of the problem that a promise ends with, or `done`. */
export async function ending(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return 'done';
  } catch (error) {
    if (error instanceof Problem) return error.code;
    throw error;
  }
}

/** The problem that a promise ends with. */
export async function problemOf(promise: Promise<unknown>): Promise<Problem> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (error instanceof Problem) return error;
  throw error ?? new Error('it was done, where a problem was expected');
}
