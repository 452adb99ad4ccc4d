/**
 * Gives what is staged to whoever may have it: any range, as often as they want. What must stay true:
 * - the first fetch from an address, by a link or signed in, is an act, before its first byte;
 * - every few seconds it is asked whether it is still there, the link has not ended, and they still may; else it ends, also while
 *   its reader takes nothing;
 * - what does not open breaks the answer off, and is made anew.
 */
import { Problem } from '../../../../protocol/problems.ts';
import type { Fence } from '../../../../storage/archive/checking/fence.ts';
import type { Storage } from '../../../../storage/storage.ts';
import type { Room } from '../../../restoring/flow/room.ts';
import { StagedDamaged } from '../../../restoring/staging/frames.ts';
import { readParts } from '../../../restoring/staging/read-parts.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import type { RestoreTarget } from '../history.ts';
import { keepAsking } from '../keep-asking.ts';
import { requireOpenable } from '../keyring.ts';
import { actOf } from '../requests.ts';
import { formatOf, lockRestoreRow, percentOf, type RestoreWithLists, readRestoreRow, silentMsMax } from '../rows.ts';
import { openStagedKey } from './keys.ts';
import {
  addFetchedBytes,
  breakStaged,
  hasFetched,
  noteFetch,
  readLinked,
  readLiveStaged,
  setStageTries,
} from './rows.ts';
import { stageTriesMax } from './stage-due.ts';

/** Addresses that fetch one archive, signed in; and as many by links to it. */
const fetchersMax = 1_000;

export interface FetchStaged {
  storage: Storage;
  directory: Pick<Directory, 'database' | 'keys'>;
  fence: Pick<Fence, 'isOurBucket'>;
  by: By;
  address: string;
  target: RestoreTarget;
  /** Of the link, in seconds since 1970; 0: signed in. */
  linkEnds: number;
  checkEveryMs: number;
  /** How long it goes on when nobody can be asked. Left out: as long as what is streamed. */
  unaskedMsMax?: number;
  /** What the downloads and restores of this process share of memory. */
  room: Room;
  signal: AbortSignal;
  /** @throws Problem when they may not any more */
  stillMay: () => Promise<void>;
  /** Breaks the answer off. */
  cut: () => void;
  onFault: (error: unknown) => void;
}

export interface Staged {
  /** Strong: the bytes are those of one try. */
  etag: string;
  length: number;
  read(range: { offset: number; length: number }): AsyncIterable<Buffer>;
}

/** @throws Problem conflict with how far it is, while there is nothing to fetch; unavailable */
export async function openStaged(asked: FetchStaged): Promise<Staged> {
  const { directory, target } = asked;
  const row = target.restore;
  const of = { tenant: row.tenant, restore: row.id };
  const staged = row.state === 'completed' ? await readLiveStaged(directory.database, of) : null;
  if (staged?.state !== 'ready' || !staged.keyRecord) throw notToFetch(row);
  const { attempt, partFrames } = staged;
  const length = staged.length!;
  const secret = await openStagedKey(directory.keys, attempt, staged.keyRecord);
  return {
    etag: `"${attempt}-${length}"`,
    length,
    read: (range) => fetch(asked, { id: staged.id, attempt, partFrames, length, secret }, range),
  };
}

/** While it is made: how far it is, and when to ask again. */
function notToFetch(row: RestoreWithLists): Problem {
  const { state, stagesItself } = row;
  const percent = percentOf(row);
  const soon = { state, percent, retryAfterSeconds: 5 };
  if (state === 'running') return new Problem('conflict', `this restore is being staged: ${percent} %`, soon);
  if (stagesItself && (state === 'planned' || state === 'broken'))
    return new Problem('conflict', 'this restore waits for a worker to stage it', soon);
  if (state === 'planned' || state === 'broken' || state === 'refused')
    return new Problem('conflict', 'this restore is not staged: begin it with POST /stage', { state });
  if (state === 'completed') return new Problem('conflict', 'what was staged is gone: plan another restore', { state });
  return new Problem(
    'conflict',
    `this restore ${state === 'cancelled' ? 'was cancelled' : 'has expired'}: plan another`,
    {
      state,
    },
  );
}

interface Opened {
  id: number;
  attempt: string;
  partFrames: number;
  length: number;
  secret: Buffer;
}

