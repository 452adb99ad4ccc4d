/** Answers that are files: offered to be saved, never shown in the page's own name, and kept by nobody on the way. */
import { streamed } from '../answers.ts';
import type { Context } from '../deps.ts';
import type { Content } from './route.ts';

export async function sendContent(ctx: Context, { type, fileName, bytes }: Content): Promise<void> {
  ctx.set('Content-Disposition', attachment(fileName));
  ctx.set('X-Content-Type-Options', 'nosniff');
  ctx.set('Cache-Control', 'no-store');
  await streamed(ctx, type, bytes);
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
