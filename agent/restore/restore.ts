/**
 * Restores a path of an archive, and all below it, into a folder. Every version is checked against its MAC before
 * anything of it is written, every block against its name and our key; a file that fails is left out and named.
 * Nothing is written outside the folder, and nothing in it is replaced unless asked for. Repeated, it goes on.
 */
import { readlink, symlink, unlink } from 'node:fs/promises';
import { type Attributes, decodeAttributes } from '../../protocol/attributes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { pathFault, printablePath, splitPath } from '../../protocol/paths.ts';
import { open, verifyVersionOf } from '../../protocol/sealing/index.ts';
import { readAccounts } from '../files/accounts.ts';

import { JobPool } from '../files/job-pool.ts';
import { smallBytesMax } from '../files/read.ts';
import type { LocalPath } from '../files/types.ts';
import { decodeWtf8 } from '../files/wtf8.ts';
import { applyToSymlink } from './apply.ts';
import { Fetcher } from './fetcher.ts';
import { type Folder, openTarget } from './folders.ts';
import { HardLinks } from './hard-links.ts';
import { chooseName, type OpenFolder, openIn, openTop, release } from './open-folders.ts';
import { makeWay, printable, standingAt } from './place.ts';
import { type FileToRestore, restoreFile } from './restore-file.ts';
import { closeStaging, isCaseSensitive, openStaging, type Staging, stagingName } from './staging.ts';
import { LeftOut, type RestoreOptions, type RestoreReport } from './types.ts';
import { Ledger, leftOutBy, settingAttributes, type Work } from './work.ts';

/** Files compared side by side: eight small ones, or two that are read piece by piece. */
const checksWeightMax = 8;
const largeCheckWeight = 4;

/**
 * @returns what was done; `complete` is false when files were left out
 * @throws RestoreError when the target cannot be used; the client's errors when the server stays away; the signal's
 *   reason when it aborts. Unfinished files are kept then, and the same restore run again goes on with them.
 */
export async function restore(options: RestoreOptions): Promise<RestoreReport> {
  const stop = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  signal.throwIfAborted();
  const { client, archive, path, at: moment } = options;
  const { seq, at, versions } = await client.versions(archive, { path, at: moment, seq: options.seq }, signal);
  const target = await openTarget(options.to, options);
  try {
    const staging = await openStaging(target);
    let ended = false;
    try {
      if (options.caseSensitive === undefined) target.caseSensitive = await isCaseSensitive(target);
      target.reserve(stagingName);
      const ledger = await restoreVersions(options, { target, staging, stop, signal }, versions);
      ended = true;
      const { counts, problems, notices } = ledger;
      return { seq, at, complete: counts.problems === 0, counts, problems, notices };
    } finally {
      await closeStaging(target, staging, { keep: !ended });
    }
  } finally {
    stop.abort(); // the list of versions may still be coming
    await target.close();
  }
}

async function restoreVersions(
  options: RestoreOptions,
  place: { target: Folder; staging: Staging; stop: AbortController; signal: AbortSignal },
  versions: AsyncIterable<StoredVersion>,
): Promise<Ledger> {
  const { target, staging, stop, signal } = place;
  const ledger = new Ledger(options);
  const active: Work['active'] = new Set();
  const failures: unknown[] = [];
  const end = (error: unknown): void => {
    failures.push(error);
    stop.abort(error);
    for (const job of active) {
      const { idle } = job.writer;
      job.writer.fail(error);
      if (idle) job.done().catch(() => undefined); // fails with the error we have
    }
  };
  const fetcher = new Fetcher({
    source: options.client,
    signal,
    onFetched: (bytes) => ledger.fetched(bytes),
    onFatal: end,
  });
  const root = options.owner === true && process.geteuid?.() === 0;
  const ownership = root ? { accounts: await readAccounts() } : null;
  const work: Work = {
    options,
    target,
    staging,
    ownership,
    fetcher,
    links: new HardLinks(),
    active,
    signal,
    ledger,
    checks: new JobPool(checksWeightMax),
  };
  const stack: OpenFolder[] = [openTop(target, options.path)];
  try {
    for await (const version of versions) {
      signal.throwIfAborted();
      await restoreVersion(work, stack, version);
    }
    ledger.progress.seenAll = true;
    await work.checks.drain();
    while (stack.length > 1) await release(work, stack.pop()!);
    await fetcher.drain();
    signal.throwIfAborted();
  } catch (error) {
    end(error);
    await work.checks.settle();
    await fetcher.drain();
    await Promise.allSettled([...active].map((job) => job.done()));
    while (stack.length > 1) await release(work, stack.pop()!).catch(() => undefined);
  }
  if (failures.length > 0) throw options.signal?.aborted ? options.signal.reason : failures[0];
  ledger.report();
  return ledger;
}

