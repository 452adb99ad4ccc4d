/**
 * From the manifest to what the writer does, in order: every version authenticated, its rows looked at, and what cannot
 * be restored turned into a step that says so. Decides only; nothing of content is read here.
 *
 * What lies below something that is no folder is left out: an archive from a hostile device could
 * otherwise lead whoever unpacks it through a symlink. For a format whose readers may take two names for one (a zip on
 * a system that ignores case), symlinks come last, so that nothing comes behind them at all.
 */
import { type Attributes, decodeAttributes } from '../../protocol/attributes.ts';
import { hashCount, hashKeyAt } from '../../protocol/hashes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { pathFault } from '../../protocol/paths.ts';
import { Problem } from '../../protocol/problems.ts';
import { type Keyring, open, SealError, verifyVersionOf } from '../../protocol/sealing/index.ts';
import type { ArchiveRef, Storage } from '../../storage/storage.ts';
import { type FirstName, FirstNames } from './first-names.ts';
import { type BlockLengths, blockNames, ContentByRows, faultByRows, faultOf, lengthsOf } from './flow/block-rows.ts';
import { breathe } from './flow/breathe.ts';
import type { Unit } from './flow/fetching.ts';
import { type Walk, walkSelection } from './selection.ts';
import { type Item, LeftOut, type LeftOutReason } from './types.ts';

export type Step =
  | { do: 'miss'; path: Buffer }
  /** `seq`: of the version that cannot be had; null when there is none. */
  | { do: 'leave'; path: Buffer; seq: number | null; reason: LeftOutReason }
  | { do: 'folder' | 'symlink'; item: Item }
  /** Another name of a file that came before, if that could be written. */
  | { do: 'link'; item: Item; first: FirstName }
  /** A file that is read whole before its entry is begun. */
  | { do: 'file'; item: Item; first: FirstName | null; blocks: Buffer; lengths: BlockLengths }
  /** A larger one. */
  | { do: 'begin'; item: Item }
  | { do: 'part'; item: Item; blocks: Buffer; lengths: BlockLengths }
  | { do: 'end'; item: Item }
  /** It cannot be gone on with, though its entry was begun. */
  | { do: 'break'; item: Item; reason: LeftOutReason };

/** What makes an archive of steps. */
export interface StepWriter {
  begin(): AsyncGenerator<Buffer>;
  /** @throws ArchiveBroken */
  write(step: Step, unit: Unit): AsyncGenerator<Buffer>;
  finish(): AsyncGenerator<Buffer>;
}

export interface Steps {
  storage: Storage;
  ref: ArchiveRef;
  /** Null: nothing is opened, and whoever has the keys finds out what is authentic. */
  keyring: Keyring | null;
  walk: Walk;
  leaveOut: ReadonlyMap<string, LeftOutReason>;
  verifyAheadBytes: number;
  /** Sealed bytes of a file that is read whole, at most: what is more would not fit beside others. */
  sealedAheadMax: number;
  /** Sealed bytes of a part of a large file, about; as things are then. */
  partBytes: () => number;
  linkBytesMax: number;
  /** Null when the format can name this path, else why not. */
  refuses: (path: Buffer) => LeftOutReason | null;
  hardLinks: boolean;
  symlinksLast: boolean;
  /** Large files whose reader wants no more of them. */
  givenUp?: ReadonlySet<Item>;
  signal: AbortSignal;
}

export async function* stepsOf(steps: Steps): AsyncGenerator<Step> {
  const seen = { symlinks: false };
  yield* pass(steps, steps.symlinksLast ? 'others' : 'all', seen);
  if (steps.symlinksLast && seen.symlinks) yield* pass(steps, 'symlinks', seen);
}

async function* pass(
  steps: Steps,
  kinds: 'all' | 'others' | 'symlinks',
  seen: { symlinks: boolean },
): AsyncGenerator<Step> {
  const { storage, ref, signal } = steps;
  const firstNames = new FirstNames(steps.linkBytesMax);
  let noFolder: Buffer | null = null;
  for await (const page of walkSelection(storage, ref, steps.walk, signal)) {
    if ('missing' in page) {
      if (kinds !== 'symlinks') yield { do: 'miss', path: page.missing };
      continue;
    }
    const decided: (Step | Item)[] = [];
    for (const { path, version, thinned } of page.found) {
      await breathe();
      if (thinned) {
        if (kinds !== 'symlinks') decided.push({ do: 'leave', path, seq: null, reason: 'version_thinned' });
        continue;
      }
      const isSymlink = version?.kind === 'symlink';
      seen.symlinks ||= isSymlink;
      const below = noFolder !== null && liesBelow(path, noFolder);
      if (!below) noFolder = version === null || version.kind === 'directory' ? null : path;
      if (kinds !== 'all' && isSymlink !== (kinds === 'symlinks')) continue;
      if (path.byteLength === 1) continue; // '/' itself: where it is unpacked stands for it
      decided.push(decide(steps, { path, version }, below));
    }
    yield* withRows(steps, decided, firstNames);
  }
}

function liesBelow(path: Buffer, top: Buffer): boolean {
  return (
    path.byteLength > top.byteLength && path[top.byteLength] === 0x2f && path.subarray(0, top.byteLength).equals(top)
  );
}

