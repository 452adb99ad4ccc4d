/**
 * Arrays of byte strings as PostgreSQL parameters. node-postgres would send bytea[] as hexadecimal text, twice the
 * size and slow to parse on both sides; one bytea with offsets travels as it is, and substr() takes it apart.
 */

/** SQL that lists the hashes of the bytea parameter `$hashes` with their ordinal: columns i (from 0) and h. */
export const hashesOf = (parameter: string): string =>
  `(SELECT i, substr(${parameter}::bytea, i * 32 + 1, 32) AS h FROM generate_series(0, octet_length(${parameter}::bytea) / 32 - 1) AS i)`;

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
