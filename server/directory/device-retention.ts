/**
 * The retention policy of a device: what is in force, and whether it is its own, or that of a backup plan. A policy is taken whole; null is to inherit.
 *
 * It belongs to the archive, and is kept on every row of it, those of replaced devices included (directory/retention.ts).
 *
 * Lock order: as in devices/changes.ts; only rows of the device's own archive are written. Whether an organization has locked the
 * policy is read after the device's lock and not kept from changing: a lock made at the same time wins whatever is stored
 * here, for it is asked first whenever the policy is.
 */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { Problem } from '../../protocol/problems.ts';
import { defaultRetention, type RetentionPolicy } from '../../storage/archive/retention/retention.ts';
import { statement, type Transaction } from '../../storage/catalog/database.ts';
import type { By, JsonValue } from './audit/act.ts';
import { record } from './audit/record.ts';
import { lockDevice, type OfDevice } from './devices/changes.ts';
import { PlanOwner } from './devices/plans/shapes.ts';
import { noSuchDevice } from './devices/read.ts';
import { Guid } from './devices/shapes.ts';
import { type FoundPlan, type FoundPolicy, findPolicyOfArchive, nameOfPlan, noPolicyOfItsOwn } from './retention.ts';
import { PolicyDocument, type PolicyFault, readPolicyDocument } from './retention-document.ts';
import { isGuid } from './tenant-view.ts';
import { id } from './users/shapes.ts';

const { $schema: _, ...policyShape } = z.toJSONSchema(PolicyDocument);
const examples = [defaultRetention];

/** Taken as it comes: `readPolicy` says all that is wrong with it at once. */
export const SetRetentionRequest = z.strictObject({
  policy: z.unknown().meta({ description: 'Null: inherit.', anyOf: [policyShape, { type: 'null' }], examples }),
});

export const TryRetentionRequest = z.strictObject({
  policy: z.unknown().meta({ description: 'One to try out.', ...policyShape, examples }),
});

export const RetentionView = z.strictObject({
  device: z.strictObject({ guid: Guid, name: z.string() }),
  user: z.strictObject({ id, name: z.string() }),
  policy: PolicyDocument.nullable().meta({ description: 'Its own; null: it inherits.' }),
  effective: z.strictObject({
    policy: PolicyDocument.nullable().meta({ description: 'Null: it cannot be read, so nothing is deleted.' }),
    from: z.union([
      z.literal('default'),
      z.strictObject({ device: z.strictObject({ guid: Guid, name: z.string() }) }),
      z.strictObject({ organization: z.strictObject({ id, name: z.string() }) }),
    ]),
    locked: z.boolean().meta({ description: 'An organization lets nothing below it have another, plans neither.' }),
    plans: z
      .array(
        z.strictObject({
          id,
          name: z.string(),
          of: PlanOwner,
          folders: z.array(z.string()).meta({ description: 'As they were written.' }),
          policy: PolicyDocument.nullable().meta({
            description: 'Null: the plan cannot be read, so nothing of the device is deleted.',
          }),
        }),
      )
      .meta({ description: 'Backup plans with a policy for what lies in their folders, instead of the one above.' }),
  }),
  faults: z.array(z.strictObject({ field: z.string(), message: z.string() })).optional(),
  version: z.int().meta({ description: 'Of the device.' }),
});

type PlanInForce = z.infer<typeof RetentionView>['effective']['plans'][number];

const sql = {
  read: statement(
    'directory.readRetentionOfDevice',
    `SELECT d.name, u.user_id AS "userId", u.name AS "userName", d.vault_id AS vault, d.archive_id AS archive, d.version,
            (SELECT r.retention FROM devices r
              WHERE r.user_id = d.user_id AND r.vault_id = d.vault_id AND r.archive_id = d.archive_id AND r.retention IS NOT NULL
              ORDER BY r.device_id DESC LIMIT 1) AS own
       FROM devices d JOIN users u ON u.user_id = d.user_id
      WHERE d.tenant_id = $1 AND d.guid = $2::bigint AND d.state <> 'replaced'`,
  ),

  set: statement(
    'directory.setRetentionOfDevice',
    `UPDATE devices SET retention = $4::jsonb, version = version + 1
      WHERE tenant_id = $1 AND vault_id = $2 AND archive_id = $3`,
  ),
};

