/**
 * Undoing in plain archives: files that were deleted are shown again, or a whole archive is set back to how it was at a moment:
 * what was there then is shown, what came later is hidden. Nothing goes by it, so it can be undone itself.
 *
 * What is to be is decided from what the files were and are (pure: `asOfThen`, `shownAgain`), read under the archive's lock
 * and done in the same transaction (commit-plain.ts). So a file that somebody puts or hides at the same time is decided
 * either before that or after it, and of what is so already nothing is done: each step may be repeated. Steps are bounded; the
 * place where one ends is what the next begins with. A file that changed after the first one began (`through`) is left as
 * whoever changed it left it; it may have been a step, which then has done all there was to do.
 *
 * All that is to be shown is shown before anything is hidden: between two steps there is rather too much than too little.
 *
 * Lock order: the archive, then its blocks by hash, in one call, and its figures, as any commit of it (commit-plain.ts).
 */
import assert from 'node:assert/strict';
import { hashAt, hashCount, hashKey, joinHashes, splitHashes } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import { Problem } from '../../../protocol/problems.ts';
import type { Transaction } from '../../catalog/database.ts';
import {
  type ChangedFile,
  filesChangedSince,
  type HeldContent,
  plainFilesOf,
  type VersionKey,
} from '../../catalog/reading/plain-history.ts';
import { findMoment } from '../../catalog/reading/reading.ts';
import { findMissingBlocks, lockArchive } from '../../catalog/writing/commits.ts';
import { findPlainFolder, listPlainNames, type PlainName } from '../../catalog/writing/plain-files.ts';
import type { ArchiveRef } from '../../storage.ts';
import { commitPlain, type PlainChange, plainChangesMax } from './commit-plain.ts';

/** The folder whose files are of no use to anybody once they are deleted. */
export const locksFolder = 'locks';
/** The folder of what a repository's passwords open. */
const keysFolder = 'keys';

export const undoBounds = {
  /** Files changed in one step: one transaction. */
  filesMax: plainChangesMax,
  /** Versions looked at in one statement, and in one step. */
  pageVersions: 2_000,
  stepVersions: 40_000,
  /** Files that are told by name, of those left out. */
  namesToldMax: 100,
};

/** `show`: what was deleted; `hide`: what came later; `locks`: those that are there now. */
type UndoPhase = 'show' | 'hide' | 'locks';

/** What each does, in this order. No step does another's: it was not asked what another asks. */
export const undoPhases = {
  setBack: ['show', 'hide', 'locks'],
  undelete: ['show'],
} as const satisfies Record<string, readonly UndoPhase[]>;

/** Where to go on. */
export interface UndoPlace {
  phase: UndoPhase;
  /** The moment, as a time (ISO) and as the last seq then. */
  at: string;
  since: number;
  /** The last seq when the first step began. */
  through: number;
  after: VersionKey;
  /** Of locks the name behind which to go on; left out: from the first. */
  lock?: string;
}

export interface Counted {
  files: number;
  bytes: number;
}

export interface UndoStep {
  /** By folder, '' at the top. */
  shown: Map<string, Counted>;
  hidden: Map<string, Counted>;
  /** Whose content is damaged or gone, so that they cannot be shown. */
  damaged: { files: number; first: PlainName[] };
  /** Null: that was all. */
  next: UndoPlace | null;
}

/** The place to begin with. @returns null when there is no such archive */
export async function beginUndo(tx: Transaction, ref: ArchiveRef, at: Date): Promise<UndoPlace | null> {
  const then = await findMoment(tx, ref, at);
  const newest = await findMoment(tx, ref, null);
  if (!then || !newest) return null;
  // What is behind the moment's seq was committed later than the moment.
  return {
    phase: 'show',
    at: at.toISOString(),
    since: then.seq,
    through: newest.seq,
    after: firstBehind(at.toISOString()),
  };
}

const firstBehind = (at: string): VersionKey => ({ committedAt: at, seq: 0 });

/**
 * What a file has to become to be as it was then; null: nothing. What lies at the top (a configuration) is never taken away,
 * but one that was put in its place since gives way to it. Nor is a key, unless that is asked for: whoever has changed the
 * password since, and has only the new one, would be locked out. Keys that were deleted are shown again.
 */
function asOfThen(
  { folder, name, past, isThere, held }: ChangedFile,
  { hideNewKeys = false }: { hideNewKeys?: boolean } = {},
): PlainChange | null {
  const file = { folder, name };
  if (folder === locksFolder || (folder === keysFolder && !past && !hideNewKeys)) return null;
  if (!past) return isThere && folder !== '' ? { file, content: null } : null;
  return isThere && isSame(past, held) ? null : { file, content: past };
}