async function restoreVersion(work: Work, stack: OpenFolder[], version: StoredVersion): Promise<void> {
  const { ledger, options } = work;
  if (version.deleted) return;
  if (version.kind === 'file') ledger.seen(version.size);
  await leavingOutFaults(work, version, async () => {
    const names = namesBelow(options.path, version.path);
    const attributes = authenticate(work, version);
    const name = names.at(-1);
    if (name === undefined) return; // '/' itself: the target stands for it
    const parent = await folderFor(work, stack, names.slice(0, -1));
    await restoreEntry(work, stack, { parent, archiveName: name, version, attributes });
  });
}

/** Runs a step for one version; what fails of this version alone is named, and the restore goes on. */
async function leavingOutFaults(work: Work, version: StoredVersion, step: () => Promise<void>): Promise<void> {
  try {
    await step();
  } catch (error) {
    const why = leftOutBy(work, error);
    work.ledger.problem(version.path, why.reason, why.message);
    if (version.kind === 'file') work.ledger.done(version.size);
  }
}

/**
 * The names below the target that a path of the manifest leads to: '/a/b/c' of '/a/b' is b, c.
 * @throws LeftOut path_not_allowed for anything that was not asked for, or is no path
 */
function namesBelow(asked: Buffer, path: Buffer): Buffer[] {
  const fault = pathFault(path);
  if (fault) throw new LeftOut('path_not_allowed', `its path ${fault}`);
  const above = splitPath(asked);
  const names = splitPath(path);
  if (names.length < above.length || above.some((name, index) => !name.equals(names[index]!))) {
    throw new LeftOut('path_not_allowed', `it does not lie in ${printablePath(asked)}`);
  }
  return names.slice(Math.max(0, above.length - 1));
}

/** @throws LeftOut unless an agent with our key committed this version to this archive; SealError, Problem */
function authenticate(work: Work, version: StoredVersion): Attributes {
  const { keys, archive, vault } = work.options;
  if (!verifyVersionOf(keys, archive, version)) {
    throw new LeftOut('version_not_authentic', 'its MAC is not right: it was altered, or made with another key');
  }
  return decodeAttributes(open(keys.for(version.attributes), { type: 'attributes', vault }, version.attributes));
}

/** The open folder at these names: leaves those the manifest has left, makes those it does not mention. */
async function folderFor(work: Work, stack: OpenFolder[], names: Buffer[]): Promise<OpenFolder> {
  let depth = 0;
  while (depth < names.length && stack[depth + 1]?.archiveName.equals(names[depth]!)) depth++;
  while (stack.length - 1 > depth) await release(work, stack.pop()!);
  for (; depth < names.length; depth++) {
    const parent = stack.at(-1)!;
    const archiveName = names[depth]!;
    const path = Buffer.concat([parent.parent === null ? Buffer.alloc(0) : parent.path, Buffer.of(0x2f), archiveName]);
    const name = chooseName(work, parent, archiveName, path);
    stack.push(await openIn(parent, { archiveName, name, path, version: null }));
  }
  return stack.at(-1)!;
}

