/**
 * Which retention policies an archive has. One for all of it: one that an organization has locked wins, the topmost; then a
 * device's own, then that of the nearest organization above its user, then the default. A policy is taken whole: nothing of
 * one is mixed with another, since its windows only make sense together. And, unless it is a locked one, those of the
 * device's backup plans for what lies in their folders (storage/archive/retention/policies.ts).
 *
 * What must stay true: a stored policy or plan that cannot be read deletes nothing. It is never passed over for the one above
 * it or for the default, which could delete what it was made to keep.
 *
 * All of it is read in one statement, so as it was at one moment: whoever gives the archive the policy of a plan and then
 * deletes the plan has not, in between, left its files without either (docs/decisions/deleting.md).
 *
 * Repositories of restic have none of these, but the days that a deletion in them can be undone for, of the organization
 * (storage/archive/retention/plain-policies.ts). Read in the same statement.
 *
 * A policy given to a device belongs to its archive and goes on with the device that takes its place, so it is kept on
 * every row of the archive, those of replaced devices included, and read from the newest that has one.
 */
import { Problem } from '../../protocol/problems.ts';
import type { Fence } from '../../storage/archive/checking/fence.ts';
import { plainPolicies } from '../../storage/archive/retention/plain-policies.ts';
import type { ArchivePolicies, FolderPolicy } from '../../storage/archive/retention/policies.ts';
import { PolicyUnreadable } from '../../storage/archive/retention/policy-unreadable.ts';
import type { PruneDeps } from '../../storage/archive/retention/prune.ts';
import { defaultRetention, type RetentionPolicy } from '../../storage/archive/retention/retention.ts';
import { statement, type Transaction } from '../../storage/catalog/database.ts';
import type { ArchiveRef } from '../../storage/storage.ts';
import { nearestOfEachName, type RetentionOfPlan, readRetentionOfPlan } from './devices/plans/stored.ts';
import { type PolicyFault, readPolicyDocument } from './retention-document.ts';
import { readSetting, settingDefinitions } from './settings/definitions.ts';

/**
 * The policies said by the organizations of `path`, the one that counts first: the topmost locked one, else the lowest.
 * `rank` leaves room for a device's own between the two.
 */
const saidBy = (
  path: string,
  setting: 'retention.policy' | 'restic.undeleteDays',
): string => `SELECT 'organization' AS kind, o.organization_id::text AS id, o.name, s.value AS retention,
              s.locked, CASE WHEN s.locked THEN 0 ELSE 2 END AS rank,
              cardinality(o.path) * CASE WHEN s.locked THEN 1 ELSE -1 END AS place
         FROM unnest(${path}) AS above (organization_id)
         JOIN organization_settings s ON s.organization_id = above.organization_id AND s.name = '${setting}'
         JOIN organizations o ON o.organization_id = s.organization_id`;

const source = `s.kind, s.id, s.name, s.retention, s.locked`;

const sql = {
  ofArchive: statement(
    'directory.retentionOfArchive',
    `WITH device AS MATERIALIZED (
       SELECT d.tenant_id, d.guid::text AS guid, d.name, d.user_id, d.kind, o.path
         FROM devices d JOIN users u ON u.user_id = d.user_id JOIN organizations o ON o.organization_id = u.organization_id
        WHERE d.vault_id = $1 AND d.archive_id = $2 AND d.state <> 'replaced'),
     own AS MATERIALIZED (
       SELECT r.retention FROM device JOIN devices r ON r.user_id = device.user_id
        WHERE r.vault_id = $1 AND r.archive_id = $2 AND r.retention IS NOT NULL ORDER BY r.device_id DESC LIMIT 1)
     SELECT ${source}, device.kind AS "deviceKind", ARRAY(
       SELECT json_build_object('id', p.plan_id, 'name', p.name, 'content', p.content, 'ofDevice', p.of_device, 'owner', p.owner, 'ownerName', p.owner_name)
         FROM (
           SELECT p.plan_id, p.name, p.content, true AS of_device, device.guid AS owner, device.name AS owner_name, 0 AS place
             FROM plans p WHERE p.tenant_id = device.tenant_id AND p.guid = device.guid::bigint
           UNION ALL
           SELECT p.plan_id, p.name, p.content, false, o.organization_id::text, o.name, -cardinality(o.path)
             FROM unnest(device.path) AS above (organization_id)
             JOIN plans p ON p.organization_id = above.organization_id
             JOIN organizations o ON o.organization_id = p.organization_id) p
        ORDER BY p.of_device DESC, p.place, lower(p.name), p.plan_id) AS plans
       FROM device LEFT JOIN LATERAL (
       SELECT * FROM (
         SELECT 'device' AS kind, device.guid AS id, device.name, own.retention, false AS locked, 1 AS rank, 0 AS place FROM own
         UNION ALL
         ${saidBy('device.path', 'retention.policy')}) s WHERE device.kind = 'agent'
       UNION ALL
       SELECT * FROM (${saidBy('device.path', 'restic.undeleteDays')}) s WHERE device.kind = 'restic'
       ORDER BY rank, place LIMIT 1) s ON true`,
  ),
};

