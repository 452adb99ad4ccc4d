import { beforeAll, describe, expect, test } from '@jest/globals';
import { seededRandom } from '../../../tests/helpers/random.ts';
import { bytesOfTokens, type MayMatch, type Writings, writingsOfAll } from './search-bytes.ts';
import { queryOfPart, queryOfPattern } from './search-pattern.ts';
import { foldName, foldText } from './search-text.ts';

let writings: Writings;
beforeAll(async () => {
  writings = await writingsOfAll();
});

const finderOf = (part: string): MayMatch | null => bytesOfTokens(queryOfPart(part).tokens, writings);
const passes = (find: MayMatch | null, name: Uint8Array): boolean => find === null || find(name, 0, name.byteLength);

test('of all of Unicode, no name that holds a character is left out, however it is written', () => {
  const finders = new Map<string, MayMatch | null>();
  const finder = (folded: string): MayMatch | null => {
    if (!finders.has(folded)) finders.set(folded, finderOf(folded));
    return finders.get(folded)!;
  };
  const wrong: string[] = [];
  let unknown = 0;
  const ask = (character: string): void => {
    const folded = foldText(character);
    const forms = [character.toLowerCase(), character.toUpperCase(), character];
    const written = new Set(forms.flatMap((form) => [form, form.normalize('NFD')]));
    for (const each of new Set([folded, ...folded])) {
      const find = finder(each);
      if (find === null) unknown++;
      else
        for (const text of written) {
          // What folds to something else is not what is looked for.
          if (!foldText(text).includes(each)) continue;
          const name = Buffer.from(`ж${text}中`);
          if (foldName(name).includes(each) && !passes(find, name)) wrong.push(`${each} in ${text}`);
        }
    }
  };
  const changes = /[\p{Changes_When_Casemapped}\p{Changes_When_NFKC_Casefolded}\p{M}]/u;
  for (let point = 1; point <= 0x10ffff; point++) {
    if (point >= 0xd800 && point <= 0xdfff) continue;
    const character = String.fromCodePoint(point);
    // Of those that never change some are enough, but each that may be another's lower or upper case.
    if (point < 0x3400 || point % 61 === 0 || changes.test(character) || foldText(character) !== character)
      ask(character);
  }
  expect(wrong).toEqual([]);
  // Syllables of Hangul, and what stands for bytes that are no text.
  expect(unknown).toBeLessThan(1_000);
});

/** Of each a few letters, and marks that stand on them in any number and order. */
const scripts: readonly (readonly [letters: string, marks: string])[] = [
  ['aeiosAEIOSbkZåçñéỘ', '\u0300\u0301\u0302\u0307\u0308\u030a\u0323\u0327\u0328\u0331\u0345'],
  ['αωηιΑΩςσΐᾳ', '\u0300\u0301\u0308\u0313\u0314\u0342\u0345\u0344'],
  ['ивеИёйЖ', '\u0301\u0306\u0308\u0483'],
  ['محدابي', '\u064b\u064e\u0650\u0651\u0652\u0653\u0654\u0655\u0670'],
  ['שבאו', '\u05b0\u05b7\u05bc\u05c1\u05c2\u05c4\u0591'],
  ['কখ', '\u09bc\u09c7\u09be\u09d7\u09cd'],
  ['กข', '\u0e31\u0e38\u0e48\u0e49'],
  ['かはカハ中', '\u3099\u309a'],
  ['가\u1100\u1161\u11a8', '\u0301\u302e'],
  ['𝅗\u{1d158}', '\u{1d165}\u{1d16e}\u0301'],
];

