/** The recount of what plain archives keep beside their versions, beside whoever ends one, and after a count that was too low. */
import { randomBytes } from 'node:crypto';
import { expect, test } from '@jest/globals';
import { untrueNotes } from '../../../tests/helpers/consistency.ts';
import { storageForFile } from '../../../tests/helpers/storage.ts';
import { endArchiveRows } from '../../catalog/deleting/ending.ts';
import { readHiddenBytes } from '../../catalog/usage.ts';
import { lockArchive } from '../../catalog/writing/commits.ts';
import { recount } from '../checking/recount.ts';
import { hideFile } from './hide-file.ts';
import { undoWorld } from './undo.testing.ts';

const storage = storageForFile();
const { repository, put } = undoWorld(storage);

test('an archive that is ended between counting and correcting gets no figures', async () => {
  const ref = await repository();
  await storage.rows(
    `INSERT INTO plain_figures (vault_id, archive_id, folder, files, bytes, hidden_files, hidden_bytes) VALUES ($1, $2, 'data', 5, 0, 0, 0)`,
    [ref.vault, ref.archive],
  );
  let isOver = false;
  let counting: ReturnType<typeof recount> | null = null;
  await storage.database.transaction(async (tx) => {
    await lockArchive(tx, ref);
    counting = recount(storage, ref.vault).finally(() => {
      isOver = true;
    });
    counting.catch(() => {});
    const waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for (let looks = 0; looks < 500 && (await storage.rows(waiting)).length === 0; looks++)
      await storage.rows('SELECT pg_sleep(0.01)');
    expect(isOver).toBe(false);
    expect(await endArchiveRows(tx, ref)).toBe('gone');
  });
  expect(await counting).toMatchObject({ figures: 1 });
  expect(await storage.rows('SELECT * FROM plain_figures WHERE vault_id = $1', [ref.vault])).toEqual([]);
  expect(await recount(storage, ref.vault)).toMatchObject({ figures: 0 });
});

test('a block whose count was too low is charged again: something there may name it', async () => {
  const ref = await repository();
  const other = await repository(ref.vault);
  const bytes = randomBytes(100);
  await hideFile(storage, ref, await put(ref, 'data', bytes));
  await put(other, 'data', bytes);
  // As if the second name had not been counted.
  await storage.rows('UPDATE blocks SET refs = refs - 1 WHERE vault_id = $1', [ref.vault]);
  await storage.rows('INSERT INTO hidden_blocks SELECT vault_id, hash, byte_length FROM blocks WHERE vault_id = $1', [
    ref.vault,
  ]);
  await storage.rows('INSERT INTO usage_deltas (vault_id, hidden_bytes) VALUES ($1, 100)', [ref.vault]);
  expect(await readHiddenBytes(storage.database, [ref.vault])).toBe(100);
  expect(await storage.rows(untrueNotes, [ref.vault])).toHaveLength(1);
  expect(await recount(storage, ref.vault)).toMatchObject({ raised: 1, figures: 0 });
  expect(await storage.rows('SELECT 1 FROM hidden_blocks WHERE vault_id = $1', [ref.vault])).toEqual([]);
  expect(await readHiddenBytes(storage.database, [ref.vault])).toBe(0);
  expect(await recount(storage, ref.vault)).toMatchObject({ raised: 0, figures: 0 });
  expect(await storage.rows(untrueNotes, [ref.vault])).toEqual([]);
});
