/**
 * Debian's restic against the real server, over HTTP/2 and HTTP/1.1: everything that its users do, and what happens to them. At the
 * end of each stands `check --read-data`, which reads every byte there is.
 *
 * `HOLDFAST_TEST_RESTIC_TREE=/usr/share` backs up that folder whole, in place of a part of it.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { seededRandom } from '../helpers/random.ts';
import { addRepository, addToken, newRestic, Restic, type RunningRestic } from '../helpers/restic.ts';
import { addUser, type RunningServer, startServer } from '../helpers/server.ts';
import { copyBounded, differences, noise, snapshot } from '../helpers/tree.ts';

const MiB = 1024 * 1024;
const wholeTree = process.env.HOLDFAST_TEST_RESTIC_TREE;

let server: RunningServer;
let scratch: string;
let tree: string;
let owner: string;
const made: Restic[] = [];

async function restic(repository: string): Promise<Restic> {
  const it = await newRestic(server, repository, owner);
  made.push(it);
  return it;
}

/** Files that neither compress nor repeat. */
function noiseTree(name: string, files: number, seed: number): string {
  const folder = join(scratch, name);
  const random = seededRandom(seed);
  mkdirSync(folder, { recursive: true });
  for (let i = 0; i < files; i++) writeFileSync(join(folder, `file ${i}`), noise(random, 2 * MiB));
  return folder;
}

/** Restores the newest snapshot, and says what is not as it was. */
async function restoreDifferences(from: Restic, source: string): Promise<string[]> {
  const target = mkdtempSync(join(scratch, 'restored-'));
  await from.succeed('restore', 'latest', '--target', target);
  const found = differences(snapshot(source), snapshot(join(target, source)));
  rmSync(target, { recursive: true });
  return found;
}

async function assertClean(of: Restic): Promise<void> {
  expect(await of.succeed('check', '--read-data')).toContain('no errors were found');
}

async function until(isSo: () => Promise<boolean> | boolean, running: RunningRestic): Promise<void> {
  let ended = false;
  running.done.then(() => (ended = true));
  while (!(await isSo())) {
    if (ended) throw new Error(`restic ended before: ${(await running.done).stderr}`);
    await sleep(20);
  }
}

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-services-restic-'));
  server = await startServer();
  owner = server.firstStart.userName;
  tree = wholeTree ?? join(scratch, 'share');
  if (!wholeTree) copyBounded('/usr/share', tree, { bytesMax: 120 * MiB, filesMax: 6_000 });
}, 120_000);

afterAll(async () => {
  for (const each of made) each.remove();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
}, 120_000);

const http1 = { GODEBUG: 'http2client=0' };

describe.each([
  ['HTTP/2', {}],
  ['HTTP/1.1', http1],
])('over %s', (wire, environment) => {
  test('a repository from its first day to its last', async () => {
    const it = await restic(`days-${wire.replace('/', '')}`);
    const succeed = async (...args: string[]): Promise<string> => {
      const { exitCode, stdout, stderr } = await it.start(args, { environment }).done;
      if (exitCode !== 0) throw new Error(`restic ${args.join(' ')} ended with ${exitCode}: ${stderr}`);
      expect([args[0], stderr.includes('retrying')]).toEqual([args[0], false]);
      return stdout.toString();
    };
    expect(await succeed('init')).toContain('created restic repository');
    expect((await it.run('init')).exitCode).not.toBe(0); // it is there, and stays
    await succeed('backup', tree);
    const second = noiseTree(`second-${wire.replace('/', '')}`, 8, 1);
    await succeed('backup', tree, second);
    // Not of folders: those above have times that other programs change.
    expect(await succeed('backup', tree, second)).toMatch(/Files: +0 new, +0 changed/);
    await assertClean(it);
    expect(await restoreDifferences(it, tree)).toEqual([]);
    expect(await restoreDifferences(it, second)).toEqual([]);
    expect(await succeed('ls', 'latest')).toContain(join(second, 'file 7'));
    const dumped = await it.start(['dump', 'latest', join(second, 'file 3')], { environment }).done;
    expect(dumped.stdout.equals(readFileSync(join(second, 'file 3')))).toBe(true);

    await succeed('backup', tree);
    await succeed('forget', '--group-by', '', '--keep-last', '1', '--prune');
    await assertClean(it);
    expect(await restoreDifferences(it, tree)).toEqual([]);
    expect((await succeed('list', 'locks')).trim()).toBe('');
    expect(JSON.parse(await succeed('snapshots', '--json'))).toHaveLength(1);
  }, 900_000);
});

