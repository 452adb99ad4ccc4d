/** For tests of undoing: repositories of their own, files in them, and moments between their changes. */
import { randomBytes } from 'node:crypto';
import { expect } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import { untrueNotes } from '../../../tests/helpers/consistency.ts';
import type { TestStorage } from '../../../tests/helpers/storage.ts';
import { readPlainFigures } from '../../catalog/plain-figures.ts';
import { createArchive, createVault } from '../../catalog/vaults.ts';
import { findPlainFile, type PlainName } from '../../catalog/writing/plain-files.ts';
import type { ArchiveRef } from '../../storage.ts';
import { recount } from '../checking/recount.ts';
import { listFolder } from './list-folder.ts';
import { putFile } from './put-file.ts';
import { beginUndo, setBackStep, type UndoPlace, type UndoStep, undoBounds } from './undo.ts';

const folders = ['data', 'index', 'keys', 'snapshots', 'locks'];
let users = 900_000;

export const sum = (counted: UndoStep['shown']): Record<string, number> =>
  Object.fromEntries([...counted].map(([folder, { files }]) => [folder, files]));

export const namesOf = (files: readonly PlainName[]): string[] =>
  files.map(({ folder, name }) => (folder === '' ? name : `${folder}/${name}`)).sort();

/** Steps so small that there are many. */
export async function withBounds(bounds: Partial<typeof undoBounds>, work: () => Promise<void>): Promise<void> {
  const usual = { ...undoBounds };
  Object.assign(undoBounds, bounds);
  await work().finally(() => Object.assign(undoBounds, usual));
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

export function undoWorld(storage: TestStorage) {
  async function repository(vault?: number): Promise<ArchiveRef> {
    return storage.database.transaction(async (tx) => {
      const user = ++users;
      const in_ = vault ?? (await createVault(tx, { userId: user }))!;
      return { vault: in_, archive: await createArchive(tx, { vault: in_, deviceId: user, kind: 'plain' }) };
    });
  }

  async function put(ref: ArchiveRef, folder: string, bytes: Buffer = randomBytes(100)): Promise<PlainName> {
    const digest = sha256(bytes);
    const file = { folder, name: digest.toString('hex') };
    await putFile(storage, ref, { file, digest, length: bytes.byteLength }, once(bytes));
    return file;
  }

  /** A moment that nothing of the archive was committed in, with something before and behind it. */
  async function moment(): Promise<Date> {
    const pause = (): Promise<unknown> => storage.rows('SELECT pg_sleep(0.003)');
    await pause();
    const [row] = await storage.rows<{ at: Date }>("SELECT date_trunc('milliseconds', clock_timestamp()) AS at");
    await pause();
    return row!.at;
  }

  const begin = async (ref: ArchiveRef, at: Date): Promise<UndoPlace> =>
    (await storage.database.transaction((tx) => beginUndo(tx, ref, at)))!;

  async function setBack(ref: ArchiveRef, at: Date, onStep?: (step: UndoStep) => Promise<void>): Promise<UndoStep[]> {
    const steps: UndoStep[] = [];
    let place: UndoPlace | null = await begin(ref, at);
    while (place) {
      const from: UndoPlace = place;
      const step = await storage.database.transaction((tx) => setBackStep(tx, ref, from, { dryRun: false }));
      steps.push(step);
      place = step.next;
      await onStep?.(step);
    }
    return steps;
  }

  async function there(ref: ArchiveRef): Promise<string[]> {
    const names: string[] = [];
    for (const folder of folders)
      for await (const page of listFolder(storage, ref, folder))
        names.push(...page.map(({ name }) => `${folder}/${name}`));
    if (await findPlainFile(storage.database, ref, { folder: '', name: 'config' })) names.push('config');
    return names.sort();
  }

  /** Figures as they are kept; a recount says whether they are true, and so are the notes of what is hidden. */
  async function figures(ref: ArchiveRef) {
    expect(await storage.rows(untrueNotes, [ref.vault])).toEqual([]);
    expect(await recount(storage, ref.vault)).toMatchObject({ tooLow: 0, tooHigh: 0, absent: 0, figures: 0 });
    const found = (await readPlainFigures(storage.database, [ref])).get(`${ref.vault}/${ref.archive}`) ?? [];
    const all = found.map(({ folder, files, bytes, hiddenFiles, hiddenBytes }) => [
      folder,
      [files, bytes, hiddenFiles, hiddenBytes],
    ]);
    return Object.fromEntries(all);
  }

  return { repository, put, moment, begin, setBack, there, figures };
}
