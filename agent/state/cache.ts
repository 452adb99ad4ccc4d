/**
 * What the agent remembers of its archive and its disk: a row per path, never the list in memory. A run has a number,
 * its generation; rows it met carry it, so that what was deleted is whatever carries an older one.
 * Writes gather in one transaction until `flush`; a crash before it costs re-reading, never a wrong row.
 */

import type { FileKind } from '../../protocol/messages.ts';
import { below, bufferOf, signed64 } from './cache-database.ts';
import { RunRecords } from './run-records.ts';

/** What a path looked like when it was stored. */
export interface CachedFile {
  id: number;
  kind: FileKind;
  size: number;
  mtimeMs: number;
  mtimeNs: bigint;
  ctimeNs: bigint;
  inode: bigint;
  trusted: boolean;
  attributesDigest: Buffer;
  seq: number;
  generation: number;
  storedAtMs: number;
}

/** A file state on its way into the archive. */
export interface PendingFile {
  path: Buffer;
  deleted: boolean;
  kind: FileKind;
  size: number;
  mtimeMs: number;
  mtimeNs: bigint;
  ctimeNs: bigint;
  inode: bigint;
  trusted: boolean;
  attributesDigest: Buffer;
  /** What its content is made of: n x 32 bytes of blocks, or of a large file of lists. */
  blocks: Buffer;
  lists: Buffer;
}

export interface ArchiveMark {
  /** The last commit seen acknowledged, and the seq of its first version. */
  lastCommit: { commitId: Buffer; seq: number } | null;
  /** The archive's last seq as this agent knows it: all up to it is in the rows. */
  knownSeq: number;
  purgeEpoch: number;
}

export { signed64 } from './cache-database.ts';
export type { RootIdentity, RunRow, SkippedRow } from './run-records.ts';

export class Cache extends RunRecords {
  // --- files ------------------------------------------------------------------------------------------------------

  lookup(path: Uint8Array): CachedFile | null {
    const row = this.statement(
      `select id, kind, size, mtime_ms, mtime_ns, ctime_ns, inode, trusted, attributes_digest, seq, generation, stored_at from files where path = ?`,
      true,
    ).get(path);
    if (!row) return null;
    return {
      id: Number(row.id),
      kind: row.kind as FileKind,
      size: Number(row.size),
      mtimeMs: Number(row.mtime_ms),
      mtimeNs: row.mtime_ns as bigint,
      ctimeNs: row.ctime_ns as bigint,
      inode: row.inode as bigint,
      trusted: row.trusted === 1n,
      attributesDigest: bufferOf(row.attributes_digest),
      seq: Number(row.seq),
      generation: Number(row.generation),
      storedAtMs: Number(row.stored_at),
    };
  }

  /** The names of a row's blocks or lists, n x 32 bytes each. */
  contentOf(id: number): { blocks: Buffer; lists: Buffer } {
    const row = this.statement('select blocks, lists from files where id = ?').get(id);
    return { blocks: bufferOf(row?.blocks), lists: bufferOf(row?.lists) };
  }

  /** Whether a row's content is made of these blocks and lists. */
  hasContent(id: number, { blocks, lists }: Pick<PendingFile, 'blocks' | 'lists'>): boolean {
    const content = this.contentOf(id);
    return content.blocks.equals(blocks) && content.lists.equals(lists);
  }

  /** What is at this path is to be read again, whatever its size and times say. */
  distrust(path: Uint8Array): void {
    this.write('update files set trusted = 0 where path = ?').run(path);
  }

  /** This run met the path, as it was. */
  markSeen(id: number, generation: number): void {
    this.write('update files set generation = ? where id = ?').run(generation, id);
  }

  /** This run met the path with content and attributes as stored, but with other times or another inode. */
  refresh(
    id: number,
    generation: number,
    file: Omit<PendingFile, 'path' | 'deleted' | 'blocks' | 'lists' | 'attributesDigest' | 'kind'>,
  ): void {
    this.write(
      'update files set generation = ?, size = ?, mtime_ms = ?, mtime_ns = ?, ctime_ns = ?, inode = ?, trusted = ? where id = ?',
    ).run(
      generation,
      file.size,
      file.mtimeMs,
      file.mtimeNs,
      file.ctimeNs,
      signed64(file.inode),
      file.trusted ? 1 : 0,
      id,
    );
  }

