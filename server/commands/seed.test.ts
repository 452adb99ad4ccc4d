/** A seeded catalog against the engine's own checks: a recount, a dry run of retention, and the verbs themselves. */
import { afterEach, expect, test } from '@jest/globals';
import { openFence } from '../../storage/archive/checking/fence.ts';
import { recount } from '../../storage/archive/checking/recount.ts';
import { verifyDue } from '../../storage/archive/checking/verify.ts';
import { compactDue } from '../../storage/archive/deleting/compact.ts';
import { reclaimDue, settleDue } from '../../storage/archive/deleting/reclaim.ts';
import { onlyPolicy, planDigest } from '../../storage/archive/retention/policies.ts';
import { type PruneDeps, planFiles, pruneDue } from '../../storage/archive/retention/prune.ts';
import { defaultRetention } from '../../storage/archive/retention/retention.ts';
import { vaultsAfter } from '../../storage/catalog/checking/checking.ts';
import { allArchives } from '../../storage/catalog/reading/histories.ts';
import { type Seeded, type SeedShape, seedCatalog } from '../../storage/catalog/seeding/seeding.ts';
import { readVaultUsage } from '../../storage/catalog/usage.ts';
import { type TestStorage, testStorage } from '../../tests/helpers/storage.ts';
import { objectMaker, readSeedArguments } from './seed.ts';

const open: TestStorage[] = [];
afterEach(async () => {
  for (const storage of open.splice(0)) await storage.close();
});

const shapeOf = (...args: string[]): SeedShape => readSeedArguments(args).shape;
const deps: PruneDeps = {
  readPolicies: async () => onlyPolicy(defaultRetention),
  assertMayDelete: async () => {},
  assertStillHeld: () => {},
};

async function seeded(
  args: string[],
  options: { withObjects?: boolean; storage?: TestStorage; force?: boolean } = {},
): Promise<{ storage: TestStorage; made: Seeded; shape: SeedShape }> {
  const settings = { claimWindowMs: 0, freedMarginMs: 0, expiryShareMax: 1 };
  const storage = options.storage ?? (await testStorage({ settings }));
  if (!options.storage) open.push(storage);
  const shape = shapeOf(...args);
  const made = await seedCatalog(storage.connectionString, {
    shape,
    retentionApplied: planDigest(onlyPolicy(defaultRetention), []),
    force: options.force ?? false,
    ...(options.withObjects && { storeObject: objectMaker(storage.objects, storage.catalogId, shape) }),
  });
  return { storage, made, shape };
}

async function rows<Row>(storage: TestStorage, text: string): Promise<Row[]> {
  return storage.database.query<Row>({ name: '', text }, []);
}

const noDrift = { tooLow: 0, tooHigh: 0, absent: 0, liveBytes: 0, figures: 0, raised: 0, lowered: 0 };

async function expectNoDrift(storage: TestStorage): Promise<void> {
  for (const vault of await vaultsAfter(storage.database, 0, 100))
    expect(await recount(storage, vault)).toEqual(noDrift);
  expect(await rows(storage, 'SELECT kind FROM alerts')).toEqual([]);
}

test('what is seeded is what a recount gives, before and after everything due was deleted', async () => {
  const args = ['--blocks', '3300', '--versions', '600', '--vaults', '2', '--expiring', '0.5', '--freed', '0.1'];
  const { storage, made } = await seeded([...args, '--block-bytes', '1000', '--objects-bytes', '90000']);
  expect(made).toMatchObject({ vaults: 2, files: 60, versions: 600, expiring: 150, blocks: 3300, freed: 360 });
  const counts = await rows<Record<string, number>>(
    storage,
    `SELECT (SELECT count(*) FROM blocks) AS blocks, (SELECT count(*) FROM versions) AS versions, (SELECT count(*) FROM freed) AS freed,
            (SELECT count(*) FROM objects) AS objects, (SELECT sum(version_count)::bigint FROM archives) AS counted`,
  );
  const { blocks, versions, freed, objects } = made;
  expect(counts).toEqual([{ blocks, versions, freed, objects, counted: versions }]);
  await expectNoDrift(storage);

  expect(await settleDue(storage)).toEqual({ objects: 0, freed: 0 });
  expect(await reclaimDue(storage)).toMatchObject({ blocks: 360, drifts: 0 });
  expect(await pruneDue(storage, deps)).toMatchObject({ archives: 2, files: 30, versions: 150, refused: 0 });
  await expectNoDrift(storage);
  expect((await reclaimDue(storage)).blocks).toBeGreaterThan(0);
  await expectNoDrift(storage);
  for (const { vault } of await allArchives(storage.database)) {
    const usage = await readVaultUsage(storage.database, vault);
    const [row] = await rows<{ stored: number; referenced: number; versions: number; logical: number }>(
      storage,
      `SELECT (SELECT sum(byte_length) FROM blocks WHERE vault_id = ${vault}) AS stored,
              (SELECT sum(byte_length) FROM blocks WHERE vault_id = ${vault} AND refs > 0) AS referenced,
              (SELECT count(*) FROM versions WHERE vault_id = ${vault}) AS versions,
              (SELECT sum(size)::bigint FROM versions WHERE vault_id = ${vault}) AS logical`,
    );
    expect([usage.storedBytes, usage.referencedBytes, usage.versions, usage.logicalBytes]).toEqual([
      row!.stored,
      row!.referenced,
      row!.versions,
      row!.logical,
    ]);
  }
});

