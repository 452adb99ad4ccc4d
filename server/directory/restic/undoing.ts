/**
 * Having back what restic deleted in a repository: what is hidden is listed, deletes are undone, and a whole repository is set
 * back to a moment (storage/archive/plain-files/undo.ts). For whoever's backups were deleted by somebody with a token: no token of
 * a repository does any of this.
 *
 * A request does a bounded step and says where the next begins, so that none lasts long, and each is an act of its own. One
 * that is repeated changes nothing that is so already.
 *
 * Lock order: the tenant's row for sharing, the user's, the repository's, what is the engine's (the archive first), the log's head.
 */
import { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import {
  beginUndo,
  type Counted,
  locksFolder,
  setBackStep,
  type UndoPlace,
  type UndoStep,
  undoDeletesOf,
  undoDeletesStep,
  undoPhases,
} from '../../../storage/archive/plain-files/undo.ts';
import { assertShown } from '../../../storage/archive/reading/shown-archive.ts';
import { readNow } from '../../../storage/catalog/checking/checking.ts';
import type { Transaction } from '../../../storage/catalog/database.ts';
import { readPlainFigures } from '../../../storage/catalog/plain-figures.ts';
import { filesWithPast } from '../../../storage/catalog/reading/plain-history.ts';
import { lockArchive } from '../../../storage/catalog/writing/commits.ts';
import type { PlainName } from '../../../storage/catalog/writing/plain-files.ts';
import type { By, JsonValue } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { settingsOfMany } from '../devices/settings-of-many.ts';
import type { DeviceTarget } from '../targets.ts';
import { readCursor, writeCursor } from '../users/pages.ts';
import { typeOfFolder } from './repositories.ts';
import {
  type HiddenPage,
  isMoment,
  type ListHiddenQuery,
  type SetBack,
  type SetBackQuery,
  type SetBackRequest,
  type Undeleted,
  type UndeleteRequest,
} from './shapes.ts';
import { assertRepository, lockRepository } from './tokens.ts';

/** A lock of restic's is made anew every five minutes, and is nobody's any more after thirty. */
const lockMinutes = 30;
const dayMs = 86_400_000;

/** Files looked at for one page of what is hidden, at most, and at a time. */
const hiddenBounds = { filesMax: 20_000, batch: 1_000 };

const Place = z.strictObject({
  phase: z.enum(undoPhases.setBack),
  at: z.iso.datetime().refine(isMoment),
  since: z.int().min(0),
  through: z.int().min(0),
  after: z.strictObject({
    committedAt: z
      .string()
      .regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.(\d{3}){1,2}Z$/)
      .refine(isMoment),
    seq: z.int().min(0),
  }),
  lock: z
    .string()
    .max(64)
    .regex(/^[\w.-]*$/)
    .optional(),
});

const writePlace = (place: UndoPlace | null): string | null =>
  place && Buffer.from(JSON.stringify(place)).toString('base64url');

type Phases = (typeof undoPhases)[keyof typeof undoPhases];

/**
 * @param at what the request is about: a place is one of the same moment
 * @param phases what the request may do: a place of another act would have it do what was not asked for, nor permitted
 * @throws Problem out_of_bounds, field `after`
 */
function readPlace(text: string, at: string, phases: Phases): UndoPlace {
  try {
    const { lock, ...place } = Place.parse(JSON.parse(Buffer.from(text, 'base64url').toString('utf8')));
    if (place.at === new Date(at).toISOString() && phases.some((phase) => phase === place.phase))
      return { ...place, ...(lock !== undefined && { lock }) };
  } catch {
    // told below
  }
  throw new Problem('out_of_bounds', '`after` is the `next` of an answer about the same moment, as it was given', {
    field: 'after',
  });
}

async function placeOf(
  tx: Transaction,
  target: DeviceTarget,
  { at, after }: { at: string; after: string | undefined },
  phases: Phases,
): Promise<UndoPlace> {
  const place = await beginUndo(tx, target, new Date(at));
  if (!place) throw new Problem('not_found', 'there is no such repository');
  if (after === undefined) return place;
  // Of what came back from a caller only how far it has come is believed, and where it stops: not what the moment was.
  const given = readPlace(after, at, phases);
  return { ...given, since: place.since, through: Math.min(given.through, place.through) };
}

const nameOf = ({ folder, name }: PlainName): string => (folder === '' ? name : `${folder}/${name}`);

const byType = (counted: ReadonlyMap<string, Counted>): Record<string, { files: number; bytes: number }> =>
  Object.fromEntries([...counted].map(([folder, { files, bytes }]) => [typeOfFolder(folder), { files, bytes }]));

