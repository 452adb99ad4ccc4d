/** Writes steps as entries: opens content, holds it against what its version says, and keeps the report. */
import { crc32 } from 'node:zlib';
import { hashAt, hashCount } from '../../protocol/hashes.ts';
import { type Keyring, open, openAsync, SealError } from '../../protocol/sealing/index.ts';
import type { ArchiveRef, Storage } from '../../storage/storage.ts';
import type { FirstName } from './first-names.ts';
import type { Unit } from './flow/fetching.ts';
import { free, letGo } from './flow/letting-go.ts';
import type { Window } from './flow/window.ts';
import type { ArchiveFormat, EntryHead } from './formats/format.ts';
import { shownPath } from './formats/zip-names.ts';
import {
  FreeName,
  type LastText,
  leftOutLines,
  leftOutText,
  namesText,
  reportLeftOut,
  ToldCounts,
} from './last-entries.ts';
import type { Step, StepWriter } from './steps.ts';
import {
  ArchiveBroken,
  type AssembleReport,
  attributesOf,
  type Item,
  type KeptMax,
  LeftOut,
  type LeftOutReason,
  reportedMax,
} from './types.ts';

/** Blocks of files up to this size are opened in less time than the way to the thread pool and back takes. */
const openAtOnceBytesMax = 64 * 1024;

export interface WriterParts {
  storage: Storage;
  ref: ArchiveRef;
  keyring: Keyring;
  format: ArchiveFormat;
  window: Window;
  report: AssembleReport;
  keptMax: Pick<KeptMax, 'textBytes'>;
  signal: AbortSignal;
}

export class EntryWriter implements StepWriter {
  readonly #parts: WriterParts;
  readonly #leftOut: LastText;
  readonly #names: LastText;
  readonly #told = new ToldCounts();
  readonly #leftOutName = new FreeName('RESTORE-INCOMPLETE');
  readonly #namesName = new FreeName('RESTORE-NAMES');
  /** The large file that is being written. */
  #large: { item: Item; bytes: number; crc: number } | null = null;
  /** When the newest of what was written was committed: the time of our own entries, the same in every try. */
  #newestAt = 0;

  constructor(parts: WriterParts) {
    this.#parts = parts;
    this.#leftOut = leftOutText(parts.keptMax.textBytes);
    this.#names = namesText(parts.keptMax.textBytes);
  }

  async *write(step: Step, unit: Unit): AsyncGenerator<Buffer> {
    switch (step.do) {
      case 'miss':
        return this.#miss(step.path);
      case 'leave':
        return this.#leave(step);
      case 'folder':
      case 'symlink':
        return yield* this.#writeEmpty(step.item);
      case 'link':
        return yield* this.#writeLink(step.item, step.first);
      case 'file':
        return yield* this.#writeFile(step, unit);
      case 'begin':
        return yield* this.#beginLarge(step.item);
      case 'part':
        return yield* this.#writePart(step, unit);
      case 'end':
        return yield* this.#endLarge();
      case 'break':
        throw new ArchiveBroken(step.item.version.path, step.reason);
    }
  }

  async *begin(): AsyncGenerator<Buffer> {}

  /** The entries that tell of the archive, when there is something to tell, and its end. */
  async *finish(): AsyncGenerator<Buffer> {
    const { counts } = this.#parts.report;
    if (counts.namesChanged > 0) yield* this.#writeText(this.#namesName.name, this.#names);
    if (counts.leftOut + counts.missingPaths > 0) yield* this.#writeText(this.#leftOutName.name, this.#leftOut);
    yield* this.#parts.format.finish();
  }

