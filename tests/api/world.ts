/**
 * Two tenants with trees, people and devices, a server that answers for them, and somebody of every role, to ask the JSON
 * API as. Made of rows and of the server's own verbs; the sign-ins are sessions without their passwords, which would take
 * a second each.
 */
import { randomBytes } from 'node:crypto';
import { type Directory, openDirectory } from '../../server/directory/directory.ts';
import { localKeyService } from '../../server/directory/keys/local-keys.ts';
import { insertOrganization, insertTenant } from '../../server/directory/organizations/inserting.ts';
import { newRegistrationKey } from '../../server/directory/organizations/registration-key.ts';
import { createSession } from '../../server/directory/sign-in/sessions/sessions.ts';
import { drawTokens } from '../../server/directory/sign-in/sessions/tokens-of-session.ts';
import { startTestServer, type TestServer, type TestServerOptions } from '../../server/http/testing.ts';
import { newArchive, type TestStorage, testStorage } from '../helpers/storage.ts';

/** Somebody or something of an organization. */
export interface Place {
  tenant: number;
  organization: number;
  /** A user in it, who is not the one who asks. */
  user: number;
  /** A device of theirs. */
  guid: string;
  vault: number;
  archive: number;
  /** An API client of it. */
  client: number;
  /** A backup plan of it. */
  plan: number;
  /** A restore of the device, planned by its user. */
  restore: number;
  /** The same, pushed to the device itself. */
  pushed: number;
  /** The review of what its user has restored. */
  review: number;
  /** A repository of restic of its user, by its GUID, and a token of it. */
  repository: string;
  resticToken: number;
}

export interface Person {
  user: number;
  name: string;
  token: string;
}

/** Somebody with a device. */
export type Holder = Person & Omit<Place, 'tenant' | 'organization' | 'client' | 'plan'>;

export interface Answer {
  status: number;
  headers: Headers;
  text: string;
  /** Parsed, when it is JSON. */
  json: Record<string, unknown>;
}

export const places = ['own', 'child', 'sibling', 'other tenant'] as const;
export type PlaceName = (typeof places)[number];

export class ApiWorld {
  readonly storage: TestStorage;
  readonly directory: Directory;
  readonly server: TestServer;
  /** Of the tenant that people of `people` are in. */
  tenant = 0;
  /** Above `own` and `sibling`. */
  top = 0;
  readonly places = {} as Record<PlaceName, Place>;

  /** @param storage closed with the world; left out: one of its own */
  static async open(
    storage?: TestStorage,
    { settings, keys = [randomBytes(32)] }: { settings?: TestServerOptions['settings']; keys?: Buffer[] } = {},
  ): Promise<ApiWorld> {
    storage ??= await testStorage();
    const directory = openDirectory({
      database: storage.database,
      keys: localKeyService(keys),
      passwordHashesMax: 2,
      signInsPerMinute: 100_000,
    });
    const server = await startTestServer({ storage, directory, cleartext: true, ...(settings && { settings }) });
    const world = new ApiWorld(storage, directory, server);
    await world.#populate();
    return world;
  }

  private constructor(storage: TestStorage, directory: Directory, server: TestServer) {
    this.storage = storage;
    this.directory = directory;
    this.server = server;
  }

  async close(): Promise<void> {
    await this.server.shutDown({ leaveMs: 0, drainMs: 100 });
    await this.storage.close();
  }

