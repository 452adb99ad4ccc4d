/**
 * The directory's own rows of a tenant whose data is deleted: ways in, people, programs, the tree. A batch is a transaction
 * of its own, each leaves the directory whole, and each asks first whether what the tenant has may (still) go; so
 * the work may end after any of them.
 *
 * Lock order: users by id, then everything else. A user's row is held before it is asked whether they have a vault: a
 * registration, which makes vaults, holds it too, and finds nobody afterwards.
 */
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { vaultsOfUsers } from '../../../../storage/catalog/deleting/ending.ts';
import { endStagedOfUsers, usersWithStaged } from '../../restores/staging/rows.ts';
import { userAccountKey } from '../../sign-in/accounts.ts';

/** Users, and organizations, in one transaction. */
const batchRows = 100;
const plansAtATime = 500;

const ofSessions = 'SELECT session_id FROM sessions WHERE tenant_id = $1 AND user_id = ANY ($2::bigint[])';
const ofClients = 'SELECT client_id FROM api_clients WHERE tenant_id = $1';
const ofProviders = 'SELECT provider_id FROM identity_providers WHERE tenant_id = $1';
const byUser = (table: string): string => `DELETE FROM ${table} WHERE tenant_id = $1 AND user_id = ANY ($2::bigint[])`;

const sql = {
  users: statement(
    'directory.lockUsersToDelete',
    `SELECT user_id AS "user" FROM users WHERE tenant_id = $1 AND user_id > $2 ORDER BY user_id LIMIT ${batchRows} FOR UPDATE`,
  ),

  // What opens a door, each before what it refers to.
  tokens: statement(
    'directory.deleteTokensOfUsers',
    `DELETE FROM access_tokens WHERE session_id = ANY (ARRAY(${ofSessions}))`,
  ),
  sessions: statement('directory.deleteSessionsOfUsers', byUser('sessions')),
  recoveryCodes: statement(
    'directory.deleteRecoveryCodesOfUsers',
    'DELETE FROM recovery_codes WHERE user_id = ANY ($1::bigint[])',
  ),
  secondFactors: statement('directory.deleteSecondFactorsOfUsers', byUser('second_factors')),
  invitations: statement('directory.deleteInvitationsOfUsers', byUser('invitations')),
  commands: statement('directory.deleteCommandsOfUsers', byUser('device_commands')),
  channels: statement('directory.deleteChannelsOfUsers', byUser('device_channels')),
  registrationCodes: statement('directory.deleteRegistrationCodesOfUsers', byUser('registration_codes')),
  resticTokens: statement('directory.deleteResticTokensOfUsers', byUser('restic_tokens')),
  accounts: statement('directory.deleteAccountsOfUsers', byUser('provider_accounts')),
  roles: statement('directory.deleteRolesOfUsers', byUser('user_roles')),
  failures: statement(
    'directory.deleteFailuresOfAccounts',
    'DELETE FROM sign_in_failures WHERE account_sha256 = ANY ($1::bytea[])',
  ),
  addresses: statement(
    'directory.deleteAddressesOfAccounts',
    'DELETE FROM sign_in_addresses WHERE account_sha256 = ANY ($1::bytea[])',
  ),
  requests: statement('directory.deleteRequestsOf', 'DELETE FROM requests_made WHERE requester = ANY ($1::text[])'),

  devices: statement('directory.deleteDevicesOfUsers', byUser('devices')),
  licences: statement('directory.deleteLicencesOfUsers', byUser('licence_history')),
  restores: statement('directory.deleteRestoresOfUsers', byUser('restore_requests')),
  deleteUsers: statement('directory.deleteUsers', `${byUser('users')} RETURNING 1`),

  clients: statement('directory.clientsOfTenant', ofClients),
  clientTokens: statement(
    'directory.deleteTokensOfClients',
    `DELETE FROM access_tokens WHERE client_id = ANY (ARRAY(${ofClients}))`,
  ),
  deleteClients: statement('directory.deleteClients', 'DELETE FROM api_clients WHERE tenant_id = $1'),
  signIns: statement(
    'directory.deleteSignInsOfProviders',
    `DELETE FROM provider_sign_ins WHERE provider_id = ANY (ARRAY(${ofProviders}))`,
  ),
  deleteProviders: statement('directory.deleteProviders', 'DELETE FROM identity_providers WHERE tenant_id = $1'),

  restoreMeters: statement('directory.deleteRestoreMetersOfTenant', 'DELETE FROM restore_meters WHERE tenant_id = $1'),
  restoreCharges: statement(
    'directory.deleteRestoreChargesOfTenant',
    'DELETE FROM restore_charges WHERE tenant_id = $1',
  ),
  restoreBlocks: statement('directory.deleteRestoreBlocksOfTenant', 'DELETE FROM restore_blocks WHERE tenant_id = $1'),

  anyUser: statement('directory.hasUsers', 'SELECT 1 FROM users WHERE tenant_id = $1 LIMIT 1'),
  plans: statement(
    'directory.deletePlansOfTenant',
    `DELETE FROM plans WHERE tenant_id = $1 AND plan_id = ANY (ARRAY(
       SELECT plan_id FROM plans WHERE tenant_id = $1 ORDER BY plan_id LIMIT ${plansAtATime})) RETURNING 1`,
  ),
  // From the leaves up.
  leaves: statement(
    'directory.lockLeavesToDelete',
    `SELECT o.organization_id AS id FROM organizations o
      WHERE o.tenant_id = $1 AND NOT EXISTS (
        SELECT 1 FROM organizations b WHERE b.tenant_id = $1 AND b.parent_id = o.organization_id)
      ORDER BY o.organization_id LIMIT ${batchRows} FOR UPDATE OF o`,
  ),
  settings: statement(
    'directory.deleteSettingsOfTenant',
    'DELETE FROM organization_settings WHERE tenant_id = $1 AND organization_id = ANY ($2::bigint[])',
  ),
  meters: statement(
    'directory.deleteMetersOf',
    'DELETE FROM organization_meters WHERE organization_id = ANY ($1::bigint[])',
  ),
  organizations: statement(
    'directory.deleteOrganizationsOfTenant',
    'DELETE FROM organizations WHERE tenant_id = $1 AND organization_id = ANY ($2::bigint[]) RETURNING 1',
  ),
};

