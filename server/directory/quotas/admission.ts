/**
 * Whether a vault may hold so many bytes more, asked in the transaction that enters an upload. Whatever asks at the same
 * time waits for this one's end, and then sees what it let in: so however many uploads there are, together they never
 * pass a quota by a byte.
 *
 * Lock order: the vault's usage row, then the meters of organizations from the top down, then the upload's own object,
 * which nobody else has seen. Whoever moves a user or an organization locks meters too, from the top down, and no
 * usage row; folding holds a usage row and waits for nothing. No deleter, claim, commit or reader takes any of these.
 */
import { Problem } from '../../../protocol/problems.ts';
import type { Database, Transaction } from '../../../storage/catalog/database.ts';
import { lockVaultUsage, readChargedBytes, readHiddenBytes } from '../../../storage/catalog/usage.ts';
import type { Admission } from '../../../storage/catalog/writing/blocks.ts';
import { addToMeters, countHiddenBelow, lockMeter } from './meters.ts';
import { findByteQuotas, type OrganizationQuota } from './quotas.ts';

/**
 * Looked for when an upload is about to be stored: one statement.
 * @returns null: no quota binds the vault. The quotas themselves are read again in the transaction
 * @throws Error when a stored quota cannot be read
 */
export async function findAdmission(db: Database, vault: number): Promise<Admission | null> {
  if ((await findByteQuotas(db, vault)) === null) return null;
  return (tx, bytes) => admit(tx, vault, bytes);
}

async function admit(tx: Transaction, vault: number, bytes: number): Promise<Problem | null> {
  const quotas = await findByteQuotas(tx, vault);
  if (quotas === null) return null;
  const { userLimitBytes, organizations } = quotas;
  if (userLimitBytes !== null) {
    await lockVaultUsage(tx, vault);
    const heldBytes = await readChargedBytes(tx, [vault]);
    const room = { bytes, heldBytes, limitBytes: userLimitBytes };
    const usedBytes = await usedOf(room, () => readHiddenBytes(tx, [vault]));
    if (usedBytes + bytes > userLimitBytes) return exceeded(null, { bytes, usedBytes, limitBytes: userLimitBytes });
  }
  for (const organization of organizations) {
    const { id, limitBytes } = organization;
    const heldBytes = await lockMeter(tx, id, { bytes, limitBytes });
    const usedBytes = await usedOf({ bytes, heldBytes, limitBytes }, () => countHiddenBelow(tx, id));
    if (usedBytes + bytes > limitBytes) return exceeded(organization, { bytes, usedBytes, limitBytes });
  }
  await addToMeters(
    tx,
    organizations.map(({ id }) => id),
    bytes,
  );
  return null;
}

/**
 * What is charged of what is held: not what restic has deleted and could have back, as long as that is no more than the quota
 * itself. Asked for only where it decides. It is read later than what is held: bytes that are shown again, or go, meanwhile
 * are as if that came after this upload, and neither asks a quota.
 */
async function usedOf(
  { bytes, heldBytes, limitBytes }: { bytes: number; heldBytes: number; limitBytes: number },
  hiddenBytes: () => Promise<number>,
): Promise<number> {
  if (heldBytes + bytes <= limitBytes) return heldBytes;
  return heldBytes - Math.min(await hiddenBytes(), limitBytes, heldBytes);
}

function exceeded(
  organization: OrganizationQuota | null,
  { bytes, usedBytes, limitBytes }: { bytes: number; usedBytes: number; limitBytes: number },
): Problem {
  const whose = organization ? `of organization ${organization.name}` : 'of this user';
  const extras = organization
    ? { quota: 'organization', organization: { id: organization.id, name: organization.name } }
    : { quota: 'user' };
  return new Problem(
    'quota_exceeded',
    `the quota ${whose} is used up: of ${limitBytes} bytes ${usedBytes} are used, and this upload needs ${bytes} more`,
    { ...extras, limitBytes, usedBytes },
  );
}
