import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { localKeyService, openKeyFile } from './key-service.ts';

describe('sealing', () => {
  const [first, second] = [randomBytes(32), randomBytes(32)];
  const secret = randomBytes(32);

  test('what was sealed opens under its context only', async () => {
    const keys = localKeyService([first]);
    const record = await keys.seal(secret, 'user 1');
    expect(await keys.unseal(record, 'user 1')).toEqual(secret);
    await expect(keys.unseal(record, 'user 2')).rejects.toThrow('altered');
    expect(record.includes(secret)).toBe(false);
    expect(await keys.seal(secret, 'user 1')).not.toEqual(record);
  });

  test('a change of any byte is noticed', async () => {
    const keys = localKeyService([first]);
    const record = await keys.seal(secret, 'c');
    for (let at = 0; at < record.byteLength; at++) {
      const altered = Buffer.from(record);
      altered[at]! ^= 1;
      await expect(keys.unseal(altered, 'c')).rejects.toThrow();
    }
    await expect(keys.unseal(record.subarray(0, 20), 'c')).rejects.toThrow('no record');
  });

  test('after a rotation the old records still open, and new ones need the new key', async () => {
    const old = await localKeyService([first]).seal(secret, 'c');
    const rotated = localKeyService([second, first]);
    expect(await rotated.unseal(old, 'c')).toEqual(secret);
    const fresh = await rotated.seal(secret, 'c');
    expect(await localKeyService([second]).unseal(fresh, 'c')).toEqual(secret);
    await expect(localKeyService([first]).unseal(fresh, 'c')).rejects.toThrow('not in the key file');
  });
});

describe('the key file', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'holdfast-keys-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  test('is made once, for its owner only, and kept', async () => {
    const file = join(folder, 'server-key');
    const record = await openKeyFile(file, { create: true }).seal(Buffer.from('x'), 'c');
    const before = readFileSync(file);
    expect((await openKeyFile(file, { create: true }).unseal(record, 'c')).toString()).toBe('x');
    expect(readFileSync(file)).toEqual(before);
    if (process.platform !== 'win32') expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  test('that is missing, empty or damaged is refused, and nothing of it is shown', () => {
    const file = join(folder, 'server-key');
    expect(() => openKeyFile(file, { create: false })).toThrow('HOLDFAST_KEY_FILE');
    writeFileSync(file, '# nothing\n');
    expect(() => openKeyFile(file, { create: false })).toThrow('there is no server key');
    writeFileSync(file, 'c2VjcmV0\n');
    expect(() => openKeyFile(file, { create: false })).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining('c2VjcmV0') }),
    );
  });
});
