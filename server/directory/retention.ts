/**
 * Which retention policy an archive has. One that an organization has locked wins, the topmost; then a device's own, then
 * that of the nearest organization above its user, then the default. A policy is taken whole: nothing of one is mixed with another, since its windows only make sense together.
 *
 * What must stay true: a stored policy that cannot be read deletes nothing. It is never passed over for the one above
 * it or for the default, which could delete what it was made to keep.
 *
 * A policy given to a device belongs to its archive and goes on with the device that takes its place, so it is kept on
 * every row of the archive, those of replaced devices included, and read from the newest that has one.
 */
import type { Fence } from '../../storage/archive/checking/fence.ts';
import { PolicyUnreadable } from '../../storage/archive/retention/policy-unreadable.ts';
import type { PruneDeps } from '../../storage/archive/retention/prune.ts';
import { defaultRetention, type RetentionPolicy } from '../../storage/archive/retention/retention.ts';
import { statement, type Transaction } from '../../storage/catalog/database.ts';
import type { ArchiveRef } from '../../storage/storage.ts';
import { type PolicyFault, readPolicyDocument } from './retention-document.ts';

/**
 * The policies said by the organizations of `path`, the one that counts first: the topmost locked one, else the lowest.
 * `rank` leaves room for a device's own between the two.
 */
const saidBy = (
  path: string,
): string => `SELECT 'organization' AS kind, o.organization_id::text AS id, o.name, s.value AS retention,
              s.locked, CASE WHEN s.locked THEN 0 ELSE 2 END AS rank,
              cardinality(o.path) * CASE WHEN s.locked THEN 1 ELSE -1 END AS place
         FROM unnest(${path}) AS above (organization_id)
         JOIN organization_settings s ON s.organization_id = above.organization_id AND s.name = 'retention.policy'
         JOIN organizations o ON o.organization_id = s.organization_id`;

const source = `s.kind, s.id, s.name, s.retention, s.locked`;

const sql = {
  ofArchive: statement(
    'directory.retentionOfArchive',
    `WITH device AS MATERIALIZED (
       SELECT d.guid::text AS guid, d.name, d.user_id, o.path
         FROM devices d JOIN users u ON u.user_id = d.user_id JOIN organizations o ON o.organization_id = u.organization_id
        WHERE d.vault_id = $1 AND d.archive_id = $2 AND d.state <> 'replaced'),
     own AS MATERIALIZED (
       SELECT r.retention FROM device JOIN devices r ON r.user_id = device.user_id
        WHERE r.vault_id = $1 AND r.archive_id = $2 AND r.retention IS NOT NULL ORDER BY r.device_id DESC LIMIT 1)
     SELECT ${source} FROM device LEFT JOIN LATERAL (
       SELECT 'device' AS kind, device.guid AS id, device.name, own.retention, false AS locked, 1 AS rank, 0 AS place FROM own
       UNION ALL
       ${saidBy('device.path')}
       ORDER BY rank, place LIMIT 1) s ON true`,
  ),
};

/** Where a policy comes from, whole. */
export type PolicySource =
  | 'default'
  | { device: { guid: string; name: string } }
  | { organization: { id: number; name: string } };

export interface FoundPolicy {
  from: PolicySource;
  /** As stored, or the default; null: it cannot be read. */
  policy: RetentionPolicy | null;
  /** Why it cannot be read. */
  faults: PolicyFault[];
  /** Whether it is an organization's that lets nothing below it have another. */
  locked: boolean;
}

interface SourceRow {
  kind: 'device' | 'organization' | null;
  id: string | null;
  name: string | null;
  retention: unknown;
  locked: boolean | null;
}

function foundIn(row: SourceRow): FoundPolicy {
  if (row.kind === null) return { from: 'default', policy: defaultRetention, faults: [], locked: false };
  const from: PolicySource =
    row.kind === 'device'
      ? { device: { guid: row.id!, name: row.name! } }
      : { organization: { id: Number(row.id), name: row.name! } };
  const { policy, faults } = readPolicyDocument(row.retention);
  return { from, policy: policy ?? null, faults: faults ?? [], locked: row.locked === true };
}

/** The policy an archive has, readable or not, and whose it is; null: no device has this archive. */
export async function findPolicyOfArchive(db: Transaction, ref: ArchiveRef): Promise<FoundPolicy | null> {
  const [row] = await db.query<SourceRow>(sql.ofArchive, [ref.vault, ref.archive]);
  return row ? foundIn(row) : null;
}

export interface EffectiveRetention {
  policy: RetentionPolicy;
  from: PolicySource;
}

/**
 * What to prune an archive by. By keys only, so that it may be asked in the transaction that deletes.
 * @throws PolicyUnreadable when the stored policy is none, or nobody's device has the archive: nothing may be deleted
 */
export async function readEffectiveRetention(tx: Transaction, ref: ArchiveRef): Promise<EffectiveRetention> {
  const found = await findPolicyOfArchive(tx, ref);
  const archive = `archive ${ref.archive} of vault ${ref.vault}`;
  if (!found) throw new PolicyUnreadable(ref, `${archive} is no device's, so there is no policy to prune it by`);
  const { policy, from, faults } = found;
  if (policy) return { policy, from };
  const why = faults.map(({ message }) => message).join('; ');
  throw new PolicyUnreadable(ref, `the retention policy of ${nameOfSource(from)}, for ${archive}, is none: ${why}`);
}

/** For people: `device laptop (123)`. */
export function nameOfSource(from: PolicySource): string {
  if (from === 'default') return 'the default';
  if ('device' in from) return `device ${from.device.name} (${from.device.guid})`;
  return `organization ${from.organization.name} (${from.organization.id})`;
}

/** What prune asks of the shell: the policy in force, and whether anything may be deleted now. */
export function pruneDeps(fence: Pick<Fence, 'assertHeld' | 'assertStillHeld'>): PruneDeps {
  return {
    readPolicy: async (tx, ref) => (await readEffectiveRetention(tx, ref)).policy,
    assertMayDelete: () => fence.assertHeld(),
    assertStillHeld: (now) => fence.assertStillHeld(now),
  };
}
