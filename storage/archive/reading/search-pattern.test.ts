import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { matchesPath, queryOfPart, queryOfPattern, searchBounds } from './search-pattern.ts';
import { foldName, foldText, isPlain } from './search-text.ts';

const split = (path: string): Buffer[] =>
  path
    .slice(1)
    .split('/')
    .map((name) => Buffer.from(name));
const matches = (pattern: string, path: string): boolean => matchesPath(queryOfPattern(pattern), split(path));

describe('patterns', () => {
  test.each<[pattern: string, path: string, expected: boolean]>([
    ['*.xlsx', '/home/Budget.XLSX', true],
    ['*.xlsx', '/home/budget.xlsx.bak', false],
    ['*.xlsx', '/home/.xlsx', true],
    ['report-*', '/a/report-', true],
    ['report-*', '/a/my report-1', false],
    ['re*t-*-*.txt', '/report-1-2.txt', true],
    ['?', '/ä', true],
    ['?', '/a\u0308', true], // the same, written as two
    ['?', '/💾', true],
    ['??', '/💾', false],
    ['ÄRGER*', '/ärger.txt', true],
    ['*ΣΑΣ', '/όσας', true],
    ['όσας', '/ΌΣΑΣ', true], // three letters sigma
    ['[a-c]1', '/B1', true],
    ['[!a-c]1', '/B1', false],
    ['[!a-c]1', '/d1', true],
    ['[]]', '/]', true],
    ['[a\\]]', '/]', true],
    ['[a-]', '/-', true],
    ['\\*', '/*', true],
    ['\\*', '/a', false],
    ['\\[a\\]', '/[a]', true],
    ['a{b,c}', '/a{b,c}', true],
    ['**', '/a/b', true],
    ['/home/ann/**/report-*', '/home/ann/report-1', true],
    ['/home/ann/**/report-*', '/Home/Ann/x/y/REPORT-1', true],
    ['/home/ann/**/report-*', '/home/anna/report-1', false],
    ['/home/ann/**/report-*', '/old/home/ann/report-1', false],
    ['/home/*/x', '/home/a/b/x', false],
    ['docs/*.txt', '/a/b/docs/c.txt', true],
    ['docs/*.txt', '/docs/c.txt', true],
    ['docs/*.txt', '/docs/d/c.txt', false],
    ['/docs/**', '/docs', false],
    ['/docs/**', '/docs/a/b', true],
    ['**/node_modules/**', '/a/node_modules/b/c', true],
    ['**/node_modules/**', '/a/node_modules', false],
    ['**/a/**/a/**/b', '/a/a/a/c', false],
    ['**/a/**/a/**/b', '/x/a/y/a/z/b', true],
    ['/a**b', '/aXXb', true],
    ['/a**b', '/a/b', false],
  ])('%s of %s: %s', (pattern, path, expected) => {
    expect(matches(pattern, path)).toBe(expected);
  });

  test.each(['[', '[a', '[!', '[]', 'a\\', '[b-a]', '[/]', '/', 'a/', 'a//b', '/**/'])('%s is refused', (pattern) => {
    expect(() => queryOfPattern(pattern)).toThrow(expect.objectContaining({ code: 'malformed_request' }));
  });

  test('bounds: the longest and the one after it', () => {
    const { textMax, starsMax } = searchBounds;
    for (const make of [queryOfPart, queryOfPattern]) {
      expect(make('x'.repeat(textMax)).matchesName('X'.repeat(textMax))).toBe(true);
      expect(() => make('x'.repeat(textMax + 1))).toThrow(expect.objectContaining({ code: 'out_of_bounds' }));
      expect(() => make('')).toThrow(expect.objectContaining({ code: 'out_of_bounds' }));
    }
    expect(queryOfPattern('*a'.repeat(starsMax)).matchesName('A'.repeat(starsMax))).toBe(true);
    expect(() => queryOfPattern('*a'.repeat(starsMax + 1))).toThrow(expect.objectContaining({ code: 'out_of_bounds' }));
    expect(() => queryOfPattern('/**/a'.repeat(starsMax + 1))).toThrow(
      expect.objectContaining({ code: 'out_of_bounds' }),
    );
  });

  test('what would keep a regular expression busy for years takes as many steps as name times pattern', () => {
    const name = Buffer.from('a'.repeat(2_048));
    const worst = `${'*a'.repeat(searchBounds.starsMax)}*b`.replace('*a*', '*a');
    expect(matchesPath(queryOfPattern(worst), [name])).toBe(false);
    const deep = Array.from({ length: 512 }, () => Buffer.from('a'.repeat(60)));
    expect(matchesPath(queryOfPattern(`${'**/a*/'.repeat(8).slice(0, -1)}b`), deep)).toBe(false);
  });
});

