/** Backup plans: what is backed up and when, of organizations and of devices. */
import { z } from 'zod';
import {
  createPlan,
  deletePlan,
  effectivePlans,
  listPlans,
  readPlan,
  updatePlan,
} from '../../../directory/devices/plans/plans.ts';
import {
  CreatePlanRequest,
  EffectivePlans,
  ListPlansQuery,
  PlanPage,
  PlanView,
  UpdatePlanRequest,
} from '../../../directory/devices/plans/shapes.ts';
import {
  type FoundTarget,
  findDeviceTarget,
  findOrganizationTarget,
  findPlanTarget,
  type PlanTarget,
} from '../../../directory/targets.ts';
import { deviceInPath, deviceParams, idText } from '../finders.ts';
import { type ApiRoute, change, type Finder, read } from '../route.ts';

const tag = 'Backup plans';
const one = '/v1/plans/:plan';
const params = z.strictObject({ plan: idText });

const planInPath: Finder<{ plan: number }, unknown, unknown, PlanTarget> = (db, { actor, params }) =>
  findPlanTarget(db, actor.tenant, params.plan);

/** The organization or the device that the plan is to be of. */
const ownerInBody: Finder<unknown, unknown, { organization?: number; device?: string }, FoundTarget> = async (
  db,
  { actor, body },
) =>
  body.device === undefined
    ? findOrganizationTarget(db, actor.tenant, body.organization!)
    : findDeviceTarget(db, actor.tenant, body.device);

const about = ({ target, expected }: { target: PlanTarget; expected: number | null }) => ({
  tenant: target.tenant,
  plan: target.id,
  expected,
});

export const planRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/plans',
    tag,
    summary: 'List backup plans',
    may: { permission: 'plan.read', of: 'listing' },
    query: ListPlansQuery,
    answer: PlanPage,
    read: ({ deps, caller, within, query }) =>
      listPlans(deps.directory.database, { tenant: caller.tenant!, within }, query),
  }),
  change({
    method: 'POST',
    path: '/v1/plans',
    tag,
    summary: 'Create a backup plan',
    says: 'Of an organization and all below it, or of one device. Of plans with one name the nearest to a device counts.',
    may: { permission: 'plan.create', target: ownerInBody as never },
    body: CreatePlanRequest,
    status: 201,
    answer: PlanView,
    change: (tx, { by, caller, body }) => createPlan(tx, by, { ...body, tenant: caller.tenant! }),
  }),
  read({
    path: one,
    tag,
    summary: 'Show a backup plan',
    may: { permission: 'plan.read', target: planInPath },
    params,
    answer: PlanView,
    read: ({ deps, target }) => readPlan(deps.directory.database, { tenant: target.tenant, plan: target.id }),
  }),
  change({
    method: 'PATCH',
    path: one,
    tag,
    summary: 'Change a backup plan',
    says: 'What is no longer selected stays in the archive, as long as retention keeps it.',
    may: { permission: 'plan.update', target: planInPath },
    params,
    body: UpdatePlanRequest,
    answer: PlanView,
    change: (tx, request) => updatePlan(tx, request.by, { ...about(request), change: request.body }),
  }),
  change({
    method: 'DELETE',
    path: one,
    tag,
    summary: 'Delete a backup plan',
    says: 'Never what it has backed up.',
    may: { permission: 'plan.delete', target: planInPath },
    params,
    answer: z.strictObject({}),
    change: async (tx, request) => {
      await deletePlan(tx, request.by, about(request));
      return {};
    },
  }),
  read({
    path: '/v1/devices/:guid/plans',
    tag,
    summary: 'Show the plans that hold for a device, and where each comes from',
    may: { permission: 'plan.read', target: deviceInPath },
    params: deviceParams,
    answer: EffectivePlans,
    read: ({ deps, target }) => effectivePlans(deps.directory.database, { tenant: target.tenant, guid: target.id }),
  }),
];
