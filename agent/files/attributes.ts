/**
 * What a version keeps of a file beside its content: msgpack, sealed by the engine before it leaves the machine.
 * Equal files give equal bytes, so that an unchanged file does not look changed. Decoding trusts nothing: the bytes
 * may come from another agent, and the MAC only says that it had the key.
 * Not kept: extended attributes and ACLs, which Node cannot read, and the time of birth, which it cannot set.
 */
import { z } from 'zod';
import { limits } from '../../protocol/limits.ts';
import { decodeMessage, encodeMessage } from '../../protocol/wire.ts';

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

export function inodeKey(device: bigint, inode: bigint): Buffer {
  const key = Buffer.allocUnsafe(16);
  key.writeBigUInt64BE(BigInt.asUintN(64, device), 0);
  key.writeBigUInt64BE(BigInt.asUintN(64, inode), 8);
  return key;
}

/** Splits nanoseconds since the epoch into a version's milliseconds, rounded down, and the rest. */
export function splitNanoseconds(ns: bigint): { ms: number; rest: number } {
  const rest = ((ns % 1_000_000n) + 1_000_000n) % 1_000_000n;
  return { ms: Number((ns - rest) / 1_000_000n), rest: Number(rest) };
}

/**
 * The time to hand to Node's utimes for a version's milliseconds and the nanoseconds beyond them. Node takes seconds
 * in a double, which near today has steps of 238 ns, so the microsecond is kept exactly and the rest as near as it
 * goes. Node reads a negative number as "now": times before 1970 go as a Date, to the millisecond.
 */
export function utimesValue(ms: number, restNs: number): number | Date {
  if (ms < 0) return new Date(ms);
  const seconds = Math.floor(ms / 1000);
  const wantedNs = (ms - seconds * 1000) * 1_000_000 + restNs;
  const nearest = seconds + wantedNs / 1e9;
  const microsecond = Math.floor(wantedNs / 1000);
  for (const candidate of [nearest, nearest + ulp(nearest), nearest - ulp(nearest)]) {
    if (Math.floor(((candidate - seconds) * 1e9) / 1000) === microsecond) return candidate;
  }
  return nearest; // so far from 1970 that a double no longer tells microseconds apart
}

/** The step between doubles near a positive value. */
function ulp(value: number): number {
  return 2 ** (Math.floor(Math.log2(Math.max(value, 1))) - 52);
}
