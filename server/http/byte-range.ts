/** The `Range` of a request (RFC 9110, 14): one range of bytes, or none. */
import { Problem } from '../../protocol/problems.ts';
import type { Context } from './deps.ts';

export interface ByteRange {
  offset: number;
  length: number;
}

/**
 * The one range asked for, cut at the end of the content; null when the whole is to be sent: no range, another unit,
 * several ranges (a server may ignore those), or an `If-Range` that names other content.
 * @throws Problem range_not_satisfiable, with `length`; the answer then carries it as Content-Range
 */
export function readRange(ctx: Context, { etag, length }: { etag: string; length: number }): ByteRange | null {
  const ifRange = ctx.get('if-range');
  if (ifRange !== '' && ifRange !== etag) return null;
  const parsed = parseRange(ctx.get('range'), length);
  if (parsed !== 'unsatisfiable') return parsed;
  throw new Problem('range_not_satisfiable', `there are ${length} bytes`, { length });
}

/** A pure reading of the header, for content of `length` bytes. */
export function parseRange(header: string, length: number): ByteRange | null | 'unsatisfiable' {
  const match = /^bytes=\s*(\d*)-(\d*)\s*$/.exec(header);
  if (!match) return null;
  const [, first = '', last = ''] = match;
  if (first === '' && last === '') return null;
  if (first === '') {
    const suffix = Math.min(Number(last), length);
    return suffix === 0 ? 'unsatisfiable' : { offset: length - suffix, length: suffix };
  }
  const from = Number(first);
  const to = last === '' ? length - 1 : Math.min(Number(last), length - 1);
  if (last !== '' && Number(last) < from) return null; // not a range at all, so as if it were not there
  if (from >= length) return 'unsatisfiable';
  return { offset: from, length: to - from + 1 };
}
