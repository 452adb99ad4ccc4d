/** Restores to a browser or a program: planned, fetched as a zip or tar, and looked up afterwards. */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { pathFault } from '../../../../protocol/paths.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { fenceDefaults, openFence } from '../../../../storage/archive/checking/fence.ts';
import { assertShown } from '../../../../storage/archive/reading/shown-archive.ts';
import { type Allowance, allowanceOf, assertFits, assertWithin } from '../../../directory/restores/allowance.ts';
import { deliver } from '../../../directory/restores/deliver.ts';
import {
  findRestoreTarget,
  list,
  type RestoreTarget,
  read as readRestore,
} from '../../../directory/restores/history.ts';
import { requireOpenable } from '../../../directory/restores/keyring.ts';
import { assertMayBrowse } from '../../../directory/restores/may-browse.ts';
import { assertToBegin, cancel, planned } from '../../../directory/restores/requests.ts';
import {
  ListRestoresQuery,
  type PlanRestore,
  PlanRestoreRequest,
  RestoreContentRequest,
  RestoreDetails,
  RestorePage,
  RestoreView,
} from '../../../directory/restores/shapes.ts';
import type { Actor } from '../../../directory/roles/may.ts';
import { type DeviceTarget, findDeviceTarget } from '../../../directory/targets.ts';
import { planRestore, type RestorePlan } from '../../../restoring/plan.ts';
import { selectionPathsMax, verifyAheadBytes } from '../../../restoring/types.ts';
import { addressOf } from '../../client-address.ts';
import type { AppDeps, Context } from '../../deps.ts';
import { cutAnswer } from '../../problems.ts';
import { requesterOf } from '../callers.ts';
import { idText } from '../finders.ts';
import { type ApiRoute, type Content, type ContentRequest, change, content, type Finder, read } from '../route.ts';

const tag = 'Restores';
const one = '/v1/restores/:id';
const params = z.strictObject({ id: idText });

const deviceInBody: Finder<unknown, unknown, PlanRestore, DeviceTarget> = (db, { actor, body }) =>
  findDeviceTarget(db, actor.tenant, body.device);

const restoreInPath: Finder<{ id: number }, unknown, unknown, RestoreTarget> = (db, { actor, params }) =>
  findRestoreTarget(db, actor, params.id);

const permissions = { permission: 'restore.limited', or: 'restore.personal' } as const;
const may = { ...permissions, target: restoreInPath };

/**
 * How much the actor may restore from the device as things stand.
 * @throws Problem forbidden, conflict, not_found
 */
async function allowedOf({ directory, storage }: AppDeps, actor: Actor, target: DeviceTarget): Promise<Allowance> {
  const { database } = directory;
  await assertMayBrowse(database, actor, target);
  await assertShown(storage.database, target);
  const allowance = await allowanceOf(database, actor, target);
  if (!allowance) throw new Problem('forbidden', 'this needs the permission restore.personal or restore.limited here');
  assertWithin(allowance, 0);
  return allowance;
}

/** @throws Problem path_invalid; out_of_bounds, field `paths` */
function pathsOf({ paths, pathBytes }: PlanRestore): Buffer[] {
  const all = [
    ...paths.map((path, index) => ({ bytes: Buffer.from(path), field: `paths.${index}` })),
    ...pathBytes.map((path, index) => ({ bytes: Buffer.from(path, 'base64url'), field: `pathBytes.${index}` })),
  ];
  if (all.length === 0 || all.length > selectionPathsMax)
    throw new Problem('out_of_bounds', `a restore is of 1 to ${selectionPathsMax} paths`, { field: 'paths' });
  for (const { bytes, field } of all) {
    const fault = pathFault(bytes);
    if (fault) throw new Problem('path_invalid', `${field} is not a path: it ${fault}`, { field });
  }
  return all.map(({ bytes }) => bytes);
}

interface Prepared {
  plan: RestorePlan;
  paths: Buffer[];
  allowance: Allowance;
}

/** Counted by the server as of the moment, in a place for such work, and in bounded time. */
async function count(
  { deps, ctx, requester }: { deps: AppDeps; ctx: Context; requester: string },
  target: DeviceTarget,
  asked: Pick<PlanRestore, 'at' | 'seq' | 'deleted'> & { paths: Buffer[] },
): Promise<RestorePlan> {
  const { restorePlanMs } = deps.settings;
  const { paths, at, seq, deleted } = asked;
  const moment = seq !== undefined ? { seq } : { at: at === undefined ? null : new Date(at) };
  const release = await deps.slots.versionStreams.take(requester, ctx.state.signal);
  const tooLong = AbortSignal.timeout(restorePlanMs);
  try {
    return await planRestore(
      deps.storage,
      target,
      { paths, moment, deleted },
      AbortSignal.any([ctx.state.signal, tooLong]),
    );
  } catch (error) {
    if (!tooLong.aborted || ctx.state.signal.aborted) throw error;
    throw new Problem(
      'out_of_bounds',
      `counting what this comes to took longer than ${restorePlanMs / 1_000} s: choose less, or restore with the agent`,
      { field: 'paths' },
    );
  } finally {
    release();
  }
}

const types = { zip: 'application/zip', tar: 'application/x-tar' } as const;