/** The same for a file whose deletion is undone. */
function shownAgain({
  folder,
  name,
  isThere,
  held,
}: Pick<ChangedFile, 'folder' | 'name' | 'isThere' | 'held'>): PlainChange | null {
  return folder === locksFolder || isThere || !held ? null : { file: { folder, name }, content: held };
}

const nothing = Buffer.alloc(0);

const isSame = (a: HeldContent, b: HeldContent | null): boolean =>
  b !== null && a.size === b.size && a.blocks.equals(b.blocks);

/** How a file's change is decided. */
type Decide = (file: ChangedFile) => PlainChange | null;

/**
 * One step of setting an archive back.
 * @param options.dryRun only counts what it would do, and takes no lock
 * @param options.hideNewKeys also hides keys that came later
 * @throws Problem as commitPlain
 */
export function setBackStep(
  tx: Transaction,
  ref: ArchiveRef,
  place: UndoPlace,
  { dryRun, hideNewKeys = false }: { dryRun: boolean; hideNewKeys?: boolean },
): Promise<UndoStep> {
  const decide = (file: ChangedFile): PlainChange | null => asOfThen(file, { hideNewKeys });
  return step(tx, ref, place, { decide, phases: undoPhases.setBack, dryRun });
}

/** One step of undoing all deletes since a moment. @throws Problem as commitPlain */
export function undoDeletesStep(tx: Transaction, ref: ArchiveRef, place: UndoPlace): Promise<UndoStep> {
  return step(tx, ref, place, { decide: shownAgain, phases: undoPhases.undelete, dryRun: false });
}

/**
 * Undoes the deletes of some files, of which those that are there stay as they are.
 * @param files at most `undoBounds.filesMax`, each once
 * @returns also those that never were, or of which nothing is left
 * @throws Problem out_of_bounds, field `names`, when their content is of more blocks than a commit names; as commitPlain
 */
export async function undoDeletesOf(
  tx: Transaction,
  ref: ArchiveRef,
  files: readonly PlainName[],
): Promise<UndoStep & { gone: PlainName[] }> {
  await lockArchive(tx, ref);
  const found = await plainFilesOf(tx, ref, files);
  const decided = files.map((file, i) => (found[i] ? shownAgain({ ...file, ...found[i] }) : null));
  const gone = files.filter((_, i) => !found[i]?.isThere && !decided[i]);
  const changes = decided.filter((each) => each !== null);
  const hashes = changes.reduce((sum, { content }) => sum + hashCount(content?.blocks ?? nothing), 0);
  if (hashes > limits.commitHashesMax)
    throw new Problem('out_of_bounds', 'these files are too large to be had back together: name fewer', {
      field: 'names',
    });
  return { ...(await change(tx, ref, changes)), gone, next: null };
}

/** What is left of a step's bounds. */
interface Room {
  files: number;
  hashes: number;
  versions: number;
}

async function step(
  tx: Transaction,
  ref: ArchiveRef,
  place: UndoPlace,
  how: { decide: Decide; phases: readonly UndoPhase[]; dryRun: boolean },
): Promise<UndoStep> {
  assert(how.phases.includes(place.phase), `this has no phase ${place.phase}`);
  if (!how.dryRun) await lockArchive(tx, ref);
  const { filesMax: files, stepVersions: versions } = undoBounds;
  const room = { files, hashes: limits.commitHashesMax, versions };
  const changes: PlainChange[] = [];
  let next: UndoPlace | null = place;
  while (next) {
    const found: Found = await changesOfPhase(tx, ref, next, how.decide, room);
    changes.push(...found.changes);
    const phase: UndoPhase | undefined = how.phases[how.phases.indexOf(next.phase) + 1];
    if (found.next || !phase) {
      next = found.next;
      break;
    }
    // The next phase looks at the same versions, from the first on.
    next = { ...next, phase, after: firstBehind(place.at) };
  }
  const done = how.dryRun ? await tried(tx, ref, changes) : await change(tx, ref, changes);
  return { ...done, next };
}

interface Found {
  changes: PlainChange[];
  /** Where to go on with the phase when there is no room left; null: it is over. */
  next: UndoPlace | null;
}

function changesOfPhase(
  tx: Transaction,
  ref: ArchiveRef,
  place: UndoPlace,
  decide: Decide,
  room: Room,
): Promise<Found> {
  return place.phase === 'locks' ? locksToDrop(tx, ref, place, room) : filesToChange(tx, ref, place, decide, room);
}

