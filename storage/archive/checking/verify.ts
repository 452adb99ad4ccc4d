/**
 * Reads every object whole, again and again, and marks the blocks whose bytes are not theirs any more: from then on a
 * claim answers "send it", and the next backup that has the data heals them. A marked block whose bytes turn out to be its
 * own is well again.
 *
 * What must stay true: a block is marked only after a complete read of the place where its row says it lies, or after
 * the store said twice that the object is not there and showed the fence object all the same; and none is marked when
 * a batch looks worse than bit rot explains, until a person has looked. So a wrong bucket, an expired key or a broken
 * connection mark nothing.
 */
import { hasOpenAlert, raiseAlert } from '../../catalog/checking/alerts.ts';
import {
  type ObjectToRead,
  objectsToVerify,
  readNow,
  setRewrite,
  setVerified,
  vaultsToVerify,
  wasReviewedSince,
} from '../../catalog/checking/checking.ts';
import { markBlocksDamaged, unmarkBlocks } from '../../catalog/checking/mark-damaged.ts';
import type { PlacedBlock } from '../../catalog/deleting/compacting.ts';
import type { Storage } from '../../storage.ts';
import { BytePace, type PaceClock, systemPaceClock } from './byte-pace.ts';
import { findDamageUsers } from './damage.ts';
import type { Fence } from './fence.ts';
import { type Finding, readWholeObject } from './verify-object.ts';

export interface VerifyOptions {
  /** Read at most this many bytes a second. */
  bytesPerSecond: number;
  /** An object is read again after this long. */
  everyMs: number;
  signal?: AbortSignal;
  /** Told after each batch how far the pass has come. */
  onProgress?: (soFar: VerifyResult) => void;
  /** Where this pass begins is left to chance (0 to 1), so that passes that are cut short reach every vault. */
  random?: () => number;
  clock?: PaceClock;
  /** A pass ends after about this long; the next goes on. Default 10 min. */
  passMs?: number;
}

export type VerifyResult = {
  /** Objects and bytes read whole. */
  objects: number;
  bytes: number;
  /** Blocks marked now. */
  damagedBlocks: number;
  /** Objects whose footer is damaged: they are to be written anew. */
  damagedFooters: number;
  /** Objects that could not be read this time: no finding, and tried again. */
  unreadable: number;
  /** 1: too much looked damaged, so nothing of it was marked, and an alert says so. */
  stopped: number;
};

/** Objects of one vault that are judged together. */
const batchObjects = 64;
const vaultsPage = 100;
/** More than these two look like something else than bit rot. */
const damagedShareMax = 0.01;
const damagedBlocksMax = 8;
/** When so many objects in a row of one vault cannot be read, the store is in trouble. */
const unreadableMax = 16;
/** For how long "go on", said by reviewing the alert, is an answer for the vault. */
const goOnForMs = 7 * 24 * 3_600_000;

/** Whether so much damage can be bit rot. */
export function isPlausible(damaged: number, blocks: number): boolean {
  return damaged <= damagedBlocksMax || damaged <= blocks * damagedShareMax;
}

/** Reads what is due, at the rate given, until nothing is due or the pass is over. */
export async function verifyDue(storage: Storage, fence: Fence, options: VerifyOptions): Promise<VerifyResult> {
  const clock = options.clock ?? systemPaceClock;
  const total = { objects: 0, bytes: 0, damagedBlocks: 0, damagedFooters: 0, unreadable: 0, stopped: 0 };
  const pass: Pass = {
    since: new Date((await readNow(storage.database)).getTime() - options.everyMs),
    pace: new BytePace(options.bytesPerSecond, clock),
    isOver: () => options.signal?.aborted === true || clock.nowMs() > endsAtMs,
    signal: options.signal,
    unread: new Map(),
  };
  const endsAtMs = clock.nowMs() + (options.passMs ?? 600_000);
  // A batch of each vault in turn: a large one does not keep the others waiting.
  for (let due = await dueVaults(storage, pass, options.random); due.length > 0 && !pass.isOver(); ) {
    const next: number[] = [];
    for (const vault of due) {
      if (pass.isOver()) break;
      const done = await verifyBatch(storage, fence, vault, pass);
      for (const key of Object.keys(total) as (keyof VerifyResult)[]) total[key] += done[key];
      options.onProgress?.(total);
      if (done.stopped) return total;
      if (done.hasMore) next.push(vault);
    }
    due = next;
  }
  if (total.damagedBlocks > 0) await findDamageUsers(storage, options.signal ? { signal: options.signal } : {});
  return total;
}

