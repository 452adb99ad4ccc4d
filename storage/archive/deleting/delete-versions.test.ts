import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { commit, newArchive, newRun, type TestStorage, testStorage, version } from '../../../tests/helpers/storage.ts';
import type { Transaction } from '../../catalog/database.ts';
import type { ArchiveRef } from '../../storage.ts';
import { type Fence, openFence } from '../checking/fence.ts';
import { onlyPolicy } from '../retention/policies.ts';
import { type PruneDeps, pruneArchive } from '../retention/prune.ts';
import { defaultRetention } from '../retention/retention.ts';

let storage: TestStorage;
let fence: Fence;
let ref: ArchiveRef;

const run = (text: string, values: unknown[] = [], on: Transaction = storage.database): Promise<unknown[]> =>
  on.query({ name: '', text }, values);
const ageFence = (): Promise<unknown> => run("UPDATE fence SET renewed_at = renewed_at - interval '50 s'");
const versions = async (): Promise<number> => (await run('SELECT 1 FROM versions')).length;

/** An archive of which one version is to go, and a catalog that has renewed its fence twice. */
beforeEach(async () => {
  storage = await testStorage();
  fence = openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 2 });
  await fence.beat();
  ref = await newArchive(storage);
  const runOf = await newRun(storage, ref);
  for (let i = 0; i < 2; i++) await commit(storage, ref, runOf, [version('/file')]);
  await run("UPDATE versions SET committed_at = committed_at - interval '30 days'");
  await run('CREATE TABLE fence_of_older AS TABLE fence');
  await ageFence();
  await fence.beat();
});
afterEach(() => storage.close());

/**
 * Prune as a worker does it.
 * @param beforeBatch after the fence was asked for a batch, and before its transaction
 * @param inBatch inside that transaction, when everything is locked
 */
function deps(
  beforeBatch: () => Promise<unknown>,
  inBatch: (tx: Transaction) => Promise<unknown> = async () => {},
): PruneDeps {
  let looks = 0;
  let inTransactions = 0;
  return {
    readPolicies: async (tx) => {
      // Once for the digest, once to count what would go; then in the batch.
      if (++inTransactions === 3) await inBatch(tx);
      return onlyPolicy(defaultRetention);
    },
    assertMayDelete: async () => {
      await fence.assertHeld();
      if (++looks === 2) await beforeBatch();
    },
    assertStillHeld: (read) => fence.assertStillHeld(read),
  };
}

describe('a database that fails over onto an older state of the catalog, which has lost a hold', () => {
  const placeHold = (): Promise<unknown> => run("INSERT INTO holds (vault_id, policy) VALUES ($1, '{}')", [ref.vault]);
  const failOver = async (): Promise<void> => {
    await run('DELETE FROM holds');
    await run(
      'UPDATE fence SET (nonce, previous, renewed_at) = (SELECT nonce, previous, renewed_at FROM fence_of_older)',
    );
  };

  test('between the look at the fence and the batch: the batch deletes nothing', async () => {
    const work = pruneArchive(
      storage,
      ref,
      deps(async () => {
        await placeHold();
        await failOver();
      }),
    );
    await expect(work).rejects.toMatchObject({ name: 'DeletingStopped', reason: 'foreign_nonce' });
    expect(await versions()).toBe(2);
  });

  test('in the middle of a batch: the transaction is repeated there, and deletes nothing', async () => {
    let losses = 0;
    const lose = async (tx: Transaction): Promise<void> => {
      const lost = await run('SELECT pg_terminate_backend(pg_backend_pid())', [], tx).then(
        () => null,
        (error: unknown) => error,
      );
      losses++;
      await failOver();
      throw lost;
    };
    const work = pruneArchive(
      storage,
      ref,
      deps(
        async () => {},
        async (tx) => lose(tx),
      ),
    );
    await expect(work).rejects.toMatchObject({ name: 'DeletingStopped', reason: 'foreign_nonce' });
    expect([losses, await versions()]).toEqual([1, 2]);
  });
});

test('a beat between the look and the batch, and one in the middle of it, neither stop it nor wait for it', async () => {
  const nonce = async (): Promise<unknown> => (await run('SELECT nonce FROM fence'))[0];
  const beats: unknown[] = [await nonce()];
  const beat = async (): Promise<void> => {
    await ageFence();
    expect(await fence.beat()).toMatchObject({ held: true });
    beats.push(await nonce());
  };
  expect(await pruneArchive(storage, ref, deps(beat, beat))).toMatchObject({ versions: 1, refused: null });
  expect(new Set(beats.map((each) => JSON.stringify(each))).size).toBe(3);
  expect(await versions()).toBe(1);
});
