import { expect, test } from '@jest/globals';
import { commit, newArchive, newRun, storageForFile, upload, version } from '../../../tests/helpers/storage.ts';
import { readVaultUsage } from '../../catalog/usage.ts';
import { streamVersions } from '../reading/read-tree.ts';
import { foldUsage, forgetDeleteDays, forgetLapsedLeases, trimCommits } from './housekeeping.ts';

const storage = storageForFile();

test('old commits are forgotten, but never the newest of an archive', async () => {
  const refs = [await newArchive(storage), await newArchive(storage)];
  for (const ref of refs) {
    const run = await newRun(storage, ref);
    for (const path of ['/a', '/b', '/c']) await commit(storage, ref, run, [version(path)]);
    await storage.rows(`UPDATE commits SET committed_at = committed_at - interval '31 days' WHERE vault_id = $1`, [
      ref.vault,
    ]);
  }
  const [first, second] = refs as [(typeof refs)[0], (typeof refs)[0]];
  await commit(storage, second, await newRun(storage, second), [version('/d')]);
  expect(await trimCommits(storage, { keepMs: 30 * 86_400_000 })).toEqual({ commits: 5 });
  const left = await storage.rows('SELECT vault_id AS vault, first_seq AS seq FROM commits ORDER BY 1');
  expect(left).toEqual([
    { vault: first.vault, seq: 3 },
    { vault: second.vault, seq: 4 },
  ]);
  expect(await trimCommits(storage, { keepMs: 30 * 86_400_000 })).toEqual({ commits: 0 });
});

test('days of deletes are forgotten after 400, and no sooner', async () => {
  const { vault, archive } = await newArchive(storage);
  await storage.rows(
    `INSERT INTO plain_deletes SELECT $1, $2, (now() AT TIME ZONE 'UTC')::date - days, 1, 1 FROM unnest('{0,400,401,500}'::int[]) AS x (days)`,
    [vault, archive],
  );
  expect(await forgetDeleteDays(storage)).toEqual({ days: 2 });
  expect(await forgetDeleteDays(storage)).toEqual({ days: 0 });
  expect(await storage.rows('SELECT 1 FROM plain_deletes WHERE vault_id = $1', [vault])).toHaveLength(2);
});

test('usage is the same folded and unfolded, also when two fold at once', async () => {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  const blocks = Array.from({ length: 20 }, (_, i) => Buffer.alloc(100 + i, `${i}`));
  for (const [i, block] of blocks.entries()) {
    await upload(storage, ref.vault, [block]);
    await commit(storage, ref, run, [version(`/file ${i}`, [block])]);
  }
  const before = await readVaultUsage(storage.database, ref.vault);
  const bytes = blocks.reduce((sum, block) => sum + block.byteLength, 0);
  expect(before).toMatchObject({ logicalBytes: bytes, storedBytes: bytes, referencedBytes: bytes, versions: 20 });
  await Promise.all([foldUsage(storage), foldUsage(storage), foldUsage(storage)]);
  expect(await storage.rows('SELECT 1 FROM usage_deltas WHERE vault_id = $1', [ref.vault])).toEqual([]);
  expect(await readVaultUsage(storage.database, ref.vault)).toEqual(before);
});

test('leases that have ended are forgotten, others are not', async () => {
  const ref = await newArchive(storage);
  await commit(storage, ref, await newRun(storage, ref), [version('/a')]);
  const read = () =>
    Array.fromAsync(
      streamVersions(storage, ref, { path: Buffer.from('/'), at: null, seq: null, after: null, deleted: false }),
    );
  await read();
  expect(await forgetLapsedLeases(storage)).toEqual({ leases: 0 });
  await storage.rows(`UPDATE restores SET lease_until = now() - interval '1 ms' WHERE vault_id = $1`, [ref.vault]);
  expect(await forgetLapsedLeases(storage)).toEqual({ leases: 1 });
});