  /** What the archive holds at a path (and below it) is not to be taken as deleted by this run: nobody looked. */
  keep(path: Buffer, subtree: boolean, generation: number): void {
    this.write('update files set generation = ? where path = ? and generation > 0').run(generation, path);
    if (!subtree) return;
    const { from, to } = below(path);
    this.write('update files set generation = ? where path > ? and path < ? and generation > 0').run(
      generation,
      from,
      to,
    );
  }

  /** Whether the archive holds anything below a path that was met on this disk before. */
  hasFilesBelow(path: Buffer): boolean {
    const { from, to } = below(path);
    return (
      this.statement('select 1 from files where path > ? and path < ? and generation > 0 limit 1').get(from, to) !==
      undefined
    );
  }

  /**
   * Paths below `root` (and it itself) that earlier runs met and this one did not, page by page in byte order.
   * @param unseenToo also those that no run met on this disk: known from the archive only
   */
  *gone(root: Buffer, generation: number, unseenToo: boolean): Generator<{ path: Buffer; kind: FileKind }> {
    const { from, to } = below(root);
    const least = unseenToo ? 0 : 1;
    const own = this.statement(
      'select path, kind from files where path = ? and generation >= ? and generation < ?',
    ).get(root, least, generation);
    if (own) yield { path: bufferOf(own.path), kind: own.kind as FileKind };
    for (let after: Uint8Array = from; ; ) {
      const page = this.statement(
        'select path, kind from files where path > ? and path < ? and generation >= ? and generation < ? order by path limit 1000',
      ).all(after, to, least, generation);
      for (const row of page) yield { path: bufferOf(row.path), kind: row.kind as FileKind };
      const last = page.at(-1);
      if (!last) return;
      after = last.path as Uint8Array;
    }
  }

  // --- the commit under way -------------------------------------------------------------------------------------------

