/**
 * Makes versions of files part of an archive, all of them or none, once however often the commit is sent.
 *
 * One transaction holds the archive, then locks every block the versions name, in hash order, and counts them. A
 * block that reclaim is taking away meanwhile is either ours (it sees refs > 0) or missing (we see no row); so a
 * version never names a block that is not there.
 */
import { hashAt, hashFromKey, joinHashes } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import type { CommitAnswer, CommitRequest, VersionMessage } from '../../protocol/messages.ts';
import { printablePath, splitPath } from '../../protocol/paths.ts';
import { Problem } from '../../protocol/problems.ts';
import {
  type ArchiveRow,
  addRefs,
  advanceArchive,
  findCommit,
  findFiles,
  findMissingBlocks,
  insertCommit,
  insertFiles,
  insertVersions,
  lockArchive,
  markFolder,
  type NewFile,
  touchRun,
} from '../catalog/commits.ts';
import type { Transaction } from '../catalog/database.ts';
import type { ArchiveRef, Storage } from '../storage.ts';
import { countRefs } from './count-refs.ts';

/**
 * @param bodySha256 digest of the request's body as it came: a repeated commit has the same
 * @throws Problem blocks_missing { missing: hex[] }, commit_id_reused, archive_changed { purgeEpoch }, archive_not_active,
 *   path_repeated, lists_unsupported, out_of_bounds, run_finished, not_found
 */
export async function commitVersions(
  storage: Storage,
  ref: ArchiveRef,
  request: CommitRequest,
  bodySha256: Buffer,
): Promise<CommitAnswer> {
  refuseLists(request.versions);
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
      await refuseUnlessReady(tx, ref, archive, request);
      if (!(await addRefs(tx, ref.vault, refs))) throw new BlocksMissing();
      return insertAll(tx, ref, archive, request, bodySha256);
    })
    .catch((error: unknown) => {
      if (error instanceof BlocksMissing) return null;
      throw error;
    });
  return result ?? refuseForMissing(storage, ref, refs.hashes);
}

/** Rolls the transaction back; which blocks are missing is asked afterwards, outside the archive's lock. */
class BlocksMissing extends Error {}

async function refuseForMissing(storage: Storage, ref: ArchiveRef, hashes: Buffer): Promise<never> {
  const missing = await findMissingBlocks(storage.database, ref.vault, hashes);
  // Somebody may have sent them between the two looks. Then the same commit, sent again, finds them.
  if (missing.length === 0)
    throw new Problem('unavailable', 'a block arrived only just now; send this commit again', { retryAfterSeconds: 1 });
  throw new Problem(
    'blocks_missing',
    `${missing.length} of the blocks named are not stored; send them, then commit again`,
    {
      field: 'versions',
      missing: missing.map((i) => hashAt(hashes, i).toString('hex')),
    },
  );
}

function refuseLists(versions: readonly VersionMessage[]): void {
  const index = versions.findIndex((version) => version.lists.byteLength > 0);
  if (index < 0) return;
  throw new Problem(
    'lists_unsupported',
    `this server does not keep lists yet, so ${printablePath(versions[index]!.path)} has to name its blocks`,
    { field: `versions.${index}.lists` },
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
function refsOf(versions: readonly VersionMessage[]): { hashes: Buffer; counts: number[] } {
  const counted = countRefs(versions);
  if (counted.size > limits.commitHashesMax) {
    throw new Problem(
      'out_of_bounds',
      `the commit names ${counted.size} distinct blocks, at most ${limits.commitHashesMax}`,
      { field: 'versions' },
    );
  }
  return { hashes: joinHashes([...counted.keys()].map(hashFromKey)), counts: [...counted.values()] };
}

async function refuseUnlessReady(
  tx: Transaction,
  ref: ArchiveRef,
  archive: ArchiveRow,
  request: CommitRequest,
): Promise<void> {
  if (archive.state !== 'active')
    throw new Problem('archive_not_active', `this archive is ${archive.state} and takes no commits`);
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
}

async function insertAll(
  tx: Transaction,
  ref: ArchiveRef,
  archive: ArchiveRow,
  request: CommitRequest,
  bodySha256: Buffer,
): Promise<CommitAnswer> {
  const { versions } = request;
  const { fileIds, nextFileId } = await resolvePaths(tx, ref, archive, versions);
  const firstSeq = archive.nextSeq;
  await advanceArchive(tx, ref, { seq: firstSeq + versions.length, fileId: nextFileId });
  await insertVersions(
    tx,
    ref,
    firstSeq,
    versions.map((version, i) => ({ ...version, fileId: fileIds[i]! })),
  );
  await insertCommit(tx, ref, {
    commitId: request.commitId,
    run: request.run,
    bodySha256,
    firstSeq,
    count: versions.length,
  });
  return { firstSeq, count: versions.length, purgeEpoch: archive.purgeEpoch };
}

/**
 * Finds or makes the row of every path, a level of folders at a time: two statements a level, however many paths.
 * The root ('/') is nobody's child and has no row.
 */
async function resolvePaths(
  tx: Transaction,
  ref: ArchiveRef,
  archive: ArchiveRow,
  versions: readonly VersionMessage[],
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
      const file = level.get(key) ?? { parentId, name, folder: false, implied: true, members: [] };
      if (depth === names.length - 1)
        file.implied = false; // it has a version of its own in this commit
      else file.folder = true;
      file.members.push(i);
      level.set(key, file);
    }
    const wanted = [...level.values()];
    const found = await findFiles(tx, ref, wanted);
    const absent = wanted.filter((_, i) => !found[i]);
    if (absent.length > 0) await insertFiles(tx, ref, absent, { firstFileId: nextFileId, seq: archive.nextSeq });
    for (const [i, file] of wanted.entries()) {
      const row = found[i];
      if (row && file.folder && !row.folder) await markFolder(tx, ref, row.fileId);
      const id = row?.fileId ?? nextFileId++;
      for (const member of file.members) reached[member] = id;
    }
  }
  return { fileIds: reached, nextFileId };
}