function decide(
  steps: Steps,
  { path, version }: { path: Buffer; version: StoredVersion | null },
  belowNoFolder: boolean,
): Step | Item {
  try {
    const before = steps.leaveOut.get(path.toString('latin1'));
    if (before) throw new LeftOut(before);
    if (version === null) throw new LeftOut('version_gone');
    if (pathFault(path)) throw new LeftOut('path_not_allowed');
    if (belowNoFolder) throw new LeftOut('parent_not_folder');
    const refused = steps.refuses(path);
    if (refused) throw new LeftOut(refused);
    const item = { version, attributes: steps.keyring && authenticate(steps.keyring, steps.ref, version) };
    if (version.kind === 'directory') return { do: 'folder', item };
    if (version.kind === 'file') return item;
    if (item.attributes && !item.attributes.target) throw new LeftOut('attributes_damaged');
    return { do: 'symlink', item };
  } catch (error) {
    return { do: 'leave', path, seq: version?.seq ?? null, reason: asLeftOut(error).reason };
  }
}

/** @throws LeftOut, SealError, Problem */
function authenticate(keyring: Keyring, ref: ArchiveRef, version: StoredVersion): Attributes {
  if (!verifyVersionOf(keyring, ref.archive, version)) throw new LeftOut('version_not_authentic');
  const as = { type: 'attributes', vault: ref.vault } as const;
  return decodeAttributes(open(keyring.for(version.attributes), as, version.attributes));
}

/** @throws what is no fault of the version */
function asLeftOut(error: unknown): LeftOut {
  if (error instanceof LeftOut) return error;
  if (error instanceof SealError)
    return new LeftOut(error.reason === 'wrong_generation' ? 'key_missing' : 'attributes_damaged', { cause: error });
  if (error instanceof Problem) return new LeftOut('attributes_damaged', { cause: error });
  throw error;
}

async function* withRows(
  steps: Steps,
  decided: readonly (Step | Item)[],
  firstNames: FirstNames,
): AsyncGenerator<Step> {
  const { storage, ref } = steps;
  const small = decided.filter((each): each is Item => !('do' in each) && isReadAhead(steps, each));
  const lengths = await lengthsOf(storage, ref.vault, Buffer.concat(small.map(({ version }) => version.blocks)));
  for (const each of decided) {
    if ('do' in each) {
      yield each;
      continue;
    }
    const before = steps.hardLinks ? firstNames.take(each) : null;
    if (before) {
      yield { do: 'link', item: each, first: before };
      continue;
    }
    const first = steps.hardLinks ? firstNames.add(each) : null;
    if (isReadAhead(steps, each)) yield* wholeFile(steps, each, first, lengths);
    else yield* largeFile(steps, each, first);
  }
}

/** Lists name more blocks than a file of that size has from any agent: such a file is not held whole. */
function isReadAhead({ verifyAheadBytes }: Steps, { version }: Item): boolean {
  return version.size <= verifyAheadBytes && version.lists.byteLength === 0;
}

async function* wholeFile(
  steps: Steps,
  item: Item,
  first: FirstName | null,
  lengths: BlockLengths,
): AsyncGenerator<Step> {
  const { blocks, size } = item.version;
  const content = new ContentByRows(size);
  const fault = faultOf(content, blocks, lengths);
  if (fault) yield leave(item, first, fault);
  else if (content.bytes > steps.sealedAheadMax) yield* largeFile(steps, item, first);
  else yield { do: 'file', item, first, blocks, lengths };
}

function leave({ version: { path, seq } }: Item, first: FirstName | null, reason: LeftOutReason): Step {
  if (first) first.leftOut = reason;
  return { do: 'leave', path, seq, reason };
}

async function* largeFile(steps: Steps, item: Item, first: FirstName | null): AsyncGenerator<Step> {
  const { storage, ref, signal } = steps;
  const fault = await faultByRows(storage, ref.vault, item.version, signal);
  if (fault) {
    yield leave(item, first, fault);
    return;
  }
  yield { do: 'begin', item };
  try {
    for await (const names of blockNames(storage, ref.vault, item.version)) {
      if (steps.givenUp?.has(item)) return;
      yield* partsOf(steps, item, names, await lengthsOf(storage, ref.vault, names, signal));
    }
  } catch (error) {
    // A list that was there a moment ago is not any more.
    if (!(error instanceof LeftOut)) throw error;
    yield { do: 'break', item, reason: error.reason };
    return;
  }
  yield { do: 'end', item };
}

/** @throws LeftOut content_damaged when a block is not there any more */
function* partsOf({ partBytes }: Steps, item: Item, names: Buffer, lengths: BlockLengths): Generator<Step> {
  let from = 0;
  let bytes = 0;
  for (let i = 0; i < hashCount(names); i++) {
    const length = lengths.get(hashKeyAt(names, i));
    if (length === undefined) throw new LeftOut('content_damaged');
    if (i > from && bytes + length > partBytes()) {
      yield { do: 'part', item, blocks: names.subarray(from * 32, i * 32), lengths };
      from = i;
      bytes = 0;
    }
    bytes += length;
  }
  yield { do: 'part', item, blocks: names.subarray(from * 32), lengths };
}
