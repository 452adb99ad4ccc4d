import { mkdtemp, rm, stat, utimes } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { decodeAttributes, encodeAttributes, linkTargetBytesMax } from '../../protocol/attributes.ts';
import { encodeMessage } from '../../protocol/wire.ts';
import { parseAccounts } from './accounts.ts';
import { inodeKey, splitNanoseconds, utimesValue } from './attributes.ts';

const plain = { mode: 0o644, uid: 1000, gid: 1000, mtimeNs: 123_456 };

describe('attributes', () => {
  test.each([
    [plain],
    [{ ...plain, owner: 'me', group: 'us', sparse: true as const }],
    [{ ...plain, target: Buffer.from('/x/\xff', 'latin1') }],
    [{ ...plain, inode: inodeKey(2n ** 64n - 1n, 5n), links: 2 }],
    [{ mode: 0o7777, uid: 0xffff_ffff, gid: 0, mtimeNs: 999_999 }],
  ])('survive %j', (attributes) => {
    expect(decodeAttributes(encodeAttributes(attributes))).toEqual(attributes);
  });

  test('equal attributes are equal bytes, whatever the order they were gathered in', () => {
    const { mode, uid, gid, mtimeNs } = plain;
    expect(encodeAttributes({ mtimeNs, gid, uid, mode, owner: undefined })).toEqual(encodeAttributes(plain));
  });

  test.each([
    ['a mode past its bits', { ...plain, mode: 0o10000 }],
    ['a negative owner', { ...plain, uid: -1 }],
    ['a mode that is text', { ...plain, mode: '644' }],
    ['an empty target', { ...plain, target: Buffer.alloc(0) }],
    ['a target with a NUL', { ...plain, target: Buffer.from('a\0b') }],
    ['a target too long', { ...plain, target: Buffer.alloc(linkTargetBytesMax + 1, 'a') }],
    ['a target that is text', { ...plain, target: '/etc' }],
    ['an inode of another length', { ...plain, inode: Buffer.alloc(8) }],
    ['nanoseconds past a millisecond', { ...plain, mtimeNs: 1_000_000 }],
    ['no mode', { uid: 0, gid: 0, mtimeNs: 0 }],
  ])('%s is refused', (_, attributes) => {
    expect(() => decodeAttributes(encodeMessage(attributes))).toThrow();
  });

  test('bytes that are no message are refused, and too many of them', () => {
    expect(() => decodeAttributes(Buffer.from([0xc1]))).toThrow();
    expect(() => decodeAttributes(Buffer.alloc(20_000))).toThrow();
  });
});

describe('times', () => {
  test.each([
    [1_700_000_000_123_456_789n, 1_700_000_000_123, 456_789],
    [0n, 0, 0],
    [-1n, -1, 999_999],
    [-1_000_001n, -2, 999_999],
  ])('%s ns', (ns, ms, rest) => {
    expect(splitNanoseconds(ns)).toEqual({ ms, rest });
  });

  test('survive a file system to the microsecond', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'holdfast-times-'));
    try {
      const cases = [
        0n,
        1_000n,
        999_999_000n,
        1_763_765_553_123_456_789n,
        1_700_000_000_000_001_000n,
        1_234_567_890_999_999_999n,
        4_000_000_000_000_007_000n,
      ];
      for (let i = 0; i < 300; i++) cases.push(1_500_000_000_000_000_000n + BigInt(i) * 777_777_777_777_001n);
      for (const ns of cases) {
        const { ms, rest } = splitNanoseconds(ns);
        const time = utimesValue(ms, rest);
        await utimes(folder, time, time);
        expect((await stat(folder, { bigint: true })).mtimeNs / 1000n).toBe(ns / 1000n);
      }
      await utimes(folder, utimesValue(-86_400_001, 5), utimesValue(-86_400_001, 5));
      expect((await stat(folder)).mtimeMs).toBeCloseTo(-86_400_001, 0);
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

test('accounts are read from tables, the first entry of each counting', () => {
  const accounts = parseAccounts(
    'root:x:0:0::/root:/bin/sh\n# no\nme:x:1000:1000\ntoor:x:0:0\n:x:5:5\nbad:x:-1\n',
    'wheel:x:10:me\n',
  );
  expect(accounts.userName(0)).toBe('root');
  expect(accounts.userId('toor')).toBe(0);
  expect(accounts.userId('me')).toBe(1000);
  expect(accounts.userName(5)).toBeUndefined();
  expect(accounts.userId('bad')).toBeUndefined();
  expect(accounts.groupName(10)).toBe('wheel');
});