  async #populate(): Promise<void> {
    const organization = (tenantId: number, parentId: number | null, name: string): Promise<number> =>
      this.storage.database.transaction((tx) =>
        insertOrganization(tx, { tenantId, parentId, name, registrationKey: newRegistrationKey() }),
      );
    this.tenant = await this.storage.database.transaction((tx) => insertTenant(tx, 'ours'));
    const other = await this.storage.database.transaction((tx) => insertTenant(tx, 'theirs'));
    this.top = await organization(this.tenant, null, 'top');
    const own = await organization(this.tenant, this.top, 'own');
    this.places.own = await this.#place(this.tenant, own, 'ann');
    this.places.child = await this.#place(this.tenant, await organization(this.tenant, own, 'child'), 'ben');
    this.places.sibling = await this.#place(this.tenant, await organization(this.tenant, this.top, 'sibling'), 'cleo');
    this.places['other tenant'] = await this.#place(other, await organization(other, null, 'top'), 'dora');
    // So that nobody here is the last who may do everything.
    await this.person('Customer Cloud Admin', { name: 'chief' });
  }

  async #place(tenant: number, organization: number, name: string): Promise<Place> {
    const user = await this.addUser(tenant, organization, name);
    const client = await this.addClient(tenant, organization);
    const [row] = await this.storage.rows<{ plan: number }>(
      'INSERT INTO plans (tenant_id, organization_id, name, content) VALUES ($1, $2, $3, $4) RETURNING plan_id AS plan',
      [tenant, organization, 'plan', { include: [], exclude: [], everyMinutes: 15, windows: [] }],
    );
    return { tenant, organization, user, client, plan: row!.plan, ...(await this.addDevice(tenant, user)) };
  }

  async addClient(tenant: number, organization: number): Promise<number> {
    const [row] = await this.storage.rows<{ id: number }>(
      `INSERT INTO api_clients (tenant_id, organization_id, name, client_key, secret_sha256, permissions, scope, expires_at, made_by)
       VALUES ($1, $2, 'program', $3, $4, '{org.read}', 'tree', now() + interval '1 day', 'test') RETURNING client_id AS id`,
      [tenant, organization, `client-${randomBytes(12).toString('hex')}`, randomBytes(32)],
    );
    return row!.id;
  }

  async addUser(tenant: number, organization: number, name: string): Promise<number> {
    const [row] = await this.storage.rows<{ id: number }>(
      'INSERT INTO users (tenant_id, organization_id, name) VALUES ($1, $2, $3) RETURNING user_id AS id',
      [tenant, organization, name],
    );
    return row!.id;
  }

  async addDevice(
    tenant: number,
    user: number,
  ): Promise<Omit<Place, 'tenant' | 'organization' | 'client' | 'plan' | 'user'>> {
    const { vault, archive } = await newArchive(this.storage);
    await this.storage.rows('UPDATE vaults SET user_id = $2 WHERE vault_id = $1', [vault, user]);
    const guid = String(1_000_000 + user);
    await this.storage.rows(
      `INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id)
       VALUES ($1, $2, $3, 'laptop', 'linux', '1', $4, $5, $6)`,
      [tenant, user, guid, randomBytes(32), vault, archive],
    );
    const [row] = await this.storage.rows<{ restore: number }>(
      `INSERT INTO restore_requests (tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, kind, format,
              selection, seq, permission, planned_files, planned_folders, planned_links, planned_bytes, planned_damaged,
              planned_gone, planned_missing, lapses_at)
       VALUES ($1, $2, $3, $4, $5, 'user', $2, 'them', 'streamed', 'zip', '{"paths":["Lw"],"deleted":false}', 0,
               'restore.personal', 0, 0, 0, 0, 0, 0, 0, now() + interval '1 day') RETURNING restore_id AS restore`,
      [tenant, user, guid, vault, archive],
    );
    const [reviewed] = await this.storage.rows<{ review: number }>(
      `INSERT INTO restore_blocks (tenant_id, asker_kind, asker_id, asker_name, user_id, vault_id, archive_id, restored_bytes,
              asked_bytes, threshold_bytes, state, reviewed_at)
       VALUES ($1, 'user', $2, 'them', $2, $3, $4, 0, 1, 0, 'released', now()) RETURNING block_id AS review`,
      [tenant, user, vault, archive],
    );
    const [pushed] = await this.storage.rows<{ restore: number }>(
      `INSERT INTO restore_requests (tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, kind,
              selection, seq, permission, planned_files, planned_folders, planned_links, planned_bytes, planned_damaged,
              planned_gone, planned_missing, lapses_at, target_guid, pushed)
       SELECT tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, 'pushed', selection, seq,
              'pushrestore.personal', 0, 0, 0, 0, 0, 0, 0, lapses_at, guid,
              '{"name":"laptop","folder":null,"existing":"rename","permissions":"original"}'
         FROM restore_requests WHERE restore_id = $1 RETURNING restore_id AS restore`,
      [row!.restore],
    );
    const made = { restore: row!.restore, pushed: pushed!.restore, review: reviewed!.review };
    return { guid, vault, archive, ...made, ...(await this.#addRepository(tenant, user, vault)) };
  }

  async #addRepository(
    tenant: number,
    user: number,
    vault: number,
  ): Promise<Pick<Place, 'repository' | 'resticToken'>> {
    const repository = String(2_000_000 + user);
    const [archive] = await this.storage.rows<{ id: number }>(
      "INSERT INTO archives (vault_id, device_id, kind) VALUES ($1, $2::bigint, 'plain') RETURNING archive_id AS id",
      [vault, repository],
    );
    await this.storage.rows(
      `INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, kind, vault_id, archive_id)
       VALUES ($1, $2, $3, 'repository', 'other', 'restic', 'restic', $4, $5)`,
      [tenant, user, repository, vault, archive!.id],
    );
    const [token] = await this.storage.rows<{ id: number }>(
      `INSERT INTO restic_tokens (tenant_id, user_id, guid, name, mode, token_sha256, created_by)
       VALUES ($1, $2, $3, 'first', 'full', $4, 'them') RETURNING token_id AS id`,
      [tenant, user, repository, randomBytes(32)],
    );
    return { repository, resticToken: token!.id };
  }

  /** Somebody with a role in an organization (`own` unless said), signed in. */
  async person(
    role: string | null,
    options: { name?: string; organization?: number; scope?: string; tenant?: number } = {},
  ): Promise<Holder> {
    const { tenant = this.tenant, organization = this.places.own.organization, scope } = options;
    const name = options.name ?? `holder of ${role}`;
    const user = await this.addUser(tenant, organization, name);
    // PROe User lets sign in, and nothing else that is asked for here.
    const roles = role === null || role === 'PROe User' ? ['PROe User'] : ['PROe User', role];
    for (const each of roles)
      await this.storage.rows(
        'INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, $3, $4, $5)',
        [tenant, user, each, scope ?? 'all', organization],
      );
    const device = await this.addDevice(tenant, user);
    return { user, name, ...device, token: await this.signIn(tenant, user) };
  }

  async signIn(tenant: number, user: number): Promise<string> {
    const made = { owner: { tenant, user }, limited: false, provider: null, address: null, program: null };
    const { accessToken } = await this.storage.database.transaction((tx) => createSession(tx, made, drawTokens()));
    return accessToken;
  }

  async ask(
    method: string,
    path: string,
    { token, body, headers = {} }: { token?: string; body?: unknown; headers?: Record<string, string> } = {},
  ): Promise<Answer> {
    const answer = await fetch(`${this.server.origin}${path}`, {
      method,
      headers: {
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
    const text = await answer.text();
    const isJson = /^application\/(problem\+)?json(;|$)/.test(answer.headers.get('content-type') ?? '');
    return { status: answer.status, headers: answer.headers, text, json: isJson ? JSON.parse(text) : {} };
  }
}
