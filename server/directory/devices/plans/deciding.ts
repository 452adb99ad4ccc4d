/**
 * Whether a change of a backup plan decides how long something is kept: whoever makes it has to be let say so (docs/decisions/
 * roles.md). It does by what a plan itself says, and by its name: of plans with one name the nearest to a device counts, so one
 * that comes takes the place of the next above it, and one that goes gives it back.
 *
 * What must stay true: in doubt it does, as with a plan that cannot be read. The plan that was asked about is held from here on,
 * so that in the transaction that goes on to change it, it still is what it was. One above it is not: whoever changes that at
 * the same moment might as well have come after.
 */
import { isDeepStrictEqual } from 'node:util';
import type { z } from 'zod';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { findDeviceTarget, findOrganizationTarget, findPlanTarget } from '../../targets.ts';
import type { CreatePlanRequest, UpdatePlanRequest } from './shapes.ts';
import { PlanContent } from './shapes.ts';
import { readRetentionOfPlan } from './stored.ts';

const sql = {
  // The nearest first.
  ofOrganizations: statement(
    'directory.plansOfOrganizations',
    `SELECT p.name, p.content FROM plans p JOIN organizations o ON o.organization_id = p.organization_id
      WHERE p.tenant_id = $1 AND p.organization_id = ANY ($2::bigint[]) ORDER BY cardinality(o.path) DESC, p.plan_id`,
  ),
  hold: statement(
    'directory.holdPlan',
    `SELECT name, content, guid IS NOT NULL AS "ofDevice" FROM plans WHERE tenant_id = $1 AND plan_id = $2 FOR NO KEY UPDATE`,
  ),
};

/** Whose files' time it is; null: a change decides nothing of that. */
export type DecidesOf = 'device' | 'organization' | null;

/** Of a plan that is to be made. */
export async function decidesByCreating(
  db: Transaction,
  asked: Pick<z.infer<typeof CreatePlanRequest>, 'organization' | 'device' | 'name' | 'retention'> & { tenant: number },
): Promise<DecidesOf> {
  const { tenant, organization, device, name, retention = null } = asked;
  const ofDevice = device !== undefined;
  const place = ofDevice
    ? await findDeviceTarget(db, tenant, device)
    : await findOrganizationTarget(db, tenant, organization!);
  if (!place) return null; // and nothing will be made
  const above = aboveOf(ofDevice, place.organizationPath);
  const decides = retention !== null || (await isSaidAbove(db, { tenant, above, name }));
  return decides ? ofWhom(ofDevice) : null;
}

/** Of a change of a plan (and then what it is to be), or of its end. */
export async function decidesByChanging(
  db: Transaction,
  asked: { tenant: number; plan: number; change: z.infer<typeof UpdatePlanRequest> | 'delete' },
): Promise<DecidesOf> {
  const { tenant, plan, change } = asked;
  const [held] = await db.query<Held>(sql.hold, [tenant, plan]);
  const place = held && (await findPlanTarget(db, tenant, plan));
  if (!place) return null; // and nothing will be changed
  if (decidesByItself(held, change)) return ofWhom(held.ofDevice);
  const above = aboveOf(held.ofDevice, place.organizationPath);
  // What it gives back, and what it takes the place of.
  const names = change === 'delete' ? [held.name] : isRenamed(held, change) ? [held.name, change.name!] : [];
  for (const name of names) if (await isSaidAbove(db, { tenant, above, name })) return ofWhom(held.ofDevice);
  return null;
}

interface Held {
  name: string;
  content: unknown;
  ofDevice: boolean;
}

const ofWhom = (ofDevice: boolean): DecidesOf => (ofDevice ? 'device' : 'organization');

/** The organizations whose plans one there takes the place of. A path ends with the organization itself. */
const aboveOf = (ofDevice: boolean, path: readonly number[]): readonly number[] =>
  ofDevice ? path : path.slice(0, -1);

/** As `nearestOfEachName` takes names. */
const isSameName = (one: string, other: string): boolean => one.toLowerCase() === other.toLowerCase();

const isRenamed = ({ name }: Held, change: z.infer<typeof UpdatePlanRequest>): boolean =>
  change.name !== undefined && !isSameName(change.name, name);

/** By what the plan says, or is to say, whatever is above it. */
function decidesByItself(held: Held, change: z.infer<typeof UpdatePlanRequest> | 'delete'): boolean {
  const { retention: before, faults } = readRetentionOfPlan(held.content);
  if (faults) return true;
  if (change === 'delete') return before !== null;
  if (before === null) return (change.retention ?? null) !== null;
  const content = PlanContent.parse(held.content);
  const differs = (field: 'retention' | 'include'): boolean =>
    change[field] !== undefined && !isDeepStrictEqual(change[field], content[field]);
  return differs('retention') || differs('include') || isRenamed(held, change);
}

/** Whether the plan of that name that counts there says how long, or nobody can read whether it does. */
async function isSaidAbove(
  db: Transaction,
  of: { tenant: number; above: readonly number[]; name: string },
): Promise<boolean> {
  const plans = await db.query<{ name: string; content: unknown }>(sql.ofOrganizations, [of.tenant, of.above]);
  const nearest = plans.find(({ name }) => isSameName(name, of.name));
  return nearest !== undefined && readRetentionOfPlan(nearest.content).retention !== null;
}
