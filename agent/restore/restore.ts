/**
 * Restores a path of an archive, and all below it, into a folder. Every version is checked against its MAC before
 * anything of it is written, every block against its name and our key; a file that fails is left out and named.
 * Nothing is written outside the folder, and nothing in it is replaced unless asked for. Repeated, it goes on.
 */
import { readlink, symlink, unlink } from 'node:fs/promises';
import { type Attributes, decodeAttributes } from '../../protocol/attributes.ts';
import type { StoredVersion, ThinnedVersion } from '../../protocol/messages.ts';
import { joinPath, pathFault, printablePath, splitPath } from '../../protocol/paths.ts';
import { open, verifyVersionOf } from '../../protocol/sealing/index.ts';
import { readAccounts } from '../files/accounts.ts';
import { JobPool } from '../files/job-pool.ts';
import { isAtOrBelow } from '../files/path-rules.ts';
import { smallBytesMax } from '../files/read.ts';
import type { LocalPath } from '../files/types.ts';
import { decodeWtf8 } from '../files/wtf8.ts';
import { applyToSymlink, type Ownership, ownershipIn } from './apply.ts';
import { type AskedVersion, askVersions } from './asked-versions.ts';
import { Fetcher } from './fetcher.ts';
import { type Folder, openTarget } from './folders.ts';
import { HardLinks } from './hard-links.ts';
import { chooseName, finish, type OpenFolder, openIn, openTop, release } from './open-folders.ts';
import { makeWay, printable, standingAt } from './place.ts';
import { type FileToRestore, restoreFile } from './restore-file.ts';
import { closeStaging, type Staging } from './staging.ts';
import { openStagingFor } from './staging-place.ts';
import { LeftOut, RestoreEnded, type RestoreOptions, type RestoreReport } from './types.ts';
import { Ledger, leftOutBy, settingAttributes, type Work } from './work.ts';

/** Files compared side by side: eight small ones, or two that are read piece by piece. */
const checksWeightMax = 8;
const largeCheckWeight = 4;

/**
 * @returns what was done; `complete` is false when files were left out
 * @throws RestoreError when the target cannot be used; the client's errors when the server stays away; the signal's
 *   reason when it aborts. Unfinished files are kept then, and the same restore run again goes on with them, unless the signal
 *   or `goesOn` says that nobody will.
 */
export async function restore(options: RestoreOptions): Promise<RestoreReport> {
  const stop = new AbortController();
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal;
  signal.throwIfAborted();
  const ledger = new Ledger(options);
  const { seq, at, versions } = await askVersions(options, signal, ({ path, next, comes }) => {
    if (comes) ledger.notice(path, 'attributes_not_set', thinnedInWords(next));
    else ledger.problem(path, 'version_thinned', thinnedInWords(next));
  });
  let target: Folder | null = null;
  try {
    target = await openTarget(options);
    const place = await openStagingFor(target, options);
    let done: { work: Work; top: OpenFolder };
    let keep = false;
    try {
      const { staging } = place;
      done = await restoreVersions(options, { target, staging, ledger, stop, signal }, versions);
    } catch (error) {
      keep = isGoneOnWith(options, error);
      throw error;
    } finally {
      await closeStaging(place.in, place.staging, { keep });
      if (place.in !== target) await place.in.close();
    }
    const { work, top } = done;
    if (top.version) await finish(work, top); // last: the staging folder was in it
    const { counts, problems, notices } = work.ledger;
    return { seq, at, complete: counts.problems === 0, counts, problems, notices };
  } finally {
    stop.abort(); // the list of versions may still be coming
    await target?.close();
  }
}

function thinnedInWords(next: ThinnedVersion['next']): string {
  const none = 'retention keeps no version of it from before this moment';
  return next ? `${none}; the next one is of ${new Date(next.committedAt).toISOString()}` : none;
}