export interface UsersTaken {
  /** Behind whom to go on; null: there are no more. */
  after: number | null;
  /** Users whose rows are gone. */
  users: number;
}

const endOf = (users: readonly number[]): number | null => (users.length < batchRows ? null : users.at(-1)!);

async function lockUsers(tx: Transaction, tenant: number, after: number): Promise<number[]> {
  return (await tx.query<{ user: number }>(sql.users, [tenant, after])).map(({ user }) => user);
}

/** Ends whatever a batch of users could sign in with, and what they might do then. */
export async function takeWaysIn(tx: Transaction, tenant: number, after: number): Promise<UsersTaken> {
  const users = await lockUsers(tx, tenant, after);
  await deleteWaysIn(tx, tenant, users);
  // What is staged opens no more from now on; its objects are taken away by and by.
  await endStagedOfUsers(tx, tenant, users);
  return { after: endOf(users), users: 0 };
}

async function deleteWaysIn(tx: Transaction, tenant: number, users: readonly number[]): Promise<void> {
  const of = [tenant, users];
  for (const each of [sql.tokens, sql.registrationCodes, sql.resticTokens, sql.sessions]) await tx.query(each, of);
  await tx.query(sql.recoveryCodes, [users]);
  const { secondFactors, invitations, accounts: linked, roles } = sql;
  for (const each of [secondFactors, invitations, linked, roles]) await tx.query(each, of);
  const accounts = users.map(userAccountKey);
  await tx.query(sql.failures, [accounts]);
  await tx.query(sql.addresses, [accounts]);
  await tx.query(sql.requests, [users.map((user) => `user ${user}`)]);
}

/** API clients and identity providers, with the secrets the server has of them. */
export async function takePrograms(tx: Transaction, tenant: number): Promise<void> {
  const clients = (await tx.query<{ client_id: number }>(sql.clients, [tenant])).map((row) => row.client_id);
  await tx.query(sql.requests, [clients.map((client) => `client ${client}`)]);
  for (const each of [sql.clientTokens, sql.deleteClients, sql.signIns, sql.deleteProviders])
    await tx.query(each, [tenant]);
  // Nobody restores any more, so nothing is counted.
  for (const each of [sql.restoreMeters, sql.restoreCharges, sql.restoreBlocks]) await tx.query(each, [tenant]);
}

/** Takes away those of a batch of users who have no vault (any more), and nothing staged, with their devices. */
export async function takeUsers(tx: Transaction, tenant: number, after: number): Promise<UsersTaken> {
  const users = await lockUsers(tx, tenant, after);
  const kept = new Set((await vaultsOfUsers(tx, users)).map(({ user }) => user));
  await endStagedOfUsers(tx, tenant, users);
  for (const user of await usersWithStaged(tx, tenant, users)) kept.add(user);
  const free = users.filter((user) => !kept.has(user));
  await deleteWaysIn(tx, tenant, free);
  const { commands, channels, devices, licences, restores } = sql;
  for (const each of [commands, channels, devices, licences, restores]) await tx.query(each, [tenant, free]);
  const gone = await tx.query(sql.deleteUsers, [tenant, free]);
  return { after: endOf(users), users: gone.length };
}

/** Takes away some of the tree, once nobody is in it. @returns `kept`: somebody is; `some`: call again; `gone` */
export async function takeTree(tx: Transaction, tenant: number): Promise<'kept' | 'some' | 'gone'> {
  if ((await tx.query(sql.anyUser, [tenant])).length > 0) return 'kept';
  if ((await tx.query(sql.plans, [tenant])).length > 0) return 'some';
  const leaves = (await tx.query<{ id: number }>(sql.leaves, [tenant])).map(({ id }) => id);
  if (leaves.length === 0) return 'gone';
  await tx.query(sql.settings, [tenant, leaves]);
  // After the settings: a trigger notes there that a quota is gone.
  await tx.query(sql.meters, [leaves]);
  await tx.query(sql.organizations, [tenant, leaves]);
  return 'some';
}
