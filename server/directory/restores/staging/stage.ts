/**
 * One try of staging: the archive is assembled as for a browser, and goes sealed into the bucket in parts. What must stay true:
 * - room is reserved, and the key of the parts is in the row, before the first of them is stored;
 * - the restore is `completed`, and what is staged `ready`, in one transaction, after the last is;
 * - of two that begin the same one is refused by its row; what the other had stored before is dead, and its key gone.
 * Whoever asked is asked for anew when it begins and while it goes on: there is no session here.
 *
 * Lock order: the restore's row, what its asker is charged with, the room among staged archives and their rows, the head of the
 * audit log.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { Problem } from '../../../../protocol/problems.ts';
import type { Fence } from '../../../../storage/archive/checking/fence.ts';
import type { Storage } from '../../../../storage/storage.ts';
import type { Room } from '../../../restoring/flow/room.ts';
import { partFramesDefault, stagingKeyBytes } from '../../../restoring/staging/frames.ts';
import { type StoredParts, storeParts } from '../../../restoring/staging/store-parts.ts';
import { verifyAheadBytes } from '../../../restoring/types.ts';
import type { Directory } from '../../directory.ts';
import { forCaller } from '../../keys/key-service.ts';
import { assertWithin } from '../allowance.ts';
import { allowedOf } from '../allowed.ts';
import { deliver } from '../deliver.ts';
import { findRestoreTarget } from '../history.ts';
import { assertToBegin, noSuchRestore } from '../requests.ts';
import type { OfRestore, RestoreRow } from '../rows.ts';
import { type Asker, countedFor } from '../thresholds/askers.ts';
import { type AskedBy, askerNow, byAsker } from './asker.ts';
import { stagedKeyContext } from './keys.ts';
import { assertRoom, freeBytesOf, mostFor, NoRoom, reservedFor, type StagingBounds } from './room.ts';
import {
  endStagedAttempt,
  hearOfStaged,
  insertStaged,
  lockStagingRoom,
  readyStaged,
  reserveStaged,
  setStageBytes,
  setStageTries,
  stageLater,
  takeStageTry,
} from './rows.ts';

export interface StagingSettings extends StagingBounds {
  /** How long what is staged is kept. */
  keptMs: number;
  windowBytes: number;
  /** How often its row, and whether its asker still may, are asked. */
  checkEveryMs: number;
  partFrames?: number;
}

export interface StagingParts {
  storage: Storage;
  directory: Pick<Directory, 'database' | 'keys' | 'signIns'>;
  fence: Pick<Fence, 'isOurBucket'>;
  settings: StagingSettings;
  /** What it shares memory with others in; left out: it has its window to itself. */
  room?: Room;
  onFault: (error: unknown) => void;
}

export interface StageTry extends OfRestore {
  asker: AskedBy;
  password?: string | undefined;
  /** Where guesses of the password are counted, and whoever gave it asked from. */
  address: string;
  signal: AbortSignal;
  /** Told when the keys are open and the first bytes are made. */
  onBegun?: () => void;
}

/** How soon after a try that ended another begins. */
export const stageAgainMs = 10_000;
/** What room is reserved in beyond the plan, when there is more than it said. */
const moreBytes = 16 * 1024 * 1024;

