/**
 * Makes versions of files part of an archive, all of them or none, once however often the commit is sent.
 *
 * One transaction holds the archive, then locks every list and then every block the versions name, in hash order, and
 * counts them. A block that reclaim is taking away meanwhile is either ours (it sees refs > 0) or missing (we see no
 * row); so a version never names a block that is not there. The blocks behind a list are not touched: the list counts
 * on them for as long as it exists.
 */
import { hashAt, sha256 } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import type { CommitAnswer, CommitRequest, VersionMessage } from '../../../protocol/messages.ts';
import { printablePath, splitPath } from '../../../protocol/paths.ts';
import { Problem } from '../../../protocol/problems.ts';
import { raiseAlert } from '../../catalog/checking/alerts.ts';
import type { Transaction } from '../../catalog/database.ts';
import { addListRefs, addRefs, type RefCounts } from '../../catalog/refs.ts';
import { addUsage } from '../../catalog/usage.ts';
import {
  type ArchiveRow,
  advanceArchive,
  beginWatch,
  countReplaced,
  findCommit,
  findFiles,
  findLatestVersions,
  findMissingBlocks,
  findMissingLists,
  insertCommit,
  insertFiles,
  insertVersions,
  type LatestVersion,
  lockArchive,
  markFilesDue,
  markFolder,
  markRunSuspicious,
  type NewFile,
  touchRun,
} from '../../catalog/writing/commits.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import { countRefs, toRefCounts } from './count-refs.ts';

/**
 * @param bodySha256 digest of the request's body as it came: a repeated commit has the same
 * @throws Problem blocks_missing { missing: hex[] }, commit_id_reused, archive_changed { purgeEpoch }, archive_not_active,
 *   path_repeated, out_of_bounds, run_finished, not_found
 */
export async function commitVersions(
  storage: Storage,
  ref: ArchiveRef,
  request: CommitRequest,
  bodySha256: Buffer,
): Promise<CommitAnswer> {
  refuseRepeatedPaths(request.versions);
  const refs = refsOf(request.versions);

  const result = await storage.database
    .transaction(async (tx) => {
      const archive = await lockArchive(tx, ref);
      if (!archive) throw new Problem('not_found', 'there is no such archive');
      const earlier = await findCommit(tx, ref, request.commitId);
      if (earlier) {
        if (!earlier.bodySha256.equals(bodySha256))
          throw new Problem('commit_id_reused', 'another commit was made under this commitId', { field: 'commitId' });
        return { firstSeq: earlier.firstSeq, count: earlier.count, purgeEpoch: archive.purgeEpoch };
      }
      const { beforeSeq } = await refuseUnlessReady(tx, ref, archive, request);
      const watch = { beforeSeq, windowMs: storage.settings.suspiciousWindowMs };
      const watchedFrom = (await beginWatch(tx, ref, watch)) ?? archive.watchBeforeSeq;
      if (!(await addListRefs(tx, ref.vault, refs.lists))) throw new BlocksMissing();
      const referenced = await addRefs(tx, ref.vault, refs.blocks);
      if (!referenced) throw new BlocksMissing();
      const answer = await insertAll(storage, tx, ref, { archive, request, bodySha256, watchedFrom });
      await addUsage(tx, ref.vault, {
        logicalBytes: request.versions.reduce((sum, version) => sum + version.size, 0),
        referencedBytes: referenced.bytes,
        versions: answer.count,
      });
      return answer;
    })
    .catch((error: unknown) => {
      if (error instanceof BlocksMissing) return null;
      throw error;
    });
  return result ?? refuseForMissing(storage, ref, refs);
}

/** Rolls the transaction back; which blocks are missing is asked afterwards, outside the archive's lock. */
class BlocksMissing extends Error {}

interface NamedRefs {
  blocks: RefCounts;
  lists: RefCounts;
}

