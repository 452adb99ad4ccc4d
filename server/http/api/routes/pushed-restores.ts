/** Restores that the agents of devices carry out, and looking into the folders of a device to choose where to. */
import { z } from 'zod';
import type { CommandAnswerRequest } from '../../../../protocol/commands.ts';
import { limits } from '../../../../protocol/limits.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { assertShown } from '../../../../storage/archive/reading/shown-archive.ts';
import { askToBrowse, browsed, readBrowseAnswer, takeBack } from '../../../directory/devices/commands/browsing.ts';
import { readChannel } from '../../../directory/devices/commands/channels.ts';
import {
  findRestoreTarget,
  list,
  type RestoreTarget,
  read as readRestore,
} from '../../../directory/restores/history.ts';
import { assertMayBrowse } from '../../../directory/restores/may-browse.ts';
import { pushPlanned } from '../../../directory/restores/pushing/planned.ts';
import {
  type BrowseDevice,
  BrowseDeviceRequest,
  type Browsed,
  BrowsedFolder,
  type PushRestore,
  PushRestoreRequest,
} from '../../../directory/restores/pushing/shapes.ts';
import {
  assertFollows,
  assertPushable,
  assertTellable,
  checkedPath,
  devicePath,
} from '../../../directory/restores/pushing/target.ts';
import { cancel } from '../../../directory/restores/requests.ts';
import { shownPath } from '../../../directory/restores/rows.ts';
import { ListRestoresQuery, RestoreDetails, RestorePage, RestoreView } from '../../../directory/restores/shapes.ts';
import { assertNotBlocked } from '../../../directory/restores/thresholds/charging.ts';
import { type Actor, may } from '../../../directory/roles/may.ts';
import { type DeviceTarget, findDeviceTarget } from '../../../directory/targets.ts';
import type { RestorePlan } from '../../../restoring/plan.ts';
import type { AppDeps, Context } from '../../deps.ts';
import { requesterOf } from '../callers.ts';
import { deviceInPath, deviceParams, idText } from '../finders.ts';
import { isSeen, noSuchThing } from '../guard.ts';
import { type ApiRoute, change, type Finder, read } from '../route.ts';
import { aboutCancelling, assertReason, count, momentAsked, pathsOf } from './restores.ts';

const tag = 'Push restores';
const one = '/v1/pushed-restores/:id';
const params = z.strictObject({ id: idText });
const ListPushedQuery = ListRestoresQuery.omit({ kind: true });
type ListPushed = z.output<typeof ListPushedQuery>;
const pushes = ['pushrestore.all', 'pushrestore.limited', 'pushrestore.personal'] as const;

/** The device the files are of, and whose the one is that they go to. */
interface Push extends DeviceTarget {
  to: DeviceTarget;
}

/** Null also where the device that they go to is one that the actor may know nothing of. */
const pushInBody: Finder<unknown, unknown, PushRestore, Push> = async (db, { actor, body }) => {
  const source = await findDeviceTarget(db, actor.tenant, body.device);
  const to = source && (await findDeviceTarget(db, actor.tenant, body.to.device));
  if (!to || !(isSeen(actor, to) || pushes.some((each) => may(actor, each, to).allowed))) return null;
  return { ...source, to, deviceUser: to.user };
};

const pushedInPath: Finder<{ id: number }, unknown, unknown, RestoreTarget> = async (db, { actor, params }) => {
  const found = await findRestoreTarget(db, actor, params.id, 'pushrestore.limited');
  return found?.restore.kind === 'pushed' ? found : null;
};

const mayPushed = { permission: 'pushrestore.limited', or: 'pushrestore.personal', target: pushedInPath } as const;

/** By which of them. @throws Problem forbidden, not_found */
function permissionOf(actor: Actor, push: Push): (typeof pushes)[number] {
  const held = pushes.find((each) => may(actor, each, push).allowed);
  if (!held)
    throw new Problem('forbidden', 'this needs the permission pushrestore.limited or pushrestore.personal here');
  // Files of one go to a device of another by this alone, and it is asked of both devices.
  if (push.to.user !== push.user && !may(actor, held, push.to).allowed) throw noSuchThing();
  return held;
}

interface Prepared {
  plan: RestorePlan;
  paths: Buffer[];
  folder: Buffer | null;
  permission: (typeof pushes)[number];
}