test.each([1, 2, 3, 4, 5])(
  'no name is left out that holds what is looked for, whatever marks it has and in whatever order (seed %i)',
  (seed) => {
    const random = seededRandom(seed);
    const forms = [
      (text: string) => text,
      (text: string) => text.normalize('NFC'),
      (text: string) => text.normalize('NFD'),
      (text: string) => text.toUpperCase(),
      (text: string) => text.toLowerCase(),
    ];
    const wrong: string[] = [];
    let held = 0;
    for (let i = 0; i < 4_000; i++) {
      const [letters, marks] = random.pick(scripts).map((each) => [...each]) as [string[], string[]];
      let name = '';
      for (let left = 1 + random.below(4); left > 0; left--) {
        name += random.pick(letters);
        for (let more = random.below(4); more > 0; more--) name += random.pick(marks);
      }
      const folded = [...foldText(name)];
      const from = random.below(folded.length);
      const part = folded.slice(from, from + 1 + random.below(folded.length - from)).join('');
      const stored = Buffer.from(random.pick(forms)(name));
      const query = queryOfPart(random.pick(forms)(part));
      if (!query.matchesName(foldName(stored))) continue;
      held++;
      if (!passes(bytesOfTokens(query.tokens, writings), stored))
        wrong.push(`${escaped(part)} in ${escaped(stored.toString())}`);
    }
    expect(wrong).toEqual([]);
    expect(held).toBeGreaterThan(2_000);
  },
);

const escaped = (text: string): string => [...text].map((each) => each.codePointAt(0)!.toString(16)).join(' ');

describe('what is left out', () => {
  test.each<[part: string, name: string, passes: boolean]>([
    ['отчёт', 'Годовой ОТЧЁТ.docx', true],
    ['отчёт', 'отче\u0308т', true],
    ['отчёт', 'протокол встречи', false],
    ['отчёт', 'report', false],
    ['последний', 'ПОСЛЕДНИЙ', true],
    ['последний', 'пОслЕдний', true],
    ['последний', 'предпоследняя неделя, 1', true], // for so much of it as is looked for
    ['последний', 'предпоследовательный', true],
    ['последний', 'последствия', true],
    ['последний', 'посланник', false],
    ['kkk', 'KkK', true],
    ['kkk', '\u212a\u212a\u212a', true],
    ['kkk', 'kk', false],
    ['όσας', 'ΌΣΑΣ', true],
    ['όσας', 'όσες', false],
    ['straße', 'STRASSE', false],
    ['가', '\u1100\u1161', true],
    // Marks are stored as they were typed, and compared in the order that NFC gives them.
    ['\u0645\u062d\u0645\u0651\u064e\u062f', '\u0645\u062d\u0645\u0651\u064e\u062f', true],
    ['\u0645\u062d\u0645\u064e\u0651\u062f', '\u0645\u062d\u0645\u0651\u064e\u062f', true],
    ['\u05e9\u05bc\u05c1', '\u05e9\u05bc\u05c1', true],
    ['\u05e9\u05c1\u05bc', '\u05e9\u05bc\u05c1', true],
    ['b\u0323', 'b\u0301\u0323', true],
    ['b\u0301\u0323', 'b\u0301\u0323', true],
    ['b\u0301\u0323', 'b\u0323\u0301', true],
    ['\u0301ι', 'b\u0345\u0301', true],
    ['b\u0323', 'b, d', false],
  ])('%s in %s', (part, name, expected) => {
    expect(passes(finderOf(part), Buffer.from(name))).toBe(expected);
  });

  test('only what lies within the name counts', () => {
    const find = finderOf('отчёт')!;
    const bytes = Buffer.from('отчётотчёт');
    const one = bytes.byteLength / 2;
    expect(find(bytes, 0, one)).toBe(true);
    expect(find(bytes, 0, 5)).toBe(false);
    expect(find(bytes, one, one + 5)).toBe(false);
  });

  test('of a pattern its longest part is looked for, and of one without any nothing', () => {
    const find = bytesOfTokens(queryOfPattern('*год?отчёты*').tokens, writings);
    expect(passes(find, Buffer.from('год и отчёты'))).toBe(true);
    expect(passes(find, Buffer.from('год и месяц'))).toBe(false);
    for (const pattern of ['*', '?*', '[а-я]'])
      expect(bytesOfTokens(queryOfPattern(pattern).tokens, writings)).toBeNull();
  });
});
