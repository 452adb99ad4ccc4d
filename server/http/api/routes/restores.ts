/** Restores to a browser or a program: planned, fetched as a zip or tar, and looked up afterwards. */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { printablePath } from '../../../../protocol/paths.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { exportType } from '../../../../protocol/sealed-export.ts';
import { fenceDefaults, openFence } from '../../../../storage/archive/checking/fence.ts';
import { type Allowance, assertFits, assertWithin } from '../../../directory/restores/allowance.ts';
import { allowedOf } from '../../../directory/restores/allowed.ts';
import { deliver } from '../../../directory/restores/deliver.ts';
import {
  findRestoreTarget,
  list,
  type RestoreTarget,
  read as readRestore,
} from '../../../directory/restores/history.ts';
import { requireOpenable } from '../../../directory/restores/keyring.ts';
import { checkedPath, textPath } from '../../../directory/restores/pushing/target.ts';
import { assertToBegin, cancel, planned } from '../../../directory/restores/requests.ts';
import { formatOf } from '../../../directory/restores/rows.ts';
import {
  ListRestoresQuery,
  type PlanRestore,
  PlanRestoreRequest,
  RestoreContentRequest,
  RestoreDetails,
  RestorePage,
  RestoreView,
} from '../../../directory/restores/shapes.ts';
import { stagesItself } from '../../../directory/restores/staging/fetch-staged.ts';
import { stageTriesMax } from '../../../directory/restores/staging/stage-due.ts';
import { assertNotBlocked } from '../../../directory/restores/thresholds/charging.ts';
import type { Actor } from '../../../directory/roles/may.ts';
import { assertHasAgent, type DeviceTarget, findDeviceTarget } from '../../../directory/targets.ts';
import { planRestore, type RestorePlan } from '../../../restoring/plan.ts';
import { selectionPathsMax, verifyAheadBytes } from '../../../restoring/types.ts';
import { addressOf } from '../../client-address.ts';
import type { AppDeps, Context } from '../../deps.ts';
import { cutAnswer } from '../../problems.ts';
import { requesterOf } from '../callers.ts';
import { idText } from '../finders.ts';
import {
  type ApiRoute,
  type Content,
  type ContentRequest,
  change,
  content,
  type Finder,
  type Request,
  read,
} from '../route.ts';
import { assertRoomFor, callerByLink, linkQuery, stagedContentOf, stagingRoutes } from './staged-restores.ts';

const tag = 'Restores';
const one = '/v1/restores/:id';
const params = z.strictObject({ id: idText });

const deviceInBody: Finder<unknown, unknown, PlanRestore, DeviceTarget> = (db, { actor, body }) =>
  findDeviceTarget(db, actor.tenant, body.device);

const restoreInPath: Finder<{ id: number }, unknown, unknown, RestoreTarget> = (db, { actor, params }) =>
  findRestoreTarget(db, actor, params.id);

const permissions = { permission: 'restore.limited', or: 'restore.personal' } as const;
const may = { ...permissions, target: restoreInPath };

/** @throws Problem path_invalid; out_of_bounds, field `paths` */
export function pathsOf({ paths, pathBytes }: Pick<PlanRestore, 'paths' | 'pathBytes'>): Buffer[] {
  const chosen = paths.length + pathBytes.length;
  if (chosen === 0 || chosen > selectionPathsMax)
    throw new Problem('out_of_bounds', `a restore is of 1 to ${selectionPathsMax} paths`, { field: 'paths' });
  return [
    ...paths.map((path, index) => textPath(path, `paths.${index}`)),
    ...pathBytes.map((path, index) => checkedPath(Buffer.from(path, 'base64url'), `pathBytes.${index}`)),
  ];
}

/** The moment as it was asked for; null: by its seq, or now. */
export const momentAsked = ({ at, seq }: Pick<PlanRestore, 'at' | 'seq'>): Date | null =>
  seq !== undefined || at === undefined ? null : new Date(at);

/** @throws Problem malformed_request: whoever restores what is somebody else's says why */
export function assertReason(target: DeviceTarget, actor: Actor, reason: string | undefined): void {
  if (target.user !== actor.user && reason === undefined)
    throw new Problem('malformed_request', "a restore of somebody else's files needs a reason", { field: 'reason' });
}

interface Prepared {
  plan: RestorePlan;
  paths: Buffer[];
  allowance: Allowance;
  /** How often a worker stages it on its own; null: it is not staged. */
  stageTries: number | null;
  /** Tells a worker. */
  startJob: AppDeps['startJob'];
}

