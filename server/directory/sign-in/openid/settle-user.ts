/**
 * Finds, links or makes the user that somebody at a provider is, and gives and takes the roles that the provider decides.
 * What must stay true: a user is found by the provider's subject; by a mail address only when the provider has verified it
 * and speaks for its domain; nobody is found by a name; and in a tenant that leaves nobody is made.
 *
 * Lock order: the tenant's row, the user's, everything else.
 */
import type { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import { isLeaving, lockTenant } from '../../organizations/locking.ts';
import { assertAdministratorLeft } from '../../users/administrators-left.ts';
import { createUser } from '../../users/change.ts';
import { type EffectiveState, heldOfUser } from '../../users/effective-state.ts';
import type { ProviderDocument } from './shapes.ts';
import type { Who } from './who.ts';

const sql = {
  byAccount: statement(
    'directory.findUserByAccount',
    'SELECT user_id AS "user" FROM provider_accounts WHERE tenant_id = $1 AND provider_id = $2 AND subject = $3',
  ),
  // One who is known to the provider by another subject is somebody else.
  byMail: statement(
    'directory.findUserByMail',
    `SELECT min(u.user_id) AS "user" FROM users u WHERE u.tenant_id = $1 AND lower(u.email) = $3
        AND NOT EXISTS (SELECT 1 FROM provider_accounts a WHERE a.provider_id = $2 AND a.user_id = u.user_id)
     HAVING count(*) = 1`,
  ),
  lockUser: statement(
    'directory.lockUserToSettle',
    'SELECT 1 FROM users WHERE tenant_id = $1 AND user_id = $2 FOR NO KEY UPDATE',
  ),
  read: statement(
    'directory.readUserToSettle',
    `SELECT u.user_id AS id, u.name, u.organization_id AS organization, held.state
       FROM users u JOIN organizations o ON o.organization_id = u.organization_id CROSS JOIN LATERAL ${heldOfUser} held
      WHERE u.tenant_id = $1 AND u.user_id = $2`,
  ),
  link: statement(
    'directory.linkAccount',
    `INSERT INTO provider_accounts (provider_id, subject, tenant_id, user_id) VALUES ($2, $3, $1, $4)
         ON CONFLICT (provider_id, subject) DO NOTHING RETURNING 1`,
  ),
  take: statement(
    'directory.takeRolesOfProvider',
    `DELETE FROM user_roles r
      WHERE r.tenant_id = $1 AND r.user_id = $2 AND r.provider_id = $3
        AND NOT EXISTS (SELECT 1 FROM unnest($4::text[], $5::text[]) w (role, scope)
                         WHERE w.role = r.role AND w.scope = r.scope AND r.organization_id = $6)
     RETURNING r.role`,
  ),
  // One that a person has given stays theirs.
  give: statement(
    'directory.giveRolesOfProvider',
    `INSERT INTO user_roles (tenant_id, user_id, provider_id, role, scope, organization_id)
     SELECT $1, $2, $3, w.role, w.scope, $6 FROM unnest($4::text[], $5::text[]) w (role, scope)
         ON CONFLICT (user_id, role, organization_id) DO NOTHING RETURNING role`,
  ),
};

export interface SettledUser {
  id: number;
  name: string;
  organization: number;
  state: EffectiveState;
}

export interface Settling {
  tenant: number;
  provider: { id: number; name: string };
  document: z.infer<typeof ProviderDocument>;
  who: Who;
  address: string;
}

/**
 * @returns the user, whose row is locked; or why there is none
 * @throws Problem conflict when a role would be taken from the last administrator
 */
export async function settleUser(tx: Transaction, settling: Settling): Promise<SettledUser | string> {
  const { tenant, provider, who } = settling;
  // First logins of one person, and the last administrator's leaving, go one after the other.
  const { state } = await lockTenant(tx, tenant);
  if (isLeaving(state)) return state;
  const found = await findOrMake(tx, settling);
  if (typeof found === 'string') return found;
  await tx.query(sql.lockUser, [tenant, found]);
  const read = async (): Promise<SettledUser> => (await tx.query<SettledUser>(sql.read, [tenant, found]))[0]!;
  const user = await read();
  if (user.state !== 'active') return user.state;
  if ((await tx.query(sql.link, [tenant, provider.id, who.subject, found])).length > 0)
    await recordOf(tx, settling, user, 'user.link_provider', { subject: who.subject });
  if (who.managesRoles) await settleRoles(tx, settling, user);
  return user;
}

async function findOrMake(tx: Transaction, settling: Settling): Promise<number | string> {
  const { tenant, provider, who, document } = settling;
  const find = async (by: 'byAccount' | 'byMail', value: string): Promise<number | undefined> =>
    (await tx.query<{ user: number }>(sql[by], [tenant, provider.id, value]))[0]?.user;
  const linked = await find('byAccount', who.subject);
  if (linked !== undefined) return linked;
  const mailed = who.emailIsTheirs ? await find('byMail', who.email!) : undefined;
  if (mailed !== undefined) return mailed;
  if (!document.createsUsers) return 'nobody here is known by this account';
  if (document.domains.length > 0 && !who.emailIsTheirs) return 'no verified mail address of the domains';
  if (who.name === null || who.organization === null) return 'the provider sent no name for a new user';
  return make(tx, settling, who.name, who.organization);
}

async function make(tx: Transaction, settling: Settling, name: string, organization: number): Promise<number | string> {
  const { tenant, who } = settling;
  const { displayName, email } = who;
  try {
    const request = { tenant, organization, name, displayName, email, passwordHash: null };
    return (await createUser(tx, byProvider(settling), request)).id;
  } catch (error) {
    // A name that somebody here has: it may be somebody else's, so it is not theirs. The statement that failed has ended
    // the transaction, so nothing but the reason goes on.
    if (error instanceof Problem && (error.code === 'conflict' || error.code === 'not_found'))
      throw new NotMade(`a new user cannot be made: ${error.message}`);
    throw error;
  }
}

/** A reason to refuse that has undone the transaction. */
export class NotMade extends Error {
  override name = 'NotMade';
}

async function settleRoles(tx: Transaction, settling: Settling, user: SettledUser): Promise<void> {
  const { tenant, provider, who } = settling;
  const values = [
    tenant,
    user.id,
    provider.id,
    who.roles.map(({ role }) => role),
    who.roles.map(({ scope }) => scope),
    user.organization,
  ];
  const rolesOf = (rows: { role: string }[]): string[] => rows.map(({ role }) => role).sort();
  const taken = rolesOf(await tx.query<{ role: string }>(sql.take, values));
  const given = rolesOf(await tx.query<{ role: string }>(sql.give, values));
  if (taken.includes('Customer Cloud Admin')) await assertAdministratorLeft(tx, tenant);
  if (taken.length + given.length > 0) await recordOf(tx, settling, user, 'user.settle_roles', { given, taken });
}

function recordOf(
  tx: Transaction,
  settling: Settling,
  { id, name, organization }: SettledUser,
  action: string,
  details: Record<string, string | string[]>,
): Promise<void> {
  return record(tx, byProvider(settling), {
    action,
    target: { kind: 'user', id, name },
    organization,
    result: 'done',
    details: { provider: settling.provider.id, ...details },
  });
}

/** What a provider decides is the server's doing, on its word. */
function byProvider({ tenant, provider, address }: Settling): By {
  return { tenant, party: { kind: 'server', id: null, name: `identity provider ${provider.name}` }, address };
}
