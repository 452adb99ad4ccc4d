/** Makes of what an act tells what the database takes, and hands back byte for byte. */
import type { Act, JsonValue } from './act.ts';

/** In characters. A longer name is cut: who types one at a sign-in does not decide whether it is logged. */
const nameMax = 512;
export const detailsBytesMax = 16_384;
/** Of details that are too long as a whole, a value of at most so many bytes stays. */
const smallBytesMax = 256;

/** Without NUL and halves of characters, and cut at a length. */
export function cleanText(text: string, charactersMax = nameMax): string {
  const cut = text.length > charactersMax ? `${text.slice(0, charactersMax - 1)}…` : text;
  return cut.toWellFormed().replaceAll('\0', '\ufffd');
}

/**
 * Details as JSON of at most 16 KiB. Longer, the large values are replaced by how large they were: an act that cannot be
 * written would undo what it tells.
 */
export function detailsText(details: Act['details']): string {
  const whole = cleanJson(details);
  if (Buffer.byteLength(whole) <= detailsBytesMax) return whole;
  const entries = Object.entries(details).map(([name, value]): [string, JsonValue] => {
    const bytes = Buffer.byteLength(JSON.stringify(value));
    return [name, bytes <= smallBytesMax ? value : { bytes, leftOut: true }];
  });
  const shortened = cleanJson(Object.fromEntries(entries));
  if (Buffer.byteLength(shortened) <= detailsBytesMax) return shortened;
  return JSON.stringify({ bytes: Buffer.byteLength(whole), leftOut: true });
}

/** JSON writes what PostgreSQL does not take as an escape; a backslash that is itself escaped begins none. */
function cleanJson(value: JsonValue): string {
  return JSON.stringify(value).replace(/\\\\|\\u0000|\\ud[89a-f][0-9a-f]{2}/g, (found) =>
    found === '\\\\' ? found : '\\ufffd',
  );
}
