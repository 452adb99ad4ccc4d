/** What retention keeps of a device's files, and what a policy would do before it is let to. */
import { z } from 'zod';
import {
  RetentionView,
  readDeviceRetention,
  readPolicy,
  SetRetentionRequest,
  setDeviceRetention,
  TryRetentionRequest,
} from '../../../directory/device-retention.ts';
import { PlanLineView } from '../../../reports/answers.ts';
import { planLines } from '../../../reports/plan.ts';
import { deviceInPath, deviceParams, yesOrNo } from '../finders.ts';
import { type ApiRoute, change, lines, read } from '../route.ts';

const tag = 'Retention';
const one = '/v1/devices/:guid/retention';

/** A policy is some 300 bytes. */
const bodyBytesMax = 16 * 1024;

export const retentionRoutes: readonly ApiRoute[] = [
  read({
    path: one,
    tag,
    summary: 'Show the retention policy of a device, and whose it is',
    may: { permission: 'computer.read', target: deviceInPath },
    params: deviceParams,
    answer: RetentionView,
    read: ({ deps, target }) =>
      readDeviceRetention(deps.directory.database, { tenant: target.tenant, guid: target.id }),
  }),
  change({
    method: 'PUT',
    path: one,
    tag,
    summary: 'Give a device a retention policy of its own, or let it inherit',
    says: 'An organization that has locked the policy lets no device below it have its own.',
    may: { permission: 'computer.update', target: deviceInPath },
    params: deviceParams,
    body: SetRetentionRequest,
    bodyBytesMax,
    answer: RetentionView,
    change: (tx, { by, target, body, expected }) =>
      setDeviceRetention(tx, by, { tenant: target.tenant, guid: target.id, expected, policy: body.policy }),
  }),
  lines({
    method: 'GET',
    path: `${one}/plan`,
    tag,
    summary: 'Show what the policy in force would delete, and why',
    says: 'A line for each version of every file that has more than one; the sum is the last.',
    may: { permission: 'computer.read', target: deviceInPath },
    params: deviceParams,
    query: z.strictObject({
      due: yesOrNo.meta({ description: 'Only files that may have changed since they were last looked at' }),
    }),
    answer: PlanLineView,
    lines: ({ ctx, deps, target, query }) =>
      planLines(deps.storage, target, { dueOnly: query.due, signal: ctx.state.signal }),
  }),
  lines({
    method: 'POST',
    path: `${one}/plan`,
    tag,
    summary: 'Show what another policy would delete',
    says: 'It is tried out, and changes nothing.',
    may: { permission: 'computer.read', target: deviceInPath },
    params: deviceParams,
    body: TryRetentionRequest,
    bodyBytesMax,
    answer: PlanLineView,
    lines: ({ ctx, deps, target, body }) =>
      planLines(deps.storage, target, {
        dueOnly: false,
        policy: readPolicy(body.policy),
        signal: ctx.state.signal,
      }),
  }),
];
