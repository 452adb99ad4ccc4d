import { randomBytes } from 'node:crypto';
import { expect, test } from '@jest/globals';
import * as second from '../vectors/second-implementation.ts';
import { keyInKeyBytes, readKeyInKey, unwrapKeyInKey, wrapKeyInKey } from './key-in-key.ts';

// What is refused when unwrapping: protocol/vectors/key-in-key.json.
const of = { generation: 1, by: 2 };

test('a key comes back with the one that wrapped it, and with no other', () => {
  for (let round = 0; round < 50; round++) {
    const [key, wrapping, other] = [randomBytes(32), randomBytes(32), randomBytes(32)];
    const record = wrapKeyInKey(key, wrapping, of);
    expect(record).toHaveLength(keyInKeyBytes);
    expect(record).toEqual(second.wrapKeyInKey(key, wrapping, of));
    expect(record.includes(key)).toBe(false);
    expect(readKeyInKey(record)).toEqual(of);
    expect(unwrapKeyInKey(record, wrapping, of)).toEqual(key);
    expect(() => unwrapKeyInKey(record, other, of)).toThrow(expect.objectContaining({ reason: 'not_authentic' }));
  }
});

test('every bit of a record counts', () => {
  const [key, wrapping] = [randomBytes(32), randomBytes(32)];
  const record = wrapKeyInKey(key, wrapping, of);
  for (let bit = 0; bit < record.byteLength * 8; bit++) {
    const altered = Buffer.from(record);
    altered[bit >> 3]! ^= 1 << (bit & 7);
    expect(() => unwrapKeyInKey(altered, wrapping, of)).toThrow();
  }
});

test('two keys under one key do not give each other away', () => {
  const wrapping = randomBytes(32);
  const [a, b] = [randomBytes(32), randomBytes(32)];
  const [one, two] = [a, b].map((key) => wrapKeyInKey(key, wrapping, of).subarray(48));
  expect(one!.map((byte, i) => byte ^ two![i]!)).not.toEqual(a.map((byte, i) => byte ^ b[i]!));
});

test.each([
  ['a key of 31 bytes', 31, 32, of],
  ['a key of 33 bytes', 33, 32, of],
  ['a wrapping key of 31 bytes', 32, 31, of],
  ['generations that are the same', 32, 32, { generation: 2, by: 2 }],
  ['an earlier generation', 32, 32, { generation: 3, by: 2 }],
  ['a generation below 0', 32, 32, { generation: -1, by: 2 }],
  ['a generation of 2^32', 32, 32, { generation: 1, by: 2 ** 32 }],
  ['half a generation', 32, 32, { generation: 1.5, by: 2 }],
])('%s is not wrapped', (_, key, wrapping, generations) => {
  expect(() => wrapKeyInKey(Buffer.alloc(key), Buffer.alloc(wrapping), generations)).toThrow(RangeError);
});