interface Row {
  name: string;
  userId: number;
  userName: string;
  vault: number;
  archive: number;
  version: number;
  /** As stored; null: it inherits. */
  own: JsonValue;
}

async function readRow(db: Transaction, { tenant, guid }: { tenant: number; guid: string }): Promise<Row> {
  const [row] = isGuid(guid) ? await db.query<Row>(sql.read, [tenant, guid]) : [];
  if (!row) throw noSuchDevice();
  return row;
}

/** @throws Problem not_found */
export async function readDeviceRetention(
  db: Transaction,
  of: { tenant: number; guid: string },
): Promise<z.infer<typeof RetentionView>> {
  const row = await readRow(db, of);
  const { policy, from, locked, plans, ...found } = await inForce(db, row);
  const faults = [...found.faults, ...plans.flatMap(faultsOfPlan)];
  return {
    device: { guid: of.guid, name: row.name },
    user: { id: row.userId, name: row.userName },
    policy: (row.own !== null && readPolicyDocument(row.own).policy) || null,
    effective: { policy, from, locked, plans: plans.map(planInForce) },
    ...(faults.length > 0 && { faults }),
    version: row.version,
  };
}

/** A plan with a policy, as it is shown. */
export function planInForce({ id, name, from: of, retention }: FoundPlan): PlanInForce {
  return { id, name, of, folders: retention?.include ?? [], policy: retention?.policy ?? null };
}

/** Named with the plan: `plans.12.retention.keepNewest`. */
function faultsOfPlan(plan: FoundPlan): PolicyFault[] {
  return plan.faults.map(({ field, message }) => ({
    field: ['plans', plan.id, field].filter((part) => part !== '').join('.'),
    message: `${nameOfPlan(plan)}: ${message}`,
  }));
}

async function inForce(db: Transaction, row: Row): Promise<FoundPolicy> {
  return (await findPolicyOfArchive(db, row))!; // the device has the archive
}

/**
 * Gives a device's archive a policy of its own, or (null) lets it inherit again. As it is already: nothing changes.
 * @throws Problem not_found, precondition_failed, malformed_request { faults }; conflict { lockedBy } when an organization
 *   above has locked the policy, and for a repository of restic, which has none of its own
 */
export async function setDeviceRetention(
  tx: Transaction,
  by: By,
  request: OfDevice & { policy: unknown },
): Promise<z.infer<typeof RetentionView>> {
  const { tenant, guid } = request;
  const policy = request.policy === null ? null : readPolicy(request.policy);
  const locked = await lockDevice(tx, request);
  const row = await readRow(tx, request);
  const { from, locked: isLocked, undeleteDays } = await inForce(tx, row);
  if (undeleteDays !== undefined) throw noPolicyOfItsOwn();
  if (isLocked) {
    const { organization: lockedBy } = from as { organization: { id: number; name: string } };
    const why = `organization ${lockedBy.name} (${lockedBy.id}) has locked retention.policy`;
    throw new Problem('conflict', why, { field: 'policy', lockedBy });
  }
  if (isDeepStrictEqual(row.own, policy)) return readDeviceRetention(tx, request);
  const text = policy && JSON.stringify(policy);
  // Null is SQL's, not JSON's: no policy, and not one that is null.
  await tx.query(sql.set, [tenant, row.vault, row.archive, text]);
  await record(tx, by, {
    action: 'device.retention',
    target: { kind: 'device', id: guid, name: row.name },
    organization: locked.user.organization,
    result: 'done',
    details: { from: row.own, to: policy as JsonValue, user: row.userId },
  });
  return readDeviceRetention(tx, request);
}

/** A policy as it was sent. @throws Problem malformed_request, naming every field at fault */
export function readPolicy(value: unknown): RetentionPolicy {
  const { policy, faults } = readPolicyDocument(value);
  if (policy) return policy;
  const named = faults.map(({ field, message }) => ({
    field: field ? `policy.${field}` : 'policy',
    message: field ? `policy.${message}` : message,
  }));
  throw new Problem('malformed_request', named.map(({ message }) => message).join('; '), {
    field: named[0]!.field,
    faults: named,
  });
}
