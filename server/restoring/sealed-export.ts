/**
 * Writes steps as a sealed export (docs/export.md): versions, lists and blocks as they are stored. Nothing is opened, so
 * the server needs no key, and what is authentic is found out by whoever has one. A version comes behind all that it
 * needs: a file that cannot be had is left out and named, however much of it was sent.
 */
import { createHash } from 'node:crypto';
import { hashAt, hashCount, hashKey, sha256 } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import { joinPath } from '../../protocol/paths.ts';
import {
  type ExportFrameName,
  encodeExportMessage,
  exportFrameHead,
  exportMagic,
} from '../../protocol/sealed-export.ts';
import { findLists } from '../../storage/catalog/writing/lists.ts';
import type { ArchiveRef, Storage } from '../../storage/storage.ts';
import { breathe } from './flow/breathe.ts';
import type { Unit } from './flow/fetching.ts';
import type { Window } from './flow/window.ts';
import { filesWithMomentsMax, type LeftOutFile, reportLeftOut, ToldCounts, wholeMoments } from './last-entries.ts';
import type { Step, StepWriter } from './steps.ts';
import {
  type AssembleReport,
  type ExportAbout,
  type Item,
  type LeftOutReason,
  leftOutReasons,
  type Selection,
} from './types.ts';

interface Parts {
  storage: Storage;
  ref: ArchiveRef;
  about: ExportAbout;
  roots: readonly (readonly Buffer[])[];
  selection: Pick<Selection, 'seq' | 'deleted'>;
  window: Window;
  report: AssembleReport;
  /** Where it says of which large files nothing more is to be fetched. */
  givenUp: Set<Item>;
  signal: AbortSignal;
}

/** Bytes hashed in one go. */
const pieceBytes = 1024 * 1024;

export class SealedWriter implements StepWriter {
  readonly #parts: Parts;
  readonly #digest = createHash('sha256');
  readonly #sent = new SentNames();
  readonly #counts = { blocks: 0, lists: 0 };
  readonly #told = new ToldCounts();
  /** Of versions that are in it. What the report counts may be more: parts of a file that was given up were sent all the same. */
  #plainBytes = 0;
  /** Of the file on its way, what the report counts already: a small one whole, of a large one the share of its blocks. */
  #countedBytes = 0;
  /** Of the large file on its way: its blocks, those of them that were given, and their sealed bytes. */
  #blocks = { all: 0, given: 0, bytes: 0 };

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  async *begin(): AsyncGenerator<Buffer> {
    const { ref, about, roots, selection } = this.#parts;
    const { vault, archive } = ref;
    const { guid, at, keys } = about;
    const { seq, deleted } = selection;
    yield* this.#bytes(exportMagic);
    // One by one: what is handed over may know more than whoever has the file is to know.
    yield* this.#bytes(encodeExportMessage('header', { vault, archive, guid, seq, at, deleted, keys }));
    for (const names of roots) yield* this.#frame('chosen', joinPath(names));
  }

