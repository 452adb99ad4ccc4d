/** For tests of restic's routes: a server on a real database, with users, repositories and tokens in any state. */
import { randomBytes } from 'node:crypto';
import { sha256 } from '../../../protocol/hashes.ts';
import { createArchive, createVault, findVaultOfUser } from '../../../storage/catalog/vaults.ts';
import { type TestStorage, type TestStorageOptions, testStorage } from '../../../tests/helpers/storage.ts';
import { nextDeviceId } from '../../directory/devices/devices.ts';
import { type Directory, openDirectory } from '../../directory/directory.ts';
import { localKeyService } from '../../directory/keys/local-keys.ts';
import { insertOrganization, insertTenant } from '../../directory/organizations/inserting.ts';
import { newRegistrationKey } from '../../directory/organizations/registration-key.ts';
import type { ResticMode } from '../../directory/restic/access.ts';
import { newResticToken, resticTokenHash } from '../../directory/restic/secrets.ts';
import { insertUser } from '../../directory/users/people.ts';
import { startTestServer, type TestServer, type TestServerOptions } from '../testing.ts';

export interface TestRepository {
  vault: number;
  archive: number;
  tenant: number;
  user: number;
  userName: string;
  guid: string;
  name: string;
}

export interface ResticWorld {
  storage: TestStorage;
  directory: Directory;
  server: TestServer;
  /** A repository of a user, who is made when nobody has that name. */
  repository(name: string, userName?: string): Promise<TestRepository>;
  token(repository: TestRepository, mode?: ResticMode, more?: { expires?: string }): Promise<string>;
  close(): Promise<void>;
}

export async function resticWorld(
  options: Omit<TestServerOptions, 'storage' | 'directory'> & { storage?: TestStorageOptions } = {},
): Promise<ResticWorld> {
  const storage = await testStorage(options.storage);
  const { database } = storage;
  const directory = openDirectory({
    database,
    keys: localKeyService([randomBytes(32)]),
    passwordHashesMax: 2,
    signInsPerMinute: 5,
  });
  const server = await startTestServer({ ...options, storage, directory });
  const { tenant, root } = await database.transaction(async (tx) => {
    const tenant = await insertTenant(tx, 'tenant');
    const at = { tenantId: tenant, parentId: null, name: 'root', registrationKey: newRegistrationKey() };
    return { tenant, root: await insertOrganization(tx, at) };
  });

  async function userOf(name: string): Promise<number> {
    const [row] = await storage.rows<{ id: number }>('SELECT user_id AS id FROM users WHERE name = $1', [name]);
    if (row) return row.id;
    return database.transaction((tx) =>
      insertUser(tx, { tenantId: tenant, organizationId: root, name, passwordHash: 'none' }),
    );
  }

  async function repository(name: string, userName = 'ann'): Promise<TestRepository> {
    const user = await userOf(userName);
    const guid = String(randomBytes(8).readBigUInt64BE() >> 1n);
    const ref = await database.transaction(async (tx) => {
      const vault = (await findVaultOfUser(tx, user)) ?? (await createVault(tx, { userId: user }))!;
      const deviceId = await nextDeviceId(tx);
      const archive = await createArchive(tx, { vault, deviceId, kind: 'plain' });
      await tx.query(
        {
          name: '',
          text: `INSERT INTO devices (device_id, tenant_id, user_id, guid, name, platform, agent_version, vault_id, archive_id, kind)
                 VALUES ($1, $2, $3, $4, $5, 'other', 'restic', $6, $7, 'restic')`,
        },
        [deviceId, tenant, user, guid, name, vault, archive],
      );
      return { vault, archive };
    });
    return { ...ref, tenant, user, userName, guid, name };
  }

  async function token(of: TestRepository, mode: ResticMode = 'full', more: { expires?: string } = {}) {
    const text = newResticToken();
    await storage.rows(
      `INSERT INTO restic_tokens (tenant_id, user_id, guid, name, mode, token_sha256, created_by, expires_at)
       VALUES ($1, $2, $3, 'test', $4, $5, 'test', now() + $6::interval)`,
      [of.tenant, of.user, of.guid, mode, resticTokenHash(text), more.expires ?? null],
    );
    return text;
  }

  const close = async (): Promise<void> => {
    await server.shutDown({ leaveMs: 0, drainMs: 1_000 });
    await storage.close();
  };
  return { storage, directory, server, repository, token, close };
}

export const nameOf = (bytes: Uint8Array): string => sha256(bytes).toString('hex');

export const basic = (user: string, token: string): string =>
  `Basic ${Buffer.from(`${user}:${token}`).toString('base64')}`;
