/**
 * Backup plans of organizations and devices. A device has its own and those of every organization above its user; of two with
 * one name the nearer counts, so that a department, or one device, can change what it was given. A device without any has
 * what the settings say.
 *
 * Lock order: the plan's row, the head of the audit log last. Names are one owner's once, whatever their case: an index says so.
 */
import type { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
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
  // Stored by the same schema: what it cannot read again is a mistake of ours.
  return { id, of, name, ...PlanContent.parse(row.content), createdAt: row.createdAt.toISOString(), version };
}

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

/** The plans a device has, and where each comes from: what its agent is to do. @throws Problem not_found */
export async function effectivePlans(
  db: Transaction,
  of: { tenant: number; guid: string },
): Promise<z.infer<typeof EffectivePlans>> {
  const { organization, path } = await placeOfDevice(db, of.tenant, of.guid);
  const rows = await db.query<Row>(sql.ofDevice, [of.tenant, of.guid, path]);
  const nearest = new Map<string, PlanRecord>();
  for (const plan of rows.map(viewOf)) {
    const key = plan.name.toLowerCase();
    if (!nearest.has(key)) nearest.set(key, plan);
  }
  if (nearest.size === 0) return { plans: await planOfSettings(db, of.tenant, organization) };
  const plans = [...nearest.values()].map(({ name, include, exclude, everyMinutes, windows, of: from }) => ({
    name,
    include,
    exclude,
    everyMinutes,
    windows,
    from,
  }));
  return { plans };
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

/** @throws Problem not_found (field `organization`), conflict (field `name`) */
export async function createPlan(
  tx: Transaction,
  by: By,
  request: z.infer<typeof CreatePlanRequest> & { tenant: number },
): Promise<PlanRecord> {
  const { tenant, organization, device, name, ...content } = request;
  if (device !== undefined) await placeOfDevice(tx, tenant, device);
  else await findPlace(tx, tenant, organization!);
  const values = [tenant, organization ?? null, device ?? null, name, JSON.stringify(PlanContent.parse(content))];
  const [made] = await namedOnce(tx.query<{ id: number }>(sql.insert, values));
  const row = await findRow(tx, { tenant, plan: made!.id });
  await recordPlan(tx, by, row, { action: 'plan.create', details: {} });
  return viewOf(row);
}

interface OfPlan {
  tenant: number;
  plan: number;
  /** The version the change was made from; null: whichever. */
  expected: number | null;
}

/** @throws Problem not_found, precondition_failed, conflict (field `name`) */
export async function updatePlan(
  tx: Transaction,
  by: By,
  request: OfPlan & { change: z.infer<typeof UpdatePlanRequest> },
): Promise<PlanRecord> {
  const before = viewOf(await lockPlan(tx, request));
  const given = Object.fromEntries(Object.entries(request.change).filter(([, value]) => value !== undefined));
  const { name, include, exclude, everyMinutes, windows } = { ...before, ...given };
  const content = PlanContent.parse({ include, exclude, everyMinutes, windows });
  await namedOnce(tx.query(sql.update, [request.tenant, request.plan, name, JSON.stringify(content)]));
  const row = await findRow(tx, request);
  // The names of what changed, and not the lists: they may be larger than an act.
  await recordPlan(tx, by, row, { action: 'plan.update', details: { changed: Object.keys(given), from: before.name } });
  return viewOf(row);
}

/** Deletes the plan, and nothing of what it has backed up. @throws Problem not_found, precondition_failed */
export async function deletePlan(tx: Transaction, by: By, request: OfPlan): Promise<void> {
  const row = await lockPlan(tx, request);
  await tx.query(sql.delete, [request.tenant, request.plan]);
  await recordPlan(tx, by, row, { action: 'plan.delete', details: {} });
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
  act: { action: string; details: Record<string, string | string[]> },
): Promise<void> {
  const { id, name, place, guid } = row;
  const target = { kind: 'plan', id, name } as const;
  const details = { ...act.details, ...(guid !== null && { device: guid }) };
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