/** Where a policy comes from, whole. */
export type PolicySource =
  | 'default'
  | { device: { guid: string; name: string } }
  | { organization: { id: number; name: string } };

/** A plan that says how long versions are kept, or that cannot be read. */
export interface FoundPlan {
  id: number;
  name: string;
  from: Exclude<PolicySource, 'default'>;
  /** Null: it cannot be read. */
  retention: RetentionOfPlan | null;
  /** Why it cannot be read. */
  faults: PolicyFault[];
}

export interface FoundPolicy {
  from: PolicySource;
  /** As stored, or the default; null: it cannot be read. */
  policy: RetentionPolicy | null;
  /** Why it cannot be read. */
  faults: PolicyFault[];
  /** Whether it is an organization's that lets nothing below it have another. */
  locked: boolean;
  /** Those that hold for the device, whose policies are for what lies in their folders; none while a policy is locked. */
  plans: FoundPlan[];
  /** Of a repository: days that a deletion can be undone for, from which `policy` and the folders' follow. */
  undeleteDays?: number;
}

interface PlanRow {
  id: number;
  name: string;
  content: unknown;
  ofDevice: boolean;
  owner: string;
  ownerName: string;
}

interface SourceRow {
  kind: 'device' | 'organization' | null;
  id: string | null;
  name: string | null;
  retention: unknown;
  locked: boolean | null;
  deviceKind: 'agent' | 'restic';
  /** Of the device and of organizations above it, the nearest first. */
  plans: PlanRow[];
}

/** Of a repository: what its organizations say of deletions. */
function foundOfRepository(row: SourceRow): FoundPolicy {
  const byDefault = settingDefinitions['restic.undeleteDays'].byDefault;
  const { value: days, faults = [] } =
    row.kind === null ? { value: byDefault } : readSetting('restic.undeleteDays', row.retention);
  const from: PolicySource = row.kind === null ? 'default' : { organization: { id: Number(row.id), name: row.name! } };
  const about = { from, faults, locked: row.locked === true, plans: [] };
  if (days === undefined) return { ...about, policy: null };
  return { ...about, policy: plainPolicies(days, '').policy, undeleteDays: days };
}

function foundIn(row: SourceRow): FoundPolicy {
  if (row.deviceKind === 'restic') return foundOfRepository(row);
  const locked = row.locked === true;
  const plans = locked ? [] : nearestOfEachName(row.plans).flatMap((plan) => plansIn(plan));
  if (row.kind === null) return { from: 'default', policy: defaultRetention, faults: [], locked, plans };
  const from: PolicySource =
    row.kind === 'device'
      ? { device: { guid: row.id!, name: row.name! } }
      : { organization: { id: Number(row.id), name: row.name! } };
  const { policy, faults } = readPolicyDocument(row.retention);
  return { from, policy: policy ?? null, faults: faults ?? [], locked, plans };
}

