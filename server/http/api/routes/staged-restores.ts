/** Staged restores: begun with a password, fetched in ranges, and opened with links. */
import { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { fenceDefaults, openFence } from '../../../../storage/archive/checking/fence.ts';
import { assertWithin } from '../../../directory/restores/allowance.ts';
import { allowedOf } from '../../../directory/restores/allowed.ts';
import type { RestoreTarget } from '../../../directory/restores/history.ts';
import { requireOpenable } from '../../../directory/restores/keyring.ts';
import { assertToBegin, noSuchRestore } from '../../../directory/restores/requests.ts';
import { formatOf, lockRestoreRow, viewOf } from '../../../directory/restores/rows.ts';
import { LinkAnswer, LinkRequest, RestoreView, StageRestoreRequest } from '../../../directory/restores/shapes.ts';
import { askerNow } from '../../../directory/restores/staging/asker.ts';
import { openStaged, type Staged, stagesItself } from '../../../directory/restores/staging/fetch-staged.ts';
import { makeLink, openLink, prepareLink, signatureOf } from '../../../directory/restores/staging/links.ts';
import { assertRoom, freeBytesOf, reservedFor } from '../../../directory/restores/staging/room.ts';
import { readStagingRoom, setStageTries } from '../../../directory/restores/staging/rows.ts';
import { assertStaged, stage } from '../../../directory/restores/staging/stage.ts';
import { stageTriesMax } from '../../../directory/restores/staging/stage-due.ts';
import { askerOf, countedFor } from '../../../directory/restores/thresholds/askers.ts';
import { assertNotBlocked } from '../../../directory/restores/thresholds/charging.ts';
import type { RestorePlan } from '../../../restoring/plan.ts';
import { addressOf } from '../../client-address.ts';
import type { AppDeps, Context } from '../../deps.ts';
import { cutAnswer } from '../../problems.ts';
import { stagingSettings } from '../../staging-settings.ts';
import { type Caller, requesterOf } from '../callers.ts';
import { origin } from '../origin.ts';
import { type ApiRoute, type ContentRequest, change, type Finder, type Request } from '../route.ts';

/** What a link adds to the address. */
export const linkQuery = z.strictObject({
  expires: z.coerce
    .number()
    .pipe(z.int().min(1).max(99_999_999_999))
    .optional()
    .meta({ description: 'Of a link, with `signature`: instead of a sign-in, for a staged restore' }),
  signature: z.string().min(1).max(100).optional(),
});
type LinkQuery = z.output<typeof linkQuery>;

/** Looked at when it is planned, so that nobody waits for what there is no room for; reserved when it begins. */
export async function assertRoomFor(deps: AppDeps, by: Request<0, 0, 0, 0>['by'], plan: RestorePlan): Promise<void> {
  const { database } = deps.directory;
  const room = await readStagingRoom(database, await countedFor(database, by));
  const freeBytes = await freeBytesOf(deps.storage.objects);
  const planned = { plannedBytes: plan.bytes, plannedFiles: plan.files, plannedFolders: plan.folders };
  const bytes = reservedFor({ ...planned, plannedLinks: plan.links });
  assertRoom(room, bytes, { ...stagingSettings(deps.settings), freeBytes });
}

/** @throws Problem conflict: it is somebody else's */
function assertIsAsker({ restore }: RestoreTarget, by: Request<0, 0, 0, 0>['by']): void {
  const { kind, id } = askerOf(by);
  if (restore.askerKind !== kind || restore.askerId !== id)
    throw new Problem('conflict', 'this restore is for whoever planned it: plan one of your own');
}

/** The bytes of one, for whoever asked for it: signed in, or with a link of theirs. */
export async function stagedContentOf(
  request: ContentRequest<unknown, LinkQuery, unknown, RestoreTarget>,
): Promise<Staged> {
  const { ctx, deps, caller, by, target, query, askAgain } = request;
  assertIsAsker(target, by);
  await assertNotBlocked(deps.directory.database, by);
  assertWithin(await allowedOf(deps, caller.actor!, target), target.restore.plannedBytes);
  return openStaged({
    storage: deps.storage,
    directory: deps.directory,
    fence: openFence(deps.storage, fenceDefaults),
    by,
    address: addressOf(ctx),
    target,
    linkEnds: caller.again ? query.expires! : 0,
    checkEveryMs: deps.settings.restoreCheckMs,
    room: deps.restoreRoom,
    signal: ctx.state.signal,
    async stillMay() {
      await allowedOf(deps, await askAgain(), target);
    },
    cut: () => {
      if (ctx.headerSent) cutAnswer(ctx);
    },
    onFault: (error) => ctx.state.log.warn({ err: error, restore: target.restore.id }, 'staged restore'),
  });
}

/** Whoever made the link, who may no more than they may by now. @throws Problem not_found */
export async function callerByLink(
  ctx: Context,
  { params: { id }, query: { expires, signature } }: { params: { id: number }; query: LinkQuery },
): Promise<Caller | null> {
  if (expires === undefined && signature === undefined) return null;
  if (expires === undefined || signature === undefined) throw noSuchRestore();
  const { directory } = ctx.state.deps;
  const linked = await openLink(directory, { restore: id, ends: expires, signature });
  const { askerKind, askerId, tenant } = linked;
  const callerOf = ({ actor, name }: Pick<typeof linked, 'actor' | 'name'>): Caller => ({
    ...{ kind: askerKind, id: askerId, name, tenant, actor, session: null, limited: null, link: id },
    again: async () => callerOf(await askerNow(directory.database, linked)),
  });
  return callerOf(linked);
}

interface Begun {
  /** A worker has yet to be told. */
  worker: ((restore: number) => void) | null;
}

export function stagingRoutes(about: {
  path: string;
  tag: string;
  may: {
    permission: 'restore.limited';
    or: 'restore.personal';
    target: Finder<{ id: number }, unknown, unknown, RestoreTarget>;
  };
  params: z.ZodObject<{ id: z.ZodType<number> }>;
}): ApiRoute[] {
  const { path, tag, may, params } = about;
  return [
    change({
      method: 'POST',
      path: `${path}/stage`,
      tag,
      summary: 'Begin to stage a restore',
      says: 'For a backup that is wrapped with an archive password, with that password: it is used by the server that was asked, and kept nowhere. For others, when a worker does not try any more by itself. Ask again how far it is; fetch it at `/content` when it is `completed`.',
      may,
      params,
      body: StageRestoreRequest,
      bodyBytesMax: 16 * 1024,
      answer: RestoreView,
      answersWhole: true,
      async prepare({ deps, ctx, caller, by, target, body }): Promise<Begun> {
        const { restore } = target;
        assertStaged(restore);
        assertToBegin(restore, by);
        const level = await requireOpenable(deps.directory.database, target.vault, formatOf(restore));
        if (stagesItself(level, restore)) {
          if (body.password !== undefined)
            throw new Problem('malformed_request', 'this restore needs no archive password', { field: 'password' });
          return { worker: (id) => deps.startJob('restore', { restore: id }) };
        }
        if (body.password === undefined)
          throw new Problem('malformed_request', "this backup is wrapped with its user's archive password: send it", {
            field: 'password',
            level,
          });
        await stageHere({ deps, ctx, caller }, target, body.password);
        return { worker: null };
      },
      async change(tx, { by, target }, { worker }) {
        const of = { tenant: target.tenant, restore: target.restore.id };
        const row = await lockRestoreRow(tx, of);
        if (!row) throw noSuchRestore();
        if (!worker) return viewOf(row);
        assertToBegin(row, by);
        await setStageTries(tx, of, stageTriesMax);
        return viewOf((await lockRestoreRow(tx, of))!);
      },
      reveal(answer, { worker }) {
        worker?.((answer as { id: number }).id);
        return answer;
      },
    }),
    change({
      method: 'POST',
      path: `${path}/link`,
      tag,
      summary: 'Make a link to a staged restore',
      says: 'Whoever has the link fetches this one archive without a sign-in, with a browser or curl, until it ends: a day at most. It ends as well with the archive, and when whoever made it may not restore it any more.',
      may,
      params,
      body: LinkRequest,
      status: 201,
      answer: LinkAnswer,
      answersWhole: true,
      async prepare({ deps, ctx, by, target }) {
        assertIsAsker(target, by);
        const material = await prepareLink(deps.directory, target.restore);
        const { id: restore, askerKind, askerId } = target.restore;
        const content = `${origin(ctx)}${path.replace(':id', String(restore))}/content`;
        const linked = { restore, askerKind, askerId, attempt: material.attempt, length: material.length };
        const urlOf = (ends: number): string =>
          `${content}?expires=${ends}&signature=${signatureOf(material.secret, { ...linked, ends })}`;
        return { attempt: material.attempt, urlOf };
      },
      async change(tx, { by, target, body }, { attempt }) {
        const of = { tenant: target.tenant, restore: target.restore.id };
        const ends = await makeLink(tx, by, { ...of, attempt, seconds: body.seconds });
        return { expiresAt: new Date(ends * 1_000).toISOString() };
      },
      reveal(answer, { urlOf }) {
        const { expiresAt } = answer as { expiresAt: string };
        return { url: urlOf(Date.parse(expiresAt) / 1_000), expiresAt };
      },
    }),
  ];
}

/**
 * In this process, which was told the password; its two parts are beside what restores share, so few are made at a time.
 * The answer comes when the keys are open, and the rest goes on. A server that shuts down ends it, and waits until its row says so:
 * the password has to be given again.
 */
async function stageHere(
  { deps, ctx, caller }: { deps: AppDeps; ctx: Context; caller: Caller },
  { restore, tenant }: RestoreTarget,
  password: string,
): Promise<void> {
  const release = await deps.slots.stagings.take(requesterOf(caller, ctx), ctx.state.signal);
  const { promise: begun, resolve: onBegun, reject } = Promise.withResolvers<void>();
  const fence = openFence(deps.storage, fenceDefaults);
  const { storage, directory, log } = deps;
  const onFault = (error: unknown): void => log.warn({ err: error, restore: restore.id }, 'staging');
  const settings = stagingSettings(deps.settings);
  const parts = { storage, directory, fence, settings, room: deps.restoreRoom, onFault };
  const work = stage(parts, {
    ...{ tenant, restore: restore.id, password, onBegun },
    asker: { tenant, askerKind: restore.askerKind, askerId: restore.askerId },
    address: addressOf(ctx),
    // Whoever asked need not wait for it.
    signal: deps.requests.stopping.signal,
  });
  deps.requests.open.add(work);
  work
    .then(onBegun, (error: unknown) => {
      reject(error);
      if (!(error instanceof Problem)) onFault(error);
    })
    .finally(() => {
      release();
      deps.requests.open.delete(work);
    });
  await begun;
}
