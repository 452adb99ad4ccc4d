/**
 * The one way to change a plain archive: files appear under their names, or are hidden, all of one call or none.
 *
 * No run and no commit id: a change says what is to be so, not what to do. What is so already is left out, so whatever is
 * sent again after a lost answer changes nothing. A file that is hidden has the record of its deletion as its latest
 * version, and what it was stays behind it; nothing here ever deletes.
 *
 * Lock order: the archive, then its blocks by hash (refs.ts), as any commit, and its figures last. Those of what is hidden come
 * after the rows of files: nobody goes from blocks to files. A block that reclaim takes away meanwhile is ours or missing,
 * never half of both.
 */
import { joinPath } from '../../../protocol/paths.ts';
import { Problem } from '../../../protocol/problems.ts';
import type { Transaction } from '../../catalog/database.ts';
import { noteHiddenBlocks } from '../../catalog/hidden-blocks.ts';
import { lockRows } from '../../catalog/lock-rows.ts';
import { addRefs } from '../../catalog/refs.ts';
import { addUsage } from '../../catalog/usage.ts';
import {
  type ArchiveRow,
  advanceArchive,
  insertVersions,
  lockArchive,
  markFilesDue,
} from '../../catalog/writing/commits.ts';
import {
  type LatestPlain,
  latestPlainFiles,
  type PlainName,
  plainHistoryMax,
} from '../../catalog/writing/plain-files.ts';
import type { ArchiveRef } from '../../storage.ts';
import { resolvePaths } from '../writing/commit.ts';
import { countRefs, toRefCounts } from '../writing/count-refs.ts';
import { countChanged } from './count-figures.ts';

export type { PlainName } from '../../catalog/writing/plain-files.ts';

export interface PlainContent {
  /** Bytes. */
  size: number;
  /** n x 32 bytes: hashes of blocks that the vault holds, in order. */
  blocks: Buffer;
}

export interface PlainChange {
  file: PlainName;
  /** What the file is from now on; null: it is hidden. */
  content: PlainContent | null;
  /** What is there is kept, unless it is the same: such a change is refused. */
  keepsOther?: boolean;
}

/** What a change has done. */
export interface PlainChanged {
  file: PlainName;
  /** What the file was; null: there was none. */
  before: { deleted: boolean /** Of what it still has, hidden or not. */; heldBytes: number } | null;
  /** Null: it is hidden now. */
  after: { size: number } | null;
}

/** Changes in one call, at most: all of it is one transaction under the archive's lock. */
export const plainChangesMax = 4_000;

const noMac = Buffer.alloc(32);
const nothing = Buffer.alloc(0);

/**
 * @param changes at most `plainChangesMax`, each file once
 * @param options.sent false: content is only shown again that was there before
 * @returns those that changed something
 * @throws Problem not_found (no such archive), archive_not_active, conflict (an agent's archive), forbidden (`keepsOther`, or
 *   content for a name with `plainHistoryMax` versions), unavailable (a block is not there, or is damaged: send it again); the
 *   caller rolls back
 */
