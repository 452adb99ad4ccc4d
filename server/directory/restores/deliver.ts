/**
 * One try of a restore: bytes as they are made, with its row kept true beside them. What must stay true:
 * - the row says `running`, and the log that it began, before a key is opened for it (for an export none is); and how it ended, whatever ended it;
 * - it says `completed` only when every byte was handed on, and only then does the answer end as a whole one;
 * - while it runs it is asked every few seconds whether it was cancelled, on whichever replica, and whether whoever asked
 *   still may: then it stops, also while its reader takes nothing.
 */
import { Problem } from '../../../protocol/problems.ts';
import type { Fence } from '../../../storage/archive/checking/fence.ts';
import type { Transaction } from '../../../storage/catalog/database.ts';
import type { Storage } from '../../../storage/storage.ts';
import { type Assembly, assembleArchive } from '../../restoring/assemble.ts';
import type { Room } from '../../restoring/flow/room.ts';
import { ArchiveBroken, type AssembleReport, type LeftOutReason, leftOutReasons } from '../../restoring/types.ts';
import type { By } from '../audit/act.ts';
import type { Directory } from '../directory.ts';
import type { Allowance } from './allowance.ts';
import { openWay } from './content-way.ts';
import type { RestoreTarget } from './history.ts';
import { keepAsking } from './keep-asking.ts';
import { begin, type Ending, end, type OfAttempt, type Progress, progress } from './requests.ts';
import { type RestoreWithLists, silentMsMax } from './rows.ts';

export interface Delivery {
  storage: Storage;
  directory: Pick<Directory, 'database' | 'keys' | 'signIns'>;
  fence: Pick<Fence, 'isOurBucket'>;
  by: By;
  address: string;
  target: RestoreTarget;
  allowance: Allowance;
  password: string | undefined;
  /** A UUID. */
  attempt: string;
  windowBytes: number;
  /** What the restores of this process share, beside. */
  room?: Room;
  verifyAheadBytes: number;
  /** How often its row, and whether its asker still may, are asked. */
  checkEveryMs: number;
  /** Aborted when whoever fetches it has gone. */
  signal: AbortSignal;
  /** @throws Problem when whoever asked may not any more */
  stillMay: () => Promise<void>;
  /** Breaks the answer off, though its reader may be taking nothing. */
  cut: () => void;
  onFault: (error: unknown) => void;
  /** What else begins with it, in the same transaction. */
  alsoBegins?: (tx: Transaction, row: RestoreWithLists) => Promise<void>;
  /** What else ends with it, in the same transaction. */
  alsoEnds?: (tx: Transaction, state: Ending['state']) => Promise<void>;
  /** Where the bytes go before they are said to be complete; left out: to the reader as they are. */
  through?: (bytes: AsyncIterable<Buffer>) => AsyncIterable<Buffer>;
  /** How long what was made is kept, once it is complete. */
  keptMs?: number;
  /** Why it ended, of one that is aborted. */
  goneBecause?: string;
}

/** Why it was stopped from here. */
class Stopped extends Error {
  override name = 'Stopped';
  readonly state: 'cancelled' | 'refused' | 'broken';

  constructor(state: Stopped['state'], why: string, options?: ErrorOptions) {
    super(why, options);
    this.state = state;
  }
}

const leftOutTold = 100;

/**
 * @throws before the first bytes: Problem conflict, forbidden, malformed_request (field `password`), too_many_requests,
 *   moment_lapsed; afterwards anything, and the answer is to be broken off
 */
