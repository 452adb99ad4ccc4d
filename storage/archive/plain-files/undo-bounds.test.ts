/** What undoing leaves alone: what others committed since it began, and more than a step may do. */
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import { storageForFile, upload } from '../../../tests/helpers/storage.ts';
import type { ArchiveRef } from '../../storage.ts';
import { commitPlain, type PlainName } from './commit-plain.ts';
import { hideFile } from './hide-file.ts';
import { namesOf, sum, undoWorld } from './undo.testing.ts';
import { setBackStep, type UndoPlace, type UndoStep, undoDeletesOf, undoDeletesStep } from './undo.ts';

const storage = storageForFile({ settings: { expiryVersionsMin: 1_000_000 } });
const { repository, put, moment, begin, there } = undoWorld(storage);

const back = (ref: ArchiveRef, place: UndoPlace): Promise<UndoStep> =>
  storage.database.transaction((tx) => setBackStep(tx, ref, place, { dryRun: false }));
const undelete = (ref: ArchiveRef, place: UndoPlace): Promise<UndoStep> =>
  storage.database.transaction((tx) => undoDeletesStep(tx, ref, place));

describe('what somebody committed after the first step began stays as they left it', () => {
  test('a file that came, went, and came again since is not hidden', async () => {
    const ref = await repository();
    const at = await moment();
    const bytes = randomBytes(100);
    await hideFile(storage, ref, await put(ref, 'data', bytes));
    const place = await begin(ref, at);
    const again = await put(ref, 'data', bytes);
    expect(sum((await back(ref, place)).hidden)).toEqual({});
    expect(await there(ref)).toEqual(namesOf([again]));
  });

  test('a file that was deleted since is not shown, by either', async () => {
    const ref = await repository();
    const bytes = randomBytes(100);
    const at = await moment();
    const file = await put(ref, 'data', bytes);
    const between = await moment();
    await hideFile(storage, ref, file);
    await put(ref, 'data', bytes);
    const [toUndelete, toSetBack] = [await begin(ref, at), await begin(ref, between)];
    await hideFile(storage, ref, file);
    expect(sum((await undelete(ref, toUndelete)).shown)).toEqual({});
    expect(sum((await back(ref, toSetBack)).shown)).toEqual({});
    expect(await there(ref)).toEqual([]);
  });

  test('nor is it counted when it is only tried', async () => {
    const ref = await repository();
    const at = await moment();
    const bytes = randomBytes(100);
    await hideFile(storage, ref, await put(ref, 'data', bytes));
    const place = await begin(ref, at);
    await put(ref, 'data', bytes);
    expect(sum((await setBackStep(storage.database, ref, place, { dryRun: true })).hidden)).toEqual({});
  });
});

test('a place of a phase that the step has not is refused, and changes nothing', async () => {
  const ref = await repository();
  const at = await moment();
  const [lock, file] = [await put(ref, 'locks'), await put(ref, 'data')];
  const place = await begin(ref, at);
  for (const phase of ['hide', 'locks'] as const) await expect(undelete(ref, { ...place, phase })).rejects.toThrow();
  expect(await there(ref)).toEqual(namesOf([lock, file]));
});

test('deletes of named files are undone up to as many blocks as a commit names, and beyond them none', async () => {
  const ref = await repository();
  const blocks = Array.from({ length: 1_024 }, (_, i) => Buffer.from(`block ${i}`));
  await upload(storage, ref.vault, blocks);
  const hashes = Buffer.concat(blocks.map(sha256));
  const files: PlainName[] = [];
  const size = Buffer.concat(blocks).byteLength;
  for (let i = 0; i < limits.commitHashesMax / 1_024; i++)
    files.push({ folder: 'data', name: sha256(Buffer.from(`file ${i}`)).toString('hex') });
  const all = { size, blocks: hashes };
  for (const file of files) {
    await storage.database.transaction((tx) => commitPlain(tx, ref, [{ file, content: all }]));
    await hideFile(storage, ref, file);
  }
  const one = await put(ref, 'data');
  await hideFile(storage, ref, one);
  const undo = (names: PlainName[]) => storage.database.transaction((tx) => undoDeletesOf(tx, ref, names));
  await expect(undo([...files, one])).rejects.toMatchObject({ code: 'out_of_bounds', extras: { field: 'names' } });
  expect(await there(ref)).toEqual([]);
  expect(sum((await undo(files)).shown)).toEqual({ data: files.length });
  expect(sum((await undo([...files, one])).shown)).toEqual({ data: 1 });
});
