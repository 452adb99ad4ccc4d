/** For tests: organizations with quotas, their users' vaults, and uploads into these. */
import { randomBytes } from 'node:crypto';
import { sha256 } from '../../../protocol/hashes.ts';
import { Problem } from '../../../protocol/problems.ts';
import type { UploadResult } from '../../../storage/archive/writing/upload.ts';
import { uploadBlocks } from '../../../storage/archive/writing/upload.ts';
import { createVault } from '../../../storage/catalog/vaults.ts';
import type { Storage } from '../../../storage/storage.ts';
import { pieces, type TestStorage } from '../../../tests/helpers/storage.ts';
import { insertOrganization, insertTenant } from '../organizations/inserting.ts';
import { newRegistrationKey } from '../organizations/registration-key.ts';
import { insertUser } from '../users/people.ts';
import { findAdmission } from './admission.ts';

export interface TestUser {
  user: number;
  vault: number;
}

export class QuotaWorld {
  readonly storage: TestStorage;
  readonly tenant: number;

  private constructor(storage: TestStorage, tenant: number) {
    this.storage = storage;
    this.tenant = tenant;
  }

  static async create(storage: TestStorage): Promise<QuotaWorld> {
    return new QuotaWorld(storage, await storage.database.transaction((tx) => insertTenant(tx, 'tenant')));
  }

  organization(parentId: number | null, name = `o${randomBytes(4).toString('hex')}`): Promise<number> {
    const registrationKey = newRegistrationKey();
    const { tenant: tenantId } = this;
    return this.storage.database.transaction((tx) =>
      insertOrganization(tx, { tenantId, parentId, name, registrationKey }),
    );
  }

  user(organizationId: number): Promise<TestUser> {
    const name = randomBytes(8).toString('hex');
    return this.storage.database.transaction(async (tx) => {
      const user = await insertUser(tx, { tenantId: this.tenant, organizationId, name, passwordHash: 'none' });
      return { user, vault: (await createVault(tx, { userId: user }))! };
    });
  }

  /** @param value null: as if nobody had said anything */
  async set(organization: number, name: string, value: unknown, locked = false): Promise<void> {
    const of = [this.tenant, organization, name];
    if (value === null)
      await this.storage.rows(
        'DELETE FROM organization_settings WHERE tenant_id = $1 AND organization_id = $2 AND name = $3',
        of,
      );
    else
      await this.storage.rows(
        `INSERT INTO organization_settings (tenant_id, organization_id, name, value, locked) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (organization_id, name) DO UPDATE SET value = excluded.value, locked = excluded.locked`,
        [...of, JSON.stringify(value), locked],
      );
  }

  async moveUser(user: number, organization: number): Promise<void> {
    await this.storage.rows('UPDATE users SET organization_id = $2 WHERE user_id = $1', [user, organization]);
  }
}

export const newBlock = (length: number): Buffer => randomBytes(length);

/** As the routes do it. */
export function uploadInto(storage: Storage, vault: number, ...blocks: Buffer[]): Promise<UploadResult> {
  const header = { blocks: Buffer.concat(blocks.map(sha256)), lengths: blocks.map((block) => block.byteLength) };
  const body = pieces(Buffer.concat(blocks), 1_000);
  return uploadBlocks(storage, vault, header, body, {
    findAdmission: () => findAdmission(storage.database, vault),
  });
}

/** What the quota said; null when it was taken. @throws whatever is no quota's refusal */
export async function refusalOf(upload: Promise<UploadResult>): Promise<Problem['extras'] | null> {
  try {
    await upload;
    return null;
  } catch (error) {
    if (error instanceof Problem && error.code === 'quota_exceeded') return error.extras;
    throw error;
  }
}

/** Resolves when a transaction of this database waits for a lock, or `isOver`; after five seconds in any case. */
export async function someoneWaits(storage: TestStorage, isOver: () => boolean): Promise<void> {
  const waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
  for (let looks = 0; looks < 500 && !isOver() && (await storage.rows(waiting)).length === 0; looks++)
    await new Promise((resolve) => setTimeout(resolve, 10));
}
