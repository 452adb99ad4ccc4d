import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import * as second from '../vectors/second-implementation.ts';
import { unwrapKey, wrapBounds, wrapKey } from './key-wrap.ts';
import { SealError } from './seal-error.ts';

const vaultKey = Buffer.from(Array.from({ length: 32 }, (_, index) => 200 - index));
const least = { memoryKiB: wrapBounds.memoryKiB.least, passes: wrapBounds.passes.least, parallelism: 1 };

async function reasonOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof SealError) return error.reason;
    throw error;
  }
  return 'unwrapped';
}

test('a wrapped key comes back with its password, and with no other', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.string({ minLength: 1, unit: 'grapheme' }),
      fc.string({ unit: 'grapheme' }),
      async (key, password, other) => {
        const record = await wrapKey(key, password, least);
        expect((await unwrapKey(record, password)).equals(key)).toBe(true);
        expect(second.unwrapKey(record, password).vaultKey.equals(key)).toBe(true);
        if (other.normalize('NFC') !== password.normalize('NFC'))
          expect(await reasonOf(unwrapKey(record, other))).toBe('wrong_password');
      },
    ),
    { numRuns: 12 },
  );
});

test('the usual parameters are what a record gets, within the bounds, under a fresh salt', async () => {
  const [one, two] = [await wrapKey(vaultKey, 'password'), await wrapKey(vaultKey, 'password')];
  expect([one[2], one.readUInt32BE(4), one.readUInt32BE(8), one.readUInt32BE(12)]).toEqual([4, 64 * 1024, 3, 0]);
  expect(one.subarray(16, 32).equals(two.subarray(16, 32))).toBe(false);
  expect((await unwrapKey(two, 'password')).equals(vaultKey)).toBe(true);
});

test('one salt used twice does not give two vault keys away', async () => {
  const salt = Buffer.alloc(16, 1);
  const other = Buffer.from(vaultKey.map((byte) => byte ^ 0x55));
  const [one, two] = [
    await wrapKey(vaultKey, 'password', { ...least, salt }),
    await wrapKey(other, 'password', { ...least, salt }),
  ];
  const difference = one.subarray(64).map((byte, index) => byte ^ two[64 + index]!);
  expect(Buffer.from(difference).equals(Buffer.alloc(32, 0x55))).toBe(false);
});

test('parameters at a bound are taken, one past it refused, by wrap and by unwrap before any work', async () => {
  const record = await wrapKey(vaultKey, 'password', least);
  const places = { memoryKiB: 4, passes: 8 } as const;
  for (const name of ['memoryKiB', 'passes', 'parallelism'] as const) {
    const { least: low, largest } = wrapBounds[name];
    for (const value of [low - 1, largest + 1]) {
      await expect(wrapKey(vaultKey, 'password', { ...least, [name]: value })).rejects.toBeInstanceOf(RangeError);
      const altered = Buffer.from(record);
      if (name === 'parallelism') altered.writeUInt8(value, 2);
      else altered.writeUInt32BE(value, places[name]);
      expect(await reasonOf(unwrapKey(altered, 'password'))).toBe('bad_record');
    }
  }
  // 4 TiB of memory and 4 billion passes: were they tried, this test would not end.
  for (const place of [4, 8]) {
    const altered = Buffer.from(record);
    altered.writeUInt32BE(2 ** 32 - 1, place);
    expect(await reasonOf(unwrapKey(altered, 'password'))).toBe('bad_record');
  }
  const most = {
    memoryKiB: least.memoryKiB,
    passes: wrapBounds.passes.largest,
    parallelism: wrapBounds.parallelism.largest,
  };
  expect((await unwrapKey(await wrapKey(vaultKey, 'password', most), 'password')).equals(vaultKey)).toBe(true);
});

test('a record of another generation is refused, also when its number is rewritten', async () => {
  const record = await wrapKey(vaultKey, 'password', { ...least, generation: 1 });
  expect(await reasonOf(unwrapKey(record, 'password', { generation: 1 }))).toBe('unwrapped');
  expect(await reasonOf(unwrapKey(record, 'password', { generation: 2 }))).toBe('wrong_generation');
  record.writeUInt32BE(2, 12);
  expect(await reasonOf(unwrapKey(record, 'password', { generation: 2 }))).toBe('wrong_password');
});

test('any flipped bit is noticed', async () => {
  const record = await wrapKey(vaultKey, 'password', least);
  for (let byte = 0; byte < record.byteLength; byte++) {
    if (byte >= 4 && byte < 12) continue; // memory and passes: most of their bits ask for much work; the bounds are tested above
    const altered = Buffer.from(record);
    altered[byte]! ^= 1 << (byte % 8);
    expect(['bad_record', 'wrong_password']).toContain(await reasonOf(unwrapKey(altered, 'password')));
  }
});

test('arbitrary bytes end in a SealError', async () => {
  const record = await wrapKey(vaultKey, 'password', least);
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 120 }), fc.string(), async (bytes, password) => {
      expect(['bad_record']).toContain(await reasonOf(unwrapKey(bytes, password)));
    }),
    { numRuns: 500 },
  );
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 80, maxLength: 80 }), fc.string(), async (rest, password) => {
      expect(await reasonOf(unwrapKey(Buffer.concat([record.subarray(0, 16), rest]), password))).toBe('wrong_password');
    }),
    { numRuns: 5 },
  );
});

test('an empty or endless password is refused by wrap and wrong to unwrap', async () => {
  const record = await wrapKey(vaultKey, 'password', least);
  for (const password of ['', 'x'.repeat(wrapBounds.passwordBytesMax + 1)]) {
    await expect(wrapKey(vaultKey, password, least)).rejects.toBeInstanceOf(RangeError);
    expect(await reasonOf(unwrapKey(record, password))).toBe('wrong_password');
  }
  await expect(wrapKey(vaultKey.subarray(1), 'password', least)).rejects.toBeInstanceOf(RangeError);
});
