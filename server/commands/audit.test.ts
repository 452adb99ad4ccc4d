/** `audit` as it is called: on a catalog and a folder that the settings name. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { openFence } from '../../storage/archive/checking/fence.ts';
import { openObjectStore } from '../../storage/objects/open-store.ts';
import { type TestStorage, testStorage } from '../../tests/helpers/storage.ts';
import { newAuditKeyFile, readAuditKeys } from '../directory/audit/heads/audit-key.ts';
import { signHeads } from '../directory/audit/heads/sign-heads.ts';
import { asOwner, heldFence, recordMany } from '../directory/audit/heads/testing.ts';
import { audit } from './audit.ts';
import { runOperatorCommand } from './operator-command.ts';

const scratch = mkdtempSync(join(tmpdir(), 'holdfast-audit-'));
const keyFile = join(scratch, 'audit-key');
const pem = newAuditKeyFile();
let storage: TestStorage;

beforeAll(async () => {
  const path = join(scratch, 'objects');
  storage = await testStorage({ objects: await openObjectStore({ kind: 'directory', path }, { create: true }) });
  Object.assign(process.env, {
    HOLDFAST_DATABASE_URL: storage.connectionString,
    HOLDFAST_OBJECTS_FOLDER: path,
    HOLDFAST_AUDIT_KEY_FILE: keyFile,
  });
  await recordMany(storage, 3, 4);
  await recordMany(storage, null, 1);
  await signHeads(storage, readAuditKeys(pem), heldFence);
});
afterAll(async () => {
  for (const name of ['DATABASE_URL', 'OBJECTS_FOLDER', 'AUDIT_KEY_FILE']) delete process.env[`HOLDFAST_${name}`];
  await storage?.close();
  rmSync(scratch, { recursive: true, force: true });
});

async function run(...args: string[]): Promise<{ code: number; out: string[]; err: string }> {
  const out: string[] = [];
  let err = '';
  const code = await runOperatorCommand(
    audit,
    args,
    (line) => out.push(line),
    (line) => (err += line),
  );
  return { code, out, err };
}

test('explains itself, and refuses what it does not understand', async () => {
  const help = await run('--help');
  expect(help.code).toBe(0);
  for (const word of ['verify', 'resume', '--tenant', '--reason', '--json', 'HOLDFAST_AUDIT_KEY_FILE'])
    expect(help.out.join('\n')).toContain(word);
  for (const args of [
    [],
    ['look'],
    ['verify', 'now'],
    ['verify', '--reason', 'x'],
    ['verify', '--tenant', '-1'],
    ['verify', '--tenant', 'x'],
    ['verify', '--tenant', '99999999999999999'],
    ['resume', '--tenant', '3'],
    ['resume', '--reason', 'x'],
    ['verify', '--sideways'],
  ]) {
    const { code, err } = await run(...args);
    expect([args, code, err.includes('usage:')]).toEqual([args, 2, true]);
  }
});

test('says that there is no key, and with one whether the logs are what was written', async () => {
  await expect(run('verify')).rejects.toThrow('HOLDFAST_AUDIT_KEY_FILE');
  writeFileSync(keyFile, pem);
  const right = await run('verify');
  expect(right).toMatchObject({ code: 0, err: '' });
  expect(right.out).toEqual([
    "The server's own log: 1 act (1 to 1), 1 signed head, signed up to 1: as it was written",
    'Tenant 3: 4 acts (1 to 4), 1 signed head, signed up to 4: as it was written',
  ]);
  const one = await run('verify', '--tenant', '3', '--json');
  expect(one.out.map((line) => JSON.parse(line))).toEqual([
    expect.objectContaining({ tenant: 3, acts: 4, signedTo: 4, findings: [], moreFindings: 0 }),
  ]);
});

test('says what was changed, from which number on, and goes on after a loss that somebody answers for', async () => {
  await asOwner(storage, 'DELETE FROM acts WHERE tenant_id = 3 AND number > 2');
  const wrong = await run('verify');
  expect(wrong.code).toBe(1);
  expect(wrong.out[1]).toContain('NOT as it was written');
  expect(wrong.out[2]).toMatch(/^ {2}truncated 3 to 4: /);
  expect((await run('verify', '--tenant', '0')).code).toBe(0);
  expect((await run('verify', '--json')).code).toBe(1);

  await asOwner(
    storage,
    `UPDATE act_heads SET number = 2, signed_number = 0, signed_document = NULL, signed_stored = false,
            hash = (SELECT hash FROM acts WHERE tenant_id = 3 AND number = 2) WHERE tenant_id = 3`,
  );
  const resume = ['resume', '--tenant', '3', '--reason', 'restored\u001b[2J'];
  await expect(run(...resume)).rejects.toThrow('does not belong to this catalog');
  await openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 1 }).beat();
  expect(await run(...resume)).toMatchObject({
    code: 0,
    out: ['The log goes on with number 5, after 2. It agrees with what was signed up to 0.'],
  });
  await signHeads(storage, readAuditKeys(pem), heldFence);
  const after = await run('verify', '--tenant', '3');
  expect(after.code).toBe(0);
  expect(after.out[1]).toBe('  resumed at 5 after a loss: it follows on 2. The reason given: restored\\u001b[2J');
  await expect(run(...resume)).rejects.toThrow('nothing of it is lost');
});
