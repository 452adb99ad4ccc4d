/**
 * Restores one file: left if it is here already, linked if it has another name, else fetched into an unfinished file
 * that gets its name when all of its bytes have been verified.
 */
import { type BigIntStats, constants } from 'node:fs';
import { rename } from 'node:fs/promises';
import type { Attributes } from '../../protocol/attributes.ts';
import { hashCount, sha256 } from '../../protocol/hashes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { chunkSizesFor } from '../../protocol/sealing/index.ts';
import { splitNanoseconds } from '../files/attributes.ts';
import { type Handle, open } from '../files/calls.ts';
import { smallBytesMax } from '../files/read.ts';
import type { LocalPath } from '../files/types.ts';
import { applyToHandle, modeOf, type Ownership, ownershipIn } from './apply.ts';
import { BlockNames } from './block-names.ts';
import type { FetchJob } from './fetcher.ts';
import { FileWriter } from './file-writer.ts';
import { nameOf } from './folders.ts';
import { type FirstName, linkTo } from './hard-links.ts';
import { namesTo, type OpenFolder, release } from './open-folders.ts';
import { makeWay, moveIfFree, printable, standingAt } from './place.ts';
import { matchingPrefix } from './same-content.ts';
import { openPart, type Part, partFor, removePart } from './staging.ts';
import { LeftOut, RestoreEnded, RestoreError } from './types.ts';
import { leftOutBy, settingAttributes, type Work } from './work.ts';

/** O_NONBLOCK: a pipe put here meanwhile must not make us wait. */
const readFlags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

export interface FileToRestore {
  in: OpenFolder;
  name: LocalPath;
  version: StoredVersion;
  attributes: Attributes;
  /** Bytes of it that progress shows as done already. */
  countedBytes?: number;
}

type Place = Pick<FirstName, 'device' | 'inode'>;

/** Starts restoring a file; what has to be fetched goes on behind it. */
export async function restoreFile(work: Work, file: FileToRestore): Promise<void> {
  const { attributes } = file;
  if (await leaveExisting(work, file)) return;
  if (attributes.inode && (await linkFirst(work, file))) return;
  await fetchFile(work, file);
}

/** Whether the file is not to be restored because of what stands at its name: the same content, or something to keep. */
async function leaveExisting(work: Work, file: FileToRestore): Promise<boolean> {
  const { in: parent, name, version, attributes } = file;
  if (parent.folder.made) return false; // by this restore; what appears in it meanwhile is noticed when placing
  const standing = await standingAt(parent.folder, name);
  if (!standing) return false;
  if (standing.isFile() && Number(standing.size) === version.size) {
    const handle = await open(parent.folder.at(name), readFlags, { small: version.size <= smallBytesMax }).catch(
      () => null,
    );
    if (handle) {
      try {
        if (await isIdentical(work, handle, file)) {
          // With further names it may be a file outside of the target: its attributes are not ours to set.
          const ours = standing.nlink === 1n || attributes.inode;
          if (ours && !haveAttributes(standing, file, work.ownership)) {
            await settingAttributes(work, version.path, () =>
              applyToHandle(handle, 'file', attributes, version.mtime, work.ownership),
            );
          }
          work.links.begin(
            version,
            attributes,
          )({ folders: namesTo(parent), name, device: standing.dev, inode: standing.ino });
          work.ledger.counts.filesIdentical++;
          countDone(work, file);
          return true;
        }
      } finally {
        await handle.close();
      }
    }
  }
  if (work.options.existing === 'fail')
    throw new RestoreError('exists', `${printable(parent.folder, name)} exists and differs`);
  if (work.options.existing !== 'keep') return false;
  noteKept(work, file);
  return true;
}

