/**
 * Arrays of byte strings as PostgreSQL parameters. node-postgres would send bytea[] as hexadecimal text, twice the
 * size and slow to parse on both sides; one bytea with offsets travels as it is, and substr() takes it apart.
 */

/**
 * SQL for the hashes of a bytea parameter, as an array to compare a key with: `hash = ANY (...)`. Never a join: of a
 * join the planner chooses the order, and while it believes a vault to be small it reads the whole of it for every
 * hash (measured: 5.6 s for 8,192 hashes against 8,192 blocks, where the key takes 0.05 s).
 */
export const hashArray = (parameter: string): string =>
  `ARRAY(SELECT substr(${parameter}::bytea, i * 32 + 1, 32) FROM generate_series(0, octet_length(${parameter}::bytea) / 32 - 1) AS i)`;

export interface Packed {
  bytes: Buffer;
  /** One-based offsets and lengths, as PostgreSQL array literals. */
  offsets: string;
  lengths: string;
}

export function packBytes(parts: readonly Uint8Array[]): Packed {
  const offsets: number[] = [];
  let at = 1;
  for (const part of parts) {
    offsets.push(at);
    at += part.byteLength;
  }
  return {
    bytes: Buffer.concat(parts),
    offsets: packArray(offsets),
    lengths: packArray(parts.map((part) => part.byteLength)),
  };
}

/** A PostgreSQL array literal of numbers or booleans, or of words without quotes, commas or braces. */
export function packArray(values: readonly (number | boolean | string)[]): string {
  return `{${values.join(',')}}`;
}