function outcomeOf({ shown, damaged, next }: UndoStep) {
  return {
    shown: byType(shown),
    damaged: { files: damaged.files, first: damaged.first.map(nameOf) },
    next: writePlace(next),
  };
}

async function undeleteDaysOf(db: Transaction, { tenant, organizationPath }: DeviceTarget): Promise<number | null> {
  const organization = organizationPath.at(-1)!;
  const settings = await settingsOfMany(db, tenant, [organization], ['restic.undeleteDays']);
  return settings.value(organization, 'restic.undeleteDays');
}

/**
 * What is hidden, by id of file: in the order in which names first came.
 * @throws Problem not_found; conflict when the archive has expired; out_of_bounds, field `after`
 */
export async function listHidden(
  db: Transaction,
  target: DeviceTarget,
  query: z.output<typeof ListHiddenQuery>,
): Promise<z.infer<typeof HiddenPage>> {
  await assertRepository(db, { tenant: target.tenant, guid: target.id });
  await assertShown(db, target);
  const undeleteDays = await undeleteDaysOf(db, target);
  const { type, limit } = query;
  const since = query.since === undefined ? Number.NEGATIVE_INFINITY : Date.parse(query.since);
  const until = query.until === undefined ? Number.POSITIVE_INFINITY : Date.parse(query.until);
  const items: z.infer<typeof HiddenPage>['items'] = [];
  let last = readCursor(query.after);
  for (let looked = 0; looked < hiddenBounds.filesMax; looked += hiddenBounds.batch) {
    const rows = await filesWithPast(db, target, { after: last, limit: hiddenBounds.batch });
    for (const { fileId, folder, name, hidden, hiddenAt, size, addedAt } of rows) {
      const at = hiddenAt.getTime();
      const isWanted =
        hidden &&
        folder !== locksFolder &&
        at >= since &&
        at < until &&
        (type === undefined || type === typeOfFolder(folder));
      if (isWanted && size !== null && addedAt) {
        if (items.length === limit) return { items, next: writeCursor(last) };
        items.push({
          name: nameOf({ folder, name }),
          bytes: size,
          addedAt: addedAt.toISOString(),
          deletedAt: hiddenAt.toISOString(),
          goesAfter: undeleteDays === null ? null : new Date(at + undeleteDays * dayMs).toISOString(),
        });
      }
      last = fileId;
    }
    if (rows.length < hiddenBounds.batch) return { items, next: null };
  }
  return { items, next: writeCursor(last) };
}

interface Asking {
  by: By;
  target: DeviceTarget;
  /** Whoever asks, if they are a user: of what is theirs they need not say why. */
  user: number | null;
}

/** @throws Problem malformed_request, field `reason` */
function assertReason({ target, user }: Asking, reason: string | undefined): void {
  if (reason === undefined && target.user !== user)
    throw new Problem('malformed_request', 'say why: this repository is not your own', { field: 'reason' });
}

/**
 * Undoes deletes: of some files, or all since a moment but locks. What is shown again counts for quotas again, and is never
 * refused for them.
 * @throws Problem not_found; malformed_request (field `reason`); out_of_bounds (field `after`, or `names`: name fewer);
 *   archive_not_active; unavailable (ask again)
 */
export async function undelete(
  tx: Transaction,
  asking: Asking,
  request: z.output<typeof UndeleteRequest>,
): Promise<z.infer<typeof Undeleted>> {
  const { by, target } = asking;
  const { names, since, after, reason } = request;
  assertReason(asking, reason);
  const repository = await lockRepository(tx, { tenant: target.tenant, guid: target.id });
  const done = names
    ? await undoDeletesOf(tx, target, names.map(plainNameOf))
    : await undoDeletesSince(tx, target, { at: since!, after });
  const outcome = outcomeOf(done);
  await record(tx, by, {
    action: 'repository.undelete',
    target: { kind: 'device', id: repository.guid, name: repository.name },
    organization: repository.organization,
    result: 'done',
    details: {
      user: repository.user,
      ...(names ? { names: names.length } : { since: since! }),
      reason: reason ?? null,
      ...actOf(outcome),
    },
  });
  return { ...outcome, gone: done.gone.map(nameOf) };
}

async function undoDeletesSince(
  tx: Transaction,
  target: DeviceTarget,
  asked: { at: string; after: string | undefined },
) {
  const place = await placeOf(tx, target, asked, undoPhases.undelete);
  return { ...(await undoDeletesStep(tx, target, place)), gone: [] };
}