/** Whether mode and time are as they should be already; whose it is is not looked at, so an owner to set says no. */
function haveAttributes(
  standing: BigIntStats,
  { version, attributes }: FileToRestore,
  ownership: Ownership | null,
): boolean {
  return (
    ownership === null &&
    Number(standing.mode & 0o7777n) === modeOf('file', attributes.mode, null) &&
    isSameTime(standing.mtimeNs, version.mtime, attributes)
  );
}

/** To the microsecond: what a restore can set exactly. */
function isSameTime(mtimeNs: bigint, ms: number, attributes: Attributes): boolean {
  const now = splitNanoseconds(mtimeNs);
  return now.ms === ms && Math.floor(now.rest / 1000) === Math.floor(attributes.mtimeNs / 1000);
}

/** Counts the file as done, but for what was counted while it was written. */
function countDone(work: Work, { version, countedBytes }: FileToRestore): void {
  work.ledger.done(version.size - (countedBytes ?? 0));
}

function noteKept(work: Work, file: FileToRestore): void {
  const { version, in: parent, name } = file;
  work.ledger.notice(version.path, 'kept_existing', printable(parent.folder, name));
  work.ledger.counts.filesKept++;
  countDone(work, file);
}

async function isIdentical(work: Work, handle: Handle, { version, attributes }: FileToRestore): Promise<boolean> {
  if (work.options.trustTimes) {
    if (isSameTime((await handle.stat({ bigint: true })).mtimeNs, version.mtime, attributes)) return true;
  }
  const names = namesOf(work, version);
  const match = await matchingPrefix(handle, { ...version, names }, work.options, work.signal);
  return match.bytes === version.size && (await names.at(match.blocks)) === null;
}

function namesOf(work: Work, version: StoredVersion): BlockNames {
  return new BlockNames(version, work.options.client, work.signal);
}

/** Links to the file's first name, if that was restored. */
async function linkFirst(work: Work, file: FileToRestore): Promise<boolean> {
  const { in: parent, name, version, attributes } = file;
  const pending = work.links.find(version, attributes);
  if (!pending) return false;
  await work.fetcher.flush(); // the first name may still wait to be asked for
  const first = await pending;
  if (!first) return false;
  if ((await clearTheWay(work, file)) === 'keep') return true;
  if (!(await linkTo(work.target, first, parent.folder, name))) {
    work.ledger.notice(
      version.path,
      'hard_link_split',
      'could not be linked to its other name; restored as a file of its own',
    );
    return false;
  }
  work.ledger.counts.hardLinks++;
  countDone(work, file);
  return true;
}

/** Renames aside or removes what stands at the file's name. */
async function clearTheWay(work: Work, file: FileToRestore): Promise<'keep' | 'free' | 'replace'> {
  const { in: parent, name, version } = file;
  const cleared = await makeWay(parent.folder, name, work.options.existing ?? 'rename');
  if (cleared === 'keep') noteKept(work, file);
  if (typeof cleared === 'object')
    work.ledger.notice(version.path, 'renamed_existing', printable(parent.folder, cleared.renamedTo));
  if (cleared === 'replace' || cleared === 'removed_folder')
    work.ledger.notice(version.path, 'overwrote_existing', printable(parent.folder, name));
  return cleared === 'keep' || cleared === 'replace' ? cleared : 'free';
}

