/** What an organization's quotas are, and how much of them is used: for those who administer it. */
import { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../../storage/catalog/database.ts';
import { readChargedBytes, readHiddenBytes } from '../../../storage/catalog/usage.ts';
import { findVaultOfUser } from '../../../storage/catalog/vaults.ts';
import { effectiveSettingsOf } from '../settings/stored.ts';
import { countBytesBelow, countHiddenBelow } from './meters.ts';
import { limitOf } from './quotas.ts';
import { countSeats } from './seats.ts';

const limit = z.int().min(0).nullable().meta({ description: 'Null: no bound.' });
const bytes = z.int().min(0);
const bytesView = (where: string) =>
  z.strictObject({
    limit,
    used: bytes.meta({ description: `What is charged: stored, and on its way in${where}, but for what is hidden.` }),
    hidden: bytes.meta({
      description: 'Deleted by restic and kept to be had back; of it no more than the quota itself is not charged.',
    }),
  });

export const OrganizationQuotasAnswer = z.strictObject({
  organization: z.int(),
  seats: z.strictObject({
    limit,
    used: z.int().min(0).meta({ description: 'Users here and below, blocked ones too, deactivated ones not.' }),
  }),
  bytes: bytesView(', here and below'),
  bytesPerUser: z.strictObject({ limit }),
});

export const UserQuotaAnswer = z.strictObject({
  user: z.int(),
  bytes: bytesView(''),
});

const sql = {
  userPlace: statement(
    'directory.placeOfUser',
    'SELECT organization_id AS organization FROM users WHERE tenant_id = $1 AND user_id = $2',
  ),
};

/**
 * Adds up every vault below: not for every request.
 * @throws Problem not_found; Error when a stored quota cannot be read
 */
export async function readOrganizationQuotas(
  db: Database | Transaction,
  { tenant, organization }: { tenant: number; organization: number },
): Promise<z.infer<typeof OrganizationQuotasAnswer>> {
  const names = ['quotas.seats', 'quotas.bytes', 'quotas.bytesPerUser'] as const;
  const settings = await effectiveSettingsOf(db, tenant, organization, names);
  return {
    organization,
    seats: { limit: limitOf(settings['quotas.seats']), used: await countSeats(db, tenant, organization) },
    bytes: chargedOf(limitOf(settings['quotas.bytes']), {
      heldBytes: await countBytesBelow(db, organization),
      hiddenBytes: await countHiddenBelow(db, organization),
    }),
    bytesPerUser: { limit: limitOf(settings['quotas.bytesPerUser']) },
  };
}

/** @throws Problem not_found; Error when a stored quota cannot be read */
export async function readUserQuota(
  db: Database | Transaction,
  { tenant, user }: { tenant: number; user: number },
): Promise<z.infer<typeof UserQuotaAnswer>> {
  const [place] = await db.query<{ organization: number }>(sql.userPlace, [tenant, user]);
  if (!place) throw new Problem('not_found', 'there is no such user');
  const settings = await effectiveSettingsOf(db, tenant, place.organization, ['quotas.bytesPerUser'] as const);
  const vault = await findVaultOfUser(db, user);
  const vaults = vault === null ? [] : [vault];
  const held = { heldBytes: await readChargedBytes(db, vaults), hiddenBytes: await readHiddenBytes(db, vaults) };
  return { user, bytes: chargedOf(limitOf(settings['quotas.bytesPerUser']), held) };
}

/** As uploads are judged (admission.ts). */
function chargedOf(limit: number | null, { heldBytes, hiddenBytes }: { heldBytes: number; hiddenBytes: number }) {
  const hidden = Math.min(hiddenBytes, heldBytes);
  return { limit, used: heldBytes - Math.min(hidden, limit ?? hidden), hidden };
}