async function refuseForMissing(storage: Storage, ref: ArchiveRef, { blocks, lists }: NamedRefs): Promise<never> {
  const missing = await findMissingBlocks(storage.database, ref.vault, blocks.hashes);
  const missingLists = await findMissingLists(storage.database, ref.vault, lists.hashes);
  // Somebody may have sent them between the two looks. Then the same commit, sent again, finds them.
  if (missing.length + missingLists.length === 0)
    throw new Problem('unavailable', 'a block arrived only just now; send this commit again', { retryAfterSeconds: 1 });
  throw new Problem(
    'blocks_missing',
    `${missing.length} of the blocks and ${missingLists.length} of the lists named are not stored; send them, then commit again`,
    {
      field: 'versions',
      missing: missing.map((i) => hashAt(blocks.hashes, i).toString('hex')),
      missingLists: missingLists.map((i) => hashAt(lists.hashes, i).toString('hex')),
    },
  );
}

function refuseRepeatedPaths(versions: readonly VersionMessage[]): void {
  const seen = new Set<string>();
  for (const [index, { path }] of versions.entries()) {
    const key = path.toString('latin1');
    if (seen.has(key))
      throw new Problem('path_repeated', `${printablePath(path)} is named twice in one commit`, {
        field: `versions.${index}.path`,
      });
    seen.add(key);
  }
}

/** Distinct hashes and how many versions name each. */
function refsOf(versions: readonly VersionMessage[]): NamedRefs {
  const blocks = countRefs(versions.map((version) => version.blocks));
  const lists = countRefs(versions.map((version) => version.lists));
  const named = blocks.size + lists.size;
  if (named > limits.commitHashesMax) {
    throw new Problem(
      'out_of_bounds',
      `the commit names ${named} distinct blocks and lists, at most ${limits.commitHashesMax}`,
      { field: 'versions' },
    );
  }
  return { blocks: toRefCounts(blocks), lists: toRefCounts(lists) };
}

async function refuseUnlessReady(
  tx: Transaction,
  ref: ArchiveRef,
  archive: ArchiveRow,
  request: CommitRequest,
): Promise<{ beforeSeq: number }> {
  if (archive.state !== 'active')
    throw new Problem('archive_not_active', `this archive is ${archive.state} and takes no commits`);
  if (archive.kind !== 'agent') throw new Problem('conflict', 'no agent writes this archive');
  if (request.purgeEpoch !== archive.purgeEpoch) {
    throw new Problem(
      'archive_changed',
      'paths were purged since this agent last looked; compare with the tree, then commit again',
      {
        field: 'purgeEpoch',
        purgeEpoch: archive.purgeEpoch,
      },
    );
  }
  const run = await touchRun(tx, ref, request.run);
  if (!run) throw new Problem('not_found', 'there is no such run; start one', { field: 'run' });
  if (run.finished) throw new Problem('run_finished', 'this run has ended; start another', { field: 'run' });
  return run;
}

async function insertAll(
  storage: Storage,
  tx: Transaction,
  ref: ArchiveRef,
  commit: { archive: ArchiveRow; request: CommitRequest; bodySha256: Buffer; watchedFrom: number },
): Promise<CommitAnswer> {
  const { archive, request, bodySha256, watchedFrom } = commit;
  const { versions } = request;
  const { fileIds, nextFileId } = await resolvePaths(tx, ref, archive, versions);
  const before = await latestBefore(tx, ref, archive, fileIds);
  const firstSeq = archive.nextSeq;
  await advanceArchive(tx, ref, {
    seq: firstSeq + versions.length,
    fileId: nextFileId,
    moreVersions: versions.length,
    moreLiveFiles: versions.reduce(
      (sum, version, i) => sum + Number(version.size > 0) - Number(before[i]?.hasContent ?? false),
      0,
    ),
  });
  await insertVersions(
    tx,
    ref,
    firstSeq,
    versions.map((version, i) => ({ ...version, fileId: fileIds[i]! })),
  );
  await markFilesDue(
    tx,
    ref,
    fileIds.filter((_, i) => before[i] || versions[i]!.deleted),
  );
  await insertCommit(tx, ref, {
    commitId: request.commitId,
    run: request.run,
    bodySha256,
    firstSeq,
    count: versions.length,
  });
  await watchForMassChange(
    storage,
    tx,
    ref,
    request,
    before.map((each) => (each && each.seq <= watchedFrom ? each : undefined)),
  );
  return { firstSeq, count: versions.length, purgeEpoch: archive.purgeEpoch };
}

