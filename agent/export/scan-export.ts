/**
 * Reads a sealed export (docs/export.md) from its beginning to its end, once: what lies where in it, and whether it is as
 * it was made. Nothing is believed: a frame that cannot be ends the reading there, and what came before it can still be
 * restored, for each version and block is held against the keys by whoever does so. Memory: a frame, and of a block
 * nothing but its name.
 */
import { createHash } from 'node:crypto';
import { limits } from '../../protocol/limits.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { pathFault } from '../../protocol/paths.ts';
import { Problem } from '../../protocol/problems.ts';
import {
  decodeExportMessage,
  type ExportEnd,
  type ExportHeader,
  type ExportLeftOut,
  exportFormat,
  exportFormatOf,
  exportFrameHeadBytes,
  exportMagic,
  exportPathsMax,
  readExportFrameHead,
} from '../../protocol/sealed-export.ts';
import { ByteReader } from '../../protocol/wire.ts';

/** It cannot be opened at all. */
export class ExportError extends Error {
  override name = 'ExportError';
}

/** Told of what comes, in its order. Places are of the first byte of bodies, and of what stands behind a name. */
export interface ExportSink {
  header?(header: ExportHeader): void;
  version?(at: number, body: Buffer): void;
  named?(kind: 'block' | 'list', name: Buffer, at: number, bytes: number): void;
  leftOut?(file: ExportLeftOut): void;
  /** Bytes read so far. */
  progress?(bytes: number): void;
}

/** What is wrong with an export as a whole. */
export interface ExportFault {
  /** cut_off: its end is missing; damaged: from a place on nothing can be read; changed: it has its end, and is not what was made. */
  what: 'cut_off' | 'damaged' | 'changed';
  /** How many of its bytes could be read. */
  at: number;
}

export interface ScannedExport {
  header: ExportHeader;
  /** The paths that were chosen, in the order of the archive. */
  chosen: Buffer[];
  /** Versions that are in it. */
  versions: number;
  /** Files that the server left out, and paths where nothing was. */
  leftOut: number;
  /** Null: it has none. */
  end: ExportEnd | null;
  /** Null: it is as it was made, from its first byte to its last. */
  fault: ExportFault | null;
}

/**
 * @throws ExportError when it is no export, or broken before it says what it is of; the signal's reason; what the source
 *   throws
 */
export async function scanExport(
  source: AsyncIterable<Uint8Array>,
  sink: ExportSink,
  signal?: AbortSignal,
): Promise<ScannedExport> {
  const pieces = source[Symbol.asyncIterator]();
  try {
    return await new Scan({ [Symbol.asyncIterator]: () => pieces }, sink, signal).run();
  } finally {
    await pieces.return?.(); // it may not have been read to its end
  }
}

/** The frames cannot be gone on with. */
class Unreadable extends Error {
  readonly what: 'cut_off' | 'damaged';

  constructor(what: 'cut_off' | 'damaged', options?: ErrorOptions) {
    super(what, options);
    this.what = what;
  }
}

class Scan {
  readonly #reader: ByteReader;
  readonly #sink: ExportSink;
  readonly #signal: AbortSignal | undefined;
  readonly #digest = createHash('sha256');
  #at = 0;
  #header: ExportHeader | null = null;
  readonly #chosen: Buffer[] = [];
  #versions = 0;
  #leftOut = 0;

  constructor(source: AsyncIterable<Uint8Array>, sink: ExportSink, signal: AbortSignal | undefined) {
    this.#reader = new ByteReader(source);
    this.#sink = sink;
    this.#signal = signal;
  }