test('snapshots are copied from one repository to another, and a second password opens it', async () => {
  const [from, to] = [await restic('copied-from'), await restic('copied-to')];
  await from.succeed('init');
  const folder = noiseTree('copied', 10, 2);
  await from.succeed('backup', folder);
  const environment = { RESTIC_FROM_REPOSITORY: from.url(), RESTIC_FROM_PASSWORD: 'of this repository' };
  const copy = async (...args: string[]) => (await to.start(args, { environment }).done).exitCode;
  expect(await copy('init', '--copy-chunker-params')).toBe(0);
  expect(await copy('copy')).toBe(0);
  await assertClean(to);
  expect(await restoreDifferences(to, folder)).toEqual([]);

  const password = join(scratch, 'another password');
  writeFileSync(password, 'another');
  await to.succeed('key', 'add', '--new-password-file', password);
  expect((await to.start(['snapshots'], { password: 'another' }).done).exitCode).toBe(0);
  expect((await to.run('snapshots')).exitCode).toBe(0);
}, 300_000);

test('several hosts back up to one repository at once', async () => {
  const it = await restic('hosts');
  await it.succeed('init');
  const hosts = ['one', 'two', 'three'];
  const folders = hosts.map((host, i) => noiseTree(`host ${host}`, 20, 10 + i));
  const runs = hosts.map((host, i) => it.run('backup', '--host', host, folders[i]!));
  expect((await Promise.all(runs)).map(({ exitCode }) => exitCode)).toEqual([0, 0, 0]);
  expect(JSON.parse(await it.succeed('snapshots', '--json'))).toHaveLength(3);
  await assertClean(it);
  for (const [i, host] of hosts.entries()) {
    const target = mkdtempSync(join(scratch, 'restored-'));
    await it.succeed('restore', 'latest', '--host', host, '--target', target);
    expect(differences(snapshot(folders[i]!), snapshot(join(target, folders[i]!)))).toEqual([]);
  }
}, 300_000);

test('a wrong password opens nothing; a wrong token, and another’s repository, are not found', async () => {
  const it = await restic('mine');
  await it.succeed('init');
  const { userName: other } = await addUser(server, 'somebody else');
  const theirs = new Restic(server, {
    repository: 'mine',
    userName: other,
    token: await addToken(server, await addRepository(server, 'mine', other)),
  });
  made.push(theirs);
  expect((await it.start(['snapshots'], { password: 'wrong' }).done).stderr).toContain('wrong password');
  for (const wrong of [{ token: `hfr_${'A'.repeat(43)}` }, { userName: other }, { repository: 'copied-from' }]) {
    // It asks the first time only.
    const { exitCode, stderr } = await it.start(['snapshots', '--no-lock'], wrong).done;
    expect([exitCode === 0, stderr.includes('401')]).toEqual([false, true]);
  }
  expect((await theirs.run('snapshots')).exitCode).not.toBe(0); // it is theirs, and empty
  await theirs.succeed('init');
  expect(await theirs.succeed('list', 'snapshots')).toBe('');
}, 300_000);