  /** Remembers, durably against a crash of this process, what is about to be sent. */
  prepareCommit(
    commitId: Buffer,
    body: Uint8Array,
    files: readonly PendingFile[],
    generation: number,
    now: number,
  ): void {
    this.dropPendingCommit();
    this.write('insert into pending_commit(commit_id, body) values (?, ?)').run(commitId, body);
    const insert = this.write(
      `insert into pending_files(place, path, deleted, generation, kind, size, mtime_ms, mtime_ns, ctime_ns, inode, trusted, attributes_digest, stored_at, blocks, lists)
       values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    for (const [place, file] of files.entries()) {
      insert.run(
        place,
        file.path,
        file.deleted ? 1 : 0,
        generation,
        file.kind,
        file.size,
        file.mtimeMs,
        file.mtimeNs,
        file.ctimeNs,
        signed64(file.inode),
        file.trusted ? 1 : 0,
        file.attributesDigest,
        now,
        file.blocks,
        file.lists,
      );
    }
    this.flush();
  }

  pendingCommit(): { commitId: Buffer; body: Buffer } | null {
    const row = this.statement('select commit_id, body from pending_commit limit 1').get();
    return row ? { commitId: bufferOf(row.commit_id), body: bufferOf(row.body) } : null;
  }

  /** The server acknowledged the pending commit. */
  confirmCommit(firstSeq: number, count: number): void {
    this.write(
      `insert into files(path, generation, seq, kind, size, mtime_ms, mtime_ns, ctime_ns, inode, trusted, attributes_digest, stored_at, blocks, lists)
       select path, generation, ? + place, kind, size, mtime_ms, mtime_ns, ctime_ns, inode, trusted, attributes_digest, stored_at, blocks, lists
         from pending_files where deleted = 0
       on conflict(path) do update set generation = excluded.generation, seq = excluded.seq, kind = excluded.kind, size = excluded.size,
         mtime_ms = excluded.mtime_ms, mtime_ns = excluded.mtime_ns, ctime_ns = excluded.ctime_ns, inode = excluded.inode,
         trusted = excluded.trusted, attributes_digest = excluded.attributes_digest, stored_at = excluded.stored_at, blocks = excluded.blocks,
         lists = excluded.lists`,
    ).run(firstSeq);
    this.write('delete from files where path in (select path from pending_files where deleted = 1)').run();
    const pending = this.pendingCommit();
    if (pending) {
      this.setMeta('lastCommitId', pending.commitId);
      this.setMeta('lastCommitSeq', firstSeq);
    }
    this.setMeta('knownSeq', firstSeq + count - 1);
    this.dropPendingCommit();
    this.flush();
  }

  dropPendingCommit(): void {
    this.write('delete from pending_commit').run();
    this.write('delete from pending_files').run();
  }

  // --- the archive --------------------------------------------------------------------------------------------------

  archiveMark(): ArchiveMark {
    const commitId = this.meta('lastCommitId');
    return {
      lastCommit: commitId ? { commitId: bufferOf(commitId), seq: Number(this.meta('lastCommitSeq')) } : null,
      knownSeq: Number(this.meta('knownSeq') ?? 0),
      purgeEpoch: Number(this.meta('purgeEpoch') ?? 0),
    };
  }

  /** After reconciling: the rows show the archive up to `knownSeq`. `lastCommit` false: the server does not know it any more. */
  setArchiveMark(mark: { knownSeq: number; purgeEpoch: number; keepLastCommit: boolean }): void {
    this.setMeta('knownSeq', mark.knownSeq);
    this.setMeta('purgeEpoch', mark.purgeEpoch);
    if (!mark.keepLastCommit) {
      this.write(`delete from meta where key in ('lastCommitId', 'lastCommitSeq')`).run();
    }
    this.flush();
  }

  /**
   * One version of the archive's state while reconciling. A row that says the same keeps what it knows of the disk.
   * @param generationIfNew of a path without a row: 0 when it may never have been on this disk
   */
  reconcileVersion(
    version: Omit<PendingFile, 'deleted' | 'mtimeNs' | 'ctimeNs' | 'inode' | 'trusted'>,
    seq: number,
    mark: number,
    generationIfNew: number,
  ): void {
    const cached = this.lookup(version.path);
    const same =
      cached !== null &&
      cached.kind === version.kind &&
      cached.size === version.size &&
      cached.mtimeMs === version.mtimeMs &&
      cached.attributesDigest.equals(version.attributesDigest) &&
      this.hasContent(cached.id, version);
    if (same) {
      this.write('update files set mark = ?, seq = ? where id = ?').run(mark, seq, cached.id);
      return;
    }
    this.write(
      `insert into files(path, generation, mark, seq, kind, size, mtime_ms, mtime_ns, ctime_ns, inode, trusted, attributes_digest, stored_at, blocks, lists)
       values (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, ?, 0, ?, ?)
       on conflict(path) do update set mark = excluded.mark, seq = excluded.seq, kind = excluded.kind, size = excluded.size,
         mtime_ms = excluded.mtime_ms, trusted = 0, attributes_digest = excluded.attributes_digest, blocks = excluded.blocks, lists = excluded.lists`,
    ).run(
      version.path,
      generationIfNew,
      mark,
      seq,
      version.kind,
      version.size,
      version.mtimeMs,
      version.attributesDigest,
      version.blocks,
      version.lists,
    );
  }

  /** Forgets rows the archive did not show while reconciling: their files are stored anew. @returns how many */
  forgetUnmarked(mark: number): number {
    const { changes } = this.write('delete from files where mark <> ?').run(mark);
    this.flush();
    return Number(changes);
  }

  nextMark(): number {
    const mark = Number(this.meta('mark') ?? 0) + 1;
    this.setMeta('mark', mark);
    return mark;
  }

  fileCount(): number {
    return Number(this.statement('select count(*) as n from files').get()?.n ?? 0);
  }
}
