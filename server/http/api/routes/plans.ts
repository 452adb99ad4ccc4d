/** Backup plans: what is backed up, when, and how long it is kept, of organizations and of devices. */
import { z } from 'zod';
import type { Transaction } from '../../../../storage/catalog/database.ts';
import { type DecidesOf, decidesByChanging, decidesByCreating } from '../../../directory/devices/plans/deciding.ts';
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
  assertHasAgent,
  type FoundTarget,
  findDeviceTarget,
  findOrganizationTarget,
  findPlanTarget,
  type PlanTarget,
} from '../../../directory/targets.ts';
import { deviceInPath, deviceParams, idText } from '../finders.ts';
import { type ApiRoute, type Asking, change, type Finder, read, type Second } from '../route.ts';

const tag = 'Backup plans';
const one = '/v1/plans/:plan';
const params = z.strictObject({ plan: idText });

const planInPath: Finder<{ plan: number }, unknown, unknown, PlanTarget> = (db, { actor, params }) =>
  findPlanTarget(db, actor.tenant, params.plan);

/** The organization or the device that the plan is to be of. */
const ownerInBody: Finder<unknown, unknown, z.infer<typeof CreatePlanRequest>, FoundTarget> = async (
  db,
  { actor, body },
) =>
  body.device === undefined
    ? findOrganizationTarget(db, actor.tenant, body.organization!)
    : findDeviceTarget(db, actor.tenant, body.device);

/**
 * Who says how long files are kept needs what setting it without a plan needs: for a device as PUT /v1/devices/:guid/retention,
 * for an organization as the setting retention.policy. Otherwise whoever may change plans could have versions go sooner.
 * @param decides whose files' time a request decides
 */
function forRetention<Params, Body>(
  target: Finder<Params, unknown, Body, FoundTarget>,
  decides: (db: Transaction, asking: Asking<Params, unknown, Body>) => Promise<DecidesOf>,
): readonly Second<Params, unknown, Body>[] {
  const permissions = { device: 'computer.update', organization: 'org.update_deactivate' } as const;
  return (['device', 'organization'] as const).map((of) => ({
    permission: permissions[of],
    target,
    when: async (db, asking) => (await decides(db, asking)) === of,
  }));
}

const says =
  'Where that decides how long something is kept (by a `retention`; by the folders or the name of a plan with one; or by taking or giving back the place of a plan above with one), it needs what setting retention needs: `computer.update` for a plan of a device, `org.update_deactivate` for one of an organization.';

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
    says: `Of an organization and all below it, or of one device. Of plans with one name the nearest to a device counts. ${says}`,
    may: {
      permission: 'plan.create',
      target: ownerInBody,
      second: forRetention(ownerInBody, (db, { actor, body }) =>
        decidesByCreating(db, { ...body, tenant: actor.tenant }),
      ),
    },
    body: CreatePlanRequest,
    status: 201,
    answer: PlanView,
    change(tx, { by, caller, body, target }) {
      if (target.kind === 'device') assertHasAgent(target, 'follows no plans');
      return createPlan(tx, by, { ...body, tenant: caller.tenant! });
    },
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
    says: `What is no longer selected stays in the archive, as long as retention keeps it: with a \`retention\` that of the plan as long as its folders are named, then that of the archive. ${says}`,
    may: {
      permission: 'plan.update',
      target: planInPath,
      second: forRetention<{ plan: number }, z.infer<typeof UpdatePlanRequest>>(
        planInPath,
        (db, { actor, params, body }) =>
          decidesByChanging(db, { tenant: actor.tenant, plan: params.plan, change: body }),
      ),
    },
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
    says: `Never what it has backed up. Of a plan with a \`retention\` that goes on under the policy of the archive. ${says}`,
    may: {
      permission: 'plan.delete',
      target: planInPath,
      second: forRetention(planInPath, (db, { actor, params }) =>
        decidesByChanging(db, { tenant: actor.tenant, plan: params.plan, change: 'delete' }),
      ),
    },
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
