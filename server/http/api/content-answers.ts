/** Answers that are files: offered to be saved, never shown in the page's own name, and kept by nobody on the way. */
import { Problem } from '../../../protocol/problems.ts';
import { streamed } from '../answers.ts';
import { readRange } from '../byte-range.ts';
import type { Context } from '../deps.ts';
import type { Content, KeptContent } from './route.ts';

/** @throws Problem precondition_failed, range_not_satisfiable */
export async function sendContent(ctx: Context, content: Content): Promise<void> {
  assertMatch(ctx.get('if-match'), 'etag' in content ? content.etag : null);
  ctx.set('Content-Disposition', attachment(content.fileName));
  ctx.set('X-Content-Type-Options', 'nosniff');
  // A link to it is in the address.
  ctx.set('Referrer-Policy', 'no-referrer');
  ctx.set('Cache-Control', 'no-store');
  if ('bytes' in content) return streamed(ctx, content.type, content.bytes);
  return sendKept(ctx, content);
}

/**
 * All of it, or the one range that was asked for (RFC 9110, 13 and 14). Of several ranges, or one that cannot be read, all.
 * @throws Problem range_not_satisfiable
 */
async function sendKept(ctx: Context, { type, etag, length, read }: KeptContent): Promise<void> {
  ctx.set({ ETag: etag, 'Accept-Ranges': 'bytes' });
  if (matches(ctx.get('if-none-match'), etag)) {
    ctx.status = 304;
    return;
  }
  // A range is of what GET answers, and of nothing else.
  const range = ctx.method === 'GET' || ctx.method === 'POST' ? readRange(ctx, { etag, length }) : null;
  ctx.status = range ? 206 : 200;
  if (range) ctx.set('Content-Range', `bytes ${range.offset}-${range.offset + range.length - 1}/${length}`);
  ctx.set('Content-Length', String(range?.length ?? length));
  await streamed(ctx, type, length === 0 ? nothing() : read(range ?? { offset: 0, length }));
}

/** `If-Match`, compared strongly (RFC 9110, 13.1.1). @param etag null: what is made while it is sent has none */
function assertMatch(header: string, etag: string | null): void {
  if (header === '' || header.split(',').some((each) => each.trim() === '*' || each.trim() === etag)) return;
  throw new Problem('precondition_failed', 'this is not what If-Match names (any more)');
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

function matches(header: string, etag: string): boolean {
  return header.split(',').some((each) => each.trim() === '*' || each.trim().replace(/^W\//, '') === etag);
}

const nameCharactersMax = 150;

/** A header that offers a file under a name (RFC 6266): in ASCII for whoever knows no better, and as it is (RFC 8187). */
export function attachment(fileName: string): string {
  const clean = fileName
    .toWellFormed()
    .replaceAll(/[\p{Cc}\p{Cf}"*/:<>?\\|]/gu, '_')
    .replace(/^[\s.]+/, '');
  const dot = clean.lastIndexOf('.');
  const [stem, extension] = dot > 0 ? [clean.slice(0, dot), clean.slice(dot)] : [clean, ''];
  const name = `${[...stem].slice(0, nameCharactersMax).join('') || 'restore'}${extension}`;
  const ascii = name.replaceAll(/[^\x20-\x7e]|%/g, '_');
  if (ascii === name) return `attachment; filename="${name}"`;
  const encoded = encodeURIComponent(name).replaceAll(
    /['()]/g,
    (each) => `%${each.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${ascii}"; filename*=UTF-8''${encoded}`;
}