function folderOf({ to }: PushRestore, platform: string): Buffer | null {
  if (to.original) return null;
  if (to.folderBytes === undefined) return devicePath(to.folder!, platform, 'to.folder');
  return checkedPath(Buffer.from(to.folderBytes, 'base64url'), 'to.folderBytes');
}

function shownName(bytes: Buffer): { name: string | null; nameBytes?: string } {
  const { path: name, pathBytes: nameBytes } = shownPath(bytes.toString('base64url'));
  return { name, ...(nameBytes !== undefined && { nameBytes }) };
}

/** What a repeated request is answered: the answer to the first is kept nowhere. */
const shownOnce = { code: 'shown_once', detail: 'what the device showed was shown once: ask again, as a new request' };

function shownFolder(told: CommandAnswerRequest): Browsed {
  if ('fault' in told) return { entries: [], next: null, fault: told.fault };
  const entries = told.entries.map(({ name, kind, size, mtime, readOnly }) => ({
    ...shownName(name),
    kind,
    bytes: size,
    modifiedAt: new Date(mtime).toISOString(),
    ...(readOnly !== undefined && { readOnly }),
  }));
  return { entries, next: told.next === null ? null : told.next.toString('base64url'), fault: null };
}

/** In between, a process that did not hear of the answer looks for it. */
const lookEveryMs = 1_000;

/** Asks the device, and waits for what it says. @throws Problem device_away, in plain words */
async function askDevice(
  { deps, ctx }: { deps: AppDeps; ctx: Context },
  target: DeviceTarget,
  asked: { path: Buffer | null; after: Buffer | null; limit: number },
): Promise<{ command: number; told: CommandAnswerRequest }> {
  const { database } = deps.directory;
  const { browseWaitMs } = deps.settings;
  const seen = await readChannel(database, { tenant: target.tenant, guid: target.id });
  if (!seen?.isOpen) {
    const since = seen ? `; it was there last at ${seen.heardAt.toISOString()}` : ', and its agent never was';
    const next =
      "It is connected while 'npm run agent -- watch' runs on it, or a service that does so: start that there";
    throw new Problem('device_away', `the device is not connected${since}. ${next}`, {
      retryAfterSeconds: 60,
      lastConnectedAt: seen?.heardAt.toISOString() ?? null,
    });
  }
  // Twice the time: for whoever is asked again in the meantime.
  const command = await database.transaction((tx) =>
    askToBrowse(tx, target, asked, Math.max(60_000, 2 * browseWaitMs)),
  );
  try {
    for (const until = performance.now() + browseWaitMs; ; ) {
      const told = await readBrowseAnswer(database, command);
      if (told) return { command, told };
      const leftMs = until - performance.now();
      ctx.state.signal.throwIfAborted();
      if (leftMs <= 0)
        throw new Problem('device_away', `the device did not answer within ${browseWaitMs / 1_000} s`, {
          retryAfterSeconds: 30,
        });
      await deps.channels.answered(command, Math.min(leftMs, lookEveryMs), ctx.state.signal);
    }
  } catch (error) {
    await database.transaction((tx) => takeBack(tx, command)).catch(() => {});
    throw error;
  }
}

function askedFolder({ path, pathBytes, after, limit }: BrowseDevice, platform: string) {
  const bytes = pathBytes === undefined ? null : checkedPath(Buffer.from(pathBytes, 'base64url'), 'pathBytes');
  return {
    path: path === undefined ? bytes : devicePath(path, platform, 'path'),
    after: after === undefined ? null : Buffer.from(after, 'base64url'),
    limit,
  };
}

