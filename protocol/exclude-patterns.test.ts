import { describe, expect, test } from '@jest/globals';
import { wildcardBounds, wildcardFault } from './exclude-patterns.ts';

const isRefused = (pattern: string, backslash: Parameters<typeof wildcardFault>[1] = 'quotes') =>
  wildcardFault(pattern, backslash) !== null;

describe('wildcards', () => {
  test.each<[pattern: string, refused: boolean]>([
    ['*a*a*b', false],
    ['*a*a*a*', false],
    ['*a*a*a*b', true],
    ['*?*?*?*b', true],
    ['!*a*a*a*b/', true],
    ['# *a*a*a*a*a*b', false],
    ['*a*a*a\\*b', false],
    ['*a*a*a\\\\*b', true],
    ['/home/*/.var/*/cache/*/x/*/y', false],
    ['/*a*a/*a*b', false],
    ['/*a*a/*a*a/b', false],
    ['/*a*a/*a*a/*b', true],
    ['/*a*a/*a*a/*a*b', true],
    ['/*a*a/*a*a/*a*a/b', true],
    ['logs/*-*.log', false],
    ['logs/*-*-*.log', true],
    ['/logs/*-*-*.log', false],
    ['x/**/y/*.txt', false],
    ['**/a/**/a/**/b', false],
    ['/**/a/**/a/**/a/**/b', true],
    ['{a,a}'.repeat(7), false],
    ['{a,a}'.repeat(8), true],
    ['{a,{b,c{d,e}}}', false],
    ['*.{jpg,png,gif,bmp,tif}', false],
    ['{*.jpg,*.png,*.gif,*.bmp,*.tif}', false],
    ['*{a,*}*{a,*}*{a,*}b', true],
    ['*a*{*a,}*b', true],
    ['*a*{*a,}b', false],
    ['{*a*a[,]*a*a}b', true],
    ['[{]*a*a,*a*a}b', true],
    ['\\\\\\{*a*a,*a*a\\\\\\}b', true],
    ['{[Cc]ache,[Tt]mp}/', false],
    [`{${'a,'.repeat(wildcardBounds.readingsMax - 1)}a}`, false],
    [`{${'a,'.repeat(wildcardBounds.readingsMax)}a}`, true],
    [`{a,a,a,a,a,a,a,a,a,a,a,a,a}{a,a,a,a,a,a,a,a,a,a,a}${'x'.repeat(3_000)}`, true],
  ])('%s is refused: %s', (pattern, refused) => {
    expect(isRefused(pattern)).toBe(refused);
  });

  test('where it is not known what a backslash does, both count', () => {
    expect(isRefused('a\\*b*c*d*e', 'quotes')).toBe(false);
    expect(isRefused('C:\\*b*c*d*e', 'separates')).toBe(true);
    expect(isRefused('C:\\*b*c*d*e', 'quotes')).toBe(false);
    expect(isRefused('C:\\*b*c*d*e', 'unknown')).toBe(true);
    expect(isRefused('C:\\*b*c*d', 'unknown')).toBe(false);
  });
});
