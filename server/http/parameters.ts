/** Values from a request's path and query, checked. The path names things (wrong: 404), the query asks (wrong: 400). */
import { limits } from '../../protocol/limits.ts';
import { pathFault } from '../../protocol/paths.ts';
import { Problem } from '../../protocol/problems.ts';
import type { Context } from './deps.ts';

/** A decimal id. What cannot be one names nothing. */
export function idParameter(ctx: Context, name: string): number {
  const text = pathParameter(ctx, name);
  const id = /^[1-9]\d{0,15}$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(id)) throw new Problem('not_found', `there is no such ${name}`);
  return id;
}

/** A block's name in lower-case hex. */
export function hashParameter(ctx: Context): Buffer {
  const text = pathParameter(ctx, 'hash');
  if (!/^[0-9a-f]{64}$/.test(text)) throw malformed('hash', 'is not 64 digits of lower-case hex');
  return Buffer.from(text, 'hex');
}

function pathParameter(ctx: Context, name: string): string {
  return (ctx as unknown as { params: Record<string, string> }).params[name] ?? '';
}

/** Reads one value of the query; `undefined` is a value that is not there. */
export type QueryReader<T> = (text: string | undefined, name: string) => T;

/**
 * The query, each value read by its reader.
 * @throws Problem malformed_request or out_of_bounds, also for a name that no reader has, or one that comes twice
 */
export function readQuery<T extends Record<string, QueryReader<unknown>>>(
  ctx: Context,
  readers: T,
): { [K in keyof T]: ReturnType<T[K]> } {
  const query = new URLSearchParams(ctx.querystring);
  const given = new Map<string, string>();
  for (const [name, value] of query) {
    if (!Object.hasOwn(readers, name)) throw malformed(name, 'is not a parameter of this request');
    if (given.has(name)) throw malformed(name, 'comes twice');
    given.set(name, value);
  }
  return Object.fromEntries(Object.entries(readers).map(([name, read]) => [name, read(given.get(name), name)])) as {
    [K in keyof T]: ReturnType<T[K]>;
  };
}

/** An archive path; the root when there is none. */
export const pathValue: QueryReader<Buffer> = (text, name) =>
  text === undefined ? Buffer.from('/') : readPath(text, name);
export const pathOrNull: QueryReader<Buffer | null> = (text, name) =>
  text === undefined ? null : readPath(text, name);

function readPath(text: string, name: string): Buffer {
  const path = base64url(text, name);
  const fault = pathFault(path);
  if (fault) throw new Problem('path_invalid', `${name} is not a path: it ${fault}`, { field: name });
  return path;
}

/** A file's name, as the last one of a page. */
export const nameOrNull: QueryReader<Buffer | null> = (text, name) => {
  if (text === undefined) return null;
  const bytes = base64url(text, name);
  if (bytes.byteLength === 0 || bytes.byteLength > limits.nameBytesMax)
    throw outOfBounds(name, `holds ${bytes.byteLength} bytes, 1 to ${limits.nameBytesMax}`);
  return bytes;
};

export const momentOrNull: QueryReader<Date | null> = (text, name) => {
  if (text === undefined) return null;
  const ms = integer(text, name, { min: 0, max: 8_640_000_000_000_000 });
  return new Date(ms);
};

export const seqOrNull: QueryReader<number | null> = (text, name) =>
  text === undefined ? null : integer(text, name, { min: 0, max: Number.MAX_SAFE_INTEGER });

export const pageLimit: QueryReader<number> = (text, name) =>
  text === undefined ? limits.pageEntriesMax : integer(text, name, { min: 1, max: limits.pageEntriesMax });

export const flag: QueryReader<boolean> = (text, name) => {
  if (text === undefined || text === '0') return false;
  if (text === '1') return true;
  throw malformed(name, 'is neither 1 nor 0');
};

function integer(text: string, name: string, { min, max }: { min: number; max: number }): number {
  if (!/^\d{1,16}$/.test(text)) throw malformed(name, 'is not a decimal integer');
  const value = Number(text);
  if (value < min || value > max) throw outOfBounds(name, `is ${text}, ${min} to ${max}`);
  return value;
}

function base64url(text: string, name: string): Buffer {
  const bytes = Buffer.from(text, 'base64url');
  // Node skips what it does not know; only what reads back as the same text was meant.
  if (bytes.toString('base64url') !== text) throw malformed(name, 'is not base64url without padding');
  return bytes;
}

function malformed(field: string, what: string): Problem {
  return new Problem('malformed_request', `${field} ${what}`, { field });
}

function outOfBounds(field: string, what: string): Problem {
  return new Problem('out_of_bounds', `${field} ${what}`, { field });
}
