/**
 * The shapes an administrator's answer has: a JSON document, or a stream of JSON lines (NDJSON) for what may be long.
 * A stream that is whole ends with the line its route says; a cut one does not.
 */
import { streamed } from '../../answers.ts';
import type { Context } from '../../deps.ts';

export const jsonLinesType = 'application/x-ndjson';

export function answerJson(ctx: Context, document: object, status = 200): void {
  ctx.status = status;
  ctx.body = `${JSON.stringify(document)}\n`;
  ctx.set('Content-Type', 'application/json');
  ctx.set('Cache-Control', 'no-store');
}

/** Lines are joined up to this: a write for each would cost more than the line. */
const joinedCharacters = 32 * 1024;

/** Streams lines as they are made, in one of the places there are for long listings. */
export async function answerLines(ctx: Context, lines: AsyncIterable<object>): Promise<void> {
  const { deps, administrator, signal } = ctx.state;
  const release = await deps.slots.versionStreams.take(`administrator ${administrator!.userId}`, signal);
  try {
    await streamed(ctx, jsonLinesType, joinedLines(lines));
  } finally {
    release();
  }
}

async function* joinedLines(lines: AsyncIterable<object>): AsyncGenerator<Uint8Array> {
  let text = '';
  for await (const line of lines) {
    text += `${JSON.stringify(line)}\n`;
    if (text.length < joinedCharacters) continue;
    yield Buffer.from(text);
    text = '';
  }
  if (text !== '') yield Buffer.from(text);
}