async function* fetch(
  asked: FetchStaged,
  staged: Opened,
  range: { offset: number; length: number },
): AsyncGenerator<Buffer> {
  const { storage, directory, target } = asked;
  const of = { tenant: target.tenant, restore: target.restore.id };
  await noteFirst(asked, staged.id);
  const stop = new AbortController();
  const sent = { bytes: 0, told: 0 };
  const tell = async (): Promise<void> => {
    const bytes = sent.bytes - sent.told;
    if (bytes === 0) return;
    sent.told += bytes;
    try {
      await addFetchedBytes(directory.database, of, bytes);
    } catch (error) {
      sent.told -= bytes; // the next time, then
      throw error;
    }
  };
  const watch = watchOver(asked, staged.attempt, stop, tell);
  const { attempt, partFrames, length, secret } = staged;
  const signal = AbortSignal.any([asked.signal, stop.signal]);
  const place = { catalogId: storage.catalogId, restore: of.restore, attempt };
  try {
    const { room } = asked;
    const parts = readParts({ ...place, objects: storage.objects, secret, length, partFrames, signal, room }, range);
    for await (const bytes of parts) {
      yield bytes;
      sent.bytes += bytes.byteLength;
      signal.throwIfAborted();
    }
  } catch (error) {
    if (error instanceof StagedDamaged && (await asked.fence.isOurBucket())) await tellDamaged(asked, attempt, error);
    throw error;
  } finally {
    watch.end();
    await tell().catch(asked.onFault);
  }
}

/** @throws Problem too_many_requests */
async function noteFirst({ directory: { database }, target, by, address, linkEnds }: FetchStaged, id: number) {
  const fetch = { staged: id, tenant: target.tenant, linkEnds, address };
  if (await hasFetched(database, fetch)) return;
  const noted = await database.transaction(async (tx) => {
    const noted = await noteFetch(tx, fetch, fetchersMax);
    const link = linkEnds === 0 ? null : new Date(linkEnds * 1_000).toISOString();
    const { format, seq } = target.restore;
    if (noted === 'first') await record(tx, by, actOf('restore.fetch', target.restore, 'done', { format, seq, link }));
    return noted;
  });
  if (noted === 'full')
    throw new Problem('too_many_requests', 'this restore was fetched from too many addresses: plan another');
}

function watchOver(
  {
    directory: { database },
    target,
    linkEnds,
    checkEveryMs,
    unaskedMsMax = silentMsMax / 2,
    stillMay,
    cut,
    onFault,
  }: FetchStaged,
  attempt: string,
  stop: AbortController,
  tell: () => Promise<void>,
): { end: () => void } {
  const of = { tenant: target.tenant, restore: target.restore.id };
  return keepAsking({
    everyMs: checkEveryMs,
    // As what is streamed: nobody is to take on unasked for what may have been taken away from them.
    unaskedMsMax,
    async ask() {
      const row = await readRestoreRow(database, of);
      if (row?.state !== 'completed' || row.stagedAttempt !== attempt)
        return new Problem('conflict', 'this restore was cancelled, or has expired');
      if (linkEnds > 0 && !(await readLinked(database, of.restore, linkEnds)))
        return new Problem('not_found', 'the link to this restore has ended');
      await stillMay();
      await tell().catch(onFault); // what could not be counted is no question that nobody has answered
      return null;
    },
    refused: (problem) => problem,
    unasked: (why) => new Error(why),
    stop,
    cut,
    onFault,
  });
}

/** What was staged is dead; a worker makes it anew where it can. Whoever comes first says so. */
async function tellDamaged({ storage, directory, target, by }: FetchStaged, attempt: string, error: Error) {
  const of = { tenant: target.tenant, restore: target.restore.id };
  const level = await requireOpenable(directory.database, target.vault, formatOf(target.restore)).catch(() => null);
  await directory.database.transaction(async (tx) => {
    const row = await lockRestoreRow(tx, of);
    if (row?.state !== 'completed' || row.stagedAttempt !== attempt) return;
    const why = `what was staged is damaged in the store: ${error.message}`;
    await breakStaged(tx, of, why, storage.settings.restoreLeaseMs);
    await setStageTries(tx, of, stagesItself(level, row) ? stageTriesMax : 0);
    await record(tx, by, actOf('restore.end', row, 'failed', { state: 'broken', why }));
  });
}

/** Whether a worker can make it: not what needs a password. An export is of sealed bytes. */
export function stagesItself(level: string | null, { format }: Pick<RestoreWithLists, 'format'>): boolean {
  return level === 'standard' || format === 'export';
}
