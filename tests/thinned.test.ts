/**
 * A restore as of a moment whose versions retention has thinned out, from the command line: what it lacks is named, with
 * the moment that has it.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { TestAgent } from './helpers/agent.ts';
import { QuickServer } from './helpers/deleting.ts';

let server: QuickServer;
let agent: TestAgent;
let root: string;

beforeAll(async () => {
  server = await QuickServer.create();
  agent = new TestAgent();
  await agent.succeed(...agent.signIn(server, server.firstStart));
  root = join(agent.home, 'documents');
  mkdirSync(root);
}, 90_000);
afterAll(async () => {
  agent?.remove();
  await server?.stop();
});

const write = (name: string, content: string): void => writeFileSync(join(root, name), content);

const dayMs = 86_400_000;

/** A month later, when retention keeps the newest version of each day. @returns the moment, as it is then */
async function monthLater(moment: Date): Promise<Date> {
  // To noon of a day then, so that all of it is of one day.
  const agedMs = 30 * dayMs + (Date.now() % dayMs) - dayMs / 2;
  const earlier = (...columns: string[]) =>
    columns.map((column) => `${column} = ${column} - interval '${agedMs} ms'`).join(', ');
  await server.query('DELETE FROM commits');
  await server.query(`UPDATE versions SET ${earlier('committed_at')}`);
  await server.query(`UPDATE runs SET ${earlier('started_at', 'finished_at', 'progressed_at')}`);
  await server.query('UPDATE files SET prune_after = now() WHERE prune_after IS NOT NULL');
  for (let left = 300; left > 0; left--) {
    const rows = await server.query('SELECT 1 FROM files WHERE prune_after <= now()');
    if (rows.length === 0) return new Date(moment.getTime() - agedMs);
    await sleep(100);
  }
  throw new Error('nothing was pruned within 30 s');
}

test('a restore as of then leaves out what was thinned, by name, and says what moment has it', async () => {
  write('letter', 'first');
  write('kept', 'as it is');
  await agent.succeed('backup', root);
  await sleep(50);
  const [row] = await server.query<{ now: Date }>('SELECT now()');
  await sleep(50);
  write('letter', 'second, and longer');
  await agent.succeed('backup', root);
  const at = await monthLater(row!.now);

  const to = join(agent.home, 'to');
  const { exitCode, events } = await agent.run('restore', root, '--to', to, '--at', at.toISOString());
  expect(readdirSync(join(to, 'documents'))).toEqual(['kept']);
  const problems = events.filter(({ event }) => event === 'problem');
  expect(problems).toMatchObject([{ path: join(root, 'letter'), reason: 'version_thinned' }]);
  expect(events.at(-1)).toMatchObject({ event: 'end', outcome: 'incomplete', problems: 1 });
  expect(exitCode).not.toBe(0);

  // What it says has it, has it.
  const next = /the next one is of (\S+)$/.exec(String(problems[0]!.detail))![1]!;
  const again = join(agent.home, 'again');
  await agent.succeed('restore', root, '--to', again, '--at', next);
  expect(readFileSync(join(again, 'documents', 'letter'), 'utf8')).toBe('second, and longer');
});
