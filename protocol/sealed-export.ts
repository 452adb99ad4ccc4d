/**
 * A sealed export: part of an archive as of a moment in one file, sealed as it is stored, for whoever has the keys
 * (docs/export.md). It is read from its beginning, and a version stands behind everything it needs: so of a file that
 * was cut off, each version that is there is whole. Who reads it believes nothing of it: lengths are bounded before
 * anything is allocated, blocks and lists are held against their names, versions against their MACs.
 */
import { z } from 'zod';
import { limits } from './limits.ts';
import { bytes, count, guid, type KeptKey, moment, StoredVersion } from './messages.ts';
import { decodeMessage, encodeMessage } from './wire.ts';

export const exportType = 'application/vnd.holdfast.export';
export const exportFormat = 1;
const magicText = Buffer.from('HOLDFAST EXPORT', 'latin1');
/** The first bytes of every export: 15 letters, and the number of the format. */
export const exportMagic = Buffer.concat([magicText, Buffer.of(exportFormat)]);

/** Paths that were chosen; as many as a restore takes. */
export const exportPathsMax = 1_000;
/** Moments told of a file that was left out. */
const exportMomentsMax = 10;

/** By the number a frame begins with. */
const exportFrames = {
  header: { type: 1, bytesMax: 64 * 1024 },
  chosen: { type: 2, bytesMax: limits.pathBytesMax },
  list: { type: 3, bytesMax: limits.hashBytes + limits.listBlocksMax * limits.hashBytes },
  block: { type: 4, bytesMax: limits.hashBytes + limits.blockBytesMax },
  version: { type: 5, bytesMax: limits.frameBytesMax },
  leftOut: { type: 6, bytesMax: 64 * 1024 },
  end: { type: 7, bytesMax: 4 * 1024 },
} as const;
export type ExportFrameName = keyof typeof exportFrames;

const names = new Map<number, ExportFrameName>(
  Object.entries(exportFrames).map(([name, { type }]) => [type, name as ExportFrameName]),
);

/** Type (1) and length of the body (4). */
export const exportFrameHeadBytes = 5;

/** What is known of one generation of the vault's key: never the key. */
export const ExportKey = z.object({
  level: z.enum(['standard', 'password', 'custom']),
  generation: count,
  /** By the archive password, or by a later key (docs/sealing.md). */
  wrapped: bytes(1, 1024).optional(),
  /** Tells the user's own key from another. */
  check: bytes(16, 16).optional(),
});
export type ExportKey = z.infer<typeof ExportKey>;

export const ExportHeader = z.object({
  vault: count,
  archive: count,
  /** Of the device whose archive it is. */
  guid,
  /** The moment, as the archive numbers it, and in milliseconds since the epoch as it was asked for. */
  seq: count,
  at: moment,
  /** Files deleted by then are in it too, as they last were. */
  deleted: z.boolean(),
  keys: z.array(ExportKey).max(limits.keyGenerationsMax),
});
export type ExportHeader = z.infer<typeof ExportHeader>;

/** A file that is not in it, or a path where nothing was. */
export const ExportLeftOut = z.object({
  path: bytes(0, limits.pathBytesMax),
  reason: z.string().min(1).max(64),
  /** The same in words. */
  says: z.string().max(256),
  /** Versions of it that the server has whole, newest first; of one that was thinned out the first since, oldest first. */
  moments: z.array(z.object({ seq: count, at: moment, size: count })).max(exportMomentsMax),
});
export type ExportLeftOut = z.infer<typeof ExportLeftOut>;

export const ExportEnd = z.object({
  files: count,
  folders: count,
  symlinks: count,
  /** Plain bytes of files, by their versions. */
  bytes: count,
  /** Frames of that kind. */
  leftOut: count,
  blocks: count,
  lists: count,
  /** Of all bytes before this frame. */
  sha256: bytes(32, 32),
});
export type ExportEnd = z.infer<typeof ExportEnd>;

const schemas = { header: ExportHeader, version: StoredVersion, leftOut: ExportLeftOut, end: ExportEnd } as const;

/** What stands before a frame's body. */
export function exportFrameHead(name: ExportFrameName, bodyBytes: number): Buffer {
  const { type, bytesMax } = exportFrames[name];
  if (bodyBytes > bytesMax) throw new RangeError(`${bodyBytes} bytes are more than a ${name} frame holds`);
  const head = Buffer.alloc(exportFrameHeadBytes);
  head.writeUInt8(type, 0);
  head.writeUInt32BE(bodyBytes, 1);
  return head;
}

/** A whole frame with a message in it. */
export function encodeExportMessage<N extends keyof typeof schemas>(
  name: N,
  message: z.infer<(typeof schemas)[N]>,
): Buffer {
  const body = encodeMessage(message);
  return Buffer.concat([exportFrameHead(name, body.byteLength), body]);
}

/**
 * What a frame is by its head; null: no frame of this format begins like this.
 * @param head `exportFrameHeadBytes` bytes
 */
export function readExportFrameHead(head: Buffer): { name: ExportFrameName; bytes: number } | null {
  const name = names.get(head.readUInt8(0));
  const bytes = head.readUInt32BE(1);
  if (name === undefined || bytes > exportFrames[name].bytesMax) return null;
  const isNamed = name === 'block' || name === 'list';
  return isNamed && bytes <= limits.hashBytes ? null : { name, bytes };
}

/** @throws Problem malformed_request or out_of_bounds, with the field */
export function decodeExportMessage<N extends keyof typeof schemas>(
  name: N,
  body: Uint8Array,
): z.infer<(typeof schemas)[N]> {
  return decodeMessage(schemas[name], body) as z.infer<(typeof schemas)[N]>;
}

/** The format's number when bytes begin like an export; null: they are none. */
export function exportFormatOf(start: Buffer): number | null {
  const isExport = start.byteLength === exportMagic.byteLength && start.subarray(0, -1).equals(magicText);
  return isExport ? start.at(-1)! : null;
}

/**
 * What an export says of the keys.
 * @param of.withPassword the records that the archive password opens, too: whoever has them can guess at it, as often as
 *   they like
 */
export function exportKeyOf(kept: KeptKey, of: { withPassword: boolean }): ExportKey {
  const { level, generation } = kept;
  if (level === 'standard') return { level, generation };
  if (level === 'password') return { level, generation, ...(of.withPassword && { wrapped: kept.wrapped }) };
  return {
    level,
    generation,
    ...(kept.check && { check: kept.check }),
    ...(kept.wrapped && { wrapped: kept.wrapped }),
  };
}

/** The same as a server tells it to an agent; null when a record is not in the export. */
export function keptKeyOf({ level, generation, wrapped, check }: ExportKey): KeptKey | null {
  if (level === 'standard') return { level, generation };
  if (level === 'password') return wrapped ? { level, generation, wrapped } : null;
  return { level, generation, ...(check && { check }), ...(wrapped && { wrapped }) };
}
