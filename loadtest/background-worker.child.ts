/**
 * A worker process that prunes, reclaims, compacts and verifies at the same time, until SIGTERM: `DATABASE_URL
 * OBJECTS_FOLDER VERIFY_BYTES_PER_SECOND SHARE`. It works as a worker does (the same verbs, under the fence), but does not
 * wait for its schedule. Says how far it is as one line of JSON each 200 ms; `idle` names what found nothing to do.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { fenceDefaults, openFence } from '../storage/archive/checking/fence.ts';
import { verifyDue } from '../storage/archive/checking/verify.ts';
import { compactDue } from '../storage/archive/deleting/compact.ts';
import { inBackground } from '../storage/archive/deleting/in-background.ts';
import { reclaimDue } from '../storage/archive/deleting/reclaim.ts';
import { onlyPolicy } from '../storage/archive/retention/policies.ts';
import { type PruneDeps, pruneDue } from '../storage/archive/retention/prune.ts';
import { defaultRetention } from '../storage/archive/retention/retention.ts';
import { type Database, databaseDefaults, openDatabase, type Transaction } from '../storage/catalog/database.ts';
import { checkCatalog } from '../storage/catalog/migrate.ts';
import type { ObjectStore } from '../storage/objects/object-store.ts';
import { openObjectStore } from '../storage/objects/open-store.ts';
import { openStorage, type Storage, storageDefaults } from '../storage/storage.ts';
import type { BackgroundProgress, BackgroundVerb } from './background-figures.ts';

const sayEveryMs = 200;
const [connectionString, folder, verifyBytesPerSecond, share] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
];
await import('../server/commands/serve.ts');

const done: Record<BackgroundVerb, number> = { prune: 0, reclaim: 0, compact: 0, verify: 0 };
const idle = new Set<BackgroundVerb>();
const stopping = new AbortController();
const { signal } = stopping;

/** Counts what statements delete as they do it: the verbs tell when all is done. */
function counting(inner: Database): Database {
  const verbOf: Record<string, BackgroundVerb> = { 'versions.delete': 'prune', 'blocks.delete': 'reclaim' };
  return {
    ...inner,
    pool: inner.pool,
    transaction: (work) =>
      inner.transaction((tx) => {
        const counted: Transaction = {
          async query<Row>(statement: Parameters<Transaction['query']>[0], values?: readonly unknown[]) {
            const rows = await tx.query<Row>(statement, values);
            const verb = verbOf[statement.name];
            if (verb) done[verb] += rows.length;
            return rows;
          },
        };
        return work(counted);
      }),
  };
}

/** Nothing but compacting puts objects into its store, and nothing but verify gets them from its own (and the fence, a few bytes). */
function countingStore(inner: ObjectStore, counts: 'put' | 'get', verb: BackgroundVerb): ObjectStore {
  return new Proxy(inner, {
    get(target, name) {
      const value = Reflect.get(target, name) as unknown;
      if (typeof value !== 'function') return value;
      if (name !== counts) return value.bind(target);
      return async (...args: unknown[]): Promise<unknown> => {
        const answer = (await value.apply(target, args)) as { length: number } | undefined;
        done[verb] += answer?.length ?? (args[1] as { length: number }).length;
        return answer;
      };
    },
  });
}

const database = counting(openDatabase({ ...databaseDefaults, connectionString }));
const { catalogId } = await checkCatalog(database);
const objects = await openObjectStore({ kind: 'directory', path: folder }, { catalogId, create: false });
const storage = await openStorage({ database, objects, settings: { ...storageDefaults, expiryShareMax: 1 } });
const fence = openFence(storage, { ...fenceDefaults, beatsBeforeDeleting: 1 });
await fence.beat();
setInterval(() => void fence.beat(), fenceDefaults.beatMs).unref();

/** One for each, as each is a job of its own. */
const rested = (): Storage =>
  inBackground({ ...storage, objects: countingStore(objects, 'put', 'compact') }, { share: Number(share), signal });
const [forPrune, forReclaim, forCompact] = [rested(), rested(), rested()];
const forVerify: Storage = { ...storage, objects: countingStore(objects, 'get', 'verify') };
const passes: Record<BackgroundVerb, () => Promise<boolean>> = {
  prune: async () => {
    const deps: PruneDeps = {
      readPolicies: async () => onlyPolicy(defaultRetention),
      assertMayDelete: () => fence.assertHeld(),
      assertStillHeld: (read) => fence.assertStillHeld(read),
    };
    return ((await pruneDue(forPrune, deps, { signal })).versions ?? 0) > 0;
  },
  reclaim: async () => (await reclaimDue(forReclaim, { signal })).blocks > 0,
  compact: async () => (await compactDue(forCompact, { signal })).objects > 0,
  verify: async () => {
    const read = await verifyDue(forVerify, fence, {
      bytesPerSecond: Number(verifyBytesPerSecond),
      everyMs: 24 * 3_600_000, // what was seeded without bytes counts as verified just now
      signal,
    });
    if (read.damagedBlocks + read.damagedFooters + read.unreadable + read.stopped > 0)
      throw new Error(`verify found damage where there is none: ${JSON.stringify(read)}`);
    return read.bytes > 0;
  },
};

async function again(verb: BackgroundVerb): Promise<void> {
  while (!signal.aborted) {
    try {
      if (await passes[verb]()) continue;
      idle.add(verb);
      await sleep(100);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}

const say = (): void => {
  const progress: BackgroundProgress = {
    done: { ...done },
    idle: [...idle],
    peakMemoryMiB: process.resourceUsage().maxRSS / 1024,
  };
  console.log(JSON.stringify(progress));
};
process.on('SIGTERM', () => stopping.abort(new DOMException('enough', 'AbortError')));
setInterval(say, sayEveryMs).unref();
await Promise.all((Object.keys(passes) as BackgroundVerb[]).map(again));
say();
process.exit(0);
