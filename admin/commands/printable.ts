/**
 * Text of others on a person's terminal. A name may hold characters that move the cursor, change colours or turn the
 * direction of writing: they are shown as what they are, and do nothing.
 */

// Controls (C0, DEL, C1), separators that break lines, what shows nothing or turns the text around, and halves of pairs.
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** On one line. */
export function printable(text: string): string {
  return text.replace(unprintable, escaped);
}

/** Over several lines, as help is. */
export function printableLines(text: string): string {
  return text.split('\n').map(printable).join('\n');
}

/** JSON that means the same and is safe on a terminal. @param indent spaces per level; 0: one line */
export function printableJson(value: unknown, indent = 0): string {
  return JSON.stringify(value, null, indent).replace(unprintable, (character) =>
    // The line breaks of an indented document are its own: those of its texts are escaped already.
    character === '\n' ? character : [...Array(character.length).keys()].map((at) => unit(character, at)).join(''),
  );
}

const unit = (text: string, at: number): string => `\\u${text.charCodeAt(at).toString(16).padStart(4, '0')}`;

function escaped(character: string): string {
  const code = character.codePointAt(0)!;
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`;
}

/** Columns it takes on a terminal: East Asian wide characters and emoji take two, marks on the character before none. */
export function widthOf(text: string): number {
  let width = 0;
  for (const character of text) width += isMark.test(character) ? 0 : isWide.test(character) ? 2 : 1;
  return width;
}

const isMark = /^\p{M}$/u;
const isWide =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]$/u;

/** The beginning of a text that takes no more columns than `width`, with an ellipsis where something is left out. */
export function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  let kept = '';
  let have = 0;
  for (const character of text) {
    have += widthOf(character);
    if (have > width - 1) break;
    kept += character;
  }
  return `${kept}…`;
}

export function padded(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - widthOf(text)));
}
