/**
 * A worker process that does one thing and says what it took: `DATABASE_URL OBJECTS_FOLDER POSTGRES_PID STEP`. It has
 * loaded all the code that a worker loads, so that its memory is a worker's; and it deletes only under the fence, as a
 * worker does. One line of JSON is the result.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { fenceDefaults, openFence } from '../storage/archive/checking/fence.ts';
import { verifyDue } from '../storage/archive/checking/verify.ts';
import { compactDue } from '../storage/archive/deleting/compact.ts';
import { reclaimDue } from '../storage/archive/deleting/reclaim.ts';
import { onlyPolicy } from '../storage/archive/retention/policies.ts';
import { pruneDue } from '../storage/archive/retention/prune.ts';
import { defaultRetention } from '../storage/archive/retention/retention.ts';
import { databaseDefaults, openDatabase } from '../storage/catalog/database.ts';
import { checkCatalog } from '../storage/catalog/migrate.ts';
import { openObjectStore } from '../storage/objects/open-store.ts';
import { openStorage, storageDefaults } from '../storage/storage.ts';
import { cpuBetween, readTreeCpu } from './process-cpu.ts';
import { median } from './statistics.ts';

/** Rounds of a reclaim that finds nothing, and series of them: something else may write to the log during one. */
const nothingRounds = 200;
const nothingSeries = 5;

const [connectionString, folder, postgresPid, step] = process.argv.slice(2) as [string, string, string, string];
await import('../server/commands/serve.ts');
const database = openDatabase({ ...databaseDefaults, connectionString });
const { catalogId } = await checkCatalog(database);
const objects = await openObjectStore({ kind: 'directory', path: folder }, { catalogId, create: true });
// Expiring half of what is due would be over the cap, and meet a person first.
const storage = await openStorage({ database, objects, settings: { ...storageDefaults, expiryShareMax: 1 } });
const fence = openFence(storage, { ...fenceDefaults, beatsBeforeDeleting: 1 });
await fence.beat();
setInterval(() => void fence.beat(), fenceDefaults.beatMs).unref();
const client = new pg.Client({ connectionString });
await client.connect();

const walBytes = async (since = '0/0'): Promise<{ at: string; bytes: number }> => {
  const { rows } = await client.query(
    'SELECT pg_current_wal_insert_lsn() AS at, (pg_current_wal_insert_lsn() - $1::pg_lsn)::text AS bytes',
    [since],
  );
  return { at: rows[0].at as string, bytes: Number(rows[0].bytes) };
};
const verbs: Record<string, () => Promise<object>> = {
  prune: () =>
    pruneDue(storage, {
      readPolicies: async () => onlyPolicy(defaultRetention),
      assertMayDelete: () => fence.assertHeld(),
      assertStillHeld: (read) => fence.assertStillHeld(read),
    }),
  reclaim: () => reclaimDue(storage),
  compact: () => compactDue(storage),
  verify: async () => verifyDue(storage, fence, { bytesPerSecond: 1e12, everyMs: 3_600_000 }),
};

/**
 * What autovacuum does of what was seeded, or of another step, is none of this step's cost. It would come behind a large
 * prune and hardly ever behind a small one, so without it a comparison flatters neither.
 */
async function stopAutovacuum(): Promise<void> {
  await client.query('ALTER SYSTEM SET autovacuum = off');
  await client.query('SELECT pg_reload_conf()');
  for (let waited = 0; waited < 120; waited++) {
    const { rows } = await client.query("SELECT 1 FROM pg_stat_activity WHERE backend_type LIKE 'autovacuum%'");
    if (rows.length === 0) return;
    await sleep(1_000);
  }
  throw new Error('autovacuum did not end within two minutes');
}

/** Milliseconds of a reclaim that finds nothing due, and the least that a series of them added to the log. */
async function reclaimNothing(): Promise<object> {
  for (let i = 0; i < 50; i++) await reclaimDue(storage); // plans are made, pages have been touched
  const ms: number[] = [];
  const wal: number[] = [];
  for (let series = 0; series < nothingSeries; series++) {
    const before = await walBytes();
    for (let i = 0; i < nothingRounds; i++) {
      const startedAt = performance.now();
      const { blocks, lists } = await reclaimDue(storage);
      ms.push(performance.now() - startedAt);
      if (blocks + lists > 0) throw new Error('there was something to reclaim');
    }
    wal.push((await walBytes(before.at)).bytes);
  }
  const { rows } = await client.query('SELECT count(*)::int AS waiting FROM freed');
  const sorted = ms.sort((a, b) => a - b);
  return {
    medianMs: median(ms),
    p99Ms: sorted[Math.floor(sorted.length * 0.99)],
    maxMs: sorted.at(-1),
    calls: ms.length,
    walBytesOfSeries: wal,
    waiting: rows[0].waiting,
  };
}

await stopAutovacuum();
await client.query('CHECKPOINT'); // so that what the step writes to the log does not hang on when the last one was
const wal = await walBytes();
const own = process.cpuUsage();
const postgres = readTreeCpu(Number(postgresPid));
const startedAt = performance.now();
const result = step === 'reclaim-nothing' ? await reclaimNothing() : await verbs[step]!();
const seconds = (performance.now() - startedAt) / 1000;
const used = process.cpuUsage(own);
const postgresSeconds = cpuBetween(postgres, readTreeCpu(Number(postgresPid))).seconds;
const { bytes } = await walBytes(wal.at);
console.log(
  JSON.stringify({
    step,
    result,
    seconds,
    workerCpuSeconds: (used.user + used.system) / 1e6,
    postgresCpuSeconds: postgresSeconds,
    walBytes: bytes,
    peakMemoryMiB: process.resourceUsage().maxRSS / 1024,
  }),
);
process.exit(0);
