/** Pages of the names in folders of this machine. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { CommandAnswerRequest } from '../../protocol/commands.ts';
import { decodeMessage, encodeMessage } from '../../protocol/wire.ts';
import { bytesPath, scratchFolder, seededNumbers } from '../files/test-tree.ts';
import { browseFolder, drives, FirstNames, lookAtAll } from './browse-folder.ts';

let scratch: ReturnType<typeof scratchFolder>;
beforeEach(() => {
  scratch = scratchFolder();
});
afterEach(() => scratch.remove());

const here = { platform: 'linux' as const, homes: ['/home/me'] };
const bytesOf = (text: string | Buffer | null): Buffer | null => (text === null ? null : Buffer.from(text));
/** As a server would read it. */
async function browse(path: string | Buffer | null, after: string | Buffer | null = null, limit = 1_000) {
  const asked = { path: bytesOf(path), after: bytesOf(after), limit };
  return decodeMessage(CommandAnswerRequest, encodeMessage(await browseFolder(asked, here)));
}

test('a page has names in the order of their bytes, and says where to go on', async () => {
  for (const name of ['b', 'a', 'Z', '\u00e9', '.hidden', 'a b']) writeFileSync(join(scratch.path, name), '');
  writeFileSync(bytesPath(scratch.path, Buffer.from([0xff, 0xfe])), '');
  const all: Buffer[] = [];
  let after: Buffer | null = null;
  for (let pages = 1; ; pages++) {
    const page = await browse(scratch.path, after, 3);
    if ('fault' in page) throw new Error(page.fault.detail);
    expect(String(page.path)).toBe(scratch.path);
    all.push(...page.entries.map(({ name }) => name));
    after = page.next;
    if (after === null) {
      expect(pages).toBe(3);
      break;
    }
    expect(page.next).toEqual(page.entries.at(-1)!.name);
  }
  expect(all).toEqual([
    ...['.hidden', 'Z', 'a', 'a b', 'b', '\u00e9'].map((name) => Buffer.from(name)),
    Buffer.from([0xff, 0xfe]),
  ]);
});

test.each([
  [2, 2, true],
  [3, 3, false],
  [4, 3, false],
])('of three names with a limit of %i it has %i', async (limit, count, more) => {
  for (const name of ['a', 'b', 'c']) writeFileSync(join(scratch.path, name), '');
  const page = await browse(scratch.path, null, limit);
  if ('fault' in page) throw new Error(page.fault.detail);
  expect([page.entries.length, page.next !== null]).toEqual([count, more]);
});

test('things are told as what they are, from outside', async () => {
  mkdirSync(join(scratch.path, 'folder'));
  writeFileSync(join(scratch.path, 'file'), 'four');
  utimesSync(join(scratch.path, 'file'), 12, 12.5);
  symlinkSync('folder', join(scratch.path, 'link'));
  symlinkSync('nowhere', join(scratch.path, 'dangling'));
  const page = await browse(scratch.path);
  if ('fault' in page) throw new Error(page.fault.detail);
  expect(page.entries.map(({ name, kind, size }) => [String(name), kind, size])).toEqual([
    ['dangling', 'symlink', 0],
    ['file', 'file', 4],
    ['folder', 'directory', 0],
    ['link', 'symlink', 0],
  ]);
  expect(page.entries[1]!.mtime).toBe(12_500);
});

test('where to begin: roots and homes, as whole paths', async () => {
  const page = await browse(null);
  if ('fault' in page) throw new Error(page.fault.detail);
  expect(page.entries.map(({ name }) => String(name))).toContain('/');
  expect(String(page.path)).toBe('/');
});

