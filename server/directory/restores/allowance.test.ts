import { expect, test } from '@jest/globals';
import { zipEntriesMax } from '../../restoring/formats/zip.ts';
import { type Allowance, assertFits, assertWithin } from './allowance.ts';

const caught = (act: () => void): unknown => {
  try {
    act();
    return null;
  } catch (error) {
    return error;
  }
};

test.each<[bytesMax: number | null, bytes: number, isAllowed: boolean]>([
  [null, Number.MAX_SAFE_INTEGER, true],
  [1_000, 1_000, true],
  [1_000, 1_001, false],
  [1, 0, true],
  [0, 0, false],
])('of at most %s bytes, %i are allowed: %s', (bytesMax, bytes, isAllowed) => {
  const allowance: Allowance = { permission: 'restore.limited', bytesMax };
  const error = caught(() => assertWithin(allowance, bytes));
  if (isAllowed) expect(error).toBeNull();
  else expect(error).toMatchObject({ code: 'forbidden', extras: { permission: 'restore.limited', bytesMax } });
});

test('a zip has room for its own last entries, a tar for any number', () => {
  const plan = { files: zipEntriesMax - 12, folders: 7, links: 3 };
  assertFits('zip', plan);
  const more = { ...plan, links: 4 };
  const entries = zipEntriesMax - 1;
  expect(caught(() => assertFits('zip', more))).toMatchObject({
    code: 'out_of_bounds',
    extras: { field: 'format', entries },
  });
  assertFits('tar', more);
});
