/**
 * Backup plans of organizations and devices. A device has its own and those of every organization above its user; of two with
 * one name the nearer counts, so that a department, or one device, can change what it was given. A device without any has
 * what the settings say. What a plan says of how long versions are kept is read by directory/retention.ts.
 *
 * Lock order: the plan's row, the head of the audit log last. Names are one owner's once, whatever their case: an index says so.
 */
import { isDeepStrictEqual } from 'node:util';
import type { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By, JsonValue } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import { isGuid } from '../../tenant-view.ts';
import { assertExpected, findPlace } from '../../users/locks.ts';
import { pageOf, readCursor, type Within, withinValues } from '../../users/pages.ts';
import { noSuchDevice } from '../read.ts';
import { settingsOfMany } from '../settings-of-many.ts';
import {
  type CreatePlanRequest,
  type EffectivePlans,
  type ListPlansQuery,
  PlanContent,
  type PlanPage,
  type PlanRecord,
  type UpdatePlanRequest,
} from './shapes.ts';
import { nearestOfEachName, readRetentionOfPlan, retentionOf } from './stored.ts';

// The organization a plan is in: its own, or that of its device's user.
const select = `SELECT p.plan_id AS id, p.name, p.content, p.version, p.created_at AS "createdAt", p.guid::text AS guid, d.name AS "deviceName",
            p.organization_id AS "organizationId", own.name AS "organizationName", o.organization_id AS place, d.user_id AS "userId"
       FROM plans p
       LEFT JOIN organizations own ON own.organization_id = p.organization_id
       LEFT JOIN devices d ON d.guid = p.guid AND d.tenant_id = p.tenant_id AND d.state <> 'replaced'
       LEFT JOIN users u ON u.user_id = d.user_id
       JOIN organizations o ON o.organization_id = coalesce(p.organization_id, u.organization_id)`;

const sql = {
  one: statement('directory.readPlan', `${select} WHERE p.tenant_id = $1 AND p.plan_id = $2`),

  page: statement(
    'directory.pagePlans',
    `${select}
      WHERE p.tenant_id = $1 AND p.plan_id > $2
        AND ($4::bigint IS NULL OR o.path @> ARRAY[$4::bigint]) AND ($5::bigint IS NULL OR d.user_id = $5)
        AND ($6::bigint IS NULL OR p.organization_id = $6) AND ($7::bigint IS NULL OR p.guid = $7)
      ORDER BY p.plan_id LIMIT $3`,
  ),

  // The nearest first: the device's own, then from its user's organization up.
  ofDevice: statement(
    'directory.plansOfDevice',
    `${select}
      WHERE p.tenant_id = $1 AND (p.guid = $2::bigint OR p.organization_id = ANY ($3::bigint[]))
      ORDER BY p.guid IS NULL, cardinality(o.path) DESC, lower(p.name), p.plan_id`,
  ),

  place: statement(
    'directory.placeOfDevice',
    `SELECT d.name, o.organization_id AS organization, to_json(o.path) AS path
       FROM devices d JOIN users u ON u.user_id = d.user_id JOIN organizations o ON o.organization_id = u.organization_id
      WHERE d.tenant_id = $1 AND d.guid = $2::bigint AND d.state <> 'replaced'`,
  ),

  lock: statement(
    'directory.lockPlan',
    'SELECT version FROM plans WHERE tenant_id = $1 AND plan_id = $2 FOR NO KEY UPDATE',
  ),
  insert: statement(
    'directory.insertPlan',
    `INSERT INTO plans (tenant_id, organization_id, guid, name, content) VALUES ($1, $2, $3::bigint, $4, $5::jsonb)
     RETURNING plan_id AS id`,
  ),
  update: statement(
    'directory.updatePlan',
    'UPDATE plans SET name = $3, content = $4::jsonb, version = version + 1 WHERE tenant_id = $1 AND plan_id = $2',
  ),
  delete: statement('directory.deletePlan', 'DELETE FROM plans WHERE tenant_id = $1 AND plan_id = $2'),
};

interface Row {
  id: number;
  name: string;
  content: unknown;
  version: number;
  createdAt: Date;
  guid: string | null;
  deviceName: string | null;
  organizationId: number | null;
  organizationName: string | null;
  place: number;
  /** Whose device; null: it is of an organization. */
  userId: number | null;
}

function viewOf(row: Row): PlanRecord {
  const of =
    row.guid === null
      ? { organization: { id: row.organizationId!, name: row.organizationName! } }
      : { device: { guid: row.guid, name: row.deviceName! } };
  const { id, name, version } = row;
  const common = { id, of, name, createdAt: row.createdAt.toISOString(), version };
  // Stored by the same schema: what it cannot read again is a mistake of ours, which people must be able to mend.
  const { data: content } = PlanContent.safeParse(row.content);
  return content ? { ...common, unreadable: false, ...content } : { ...common, unreadable: true, ...noContent };
}

