import { describe, expect, test } from '@jest/globals';
import { checkKey, checkKeyPrefix, checkPage, checkRange, ObjectRangeInvalid } from './object-store.ts';

describe('keys', () => {
  test.each([
    'a',
    'c1/blocks/17/ab.0',
    '..a/a../...',
    'A_Z-9',
    'n'.repeat(120),
    `${'n'.repeat(120)}/${'n'.repeat(120)}`,
    Array(512).fill('n').join('/'),
  ])('%j is one', (key) => {
    expect(checkKey(key)).toBe(key);
  });

  test.each([
    '',
    '/a',
    'a/',
    'a//b',
    '.',
    '..',
    '../a',
    'a/../b',
    'a/.',
    'a b',
    'a\\b',
    'a\0',
    'ä',
    'a%2e',
    'a+b',
    'a^b',
    'n'.repeat(121),
    `n/${Array(512).fill('n').join('/')}`,
  ])('%j is none', (key) => {
    expect(() => checkKey(key)).toThrow(RangeError);
  });
});

test.each(['', 'a', 'a/', 'a/b', '.', 'a/.', '..'])('%j begins a key', (prefix) => {
  expect(checkKeyPrefix(prefix)).toBe(prefix);
});

test.each(['/', 'a//', '../', './a', 'a b', 'n'.repeat(1_025)])('%j begins no key', (prefix) => {
  expect(() => checkKeyPrefix(prefix)).toThrow(RangeError);
});

test('a page has 1 to 1,000 objects', () => {
  expect(checkPage({ limit: 1 })).toEqual({ after: '', limit: 1 });
  expect(checkPage({ limit: 1_000, after: 'a/b' })).toEqual({ after: 'a/b', limit: 1_000 });
  for (const limit of [0, 1_001, 2.5, Number.NaN]) expect(() => checkPage({ limit })).toThrow(RangeError);
});

test('a range has a first byte', () => {
  expect(checkRange('a', { offset: 0, length: 1 })).toEqual({ offset: 0, length: 1 });
  for (const [offset, length] of [
    [0, 0],
    [-1, 1],
    [0, -1],
    [0.5, 1],
    [0, 1.5],
    [2 ** 53, 1],
  ] as const) {
    expect(() => checkRange('a', { offset, length })).toThrow(ObjectRangeInvalid);
  }
});
