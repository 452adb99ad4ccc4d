/**
 * Ransomware, from the command line: a run that replaces most files is marked, and one option of the restore goes back
 * to just before it.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type AgentEvent, TestAgent } from './helpers/agent.ts';
import { type RunningServer, startServer } from './helpers/server.ts';

let server: RunningServer;
let agent: TestAgent;
let root: string;

beforeAll(async () => {
  server = await startServer();
  agent = new TestAgent({ localServer: server.data });
  root = join(agent.home, 'documents');
  mkdirSync(root);
});
afterAll(async () => {
  agent?.remove();
  await server?.stop();
});

const files = 150;
const writeAll = (content: string): void => {
  for (let i = 0; i < files; i++) writeFileSync(join(root, `${i}`), `${content} ${i}`);
};

async function backUp(): Promise<number> {
  return Number((await agent.succeed('backup', root)).run);
}

async function runs(...more: string[]): Promise<AgentEvent[]> {
  const { exitCode, events, errors } = await agent.run('runs', ...more);
  if (exitCode !== 0) throw new Error(errors);
  return events.filter(({ event }) => event === 'run');
}

/** What a restore before a run gives: contents by name. */
async function restored(run: number, to: string): Promise<Record<string, string>> {
  await agent.succeed('restore', root, '--to', to, '--before-run', String(run));
  const folder = join(to, 'documents');
  return Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), 'utf8')]));
}

test('a run that replaces most files is marked, and a restore goes back to just before it', async () => {
  writeAll('mine');
  const first = await backUp();
  writeFileSync(join(root, '7'), 'mine, and better');
  const second = await backUp();
  writeAll('ENCRYPTED');
  rmSync(join(root, '9'));
  const third = await backUp();
  writeFileSync(join(root, 'README'), 'pay');
  const fourth = await backUp();

  const listed = await runs();
  expect(listed.map(({ run, suspicious, outcome }) => [run, suspicious, outcome])).toEqual([
    [fourth, false, 'completed'],
    [third, true, 'completed'],
    [second, false, 'completed'],
    [first, false, 'completed'],
  ]);
  const counts = listed[1]!.counts as { filesChanged: number; filesDeleted: number };
  expect(counts).toMatchObject({ filesChanged: files - 1, filesDeleted: 1 });

  const before = await restored(third, join(agent.home, 'to'));
  expect(Object.keys(before)).toHaveLength(files);
  expect(before['7']).toBe('mine, and better');
  expect(before['9']).toBe('mine 9');
  expect((await restored(second, join(agent.home, 'earlier')))['7']).toBe('mine 7');
  expect((await restored(fourth, join(agent.home, 'later')))['7']).toBe('ENCRYPTED 7');
});

test('a run that the archive does not have, or two moments, are refused as wrong usage', async () => {
  const to = join(agent.home, 'nothing');
  for (const moment of [
    ['--before-run', '999999'],
    ['--before-run', '0'],
    ['--before-run', '1', '--at', '1d'],
  ]) {
    const { exitCode } = await agent.run('restore', root, '--to', to, ...moment);
    expect([moment, exitCode]).toEqual([moment, 2]);
  }
});