  async run(): Promise<ScannedExport> {
    await this.#readMagic();
    let end: ExportEnd | null = null;
    let fault: ExportFault | null = null;
    try {
      end = await this.#readFrames();
      if (!end.sha256.equals(this.#digest.digest()) || !(await this.#isAtEnd()))
        fault = { what: 'changed', at: this.#at };
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      fault = { what: error.what, at: this.#at };
    }
    if (!this.#header)
      throw new ExportError('the export is broken at its very beginning: it does not say which backup it is of');
    const [header, chosen, versions, leftOut] = [this.#header, this.#chosen, this.#versions, this.#leftOut];
    return { header, chosen, versions, leftOut, end, fault };
  }

  async #readMagic(): Promise<void> {
    const start = await this.#take(exportMagic.byteLength, { isOwn: false });
    const format = exportFormatOf(start);
    if (format === null) throw new ExportError('this is not a Holdfast export');
    if (format !== exportFormat)
      throw new ExportError(`this is an export of format ${format}; this agent knows format ${exportFormat}`);
    this.#digest.update(start);
  }

  /** Up to the last frame. @throws Unreadable */
  async #readFrames(): Promise<ExportEnd> {
    for (;;) {
      this.#signal?.throwIfAborted();
      const head = await this.#take(exportFrameHeadBytes);
      const frame = readExportFrameHead(head);
      if (!frame || (frame.name === 'header') !== (this.#header === null)) throw new Unreadable('damaged');
      if (frame.name === 'end') return decoded('end', await this.#take(frame.bytes));
      this.#digest.update(head);
      if (frame.name === 'block' || frame.name === 'list') await this.#named(frame.name, frame.bytes);
      else this.#message(frame.name, await this.#take(frame.bytes, { isHashed: true }));
      this.#sink.progress?.(this.#at);
    }
  }

  #message(name: 'header' | 'chosen' | 'version' | 'leftOut', body: Buffer): void {
    if (name === 'header') {
      this.#header = decoded('header', body);
      this.#sink.header?.(this.#header);
    } else if (name === 'chosen') {
      if (this.#chosen.length === exportPathsMax || pathFault(body)) throw new Unreadable('damaged');
      this.#chosen.push(Buffer.from(body));
    } else if (name === 'version') {
      this.#versions++;
      this.#sink.version?.(this.#at - body.byteLength, body);
    } else {
      const file = decoded('leftOut', body);
      this.#leftOut++;
      this.#sink.leftOut?.(file);
    }
  }

  async #named(kind: 'block' | 'list', frameBytes: number): Promise<void> {
    const name = Buffer.from(await this.#take(limits.hashBytes, { isHashed: true }));
    const at = this.#at;
    const bytes = frameBytes - limits.hashBytes;
    try {
      for await (const piece of this.#reader.pieces(bytes)) {
        this.#signal?.throwIfAborted();
        this.#digest.update(piece);
        this.#at += piece.byteLength;
        this.#sink.progress?.(this.#at);
      }
    } catch (error) {
      throw cutOff(error);
    }
    this.#sink.named?.(kind, name, at, bytes);
  }

  async #take(bytes: number, { isHashed = false, isOwn = true } = {}): Promise<Buffer> {
    try {
      const taken = (await this.#reader.read(bytes))!;
      this.#at += bytes;
      if (isHashed) this.#digest.update(taken);
      return taken;
    } catch (error) {
      const cut = cutOff(error);
      throw isOwn || !(cut instanceof Unreadable) ? cut : new ExportError('this is not a Holdfast export');
    }
  }

  async #isAtEnd(): Promise<boolean> {
    for await (const piece of this.#reader.remaining()) if (piece.byteLength > 0) return false;
    return true;
  }
}

/** The reader's way to say that the source ended first. */
function cutOff(error: unknown): unknown {
  return error instanceof Problem ? new Unreadable('cut_off', { cause: error }) : error;
}

function decoded<N extends 'header' | 'leftOut' | 'end'>(
  name: N,
  body: Buffer,
): ReturnType<typeof decodeExportMessage<N>> {
  try {
    return decodeExportMessage(name, body);
  } catch (error) {
    if (error instanceof Problem) throw new Unreadable('damaged', { cause: error });
    throw error;
  }
}

/** A version's frame; null when it is none that can be read. */
export function readVersion(body: Buffer): StoredVersion | null {
  try {
    return decodeExportMessage('version', body);
  } catch (error) {
    if (error instanceof Problem) return null;
    throw error;
  }
}
