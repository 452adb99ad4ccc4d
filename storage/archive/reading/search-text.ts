/**
 * How names are compared when people search: as text, whatever its case and however its accents are written.
 *
 * A name is bytes. What of it is no UTF-8 shows as U+FFFD, here as on a screen. Text is put into NFC and then each
 * character into upper case, if that is one character again (Unicode calls it simple folding: "ß" is not "ss"); a letter
 * of ASCII is only ever equal to a letter of ASCII.
 *
 * What must stay true, because the database looks for bytes before anything is compared here (search-pattern.ts): where
 * folded text holds a run of *plain* characters, the bytes hold those very characters, or of ASCII letters either case.
 */
import { isAscii } from 'node:buffer';

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** The folded text of a name. */
export function foldName(name: Uint8Array): string {
  if (isAscii(name)) return Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString('latin1').toUpperCase();
  return foldText(decoder.decode(name));
}

/** Folded text. Every character of it stands for one of the NFC form. */
export function foldText(text: string): string {
  let folded = '';
  for (const character of text.normalize('NFC')) folded += foldCharacter(character);
  return folded;
}

function foldCharacter(character: string): string {
  const lower = isOne(character.toLowerCase()) ? character.toLowerCase() : character;
  const upper = isOne(lower.toUpperCase()) ? lower.toUpperCase() : lower;
  return isOfAscii(upper) && !isOfAscii(character) ? character : upper;
}

function isOne(text: string): boolean {
  return text.length === (text.codePointAt(0)! > 0xffff ? 2 : 1);
}

function isOfAscii(character: string): boolean {
  return character.charCodeAt(0) < 0x80;
}

/** Of ASCII, those that NFC makes of a character outside (the Kelvin sign, a Greek question mark, a Greek accent). */
const madeByNfc = new Set(['K', ';', '`']);

/**
 * Whether a folded character is found in names as its own bytes, and as nothing else but, of an ASCII letter, its other
 * case. Of the characters outside ASCII those of Chinese and Japanese: they have neither case nor, most of them, another way
 * to be written. Saying no where yes were true costs time; the other way round it would lose hits.
 */
export function isPlain(character: string): boolean {
  if (isOfAscii(character)) return !madeByNfc.has(character);
  const point = character.codePointAt(0)!;
  if (point >= 0x3041 && point <= 0x3096) return character.normalize('NFD') === character; // hiragana
  if (point >= 0x30a1 && point <= 0x30fa) return character.normalize('NFD') === character; // katakana
  const isHan = (point >= 0x3400 && point <= 0x4dbf) || (point >= 0x4e00 && point <= 0x9fff);
  return isHan && !twins().has(character);
}

let twinsMade: ReadonlySet<string> | null = null;

/** Ideographs that a compatibility ideograph becomes in NFC. */
function twins(): ReadonlySet<string> {
  if (twinsMade) return twinsMade;
  const made = new Set<string>();
  for (const [from, to] of [
    [0xf900, 0xfaff],
    [0x2f800, 0x2fa1f],
  ] as const)
    for (let point = from; point <= to; point++) {
      const character = String.fromCodePoint(point);
      if (character.normalize('NFC') !== character) made.add(character.normalize('NFC'));
    }
  twinsMade = made;
  return made;
}
