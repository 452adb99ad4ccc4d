import { inspect } from 'node:util';
import { expect, test } from '@jest/globals';
import { deriveKeys, keyCheck } from './keys.ts';

const vaultKey = Buffer.alloc(32, 7);

test('no two purposes and no two vault keys share a key', () => {
  const all = [vaultKey, Buffer.alloc(32, 8)].flatMap((key) => {
    const { encryption, mac, versionMac, gear } = deriveKeys(key);
    return [encryption.export(), mac.export(), versionMac.export(), Buffer.from(gear.buffer, 0, 32), keyCheck(key)].map(
      (bytes) => bytes.toString('hex', 0, 16),
    );
  });
  expect(new Set(all).size).toBe(10);
});

test('keys that end up in a log show nothing', () => {
  const keys = deriveKeys(vaultKey);
  const secret = keys.encryption.export().toString('hex').slice(0, 16);
  const { encryption, mac, versionMac } = keys;
  const logged = inspect({ encryption, mac, versionMac }) + JSON.stringify({ encryption, mac, versionMac });
  expect(logged.replaceAll(/[^0-9a-f]/g, '')).not.toContain(secret);
  expect(JSON.stringify({ encryption, mac, versionMac })).not.toMatch(/\d/);
});

test('the key check is 16 bytes and says which vault key it is', () => {
  expect(keyCheck(vaultKey)).toHaveLength(16);
  expect(keyCheck(vaultKey).equals(keyCheck(Buffer.alloc(32, 7)))).toBe(true);
  expect(keyCheck(vaultKey).equals(keyCheck(Buffer.alloc(32, 8)))).toBe(false);
});

test('a vault key of another length is refused', () => {
  for (const bytes of [0, 16, 31, 33]) {
    expect(() => deriveKeys(Buffer.alloc(bytes))).toThrow(RangeError);
    expect(() => keyCheck(Buffer.alloc(bytes))).toThrow(RangeError);
  }
});