interface Pass {
  /** What was read after this moment is not due. Fixed for the pass, so that it ends. */
  since: Date;
  pace: BytePace;
  isOver(): boolean;
  signal: AbortSignal | undefined;
  /** By vault, the objects that could not be read in this pass. */
  unread: Map<number, Set<number>>;
}

/** All vaults with work, beginning anywhere, without those where a person has to look first. */
async function dueVaults(storage: Storage, pass: Pass, random: () => number = Math.random): Promise<number[]> {
  const vaults: number[] = [];
  for (let after = 0; !pass.isOver(); ) {
    const page = await vaultsToVerify(storage.database, { after, since: pass.since, limit: vaultsPage });
    for (const vault of page)
      if (!(await hasOpenAlert(storage.database, { vault, kind: 'verify_suspicious' }))) vaults.push(vault);
    if (page.length < vaultsPage) break;
    after = page.at(-1)!;
  }
  const start = Math.floor(random() * vaults.length);
  return [...vaults.slice(start), ...vaults.slice(0, start)];
}

async function verifyBatch(
  storage: Storage,
  fence: Fence,
  vault: number,
  pass: Pass,
): Promise<VerifyResult & { hasMore: boolean }> {
  const unread = pass.unread.get(vault) ?? new Set();
  pass.unread.set(vault, unread);
  const choice = { since: pass.since, except: unread, limit: batchObjects };
  const objects = await objectsToVerify(storage.database, vault, choice);
  const read: { object: ObjectToRead; finding: Finding }[] = [];
  let unreadable = 0;
  for (const object of objects) {
    if (pass.isOver() || unread.size >= unreadableMax) break;
    const finding = await readWholeObject(storage, fence, vault, object, pass.pace, pass.signal);
    if (finding) read.push({ object, finding });
    else if (!pass.signal?.aborted) {
      unread.add(object.objectId);
      unreadable++;
    }
  }
  const bad = read.flatMap(({ finding }) => finding.bad);
  const blocks = read.reduce((sum, { finding }) => sum + finding.blocks, 0);
  const bytes = read.reduce((sum, { finding }) => sum + finding.bytes, 0);
  const base = { objects: read.length, bytes, damagedBlocks: 0, damagedFooters: 0, unreadable, stopped: 0 };
  if (!isPlausible(bad.length, blocks) && !(await mayGoOn(storage, vault))) {
    await tellSuspicious(storage, vault, { damaged: bad.length, blocks, objects: read.length });
    return { ...base, objects: 0, bytes: 0, stopped: 1, hasMore: false };
  }
  const footers = read.filter(({ finding }) => finding.footerDamaged).map(({ object }) => object);
  const well = read.flatMap(({ finding }) => finding.well);
  const marked = await record(storage, vault, { bad, well, footers, read: read.map(({ object }) => object) });
  const hasMore = objects.length === batchObjects && unread.size < unreadableMax;
  return { ...base, damagedBlocks: marked, damagedFooters: footers.length, hasMore };
}

/** Lock order: blocks by hash, then objects by id. @returns blocks marked: those that have moved since are well */
async function record(
  storage: Storage,
  vault: number,
  found: {
    bad: readonly PlacedBlock[];
    well: readonly PlacedBlock[];
    footers: readonly ObjectToRead[];
    read: readonly ObjectToRead[];
  },
): Promise<number> {
  const ids = (objects: readonly ObjectToRead[]): number[] =>
    objects.map((object) => object.objectId).sort((a, b) => a - b);
  if (found.well.length > 0) await storage.database.transaction((tx) => unmarkBlocks(tx, vault, found.well));
  return storage.database.transaction(async (tx) => {
    const marked = found.bad.length > 0 ? (await markBlocksDamaged(tx, vault, found.bad)).length : 0;
    await setVerified(tx, vault, ids(found.read));
    await setRewrite(tx, vault, ids(found.footers));
    return marked;
  });
}

/** A person has reviewed the alert about this vault lately, and that means: mark it. */
export function mayGoOn(storage: Storage, vault: number): Promise<boolean> {
  return wasReviewedSince(storage.database, { vault, kind: 'verify_suspicious' }, goOnForMs);
}

export async function tellSuspicious(storage: Storage, vault: number, found: Record<string, number>): Promise<void> {
  await raiseAlert(storage.database, { vault, kind: 'verify_suspicious', details: found });
}