/** None for a plan that says nothing of retention. */
function plansIn({ id, name, content, ofDevice, owner, ownerName }: PlanRow): FoundPlan[] {
  const from = ofDevice
    ? { device: { guid: owner, name: ownerName } }
    : { organization: { id: Number(owner), name: ownerName } };
  const { retention, faults } = readRetentionOfPlan(content);
  if (!faults && retention === null) return [];
  return [{ id, name, from, retention: retention ?? null, faults: faults ?? [] }];
}

/** The policies an archive has, readable or not, and whose they are; null: no device has this archive. */
export async function findPolicyOfArchive(db: Transaction, ref: ArchiveRef): Promise<FoundPolicy | null> {
  const [row] = await db.query<SourceRow>(sql.ofArchive, [ref.vault, ref.archive]);
  return row ? foundIn(row) : null;
}

export interface EffectiveRetention {
  policies: ArchivePolicies;
  from: PolicySource;
}

/**
 * What to prune an archive by. By keys only, so that it may be asked in the transaction that deletes.
 * @param options.tried a policy to try out, instead of the archive's own; plans are as they are
 * @throws Problem conflict when a policy is tried out for a repository; PolicyUnreadable when the stored policy, or a plan that counts, is none, or nobody's device has the archive: nothing
 *   may be deleted
 */
export async function readEffectiveRetention(
  tx: Transaction,
  ref: ArchiveRef,
  options: { tried?: RetentionPolicy } = {},
): Promise<EffectiveRetention> {
  const found = await findPolicyOfArchive(tx, ref);
  const archive = `archive ${ref.archive} of vault ${ref.vault}`;
  if (!found) throw new PolicyUnreadable(ref, `${archive} is no device's, so there is no policy to prune it by`);
  const { from, faults } = found;
  const policy = options.tried ?? found.policy;
  const why = (of: readonly PolicyFault[]): string => of.map(({ message }) => message).join('; ');
  if (!policy)
    throw new PolicyUnreadable(
      ref,
      `the retention policy of ${nameOfSource(from)}, for ${archive}, is none: ${why(faults)}`,
    );
  if (found.undeleteDays !== undefined && options.tried) throw noPolicyOfItsOwn();
  if (found.undeleteDays !== undefined)
    return { policies: plainPolicies(found.undeleteDays, `undeleting, by ${nameOfSource(from)}`), from };
  const folders = found.plans.map((plan): FolderPolicy => {
    if (!plan.retention)
      throw new PolicyUnreadable(
        ref,
        `the backup ${nameOfPlan(plan)}, for ${archive}, cannot be read: ${why(plan.faults)}`,
      );
    return { name: nameOfPlan(plan), folders: plan.retention.folders, policy: plan.retention.policy };
  });
  return { policies: { name: options.tried ? triedOut : nameOfSource(from), policy, folders }, from };
}

/** For whoever would give a repository a policy, or try one. */
export function noPolicyOfItsOwn(): Problem {
  return new Problem(
    'conflict',
    'this is a repository of restic: what is in it stays until restic deletes it, and for the days of restic.undeleteDays after that',
    { field: 'policy' },
  );
}

/** How a policy that is tried out is called in a report. */
export const triedOut = 'the policy tried out';

/** For people: `plan documents (4) of device laptop (123)`. */
export function nameOfPlan({ id, name, from }: FoundPlan): string {
  return `plan ${name} (${id}) of ${nameOfSource(from)}`;
}

/** For people: `device laptop (123)`. */
export function nameOfSource(from: PolicySource): string {
  if (from === 'default') return 'the default';
  if ('device' in from) return `device ${from.device.name} (${from.device.guid})`;
  return `organization ${from.organization.name} (${from.organization.id})`;
}

/** What prune asks of the shell: the policies in force, and whether anything may be deleted now. */
export function pruneDeps(fence: Pick<Fence, 'assertHeld' | 'assertStillHeld'>): PruneDeps {
  return {
    readPolicies: async (tx, ref) => (await readEffectiveRetention(tx, ref)).policies,
    assertMayDelete: () => fence.assertHeld(),
    assertStillHeld: (now) => fence.assertStillHeld(now),
  };
}