export const pushedRestoreRoutes: readonly ApiRoute[] = [
  change({
    method: 'POST',
    path: '/v1/pushed-restores',
    tag,
    summary: 'Push a restore to a device',
    says: 'Counts what the chosen paths come to as of a moment, as a restore to a browser does, and queues it for the agent of a device of the same user: there it goes into a folder, or back where it was. The device is told when it is connected (`watch`, or the command `commands`); it may be away for a week. The moment is kept until it has ended. No limit in bytes.',
    may: { permission: 'pushrestore.limited', or: ['pushrestore.all', 'pushrestore.personal'], target: pushInBody },
    body: PushRestoreRequest.meta({
      examples: [
        {
          device: '1000001',
          paths: ['/home/ann'],
          to: { device: '1000002', folder: '/home/ann/restored' },
          reason: 'her new laptop',
        },
      ],
    }),
    bodyBytesMax: 1024 * 1024,
    status: 201,
    answer: RestoreView,
    answersWhole: true,
    async prepare({ deps, ctx, caller, by, target, body }): Promise<Prepared> {
      const { directory, storage } = deps;
      const { database } = directory;
      const paths = pathsOf(body);
      assertTellable(paths);
      const actor = caller.actor!;
      const permission = permissionOf(actor, target);
      await assertNotBlocked(database, by);
      assertReason(target, actor, body.reason);
      await assertMayBrowse(database, actor, target);
      await assertShown(storage.database, target);
      const original = body.to.original === true;
      const { platform } = await assertPushable(database, { source: target, target: target.to, original });
      const folder = folderOf(body, platform);
      const plan = await count({ deps, ctx, requester: requesterOf(caller, ctx) }, target, { ...body, paths });
      return { plan, paths, folder, permission };
    },
    async change(tx, { deps, by, caller, target, body }, { plan, paths, folder, permission }) {
      // Once more: it may have changed while it was counted.
      permissionOf(caller.actor!, target);
      await assertPushable(tx, { source: target, target: target.to, original: folder === null });
      return pushPlanned(tx, by, {
        target,
        to: target.to,
        paths,
        deleted: body.deleted,
        at: momentAsked(body),
        reason: body.reason?.trim() ?? null,
        permission,
        plan,
        folder: folder === null ? null : folder.toString('base64url'),
        existing: body.existing,
        permissions: body.permissions,
        expiresMs: deps.settings.pushExpiresMs,
        leaseMs: deps.storage.settings.restoreLeaseMs,
      });
    },
  }),
  read({
    path: '/v1/pushed-restores',
    tag,
    summary: 'List pushed restores',
    says: 'Newest first. Who may push to their own devices only sees what they pushed themselves.',
    may: { permission: 'pushrestore.limited', or: 'pushrestore.personal', of: 'listing' },
    query: ListPushedQuery,
    answer: RestorePage,
    read: ({ deps, caller, within, query }) =>
      list(deps.directory.database, { tenant: caller.tenant!, within }, { ...(query as ListPushed), kind: 'pushed' }),
  }),
  read({
    path: one,
    tag,
    summary: 'Show a pushed restore',
    may: mayPushed,
    params,
    answer: RestoreDetails,
    read: async ({ target }) => readRestore(target),
  }),
  change({
    method: 'POST',
    path: `${one}/cancel`,
    tag,
    summary: 'Cancel a pushed restore',
    says: 'A device that is connected stops within seconds, another as soon as it is back. What was written stays.',
    may: mayPushed,
    params,
    answer: RestoreView,
    answersWhole: true,
    change: (tx, request) => cancel(tx, request.by, aboutCancelling(request)),
  }),
  change({
    method: 'POST',
    path: '/v1/devices/:guid/browse',
    tag,
    summary: 'Look into a folder of a device',
    says: 'To choose where a restore is to go. The agent of the device answers, with names, sizes and times; nothing is opened. It has to be connected. In the order of the bytes of the names.',
    may: { permission: 'select.all', or: 'select.personal', target: deviceInPath },
    params: deviceParams,
    body: BrowseDeviceRequest,
    bodyBytesMax: 2 * limits.pathBytesMax + 16 * 1024,
    answer: BrowsedFolder,
    answersWhole: true,
    async prepare({ deps, ctx, target, body }) {
      const { platform } = await assertFollows(deps.directory.database, target);
      const asked = askedFolder(body, platform);
      const { command, told } = await askDevice({ deps, ctx }, target, asked);
      return { command, path: asked.path, folder: shownFolder(told) };
    },
    // What it shows is told in `reveal`, so that it is kept nowhere.
    async change(tx, { by, target }, { command, path, folder }) {
      const { entries, fault } = folder;
      await browsed(tx, by, target, { command, path, entries: entries.length, fault: fault?.code ?? null });
      return { entries: [], next: null, fault: shownOnce };
    },
    reveal: (_, { folder }) => folder,
  }),
];
