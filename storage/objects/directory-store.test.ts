/**
 * The directory store on a real disk: the contract, what it leaves on the disk, and what a crash leaves.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rename, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { seededRandom } from '../../tests/helpers/random.ts';
import { openDirectoryStore } from './directory-store.ts';
import { ObjectNotFound } from './object-store.ts';
import { listAll, readAll, storeContract } from './store-contract.ts';

let scratch: string;
let path: string;

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'holdfast-objects-'));
  path = join(scratch, 'store');
});

afterEach(() => rm(scratch, { recursive: true, force: true }));

const body = (text: string) => ({ length: text.length, chunks: [Buffer.from(text)] });

/** Every path below a folder, relative to it. */
const tree = async (folder: string) => (await readdir(folder, { recursive: true })).sort();

describe('the directory store keeps the contract:', () => {
  for (const check of storeContract) {
    test(check.name, async () => {
      const store = await openDirectoryStore({ path, create: true });
      await check.run({ store, prefix: 'here/', abandonedReads: 20 });
      expect(await readdir(join(path, 'temp'))).toEqual([]);
    });
  }
});

test('what was put is there for the next process, for its owner only', async () => {
  await (await openDirectoryStore({ path, create: true })).put('c1/blocks/7/abcdef.1', body('kept'));
  const reopened = await openDirectoryStore({ path, create: true });
  expect((await readAll(reopened, 'c1/blocks/7/abcdef.1')).toString()).toBe('kept');
  expect(await tree(path)).toEqual([
    'layout',
    'objects',
    'objects/c1',
    'objects/c1/blocks',
    'objects/c1/blocks/7',
    'objects/c1/blocks/7/+ab',
    'objects/c1/blocks/7/+ab/abcdef.1',
    'temp',
  ]);
  expect((await stat(join(path, 'objects/c1/blocks/7/+ab/abcdef.1'))).mode & 0o777).toBe(0o600);
  expect((await stat(join(path, 'objects/c1'))).mode & 0o777).toBe(0o700);
  expect((await stat(path)).mode & 0o777).toBe(0o700);
});

test('a newer layout is refused, and so is a folder that holds something else', async () => {
  await openDirectoryStore({ path, create: true });
  await writeFile(join(path, 'layout'), 'holdfast objects 2\n');
  await expect(openDirectoryStore({ path, create: true })).rejects.toThrow(/layout that this version does not know/);

  const home = join(scratch, 'home');
  await mkdir(home);
  await writeFile(join(home, 'letter.txt'), 'mine');
  await expect(openDirectoryStore({ path: home, create: true })).rejects.toThrow(/not an object store and not empty/);
  expect(await readdir(home)).toEqual(['letter.txt']);
});

const missing = { catalogId: 'c1', create: false };

test('an empty folder is not taken for the store of a catalog that has objects', async () => {
  await expect(openDirectoryStore({ path, ...missing })).rejects.toThrow(/object store is missing.*Mount its disk/);
  await mkdir(path);
  await expect(openDirectoryStore({ path, ...missing })).rejects.toThrow(/object store is missing.*Mount its disk/);
  expect(await readdir(path)).toEqual([]);

  const store = await openDirectoryStore({ path, catalogId: 'c1', create: true });
  await store.put('c1/key', body('kept'));
  expect((await readAll(await openDirectoryStore({ path, ...missing }), 'c1/key')).toString()).toBe('kept');
});

test("another catalog's store is refused by name, also by a new catalog", async () => {
  await openDirectoryStore({ path, catalogId: 'c1', create: true });
  for (const create of [true, false])
    await expect(openDirectoryStore({ path, catalogId: 'c2', create })).rejects.toThrow(/catalog c1.*catalog c2/);
  await openDirectoryStore({ path }); // whoever only looks
});

test('a store made without a catalog is taken by a new one, or by the one whose objects it holds', async () => {
  const store = await openDirectoryStore({ path, create: true });
  await expect(openDirectoryStore({ path, ...missing })).rejects.toThrow(/object store is missing/);
  await store.put('c1/key', body('kept'));
  await openDirectoryStore({ path, ...missing });
  await expect(openDirectoryStore({ path, catalogId: 'c2', create: true })).rejects.toThrow(/catalog c1/);

  const other = join(scratch, 'other');
  await openDirectoryStore({ path: other, create: true });
  await openDirectoryStore({ path: other, catalogId: 'c2', create: true });
  await openDirectoryStore({ path: other, catalogId: 'c2', create: false });
});

test('when the disk is gone under a running store, nothing is missing, stored, deleted or listed: the store is gone', async () => {
  const store = await openDirectoryStore({ path, create: true });
  await store.put('a/key', body('kept'));
  await rename(path, join(scratch, 'unmounted'));
  // What may lie under a mount point.
  await mkdir(join(path, 'temp'), { recursive: true });
  await mkdir(join(path, 'objects'));
  const gone = { name: 'ObjectStoreFault', code: 'StoreGone', retryable: false };
  await expect(store.get('a/key')).rejects.toMatchObject(gone);
  await expect(store.head('a/key')).rejects.toMatchObject(gone);
  await expect(store.put('a/other', body('lost'))).rejects.toMatchObject(gone);
  await expect(store.delete('a/key')).rejects.toMatchObject(gone);
  await expect(store.list('', { limit: 10 })).rejects.toMatchObject(gone);
  await expect(store.check()).rejects.toMatchObject(gone);
  expect(await tree(path)).toEqual(['objects', 'temp']);
  await rm(path, { recursive: true });
  await rename(join(scratch, 'unmounted'), path);
  expect((await readAll(store, 'a/key')).toString()).toBe('kept');
});