/** Counted by the server as of the moment, in a place for such work, and in bounded time. */
export async function count(
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
    const signal = AbortSignal.any([ctx.state.signal, tooLong]);
    const plan = await planRestore(deps.storage, target, { paths, moment, deleted }, signal);
    assertFound(plan);
    return plan;
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

/** Of a path in a problem: enough to know it again. */
const pathCharactersTold = 300;

/** @throws Problem not_found: none of the paths is there, as when one was mistyped */
function assertFound({ missingPaths, files, folders, links, gone, thinned, seq }: RestorePlan): void {
  const [path] = missingPaths;
  if (!path || files + folders + links + gone + thinned > 0) return;
  const more = missingPaths.length > 1 ? `, nor at ${missingPaths.length - 1} more` : '';
  throw new Problem(
    'not_found',
    `the archive holds nothing at ${printablePath(path).slice(0, pathCharactersTold).toWellFormed()}${more} as of this moment: browse or search it, name another moment, or ask for what was deleted by then, too (\`deleted\`)`,
    { field: 'paths', seq },
  );
}

const types = { zip: 'application/zip', tar: 'application/x-tar', export: exportType } as const;

async function contentOf(
  request: ContentRequest<
    unknown,
    z.output<typeof linkQuery>,
    { password?: string | undefined } | undefined,
    RestoreTarget
  >,
): Promise<Content> {
  const { ctx, deps, caller, by, target, body, askAgain } = request;
  const { restore } = target;
  if (restore.kind === 'staged') {
    const { etag, length, read } = await stagedContentOf(request);
    return { type: types[formatOf(restore)], fileName: fileNameOf(restore), etag, length, read };
  }
  assertToBegin(restore, by);
  const allowance = await allowedOf(deps, caller.actor!, target);
  assertWithin(allowance, restore.plannedBytes);
  const level = await requireOpenable(deps.directory.database, target.vault, formatOf(restore));
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
    room: deps.restoreRoom,
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
  return { type: types[formatOf(restore)], fileName: fileNameOf(restore), bytes };
}

function fileNameOf({ deviceName, guid, momentAt, createdAt, format }: RestoreTarget['restore']): string {
  const ending = format === 'export' ? 'holdfast-export' : format;
  return `${deviceName ?? guid} ${(momentAt ?? createdAt).toISOString().slice(0, 10)}.${ending}`;
}

export const aboutCancelling = ({ deps, target, expected }: Request<unknown, unknown, unknown, RestoreTarget>) => {
  const { restoreLeaseMs: leaseMs } = deps.storage.settings;
  return { tenant: target.tenant, restore: target.restore.id, expected, leaseMs };
};

const fetched = {
  path: `${one}/content`,
  tag,
  may,
  params,
  query: linkQuery,
  answer: z.unknown(),
  types: Object.values(types),
} as const;
const saysFetched =
  'A staged one in any ranges (`Range`, `If-Range`), as often as wanted until it expires; 409 with `percent` while it is made. A streamed one is made while it is sent, for whoever planned it, once to its end. An answer that is broken off is no archive: the history says why, and another try leaves out what could not be read. What is left out is named in the last entry, RESTORE-INCOMPLETE.txt.';

export const restoreRoutes: readonly ApiRoute[] = [
  change({
    method: 'POST',
    path: '/v1/restores',
    tag,
    summary: 'Plan a restore',
    says: 'Counts what the chosen paths come to as of a moment, and keeps that moment for a day. Up to the limits of the organization of the user whose archive it is (`webRestore`), but for `restore.all`. Fetch it at `/content`: a staged one when a worker has made it.',
    may: { ...permissions, target: deviceInBody },
    body: PlanRestoreRequest.meta({
      examples: [{ device: '1000001', paths: ['/home/ann'], reason: 'her laptop was stolen' }],
    }),
    bodyBytesMax: 1024 * 1024,
    status: 201,
    answer: RestoreView,
    answersWhole: true,
    async prepare({ deps, ctx, caller, by, target, body }): Promise<Prepared> {
      assertHasAgent(target, 'its files cannot be opened here');
      const paths = pathsOf(body);
      await assertNotBlocked(deps.directory.database, by);
      const actor = caller.actor!;
      assertReason(target, actor, body.reason);
      const allowance = await allowedOf(deps, actor, target);
      const level = await requireOpenable(deps.directory.database, target.vault, body.format);
      const plan = await count({ deps, ctx, requester: requesterOf(caller, ctx) }, target, { ...body, paths });
      assertWithin(allowance, plan.bytes);
      assertFits(body.format, plan);
      const isStaged = body.kind === 'staged';
      if (isStaged) await assertRoomFor(deps, by, plan);
      const stageTries = isStaged ? (stagesItself(level, { format: body.format }) ? stageTriesMax : 0) : null;
      return { plan, paths, allowance, stageTries, startJob: deps.startJob };
    },
    change: (tx, { deps, by, target, body }, { plan, paths, allowance, stageTries }) =>
      planned(tx, by, {
        target,
        format: body.format,
        paths,
        deleted: body.deleted,
        at: momentAsked(body),
        reason: body.reason?.trim() ?? null,
        permission: allowance.permission,
        plan,
        leaseMs: deps.storage.settings.restoreLeaseMs,
        kind: body.kind,
        stageTries: stageTries ?? 0,
      }),
    // The transaction is over: a worker that looks finds its row.
    reveal(answer, { stageTries, startJob }) {
      if (stageTries) startJob('restore', { restore: (answer as { id: number }).id });
      return answer;
    },
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
    change: (tx, request) => cancel(tx, request.by, aboutCancelling(request)),
  }),
  ...stagingRoutes({ path: one, tag, may, params }),
  content({
    ...fetched,
    method: 'GET',
    summary: 'Fetch a restore',
    says: saysFetched,
    byLink: callerByLink,
    content: contentOf,
  }),
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
