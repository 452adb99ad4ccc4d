/**
 * An administrator's sign-in, by name and password on every request, as dashboards and scripts send them. Wrong names,
 * wrong passwords and people who are gone are answered alike and take the same work; a password that was right is
 * known again for a minute without that work, and whether its owner still may is asked every time.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { Problem } from '../../protocol/problems.ts';
import { type Database, statement } from '../../storage/catalog/database.ts';
import type { Directory } from './directory.ts';

export interface Administrator {
  userId: number;
  tenantId: number;
  /** Of the server's first tenant, whose administrators run the server: what is not one tenant's is for them alone. */
  operator: boolean;
}

const sql = {
  findAdministrator: statement(
    'directory.findAdministrator',
    `SELECT u.user_id AS "userId", u.tenant_id AS "tenantId", u.password_hash AS "passwordHash", u.state,
            EXISTS (SELECT 1 FROM user_roles r WHERE r.user_id = u.user_id AND r.role = 'Customer Cloud Admin') AS administrator,
            u.tenant_id = first.tenant_id AS operator
       FROM (SELECT min(tenant_id) AS tenant_id FROM tenants) first
       JOIN users u ON u.tenant_id = coalesce($1::bigint, first.tenant_id) AND lower(u.name) = lower($2)`,
  ),
};

/**
 * What a 401 to an administrator carries. Its code is a device's too; a type of its own, as a title belongs to a type and
 * not to an occurrence (RFC 9457, 3.1.4).
 */
export const administratorSignIn = {
  type: 'urn:holdfast:problem:administrator_sign_in',
  title: "An administrator's name and password are needed",
};

interface AdministratorRow extends Administrator {
  passwordHash: string | null;
  state: 'active' | 'blocked' | 'deactivated';
  administrator: boolean;
}

/**
 * @param userName a name in the server's first tenant; in another with the tenant's number before it: `12/anna`
 * @param address where the request came from, for the bound on failed sign-ins
 * @throws Problem sign_in_failed, too_many_requests, and forbidden for somebody who is no administrator
 */
export async function signInAdministrator(
  directory: Directory,
  { userName, password }: { userName: string; password: string },
  address: string,
): Promise<Administrator> {
  const user = await findAdministrator(directory.database, userName);
  const passwordHash = user?.passwordHash ?? null;
  const right = await directory.credentials.isRight({ userName, password, passwordHash, address }, async () => {
    const forgive = directory.signIns.attempt(userName, address);
    const judged = await directory.passwords.verify(password, passwordHash).catch((error) => {
      forgive(); // it was not judged: too many waited
      throw error;
    });
    if (judged && user?.state === 'active') forgive();
    return judged;
  });
  if (!user || !right || user.state !== 'active')
    throw new Problem('sign_in_failed', 'the user name or password is not right', administratorSignIn);
  if (!user.administrator) throw new Problem('forbidden', 'this is for administrators');
  const { userId, tenantId, operator } = user;
  return { userId, tenantId, operator };
}

async function findAdministrator(db: Database, userName: string): Promise<AdministratorRow | null> {
  if (userName.includes('\0')) return null; // no name has one, and PostgreSQL's text cannot
  const [, tenant = null, name = userName] = /^([1-9]\d{0,14})\/(.*)$/s.exec(userName) ?? [];
  const [row] = await db.query<AdministratorRow>(sql.findAdministrator, [tenant, name]);
  return row ?? null;
}

export interface Credential {
  userName: string;
  password: string;
  /** What it was compared with: when that changes, nothing is known any more. */
  passwordHash: string | null;
  address: string;
}

/** Passwords that were right a moment ago, by a keyed hash that dies with the process. */
export interface Credentials {
  /** Asks `judge` unless it said yes to the same a moment ago; those who ask while it is asked share its answer. */
  isRight(credential: Credential, judge: () => Promise<boolean>): Promise<boolean>;
}

export interface CredentialOptions {
  forMs: number;
  /** Remembered at most; the oldest are forgotten first. */
  entriesMax: number;
  /** Milliseconds of a monotonic clock. */
  now: () => number;
}

export function createCredentials({ forMs, entriesMax, now }: CredentialOptions): Credentials {
  const key = randomBytes(32);
  const knownUntil = new Map<string, number>();
  const asked = new Map<string, Promise<boolean>>();

  return {
    async isRight({ userName, password, passwordHash, address }, judge) {
      const digest = (...parts: (string | null)[]): string =>
        createHmac('sha256', key).update(JSON.stringify(parts)).digest('base64');
      const known = digest(userName, password, passwordHash);
      if ((knownUntil.get(known) ?? Number.NEGATIVE_INFINITY) > now()) return true;
      knownUntil.delete(known);
      // By address too: each address's guesses are counted as its own.
      const asking = digest(userName, password, passwordHash, address);
      let answer = asked.get(asking);
      if (!answer) {
        answer = judge().finally(() => asked.delete(asking));
        asked.set(asking, answer);
      }
      const right = await answer;
      if (right && passwordHash !== null && !knownUntil.has(known)) {
        if (knownUntil.size >= entriesMax) knownUntil.delete(knownUntil.keys().next().value!);
        knownUntil.set(known, now() + forMs);
      }
      return right;
    },
  };
}