  async *write(step: Step, unit: Unit): AsyncGenerator<Buffer> {
    switch (step.do) {
      case 'miss':
        return yield* this.#miss(step.path);
      case 'leave':
        return yield* this.#leave(step);
      case 'folder':
      case 'symlink':
        return yield* this.#version(step.item);
      case 'file':
        return yield* this.#file(step, unit);
      case 'begin':
        this.#countedBytes = 0;
        this.#blocks = { all: hashCount(step.item.version.blocks), given: 0, bytes: 0 };
        return yield* this.#lists(step.item);
      case 'part':
        return yield* this.#part(step, unit);
      case 'end':
        if (!this.#isGivenUp(step.item)) yield* this.#version(step.item);
        return;
      case 'break':
        if (!this.#isGivenUp(step.item)) yield* this.#giveUp(step.item, step.reason);
        return;
      case 'link':
        throw new Error('a sealed export knows of no links');
    }
  }

  async *finish(): AsyncGenerator<Buffer> {
    const { files, folders, symlinks, leftOut, missingPaths } = this.#parts.report.counts;
    const counts = { files, folders, symlinks, bytes: this.#plainBytes, leftOut: leftOut + missingPaths };
    yield encodeExportMessage('end', { ...counts, ...this.#counts, sha256: this.#digest.digest() });
  }

  async *#miss(path: Buffer): AsyncGenerator<Buffer> {
    const { counts, missingPaths } = this.#parts.report;
    counts.missingPaths++;
    missingPaths.push(path);
    const says = 'there was nothing at this path at the moment asked for';
    yield* this.#bytes(encodeExportMessage('leftOut', { path, reason: 'nothing_there', says, moments: [] }));
  }

  async *#leave({ path, seq, reason }: Omit<LeftOutFile, 'asOf'>): AsyncGenerator<Buffer> {
    const { storage, ref, report, signal } = this.#parts;
    const isTold = this.#told.add(reason) < filesWithMomentsMax;
    const whole = isTold ? await wholeMoments(storage, ref, { path, seq, reason, asOf: report.seq }, signal) : [];
    report.counts.leftOut++;
    reportLeftOut(report, { path, reason });
    const moments = whole.map(({ at, ...rest }) => ({ ...rest, at: at.getTime() }));
    yield* this.#bytes(encodeExportMessage('leftOut', { path, reason, says: leftOutReasons[reason], moments }));
  }

  async *#version({ version }: Item): AsyncGenerator<Buffer> {
    const { counts } = this.#parts.report;
    yield* this.#bytes(encodeExportMessage('version', version));
    if (version.kind === 'directory') counts.folders++;
    else if (version.kind === 'symlink') counts.symlinks++;
    else {
      this.#count(version.size, version.size);
      this.#countedBytes = 0;
      counts.files++;
      this.#plainBytes += version.size;
    }
  }

  /** Plain bytes of the file on its way that are given from here on, all in all. */
  #count(bytes: number, size: number): void {
    const counted = Math.max(this.#countedBytes, Math.min(bytes, size));
    this.#parts.report.counts.bytes += counted - this.#countedBytes;
    this.#countedBytes = counted;
  }

  /** All of its blocks are at hand before the first is sent. */
  async *#file({ item, blocks }: Step & { do: 'file' }, unit: Unit): AsyncGenerator<Buffer> {
    const { window } = this.#parts;
    const sealed: Buffer[] = [];
    let heldBytes = 0;
    try {
      for (let i = 0; i < hashCount(blocks); i++) {
        const bytes = unit.take(hashAt(blocks, i), window);
        if (!bytes) return yield* this.#leave({ ...placeOf(item), reason: 'content_damaged' });
        window.holdPlain(bytes.byteLength);
        heldBytes += bytes.byteLength;
        sealed.push(bytes);
      }
      // All of it: whoever has a key opens its blocks without the version that comes behind them.
      this.#count(item.version.size, item.version.size);
      for (const [i, bytes] of sealed.entries()) yield* this.#named('block', hashAt(blocks, i), bytes);
      yield* this.#version(item);
    } finally {
      window.freePlain(heldBytes);
    }
  }

  async *#part({ item, blocks }: Step & { do: 'part' }, unit: Unit): AsyncGenerator<Buffer> {
    const { window } = this.#parts;
    const { size } = item.version;
    for (let i = 0; i < hashCount(blocks) && !this.#isGivenUp(item); i++) {
      const bytes = unit.take(hashAt(blocks, i), window);
      if (!bytes) return yield* this.#giveUp(item, 'content_damaged');
      window.holdPlain(bytes.byteLength);
      // How many plain bytes a block has nobody here knows: its share of the file, or its sealed ones. It comes right with the version.
      this.#blocks.given++;
      this.#blocks.bytes += bytes.byteLength;
      this.#count(Math.max(Math.ceil((size * this.#blocks.given) / this.#blocks.all), this.#blocks.bytes), size);
      try {
        yield* this.#named('block', hashAt(blocks, i), bytes);
      } finally {
        window.freePlain(bytes.byteLength);
      }
    }
  }

  async *#lists(item: Item): AsyncGenerator<Buffer> {
    const { storage, ref, signal } = this.#parts;
    const { lists } = item.version;
    for (let i = 0; i < hashCount(lists); i++) {
      signal.throwIfAborted();
      const name = hashAt(lists, i);
      const found = (await findLists(storage.database, ref.vault, name)).get(hashKey(name));
      if (!found || !sha256(found).equals(name)) return yield* this.#giveUp(item, 'content_damaged');
      this.#blocks.all += hashCount(found);
      yield* this.#named('list', name, found);
    }
  }

  async *#giveUp(item: Item, reason: LeftOutReason): AsyncGenerator<Buffer> {
    this.#parts.givenUp.add(item);
    this.#countedBytes = 0;
    yield* this.#leave({ ...placeOf(item), reason });
  }

  #isGivenUp(item: Item): boolean {
    return this.#parts.givenUp.has(item);
  }

  /** Unless it was sent a short while before. */
  async *#named(kind: 'block' | 'list', name: Buffer, bytes: Buffer): AsyncGenerator<Buffer> {
    if (this.#sent.has(name)) return;
    yield* this.#bytes(Buffer.concat([exportFrameHead(kind, name.byteLength + bytes.byteLength), name]));
    yield* this.#bytes(bytes);
    this.#sent.add(name);
    this.#counts[kind === 'block' ? 'blocks' : 'lists']++;
  }

  async *#frame(kind: ExportFrameName, body: Buffer): AsyncGenerator<Buffer> {
    yield* this.#bytes(Buffer.concat([exportFrameHead(kind, body.byteLength), body]));
  }

  async *#bytes(bytes: Buffer): AsyncGenerator<Buffer> {
    for (let at = 0; at < bytes.byteLength; at += pieceBytes) {
      const piece = bytes.subarray(at, at + pieceBytes);
      this.#digest.update(piece);
      yield piece;
      await breathe();
    }
  }
}

const placeOf = ({ version: { path, seq } }: Item): { path: Buffer; seq: number } => ({ path, seq });

const slots = 16 * 1024;

/**
 * Names that were sent, in 512 KiB: each has one place, and a later one takes it. So what it says was sent was sent, and
 * what it has forgotten is sent again; which that is follows from the names alone.
 */
class SentNames {
  readonly #names = Buffer.alloc(slots * limits.hashBytes);

  has(name: Buffer): boolean {
    const at = this.#placeOf(name);
    return name.equals(this.#names.subarray(at, at + limits.hashBytes));
  }

  add(name: Buffer): void {
    name.copy(this.#names, this.#placeOf(name));
  }

  #placeOf(name: Buffer): number {
    return (name.readUInt32BE(0) % slots) * limits.hashBytes;
  }
}