/** As patterns are defined, and nothing else: it may take for ever. */
function naive(pattern: readonly string[], text: readonly string[]): boolean {
  const [head, ...rest] = pattern;
  if (head === undefined) return text.length === 0;
  if (head === '*') return text.some((_, i) => naive(rest, text.slice(i))) || naive(rest, []);
  return text.length > 0 && (head === '?' || head === text[0]) && naive(rest, text.slice(1));
}

function naivePath(pattern: readonly string[], names: readonly string[]): boolean {
  const [head, ...rest] = pattern;
  if (head === undefined) return names.length === 0;
  if (head === '**') {
    if (rest.length === 0) return names.length > 0;
    return Array.from({ length: names.length + 1 }, (_, i) => names.slice(i)).some((left) => naivePath(rest, left));
  }
  return names.length > 0 && naive([...head], [...names[0]!]) && naivePath(rest, names.slice(1));
}

test('a pattern matches exactly what its definition says', () => {
  const letters = fc.constantFrom('A', 'B', '中');
  const name = fc.string({ unit: letters, minLength: 1, maxLength: 7 });
  const part = fc.string({ unit: fc.constantFrom('A', 'B', '中', '*', '?'), minLength: 1, maxLength: 7 });
  fc.assert(
    fc.property(part, name, (pattern, text) => {
      expect(queryOfPattern(pattern).matchesName(text)).toBe(naive([...pattern], [...text]));
    }),
    { numRuns: 2_000 },
  );
  const simple = fc.oneof(fc.constant('**'), fc.constantFrom('A', 'B', '*', 'A*', '?B'));
  fc.assert(
    fc.property(
      fc.array(simple, { minLength: 1, maxLength: 5 }),
      fc.array(fc.constantFrom('A', 'B', 'AB'), { minLength: 1, maxLength: 6 }),
      (pattern, names) => {
        const query = queryOfPattern(`/${pattern.join('/')}`);
        const path = names.map((each) => Buffer.from(each));
        expect(matchesPath(query, path)).toBe(naivePath(pattern, names));
      },
    ),
    { numRuns: 2_000 },
  );
});

describe('text', () => {
  const everyCharacter = Array.from({ length: 0x110000 }, (_, i) => i)
    .filter((point) => point > 0 && (point < 0xd800 || point > 0xdfff))
    .map((point) => String.fromCodePoint(point));

  test('of all of Unicode, plain characters come of themselves alone, and folding twice changes nothing more', () => {
    const wrong: string[] = [];
    for (const character of everyCharacter) {
      const folded = foldText(character);
      if (foldText(folded) !== folded) wrong.push(`${character}: folded twice`);
      if ([...folded].length > Buffer.byteLength(character)) wrong.push(`${character}: more characters than bytes`);
      for (const each of folded)
        if (isPlain(each) && each !== character && !/^[a-z]$/.test(character)) wrong.push(`${character} gives ${each}`);
    }
    expect(wrong).toEqual([]);
  });

  test('plain are nearly all of ASCII, and Chinese and Japanese', () => {
    expect(['A', '0', '.', ' ', '中', '文', 'あ', 'ア'].map(isPlain)).toEqual(Array(8).fill(true));
    expect(['K', ';', '`', 'Ä', 'Я', 'Σ', 'が', '가', '\ufffd'].map(isPlain)).toEqual(Array(9).fill(false));
  });

  test('bytes that are no UTF-8 are U+FFFD, and a mark of byte order is a character', () => {
    expect(foldName(Buffer.from([0x61, 0xff, 0x62]))).toBe('A\ufffdB');
    expect(foldName(Buffer.from('\ufeffa'))).toBe('\ufeffA');
  });
});