const noContent = { include: null, exclude: null, everyMinutes: null, windows: null, retention: null };

async function findRow(db: Transaction, { tenant, plan }: { tenant: number; plan: number }): Promise<Row> {
  const [row] = await db.query<Row>(sql.one, [tenant, plan]);
  if (!row) throw new Problem('not_found', 'there is no such plan');
  return row;
}

/** @throws Problem not_found */
export async function readPlan(db: Transaction, of: { tenant: number; plan: number }): Promise<PlanRecord> {
  return viewOf(await findRow(db, of));
}

/** Where a plan is, for asking whether somebody may: the organization, and the user whose device it is of. @throws Problem not_found */
export async function findPlanPlace(
  db: Transaction,
  of: { tenant: number; plan: number },
): Promise<{ organization: number; user: number | null; name: string }> {
  const { place, userId, name } = await findRow(db, of);
  return { organization: place, user: userId, name };
}

/** A page of the tenant's plans, as far as the reader reaches, by id. @throws Problem out_of_bounds, field `after` */
export async function listPlans(
  db: Transaction,
  of: { tenant: number; within: Within },
  query: z.infer<typeof ListPlansQuery>,
): Promise<z.infer<typeof PlanPage>> {
  const rows = await db.query<Row>(sql.page, [
    of.tenant,
    readCursor(query.after),
    query.limit + 1,
    ...withinValues(of.within),
    query.organization ?? null,
    query.device ?? null,
  ]);
  return pageOf(rows, query.limit, { id: (row) => row.id, item: viewOf });
}

interface DevicePlace {
  name: string;
  organization: number;
  path: number[];
}

async function placeOfDevice(db: Transaction, tenant: number, guid: string): Promise<DevicePlace> {
  const [device] = isGuid(guid) ? await db.query<DevicePlace>(sql.place, [tenant, guid]) : [];
  if (!device) throw noSuchDevice();
  return device;
}

/**
 * The plans a device has, and where each comes from: what its agent is to do.
 * @throws Problem not_found; internal { plan } when one cannot be read: left out it would be backed up no more, and nobody
 *   would know. An agent goes on with what it was told before.
 */
export async function effectivePlans(
  db: Transaction,
  of: { tenant: number; guid: string },
): Promise<z.infer<typeof EffectivePlans>> {
  const { organization, path } = await placeOfDevice(db, of.tenant, of.guid);
  const rows = await db.query<Row>(sql.ofDevice, [of.tenant, of.guid, path]);
  const nearest = nearestOfEachName(rows);
  if (nearest.length === 0) return { plans: await planOfSettings(db, of.tenant, organization) };
  return { plans: nearest.map(toldOf) };
}

function toldOf(row: Row): z.infer<typeof EffectivePlans>['plans'][number] {
  const { data: content, error: cause } = PlanContent.safeParse(row.content);
  if (!content) {
    const detail = `the plan "${row.name}" (${row.id}) cannot be read: delete it, or give it anew`;
    // For the log, which is told the cause alone.
    throw new Problem('internal', detail, { plan: row.id }, { cause: new Error(detail, { cause }) });
  }
  const { include, exclude, everyMinutes, windows } = content;
  return { name: row.name, include, exclude, everyMinutes, windows, from: viewOf(row).of };
}

/** One plan, or none while the settings cannot be read: nothing is left out by a guess. */
async function planOfSettings(
  db: Transaction,
  tenant: number,
  organization: number,
): Promise<z.infer<typeof EffectivePlans>['plans']> {
  const names = ['backupDefaults.include', 'backupDefaults.exclude', 'backupDefaults.everyMinutes'] as const;
  const settings = await settingsOfMany(db, tenant, [organization], names);
  const include = settings.value(organization, 'backupDefaults.include');
  const exclude = settings.value(organization, 'backupDefaults.exclude');
  const everyMinutes = settings.value(organization, 'backupDefaults.everyMinutes');
  if (include === null || exclude === null || everyMinutes === null) return [];
  const from = 'settings' as const;
  return [{ name: 'default', include: [...include], exclude: [...exclude], everyMinutes, windows: [], from }];
}

