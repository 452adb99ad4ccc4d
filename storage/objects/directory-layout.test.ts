import { expect, test } from '@jest/globals';
import { groupFolder, groupMembers, mayHold, placeOf } from './directory-layout.ts';

test('a key is spelled by names that no other key has, also where case does not count', () => {
  expect(placeOf('c1/blocks/17/ab12cd.x')).toEqual({ folders: ['c1', 'blocks', '17', '+ab'], file: 'ab12cd.x' });
  expect(placeOf('A/bC')).toEqual({ folders: ['^a', '+b^c'], file: 'b^c' });
  expect(placeOf('a')).toEqual({ folders: ['+a'], file: 'a' });
});

test('the groups of a folder, one after the other, are in the order of keys', () => {
  const folders = ['+ab', 'ab', 'a', '+a', '+a-', 'abc', '^z', '+a0'].map((name) => ({ name, isFolder: true }));
  const groups = groupFolder([...folders, { name: 'a-file-of-somebody', isFolder: false }]);
  expect(groups.map(({ start }) => start)).toEqual(['Z/', 'a', 'a-', 'a/', 'a0', 'ab']);
  const ab = groups.at(-1)!;
  expect(ab.fanOut).toBe('+ab');
  const rests = groupMembers(ab, ['abd', 'ab', 'ab-c', 'ab0']).map(({ rest }) => rest);
  expect(rests).toEqual(['ab', 'ab-c', 'ab/', 'ab0', 'abc/', 'abd']);
});

test.each([
  // start, prefix, after, may hold
  ['a/', '', '', true],
  ['a/', 'a/b', '', true],
  ['a/b', 'a/', '', true],
  ['b/', 'a/', '', false],
  ['a/', '', 'a/x', true],
  ['a/', '', 'b', false],
  ['b/', '', 'a/x', true],
  ['a', '', 'a', true],
])('keys that begin with %j, wanted with prefix %j after %j: %j', (start, prefix, after, expected) => {
  expect(mayHold(start, { prefix, after })).toBe(expected);
});