/** @throws what stopped it: when the try had begun, its row says the same */
export async function stage(parts: StagingParts, asked: StageTry): Promise<void> {
  const { storage, directory, settings, fence } = parts;
  const { asker, signal } = asked;
  const { actor, name } = await askerNow(directory.database, asker);
  const target = await findRestoreTarget(directory.database, actor, asked.restore);
  if (!target || target.tenant !== asked.tenant) throw noSuchRestore();
  const by = byAsker(asker, name, asked.password === undefined ? null : asked.address);
  assertStaged(target.restore);
  assertToBegin(target.restore, by);
  const allowance = await allowedOf(parts, actor, target);
  assertWithin(allowance, target.restore.plannedBytes);

  const attempt = randomUUID();
  const secret = randomBytes(stagingKeyBytes);
  const keyRecord = await forCaller(directory.keys.seal(secret, stagedKeyContext(attempt)));
  const freeBytes = await freeBytesOf(storage.objects);
  const reserved = { bytes: Math.max(reservedFor(target.restore), target.restore.stageBytes), freeBytes };
  const counted = await countedFor(directory.database, by);
  // What it came to when there was no room for more of it.
  let short: { wanted: number; isNever: boolean } | null = null;
  const stop = new AbortController();
  let stored: StoredParts | null = null;
  const bytes = deliver({
    ...{ storage, directory, fence, by, target, allowance, attempt },
    address: asked.address,
    password: asked.password,
    windowBytes: settings.windowBytes,
    ...(parts.room && { room: parts.room }),
    verifyAheadBytes: Math.min(verifyAheadBytes, Math.floor(settings.windowBytes / 2)),
    checkEveryMs: settings.checkEveryMs,
    signal: AbortSignal.any([signal, stop.signal]),
    goneBecause: 'the server that made it stopped',
    keptMs: settings.keptMs,
    onFault: parts.onFault,
    cut: () => stop.abort(),
    async stillMay() {
      const now = await askerNow(directory.database, asker);
      await allowedOf(parts, now.actor, target);
    },
    async alsoBegins(tx, row) {
      const room = await lockStagingRoom(tx, counted);
      assertRoom(room, reserved.bytes, { ...settings, freeBytes });
      const { tenant, user, id: restore } = row;
      const made = { tenant, user, restore, asker: counted, attempt, keyRecord };
      const partFrames = settings.partFrames ?? partFramesDefault;
      await insertStaged(tx, { ...made, reservedBytes: reserved.bytes, partFrames });
      await takeStageTry(tx, asked);
    },
    async alsoEnds(tx, state) {
      if (state === 'completed') {
        // Somebody took it for dead: so it is, and the try with it.
        if (!stored || !(await readyStaged(tx, attempt, stored))) throw new Error('what was staged is gone');
        return setStageTries(tx, asked, 0);
      }
      await endStagedAttempt(tx, attempt);
      if (state !== 'broken' || short?.isNever) return setStageTries(tx, asked, 0);
      // The next begins when there is room for all that this one came to.
      if (short) await setStageBytes(tx, asked, short.wanted);
      // A server that stops is no fault of what it made.
      await stageLater(tx, asked, signal.aborted ? { afterMs: 0, tries: 1 } : { afterMs: stageAgainMs, tries: 0 });
    },
    // What is stored is not handed on.
    async *through(made) {
      stored = await storeParts(begun(made, asked.onBegun), {
        ...{ objects: storage.objects, catalogId: storage.catalogId, restore: asked.restore, attempt, secret },
        ...(settings.partFrames !== undefined && { partFrames: settings.partFrames }),
        signal: AbortSignal.any([signal, stop.signal]),
        mayStore: (storedBytes) =>
          keepRoom(parts, { counted, attempt, reserved }, storedBytes).catch((error: unknown) => {
            if (error instanceof NoRoom)
              short = { wanted: wantedFor(storedBytes, settings), isNever: error.code === 'conflict' };
            throw error;
          }),
      });
    },
  });
  for await (const _ of bytes);
}

/** @throws Problem conflict */
export function assertStaged({ kind }: Pick<RestoreRow, 'kind'>): void {
  if (kind !== 'staged') throw new Problem('conflict', `this restore is ${kind}, and not staged`, { kind });
}

async function* begun(made: AsyncIterable<Buffer>, tell: (() => void) | undefined): AsyncGenerator<Buffer> {
  let isFirst = true;
  for await (const bytes of made) {
    if (isFirst) tell?.();
    isFirst = false;
    yield bytes;
  }
}

/** What to reserve for an archive that has come to so much: some more, as long as it may come to that. */
const wantedFor = (storedBytes: number, bounds: StagingBounds): number =>
  Math.max(storedBytes, Math.min(storedBytes + moreBytes, mostFor(bounds)));

interface Reserving {
  counted: Asker;
  attempt: string;
  reserved: { bytes: number; freeBytes: number | null };
}

/** Before each part: what is reserved is enough for it, and nobody took the try for dead. @throws NoRoom */
async function keepRoom(
  { directory: { database }, settings }: StagingParts,
  { counted, attempt, reserved }: Reserving,
  storedBytes: number,
): Promise<void> {
  // Cancelled on another replica, for one: its watch says so a moment later.
  const gone = () => new Problem('conflict', 'somebody took this try for dead');
  if (storedBytes > reserved.bytes) {
    const wanted = wantedFor(storedBytes, settings);
    await database.transaction(async (tx) => {
      const room = await lockStagingRoom(tx, counted);
      const { freeBytes } = reserved;
      assertRoom(room, wanted - reserved.bytes, { ...settings, freeBytes, heldBytes: reserved.bytes });
      if (!(await reserveStaged(tx, attempt, wanted))) throw gone();
    });
    reserved.bytes = wanted;
  }
  if (!(await hearOfStaged(database, attempt, storedBytes))) throw gone();
}
