/**
 * Names as bytes and as text. Windows names are 16-bit units that need not pair up, so they travel as WTF-8
 * (https://simonsapin.github.io/wtf-8/): UTF-8 that also spells a lone surrogate. Every string survives
 * encode -> decode, and encoding equal strings gives equal bytes.
 */

/** The bytes of a string; UTF-8 unless it holds lone surrogates. */
export function encodeWtf8(text: string): Buffer {
  if (text.isWellFormed()) return Buffer.from(text, 'utf8');
  const parts: Buffer[] = [];
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0xd800 || unit > 0xdfff) continue;
    const next = text.charCodeAt(i + 1);
    if (unit < 0xdc00 && next >= 0xdc00 && next <= 0xdfff) {
      i++;
      continue;
    }
    parts.push(Buffer.from(text.slice(start, i), 'utf8'), surrogateBytes(unit));
    start = i + 1;
  }
  parts.push(Buffer.from(text.slice(start), 'utf8'));
  return Buffer.concat(parts);
}

function surrogateBytes(unit: number): Buffer {
  return Buffer.of(0xe0 | (unit >> 12), 0x80 | ((unit >> 6) & 0x3f), 0x80 | (unit & 0x3f));
}

/**
 * The text that bytes spell, in runs: valid ones, and single bytes that are not UTF-8 (nor, with `surrogates`,
 * a lone surrogate).
 */
export function decodeRuns(bytes: Buffer, options: { surrogates: boolean }): { text: string; invalid: boolean }[] {
  const runs: { text: string; invalid: boolean }[] = [];
  let valid = 0;
  const flush = (end: number): void => {
    if (end > valid) runs.push({ text: bytes.toString('utf8', valid, end), invalid: false });
  };
  for (let at = 0; at < bytes.byteLength; ) {
    const length = sequenceLength(bytes, at);
    if (length > 0) {
      at += length;
      continue;
    }
    flush(at);
    if (options.surrogates && length === SURROGATE) {
      const unit = ((bytes[at]! & 0x0f) << 12) | ((bytes[at + 1]! & 0x3f) << 6) | (bytes[at + 2]! & 0x3f);
      runs.push({ text: String.fromCharCode(unit), invalid: false });
      at += 3;
    } else {
      runs.push({ text: bytes.toString('latin1', at, at + 1), invalid: true });
      at += 1;
    }
    valid = at;
  }
  flush(bytes.byteLength);
  return runs;
}

/** The string that WTF-8 bytes came from, or null when they are not WTF-8. */
export function decodeWtf8(bytes: Buffer): string | null {
  const runs = decodeRuns(bytes, { surrogates: true });
  return runs.some((run) => run.invalid) ? null : runs.map((run) => run.text).join('');
}

const SURROGATE = -3;

/** Bytes of the UTF-8 sequence at `at`; SURROGATE for a surrogate in three bytes; 0 for anything else. RFC 3629, section 4. */
function sequenceLength(bytes: Buffer, at: number): number {
  const first = bytes[at]!;
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  for (let i = 1; i < length; i++) {
    const byte = bytes[at + i];
    if (byte === undefined || (byte & 0xc0) !== 0x80) return 0;
  }
  const second = bytes[at + 1]!;
  if (first === 0xe0 && second < 0xa0) return 0; // over-long
  if (first === 0xf0 && second < 0x90) return 0; // over-long
  if (first === 0xf4 && second > 0x8f) return 0; // past U+10FFFF
  if (first === 0xed && second > 0x9f) return SURROGATE;
  return length;
}
