import { createDecipheriv, createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Problem } from '../../../protocol/problems.ts';
import { newServerKey, openKeyFile, putFirstKey, serverKeysMax } from './key-file.ts';
import { forCaller, KeyServiceError, vaultKeyContext } from './key-service.ts';
import { localKeyService, nameOfServerKey } from './local-keys.ts';
import { openKeyService, severalKeyServices } from './open-key-service.ts';
import { packKmsRecord, sealingKeyOf } from './records.ts';

const secret = randomBytes(32);

describe('sealing', () => {
  const [first, second] = [randomBytes(32), randomBytes(32)];

  test('what was sealed opens under its context only', async () => {
    const keys = localKeyService([first]);
    const record = await keys.seal(secret, 'user 1');
    expect(await keys.unseal(record, 'user 1')).toEqual(secret);
    await expect(keys.unseal(record, 'user 2')).rejects.toMatchObject({ kind: 'damaged' });
    expect(record.includes(secret)).toBe(false);
    expect(await keys.seal(secret, 'user 1')).not.toEqual(record);
  });

  test('a change of any byte is noticed', async () => {
    const keys = localKeyService([first]);
    const record = await keys.seal(secret, 'c');
    for (let at = 0; at < record.byteLength; at++) {
      const altered = Buffer.from(record);
      altered[at]! ^= 1;
      await expect(keys.unseal(altered, 'c')).rejects.toThrow(KeyServiceError);
    }
    await expect(keys.unseal(record.subarray(0, 20), 'c')).rejects.toThrow('no record');
  });

  test('after a rotation the old records still open, and new ones need the new key', async () => {
    const old = await localKeyService([first]).seal(secret, 'c');
    const rotated = localKeyService([second, first]);
    expect(await rotated.unseal(old, 'c')).toEqual(secret);
    const fresh = await rotated.seal(secret, 'c');
    expect([old, fresh].map(sealingKeyOf)).toEqual([first, second].map(nameOfServerKey));
    expect(await localKeyService([second]).unseal(fresh, 'c')).toEqual(secret);
    await expect(localKeyService([first]).unseal(fresh, 'c')).rejects.toMatchObject({
      kind: 'refused',
      message: expect.stringContaining(`${nameOfServerKey(second)} that sealed this record is not in the key file`),
    });
  });

  test('a record is what docs/sealing.md says: another program opens it', async () => {
    const context = 'holdfast vault key, user 1, generation 2';
    const record = await localKeyService([first]).seal(secret, context);
    const additional = Buffer.concat([record.subarray(0, 9), Buffer.from(context)]);
    expect(record.subarray(0, 9)).toEqual(
      Buffer.concat([Buffer.of(1), createHash('sha256').update(first).digest()], 9),
    );
    const decipher = createDecipheriv('aes-256-gcm', first, record.subarray(9, 21)).setAAD(additional);
    decipher.setAuthTag(record.subarray(53));
    expect(Buffer.concat([decipher.update(record.subarray(21, 53)), decipher.final()])).toEqual(secret);
    expect(record).toHaveLength(69);
    expect(vaultKeyContext(1, 2)).toBe(context);
  });

  test.each([0, 31, 33])('a server key of %i bytes is none', (bytes) => {
    expect(() => localKeyService([first, randomBytes(bytes)])).toThrow('a server key has 32 bytes');
  });

  test('a caller learns that keys cannot be had, and nothing else; a damaged record is no caller\u2019s', async () => {
    const hidden = new KeyServiceError('refused', 'the key file /secret/place is gone');
    const told = await forCaller(Promise.reject(hidden)).catch((error: Problem) => error);
    expect(told).toBeInstanceOf(Problem);
    expect(told).toMatchObject({ code: 'unavailable', cause: hidden });
    expect(JSON.stringify(told)).not.toContain('/secret');
    const damaged = new KeyServiceError('damaged', 'no record');
    await expect(forCaller(Promise.reject(damaged))).rejects.toBe(damaged);
    expect(await forCaller(Promise.resolve(1))).toBe(1);
  });

  test('of several services the first seals, and each opens its own; without the one, what to set is said', async () => {
    const local = localKeyService([first]);
    const record = await severalKeyServices([local]).seal(secret, 'c');
    expect(await severalKeyServices([local]).unseal(record, 'c')).toEqual(secret);
    const arn = 'arn:aws:kms:eu-test-1:111122223333:key/1';
    const ofKms = packKmsRecord({ arn, sealed: Buffer.from('x') });
    await expect(severalKeyServices([local]).unseal(ofKms, 'c')).rejects.toMatchObject({
      kind: 'refused',
      message: `a record is sealed with ${arn}: set HOLDFAST_KMS_KEY_ID, so that it can be opened`,
    });
    for (const none of [Buffer.alloc(0), Buffer.alloc(80, 3)])
      await expect(severalKeyServices([local]).unseal(none, 'c')).rejects.toMatchObject({ kind: 'damaged' });
    const missing = { keyService: 'kms', keyFile: '/nowhere/key', kmsKeyId: [arn] } as const;
    await expect(openKeyService(missing, { createFile: false }).unseal(record, 'c')).rejects.toThrow(
      'HOLDFAST_KEY_FILE',
    );
  });
});