/** @throws Problem not_found (field `organization`), conflict (field `name`), malformed_request (field `include`) */
export async function createPlan(
  tx: Transaction,
  by: By,
  request: z.infer<typeof CreatePlanRequest> & { tenant: number },
): Promise<PlanRecord> {
  const { tenant, organization, device, name, ...content } = request;
  if (device !== undefined) await placeOfDevice(tx, tenant, device);
  else await findPlace(tx, tenant, organization!);
  const stored = contentOf(content);
  const values = [tenant, organization ?? null, device ?? null, name, JSON.stringify(stored)];
  const [made] = await namedOnce(tx.query<{ id: number }>(sql.insert, values));
  const row = await findRow(tx, { tenant, plan: made!.id });
  await recordPlan(tx, by, row, {
    action: 'plan.create',
    details: stored.retention && { retention: { from: null, to: stored.retention } },
  });
  return viewOf(row);
}

/** What a plan is stored with. @throws Problem malformed_request { faults }: it says how long, and not of which folders */
function contentOf(content: z.input<typeof PlanContent>): z.infer<typeof PlanContent> {
  const parsed = PlanContent.parse(content);
  const { faults } = retentionOf(parsed);
  if (!faults) return parsed;
  const detail = faults.map(({ message }) => message).join('; ');
  throw new Problem('malformed_request', detail, { field: faults[0]!.field, faults });
}

interface OfPlan {
  tenant: number;
  plan: number;
  /** The version the change was made from; null: whichever. */
  expected: number | null;
}

/**
 * @throws Problem not_found, precondition_failed, conflict (field `name`; the field that is missing, of a plan that cannot be
 *   read: all of its content is given then), malformed_request (field `include`)
 */
export async function updatePlan(
  tx: Transaction,
  by: By,
  request: OfPlan & { change: z.infer<typeof UpdatePlanRequest> },
): Promise<PlanRecord> {
  const before = viewOf(await lockPlan(tx, request));
  const given = Object.fromEntries(Object.entries(request.change).filter(([, value]) => value !== undefined));
  const { name, ...asked } = contentAfter(before, given);
  const content = contentOf(asked);
  await namedOnce(tx.query(sql.update, [request.tenant, request.plan, name, JSON.stringify(content)]));
  const row = await findRow(tx, request);
  // The names of what changed, and not the lists: they may be larger than an act.
  const kept = { from: before.retention, to: content.retention };
  const details = {
    changed: Object.keys(given),
    from: before.name,
    ...(before.unreadable && { unreadable: true }),
    ...(!isDeepStrictEqual(kept.from, kept.to) && { retention: kept }),
  };
  await recordPlan(tx, by, row, { action: 'plan.update', details });
  return viewOf(row);
}

/** @throws Problem conflict: nothing is known of what was not given, as of how long versions were to be kept */
function contentAfter(
  before: PlanRecord,
  given: Partial<z.infer<typeof UpdatePlanRequest>>,
): z.infer<typeof PlanContent> & { name: string } {
  const { name, include, exclude, everyMinutes, windows, retention } = { ...before, ...given };
  const missing = before.unreadable && Object.keys(noContent).find((field) => !(field in given));
  if (missing || include === null || exclude === null || everyMinutes === null || windows === null)
    throw new Problem('conflict', 'this plan cannot be read: give all of its content anew, or delete it', {
      field: missing || 'include',
    });
  return { name, include, exclude, everyMinutes, windows, retention };
}

/** Deletes the plan, and nothing of what it has backed up. @throws Problem not_found, precondition_failed */
export async function deletePlan(tx: Transaction, by: By, request: OfPlan): Promise<void> {
  const row = await lockPlan(tx, request);
  await tx.query(sql.delete, [request.tenant, request.plan]);
  const { retention } = readRetentionOfPlan(row.content);
  const details = retention && { retention: { from: retention.policy, to: null } };
  await recordPlan(tx, by, row, { action: 'plan.delete', details: details ?? null });
}

async function lockPlan(tx: Transaction, { tenant, plan, expected }: OfPlan): Promise<Row> {
  const [locked] = await tx.query<{ version: number }>(sql.lock, [tenant, plan]);
  const row = await findRow(tx, { tenant, plan });
  if (locked) assertExpected(locked.version, expected);
  return row;
}

function recordPlan(
  tx: Transaction,
  by: By,
  row: Row,
  act: { action: string; details: Record<string, unknown> | null },
): Promise<void> {
  const { id, name, place, guid } = row;
  const target = { kind: 'plan', id, name } as const;
  const details = { ...act.details, ...(guid !== null && { device: guid }) } as Record<string, JsonValue>;
  return record(tx, by, { ...act, details, target, organization: place, result: 'done' });
}

/** The statement that broke a unique index broke its transaction too: it ends with this problem. */
async function namedOnce<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const { code, constraint = '' } = error as { code?: unknown; constraint?: string };
    if (code !== '23505' || !constraint.startsWith('plans_of_')) throw error;
    throw new Problem('conflict', 'there is a plan of this name there', { field: 'name' }, { cause: error });
  }
}
