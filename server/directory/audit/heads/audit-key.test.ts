import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { newAuditKeyFile, openAuditKeyFile, readAuditKeys } from './audit-key.ts';

describe('the key file', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'holdfast-audit-key-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  test('is made once, for its owner alone, and opened from then on', () => {
    const file = join(folder, 'audit-key');
    expect(openAuditKeyFile(file, { create: false })).toBeNull();
    const made = openAuditKeyFile(file, { create: true })!;
    const text = readFileSync(file, 'utf8');
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const opened = openAuditKeyFile(file, { create: true })!;
    expect(readFileSync(file, 'utf8')).toBe(text);
    expect(opened.verify(made.signer!.keyId, 'text', made.signer!.sign('text'))).toBe(true);
    expect(opened.verify(made.signer!.keyId, 'texT', made.signer!.sign('text'))).toBe(false);
  });

  test('signs with the first private key and verifies with all, also public ones', () => {
    const [old, fresh] = [newAuditKeyFile(), newAuditKeyFile()];
    const both = readAuditKeys(`${fresh}\n${old}`);
    const before = readAuditKeys(old).signer!;
    expect(both.signer!.keyId).toBe(readAuditKeys(fresh).signer!.keyId);
    expect(both.verify(before.keyId, 'x', before.sign('x'))).toBe(true);
    expect(readAuditKeys(fresh).verify(before.keyId, 'x', before.sign('x'))).toBeNull();
    // openssl pkey -pubout of a fixed key.
    const open =
      '-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n';
    expect(readAuditKeys(open).signer).toBeNull();
    // RFC 8032, 7.1, test 1 is of the empty message; ours are never empty, the verifying is the same.
    const signature = Buffer.from(
      'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
      'hex',
    );
    const keyId = '06e3fd8fda29bb60'; // of the SHA-256 of its DER
    expect(readAuditKeys(open).verify(keyId, '', signature)).toBe(true);
  });

  test.each([
    ['', 'no PEM'],
    ['-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----', 'cannot be read'],
    [
      '-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEAhSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n-----END PUBLIC KEY-----',
      'not an Ed25519',
    ],
  ])('that holds %j is refused in words', (text, says) => {
    const file = join(folder, 'audit-key');
    writeFileSync(file, text);
    expect(() => openAuditKeyFile(file, { create: true })).toThrow(says);
    expect(() => openAuditKeyFile(file, { create: true })).toThrow('HOLDFAST_AUDIT_KEY_FILE');
  });
});