function isGoneOnWith({ signal, goesOn }: RestoreOptions, error: unknown): boolean {
  if (signal?.aborted) return !(signal.reason instanceof RestoreEnded);
  return goesOn?.(error) ?? true;
}

async function restoreVersions(
  options: RestoreOptions,
  place: { target: Folder; staging: Staging; ledger: Ledger; stop: AbortController; signal: AbortSignal },
  versions: AsyncIterable<AskedVersion>,
): Promise<{ work: Work; top: OpenFolder }> {
  const { target, staging, ledger, stop, signal } = place;
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
  const work: Work = {
    options,
    target,
    staging,
    ownership: await ownershipFor(options),
    fetcher,
    links: new HardLinks(),
    active,
    signal,
    ledger,
    checks: new JobPool(checksWeightMax),
  };
  const top = openTop(target, baseOf(options));
  const stack: OpenFolder[] = [top];
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
  return { work, top };
}

async function ownershipFor({ permissions, owner }: RestoreOptions): Promise<Ownership | null> {
  const isRoot = process.geteuid?.() === 0;
  if (permissions === 'folder') return { umask: process.umask(), isRoot, of: null };
  return owner === true && isRoot ? { accounts: await readAccounts() } : null;
}

async function restoreVersion(work: Work, stack: OpenFolder[], asked: AskedVersion): Promise<void> {
  const { ledger, options } = work;
  if (asked.gone !== undefined) return ledger.problem(asked.path, 'version_gone', asked.gone);
  const { version } = asked;
  if (version.deleted) return;
  if (version.kind === 'file') ledger.seen(version.size);
  await leavingOutFaults(work, version, async () => {
    const names = namesBelow(asked.path, baseOf(options), version.path);
    const attributes = authenticate(work, version);
    const name = names.at(-1);
    if (name === undefined) return restoreTop(work, stack[0]!, { version, attributes });
    const parent = await folderFor(work, stack, names.slice(0, -1));
    await restoreEntry(work, stack, { parent, archiveName: name, version, attributes });
  });
}

/** What the target itself stands for; of '/', nothing is known. */
function restoreTop(work: Work, top: OpenFolder, of: { version: StoredVersion; attributes: Attributes }): void {
  if (work.options.base === undefined) return;
  if (of.version.kind !== 'directory')
    throw new LeftOut('parent_not_folder', 'the target stands for it, and it is no folder');
  top.version = { stored: of.version, attributes: of.attributes };
  work.ledger.counts.folders++;
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

/** The archive's folder that the target stands for. */
function baseOf({ base, path }: RestoreOptions): Buffer {
  if (base !== undefined) return base;
  const first = path instanceof Uint8Array ? path : path[0]!;
  return joinPath(splitPath(first).slice(0, -1));
}

/**
 * The names below the target that a path of the manifest leads to: '/a/b/c' of '/a' is b, c.
 * @throws LeftOut path_not_allowed for anything that was not asked for, or is no path
 */
function namesBelow(asked: Buffer, base: Buffer, path: Buffer): Buffer[] {
  const fault = pathFault(path);
  if (fault) throw new LeftOut('path_not_allowed', `its path ${fault}`);
  for (const above of [asked, base])
    if (!isAtOrBelow(path, above)) throw new LeftOut('path_not_allowed', `it does not lie in ${printablePath(above)}`);
  return splitPath(path).slice(splitPath(base).length);
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
    const above = parent.path.byteLength === 1 ? Buffer.alloc(0) : parent.path;
    const path = Buffer.concat([above, Buffer.of(0x2f), archiveName]);
    const name = chooseName(work, parent, archiveName, path);
    stack.push(await openIn(work, parent, { archiveName, name, path, version: null }));
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
  stack.push(await openIn(work, parent, opened));
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
    applyToSymlink(folder.at(name), attributes, version.mtime, ownershipIn(work.ownership, same ? null : folder)),
  );
  work.ledger.counts.symlinks++;
}
