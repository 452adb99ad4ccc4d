/**
 * The shapes an answer of the JSON API has: a JSON document, or a stream of JSON lines (NDJSON) for what may be long.
 * A stream that is whole ends with the line its route says; a cut one does not.
 */
import type { Context } from '../deps.ts';

export const jsonLinesType = 'application/x-ndjson';

export function answerJson(ctx: Context, document: object, status = 200): void {
  ctx.status = status;
  ctx.body = `${JSON.stringify(document)}\n`;
  ctx.set('Content-Type', 'application/json');
  ctx.set('Cache-Control', 'no-store');
}

/** Lines are joined up to this: a write for each would cost more than the line. */
const joinedCharacters = 32 * 1024;

/** Among lines: what there is so far is sent, for whoever waits for the first of them. */
export const sendNow = '';

/** Objects as a line of JSON each; text as it is. */
export async function* joinedLines(lines: AsyncIterable<object | string>): AsyncGenerator<Uint8Array> {
  let text = '';
  for await (const line of lines) {
    text += typeof line === 'string' ? line : `${JSON.stringify(line)}\n`;
    if (text === '' || (text.length < joinedCharacters && line !== sendNow)) continue;
    yield Buffer.from(text);
    text = '';
  }
  if (text !== '') yield Buffer.from(text);
}
