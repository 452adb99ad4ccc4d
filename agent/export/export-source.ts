/**
 * A sealed export as what a restore takes versions and blocks from: read at their places, which a scan has found. What is
 * read is checked as if a server had sent it: blocks and lists against their names, versions against their MACs.
 */
import type { FileHandle } from 'node:fs/promises';
import type { BlockFrame } from '../../protocol/block-frames.ts';
import { hashAt, hashCount } from '../../protocol/hashes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { joinPath, printablePath } from '../../protocol/paths.ts';
import { Problem } from '../../protocol/problems.ts';
import { commonFolder, isAtOrBelow } from '../files/path-rules.ts';
import type { RestoreSource } from '../restore/types.ts';
import type { ExportIndex, ExportPlace } from '../state/export-index.ts';
import { readVersion, type ScannedExport } from './scan-export.ts';

/** Places that lie close together are read at once: so many bytes, with so many between that nobody wants. */
const runBytesMax = 1024 * 1024;
const gapBytesMax = 16 * 1024;

export interface ExportSourceOptions {
  file: Pick<FileHandle, 'read'>;
  index: Pick<ExportIndex, 'find' | 'versions'>;
  scanned: Pick<ScannedExport, 'header' | 'chosen'>;
  /** Told of a version that cannot be read at all; not even its path is known. */
  onUnreadable: (at: number) => void;
}

export class ExportSource implements RestoreSource {
  readonly #options: ExportSourceOptions;

  constructor(options: ExportSourceOptions) {
    this.#options = options;
  }

  /** @throws Problem not_found, field `path`, as a server: a part was asked for of which the export holds nothing */
  async versions(
    _archive: number,
    query: { path?: Uint8Array },
    signal?: AbortSignal,
  ): Promise<{ seq: number; at: number; versions: AsyncIterable<StoredVersion> }> {
    const { header, chosen } = this.#options.scanned;
    const path = Buffer.from(query.path ?? joinPath([]));
    const versions = this.#versionsBelow(path, signal);
    const first = await versions.next();
    // All of an export may be nothing, where nothing was at what was chosen.
    if (first.done && !isAtOrBelow(commonFolder(chosen), path))
      throw new Problem('not_found', `the export holds nothing at ${printablePath(path)}`, { field: 'path' });
    return { seq: header.seq, at: header.at, versions: withFirst(first, versions) };
  }

  async *#versionsBelow(above: Buffer, signal: AbortSignal | undefined): AsyncGenerator<StoredVersion> {
    const { index, onUnreadable } = this.#options;
    for (const place of index.versions()) {
      signal?.throwIfAborted();
      const version = readVersion(await this.#read(place));
      if (version === null) onUnreadable(place.at);
      else if (isAtOrBelow(version.path, above)) yield version;
    }
  }

  /** Versions that a few of its first are, for trying keys on. */
  async firstVersions(count: number): Promise<StoredVersion[]> {
    const found: StoredVersion[] = [];
    for (const place of this.#options.index.versions()) {
      const version = readVersion(await this.#read(place));
      if (version) found.push(version);
      if (found.length === count) break;
    }
    return found;
  }

  fetchBlocks(hashes: Uint8Array, signal?: AbortSignal): AsyncIterable<BlockFrame> {
    return this.#fetch('block', hashes, signal);
  }

  fetchLists(hashes: Uint8Array, signal?: AbortSignal): AsyncIterable<BlockFrame> {
    return this.#fetch('list', hashes, signal);
  }

  async *#fetch(
    kind: 'block' | 'list',
    hashes: Uint8Array,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<BlockFrame> {
    const found: (ExportPlace & { index: number })[] = [];
    for (let index = 0; index < hashCount(hashes); index++) {
      const place = this.#options.index.find(kind, hashAt(hashes, index));
      if (place) found.push({ ...place, index });
      else yield { index, bytes: null };
    }
    found.sort((a, b) => a.at - b.at);
    for (const run of runsOf(found)) {
      signal?.throwIfAborted();
      const { at } = run[0]!;
      const { at: lastAt, bytes: lastBytes } = run.at(-1)!;
      const bytes = await this.#read({ at, bytes: lastAt + lastBytes - at });
      for (const each of run)
        yield { index: each.index, bytes: bytes.subarray(each.at - at, each.at - at + each.bytes) };
    }
  }

  async #read({ at, bytes }: ExportPlace): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(bytes);
    for (let done = 0; done < bytes; ) {
      const { bytesRead } = await this.#options.file.read(buffer, done, bytes - done, at + done);
      if (bytesRead === 0) throw new Error('the export has become shorter while it was read');
      done += bytesRead;
    }
    return buffer;
  }
}

async function* withFirst<T>(first: IteratorResult<T, unknown>, rest: AsyncGenerator<T>): AsyncGenerator<T> {
  if (first.done) return;
  yield first.value;
  yield* rest;
}

/** Neighbours together. Places do not overlap, and each is read at least alone, whatever its length. */
function* runsOf<Place extends ExportPlace>(places: readonly Place[]): Generator<Place[]> {
  let run: Place[] = [];
  for (const place of places) {
    const [first, last] = [run[0], run.at(-1)];
    const isNear = first && last && place.at - (last.at + last.bytes) <= gapBytesMax;
    if (run.length > 0 && !(isNear && place.at + place.bytes - first!.at <= runBytesMax)) {
      yield run;
      run = [];
    }
    run.push(place);
  }
  if (run.length > 0) yield run;
}