export async function commitPlain(
  tx: Transaction,
  ref: ArchiveRef,
  changes: readonly PlainChange[],
  { sent = true }: { sent?: boolean } = {},
): Promise<PlainChanged[]> {
  const archive = await lockArchive(tx, ref);
  if (!archive) throw new Problem('not_found', 'there is no such archive');
  if (archive.kind !== 'plain') throw new Problem('conflict', 'files of this archive are written by an agent');
  if (archive.state !== 'active')
    throw new Problem('archive_not_active', `this archive is ${archive.state} and takes no files`);
  const wanted = await findWanted(tx, ref, changes);
  if (wanted.length === 0) return [];
  // Undoing is let through: it comes of people, and a step at a time. So is hiding, or `forget` and `prune` would end at the name.
  if (sent && wanted.some(({ change, before }) => change.content && before && before.versions >= plainHistoryMax))
    throw new Problem('forbidden', 'this name has come and gone so often that it is taken no more for now');

  const named = toRefCounts(countRefs(wanted.map(({ change }) => change.content?.blocks ?? nothing)));
  const hidden = wanted.filter(({ change }) => change.content === null);
  await lockBlocks(
    tx,
    ref,
    named.hashes,
    hidden.map(({ before }) => before!.blocks),
  );
  const referenced = await addRefs(tx, ref.vault, named);
  if (!referenced)
    throw new Problem('unavailable', 'the content of a file is not stored (any more); send it again', {
      retryAfterSeconds: 1,
    });
  const { fileIds, nextFileId } = await findOrMake(tx, ref, archive, wanted);
  const hasContent = (size: number | undefined): number => Number((size ?? 0) > 0);
  await advanceArchive(tx, ref, {
    seq: archive.nextSeq + wanted.length,
    fileId: nextFileId,
    moreVersions: wanted.length,
    moreLiveFiles: wanted.reduce(
      (sum, { change, before }) =>
        sum + hasContent(change.content?.size) - hasContent(before?.deleted ? 0 : before?.size),
      0,
    ),
  });
  await insertVersions(
    tx,
    ref,
    archive.nextSeq,
    wanted.map(({ change: { content } }, i) => ({
      fileId: fileIds[i]!,
      kind: 'file',
      deleted: content === null,
      size: content?.size ?? 0,
      mtime: 0,
      attributes: nothing,
      mac: noMac,
      blocks: content?.blocks ?? nothing,
      lists: nothing,
    })),
  );
  await markFilesDue(
    tx,
    ref,
    fileIds.filter((_, i) => wanted[i]!.before !== undefined),
  );
  const hiddenBytes = await noteHiddenBlocks(
    tx,
    ref,
    hidden.filter(({ before }) => before!.size > 0).map(({ before }) => before!.fileId),
  );
  await addUsage(tx, ref.vault, {
    hiddenBytes,
    logicalBytes: wanted.reduce((sum, { change }) => sum + (change.content?.size ?? 0), 0),
    referencedBytes: referenced.bytes,
    versions: wanted.length,
  });
  const changed = wanted.map(({ change, before }) => ({
    file: change.file,
    before: before ? { deleted: before.deleted, heldBytes: before.heldBytes } : null,
    after: change.content && { size: change.content.size },
  }));
  await countChanged(tx, ref, changed, { sent });
  return changed;
}

/** Of what is shown and of what is hidden, in one pass. What is missing or damaged is whoever counts names to see. */
async function lockBlocks(
  tx: Transaction,
  { vault }: ArchiveRef,
  shown: Buffer,
  hidden: readonly Buffer[],
): Promise<void> {
  // Of the one without the other, the blocks are locked when names are counted, or when they are noted as hidden.
  if (shown.byteLength === 0 || hidden.length === 0) return;
  const hashes = toRefCounts(countRefs([shown, ...hidden])).hashes;
  await lockRows(tx, vault, 'blocks', hashes, { damagedToo: true });
}

/** The rows of files; only names that are new take more than was looked up already. */
async function findOrMake(
  tx: Transaction,
  ref: ArchiveRef,
  archive: ArchiveRow,
  wanted: readonly Wanted[],
): Promise<{ fileIds: number[]; nextFileId: number }> {
  const known = wanted.flatMap(({ before }) => before?.fileId ?? []);
  if (known.length === wanted.length) return { fileIds: known, nextFileId: archive.nextFileId };
  const paths = wanted.map(({ change }) => ({ path: plainPath(change.file) }));
  return resolvePaths(tx, ref, archive, paths);
}

function plainPath({ folder, name }: PlainName): Buffer {
  return joinPath((folder === '' ? [name] : [folder, name]).map((each) => Buffer.from(each)));
}

interface Wanted {
  change: PlainChange;
  before: LatestPlain | undefined;
}

/** The changes that change something. What is not there, and is to be hidden, gets no row. */
async function findWanted(tx: Transaction, ref: ArchiveRef, changes: readonly PlainChange[]): Promise<Wanted[]> {
  const latest = await latestPlainFiles(
    tx,
    ref,
    changes.map(({ file }) => file),
  );
  return changes.flatMap((change, i) => (isSo(change, latest[i]) ? [] : [{ change, before: latest[i] }]));
}

function isSo({ file, content, keepsOther }: PlainChange, before: LatestPlain | undefined): boolean {
  if (before === undefined || before.deleted) return content === null;
  if (content === null) return false;
  if (before.size === content.size && before.blocks.equals(content.blocks)) return true;
  if (keepsOther) throw new Problem('forbidden', `${file.name} is there, and is not written over`);
  return false;
}
