import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import * as second from '../vectors/second-implementation.ts';
import { deriveKeys } from './keys.ts';
import { type MacVersion, verifyVersionMac, versionMac } from './version-mac.ts';

const vaultKey = Buffer.alloc(32, 7);
const keys = deriveKeys(vaultKey);
const field = fc.uint8Array({ maxLength: 5 }).map((bytes) => Buffer.from(bytes));
const version: fc.Arbitrary<MacVersion> = fc.record({
  path: field,
  kind: fc.constantFrom('file', 'directory', 'symlink'),
  size: fc.oneof(fc.nat({ max: 2 }), fc.maxSafeNat()),
  mtime: fc.oneof(fc.integer({ min: -2, max: 2 }), fc.maxSafeInteger()),
  attributes: field,
  blocks: field,
  lists: field,
  deleted: fc.boolean(),
});

test('a version verifies as itself, agrees with the second implementation, and different versions have different MACs', () => {
  const seen = new Map<string, string>();
  fc.assert(
    fc.property(fc.nat({ max: 2 }), version, (archive, value) => {
      const mac = versionMac(keys, archive, value);
      expect(mac.equals(second.versionMac(vaultKey, archive, value))).toBe(true);
      expect(verifyVersionMac(keys, archive, { ...value, mac })).toBe(true);
      const description = JSON.stringify([archive, value]);
      expect(seen.get(mac.toString('hex')) ?? description).toBe(description);
      seen.set(mac.toString('hex'), description);
    }),
    { numRuns: 2000 },
  );
});

test('bytes moved from one field to the next change the MAC', () => {
  const base: MacVersion = {
    path: Buffer.from('/ab'),
    kind: 'file',
    size: 1,
    mtime: 0,
    attributes: Buffer.from('cd'),
    blocks: Buffer.alloc(32),
    lists: Buffer.alloc(0),
    deleted: false,
  };
  const macs = [
    base,
    { ...base, path: Buffer.from('/a'), attributes: Buffer.from('bcd') },
    { ...base, path: Buffer.from('/abc'), attributes: Buffer.from('d') },
    { ...base, blocks: Buffer.alloc(0), lists: Buffer.alloc(32) },
    { ...base, size: 0, mtime: 1 },
  ].map((value) => versionMac(keys, 1, value).toString('hex'));
  expect(new Set(macs).size).toBe(macs.length);
});

test('a MAC of another vault, archive or length does not verify, and none makes it throw', () => {
  fc.assert(
    fc.property(version, fc.uint8Array({ maxLength: 40 }), (value, garbage) => {
      const mac = versionMac(keys, 5, value);
      expect(verifyVersionMac(keys, 6, { ...value, mac })).toBe(false);
      expect(verifyVersionMac(deriveKeys(Buffer.alloc(32, 8)), 5, { ...value, mac })).toBe(false);
      expect(verifyVersionMac(keys, 5, { ...value, mac: mac.subarray(1) })).toBe(false);
      expect(verifyVersionMac(keys, 5, { ...value, mac: garbage })).toBe(false);
    }),
  );
});

test('numbers that are not whole or outside their field are our mistake', () => {
  const base: MacVersion = {
    path: Buffer.from('/'),
    kind: 'directory',
    size: 0,
    mtime: 0,
    attributes: Buffer.alloc(0),
    blocks: Buffer.alloc(0),
    lists: Buffer.alloc(0),
    deleted: false,
  };
  for (const wrong of [{ size: -1 }, { size: 0.5 }, { mtime: 0.5 }, { mtime: 2 ** 60 }])
    expect(() => versionMac(keys, 1, { ...base, ...wrong })).toThrow(RangeError);
  expect(() => versionMac(keys, -1, base)).toThrow(RangeError);
});
