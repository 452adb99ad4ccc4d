/**
 * Many agents in one vault, with overlapping blocks, while connections to PostgreSQL are cut (at COMMIT too), answers
 * get lost, requests are repeated, the object store fails before and after it did what was asked, and blocks rot. A
 * model remembers what was acknowledged; at the end PostgreSQL and the store are asked for all of it.
 *
 * The seed is printed on failure. What runs at the same time as what is up to the machine; the faults are the seed's.
 * `HOLDFAST_TEST_SEED=n npm run jest -- tests/concurrency` runs one seed alone.
 */
import { randomBytes } from 'node:crypto';
import { afterEach, expect, test } from '@jest/globals';
import { bitAt, hashAt, hashCount, sha256 } from '../protocol/hashes.ts';
import type { VersionMessage } from '../protocol/messages.ts';
import { Problem } from '../protocol/problems.ts';
import { encodeMessage } from '../protocol/wire.ts';
import { fetchBlocks } from '../storage/archive/reading/read-blocks.ts';
import { readHistory } from '../storage/archive/reading/read-tree.ts';
import { claimBlocks } from '../storage/archive/writing/claim.ts';
import { commitVersions } from '../storage/archive/writing/commit.ts';
import { countRefs } from '../storage/archive/writing/count-refs.ts';
import { databaseDefaults, isPassingFault, openDatabase } from '../storage/catalog/database.ts';
import { FaultyStore } from '../storage/objects/faulty-store.ts';
import { MemoryStore } from '../storage/objects/memory-store.ts';
import { ObjectStoreFault } from '../storage/objects/object-store.ts';
import type { ArchiveRef, Storage } from '../storage/storage.ts';
import { startChaosProxy } from './helpers/chaos-proxy.ts';
import { type Random, seededRandom } from './helpers/random.ts';
import { newArchive, newRun, testStorage, upload, version } from './helpers/storage.ts';

const seeds = process.env.HOLDFAST_TEST_SEED ? [Number(process.env.HOLDFAST_TEST_SEED)] : [1, 2, 3];
const agentCount = 8;
const roundsPerAgent = 25;
const distinctBlocks = 60;

const cleanUps: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

interface Acknowledged {
  path: string;
  seq: number;
  blocks: Buffer;
}

const contentOf = (n: number): Buffer => Buffer.alloc(50 + n * 7, `content ${n} `);

test.each(seeds)('seed %i: everything acknowledged is there, byte for byte, and every count is right', async (seed) => {
  const random = seededRandom(seed);
  const calm = await testStorage();
  cleanUps.push(() => calm.close());
  const proxy = await startChaosProxy(calm.connectionString, {
    random: seededRandom(seed + 1000),
    cut: 0.01,
    cutAtCommit: 0.1,
  });
  cleanUps.push(() => proxy.close());
  const memory = new MemoryStore();
  const store = new FaultyStore(memory, {
    random: seededRandom(seed + 2000).next,
    rates: { errorBefore: 0.05, errorAfter: 0.05, late: 0.03, delay: 0.2, tornRead: 0.02 },
  });
  const database = openDatabase({ ...databaseDefaults, connectionString: proxy.connectionString, poolMax: 10 });
  cleanUps.push(() => database.close());
  const storage: Storage = { ...calm, database, objects: store };

  const first = await newArchive(calm);
  const archives = [first];
  while (archives.length < agentCount) archives.push(await newArchive(calm, first.vault));
  const agents = archives.map((ref, i) => runAgent(storage, ref, seededRandom(seed * 100 + i)));
  const rot = rotBlocks(calm, first.vault, random);
  const acknowledged = await Promise.all(agents);
  await rot.stop();

  proxy.calm();
  store.setRates({});
  await store.settle();
  for (const [kind, count] of Object.entries(proxy.cuts)) expect([kind, count > 0]).toEqual([kind, true]);
  expect(store.struck.errorAfter + store.struck.late).toBeGreaterThan(0);
  expect(acknowledged.flat().length).toBeGreaterThan(agentCount * roundsPerAgent);

  await healAll(calm, first.vault, memory);
  for (const [i, ref] of archives.entries())
    await expectAcknowledged({ ...calm, objects: memory }, ref, acknowledged[i]!);
  await expectConsistent({ ...calm, objects: memory }, archives);
});