/** What each path was before this commit. Files that it has made itself are not asked for. */
async function latestBefore(
  tx: Transaction,
  ref: ArchiveRef,
  archive: ArchiveRow,
  fileIds: readonly number[],
): Promise<(LatestVersion | undefined)[]> {
  const known = Array.from(fileIds.keys()).filter((i) => fileIds[i]! < archive.nextFileId);
  const latest = await findLatestVersions(
    tx,
    ref,
    known.map((i) => fileIds[i]!),
  );
  const before = new Array<LatestVersion | undefined>(fileIds.length);
  known.forEach((i, position) => {
    before[i] = latest[position];
  });
  return before;
}

/**
 * Ransomware and stolen agents: when an unusual share of the files that were there is changed or deleted within a
 * window, by one run or several, expiry is frozen for the archive in the same transaction, so that no prune can fall
 * between the damage and the alert. Each file counts once.
 * @param before of each version what its file was when the watch began; undefined: it was not there, or has counted
 */
async function watchForMassChange(
  storage: Storage,
  tx: Transaction,
  ref: ArchiveRef,
  { run, versions }: CommitRequest,
  before: readonly (LatestVersion | undefined)[],
): Promise<void> {
  const replaced = versions.filter((version, i) => replaces(version, before[i])).length;
  if (replaced === 0) return;
  const { replacedFiles, liveFilesBefore, watchBeforeSeq, frozen } = await countReplaced(tx, ref, replaced);
  const { suspiciousFilesMin, suspiciousShare } = storage.settings;
  if (frozen || replacedFiles < suspiciousFilesMin || replacedFiles < suspiciousShare * liveFilesBefore) return;
  const { beforeSeq, startedAt } = await markRunSuspicious(tx, ref, run);
  await raiseAlert(tx, {
    ...ref,
    kind: 'suspicious_run',
    details: { run, beforeSeq, startedAt: startedAt.getTime(), watchBeforeSeq, replacedFiles, liveFilesBefore },
  });
}

/** Whether content that was there is not what the file holds from now on. New times and modes replace nothing. */
function replaces(version: VersionMessage, before: LatestVersion | undefined): boolean {
  if (!before?.hasContent) return false;
  return !sha256(Buffer.concat([version.blocks, version.lists])).equals(before.content);
}

/**
 * Finds or makes the row of every path, a level of folders at a time: two statements a level, however many paths.
 * The root ('/') is nobody's child and has no row.
 */
export async function resolvePaths(
  tx: Transaction,
  ref: ArchiveRef,
  archive: ArchiveRow,
  versions: readonly { path: Buffer }[],
): Promise<{ fileIds: number[]; nextFileId: number }> {
  const paths = versions.map((version) => splitPath(version.path));
  const rootIndex = paths.findIndex((names) => names.length === 0);
  if (rootIndex >= 0)
    throw new Problem('path_invalid', 'the root itself is not a file', { field: `versions.${rootIndex}.path` });
  let nextFileId = archive.nextFileId;
  /** The folder or file each path has been followed to so far. */
  const reached = new Array<number>(paths.length).fill(0);

  const depthMax = Math.max(...paths.map((names) => names.length));
  for (let depth = 0; depth < depthMax; depth++) {
    const level = new Map<string, NewFile & { members: number[] }>();
    for (const [i, names] of paths.entries()) {
      const name = names[depth];
      if (!name) continue;
      const parentId = reached[i]!;
      const key = `${parentId}/${name.toString('latin1')}`;
      const file = level.get(key) ?? {
        ...{ parentId, name, folder: false, implied: true, createdSeq: archive.nextSeq + i },
        members: [],
      };
      if (depth === names.length - 1)
        file.implied = false; // it has a version of its own in this commit
      else file.folder = true;
      file.members.push(i);
      level.set(key, file);
    }
    const wanted = [...level.values()];
    const found = await findFiles(tx, ref, wanted);
    const absent = wanted.filter((_, i) => !found[i]);
    if (absent.length > 0) await insertFiles(tx, ref, absent, nextFileId);
    for (const [i, file] of wanted.entries()) {
      const row = found[i];
      if (row && file.folder && !row.folder) await markFolder(tx, ref, row.fileId);
      const id = row?.fileId ?? nextFileId++;
      for (const member of file.members) reached[member] = id;
    }
  }
  return { fileIds: reached, nextFileId };
}
