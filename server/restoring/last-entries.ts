/**
 * The entries at an archive's end that tell of it: which files it does not hold and why, and which names it had to
 * change. Written as they are found and kept compressed; what goes beyond a bound is counted only.
 */
import { crc32 } from 'node:zlib';
import type { StoredVersion } from '../../protocol/messages.ts';
import { Problem } from '../../protocol/problems.ts';
import { readHistory, readLaterHistory } from '../../storage/archive/reading/read-tree.ts';
import type { ArchiveRef, Storage } from '../../storage/storage.ts';
import { faultByRows } from './flow/block-rows.ts';
import { Spool } from './formats/spool.ts';
import { shownPath } from './formats/zip-names.ts';
import { type AssembleReport, type LeftOutReason, leftOutReasons, reportedMax } from './types.ts';

/** Whole moments told of one file, and versions looked at for them. */
const momentsMax = 10;
const versionsMax = 20;
/** Files whose other moments are looked up: each costs some questions to the database. */
export const filesWithMomentsMax = 1_000;

/** A text that grows up to a bound, with what an entry's head says of it. What comes beyond is counted. */
export class LastText {
  readonly #spool = new Spool();
  readonly #heading: string;
  readonly #bytesMax: number;
  #more = 0;
  #hasLines = false;
  crc = 0;

  /** @param heading its first lines, there only when others are */
  constructor(heading: string, bytesMax: number) {
    this.#heading = heading;
    this.#bytesMax = bytesMax;
  }

  /** Nothing more of what is told will be in it. */
  get isCut(): boolean {
    return this.#more > 0;
  }

  get bytes(): number {
    return this.#spool.bytes;
  }

  async add(line: string): Promise<void> {
    const text = Buffer.from(this.#hasLines ? `${line}\n` : `${this.#heading}\n${line}\n`);
    if (this.isCut || this.bytes + text.byteLength > this.#bytesMax) this.#more++;
    else await this.#write(text);
  }

  /** After the last line. */
  async end(): Promise<void> {
    if (this.isCut)
      await this.#write(Buffer.from(`${this.#hasLines ? '' : `${this.#heading}\n`}and ${this.#more} more\n`));
  }

  async #write(text: Buffer): Promise<void> {
    this.#hasLines = true;
    this.crc = crc32(text, this.crc);
    await this.#spool.add(text);
  }

  read(): AsyncGenerator<Buffer> {
    return this.#spool.read();
  }
}

export function leftOutText(bytesMax: number): LastText {
  return new LastText(
    'This archive does not hold everything that was asked for. Each line names what is not in it and why;\n' +
      'below a file stand the moments of it that are whole, and can be restored instead.\n',
    bytesMax,
  );
}

export function namesText(bytesMax: number): LastText {
  return new LastText(
    'A zip cannot carry every name to every system. Each line has a name as it is in this archive, and the path it\n' +
      'was backed up from. %{XX} stands for the byte XX; a name that grew too long ends in a digest of it.\n',
    bytesMax,
  );
}

/** A file that is not in the archive. */
export interface LeftOutFile {
  path: Buffer;
  /** Of the version that should be; null when there is none. */
  seq: number | null;
  reason: LeftOutReason;
  /** The moment of the restore. */
  asOf: number;
}

/**
 * How many were left out before, of those that crowd out each other only: what retention has thinned out may be most of an
 * archive, and is not to take the room of what is damaged.
 */
export class ToldCounts {
  #thinned = 0;
  #others = 0;

  /** @returns how many there were */
  add(reason: LeftOutReason): number {
    return reason === 'version_thinned' ? this.#thinned++ : this.#others++;
  }
}

/** Notes it in the report, where there is room; half of it is for others than what was thinned out. */
export function reportLeftOut({ leftOut }: Pick<AssembleReport, 'leftOut'>, left: AssembleReport['leftOut'][0]): void {
  if (leftOut.length < (left.reason === 'version_thinned' ? reportedMax / 2 : reportedMax)) leftOut.push(left);
}

export async function leftOutLines(
  storage: Storage,
  ref: ArchiveRef,
  left: LeftOutFile,
  countBefore: number,
  signal: AbortSignal,
): Promise<string> {
  const first = `${shownPath(left.path)}: ${leftOutReasons[left.reason]}`;
  if (countBefore >= filesWithMomentsMax) return first;
  const moments = await wholeMoments(storage, ref, left, signal);
  return [first, ...moments.map(({ seq, at, size }) => `    ${at.toISOString()} (version ${seq}, ${size} bytes)`)].join(
    '\n',
  );
}

/** Reasons that lie in the content: another version with the same one is no better. */
const ofContent: ReadonlySet<LeftOutReason> = new Set([
  'content_damaged',
  'content_not_authentic',
  'content_mismatch',
  'key_missing',
]);

/**
 * Versions of a path whose content is there by its rows: the newest, newest first; of what was thinned out the first since.
 * The one that was left out is none of them, nor one with the same content: what was found wrong by reading it may not be
 * marked.
 */
export async function wholeMoments(
  storage: Storage,
  ref: ArchiveRef,
  { path, seq, reason, asOf }: LeftOutFile,
  signal: AbortSignal,
): Promise<{ seq: number; at: Date; size: number }[]> {
  try {
    const versions =
      reason === 'version_thinned'
        ? await readLaterHistory(storage, ref, { path, above: asOf, limit: versionsMax })
        : (await readHistory(storage, ref, { path, after: null, limit: versionsMax })).versions;
    const left = ofContent.has(reason) ? versions.find((version) => version.seq === seq) : undefined;
    const whole: { seq: number; at: Date; size: number }[] = [];
    for (const version of versions) {
      if (whole.length === momentsMax || signal.aborted) break;
      if (version.deleted || version.seq === seq) continue;
      if (version.kind !== 'file' && reason !== 'version_thinned') continue;
      if (left && hasContentOf(version, left)) continue;
      if (version.kind !== 'file' || (await faultByRows(storage, ref.vault, version, signal)) === null)
        whole.push({ seq: version.seq, at: new Date(version.committedAt), size: version.size });
    }
    return whole;
  } catch (error) {
    if (error instanceof Problem) return []; // a path that is none
    throw error;
  }
}

function hasContentOf(a: StoredVersion, b: StoredVersion): boolean {
  return a.size === b.size && a.blocks.equals(b.blocks) && a.lists.equals(b.lists);
}

/** A name for an entry of ours that nothing restored has, in any case. */
export class FreeName {
  readonly #stem: string;
  readonly #taken: RegExp;
  #highest = 0;

  /** @param stem such as 'RESTORE-INCOMPLETE' */
  constructor(stem: string) {
    this.#stem = stem;
    this.#taken = new RegExp(`^${stem}(?:-(\\d{1,9}))?\\.txt$`, 'i');
  }

  /** Told of each name at the top of the archive. */
  saw(name: string): void {
    const found = this.#taken.exec(name);
    if (found) this.#highest = Math.max(this.#highest, Number(found[1] ?? 1));
  }

  get name(): string {
    return this.#highest === 0 ? `${this.#stem}.txt` : `${this.#stem}-${this.#highest + 1}.txt`;
  }
}
