/**
 * Which names may match, by their bytes as they come from the database: what is left out is never decoded, and most are. Of
 * every place in the longest part of a name that is known, the bytes that may stand there; so a letter is looked for in
 * all cases it is written in, of any script.
 *
 * What must stay true: no name that matches is left out. A folded character (search-text.ts) comes of the characters that
 * fold to it, each as its own UTF-8; or of several, of which NFC makes one: then a mark is among them. A mark that is looked
 * for itself may be stored elsewhere among those of its letter, which NFC puts in order, or in a letter that another mark takes
 * apart. Those of the usual length are looked for. Whatever else it may come of begins, each character of it, with a byte
 * that is a *hint*: a name with a hint anywhere is never left out. Tests ask this of every character there is, and of marks
 * in any order.
 */
import type { Token } from './search-pattern.ts';
import { foldText } from './search-text.ts';
import { Turn } from './search-work.ts';

/** Whether the name that lies from `start` to `end` may match. */
export type MayMatch = (bytes: Uint8Array, start: number, end: number) => boolean;

/** Bytes that are looked for: more of them leave out hardly any more names. */
const placesMax = 12;

type ByteSet = Uint8Array;

interface Known {
  /** By place, the bytes that may stand there. */
  places: ByteSet[];
  hints: number[];
}

/** @param folded what is looked for, in folded text; by its longest part. @returns null: nothing is known of it */
export function bytesOfTokens(tokens: readonly Token[], writings: Writings): MayMatch | null {
  const runs: Known[][] = [[]];
  for (const token of tokens) {
    const known = token.kind === 'character' ? writings.of(token.character) : null;
    if (known) runs.at(-1)!.push(known);
    else runs.push([]);
  }
  const lengthOf = (run: readonly Known[]): number => run.reduce((sum, { places }) => sum + places.length, 0);
  const run = runs.reduce((longest, each) => (lengthOf(each) > lengthOf(longest) ? each : longest));
  if (run.length === 0) return null;
  const taken: Known[] = [];
  for (const each of run)
    if (lengthOf(taken) + each.places.length <= placesMax) taken.push(each);
    else break;
  return finderOf(taken);
}

function finderOf(run: readonly Known[]): MayMatch {
  const places = run.flatMap((each) => each.places);
  const hints = new Uint8Array(256);
  for (const hint of run.flatMap((each) => each.hints)) hints[hint] = 1;
  const [first, ...rest] = places as [ByteSet, ...ByteSet[]];
  return (bytes, start, end) => {
    for (let at = start; at < end; at++) {
      const byte = bytes[at]!;
      if (hints[byte] === 1) return true;
      if (first[byte] === 0 || at + places.length > end) continue;
      let place = 0;
      while (place < rest.length && rest[place]![bytes[at + 1 + place]!] === 1) place++;
      if (place === rest.length) return true;
    }
    return false;
  };
}

/** How folded characters are written in names. */
export class Writings {
  /** By folded character: the characters that become it, where it is not itself alone. */
  readonly #sources = new Map<string, string[]>();
  /** By folded character: the first bytes of characters that become it and others. */
  readonly #amongOthers = new Map<string, number[]>();
  /** By mark: the first bytes of marks that are, or hold, it, and those of letters that hold it. */
  readonly #marks = new Map<string, Set<number>>();
  readonly #lettersWith = new Map<string, Set<number>>();
  readonly #known = new Map<string, Known | null>();

  /** Adds what one character there is becomes. */
  add(character: string): void {
    const firstByte = Buffer.from(character)[0]!;
    const holders = isMark(character) ? this.#marks : this.#lettersWith;
    for (const mark of character.normalize('NFD')) {
      if (!isMark(mark)) continue;
      const bytes = holders.get(mark) ?? new Set();
      holders.set(mark, bytes.add(firstByte));
    }
    const folded = foldText(character);
    if (isOneCharacter(folded)) {
      const sources = this.#sources.get(folded) ?? [];
      sources.push(character);
      this.#sources.set(folded, sources);
      return;
    }
    for (const each of folded) {
      const bytes = this.#amongOthers.get(each) ?? [];
      bytes.push(firstByte);
      this.#amongOthers.set(each, bytes);
    }
  }

  /** @returns null: it is not known by what bytes it is written */
  of(folded: string): Known | null {
    let known = this.#known.get(folded);
    if (known === undefined) {
      known = this.#find(folded);
      this.#known.set(folded, known);
    }
    return known;
  }

  #find(folded: string): Known | null {
    // Stands for bytes that are no text.
    if (folded === '\ufffd') return null;
    const sources = new Set([folded, ...(this.#sources.get(folded) ?? [])]);
    const hints = [...(this.#amongOthers.get(folded) ?? [])];
    for (const source of sources) {
      const [first, ...marks] = source.normalize('NFD') as unknown as [string, ...string[]];
      if (isMark(first))
        for (const mark of [first, ...marks])
          hints.push(...(this.#lettersWith.get(mark) ?? []), ...(this.#marks.get(mark) ?? []), Buffer.from(mark)[0]!);
      for (const mark of marks) {
        // Of Hangul, a syllable is made of letters.
        if (!isMark(mark)) return null;
        hints.push(...(this.#marks.get(mark) ?? []), Buffer.from(mark)[0]!);
      }
    }
    const written = [...sources].map((source) => Buffer.from(source));
    const byLength = Map.groupBy(written, ({ byteLength }) => byteLength);
    const usual = [...byLength.values()].reduce((most, each) => (each.length > most.length ? each : most));
    const places = Array.from({ length: usual[0]!.byteLength }, (_, place): ByteSet => {
      const bytes = new Uint8Array(256);
      for (const each of usual) bytes[each[place]!] = 1;
      return bytes;
    });
    for (const each of written) if (each.byteLength !== places.length) hints.push(each[0]!);
    return { places, hints };
  }
}

const isMark = (character: string): boolean => /^\p{M}/u.test(character);

const isOneCharacter = (text: string): boolean => text.length === (text.codePointAt(0)! > 0xffff ? 2 : 1);

/** Those that are, or become, something else than themselves, in some way that counts here. */
const worthAdding = /[\p{Changes_When_Casemapped}\p{Changes_When_NFKC_Casefolded}\p{M}\p{Cased}]/u;

/** Between these nothing becomes anything else: ideographs, syllables of Hangul, surrogates, and what is for private use or for nobody yet. */
const lookedAt: readonly (readonly [from: number, to: number])[] = [
  [0x1, 0x33ff],
  [0xa000, 0xabff],
  [0xf900, 0x1ffff],
  [0x2f800, 0x2faff],
  [0xe0000, 0xe0fff],
];

/** In turns: it takes some tens of milliseconds, and others have theirs meanwhile. */
async function learnWritings(): Promise<Writings> {
  const writings = new Writings();
  const turn = new Turn();
  for (const [from, to] of lookedAt)
    for (let point = from; point <= to; point++) {
      const character = String.fromCodePoint(point);
      if (worthAdding.test(character)) writings.add(character);
      if ((point & 0x3f) === 0 && turn.isOver) await turn.next();
    }
  return writings;
}

let learnt: Promise<Writings> | null = null;

/** Of all characters there are, learnt once. */
export function writingsOfAll(): Promise<Writings> {
  learnt ??= learnWritings();
  return learnt;
}