/** Backs up at random, as an agent would: claim, upload what is asked for, commit, and again whatever fails. */
async function runAgent(storage: Storage, ref: ArchiveRef, random: Random): Promise<Acknowledged[]> {
  const done: Acknowledged[] = [];
  const run = await insist(() => newRun(storage, ref));
  // Two commits of one archive may be under way at once: a request whose answer was given up, and its repetition.
  const worker = async (): Promise<void> => {
    for (let round = 0; round < roundsPerAgent / 2; round++) {
      const versions = Array.from({ length: 1 + random.below(4) }, (_, i) => {
        const contents = Array.from({ length: random.below(5) }, () => contentOf(random.below(distinctBlocks)));
        return version(`/${random.below(3)}/${i}/${random.below(3)}`, contents);
      });
      const firstSeq = await backUp(storage, ref, run, versions, random);
      done.push(...versions.map(({ path, blocks }, i) => ({ path: `${path}`, seq: firstSeq + i, blocks })));
    }
  };
  await Promise.all([worker(), worker()]);
  return done;
}

async function backUp(
  storage: Storage,
  ref: ArchiveRef,
  run: number,
  versions: VersionMessage[],
  random: Random,
): Promise<number> {
  const request = { commitId: randomBytes(16), run, purgeEpoch: 0, versions };
  const digest = sha256(encodeMessage(request));
  const wanted = Buffer.concat(versions.map((each) => each.blocks));
  for (;;) {
    const { send } = await insist(() => claimBlocks(storage, ref.vault, wanted));
    await sendBlocks(storage, ref.vault, wanted, (i) => bitAt(send, i) || random.chance(0.1), random);
    try {
      const answer = await insist(() => commitVersions(storage, ref, request, digest));
      if (!random.chance(0.2)) return answer.firstSeq;
      // The answer got lost: the agent asks again, and must hear the same.
      const again = await insist(() => commitVersions(storage, ref, request, digest));
      expect(again).toEqual(answer);
      return answer.firstSeq;
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== 'blocks_missing') throw error;
    }
  }
}

async function sendBlocks(
  storage: Storage,
  vault: number,
  hashes: Buffer,
  sends: (index: number) => boolean,
  random: Random,
): Promise<void> {
  const contents = new Map(
    Array.from({ length: distinctBlocks }, (_, n) => [sha256(contentOf(n)).toString('hex'), contentOf(n)]),
  );
  const batch: Buffer[] = [];
  for (let i = 0; i < hashCount(hashes); i++)
    if (sends(i)) batch.push(contents.get(hashAt(hashes, i).toString('hex'))!);
  if (batch.length === 0) return;
  await insist(() => upload(storage, vault, batch, 1 + random.below(500)));
  if (random.chance(0.2)) await insist(() => upload(storage, vault, batch));
}

/** Repeats what failed for a reason that passes. Anything else is a finding. */
async function insist<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      const passes =
        isPassingFault(error) ||
        error instanceof ObjectStoreFault ||
        (error instanceof Problem && error.code === 'unavailable');
      if (!passes || attempt > 50) throw error;
    }
  }
}