async function filesToChange(
  tx: Transaction,
  ref: ArchiveRef,
  place: UndoPlace,
  decide: Decide,
  room: Room,
): Promise<Found> {
  const changes: PlainChange[] = [];
  const { pageVersions } = undoBounds;
  let after = place.after;
  for (; room.versions > 0; room.versions -= pageVersions) {
    const page = await filesChangedSince(tx, ref, place, { after, limit: pageVersions });
    for (const file of page.files) {
      const change = file.seq <= place.through ? decide(file) : null;
      if (change && (change.content !== null) === (place.phase === 'show')) {
        const hashes = hashCount((change.content ?? file.held)?.blocks ?? nothing);
        if (room.files === 0 || hashes > room.hashes) return { changes, next: { ...place, after } };
        changes.push(change);
        room.files--;
        room.hashes -= hashes;
      }
      after = file.key;
    }
    if (!page.next) return { changes, next: null };
    after = page.next;
  }
  return { changes, next: { ...place, after } };
}

/**
 * Whatever locks there were when the first step began: they are of programs that saw the archive as it was before. In the order
 * of their names.
 */
async function locksToDrop(tx: Transaction, ref: ArchiveRef, place: UndoPlace, room: Room): Promise<Found> {
  const folderId = await findPlainFolder(tx, ref, locksFolder);
  if (folderId === null) return { changes: [], next: null };
  const changes: PlainChange[] = [];
  const { pageVersions: limit } = undoBounds;
  let behind = place.lock ?? '';
  for (; room.versions > 0; room.versions -= limit) {
    const names = await listPlainNames(tx, ref, { folderId, after: Buffer.from(behind, 'latin1'), limit });
    for (const { name: bytes, seq } of names) {
      const name = bytes.toString('latin1');
      if (seq !== null && seq <= place.through) {
        if (room.files === 0) return { changes, next: { ...place, lock: behind } };
        changes.push({ file: { folder: locksFolder, name }, content: null });
        room.files--;
      }
      behind = name;
    }
    if (names.length < limit) return { changes, next: null };
  }
  return { changes, next: { ...place, lock: behind } };
}

type Done = Omit<UndoStep, 'next'>;

/** Files whose content is damaged are left out: a version names nothing that cannot be read. */
async function withoutDamaged(
  tx: Transaction,
  ref: ArchiveRef,
  changes: readonly PlainChange[],
): Promise<{ whole: PlainChange[]; damaged: UndoStep['damaged'] }> {
  const named = new Map<string, Buffer>();
  for (const { content } of changes)
    if (content) for (const hash of splitHashes(content.blocks)) named.set(hashKey(hash), hash);
  const hashes = joinHashes([...named.values()]);
  const missing = named.size === 0 ? [] : await findMissingBlocks(tx, ref.vault, hashes);
  const gone = new Set(missing.map((i) => hashKey(hashAt(hashes, i))));
  const isWhole = ({ content }: PlainChange): boolean =>
    gone.size === 0 || !content || !splitHashes(content.blocks).some((hash) => gone.has(hashKey(hash)));
  const left = changes.filter((each) => !isWhole(each));
  const first = left.slice(0, undoBounds.namesToldMax).map(({ file }) => file);
  return { whole: changes.filter(isWhole), damaged: { files: left.length, first } };
}

async function change(tx: Transaction, ref: ArchiveRef, changes: readonly PlainChange[]): Promise<Done> {
  const { whole, damaged } = await withoutDamaged(tx, ref, changes);
  const done: Done = { shown: new Map(), hidden: new Map(), damaged };
  for (const { file, before, after } of await commitPlain(tx, ref, whole, { sent: false }))
    if (after) count(done.shown, file, after.size);
    else count(done.hidden, file, before?.heldBytes ?? 0);
  return done;
}

async function tried(tx: Transaction, ref: ArchiveRef, changes: readonly PlainChange[]): Promise<Done> {
  const { whole, damaged } = await withoutDamaged(tx, ref, changes);
  const done: Done = { shown: new Map(), hidden: new Map(), damaged };
  const there = await plainFilesOf(
    tx,
    ref,
    whole.map(({ file }) => file),
  );
  for (const [i, { file, content }] of whole.entries())
    if (content) count(done.shown, file, content.size);
    else count(done.hidden, file, there[i]?.held?.size ?? 0);
  return done;
}

function count(into: Map<string, Counted>, { folder }: PlainName, bytes: number): void {
  const sum = into.get(folder) ?? { files: 0, bytes: 0 };
  into.set(folder, { files: sum.files + 1, bytes: sum.bytes + bytes });
}
