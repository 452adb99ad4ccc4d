/** Numbers of the file system as attributes keep them (protocol/attributes.ts), and back as Node takes them. */

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