async function contentOf(
  request: ContentRequest<unknown, unknown, { password?: string | undefined } | undefined, RestoreTarget>,
): Promise<Content> {
  const { ctx, deps, caller, by, target, body, askAgain } = request;
  const { restore } = target;
  assertToBegin(restore, by);
  const allowance = await allowedOf(deps, caller.actor!, target);
  assertWithin(allowance, restore.plannedBytes);
  const level = await requireOpenable(deps.directory.database, target.vault);
  if (level === 'password' && body?.password === undefined)
    throw new Problem(
      'malformed_request',
      "this backup is wrapped with its user's archive password: POST it as `password`",
      { field: 'password', level },
    );
  const { restoreWindowBytes: windowBytes, restoreCheckMs: checkEveryMs } = deps.settings;
  const bytes = deliver({
    storage: deps.storage,
    directory: deps.directory,
    fence: openFence(deps.storage, fenceDefaults),
    by,
    address: addressOf(ctx),
    target,
    allowance,
    password: body?.password,
    attempt: randomUUID(),
    windowBytes,
    verifyAheadBytes: Math.min(verifyAheadBytes, Math.floor(windowBytes / 2)),
    checkEveryMs,
    signal: ctx.state.signal,
    async stillMay() {
      await allowedOf(deps, await askAgain(), target);
    },
    cut: () => {
      // Before its first bytes it is answered with the problem that ends it.
      if (ctx.headerSent) cutAnswer(ctx);
    },
    onFault: (error) => ctx.state.log.warn({ err: error, restore: restore.id }, 'restore'),
  });
  return { type: types[restore.format], fileName: fileNameOf(restore), bytes };
}

function fileNameOf({ deviceName, guid, momentAt, createdAt, format }: RestoreTarget['restore']): string {
  return `${deviceName ?? guid} ${(momentAt ?? createdAt).toISOString().slice(0, 10)}.${format}`;
}

const fetched = {
  path: `${one}/content`,
  tag,
  may,
  params,
  answer: z.unknown(),
  types: Object.values(types),
} as const;
const saysFetched =
  'Made while it is sent, by whoever planned it, once to its end. An answer that is broken off is no archive: the history says why, and another try leaves out what could not be read. What is left out is named in the last entry, RESTORE-INCOMPLETE.txt.';

export const restoreRoutes: readonly ApiRoute[] = [
  change({
    method: 'POST',
    path: '/v1/restores',
    tag,
    summary: 'Plan a restore',
    says: 'Counts what the chosen paths come to as of a moment, and keeps that moment for a day. Up to the limits of the organization of the user whose archive it is (`webRestore`), but for `restore.all`. Fetch it at `/content`.',
    may: { ...permissions, target: deviceInBody },
    body: PlanRestoreRequest,
    bodyBytesMax: 1024 * 1024,
    status: 201,
    answer: RestoreView,
    answersWhole: true,
    async prepare({ deps, ctx, caller, target, body }): Promise<Prepared> {
      const paths = pathsOf(body);
      const actor = caller.actor!;
      if (target.user !== actor.user && body.reason === undefined)
        throw new Problem('malformed_request', "a restore of somebody else's files needs a reason", {
          field: 'reason',
        });
      const allowance = await allowedOf(deps, actor, target);
      await requireOpenable(deps.directory.database, target.vault);
      const plan = await count({ deps, ctx, requester: requesterOf(caller, ctx) }, target, { ...body, paths });
      assertWithin(allowance, plan.bytes);
      assertFits(body.format, plan);
      return { plan, paths, allowance };
    },
    change: (tx, { deps, by, target, body }, { plan, paths, allowance }) =>
      planned(tx, by, {
        target,
        format: body.format,
        paths,
        deleted: body.deleted,
        at: body.seq !== undefined || body.at === undefined ? null : new Date(body.at),
        reason: body.reason?.trim() ?? null,
        permission: allowance.permission,
        plan,
        leaseMs: deps.storage.settings.restoreLeaseMs,
      }),
  }),
  read({
    path: '/v1/restores',
    tag,
    summary: 'List restores',
    says: 'Newest first. Who may restore from their own devices only sees what they restored themselves.',
    may: { ...permissions, of: 'listing' },
    query: ListRestoresQuery,
    answer: RestorePage,
    read: ({ deps, caller, within, query }) =>
      list(deps.directory.database, { tenant: caller.tenant!, within }, query as z.output<typeof ListRestoresQuery>),
  }),
  read({
    path: one,
    tag,
    summary: 'Show a restore',
    may,
    params,
    answer: RestoreDetails,
    read: async ({ target }) => readRestore(target),
  }),
  change({
    method: 'POST',
    path: `${one}/cancel`,
    tag,
    summary: 'Cancel a restore',
    says: 'One that is being sent is broken off within seconds, on whichever server that is.',
    may,
    params,
    answer: RestoreView,
    answersWhole: true,
    change: (tx, { by, target, expected }) =>
      cancel(tx, by, { tenant: target.tenant, restore: target.restore.id, expected }),
  }),
  content({ ...fetched, method: 'GET', summary: 'Fetch a restore', says: saysFetched, content: contentOf }),
  content({
    ...fetched,
    method: 'POST',
    summary: 'Fetch a restore with the archive password',
    says: `${saysFetched} For backups that are wrapped with an archive password; for others without one it is as GET. A browser's form may bring the access token as \`access_token\`, so that a browser saves it as it comes.`,
    body: RestoreContentRequest,
    bodyBytesMax: 16 * 1024,
    content: contentOf,
  }),
];
