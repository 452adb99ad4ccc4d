/**
 * What the world knows to be true, from what it sent and what it was told: contents by name, versions that were sent,
 * which of them were acknowledged, and what was promised. Kept in memory that nothing in the simulation can damage.
 */
import { hashAt, hashCount, sha256 } from '../../protocol/hashes.ts';

/** A version as an agent sent it; found again in the catalog by its MAC, which is random. */
export interface SentVersion {
  path: string;
  deleted: boolean;
  size: number;
  /** Distinct blocks it names itself, as 16 hexadecimal digits. */
  blocks: string[];
  /** Distinct lists it names. */
  lists: string[];
  /** Its content: all blocks in order, also those behind lists. */
  content: string[];
}

export const shortName = (hash: Uint8Array): string => Buffer.from(hash.subarray(0, 8)).toString('hex');

export class Model {
  /** Bytes of every block of every vault by the first 16 digits of its name. */
  readonly contents = new Map<string, Buffer>();
  /** Distinct blocks of every list. */
  readonly lists = new Map<string, string[]>();
  /** The blocks of every list, in order, as full hashes. */
  readonly listBlocks = new Map<string, Buffer[]>();
  readonly sent = new Map<string, SentVersion>();
  /** archive -> seq -> MAC, of versions whose commit was acknowledged and that no deleter was entitled to yet. */
  readonly acknowledged = new Map<number, Map<number, string>>();
  /** MACs of versions that a deleter took, and was to take: perhaps before its commit was acknowledged. */
  readonly taken = new Set<string>();
  /** `vault/hash` -> until when (database's clock) it was promised to stay. */
  readonly promises = new Map<string, number>();

  addContent(bytes: Buffer): Buffer {
    const hash = sha256(bytes);
    this.contents.set(shortName(hash), bytes);
    return hash;
  }

  acknowledge(archive: number, firstSeq: number, macs: readonly string[]): void {
    const of = this.acknowledgedOf(archive);
    macs.forEach((mac, i) => {
      if (!this.taken.has(mac)) of.set(firstSeq + i, mac);
    });
  }

  acknowledgedOf(archive: number): Map<number, string> {
    const known = this.acknowledged.get(archive) ?? new Map<number, string>();
    this.acknowledged.set(archive, known);
    return known;
  }

  promise(vault: number, hash: string, untilMs: number): void {
    const key = `${vault}/${hash}`;
    this.promises.set(key, Math.max(this.promises.get(key) ?? 0, untilMs));
  }
}

export const splitNames = (hashes: Buffer): Buffer[] =>
  Array.from({ length: hashCount(hashes) }, (_, i) => hashAt(hashes, i));

export const distinctNames = (hashes: Buffer): string[] => [...new Set(splitNames(hashes).map(shortName))];
