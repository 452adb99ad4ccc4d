/** `operators` as it is called: on a catalog that the settings name. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type TestStorage, testStorage } from '../../tests/helpers/storage.ts';
import { type Directory, openDirectory } from '../directory/directory.ts';
import { localKeyService } from '../directory/keys/local-keys.ts';
import { secretContext } from '../directory/sign-in/second-factor/codes.ts';
import { signInOperator } from '../directory/sign-in/sessions/begin.ts';
import { drawTokens } from '../directory/sign-in/sessions/tokens-of-session.ts';
import { runOperatorCommand } from './operator-command.ts';
import { operators } from './operators.ts';

const main = fileURLToPath(new URL('../main.ts', import.meta.url));
let storage: TestStorage;
let directory: Directory;

beforeAll(async () => {
  storage = await testStorage();
  process.env.HOLDFAST_DATABASE_URL = storage.connectionString;
  const keys = localKeyService([randomBytes(32)]);
  directory = openDirectory({ database: storage.database, keys, passwordHashesMax: 2, signInsPerMinute: 1_000 });
});
afterAll(async () => {
  delete process.env.HOLDFAST_DATABASE_URL;
  await storage?.close();
});

/** @returns what it said, and its exit code */
async function run(...args: string[]): Promise<[said: string, code: number]> {
  const lines: string[] = [];
  const say = (line: string): void => void lines.push(`${line}\n`);
  const code = await runOperatorCommand(operators, args, say, say);
  return [lines.join(''), code];
}

/** As a process of its own, with this on its standard input. */
async function runWith(input: string, ...args: string[]): Promise<[said: string, code: number]> {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main, 'operators', ...args], {
    env: { ...process.env },
  });
  child.stdin.end(input);
  const ended = new Promise<number>((resolve) => child.on('close', resolve));
  const said = await text(child.stdout);
  return [said, await ended];
}

const signIn = (userName: string, password: string): Promise<string> =>
  signInOperator(directory, { userName, password }, { address: '192.0.2.1', program: null }, drawTokens()).then(
    () => 'let in',
    (error) => error.code,
  );
const drawn = (said: string): string => /^Password, shown this once: (\w{24})$/m.exec(said)![1]!;
const acts = () =>
  storage.rows(
    `SELECT action, details ->> 'name' AS name FROM (SELECT number, action, details::jsonb AS details FROM acts
      WHERE tenant_id = 0 AND party_kind = 'server' AND action LIKE 'operator.%') a ORDER BY number`,
  );

test('operators are added, listed, given other passwords, blocked and let in again, and the log has it all', async () => {
  expect(await run('list')).toEqual([expect.stringContaining('There is no operator'), 0]);
  const [added, code] = await run('add', 'olga');
  expect([added, code]).toEqual([expect.stringMatching(/^olga runs the server from now on\.\nPassword/), 0]);
  expect(await signIn('olga', drawn(added))).toBe('let in');
  expect(await run('add', 'OLGA')).toEqual(['Nothing was changed: there is an operator of that name.\n', 1]);
  expect(await run('block', 'olga')).toEqual(['Nothing was changed: no active operator would be left.\n', 1]);

  const [changed] = await run('password', 'Olga');
  expect(await signIn('olga', drawn(added))).toBe('sign_in_failed');
  expect(await signIn('olga', drawn(changed))).toBe('let in');
  expect(await storage.rows('SELECT ended_at IS NULL AS open FROM sessions ORDER BY session_id')).toEqual([
    { open: false },
    { open: true },
  ]);

  await run('add', 'piet');
  expect(await run('block', 'olga')).toEqual(['olga is blocked.\n', 0]);
  expect(await signIn('olga', drawn(changed))).toBe('sign_in_failed');
  const [table] = await run('list');
  expect(table.split('\n').slice(0, 3)).toEqual([
    expect.stringMatching(/^NAME +STATE +SECOND FACTOR +SINCE/),
    expect.stringMatching(/^olga +blocked +no +\d/),
    expect.stringMatching(/^piet +active +no +\d/),
  ]);
  const [lines] = await run('list', '--json');
  expect(
    lines
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line)),
  ).toMatchObject([
    { name: 'olga', state: 'blocked' },
    { name: 'piet', state: 'active' },
  ]);
  expect(await run('unblock', 'olga')).toEqual(['olga may sign in again.\n', 0]);
  expect(await signIn('olga', drawn(changed))).toBe('let in');
  expect(await acts()).toEqual([
    { action: 'operator.create', name: 'olga' },
    { action: 'operator.password', name: 'olga' },
    { action: 'operator.create', name: 'piet' },
    { action: 'operator.block', name: 'olga' },
    { action: 'operator.unblock', name: 'olga' },
  ]);
});

test('a password comes on standard input, and is not shown; one that is easily guessed is refused', async () => {
  const password = 'a mare of no colour';
  expect(await runWith(`${password}\nnot this\n`, 'add', 'rosa', '--password-stdin')).toEqual([
    'rosa runs the server from now on.\n',
    0,
  ]);
  expect(await signIn('rosa', password)).toBe('let in');
  const [said, code] = await runWith('password1234\n', 'password', 'rosa', '--password-stdin');
  expect([said, code]).toEqual([expect.stringMatching(/^Nothing was changed: /), 1]);
  expect(await runWith('', 'password', 'rosa', '--password-stdin')).toEqual([
    expect.stringMatching(/^Nothing was changed: the password/),
    1,
  ]);
  expect(await signIn('rosa', password)).toBe('let in');
}, 60_000);

test('a second factor that was lost is taken away, and whoever it is of signs in without', async () => {
  const [added] = await run('add', 'tom');
  const of = (
    await storage.rows<{ operator: number }>(`SELECT operator_id AS operator FROM operators WHERE name = 'tom'`)
  )[0]!;
  const sealed = await directory.keys.seal(Buffer.alloc(20, 1), secretContext(of));
  await storage.rows('INSERT INTO operator_second_factors (operator_id, secret, confirmed_at) VALUES ($1, $2, now())', [
    of.operator,
    sealed,
  ]);
  expect(await signIn('tom', drawn(added))).toBe('second_factor_needed');
  expect((await run('list'))[0]).toMatch(/^tom +active +yes /m);
  expect(await run('reset-second-factor', 'Tom')).toEqual([
    'tom has no second factor any more, and is signed out.\n',
    0,
  ]);
  expect(await signIn('tom', drawn(added))).toBe('let in');
  expect(await run('reset-second-factor', 'tom')).toEqual(['tom had no second factor in force.\n', 0]);
});

test.each([
  [],
  ['add'],
  ['add', 'a', 'b'],
  ['remove', 'olga'],
  ['list', 'olga'],
  ['list', '--password-stdin'],
  ['add', 'a', '--json'],
  ['block', 'a', '--password-stdin'],
  ['toString', 'a'],
])('is not understood: %j', async (...args: string[]) => {
  const [said, code] = await run(...args);
  expect([said, code]).toEqual([expect.stringContaining('usage: node server/main.ts operators'), 2]);
});

test('nobody of that name', async () => {
  for (const what of ['password', 'block', 'unblock', 'reset-second-factor'])
    expect(await run(what, 'nobody')).toEqual(['Nothing was changed: there is no operator nobody.\n', 1]);
});