describe('what cannot be looked into is said', () => {
  test.each([
    ['there is nothing', '/nowhere', 'not_found'],
    ['it is a file', '/file', 'not_folder'],
    ['it lies in a file', '/file/x', 'not_folder'],
  ])('%s', async (_, path, code) => {
    writeFileSync(join(scratch.path, 'file'), '');
    expect(await browse(scratch.path + path)).toMatchObject({ fault: { code } });
  });

  test('it may not be read; nor be written to, which is told before anybody tries', () => {
    mkdirSync(join(scratch.path, 'closed'), { mode: 0o300 });
    mkdirSync(join(scratch.path, 'read'));
    mkdirSync(join(scratch.path, 'write'));
    chmodSync(join(scratch.path, 'write'), 0o777);
    chmodSync(scratch.path, 0o755);
    // Root may do all of it: it becomes somebody else, who need not be able to read this checkout.
    const isRoot = process.geteuid!() === 0;
    const script = `
      import { browseFolder } from ${JSON.stringify(new URL('./browse-folder.ts', import.meta.url).href)};
      if (${isRoot}) {
        process.setgroups([]);
        process.setgid(65534);
        process.setuid(65534);
      }
      const here = { platform: 'linux', homes: [] };
      const ask = (path) => browseFolder({ path: Buffer.from(path), after: null, limit: 9 }, here);
      const { entries } = await ask(process.argv[1]);
      const { fault } = await ask(process.argv[1] + '/closed');
      console.log(JSON.stringify([fault.code, entries.map(({ name, readOnly }) => String(name) + (readOnly ? ' no' : ''))]));`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script, scratch.path], {
      encoding: 'utf8',
    });
    const no = isRoot ? ' no' : ''; // else they are the agent's own
    const expected = ['not_allowed', [`closed${no}`, `read${no}`, 'write']];
    expect({ told: stdout && JSON.parse(stdout), stderr: stdout ? '' : stderr }).toEqual({
      told: expected,
      stderr: '',
    });
  });

  test('a path of another system', async () => {
    const answer = await browseFolder(
      { path: Buffer.from('/home'), after: null, limit: 1 },
      { ...here, platform: 'win32' },
    );
    expect(answer).toMatchObject({ fault: { code: 'not_found' } });
  });
});

test('nobody waits any more: it goes no further', async () => {
  const asked = { path: Buffer.from(scratch.path), after: null, limit: 9 };
  writeFileSync(join(scratch.path, 'f'), '');
  expect(await browseFolder(asked, here, AbortSignal.abort(new Error('too late')))).toMatchObject({
    fault: { code: 'failed' },
  });
});

describe('a disk that does not answer keeps one or two of the threads for files', () => {
  const never = new Promise<never>(() => undefined);
  const entry = (name: number) => ({ name: Buffer.of(name), kind: 'file', size: 0, mtime: 0 }) as const;

  test('of the names in a folder', async () => {
    const looked: number[] = [];
    void lookAtAll([1, 2, 3, 4, 5], async (name) => {
      looked.push(name);
      return name === 2 ? never : entry(name);
    });
    await new Promise(setImmediate);
    expect(looked).toEqual([1, 2]);
  });

  test('of drives', async () => {
    const asked: string[] = [];
    void drives((drive) => {
      asked.push(drive);
      return drive === 'B:\\' ? never : Promise.resolve(true);
    });
    await new Promise(setImmediate);
    expect(asked).toEqual(['A:\\', 'B:\\']);
    expect(await drives(async (drive) => 'CZ'.includes(drive[0]!))).toEqual(['C:\\', 'Z:\\']);
  });

  test('those that answer are all told, in order, but for what went away', async () => {
    const entries = await lookAtAll([1, 2, 3, 4, 5], async (name) => (name === 3 ? null : entry(name)));
    expect(entries.map(({ name }) => name[0])).toEqual([1, 2, 4, 5]);
  });
});

test('of very many names in any order the first are found, and no more are kept than a page needs', () => {
  const random = seededNumbers(7);
  const page = new FirstNames(Buffer.from('5'), 100);
  const all = new Set<string>();
  for (let i = 0; i < 200_000; i++) all.add(String(random()));
  for (const name of all) page.add({ name: Buffer.from(name), localPath: '' });
  const expected = [...all]
    .filter((name) => name > '5')
    .sort()
    .slice(0, 100);
  expect(page.kept).toBeLessThanOrEqual(202);
  expect(page.end().found.map(({ name }) => String(name))).toEqual(expected);
});
