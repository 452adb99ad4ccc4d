/** The operators' commands as they are called: on a catalog that the settings name, and on none. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { RegisterRequest } from '../../protocol/messages.ts';
import { findDamageUsers } from '../../storage/archive/checking/damage.ts';
import { defaultRetention } from '../../storage/archive/retention/retention.ts';
import { raiseAlert } from '../../storage/catalog/checking/alerts.ts';
import { commit, newRun, type TestStorage, testStorage, upload, version } from '../../tests/helpers/storage.ts';
import { registerDevice } from '../directory/devices/register.ts';
import { openDirectory } from '../directory/directory.ts';
import { localKeyService } from '../directory/keys/local-keys.ts';
import { createFirstTenant } from '../directory/organizations/first-tenant.ts';
import { newRegistrationKey } from '../directory/organizations/registration-key.ts';
import { alerts } from './alerts.ts';
import { damage } from './damage.ts';
import { runOperatorCommand } from './operator-command.ts';
import { retention } from './retention.ts';
import { usage } from './usage.ts';

const main = fileURLToPath(new URL('../main.ts', import.meta.url));
let storage: TestStorage;
let scratch: string;
let guid: string;
let ref: { vault: number; archive: number };

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-operator-'));
  storage = await testStorage();
  process.env.HOLDFAST_DATABASE_URL = storage.connectionString;
  const keys = localKeyService([randomBytes(32)]);
  const directory = openDirectory({ database: storage.database, keys, passwordHashesMax: 2, signInsPerMinute: 100 });
  const first = { name: 'Firm', registrationKey: newRegistrationKey(), userName: 'ann', password: 'secret' };
  await createFirstTenant(directory, first);
  const device = { name: 'lap\u001btop', platform: 'linux', agentVersion: '1' };
  const { userName, password, registrationKey } = first;
  const request = RegisterRequest.parse({
    userName,
    password,
    registrationKey,
    device,
    vaultKey: { level: 'standard' },
  });
  const made = await registerDevice(directory, request, '192.0.2.1');
  guid = made.guid;
  ref = { vault: made.vault, archive: made.archive };
  const run = await newRun(storage, ref);
  const block = Buffer.alloc(2_000, 'x');
  await upload(storage, ref.vault, [block]);
  for (let i = 0; i < 3; i++) await commit(storage, ref, run, [version('/often', [block])]);
  const old = `UPDATE versions SET committed_at = '2020-05-05T10:00:00Z' WHERE vault_id = $1`;
  await storage.database.query({ name: '', text: old }, [ref.vault]);
});

afterAll(async () => {
  delete process.env.HOLDFAST_DATABASE_URL;
  await storage?.close();
  rmSync(scratch, { recursive: true, force: true });
});

const commands = { retention, usage, alerts, damage };

/** @returns what it said, and its exit code */
async function run([name, ...args]: string[]): Promise<[said: string, code: number]> {
  const lines: string[] = [];
  const say = (line: string): void => void lines.push(`${line}\n`);
  const command = commands[name as keyof typeof commands];
  const code = await runOperatorCommand(command, args, say, say).catch((error: Error) => {
    say(error.message); // main.ts does the same: the last test
    return 1;
  });
  return [lines.join(''), code];
}

const json = (said: string) =>
  said
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

