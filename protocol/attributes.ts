/**
 * What a version keeps of a file beside its content: msgpack, sealed by the engine before it leaves the machine.
 * Equal files give equal bytes, so that an unchanged file does not look changed. Decoding trusts nothing: the bytes
 * may come from another agent, and the MAC only says that it had the key. Whoever restores decodes them: an agent, and
 * the server with an escrowed key.
 * Not kept: extended attributes and ACLs, which Node cannot read, and the time of birth, which it cannot set.
 */
import { z } from 'zod';
import { limits } from './limits.ts';
import { decodeMessage, encodeMessage } from './wire.ts';

const id = z.int().min(0).max(0xffff_ffff);
const accountName = z.string().min(1).max(256);
const bytes = (lo: number, hi: number) =>
  z
    .instanceof(Uint8Array)
    .refine((value) => value.byteLength >= lo && value.byteLength <= hi, `must hold ${lo} to ${hi} bytes`)
    .transform((value): Buffer => Buffer.from(value.buffer, value.byteOffset, value.byteLength));

/** Longest target a symlink may have; Linux stops at 4,095 bytes, Windows at 32,767 units of which few are used. */
export const linkTargetBytesMax = 8 * 1024;

export const Attributes = z.object({
  /** Permission bits with setuid, setgid and sticky. On Windows only "read-only" means something. */
  mode: z.int().min(0).max(0o7777),
  uid: id,
  gid: id,
  owner: accountName.optional(),
  group: accountName.optional(),
  /** Nanoseconds of the modification time beyond the version's milliseconds. */
  mtimeNs: z.int().min(0).max(999_999),
  /** Target of a symlink, as it stands there: relative or not, with or without something at its end. */
  target: bytes(1, linkTargetBytesMax)
    .refine((target) => !target.includes(0), 'must not hold a NUL')
    .optional(),
  /** Files with equal `inode` are names of one file: 8 bytes device, 8 bytes inode, and how many names it had. */
  inode: bytes(16, 16).optional(),
  links: z.int().min(2).max(Number.MAX_SAFE_INTEGER).optional(),
  /** It took less room than its size: long runs of zeros need not be written. */
  sparse: z.literal(true).optional(),
});
export type Attributes = z.infer<typeof Attributes>;

/** The plain bytes of attributes, keys in one order. */
export function encodeAttributes(attributes: Attributes): Buffer {
  const { mode, uid, gid, owner, group, mtimeNs, target, inode, links, sparse } = attributes;
  const ordered = { mode, uid, gid, owner, group, mtimeNs, target, inode, links, sparse };
  return encodeMessage(Object.fromEntries(Object.entries(ordered).filter(([, value]) => value !== undefined)));
}

/**
 * Reads attributes back.
 * @throws Problem malformed_request or out_of_bounds, with the field
 */
export function decodeAttributes(plain: Uint8Array): Attributes {
  return decodeMessage(Attributes, plain.byteLength > limits.attributesBytesMax ? Buffer.alloc(0) : plain);
}
