/** The commands for operators, as operators run them: against a database and a folder, in a process of their own. */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { openFence } from '../../storage/archive/checking/fence.ts';
import { contestedKey } from '../../storage/archive/checking/fence-object.ts';
import { checkCatalog } from '../../storage/catalog/migrate.ts';
import { openObjectStore } from '../../storage/objects/open-store.ts';
import { newArchive, type TestStorage, testStorage, upload } from '../../tests/helpers/storage.ts';

const main = fileURLToPath(new URL('../main.ts', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'holdfast-commands-'));
const objectsFolder = join(scratch, 'objects');
let storage: TestStorage;

beforeAll(async () => {
  const objects = await openObjectStore({ kind: 'directory', path: objectsFolder }, { create: true });
  storage = await testStorage({ objects });
});
afterAll(async () => {
  await storage?.close();
  rmSync(scratch, { recursive: true, force: true });
});

function holdfast(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const env = {
    PATH: process.env.PATH,
    HOLDFAST_DATABASE_URL: storage.connectionString,
    HOLDFAST_OBJECTS_FOLDER: objectsFolder,
  };
  const { promise, resolve } = Promise.withResolvers<{ code: number; out: string; err: string }>();
  execFile(process.execPath, [main, ...args], { env, timeout: 50_000 }, (error, out, err) =>
    resolve({ code: error ? Number(error.code ?? -1) : 0, out, err }),
  );
  return promise;
}

const run = (text: string): Promise<Record<string, unknown>[]> => storage.database.query({ name: '', text });

test('adopt explains itself, wants to be told which case it is, and refuses while a worker beats', async () => {
  const help = await holdfast('adopt', '--help');
  expect(help.code).toBe(0);
  for (const word of ['--take-over', '--own-prefix', '--dry-run', '--json', '--force'])
    expect(help.out).toContain(word);
  for (const args of [[], ['--take-over', '--own-prefix'], ['--sideways'], ['--take-over', 'now']]) {
    const { code, out } = await holdfast('adopt', ...args);
    expect([args, code, out.includes('usage:')]).toEqual([args, 2, true]);
  }
  await openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 3 }).beat();
  const refused = await holdfast('adopt', '--take-over');
  expect(refused).toMatchObject({ code: 1, err: expect.stringContaining('stop all its processes') });
  expect(await holdfast('adopt', '--own-prefix', '--force')).toMatchObject({
    code: 1,
    err: expect.stringContaining('a folder belongs to one catalog'),
  });
});

test('adopt --take-over ends a contest, and tells what it did', async () => {
  const { vault } = await newArchive(storage);
  await upload(storage, vault, [Buffer.from('one'), Buffer.from('two')]);
  await upload(storage, vault, [Buffer.from('three')]);
  await run('DELETE FROM blocks WHERE byte_length = 3');
  await run('DELETE FROM objects o WHERE NOT EXISTS (SELECT 1 FROM blocks b WHERE b.object_id = o.object_id)');
  await run("UPDATE fence SET nonce = 'restored', previous = 'older', renewed_at = now() - interval '1 day'");
  const fence = openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 1 });
  expect(await fence.beat()).toMatchObject({ reason: 'foreign_nonce' });

  const dry = await holdfast('adopt', '--take-over', '--dry-run', '--json');
  expect([dry.code, dry.err]).toEqual([0, '']);
  expect(JSON.parse(dry.out)).toMatchObject({ dryRun: true, listed: 2, adopted: 1, adoptedBlocks: 0, missing: 0 });
  expect(await storage.objects.head(contestedKey(storage.catalogId))).not.toBeNull();

  const done = await holdfast('adopt', '--take-over');
  expect([done.code, done.err]).toEqual([0, '']);
  expect(done.out).toContain('1 of them had no row: entered, with 2 blocks');
  expect(await storage.objects.head(contestedKey(storage.catalogId))).toBeNull();
  expect(await fence.beat()).toMatchObject({ held: true });
  expect((await checkCatalog(storage.database)).catalogId).toBe(storage.catalogId);
  expect(readdirSync(objectsFolder)).toContain('layout');
});

test('verify reads everything once and says how much; recount says that all is right, or mends it', async () => {
  const read = await holdfast('verify', '--json');
  expect([read.code, read.err]).toEqual([0, '']);
  expect(JSON.parse(read.out)).toMatchObject({
    objects: 2,
    damagedBlocks: 0,
    coverage: { objects: 2, neverVerified: 0 },
  });
  expect(await holdfast('verify', '--older-than-hours', '1')).toMatchObject({
    code: 0,
    out: expect.stringContaining('read 0 objects'),
  });
  expect(await holdfast('verify', '--rate', 'fast')).toMatchObject({ code: 2 });

  expect(await holdfast('recount')).toMatchObject({ code: 0, out: expect.stringContaining('every count is right') });
  await run('UPDATE blocks SET refs = 1');
  expect(await holdfast('recount')).toMatchObject({ code: 1, out: expect.stringContaining('3 too high') });
  expect(await holdfast('recount', '--lower')).toMatchObject({ code: 1, out: expect.stringContaining('3 lowered') });
  expect(await holdfast('recount', '--json')).toMatchObject({ code: 0 });
});