describe('the key file', () => {
  let folder: string;
  let file: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'holdfast-keys-'));
    file = join(folder, 'server-key');
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const keyLines = (): string[] =>
    readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => /^[^#]/.test(line));

  test('is made once, for its owner only, and kept; what a start that was cut short left is in nobody\u2019s way', async () => {
    writeFileSync(`${file}.new`, 'half');
    const record = await openKeyFile(file, { create: true }).seal(secret, 'c');
    const before = readFileSync(file);
    expect(await openKeyFile(file, { create: true }).unseal(record, 'c')).toEqual(secret);
    expect(readFileSync(file)).toEqual(before);
    if (process.platform !== 'win32') expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  test('that is missing, empty, damaged or too long is refused, and nothing of it is shown', () => {
    expect(() => openKeyFile(file, { create: false })).toThrow('HOLDFAST_KEY_FILE');
    writeFileSync(file, '# nothing\n');
    expect(() => openKeyFile(file, { create: false })).toThrow('there is no server key');
    writeFileSync(file, 'c2VjcmV0\n');
    expect(() => openKeyFile(file, { create: false })).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining('c2VjcmV0') }),
    );
    const line = `${newServerKey().toString('base64')}\n`;
    writeFileSync(file, line.padEnd(64 * 1024, '\n'));
    expect(() => openKeyFile(file, { create: false })).not.toThrow();
    writeFileSync(file, line.padEnd(64 * 1024 + 1, '\n'));
    expect(() => openKeyFile(file, { create: false })).toThrow('longer than 65536 bytes');
  });

  test('a new first key seals, in servers that are running too; the others stay, and what was written beside them', async () => {
    const running = openKeyFile(file, { create: true });
    const old = await running.seal(secret, 'c');
    writeFileSync(file, `${readFileSync(file, 'utf8')}# mine\n`, { mode: 0o600 });
    const [before] = keyLines();
    const key = newServerKey();
    putFirstKey(file, key);
    putFirstKey(file, key); // the transaction around it may run twice
    expect(keyLines()).toEqual([key.toString('base64'), before]);
    expect(readFileSync(file, 'utf8')).toContain('# mine\n');
    expect(await running.keys()).toEqual([nameOfServerKey(key), sealingKeyOf(old)]);
    expect(sealingKeyOf(await running.seal(secret, 'c'))).toBe(nameOfServerKey(key));
    expect(await running.unseal(old, 'c')).toEqual(secret);
    if (process.platform !== 'win32') expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder)).toEqual(['server-key']);
  });

  test('a server that is running opens what another has sealed with a new key meanwhile', async () => {
    const running = openKeyFile(file, { create: true });
    putFirstKey(file, newServerKey());
    const record = await openKeyFile(file, { create: false }).seal(secret, 'c');
    expect(await running.unseal(record, 'c')).toEqual(secret);
  });

  test('a server whose file is gone opens what it could, and seals nothing: nobody may have that key tomorrow', async () => {
    const running = openKeyFile(file, { create: true });
    const record = await running.seal(secret, 'c');
    rmSync(file);
    expect(await running.unseal(record, 'c')).toEqual(secret);
    await expect(running.seal(secret, 'c')).rejects.toMatchObject({ kind: 'refused' });
    await expect(running.check()).rejects.toThrow('does not exist');
  });

  test('a key that has left the file seals nothing any more', async () => {
    const running = openKeyFile(file, { create: true });
    const old = await running.seal(secret, 'c');
    const key = newServerKey();
    writeFileSync(file, `${key.toString('base64')}\n`);
    expect(sealingKeyOf(await running.seal(secret, 'c'))).toBe(nameOfServerKey(key));
    await expect(running.unseal(old, 'c')).rejects.toThrow('not in the key file');
  });

  test('two who add a key at the same time do not lose one: the later stops, and the file is as it was', () => {
    openKeyFile(file, { create: true });
    const before = readFileSync(file);
    writeFileSync(`${file}.new`, 'of the other');
    expect(() => putFirstKey(file, newServerKey())).toThrow('another process is changing the keys');
    expect(readFileSync(file)).toEqual(before);
    expect(readFileSync(`${file}.new`, 'utf8')).toBe('of the other');
    rmSync(`${file}.new`);
    putFirstKey(file, newServerKey());
    expect(keyLines()).toHaveLength(2);
  });

  test('a link to the file stays one, and whoever could read the file still can, but for strangers', () => {
    if (process.platform === 'win32') return;
    mkdirSync(join(folder, 'data'));
    const place = join(folder, 'data', 'key');
    openKeyFile(place, { create: true });
    chmodSync(place, 0o644);
    symlinkSync(place, file);
    putFirstKey(file, newServerKey());
    expect(statSync(place).mode & 0o777).toBe(0o640);
    expect(readFileSync(place, 'utf8')).toBe(readFileSync(file, 'utf8'));
    expect(keyLines()).toHaveLength(2);
    expect(existsSync(`${file}.new`)).toBe(false);
  });

  test('holds so many keys and no more', () => {
    const lines = Array.from({ length: serverKeysMax - 1 }, () => newServerKey().toString('base64'));
    writeFileSync(file, lines.join('\n'));
    putFirstKey(file, newServerKey());
    expect(keyLines()).toHaveLength(serverKeysMax);
    expect(() => putFirstKey(file, newServerKey())).toThrow(`holds ${serverKeysMax} keys, and there may be no more`);
    expect(() => openKeyFile(file, { create: false })).not.toThrow();
  });

  test('a key is put into a file that is there, never into a new one', () => {
    expect(() => putFirstKey(file, newServerKey())).toThrow('does not exist');
    expect(readdirSync(folder)).toEqual([]);
  });
});
