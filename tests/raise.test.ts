/**
 * Raising who can open the backups, from outside: the real server and several agents, as processes. What was stored
 * before comes back as what was stored after, on this machine, on the user's others and on an empty one; and the server
 * has nothing left that opens any of it.
 */
import { randomBytes } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { openKeyFile } from '../server/directory/keys/key-file.ts';
import { vaultKeyContext } from '../server/directory/keys/key-service.ts';
import { TestAgent } from './helpers/agent.ts';
import { addUser, type Person, type RunningServer, startServer } from './helpers/server.ts';
import { differences, snapshot } from './helpers/tree.ts';

const MiB = 1024 * 1024;

let server: RunningServer;
let scratch: string;
const agents: TestAgent[] = [];

const newAgent = (): TestAgent => {
  const agent = new TestAgent();
  agents.push(agent);
  return agent;
};

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-raise-'));
  server = await startServer();
});
afterAll(async () => {
  for (const agent of agents) agent.remove();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

const archivePassword = 'only the user knows';

function makeTree(name: string): string {
  const tree = join(scratch, name);
  mkdirSync(join(tree, 'folder'), { recursive: true });
  writeFileSync(join(tree, 'stays'), randomBytes(3 * MiB));
  writeFileSync(join(tree, 'changes'), 'as it was at first');
  writeFileSync(join(tree, 'folder', 'goes'), 'gone later');
  return tree;
}

async function enrolled(person: Person): Promise<TestAgent> {
  const agent = newAgent();
  await agent.succeed(...agent.signIn(server, person));
  return agent;
}

/** The command's secrets, as files in the agent's folder. */
const toPassword = (agent: TestAgent, person: Person, secret = archivePassword): string[] => [
  ...['raise', '--to', 'password', '--password-file', agent.file('password', person.password)],
  ...['--archive-password-file', agent.file('archive-password', secret)],
];
const toCustom = (agent: TestAgent, person: Person, keyFile: string): string[] => [
  ...['raise', '--to', 'custom', '--password-file', agent.file('password', person.password)],
  ...['--custom-key-file', keyFile],
];
const unlock = (agent: TestAgent, secret = archivePassword): string[] => [
  ...['unlock', '--archive-password-file', agent.file('archive-password', secret)],
];

let restores = 0;
async function expectRestores(agent: TestAgent, tree: string, wanted: ReturnType<typeof snapshot>, ...more: string[]) {
  const to = join(scratch, `restored-${++restores}`);
  const end = await agent.succeed('restore', tree, '--to', to, ...more);
  expect(end).toMatchObject({ outcome: 'completed', problems: 0 });
  expect(differences(wanted, snapshot(join(to, tree.split('/').at(-1)!)))).toEqual([]);
}

const keysOfUser = (userName: string) =>
  server.query<{ generation: number; level: string; record: Buffer }>(
    `SELECT generation, level, record FROM vault_keys JOIN vaults USING (vault_id) JOIN users USING (user_id)
      WHERE name = $1 ORDER BY generation`,
    [userName],
  );

const errorOf = (events: { event: string }[]): string =>
  String((events.findLast(({ event }) => event === 'error') as { message?: string } | undefined)?.message);

describe('from standard to password to custom', () => {
  let person: Person;
  let tree: string;
  let agent: TestAgent;
  let other: TestAgent;
  let othersTree: string;
  let bytesSent: number;
  const moments: { at: string; was: ReturnType<typeof snapshot> }[] = [];
  let firstKey: Buffer;
  /** The record of the first key as the server had it. */
  let sealedBefore: Buffer;

  async function backUp(): Promise<void> {
    const end = await agent.succeed('backup', tree);
    expect(end).toMatchObject({ outcome: 'completed', filesSkipped: 0 });
    bytesSent = end.bytesSent as number;
    await sleep(1_100); // moments are told in seconds
    moments.push({ at: new Date(Date.now() - 500).toISOString(), was: snapshot(tree) });
    await sleep(600);
  }

  beforeAll(async () => {
    person = await addUser(server, 'anna');
    tree = makeTree('anna');
    othersTree = makeTree('annas other');
    [agent, other] = [await enrolled(person), await enrolled(person)];
    await backUp();
    await other.succeed('backup', othersTree);
    firstKey = agent.registration.vaultKey;
    sealedBefore = (await keysOfUser('anna'))[0]!.record;
  }, 120_000);

  test('a raise with a wrong password of the account changes nothing', async () => {
    const wrong = toPassword(agent, { ...person, password: 'not the one' });
    const { exitCode, events } = await agent.run(...wrong);
    expect([exitCode, (events.at(-1) as { code?: string }).code]).toEqual([1, 'sign_in_failed']);
    expect(await keysOfUser('anna')).toMatchObject([{ generation: 1, level: 'standard' }]);
    expect(agent.registration.level).toBe('standard');
  });

  test('a raise whose end this machine did not live to see is finished by the same command again', async () => {
    const file = join(agent.home, 'agent', 'registration.json');
    copyFileSync(file, join(agent.home, 'before'));
    expect(await agent.succeed(...toPassword(agent, person))).toMatchObject({ level: 'password', generation: 2 });
    const raised = agent.registration;
    // As if it was killed after the server had done it, and before it wrote down its keys.
    copyFileSync(join(agent.home, 'before'), file);
    const { exitCode, events } = await agent.run('backup', tree);
    expect([exitCode, errorOf(events)]).toEqual([2, expect.stringContaining('npm run agent -- unlock')]);
    expect(await agent.succeed(...toPassword(agent, person))).toMatchObject({ level: 'password', generation: 2 });
    expect(agent.registration).toEqual(raised);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(await keysOfUser('anna')).toHaveLength(2);
  });

  test('the server has nothing that opens the old generation or the new one', async () => {
    const [first, second] = await keysOfUser('anna');
    expect([first!.level, second!.level]).toEqual(['password', 'password']);
    const everything = await server.query<{ table: string }>(
      `SELECT table_name AS table FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`,
    );
    for (const { table } of everything) {
      const rows = await server.query<{ text: string }>(`SELECT t::text AS text FROM "${table}" t`);
      for (const key of [firstKey, agent.registration.vaultKey])
        expect(rows.filter(({ text }) => text.includes(key.toString('hex')))).toEqual([]);
    }
    const keys = openKeyFile(join(server.data, 'server-key'), { create: false });
    const [owner] = await server.query<{ id: number }>(`SELECT user_id::int AS id FROM users WHERE name = 'anna'`);
    const opened = (record: Buffer, generation: number) => keys.unseal(record, vaultKeyContext(owner!.id, generation));
    expect(await opened(sealedBefore, 1)).toEqual(firstKey); // that is how it was
    for (const { record, generation } of [first!, second!]) await expect(opened(record, generation)).rejects.toThrow();
    expect(await server.query('SELECT 1 FROM held_vault_keys')).toEqual([]);
  });

  test('what is backed up afterwards is sealed anew, and both moments are restored', async () => {
    writeFileSync(join(tree, 'changes'), 'as it is after the raise');
    writeFileSync(join(tree, 'copy of what stays'), readFileSync(join(tree, 'stays')));
    rmSync(join(tree, 'folder', 'goes'));
    await backUp();
    expect(bytesSent).toBeGreaterThan(3 * MiB); // the copy: what it equals is stored under the other key
    expect(bytesSent).toBeLessThan(3.1 * MiB); // and that one is not sent again
    for (const { at, was } of moments) await expectRestores(agent, tree, was, '--at', at);
  }, 120_000);

  test('another device is told what to do; with the password it goes on, and reads what this one stored', async () => {
    const { exitCode, events } = await other.run('backup', othersTree);
    expect([exitCode, errorOf(events)]).toEqual([2, expect.stringMatching(/level 'password'.*unlock/)]);
    const watching = await other.run('watch', othersTree);
    expect([watching.exitCode, errorOf(watching.events)]).toEqual([2, expect.stringMatching(/unlock/)]);
    // What it has the key of it restores; what not it names.
    await expectRestores(other, othersTree, snapshot(othersTree));
    const to = join(scratch, 'without the key');
    const left = await other.run('restore', tree, '--to', to, '--device', agent.registration.guid);
    expect(left.exitCode).toBe(3);
    expect(left.events.filter(({ event }) => event === 'problem')).toContainEqual(
      expect.objectContaining({ reason: 'key_missing', detail: expect.stringContaining('unlock') }),
    );

    const wrong = await other.run(...unlock(other, 'not the one'));
    expect([wrong.exitCode, errorOf(wrong.events)]).toEqual([1, expect.stringMatching(/the password is not the one/)]);
    expect(await other.succeed(...unlock(other))).toMatchObject({ level: 'password', generation: 2, changed: true });
    expect(await other.succeed(...unlock(other))).toMatchObject({ changed: false });
    writeFileSync(join(othersTree, 'changes'), 'on the other one');
    expect(await other.succeed('backup', othersTree)).toMatchObject({ filesChanged: 1, filesDeleted: 0 });
    await expectRestores(other, othersTree, snapshot(othersTree));
    await expectRestores(other, tree, moments.at(-1)!.was, '--device', agent.registration.guid);
  }, 120_000);

  test('an empty machine gets all generations with the sign-in and the archive password', async () => {
    const empty = newAgent();
    await empty.succeed(...empty.signIn(server, person, archivePassword), '--replace', other.registration.guid);
    expect(empty.registration.olderKeys).toEqual([{ generation: 1, key: firstKey }]);
    await expectRestores(empty, othersTree, snapshot(othersTree));
    for (const { at, was } of moments)
      await expectRestores(empty, tree, was, '--at', at, '--device', agent.registration.guid);
    other = empty;
  }, 120_000);

  test('lowering, and raising to the same level, are refused', async () => {
    const { exitCode, events } = await agent.run(...toPassword(agent, person));
    expect([exitCode, errorOf(events)]).toEqual([2, expect.stringContaining('never lowered')]);
    expect((await agent.run('raise', '--to', 'standard')).exitCode).toBe(2);
  });

  test('to custom: the key file is made, and it alone opens all three generations', async () => {
    const keyFile = join(scratch, 'own key');
    expect(await agent.succeed(...toCustom(agent, person, keyFile))).toMatchObject({ level: 'custom', generation: 3 });
    expect(existsSync(keyFile)).toBe(true);
    expect(await keysOfUser('anna')).toMatchObject([{ level: 'custom' }, { level: 'custom' }, { level: 'custom' }]);
    const lower = await agent.run(...toPassword(agent, person));
    expect([lower.exitCode, errorOf(lower.events)]).toEqual([2, expect.stringContaining('never lowered')]);
    writeFileSync(join(tree, 'changes'), 'for the third time');
    await backUp();
    const empty = newAgent();
    const signIn = empty.signIn(server, person);
    const where = ['--replace', agent.registration.guid, '--custom-key-file'];
    const other_ = join(scratch, 'another key');
    writeFileSync(other_, `${randomBytes(32).toString('hex')}\n`);
    const wrong = await newAgent().run(...signIn, ...where, other_);
    expect([wrong.exitCode, errorOf(wrong.events)]).toEqual([1, expect.stringMatching(/not the one this vault/)]);
    await empty.succeed(...signIn, ...where, keyFile);
    for (const { at, was } of moments) await expectRestores(empty, tree, was, '--at', at);
    expect(await other.succeed('unlock', '--custom-key-file', keyFile)).toMatchObject({
      level: 'custom',
      changed: true,
    });
  }, 120_000);
});

test('beside a running backup of another device: what that one stores under the old key is taken and comes back', async () => {
  const person = await addUser(server, 'berta');
  const [tree, small] = [join(scratch, 'running'), makeTree('small')];
  mkdirSync(tree);
  for (let i = 0; i < 8; i++) writeFileSync(join(tree, `file ${i}`), randomBytes(MiB));
  const [busy, raising] = [await enrolled(person), await enrolled(person)];
  await raising.succeed('backup', small);
  const running = busy.start('backup', tree, '--limit-upload', '1MiB/s');
  for (let waits = 0; waits < 600; waits++) {
    const [row] = await server.query<{ runs: number }>(
      'SELECT count(*)::int AS runs FROM runs WHERE archive_id = $1 AND finished_at IS NULL',
      [busy.registration.archive],
    );
    if (row!.runs > 0) break;
    await sleep(20);
  }
  expect(await raising.succeed(...toPassword(raising, person))).toMatchObject({ level: 'password' });
  expect(running.child.exitCode).toBeNull(); // it is at work
  const { exitCode, events } = await running.done;
  expect([exitCode, events.at(-1)]).toEqual([0, expect.objectContaining({ outcome: 'completed', filesSkipped: 0 })]);
  await expectRestores(busy, tree, snapshot(tree));
  await expectRestores(raising, tree, snapshot(tree), '--device', busy.registration.guid);
  await busy.succeed(...unlock(busy));
  expect(await busy.succeed('backup', tree)).toMatchObject({ outcome: 'completed', filesChanged: 0, bytesSent: 0 });
  await expectRestores(busy, tree, snapshot(tree));
}, 120_000);

test('a server that was set back to before the raise does not keep the newest key: it is raised to once more', async () => {
  const person = await addUser(server, 'carla');
  const tree = makeTree('carla');
  const agent = await enrolled(person);
  await agent.succeed('backup', tree);
  const [before] = await keysOfUser('carla');
  await agent.succeed(...toPassword(agent, person));
  const { vault, vaultKey } = agent.registration;
  await server.query('DELETE FROM vault_keys WHERE vault_id = $1 AND generation = 2', [vault]);
  const text = `UPDATE vault_keys SET level = 'standard', record = $2 WHERE vault_id = $1`;
  await server.query(text, [vault, before!.record]);
  const { exitCode, events } = await agent.run('backup', tree);
  expect([exitCode, errorOf(events)]).toEqual([2, expect.stringMatching(/set back.*raise --to password/)]);
  expect((await agent.run(...toCustom(agent, person, join(scratch, 'not needed')))).exitCode).toBe(2);
  expect(await agent.succeed(...toPassword(agent, person))).toMatchObject({ level: 'password', generation: 2 });
  expect(agent.registration.vaultKey).toEqual(vaultKey);
  writeFileSync(join(tree, 'changes'), 'after all that');
  await agent.succeed('backup', tree);
  const empty = newAgent();
  await empty.succeed(...empty.signIn(server, person, archivePassword), '--replace', agent.registration.guid);
  await expectRestores(empty, tree, snapshot(tree));
}, 120_000);