test('with a token to append a backup works and nothing is forgotten; with one to read, it is restored from', async () => {
  const it = await restic('modes');
  await it.succeed('init');
  const guid = (await server.query<{ guid: string }>(`SELECT guid::text FROM devices WHERE name = 'modes'`))[0]!.guid;
  const folder = noiseTree('modes', 4, 3);
  const append = { token: await addToken(server, guid, 'append') };
  const read = { token: await addToken(server, guid, 'read') };
  const exitCode = async (options: { token: string }, ...args: string[]) =>
    (await it.start(args, options).done).exitCode;
  expect(await exitCode(append, 'backup', folder)).toBe(0);
  const running = it.start(['forget', '--prune', '--group-by', '', '--keep-last', '0', '--keep-tag', 'none'], append);
  await until(() => /403/.test(running.said()), running);
  running.kill('SIGINT');
  await running.done;
  await it.succeed('unlock', '--remove-all');
  const target = mkdtempSync(join(scratch, 'restored-'));
  expect(await exitCode(read, 'restore', 'latest', '--target', target)).toBe(0);
  expect(differences(snapshot(folder), snapshot(join(target, folder)))).toEqual([]);
  await assertClean(it);
}, 300_000);

test('a quota that is used up in the middle of a backup stops it until it is raised', async () => {
  const it = await restic('quota');
  await it.succeed('init');
  const [{ used }] = (await server.query(
    'SELECT coalesce(sum(byte_length), 0)::float8 AS used FROM blocks b JOIN vaults v USING (vault_id) JOIN users u USING (user_id) WHERE u.name = $1',
    [owner],
  )) as [{ used: number }];
  const setQuota = (bytes: number) =>
    server.query(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value)
       SELECT u.tenant_id, u.organization_id, 'quotas.bytesPerUser', to_jsonb($1::bigint) FROM users u WHERE u.name = $2
       ON CONFLICT (organization_id, name) DO UPDATE SET value = excluded.value`,
      [Math.round(bytes), owner],
    );
  await setQuota(used + 30 * MiB);
  const folder = noiseTree('quota', 40, 4);
  const running = it.start(['backup', folder]);
  await until(() => /507/.test(running.said()), running);
  await setQuota(-1);
  const { exitCode, stderr } = await running.done;
  expect([exitCode, stderr]).toEqual([0, expect.stringContaining('507')]);
  await assertClean(it);
  expect(await restoreDifferences(it, folder)).toEqual([]);
}, 300_000);

describe('the server is killed with -9', () => {
  const blocksOf = async (repository: string): Promise<number> =>
    (
      await server.query<{ files: number }>(
        `SELECT count(*)::int AS files FROM versions v JOIN devices d USING (vault_id, archive_id) WHERE d.name = $1`,
        [repository],
      )
    )[0]!.files;

  test('in the middle of backups, which go on when it is there again', async () => {
    const it = await restic('killed');
    await it.succeed('init');
    for (const [round, more] of [3, 6, 9].entries()) {
      const folder = noiseTree('killed', 60, 20 + round);
      const before = await blocksOf('killed');
      const running = it.start(['--limit-upload', '40000', 'backup', folder]);
      await until(async () => (await blocksOf('killed')) >= before + more, running);
      await server.kill('SIGKILL');
      await server.start();
      const { exitCode, stderr } = await running.done;
      expect([round, exitCode, stderr.includes('retrying')]).toEqual([round, 0, true]);
      await assertClean(it);
      expect(await restoreDifferences(it, folder)).toEqual([]);
    }
  }, 600_000);

  test('in the middle of a prune, which goes on or is done again', async () => {
    const it = await restic('pruned');
    await it.succeed('init');
    for (let i = 0; i < 6; i++) {
      noiseTree('pruned', 10, 30 + i);
      await it.succeed('backup', join(scratch, 'pruned'));
    }
    const before = await blocksOf('pruned');
    const running = it.start(['forget', '--group-by', '', '--keep-last', '1', '--prune']);
    await until(async () => (await blocksOf('pruned')) >= before + 8, running);
    await server.kill('SIGKILL');
    await server.start();
    const { exitCode, stderr } = await running.done;
    expect([exitCode, stderr.includes('retrying')]).toEqual([0, true]);
    await assertClean(it);
    await it.succeed('prune');
    await assertClean(it);
    expect(await restoreDifferences(it, join(scratch, 'pruned'))).toEqual([]);
  }, 600_000);
});
