/** `operators`: those who run the server, and no tenant of it: who they are, a new one, another password. */

import { hostname, userInfo } from 'node:os';
import { text as textOf } from 'node:stream/consumers';
import { parseArgs } from 'node:util';
import { Problem } from '../../protocol/problems.ts';
import type { Database } from '../../storage/catalog/database.ts';
import type { By } from '../directory/audit/act.ts';
import { newPassword } from '../directory/organizations/registration-key.ts';
import {
  CreateOperatorRequest,
  createOperator,
  listOperators,
  type Operator,
  prepareOperator,
  setOperatorPassword,
  setOperatorState,
} from '../directory/sign-in/operators/operators.ts';
import { createPasswords } from '../directory/sign-in/passwords.ts';
import { resetSecondFactor } from '../directory/sign-in/second-factor/second-factor.ts';
import { withCatalog } from './open-catalog.ts';
import { type OperatorCommand, type Say, UsageError } from './operator-command.ts';
import { momentInWords, printable, table } from './text.ts';

const usage = `Those who run the server: they see tenants, queues and the state of the server, and nobody's files.

usage: node server/main.ts operators list [--json]
       node server/main.ts operators add NAME [--password-stdin]
       node server/main.ts operators password NAME [--password-stdin]
       node server/main.ts operators block NAME
       node server/main.ts operators unblock NAME
       node server/main.ts operators reset-second-factor NAME

  list               every operator
  add                a new one
  password           another password; who is signed in with the one before is signed out
  reset-second-factor
                     for who has lost it and the recovery codes: it is taken away, and who is signed in is signed out. They
                     set up another themselves: npm run admin -- me second-factor set-up
  block              they do not sign in any more. One stays active
  --password-stdin   the password is the first line of standard input; else one is drawn, and shown once
  --json             JSON, a line for each operator

Example: printf '%s\\n' "$PASSWORD" | node server/main.ts operators add olga --password-stdin`;

interface Asked {
  name: string;
  fromStdin: boolean;
}

export const operators: OperatorCommand = {
  usage,
  async run(args, say) {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { json: { type: 'boolean', default: false }, 'password-stdin': { type: 'boolean', default: false } },
    });
    const [what, ...rest] = positionals;
    if (what === 'list' && rest.length === 0 && !values['password-stdin'])
      return told(say, () => withCatalog(({ database }) => list(database, values.json, say)));
    const work = what !== undefined && Object.hasOwn(works, what) ? works[what as keyof typeof works] : null;
    const takesPassword = work === works.add || work === works.password;
    if (!work || rest.length !== 1 || values.json || (values['password-stdin'] && !takesPassword))
      throw new UsageError(
        'Say "list", "add NAME", "password NAME", "block NAME", "unblock NAME" or "reset-second-factor NAME".',
      );
    const asked = { name: rest[0]!, fromStdin: values['password-stdin'] };
    return told(say, () => withCatalog(({ database }) => work(database, asked, say)));
  },
};

const works = {
  add,
  password: changePassword,
  block: (database: Database, asked: Asked, say: Say) => setState(database, asked, 'blocked', say),
  unblock: (database: Database, asked: Asked, say: Say) => setState(database, asked, 'active', say),
  'reset-second-factor': resetFactor,
};

/** What cannot be done is said in a line. */
async function told(say: Say, work: () => Promise<void>): Promise<number> {
  try {
    await work();
    return 0;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say(`Nothing was changed: ${printable(error.message)}.`);
    return 1;
  }
}

const by = (): By => ({
  tenant: null,
  party: { kind: 'server', id: null, name: `${userInfo().username} on ${hostname()}` },
  address: null,
});

async function* everyOperator(database: Database): AsyncGenerator<Operator> {
  for (let after: string | undefined; ; ) {
    const { items, next } = await listOperators(database, { after, limit: 100 });
    yield* items;
    if (next === null) return;
    after = next;
  }
}

async function list(database: Database, json: boolean, say: Say): Promise<void> {
  const all = await Array.fromAsync(everyOperator(database));
  if (json) for (const each of all) say(JSON.stringify(each));
  else if (all.length === 0) say('There is no operator. Make one: node server/main.ts operators add NAME');
  else {
    const rows = all.map(({ name, state, secondFactor, createdAt }) => [
      printable(name),
      state,
      secondFactor ? 'yes' : 'no',
      momentInWords(createdAt),
    ]);
    for (const line of table(['NAME', 'STATE', 'SECOND FACTOR', 'SINCE'], rows)) say(line);
  }
}

async function findByName(database: Database, name: string): Promise<Operator> {
  for await (const each of everyOperator(database)) if (each.name.toLowerCase() === name.toLowerCase()) return each;
  throw new Problem('not_found', `there is no operator ${name}`);
}

/** The password and its hash: read from standard input, or drawn. @throws Problem out_of_bounds for one that is easily guessed */
async function choosePassword({ name, fromStdin }: Asked) {
  const password = fromStdin ? (await textOf(process.stdin)).split(/\r?\n/, 1)[0]! : newPassword();
  const asked = CreateOperatorRequest.safeParse({ name, password });
  if (!asked.success) {
    const { path, message } = asked.error.issues[0]!;
    throw new Problem('out_of_bounds', `the ${path.join('.')}: ${message}`);
  }
  const passwords = createPasswords({ concurrentMax: 1, waitingMax: 1 });
  return { ...asked.data, drawn: !fromStdin, hash: await prepareOperator({ passwords }, asked.data) };
}

async function add(database: Database, asked: Asked, say: Say): Promise<void> {
  const { name, password, drawn, hash } = await choosePassword(asked);
  await database.transaction((tx) => createOperator(tx, by(), name, hash));
  say(`${printable(name)} runs the server from now on.`);
  if (drawn) say(`Password, shown this once: ${password}`);
}

async function changePassword(database: Database, asked: Asked, say: Say): Promise<void> {
  const { id: operator, name } = await findByName(database, asked.name);
  const { password, drawn, hash: passwordHash } = await choosePassword({ ...asked, name });
  await database.transaction((tx) => setOperatorPassword(tx, by(), { operator, passwordHash }));
  say(`${printable(name)} has another password, and is signed out.`);
  if (drawn) say(`Password, shown this once: ${password}`);
}

async function setState(database: Database, asked: Asked, state: 'active' | 'blocked', say: Say): Promise<void> {
  const { id: operator, name } = await findByName(database, asked.name);
  await database.transaction((tx) => setOperatorState(tx, by(), { operator, state, expected: null }));
  say(state === 'blocked' ? `${printable(name)} is blocked.` : `${printable(name)} may sign in again.`);
}

async function resetFactor(database: Database, asked: Asked, say: Say): Promise<void> {
  const { id: operator, name, secondFactor } = await findByName(database, asked.name);
  await database.transaction((tx) => resetSecondFactor(tx, by(), { operator }));
  say(
    secondFactor
      ? `${printable(name)} has no second factor any more, and is signed out.`
      : `${printable(name)} had no second factor in force.`,
  );
}