/** Now and then a block is found damaged, in use or not. */
function rotBlocks(storage: Storage, vault: number, random: Random): { stop(): Promise<void> } {
  let stopped = false;
  const loop = (async () => {
    while (!stopped) {
      const hash = sha256(contentOf(random.below(distinctBlocks)));
      await storage.database.query(
        { name: '', text: 'UPDATE blocks SET damaged_at = now() WHERE vault_id = $1 AND hash = $2' },
        [vault, hash],
      );
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  return {
    stop: () => {
      stopped = true;
      return loop;
    },
  };
}

/** The last backup of data that rotted heals it. */
async function healAll(storage: Storage, vault: number, objects: MemoryStore): Promise<void> {
  await upload(
    { ...storage, objects },
    vault,
    Array.from({ length: distinctBlocks }, (_, n) => contentOf(n)),
  );
  const left = await storage.database.query(
    { name: '', text: 'SELECT 1 FROM blocks WHERE vault_id = $1 AND damaged_at IS NOT NULL' },
    [vault],
  );
  expect(left).toEqual([]);
}

async function expectAcknowledged(
  storage: Storage,
  ref: ArchiveRef,
  acknowledged: readonly Acknowledged[],
): Promise<void> {
  const byPath = Map.groupBy(acknowledged, (each) => each.path);
  for (const [path, expected] of byPath) {
    const { versions } = await readHistory(storage, ref, { path: Buffer.from(path), after: null, limit: 1000 });
    const stored = new Map(versions.map((each) => [each.seq, each.blocks.toString('hex')]));
    for (const { seq, blocks } of expected)
      expect([path, seq, stored.get(seq)]).toEqual([path, seq, blocks.toString('hex')]);
  }
  const hashes = Buffer.concat(acknowledged.map((each) => each.blocks));
  let fetched = 0;
  for await (const { index, bytes } of fetchBlocks(storage, ref.vault, hashes)) {
    expect(bytes && sha256(Buffer.concat(bytes)).equals(hashAt(hashes, index))).toBe(true);
    fetched++;
  }
  expect(fetched).toBe(hashCount(hashes));
}

/** The invariants that can be seen from the rows, recounted from scratch. */
async function expectConsistent(storage: Storage, archives: readonly ArchiveRef[]): Promise<void> {
  const vault = archives[0]!.vault;
  const rows = <Row>(text: string): Promise<Row[]> => storage.database.query<Row>({ name: '', text }, [vault]);

  type BlockRow = { hash: Buffer; refs: number; key: string; state: string; byteOffset: number; byteLength: number };
  const blocks = await rows<BlockRow>(
    `SELECT b.hash, b.refs, o.key, o.state, b.byte_offset AS "byteOffset", b.byte_length AS "byteLength"
       FROM blocks b JOIN objects o USING (vault_id, object_id) WHERE b.vault_id = $1`,
  );
  const versions = await rows<{ blocks: Buffer }>('SELECT blocks FROM versions WHERE vault_id = $1');
  const counted = countRefs(versions.map((each) => each.blocks));
  for (const block of blocks) {
    const content = await storage.objects.get(block.key, { offset: block.byteOffset, length: block.byteLength });
    const bytes = Buffer.concat(await Array.fromAsync(content.stream));
    expect(sha256(bytes).equals(block.hash)).toBe(true);
    expect(block.state).toBe('live');
    expect(block.refs).toBe(counted.get(block.hash.toString('latin1')) ?? 0);
  }
  for (const key of counted.keys()) expect(blocks.some((block) => block.hash.toString('latin1') === key)).toBe(true);

  const wrongBytes = await rows(
    `SELECT o.object_id, o.state, o.live_bytes, sum(b.byte_length) FROM objects o LEFT JOIN blocks b USING (vault_id, object_id)
      WHERE o.vault_id = $1 GROUP BY o.vault_id, o.object_id
     HAVING o.live_bytes <> coalesce(sum(b.byte_length), 0) OR (o.state = 'live') <> (count(b.hash) > 0)`,
  );
  expect(wrongBytes).toEqual([]);

  const gaps = await rows(
    `SELECT archive_id FROM (
       SELECT archive_id, seq, committed_at, lag(seq) OVER w AS before, lag(committed_at) OVER w AS earlier FROM versions
        WHERE vault_id = $1 WINDOW w AS (PARTITION BY archive_id ORDER BY seq)) v
      WHERE seq <> coalesce(before, 0) + 1 OR committed_at < earlier`,
  );
  expect(gaps).toEqual([]);

  // Every object in the bucket has a row: that of a failed upload waits for the end of its lease.
  const keys = new Set(
    (await rows<{ key: string }>('SELECT key FROM objects WHERE vault_id = $1')).map((row) => row.key),
  );
  for (let after = '', more = true; more; ) {
    const page = await storage.objects.list(`${storage.catalogId}/`, { after, limit: 1000 });
    for (const { key } of page.objects) expect(keys.has(key)).toBe(true);
    after = page.objects.at(-1)?.key ?? after;
    more = page.more;
  }
}