describe('retention', () => {
  test('plan prints every version with its reason, for people and for programs', async () => {
    const [said, code] = await run(['retention', 'plan', '--device', guid]);
    expect(code).toBe(0);
    expect(said).toBe(
      `/often
  GOES   2020-05-05 10:00:00Z  version 1: version 3 is newer in the same 30 days (365 days old or older)
  GOES   2020-05-05 10:00:00Z  version 2: version 3 is newer in the same 30 days (365 days old or older)
  stays  2020-05-05 10:00:00Z  version 3: latest version of a file that exists
1 file with history: 1 version would stay, 2 would go (3.9 KiB of plain data; what that frees may be less).
`,
    );
    const lines = json((await run(['retention', 'plan', '--device', guid, '--expiring', '--json']))[0]);
    expect(lines.map(({ seq }) => seq)).toEqual([1, 2, undefined]);
    expect(lines[2].summary).toMatchObject({ keep: 1, expire: 2, policy: defaultRetention });
  });

  test('a policy can be tried out from a file; a wrong one is explained', async () => {
    const file = join(scratch, 'policy.json');
    writeFileSync(file, JSON.stringify({ ...defaultRetention, keepNewest: 2 }));
    const tried = json((await run(['retention', 'plan', '--device', guid, '--policy', file, '--json']))[0]);
    expect(tried.at(-1).summary).toMatchObject({ keep: 2, expire: 1 });
    const shown = json((await run(['retention', 'show', '--device', guid, '--json']))[0])[0];
    writeFileSync(file, JSON.stringify({ ...shown, policy: { ...shown.policy, keepNewest: 3 } }));
    const asShown = json((await run(['retention', 'plan', '--device', guid, '--policy', file, '--json']))[0]);
    expect(asShown.at(-1).summary).toMatchObject({ keep: 3, expire: 0 });
    writeFileSync(file, JSON.stringify({ ...defaultRetention, keepNewest: -2 }));
    const [said, code] = await run(['retention', 'plan', '--device', guid, '--policy', file]);
    expect([said, code]).toEqual([expect.stringMatching(/is no policy:\n {2}- keepNewest must be/), 1]);
  });

  test('show says whose the policy is, in words; names do not reach the terminal as they are', async () => {
    const [said] = await run(['retention', 'show', '--device', guid]);
    expect(said).toContain('Device lap\\u001btop');
    expect(said).toContain('Policy of the default: nothing was set');
    expect(said).toContain('7 to 90 days old: the newest of each day');
    expect(said).toContain('deleted files: kept for ever');
  });

  test('show and plan tell of backup plans with a policy of their own, and of one that cannot be read', async () => {
    const sql = (text: string, values: unknown[] = []) => storage.rows(text, values);
    const policy = {
      ...defaultRetention,
      windows: defaultRetention.windows.map((each) => ({ ...each, everyMinutes: 0 })),
    };
    const content = { include: ['/often', 'C:\\x'], exclude: [], everyMinutes: 15, windows: [], retention: policy };
    const insert = `INSERT INTO plans (tenant_id, guid, name, content)
                    SELECT tenant_id, guid, 'all', $2 FROM devices WHERE guid = $1 RETURNING plan_id AS id`;
    const [row] = await sql(insert, [guid, JSON.stringify(content)]);
    const name = `plan all (${(row as { id: number }).id}) of device lap\\u001btop (${guid})`;
    const [shown] = await run(['retention', 'show', '--device', guid]);
    expect(shown).toContain('Policy of the default: nothing was set');
    expect(shown).toContain(
      `Instead of it for /often, C:\\x: policy of the backup ${name}\n  0 to 7 days old: every version\n`,
    );
    const [planned] = await run(['retention', 'plan', '--device', guid]);
    expect(planned).toContain(`/often, kept by ${name}\n  stays`);
    expect(planned).toContain('3 versions would stay, 0 would go');
    expect(json((await run(['retention', 'show', '--device', guid, '--json']))[0])[0].plans).toMatchObject([
      { name: 'all', folders: content.include, policy },
    ]);

    await sql(`UPDATE plans SET content = '{}'`);
    const [unread, code] = await run(['retention', 'show', '--device', guid]);
    expect([unread, code]).toEqual([expect.stringContaining(`The backup ${name} cannot be read, so nothing`), 1]);
    expect((await run(['retention', 'plan', '--device', guid]))[0]).toContain('Nothing would go: the backup plan all');
    await sql('DELETE FROM plans');
  });

  test.each([
    [['retention'], 2, /Say "show" or "plan"/],
    [['retention', 'plan'], 2, /Say which device/],
    [['retention', 'plan', '--device', '1', '--wat'], 2, /--wat/],
    [['retention', 'plan', '--due', '--policy', 'x', '--device', '1'], 2, /--due is about the policy in force/],
    [['retention', 'plan', '--device', '99'], 1, /there is no device 99/],
    [['retention', '--help'], 0, /^What retention keeps[\s\S]*--expiring/],
  ])('%j ends with %i', async (args, expected, says) => {
    const [said, code] = await run(args);
    expect([said, code]).toEqual([expect.stringMatching(says), expected]);
  });
});