interface EntryToRestore {
  parent: OpenFolder;
  archiveName: Buffer;
  version: StoredVersion;
  attributes: Attributes;
}

async function restoreEntry(work: Work, stack: OpenFolder[], entry: EntryToRestore): Promise<void> {
  const { parent, archiveName, version, attributes } = entry;
  const name = chooseName(work, parent, archiveName, version.path);
  if (version.kind === 'file') {
    const file = { in: parent, name, version, attributes };
    return mayWait(file) ? restoreBehind(work, file) : restoreFile(work, file);
  }
  if (version.kind === 'symlink') return restoreSymlink(work, entry, name);

  const standing = await standingAt(parent.folder, name);
  if (standing && !standing.isDirectory() && !(await clearFor(work, entry, name))) {
    throw new LeftOut('parent_not_folder', 'something that is not a folder has its name, and was kept');
  }
  const opened = { archiveName, name, path: version.path, version: { stored: version, attributes } };
  stack.push(await openIn(parent, opened));
  work.ledger.counts.folders++;
}

/**
 * Whether a file may be looked at while the manifest goes on. Into a folder this restore made it only has to be asked
 * for; and of a file with several names, the later ones must find the first.
 */
function mayWait({ in: parent, attributes }: FileToRestore): boolean {
  return !parent.folder.made && !attributes.inode;
}

/** Compares what stands at a file's name with it, beside other files; waits only for its turn. */
async function restoreBehind(work: Work, file: FileToRestore): Promise<void> {
  const { in: parent, version } = file;
  parent.holds++;
  const check = async (): Promise<void> => {
    try {
      await leavingOutFaults(work, version, () => restoreFile(work, file));
    } finally {
      await release(work, parent);
    }
  };
  try {
    await work.checks.add(version.size <= smallBytesMax ? 1 : largeCheckWeight, check);
  } catch (error) {
    await release(work, parent); // it never began
    throw error;
  }
}

/** Makes way for a folder or symlink; false when what stands there is kept. */
async function clearFor(work: Work, { parent, version }: EntryToRestore, name: LocalPath): Promise<boolean> {
  const cleared = await makeWay(parent.folder, name, work.options.existing ?? 'rename');
  if (cleared === 'keep') work.ledger.notice(version.path, 'kept_existing', printable(parent.folder, name));
  if (cleared === 'replace') await unlink(parent.folder.at(name));
  if (cleared === 'replace' || cleared === 'removed_folder') {
    work.ledger.notice(version.path, 'overwrote_existing', printable(parent.folder, name));
  }
  if (typeof cleared === 'object') {
    work.ledger.notice(version.path, 'renamed_existing', printable(parent.folder, cleared.renamedTo));
  }
  return cleared !== 'keep';
}

/** A symlink is made as it was, wherever it leads: nothing of ours ever goes through it. */
async function restoreSymlink(work: Work, entry: EntryToRestore, name: LocalPath): Promise<void> {
  const { parent, version, attributes } = entry;
  const { folder } = parent;
  if (!attributes.target) throw new LeftOut('attributes_damaged', 'a symlink without a target');
  const standing = await standingAt(folder, name);
  const same = standing?.isSymbolicLink() && (await readlink(folder.at(name), 'buffer')).equals(attributes.target);
  if (!same) {
    if (standing && !(await clearFor(work, entry, name))) return;
    const target =
      folder.platform === 'win32' ? (decodeWtf8(attributes.target) ?? attributes.target) : attributes.target;
    try {
      await symlink(target, folder.at(name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      throw new LeftOut('target_refused', 'something else appeared at its name', { cause: error });
    }
  }
  await settingAttributes(work, version.path, () =>
    applyToSymlink(folder.at(name), attributes, version.mtime, work.ownership),
  );
  work.ledger.counts.symlinks++;
}
