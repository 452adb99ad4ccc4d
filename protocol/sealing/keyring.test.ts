import { randomBytes } from 'node:crypto';
import { expect, test } from '@jest/globals';
import { makeKeyring, verifyVersionOf } from './keyring.ts';
import { deriveKeys } from './keys.ts';
import { open, seal } from './seal.ts';
import { versionMac } from './version-mac.ts';

const [first, second] = [randomBytes(32), randomBytes(32)];
const ring = makeKeyring([
  { generation: 2, key: second },
  { generation: 1, key: first },
]);
const sealedWith = (key: Buffer, generation: number) =>
  seal(deriveKeys(key), { type: 'attributes', vault: 7, generation }, Buffer.from('plain'));

test('the newest seals, and each opens what was sealed with it', () => {
  expect(ring.generation).toBe(2);
  for (const [key, generation] of [
    [first, 1],
    [second, 2],
  ] as const) {
    const sealed = sealedWith(key, generation);
    expect(open(ring.for(sealed), { type: 'attributes', vault: 7 }, sealed).toString()).toBe('plain');
  }
  expect(ring.for(sealedWith(second, 2))).toBe(ring.newest);
});

test('bytes that name a generation do not open with the key of another', () => {
  const sealed = sealedWith(first, 2);
  expect(() => open(ring.for(sealed), { type: 'attributes', vault: 7 }, sealed)).toThrow(
    expect.objectContaining({ reason: 'not_authentic' }),
  );
});

test('a generation that is not on the ring is named', () => {
  expect(() => ring.for(sealedWith(second, 3))).toThrow(expect.objectContaining({ reason: 'wrong_generation' }));
  expect(() => ring.of(0)).toThrow('sealed under key generation 0; this device has 1, 2');
});

test.each([[0], [1], [15]])('%i bytes name none', (length) => {
  expect(() => ring.for(Buffer.alloc(length, 1))).toThrow(expect.objectContaining({ reason: 'malformed' }));
});

test('a ring without a key is none, and neither is one with a key of another length', () => {
  expect(() => makeKeyring([])).toThrow(RangeError);
  expect(() => makeKeyring([{ generation: 1, key: Buffer.alloc(31) }])).toThrow(RangeError);
});

test('a version is checked with the key that its attributes name', () => {
  const version = (key: Buffer, attributes: Buffer) => {
    const none = Buffer.alloc(0);
    const fields = { path: Buffer.from('/a'), kind: 'file', size: 0, mtime: 0, blocks: none, lists: none } as const;
    const unsigned = { ...fields, attributes, deleted: false };
    return { ...unsigned, mac: versionMac(deriveKeys(key), 9, unsigned) };
  };
  expect(verifyVersionOf(ring, 9, version(first, sealedWith(first, 1)))).toBe(true);
  expect(verifyVersionOf(ring, 9, version(second, sealedWith(second, 2)))).toBe(true);
  expect(verifyVersionOf(ring, 8, version(second, sealedWith(second, 2)))).toBe(false);
  // Whoever has an old key only, as the server may, makes no version that passes for one of the new key.
  expect(verifyVersionOf(ring, 9, version(first, sealedWith(first, 2)))).toBe(false);
  expect(verifyVersionOf(ring, 9, version(second, Buffer.from('none')))).toBe(true);
  expect(verifyVersionOf(ring, 9, version(first, Buffer.from('none')))).toBe(false);
  expect(() => verifyVersionOf(ring, 9, version(second, sealedWith(second, 3)))).toThrow(
    expect.objectContaining({ reason: 'wrong_generation' }),
  );
});