export async function* deliver(delivery: Delivery): AsyncGenerator<Buffer> {
  const { directory, storage, by, target, attempt, signal } = delivery;
  const { database } = directory;
  const of: OfAttempt = { tenant: target.tenant, restore: target.restore.id, attempt };
  const { permission } = delivery.allowance;
  const gone = delivery.goneBecause ?? 'whoever fetched it has gone';
  const row = await database.transaction((tx) => begin(tx, by, { ...of, permission }, delivery.alsoBegins));
  const stop = new AbortController();
  let assembly: Assembly | null = null;
  let ending: Pick<Ending, 'state' | 'why'> = { state: 'broken', why: 'it was not begun' };
  let brokeOffAt: Ending['brokeOffAt'] = null;
  const watch = watchOver(delivery, of, stop, () => progressOf(assembly?.report));
  try {
    const way = await openWay(directory, row, {
      by,
      user: target.user,
      vault: target.vault,
      reason: reasonOf(row),
      password: delivery.password,
      address: delivery.address,
    });
    assembly = assembleArchive({
      ...way,
      storage,
      ref: target,
      fence: delivery.fence,
      selection: selectionOf(row),
      windowBytes: delivery.windowBytes,
      ...(delivery.room && { room: delivery.room }),
      verifyAheadBytes: delivery.verifyAheadBytes,
      signal: AbortSignal.any([signal, stop.signal]),
    });
    // Until the end is reached: whoever reads may just not come back for more.
    ending = { state: 'broken', why: 'whoever fetched it took no more of it' };
    const made = assembly.bytes as AsyncIterable<Buffer>;
    yield* delivery.through?.(made) ?? made;
    ending = { state: 'completed', why: null };
  } catch (error) {
    ending = endingOf(error, signal, gone);
    if (error instanceof ArchiveBroken) brokeOffAt = { path: error.path.toString('base64url'), reason: error.reason };
    // What was under way ends with whatever error it has when it is stopped.
    throw toldOf(stop.signal.aborted ? stop.signal.reason : error);
  } finally {
    watch.end();
    if (stop.signal.reason instanceof Stopped)
      ending = { state: stop.signal.reason.state, why: stop.signal.reason.message };
    else if (signal.aborted && ending.state !== 'completed' && brokeOffAt === null)
      ending = { state: 'broken', why: gone };
    const report = assembly?.report;
    const told: Ending = {
      ...ending,
      progress: progressOf(report),
      // What may have been deleted anyway comes behind what was there.
      leftOutFirst: (report?.leftOut ?? [])
        .toSorted((a, b) => Number(a.reason === 'version_thinned') - Number(b.reason === 'version_thinned'))
        .slice(0, leftOutTold)
        .map(({ path, reason }) => ({ path: path.toString('base64url'), reason })),
      brokeOffAt,
      leaseMs: (ending.state === 'completed' ? delivery.keptMs : undefined) ?? storage.settings.restoreLeaseMs,
    };
    await writeEnd(delivery, of, told);
  }
}

/** An answer whose end nobody wrote down as one must not look whole; of another the first fault is the one to tell. */
async function writeEnd({ directory, by, onFault, alsoEnds }: Delivery, of: OfAttempt, told: Ending): Promise<void> {
  const ended = directory.database.transaction((tx) => end(tx, by, of, told, alsoEnds));
  if (told.state !== 'completed') return void (await ended.catch(onFault));
  const state = await ended;
  if (state !== 'completed') throw new Problem('conflict', 'this restore was cancelled, or begun anew', { state });
}

function watchOver(
  { directory: { database }, checkEveryMs, stillMay, cut, onFault }: Delivery,
  of: OfAttempt,
  stop: AbortController,
  done: () => Progress,
): { end: () => void } {
  return keepAsking({
    everyMs: checkEveryMs,
    // From then on somebody else may begin it, for it counts as silent.
    unaskedMsMax: silentMsMax / 2,
    async ask() {
      const state = await progress(database, of, done());
      if (state === 'cancelled') return new Stopped('cancelled', 'it was cancelled');
      if (state !== null) return new Stopped('broken', 'it was begun anew elsewhere');
      await stillMay();
      return null;
    },
    refused: ({ message }) => new Stopped('refused', `whoever asked may not any more: ${message}`),
    unasked: (why) => new Stopped('broken', why),
    stop,
    cut,
    onFault,
  });
}

/** What an answer of which nothing was sent yet becomes. */
function toldOf(error: unknown): unknown {
  if (error instanceof Stopped)
    return new Problem(error.state === 'refused' ? 'forbidden' : 'conflict', error.message, { state: error.state });
  if (error instanceof ArchiveBroken)
    return new Problem(
      'conflict',
      `${error.message}: fetch it again, and it is left out`,
      { state: 'broken' },
      { cause: error },
    );
  return error;
}

function endingOf(error: unknown, signal: AbortSignal, gone: string): Pick<Ending, 'state' | 'why'> {
  if (error instanceof ArchiveBroken) return { state: 'broken', why: error.message };
  if (error instanceof Problem)
    return { state: error.code === 'moment_lapsed' ? 'lapsed' : 'broken', why: error.message };
  if (signal.aborted) return { state: 'broken', why: gone };
  return { state: 'broken', why: 'something went wrong inside the server' };
}

function progressOf(report: AssembleReport | undefined): Progress {
  const { files = 0, bytes = 0, leftOut = 0 } = report?.counts ?? {};
  return { files, bytes, leftOut, sentBytes: report?.archiveBytes ?? 0 };
}

function selectionOf(row: RestoreWithLists) {
  return {
    paths: row.paths.map((path) => Buffer.from(path, 'base64url')),
    seq: row.seq,
    deleted: row.deleted,
    leaveOut: row.leaveOut.flatMap(({ path, reason }) =>
      isReason(reason) ? [{ path: Buffer.from(path, 'base64url'), reason }] : [],
    ),
  };
}

const isReason = (reason: string): reason is LeftOutReason => Object.hasOwn(leftOutReasons, reason);

const reasonMax = 500;

/** For the log of keys: which restore it is, and why there is one. */
function reasonOf({ id, reason }: RestoreWithLists): string {
  return `restore ${id} to a browser: ${reason ?? 'of their own files'}`.slice(0, reasonMax).toWellFormed();
}
