/** `commands` against a server in memory: what it carries out, and what a script learns of it. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { Command } from 'commander';
import type { Command as Told } from '../../../protocol/commands.ts';
import { scratchFolder } from '../../files/test-tree.ts';
import { writeRegistration } from '../../state/registration.ts';
import { type MemoryServer, startMemoryServer } from '../../testing/memory-server.ts';
import { addCommands } from './carry-out.ts';

let scratch: ReturnType<typeof scratchFolder>;
let server: MemoryServer;
let home: string;
let said: Record<string, unknown>[];
beforeEach(async () => {
  scratch = scratchFolder();
  server = await startMemoryServer();
  home = join(scratch.path, 'agent');
  mkdirSync(home);
  const device = { userName: 'me', guid: '5', deviceName: 'laptop', token: 't', vault: 1, archive: 7 };
  const key = { level: 'standard', keyGeneration: 1, vaultKey: Buffer.alloc(32, 'vault key') } as const;
  writeRegistration(home, { url: server.url, certificateSha256: null, ...device, ...key });
  said = [];
  jest.spyOn(process.stdout, 'write').mockImplementation((line) => {
    said.push(JSON.parse(String(line)));
    return true;
  });
});
afterEach(async () => {
  jest.restoreAllMocks();
  await server.close();
  scratch.remove();
});

/** @returns the exit code */
async function carryOut(): Promise<unknown> {
  const program = new Command();
  addCommands(program);
  program.commands[0]!.option('--home <folder>').option('--json');
  const before = process.exitCode;
  try {
    await program.parseAsync(['commands', '--home', home, '--json'], { from: 'user' });
    return process.exitCode;
  } finally {
    process.exitCode = before;
  }
}

const browse: Told = { id: 1, kind: 'browse', path: null, after: null, limit: 5 };
/** Into a folder that cannot be: a file stands there. */
function restore(id: number): Told {
  const file = join(scratch.path, 'file');
  writeFileSync(file, '');
  return {
    id,
    kind: 'restore',
    archive: 7,
    sourceGuid: '5',
    sourcePlatform: 'linux',
    paths: [Buffer.from('/f')],
    seq: 1,
    deleted: false,
    target: { folder: Buffer.from(join(file, 'below')) },
    existing: 'rename',
    permissions: 'current',
    files: 1,
    bytes: 1,
  };
}

test('nothing to do, and a folder that was looked into, are no failure', async () => {
  expect(await carryOut()).toBe(0);
  server.commands.open = [browse];
  expect(await carryOut()).toBe(0);
  expect(server.commands.answers).toHaveLength(1);
  expect(said.at(-1)).toEqual({ event: 'end', commands: 1, notWhole: 0 });
});

test('a restore that was not done, or not all of it, is an exit code', async () => {
  server.commands.open = [browse, restore(2), restore(3)];
  expect(await carryOut()).toBe(3);
  expect(server.commands.ends.map(({ request }) => request.outcome)).toEqual(['failed', 'failed']);
  expect(said.at(-1)).toEqual({ event: 'end', commands: 3, notWhole: 2 });
});

test('a restore is called by the number that the server shows, where it tells one', async () => {
  server.commands.open = [{ ...restore(2), restore: 10 } as Told, restore(3)];
  expect(await carryOut()).toBe(3);
  const told = said.filter(({ event }) => event === 'push_end');
  expect(told.map(({ id, restore }) => [id, restore])).toEqual([
    [2, 10],
    [3, undefined],
  ]);
});

test('a command that is not understood is one, and has failed', async () => {
  server.commands.open = [{ ...restore(2), paths: [] } as Told];
  expect(await carryOut()).toBe(3);
  expect(said.at(-1)).toEqual({ event: 'end', commands: 1, notWhole: 1 });
});

test('what was begun and is open no more is tidied up after', async () => {
  const to = join(scratch.path, 'to');
  mkdirSync(join(to, '.holdfast-restore'), { recursive: true, mode: 0o700 });
  writeFileSync(join(to, '.holdfast-restore', 'x.part'), 'half a file');
  const begun = [{ id: 9, folders: [Buffer.from(to).toString('base64')] }];
  const file = join(home, 'commands.json');
  writeFileSync(file, JSON.stringify({ of: `${server.url} 5 7`, begun, ends: [] }));
  expect(await carryOut()).toBe(0);
  expect(existsSync(join(to, '.holdfast-restore'))).toBe(false);
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({ begun: [], ends: [] });
});