function plainNameOf(text: string): PlainName {
  const [folder, name] = text.split('/');
  return name === undefined ? { folder: '', name: text } : { folder: folder!, name };
}

/** The names stay out of the log: thousands of digests tell nobody anything. */
function actOf({ shown, damaged, next }: ReturnType<typeof outcomeOf>): Record<string, JsonValue> {
  return { shown, damaged: damaged.files, isAll: next === null };
}

interface Standing {
  inUseSince: string | null;
  complete: boolean;
}

/** Whether somebody is at work in the repository, and whether all that was there at the moment still is, shown or hidden. */
async function standingOf(db: Transaction, target: DeviceTarget, to: string): Promise<Standing> {
  const now = await readNow(db);
  const figures = (await readPlainFigures(db, [target])).get(`${target.vault}/${target.archive}`) ?? [];
  const locks = figures.find(({ folder }) => folder === locksFolder);
  const lockedAt = locks && locks.files > 0 ? locks.lastAddedAt : null;
  const inUse = lockedAt && now.getTime() - lockedAt.getTime() < lockMinutes * 60_000;
  const gone = figures.filter(({ folder, goneBefore }) => folder !== locksFolder && goneBefore !== null);
  return {
    inUseSince: inUse ? lockedAt.toISOString() : null,
    // By what has gone, and not by the setting of today, which may have been another one.
    complete: gone.every(({ goneBefore }) => Date.parse(to) >= goneBefore!.getTime()),
  };
}

/** @throws Problem out_of_bounds, field `to` */
async function assertPast(db: Transaction, to: string): Promise<void> {
  if (Date.parse(to) > (await readNow(db)).getTime())
    throw new Problem('out_of_bounds', 'that moment is yet to come', { field: 'to' });
}

/** What setting back would do: a step of it at a time, like the act. Changes nothing. @throws Problem as `setBack` */
export async function trySetBack(
  db: Transaction,
  target: DeviceTarget,
  { to, after, hideNewKeys }: z.output<typeof SetBackQuery>,
): Promise<z.infer<typeof SetBack>> {
  await assertRepository(db, { tenant: target.tenant, guid: target.id });
  await assertShown(db, target);
  await assertPast(db, to);
  const place = await placeOf(db, target, { at: to, after }, undoPhases.setBack);
  const step = await setBackStep(db, target, place, { dryRun: true, hideNewKeys });
  return { ...outcomeOf(step), hidden: byType(step.hidden), ...(await standingOf(db, target, to)) };
}

/**
 * Sets a repository back to a moment: what came later is hidden, what was deleted since is there again, and locks go. Keys that
 * came later stay, unless `hideNewKeys`: whoever has changed the password since may have no other.
 * @throws Problem as `undelete`; out_of_bounds (field `to`); conflict { inUseSince } while a restic program has it locked, unless
 *   `evenIfInUse`; conflict { complete: false } when files of that time are gone, unless `evenIfIncomplete`
 */
export async function setBack(
  tx: Transaction,
  asking: Asking,
  request: z.output<typeof SetBackRequest>,
): Promise<z.infer<typeof SetBack>> {
  const { by, target } = asking;
  const { to, after, reason, hideNewKeys, evenIfInUse, evenIfIncomplete } = request;
  assertReason(asking, reason);
  const repository = await lockRepository(tx, { tenant: target.tenant, guid: target.id });
  await assertPast(tx, to);
  // Under the archive's lock, or a restic could lock the repository between this look at it and the step.
  await lockArchive(tx, target);
  const standing = await standingOf(tx, target, to);
  // At every step: a place says nothing of what was asked before it.
  if (standing.inUseSince && !evenIfInUse)
    throw new Problem('conflict', 'a restic program has this repository locked: end it first, or set evenIfInUse', {
      inUseSince: standing.inUseSince,
    });
  if (!standing.complete && !evenIfIncomplete)
    throw new Problem(
      'conflict',
      'some of what was there then is gone for good: set evenIfIncomplete to have back what there is',
      { complete: false },
    );
  const place = await placeOf(tx, target, { at: to, after }, undoPhases.setBack);
  const step = await setBackStep(tx, target, place, { dryRun: false, hideNewKeys });
  const outcome = { ...outcomeOf(step), hidden: byType(step.hidden) };
  await record(tx, by, {
    action: 'repository.set_back',
    target: { kind: 'device', id: repository.guid, name: repository.name },
    organization: repository.organization,
    result: 'done',
    details: {
      user: repository.user,
      to,
      hideNewKeys,
      reason: reason ?? null,
      ...actOf(outcome),
      hidden: outcome.hidden,
    },
  });
  return { ...outcome, ...standing };
}
