/**
 * What retention keeps: the policies of organizations and devices, and what one would do before it is let to. A policy
 * is set whole; null is to inherit.
 */
import type Router from '@koa/router';
import { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import type { RetentionPolicy } from '../../../../storage/archive/retention/retention.ts';
import {
  type FoundPolicy,
  findPolicyOfArchive,
  findPolicyOfOrganization,
  setDeviceRetention,
  setOrganizationRetention,
} from '../../../directory/retention.ts';
import { readPolicyDocument } from '../../../directory/retention-document.ts';
import { planLines } from '../../../reports/plan.ts';
import { administrator } from '../../admin.ts';
import { json } from '../../bodies.ts';
import type { AppDeps, Context, RequestState } from '../../deps.ts';
import { flag, readQuery } from '../../parameters.ts';
import { answerJson, answerLines } from './json-answers.ts';
import { deviceInPath, organizationInPath } from './reach.ts';

/** A policy is some 300 bytes. */
const policyBytesMax = 16 * 1024;

const PolicyRequest = z.strictObject({ policy: z.unknown() });

export function retentionRoutes(router: Router<RequestState>, { storage, directory }: AppDeps): void {
  const organization = '/v1/admin/organizations/:organization/retention';
  const device = '/v1/admin/devices/:guid/retention';

  router.get(organization, administrator(), async (ctx) => {
    readQuery(ctx, {});
    await answerOrganization(ctx);
  });

  router.put(
    organization,
    administrator(),
    json(PolicyRequest, policyBytesMax, async (ctx, request) => {
      readQuery(ctx, {});
      const policy = policyIn(request.policy, { orNull: true });
      const { organizationId } = await organizationInPath(ctx);
      await setOrganizationRetention(directory.database, { tenantId: tenantOf(ctx), organizationId }, policy);
      logChange(ctx, { organization: organizationId, policy });
      await answerOrganization(ctx);
    }),
  );

  router.get(device, administrator(), async (ctx) => {
    readQuery(ctx, {});
    await answerDevice(ctx);
  });

  router.put(
    device,
    administrator(),
    json(PolicyRequest, policyBytesMax, async (ctx, request) => {
      readQuery(ctx, {});
      const policy = policyIn(request.policy, { orNull: true });
      const { guid } = await deviceInPath(ctx);
      await setDeviceRetention(directory.database, { tenantId: tenantOf(ctx), guid }, policy);
      logChange(ctx, { device: guid, policy });
      await answerDevice(ctx);
    }),
  );

  router.get(`${device}/plan`, administrator(), async (ctx) => {
    const { due } = readQuery(ctx, { due: flag });
    const { signal } = ctx.state;
    await answerLines(ctx, planLines(storage, await deviceInPath(ctx), { dueOnly: due, signal }));
  });

  router.post(
    `${device}/plan`,
    administrator(),
    json(PolicyRequest, policyBytesMax, async (ctx, request, { giveBack }) => {
      readQuery(ctx, {});
      const policy = policyIn(request.policy, { orNull: false })!;
      const { signal } = ctx.state;
      const ref = await deviceInPath(ctx);
      giveBack(); // the policy is kept, one per place
      await answerLines(ctx, planLines(storage, ref, { dueOnly: false, policy, signal }));
    }),
  );

  async function answerOrganization(ctx: Context): Promise<void> {
    const { organizationId, name } = await organizationInPath(ctx);
    const found = await findPolicyOfOrganization(directory.database, { tenantId: tenantOf(ctx), organizationId });
    const { from } = found!;
    const isOwn = typeof from === 'object' && 'organization' in from && from.organization.id === organizationId;
    answerJson(ctx, { organization: { id: organizationId, name }, ...shown(found!, isOwn) });
  }

  async function answerDevice(ctx: Context): Promise<void> {
    const found = await deviceInPath(ctx);
    const { guid, deviceName: name, userId, userName } = found;
    const policy = (await findPolicyOfArchive(directory.database, found))!;
    const isOwn = typeof policy.from === 'object' && 'device' in policy.from;
    answerJson(ctx, { device: { guid, name }, user: { id: userId, name: userName }, ...shown(policy, isOwn) });
  }
}

const tenantOf = (ctx: Context): number => ctx.state.administrator!.tenantId;

/** `policy`: its own, null where it inherits. `faults`: why the stored one is none; nothing is deleted by it. */
function shown({ policy, from, faults }: FoundPolicy, isOwn: boolean): object {
  return {
    policy: isOwn ? policy : null,
    effective: { policy, from },
    ...(faults.length > 0 && { faults }),
  };
}

function policyIn(value: unknown, { orNull }: { orNull: boolean }): RetentionPolicy | null {
  if (value === null && orNull) return null;
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

/** Who changed what deletes, for the log. */
function logChange(ctx: Context, changed: object): void {
  ctx.state.log.info({ user: ctx.state.administrator!.userId, ...changed }, 'retention policy set');
}