test('usage lists users with their devices, and organizations', async () => {
  const [said, code] = await run(['usage']);
  expect(code).toBe(0);
  expect(said).toMatch(/^ann +Firm +5\.9 KiB +2\.\d KiB +\d+ B +3 +lap\\u001btop \(\d+\)$/m);
  expect(said).toMatch(/In all: 1 user, 5\.9 KiB in 3 versions/);
  expect(json((await run(['usage', '--json']))[0]).at(-1).summary).toMatchObject({ users: 1, versions: 3 });
});

test('alerts are listed with what to do, and reviewed once', async () => {
  expect(await run(['alerts'])).toEqual(['Nothing needs to be looked at.\n', 0]);
  await raiseAlert(storage.database, { ...ref, kind: 'refs_drift', details: {} });
  await raiseAlert(storage.database, { vault: 0, kind: 'deleting_stopped', details: { detail: 'two catalogs' } });
  const [said] = await run(['alerts']);
  expect(said).toContain('deleting_stopped  the whole server');
  expect(said).toContain('Nothing is deleted: two catalogs.');
  const [id] = /^\d+\/\d+(?= {2}refs_drift)/m.exec(said)!;
  expect(await run(['alerts', '--review', id])).toEqual([expect.stringMatching(/^Reviewed: refs_drift, by /), 0]);
  const acts = await storage.rows(
    `SELECT tenant_id = (SELECT tenant_id FROM tenants) AS ours, party_kind AS by, target_id AS id, target_name AS name
       FROM acts WHERE action = 'alert.review'`,
  );
  expect(acts).toEqual([{ ours: true, by: 'server', id, name: 'refs_drift' }]);
  expect(await run(['alerts', '--review', id])).toEqual([`There is no open alert ${id}.\n`, 1]);
  expect((await run(['alerts', '--review', 'x']))[1]).toBe(2);
  const all = json((await run(['alerts', '--all', '--json']))[0]);
  expect(all.map(({ kind, reviewedAt }) => [kind, reviewedAt !== null]).sort()).toEqual([
    ['deleting_stopped', false],
    ['refs_drift', true],
  ]);
});

test('damage says which moments are whole, and ends with 1 when there is some', async () => {
  expect(await run(['damage'])).toEqual(['Nothing is known to be damaged.\n', 0]);
  const statements = [
    `UPDATE blocks SET damaged_at = now() WHERE vault_id = $1`,
    `INSERT INTO damage (vault_id, hash) SELECT vault_id, hash FROM blocks WHERE vault_id = $1`,
  ];
  for (const text of statements) await storage.database.query({ name: '', text }, [ref.vault]);
  await commit(storage, ref, await newRun(storage, ref), [version('/often')]);
  await findDamageUsers(storage);
  const [said, code] = await run(['damage']);
  expect(code).toBe(1);
  expect(said).toMatch(/^lap\\u001btop \(\d+\)\n {2}\/often\n {4}damaged {2}2020-05-05 10:00:00Z, .*\n {4}whole {4}20/);
  expect(json((await run(['damage', '--device', guid, '--json']))[0])[0]).toMatchObject({
    path: '/often',
    latestDamaged: false,
  });
});

test('the program runs them, on the database of its settings; without one it says where it looked', async () => {
  const program = async (environment: Record<string, string>): Promise<[said: string, code: number]> => {
    const env = { PATH: process.env.PATH, HOME: scratch, ...environment };
    const running = promisify(execFile)(process.execPath, [main, 'usage'], { env });
    return running.then(
      ({ stdout }) => [stdout, 0],
      ({ stderr, code }) => [stderr, code],
    );
  };
  const [said, code] = await program({ HOLDFAST_DATABASE_URL: storage.connectionString });
  expect([said, code]).toEqual([expect.stringContaining('In all: 1 user'), 0]);
  const nowhere = await program({ HOLDFAST_DATA: scratch });
  expect(nowhere).toEqual([
    expect.stringContaining(`holdfast usage: there is no database to ask in ${scratch} (no server runs there)`),
    1,
  ]);
});