test('old leftovers in temp are swept on opening, young ones may belong to another process', async () => {
  await openDirectoryStore({ path, create: true });
  const [old, young] = [join(path, 'temp', 'old'), join(path, 'temp', 'young')];
  await writeFile(old, 'x');
  await writeFile(young, 'x');
  await utimes(old, new Date(), new Date(Date.now() - 25 * 60 * 60 * 1_000));
  await openDirectoryStore({ path, create: true });
  expect(await readdir(join(path, 'temp'))).toEqual(['young']);
});

test('a link below the root is not followed, neither as a folder nor as a file', async () => {
  const store = await openDirectoryStore({ path, create: true });
  const outside = join(scratch, 'outside');
  await mkdir(join(outside, '+se'), { recursive: true });
  await writeFile(join(outside, '+se', 'secret'), 'not ours');
  await symlink(outside, join(path, 'objects', 'link'));
  await expect(store.get('link/secret')).rejects.toThrow(/is not a folder/);
  await expect(store.put('link/planted', body('x'))).rejects.toThrow(/is not a folder/);
  await expect(store.delete('link/secret')).rejects.toThrow(/is not a folder/);
  await store.put('real/other', body('x'));
  await symlink(join(outside, '+se', 'secret'), join(path, 'objects', 'real', '+ot', 'others'));
  await expect(store.get('real/others')).rejects.toThrow(/ELOOP/);
  expect(await store.head('real/others')).toBe(null);
  expect(await listAll(store, '', 10)).toEqual(['real/other']);
  expect(await tree(outside)).toEqual(['+se', '+se/secret']);
});

test('the root itself may be a link', async () => {
  await mkdir(join(scratch, 'disk'));
  await symlink(join(scratch, 'disk'), path);
  const store = await openDirectoryStore({ path, create: true });
  await store.put('key', body('kept'));
  expect((await readAll(store, 'key')).toString()).toBe('kept');
});

test('check needs the disk to take a write; inspect tells the room', async () => {
  const store = await openDirectoryStore({ path, create: true });
  await store.check();
  expect((await store.inspect()).freeBytes).toBeGreaterThan(0);
  await rm(join(path, 'temp'), { recursive: true });
  await expect(store.check()).rejects.toThrow(/ENOENT/);
});

test('folders removed under a running store are made again', async () => {
  const store = await openDirectoryStore({ path, create: true });
  await store.put('a/b/c', body('one'));
  await rm(join(path, 'objects', 'a'), { recursive: true });
  await expect(store.get('a/b/c')).rejects.toThrow(ObjectNotFound);
  await expect(store.put('a/b/c', body('two'))).rejects.toThrow(/ENOENT/);
  await store.put('a/b/c', body('two'));
  expect((await readAll(store, 'a/b/c')).toString()).toBe('two');
});

const child = join(import.meta.dirname, 'directory-store.child.ts');

test('a disk that takes no more leaves nothing readable', async () => {
  // The shell's limit on a file's size (in units of 512 or 1,024 bytes) stands for a full disk: the write fails half-way.
  const script = `ulimit -f 512; exec "$0" --disable-warning=ExperimentalWarning "$@"`;
  const output = execFileSync('sh', ['-c', script, process.execPath, child, 'fill', path], { encoding: 'utf8' });
  expect(output).toMatch(/^ObjectStoreFault EFBIG/);
  const store = await openDirectoryStore({ path, create: true });
  expect(await listAll(store, '', 10)).toEqual(['small']);
  expect(await readdir(join(path, 'temp'))).toEqual([]);
});

test('a process killed in the middle of puts leaves every acknowledged object whole, and no other half', async () => {
  const seed = Number(process.env.HOLDFAST_TEST_SEED ?? 20_251);
  const random = seededRandom(seed).next;
  let acknowledged = 0;
  let leftovers = 0;
  for (let round = 0; round < 8; round++) {
    const putter = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', child, 'put', path, `${round}`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    putter.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    await once(putter.stdout, 'data');
    // Half the rounds die during their first puts, half only after a first one was acknowledged, however slow the disk.
    while (round % 2 && output.split('\n').length < 3) await delay(5);
    await delay(random() * 120);
    const closed = once(putter, 'close');
    putter.kill('SIGKILL');
    await closed;

    const store = await openDirectoryStore({ path, create: true });
    const keys = new Set(await listAll(store, `${round}/`, 100));
    // The last line may be half a line.
    for (const key of output.split('\n').slice(1, -1)) {
      expect({ seed, round, key, listed: keys.has(key) }).toEqual({ seed, round, key, listed: true });
      acknowledged++;
    }
    for (const key of keys) {
      const bytes = await readAll(store, key);
      const fill = bytes[0];
      expect({ seed, key, whole: bytes.equals(Buffer.alloc(Number(key.split('.')[1]), fill)) }).toMatchObject({
        whole: true,
      });
    }
    leftovers += (await readdir(join(path, 'temp'))).length;
  }
  // Otherwise nothing was under way when the process died, and the test has shown nothing.
  expect(acknowledged).toBeGreaterThan(0);
  expect(leftovers).toBeGreaterThan(0);
  await openDirectoryStore({ path, create: true, tempAgeMaxMs: -1_000 });
  expect(await readdir(join(path, 'temp'))).toEqual([]);
});