async function fetchFile(work: Work, file: FileToRestore): Promise<void> {
  const { in: parent, version, attributes } = file;
  const key = sha256(Buffer.concat([version.path, version.mac]))
    .toString('hex')
    .slice(0, 32);
  const part = partFor(work.staging, parent.folder, key);
  const names = namesOf(work, version);
  const { handle, match } = await resumePart(work, part, version, names);
  const writer = new FileWriter({
    keys: work.options.keys,
    vault: work.options.vault,
    version,
    sparse: attributes.sparse === true,
    openFile: () => openPart(part, version.size <= smallBytesMax),
    resumed: match,
    onWritten: (bytes) => {
      file.countedBytes = (file.countedBytes ?? 0) + bytes;
      work.ledger.wrote(bytes);
    },
  });
  writer.handle = handle;
  work.ledger.counts.bytesResumed += match.bytes;
  const linked = work.links.begin(version, attributes);
  const job: FetchJob = { writer, names, blockBytes: blockBytesOf(version), done: once(() => done()) };
  const done = async (): Promise<void> => {
    let place: Place | null = null;
    try {
      place = await finishFile(work, file, writer, part);
    } catch (error) {
      const resumable = part.folder === work.staging.folder && !(work.options.signal?.reason instanceof RestoreEnded);
      if (!resumable) await removePart(part);
      const why = leftOutBy(work, error);
      await removePart(part);
      work.ledger.problem(version.path, why.reason, why.message);
      countDone(work, file);
    } finally {
      await writer.handle?.close().catch(() => undefined);
      linked(place && { folders: namesTo(parent), name: file.name, ...place });
      // Active to the end: a restore that fails waits for those, so that nothing stays open behind it.
      await release(work, parent).finally(() => work.active.delete(job));
    }
  };
  work.active.add(job);
  parent.holds++;
  // Nothing to ask for: it is empty, or an earlier restore wrote all of it.
  if (version.lists.byteLength === 0 && writer.next === hashCount(version.blocks)) {
    writer.end(writer.next);
    await job.done();
  } else await work.fetcher.add(job);
}

/** What a block of a file weighs is not said anywhere: on average its size by its blocks. */
function blockBytesOf({ size, blocks, lists }: StoredVersion): number {
  return lists.byteLength > 0 ? chunkSizesFor(size).averageBytes : Math.ceil(size / Math.max(1, hashCount(blocks)));
}

/** Every caller waits for the one call. */
function once(step: () => Promise<void>): () => Promise<void> {
  let called: Promise<void> | undefined;
  return () => {
    called ??= step();
    return called;
  };
}

/** Goes on with what an interrupted restore left of this version, as far as its content is right. */
async function resumePart(
  work: Work,
  part: Part,
  version: StoredVersion,
  names: BlockNames,
): Promise<{ handle: Handle | null; match: { blocks: number; bytes: number } }> {
  if (!part.begun) return { handle: null, match: { blocks: 0, bytes: 0 } };
  const handle = await openPart(part, false);
  try {
    const match = await matchingPrefix(handle, { ...version, names }, work.options, work.signal);
    await handle.truncate(match.bytes);
    return { handle, match };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Attributes, then the name. @returns where the file is now; null when an existing one was kept instead */
async function finishFile(work: Work, file: FileToRestore, writer: FileWriter, part: Part): Promise<Place | null> {
  const { in: parent, name, version, attributes } = file;
  if (writer.failure !== null) throw writer.failure;
  const handle = await writer.finish();
  await settingAttributes(work, version.path, () =>
    applyToHandle(handle, 'file', attributes, version.mtime, ownershipIn(work.ownership, parent.folder)),
  );
  if (work.options.fsync) await handle.sync();
  const stat = attributes.inode ? await handle.stat({ bigint: true }) : null; // only other names will ask for it
  await handle.close(); // Windows renames no open file
  writer.handle = null;

  await parent.folder.guard();
  await part.folder.guard();
  const from = part.folder.at(nameOf(part.folder, part.name));
  const to = parent.folder.at(name);
  // Twice at most, unless somebody keeps putting files at this name.
  for (let attempt = 0; !(await moveIfFree(from, to)); attempt++) {
    if (attempt === 10) throw new LeftOut('target_refused', 'somebody keeps putting another file at its name');
    const way = await clearTheWay(work, file);
    if (way === 'keep') {
      await removePart(part);
      return null;
    }
    if (way === 'replace') {
      await rename(from, to);
      break;
    }
  }
  work.ledger.counts.filesRestored++;
  work.ledger.counts.bytesRestored += version.size;
  countDone(work, file);
  return { device: stat?.dev ?? 0n, inode: stat?.ino ?? 0n };
}
