/**
 * Finds who signs in by the names they give: the tenant, which may be named in three ways, and their own. One statement
 * whatever is unknown, so that how long it takes tells nothing.
 */
import { sha256 } from '../../../protocol/hashes.ts';
import { type Database, statement } from '../../../storage/catalog/database.ts';
import { effectiveSetting, type OwnSettings } from '../settings/effective.ts';
import { type EffectiveState, heldOfUser } from '../users/effective-state.ts';
import { isSecondFactorWanted, ownSignInSettings } from './second-factor/wanted.ts';

const sql = {
  // Settings come from the topmost organization down. A tenant whose data is deleted is nobody's name any more: another may
  // have it, and what is tried under it belongs in no log but the server's.
  findUser: statement(
    'directory.findUserAccount',
    `WITH first AS (SELECT min(tenant_id) AS tenant_id FROM tenants WHERE state NOT IN ('deleting', 'deleted')),
          named AS (
            SELECT tenant_id FROM tenants WHERE tenant_id = $1
            UNION SELECT tenant_id FROM organizations WHERE registration_key = $2
            UNION SELECT min(tenant_id) FROM tenants WHERE lower(name) = lower($3) AND state NOT IN ('deleting', 'deleted') HAVING count(*) = 1
            UNION SELECT tenant_id FROM first WHERE $5)
     SELECT t.tenant_id AS tenant, t.name AS "tenantName",
            u.user_id AS id, u.name, u.email, u.organization_id AS organization, u.password_hash AS "passwordHash",
            u.password_once_until IS NOT NULL AS once, coalesce(u.password_once_until <= now(), false) AS "onceLapsed",
            held.state, f.confirmed_at IS NOT NULL AS "secondFactor",
            ${ownSignInSettings} AS settings
       FROM named n JOIN tenants t ON t.tenant_id = n.tenant_id AND t.state NOT IN ('deleting', 'deleted')
       LEFT JOIN users u ON u.tenant_id = t.tenant_id AND lower(u.name) = lower($4)
       LEFT JOIN organizations o ON o.organization_id = u.organization_id
       LEFT JOIN LATERAL ${heldOfUser} held ON u.user_id IS NOT NULL
       LEFT JOIN second_factors f ON f.user_id = u.user_id`,
  ),
  findOperator: statement(
    'directory.findOperatorAccount',
    `SELECT p.operator_id AS id, p.name, p.password_hash AS "passwordHash", p.state, f.confirmed_at IS NOT NULL AS "secondFactor"
       FROM operators p LEFT JOIN operator_second_factors f ON f.operator_id = p.operator_id WHERE lower(p.name) = lower($1)`,
  ),
};

interface Common {
  id: number;
  name: string;
  /** Null: they have none yet, or sign in by an identity provider only. */
  passwordHash: string | null;
  /** The strictest of their own state and of those above. */
  state: EffectiveState;
  /** A generator of codes is in force. */
  secondFactor: boolean;
  /** What attempts are counted by. */
  key: Buffer;
}

export interface UserAccount extends Common {
  kind: 'user';
  tenant: number;
  tenantName: string;
  email: string | null;
  organization: number;
  /** The password was set by an administrator, and is good for setting another. */
  once: boolean;
  /** It was not used in time. */
  onceLapsed: boolean;
  /** The organization wants a second factor. */
  twoFactorNeeded: boolean;
  /** The organization lets its users sign in with a password. */
  passwordAllowed: boolean;
}

export interface OperatorAccount extends Common {
  kind: 'operator';
}

export type Account = UserAccount | OperatorAccount;

/** Nobody of that name: what attempts are counted by all the same, and in whose log they belong. */
export interface NoAccount {
  kind: 'none';
  tenant: number | null;
  key: Buffer;
  passwordHash: null;
}

/** How a tenant is named: null, the first. */
export type TenantName = { id: number } | { registrationKey: string } | { name: string } | null;

interface UserRow {
  tenant: number;
  tenantName: string;
  id: number | null;
  settings: OwnSettings[];
}

const accountKey = (...parts: (string | number | null)[]): Buffer => sha256(Buffer.from(JSON.stringify(parts)));
export const userAccountKey = (user: number): Buffer => accountKey('user', user);
export const operatorAccountKey = (operator: number): Buffer => accountKey('operator', operator);

export async function findUserAccount(
  db: Database,
  tenant: TenantName,
  userName: string,
): Promise<UserAccount | NoAccount> {
  const { id = null, registrationKey = null, name = null } = (tenant ?? {}) as Partial<Record<string, string | number>>;
  const nobody = { kind: 'none', tenant: null, passwordHash: null } as const;
  const keyOfNobody = accountKey('none', id, registrationKey, String(name).toLowerCase(), userName.toLowerCase());
  // No name has a NUL, and PostgreSQL's text cannot.
  if (`${registrationKey}${name}${userName}`.includes('\0')) return { ...nobody, key: keyOfNobody };
  const values = [id, registrationKey, name, userName, tenant === null];
  const [row] = await db.query<UserRow & Omit<UserAccount, 'kind' | 'key' | 'id'>>(sql.findUser, values);
  if (row?.id == null) return { ...nobody, tenant: row?.tenant ?? null, key: keyOfNobody };
  const { settings, id: user, ...found } = row;
  return {
    ...found,
    kind: 'user',
    id: user,
    key: userAccountKey(user),
    // A setting that cannot be read is taken for the stricter one.
    twoFactorNeeded: isSecondFactorWanted(settings),
    passwordAllowed: effectiveSetting('signIn.password', settings).value ?? false,
  };
}

export async function findOperatorAccount(db: Database, name: string): Promise<OperatorAccount | NoAccount> {
  const nobody = { kind: 'none', tenant: null, passwordHash: null } as const;
  const key = accountKey('no operator', name.toLowerCase());
  if (name.includes('\0')) return { ...nobody, key };
  const [row] = await db.query<Omit<OperatorAccount, 'kind' | 'key'>>(sql.findOperator, [name]);
  return row ? { ...row, kind: 'operator', key: operatorAccountKey(row.id) } : { ...nobody, key };
}

/**
 * What was typed into one field for the tenant: its number, the registration key of one of its organizations, or its name.
 * @returns what to try, in this order: a name that is a number too is the number
 */
export function readTenantName(text: string): TenantName {
  const typed = text.trim();
  if (/^[1-9]\d{0,14}$/.test(typed)) return { id: Number(typed) };
  // Registration keys are typed off a screen: case does not matter.
  if (/^[0-9A-Z]{4}(-[0-9A-Z]{4}){3}$/i.test(typed)) return { registrationKey: typed.toUpperCase() };
  return { name: typed };
}

/** `12/anna`: anna of tenant 12. Without a number: of the first tenant. */
export function readUserName(text: string): { tenant: TenantName; userName: string } {
  const [, tenant, userName] = /^([1-9]\d{0,14})\/(.*)$/s.exec(text) ?? [];
  return tenant ? { tenant: { id: Number(tenant) }, userName: userName! } : { tenant: null, userName: text };
}