test('only the files said to expire are due, and of the others retention keeps everything', async () => {
  const { storage } = await seeded(['--blocks', '2000', '--versions', '1000', '--expiring', '0.1']);
  const [ref] = await allArchives(storage.database);
  const expiring = async (dueOnly: boolean): Promise<number[]> => {
    const found: number[] = [];
    for await (const { decisions } of planFiles(storage, ref!, deps, { dueOnly }))
      found.push(decisions.filter((each) => !each.keep).length);
    return found;
  };
  expect(await expiring(true)).toEqual(new Array(10).fill(5));
  expect((await expiring(false)).reduce((sum, each) => sum + each)).toBe(50);
});

test('seqs and moments of an archive go forward together', async () => {
  const { storage } = await seeded(['--blocks', '500', '--versions', '500', '--expiring', '0.4', '--sparse', '2']);
  const back = await rows(
    storage,
    `SELECT seq FROM (SELECT seq, committed_at, lag(seq, 1, 0::bigint) OVER w AS before, lag(committed_at) OVER w AS earlier
       FROM versions WINDOW w AS (ORDER BY seq)) v WHERE seq <> before + 1 OR committed_at < earlier`,
  );
  expect(back).toEqual([]);
  const [archive] = await rows<{ next: number; last: boolean }>(
    storage,
    'SELECT next_seq AS next, last_committed_at = (SELECT max(committed_at) FROM versions) AS last FROM archives',
  );
  expect(archive).toEqual({ next: 503, last: true });
});

test('the same seed gives the same rows, another one other blocks', async () => {
  const args = ['--blocks', '300', '--versions', '100', '--expiring', '0.5'];
  const digestOf = async (seed: string): Promise<unknown> => {
    const { storage } = await seeded([...args, '--seed', seed]);
    return rows(
      storage,
      `SELECT encode(sha256(string_agg(hash || int4send(refs) || int4send(byte_offset), '' ORDER BY hash)), 'hex') AS blocks,
              (SELECT encode(sha256(string_agg(blocks || mac || int8send(seq), '' ORDER BY seq)), 'hex') FROM versions) AS versions
         FROM blocks`,
    );
  };
  const [first, again, other] = [await digestOf('a'), await digestOf('a'), await digestOf('b')];
  expect(again).toEqual(first);
  expect(other).not.toEqual(first);
});

test('indexes and constraints are what they were', async () => {
  const storage = await testStorage();
  open.push(storage);
  const definitions = (): Promise<unknown[]> =>
    rows(
      storage,
      `SELECT indexdef AS is FROM pg_indexes WHERE schemaname = 'public' UNION ALL
       SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid <> 0 ORDER BY 1`,
    );
  const before = await definitions();
  await seeded(['--blocks', '100', '--versions', '100'], { storage });
  expect(await definitions()).toEqual(before);
});

test('a catalog in use is left alone, unless told otherwise', async () => {
  const { storage } = await seeded(['--blocks', '100', '--versions', '100']);
  await expect(seeded(['--blocks', '100', '--versions', '100'], { storage })).rejects.toThrow('not empty');
  expect(await vaultsAfter(storage.database, 0, 10)).toHaveLength(1);
  await seeded(['--blocks', '100', '--versions', '100'], { storage, force: true });
  expect(await vaultsAfter(storage.database, 0, 10)).toHaveLength(2);
  await expectNoDrift(storage);
});

test('objects seeded with bytes are found whole by verify, and sparse ones are compacted', async () => {
  const args = ['--blocks', '200', '--versions', '100', '--block-bytes', '500', '--objects-bytes', '20000'];
  const { storage, made } = await seeded([...args, '--sparse', '3'], { withObjects: true });
  expect(made).toMatchObject({ objects: 8, sparseObjects: 3, blocks: 230 });
  const fence = openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 1 });
  await fence.beat();
  const verify = { bytesPerSecond: 1e9, everyMs: 3_600_000 };
  expect(await verifyDue(storage, fence, verify)).toMatchObject({
    objects: 8,
    damagedBlocks: 0,
    damagedFooters: 0,
    unreadable: 0,
  });
  expect(await compactDue(storage)).toMatchObject({ objects: 3, blocks: 30, bytes: 15_000, damaged: 0, unread: 0 });
  await expectNoDrift(storage);
});

test('objects seeded without bytes are not for verify to miss', async () => {
  const args = ['--blocks', '1200', '--versions', '100', '--freed', '0.45'];
  const { storage } = await seeded(args);
  expect((await reclaimDue(storage)).blocks).toBe(540);
  expect(await compactDue(storage)).toMatchObject({ vaults: 0 }); // and something of every object is left
  const fence = openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 1 });
  await fence.beat();
  const found = await verifyDue(storage, fence, { bytesPerSecond: 1e9, everyMs: 3_600_000 });
  expect(found).toMatchObject({ objects: 0, unreadable: 0, damagedBlocks: 0 });
});

test.each([
  [['--blocks', 'many'], '--blocks is a whole number'],
  [['--expiring', '2'], '--expiring is a share'],
  [['--block-bytes', '1000', '--objects-bytes', '3000'], 'an object has to hold 4 blocks'],
  [['--freed', '1'], 'named by versions'],
])('%j is refused in words', (args, says) => {
  expect(() => readSeedArguments(args)).toThrow(says);
});
