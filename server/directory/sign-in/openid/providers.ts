/**
 * Identity providers of a tenant: connected, changed, turned off. Whoever may do this decides who is whom, and with groups
 * who may what (docs/decisions/roles.md). Secrets are sealed before the transaction; the issuer never changes.
 *
 * Lock order: the tenant's row (shared), the provider's, everything else, the log's head.
 */
import type { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import { assertExpected, findPlace, shareTree } from '../../users/locks.ts';
import { pageOf, readCursor } from '../../users/pages.ts';
import { readTenantName } from '../accounts.ts';
import {
  type CreateProviderRequest,
  type ListProvidersQuery,
  ProviderDocument,
  type ProviderView,
  type SignInProviders,
  type UpdateProviderRequest,
} from './shapes.ts';

/** Of one tenant. */
const providersMax = 20;

const columns = `provider_id AS id, name, issuer, openid_client AS "openidClient", openid_secret IS NOT NULL AS "hasSecret",
       document AS settings, state, created_at AS "createdAt", version`;

const sql = {
  insert: statement(
    'directory.insertProvider',
    `INSERT INTO identity_providers (tenant_id, name, issuer, openid_client, openid_secret, document)
     SELECT $1, $2, $3, $4, $5, $6::jsonb
      WHERE (SELECT count(*) FROM identity_providers WHERE tenant_id = $1) < ${providersMax}
         ON CONFLICT (tenant_id, issuer, openid_client) DO NOTHING RETURNING ${columns}`,
  ),
  lock: statement(
    'directory.lockProvider',
    `SELECT ${columns} FROM identity_providers WHERE tenant_id = $1 AND provider_id = $2 FOR NO KEY UPDATE`,
  ),
  read: statement(
    'directory.readProvider',
    `SELECT ${columns} FROM identity_providers WHERE tenant_id = $1 AND provider_id = $2`,
  ),
  list: statement(
    'directory.listProviders',
    `SELECT ${columns} FROM identity_providers WHERE tenant_id = $1 AND provider_id > $2 ORDER BY provider_id LIMIT $3`,
  ),
  update: statement(
    'directory.updateProvider',
    `UPDATE identity_providers SET name = $3, document = $4::jsonb, state = $5, version = version + 1,
            openid_secret = CASE WHEN $6 THEN $7 ELSE openid_secret END
      WHERE tenant_id = $1 AND provider_id = $2 RETURNING ${columns}`,
  ),
  endSessions: statement(
    'directory.endSessionsOfProvider',
    'UPDATE sessions SET ended_at = now() WHERE tenant_id = $1 AND provider_id = $2 AND ended_at IS NULL RETURNING 1',
  ),
  forSignIn: statement(
    'directory.listProvidersForSignIn',
    `SELECT p.provider_id AS id, p.name FROM identity_providers p
      WHERE p.state = 'active' AND p.tenant_id IN (
        SELECT tenant_id FROM tenants WHERE tenant_id = $1
        UNION SELECT tenant_id FROM organizations WHERE registration_key = $2
        UNION SELECT min(tenant_id) FROM tenants WHERE lower(name) = lower($3) AND state NOT IN ('deleting', 'deleted') HAVING count(*) = 1)
      ORDER BY p.provider_id LIMIT ${providersMax}`,
  ),
};

type Provider = z.infer<typeof ProviderView>;
type ProviderRow = Omit<Provider, 'createdAt' | 'settings'> & { createdAt: Date; settings: unknown };

/** What the key service is told a provider's secret is. */
export const providerSecretContext = (tenant: number, issuer: string, openidClient: string): string =>
  `holdfast identity provider of tenant ${tenant}: ${JSON.stringify([issuer, openidClient])}`;

/**
 * Before a provider is connected: looks whether it answers as one, and seals the secret.
 * @throws Problem out_of_bounds { field: 'issuer' } when there is none that calls itself so
 */
export async function prepareProvider(
  { openid, keys }: Directory,
  tenant: number,
  {
    issuer,
    openidClient,
    openidSecret,
  }: Pick<z.infer<typeof CreateProviderRequest>, 'issuer' | 'openidClient' | 'openidSecret'>,
): Promise<{ sealed: Buffer | null }> {
  await openid.fresh({ issuer, openidClient }, openidSecret).catch((cause) => {
    // What it was is not said: the server can reach more than whoever asks, and must not tell them about it.
    throw new Problem(
      'out_of_bounds',
      'no identity provider answers there that says it is this issuer',
      { field: 'issuer' },
      { cause },
    );
  });
  return {
    sealed: openidSecret === null ? null : await sealSecret({ keys }, tenant, { issuer, openidClient, openidSecret }),
  };
}

/** @param of the provider as it is; its issuer and client are part of what the secret is sealed for */
export async function sealSecret(
  { keys }: Pick<Directory, 'keys'>,
  tenant: number,
  of: { issuer: string; openidClient: string; openidSecret: string },
): Promise<Buffer> {
  return keys.seal(Buffer.from(of.openidSecret, 'utf8'), providerSecretContext(tenant, of.issuer, of.openidClient));
}

/**
 * Connects a provider.
 * @throws Problem conflict (connected already, or as many as there may be); not_found for an organization in the settings
 */
export async function createProvider(
  tx: Transaction,
  by: By,
  request: Omit<z.infer<typeof CreateProviderRequest>, 'openidSecret'> & { tenant: number },
  { sealed }: { sealed: Buffer | null },
): Promise<Provider> {
  const { tenant, name, issuer, openidClient, settings } = request;
  await shareTree(tx, tenant);
  await assertPlaces(tx, tenant, settings);
  const values = [tenant, name, issuer, openidClient, sealed, JSON.stringify(settings)];
  const [row] = await tx.query<ProviderRow>(sql.insert, values);
  if (!row) throw new Problem('conflict', `this provider is connected already, or there are ${providersMax}`);
  await recordProvider(tx, by, 'provider.create', viewOf(row), { issuer, openidClient, settings });
  return viewOf(row);
}

/**
 * Changes a provider. Turned off, it signs nobody in, and the sessions that came by it end, with the registration codes that
 * were made in them: those are asked for their session when they are used.
 * @param sealed the new secret, where `change.openidSecret` is given
 * @throws Problem not_found, precondition_failed
 */
export async function updateProvider(
  tx: Transaction,
  by: By,
  of: { tenant: number; provider: number; expected: number | null; change: z.infer<typeof UpdateProviderRequest> },
  { sealed }: { sealed: Buffer | null },
): Promise<Provider> {
  const { tenant, provider, change } = of;
  await shareTree(tx, tenant);
  const [locked] = await tx.query<ProviderRow>(sql.lock, [tenant, provider]);
  if (!locked) throw noSuchProvider();
  assertExpected(locked.version, of.expected);
  if (change.settings) await assertPlaces(tx, tenant, change.settings);
  const { name = locked.name, state = locked.state, settings = locked.settings, openidSecret } = change;
  const values = [tenant, provider, name, JSON.stringify(settings), state, openidSecret !== undefined, sealed];
  const [row] = await tx.query<ProviderRow>(sql.update, values);
  const ended = state === 'off' ? (await tx.query(sql.endSessions, [tenant, provider])).length : 0;
  const { openidSecret: _, ...shown } = change;
  await recordProvider(tx, by, 'provider.update', viewOf(row!), {
    ...shown,
    ...(openidSecret !== undefined && { secret: openidSecret === null ? 'taken away' : 'replaced' }),
    ...(ended > 0 && { sessions: ended }),
  });
  return viewOf(row!);
}

/** @throws Problem not_found */
export async function readProvider(
  db: Database | Transaction,
  { tenant, provider }: { tenant: number; provider: number },
): Promise<Provider> {
  const [row] = await db.query<ProviderRow>(sql.read, [tenant, provider]);
  if (!row) throw noSuchProvider();
  return viewOf(row);
}

export async function listProviders(
  db: Database | Transaction,
  tenant: number,
  { after, limit }: z.infer<typeof ListProvidersQuery>,
): Promise<{ items: Provider[]; next: string | null }> {
  const rows = await db.query<ProviderRow>(sql.list, [tenant, readCursor(after), limit + 1]);
  return pageOf(rows, limit, { id: (row) => row.id, item: viewOf });
}

/**
 * What somebody can sign in by in a tenant, for the page that signs in.
 * @param tenantName as it was typed; of a tenant that is none there is nothing
 */
export async function listProvidersForSignIn(
  db: Database,
  tenantName: string,
): Promise<z.infer<typeof SignInProviders>> {
  if (tenantName.includes('\0')) return { items: [] };
  const {
    id = null,
    registrationKey = null,
    name = null,
  } = readTenantName(tenantName) as Partial<Record<string, string | number>>;
  return { items: await db.query(sql.forSignIn, [id, registrationKey, name]) };
}

async function assertPlaces(
  tx: Transaction,
  tenant: number,
  { organization, groups }: z.infer<typeof ProviderDocument>,
): Promise<void> {
  const named = new Set([organization, ...groups.map((each) => each.organization)].filter((each) => each != null));
  for (const each of named) await findPlace(tx, tenant, each);
}

function recordProvider(
  tx: Transaction,
  by: By,
  action: string,
  { id, name }: Provider,
  details: object,
): Promise<void> {
  // Settings may be long, and an act is short.
  const text = JSON.stringify(details);
  const told =
    text.length <= 8_192 ? (JSON.parse(text) as Record<string, string>) : { settings: 'too long to be told here' };
  return record(tx, by, {
    action,
    target: { kind: 'provider', id, name },
    organization: null,
    result: 'done',
    details: told,
  });
}

/** @throws ZodError when the stored settings cannot be read: nobody signs in on a guess */
function viewOf(row: ProviderRow): Provider {
  return { ...row, settings: ProviderDocument.parse(row.settings), createdAt: row.createdAt.toISOString() };
}

function noSuchProvider(): Problem {
  return new Problem('not_found', 'there is no such identity provider');
}