  async #leave(left: { path: Buffer; seq: number | null; reason: LeftOutReason }): Promise<void> {
    const { storage, ref, report, signal } = this.#parts;
    const { path, reason } = left;
    const countBefore = this.#leftOut.isCut ? Number.POSITIVE_INFINITY : this.#told.add(reason);
    report.counts.leftOut++;
    await this.#leftOut.add(await leftOutLines(storage, ref, { ...left, asOf: report.seq }, countBefore, signal));
    reportLeftOut(report, { path, reason });
  }

  async #miss(path: Buffer): Promise<void> {
    const { report } = this.#parts;
    report.counts.missingPaths++;
    report.missingPaths.push(path);
    await this.#leftOut.add(`${shownPath(path)}: there was nothing at this path at the moment asked for`);
  }

  #head(item: Item, crc: number | null): EntryHead {
    const { path, kind, size, mtime } = item.version;
    return { path, kind, size: kind === 'file' ? size : 0, mtime, attributes: attributesOf(item), crc };
  }

  /** What every entry is counted and noted by, just before it is written. */
  async #note({ version }: Item): Promise<void> {
    const { format, report } = this.#parts;
    const top = format.topName(version.path);
    this.#leftOutName.saw(top);
    this.#namesName.saw(top);
    this.#newestAt = Math.max(this.#newestAt, version.committedAt);
    const name = format.changedName(version.path);
    if (name === null) return;
    report.counts.namesChanged++;
    if (report.namesChanged.length < reportedMax) report.namesChanged.push({ path: version.path, name });
    await this.#names.add(`${name}\n    ${shownPath(version.path)}`);
  }

  async *#writeEmpty(item: Item): AsyncGenerator<Buffer> {
    const { format, report } = this.#parts;
    await this.#note(item);
    const target = item.version.kind === 'symlink' ? attributesOf(item).target! : Buffer.alloc(0);
    const crc = crc32(target);
    yield format.begin({ ...this.#head(item, crc), size: target.byteLength });
    yield await format.end(crc);
    if (item.version.kind === 'symlink') report.counts.symlinks++;
    else report.counts.folders++;
  }

  async *#writeLink(item: Item, first: FirstName): AsyncGenerator<Buffer> {
    const { format, report } = this.#parts;
    // The same content, so what kept the first name out keeps this one out.
    if (first.leftOut)
      return await this.#leave({ path: item.version.path, seq: item.version.seq, reason: first.leftOut });
    await this.#note(item);
    yield format.link!(this.#head(item, null), Buffer.from(first.path, 'latin1'));
    report.counts.files++;
    report.counts.hardLinks++;
    report.counts.bytes += item.version.size;
  }

  async *#writeFile(step: Step & { do: 'file' }, unit: Unit): AsyncGenerator<Buffer> {
    const { format, report, window } = this.#parts;
    const { item, blocks } = step;
    const { path, seq, size } = item.version;
    const plain: Buffer[] = [];
    let bytes = 0;
    try {
      try {
        for await (const part of this.#opened(blocks, unit, size)) {
          bytes += part.byteLength;
          window.holdPlain(part.byteLength);
          plain.push(part);
          if (bytes > size) throw new LeftOut('content_mismatch');
        }
        if (bytes !== size) throw new LeftOut('content_mismatch');
      } catch (error) {
        if (!(error instanceof LeftOut)) throw error;
        if (step.first) step.first.leftOut = error.reason;
        return await this.#leave({ path, seq, reason: error.reason });
      }
      await this.#note(item);
      const crc = plain.reduce((sum, part) => crc32(part, sum), 0);
      yield format.begin(this.#head(item, crc));
      for (const part of plain) {
        report.counts.bytes += part.byteLength; // before its reader has it, who may never come back
        yield part;
      }
      yield await format.end(crc);
      report.counts.files++;
    } finally {
      window.freePlain(bytes);
      letGo(bytes);
    }
  }

  async *#beginLarge(item: Item): AsyncGenerator<Buffer> {
    await this.#note(item);
    this.#large = { item, bytes: 0, crc: 0 };
    yield this.#parts.format.begin(this.#head(item, null));
  }

  async *#writePart({ blocks }: Step & { do: 'part' }, unit: Unit): AsyncGenerator<Buffer> {
    const { window, report } = this.#parts;
    const large = this.#large!;
    const { path, size } = large.item.version;
    try {
      for await (const part of this.#opened(blocks, unit, size)) {
        large.bytes += part.byteLength;
        if (large.bytes > size) throw new LeftOut('content_mismatch');
        large.crc = crc32(part, large.crc);
        report.counts.bytes += part.byteLength;
        window.holdPlain(part.byteLength);
        try {
          yield part;
        } finally {
          window.freePlain(part.byteLength);
          letGo(part.byteLength);
        }
      }
    } catch (error) {
      if (error instanceof LeftOut) throw new ArchiveBroken(path, error.reason, { cause: error });
      throw error;
    }
  }

  async *#endLarge(): AsyncGenerator<Buffer> {
    const { item, bytes, crc } = this.#large!;
    this.#large = null;
    if (bytes !== item.version.size) throw new ArchiveBroken(item.version.path, 'content_mismatch');
    yield await this.#parts.format.end(crc);
    this.#parts.report.counts.files++;
  }

  /**
   * The plain bytes of blocks, in order; while one is used the next is opened.
   * @throws LeftOut
   */
  async *#opened(blocks: Buffer, unit: Unit, size: number): AsyncGenerator<Buffer> {
    const count = hashCount(blocks);
    const openAt = (index: number): Promise<Buffer> | null => {
      if (index === count) return null;
      const opened = this.#open(hashAt(blocks, index), unit, size);
      opened.catch(() => {}); // it is awaited below, unless the reader has left by then
      return opened;
    };
    let next = openAt(0);
    for (let index = 1; next; index++) {
      const plain = await next;
      next = openAt(index);
      yield plain;
    }
  }

  async #open(hash: Buffer, unit: Unit, size: number): Promise<Buffer> {
    const { keyring, ref, window } = this.#parts;
    const sealed = unit.take(hash, window);
    if (!sealed) throw new LeftOut('content_damaged');
    try {
      const as = { type: 'block', vault: ref.vault } as const;
      const keys = keyring.for(sealed);
      if (size <= openAtOnceBytesMax && sealed.byteLength <= 2 * openAtOnceBytesMax) return open(keys, as, sealed);
      const opened = openAsync(keys, as, sealed);
      // It is decrypted when that returns, and only inflated later.
      if (unit.isSpent(hash)) free(sealed);
      return await opened;
    } catch (error) {
      if (!(error instanceof SealError)) throw error;
      const reason = error.reason === 'wrong_generation' ? 'key_missing' : 'content_not_authentic';
      throw new LeftOut(reason, { cause: error });
    }
  }

  async *#writeText(name: string, text: LastText): AsyncGenerator<Buffer> {
    const { format } = this.#parts;
    await text.end();
    yield format.beginText({ name, size: text.bytes, mtime: this.#newestAt, crc: text.crc });
    yield* text.read();
    yield await format.end(text.crc);
  }
}
