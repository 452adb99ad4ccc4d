/**
 * That the jobs that can wait rest in proportion to what they did: run as the worker runs them, on a storage whose every
 * transaction takes a second of a clock of ours.
 */
import { beforeEach, describe, expect, test } from '@jest/globals';
import type { PaceClock } from '../../storage/archive/checking/byte-pace.ts';
import type { ArchiveRef, Storage } from '../../storage/storage.ts';
import {
  commit,
  deletion,
  newArchive,
  newHeldFence,
  newRun,
  storageForEachTest,
  upload,
  version,
} from '../../tests/helpers/storage.ts';
import { type JobContext, type JobName, jobDefinitions } from './definitions.ts';

const storage = storageForEachTest();
let ref: ArchiveRef;
const second = 1_000;

class Clock implements PaceClock {
  now = 0;
  readonly rests: number[] = [];
  nowMs = (): number => this.now;
  sleep = async (ms: number): Promise<void> => {
    this.rests.push(ms);
    this.now += ms;
  };
}

/** Something for every job: versions to expire, blocks to free, an object more than half empty, blocks never committed. */
beforeEach(async () => {
  ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  const block = (i: number): Buffer => Buffer.alloc(1_000, `block ${i} `);
  await upload(storage, ref.vault, [block(1), block(2), block(3), block(4)]);
  await commit(storage, ref, run, [version('/kept', [block(1)]), version('/gone', [block(2), block(3), block(4)])]);
  await commit(storage, ref, run, [deletion('/gone')]);
  await upload(storage, ref.vault, [block(5)]);
  await deviceOf(ref);
  const past = `- interval '30 days'`;
  await storage.rows(`UPDATE versions SET committed_at = committed_at ${past}`);
  await storage.rows(`UPDATE archives SET last_committed_at = last_committed_at ${past}`);
  await storage.rows(`UPDATE objects SET created_at = created_at ${past}`);
  await storage.rows(`UPDATE blocks SET claimed_until = claimed_until ${past}`);
});

/** A device whose archive it is, under a policy that keeps nothing that is deleted. */
async function deviceOf({ vault, archive }: ArchiveRef): Promise<void> {
  await storage.rows(
    `WITH t AS (INSERT INTO tenants (name) VALUES ('t') RETURNING tenant_id),
          o AS (INSERT INTO organizations (tenant_id, organization_id, name, registration_key, path) OVERRIDING SYSTEM VALUE
                SELECT tenant_id, 1000, 'o', 'key', '{1000}' FROM t RETURNING tenant_id, organization_id),
          u AS (INSERT INTO users (tenant_id, organization_id, name) SELECT tenant_id, organization_id, 'ann' FROM o RETURNING tenant_id, user_id)
     INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id, retention)
     SELECT tenant_id, user_id, 1, 'd', 'linux', '1', sha256('token'), $1, $2, $3::jsonb FROM u`,
    [vault, archive, JSON.stringify(policy)],
  );
}

const policy = {
  windows: [
    { untilDays: 7, everyMinutes: 15 },
    { untilDays: 90, everyMinutes: 1440 },
    { untilDays: 365, everyMinutes: 10080 },
    { untilDays: null, everyMinutes: 43200 },
  ],
  deletedAfterDays: 0,
  keepNewest: 0,
  keepWithinDays: 0,
};

/** Every transaction takes a second. */
function slow(clock: Clock): Storage {
  const { database } = storage;
  return {
    ...storage,
    database: {
      pool: database.pool,
      query: (statement, values) => database.query(statement, values),
      transaction: (work) => database.transaction(work).finally(() => (clock.now += second)),
      close: () => database.close(),
    },
  };
}

async function runAll(
  names: readonly JobName[],
  backgroundShare: number,
  clock: Clock,
): Promise<Map<JobName, number[]>> {
  const context: JobContext = {
    storage: slow(clock),
    fence: await newHeldFence(storage),
    runSilenceMs: 1,
    backgroundShare,
    paceClock: clock,
    verifyBytesPerSecond: 1e9,
    verifyEveryMs: 1,
    auditKeys: null,
    staging: null,
    startJob: async () => {},
  };
  const rests = new Map<JobName, number[]>();
  for (const name of names) {
    const before = clock.rests.length;
    await jobDefinitions[name].work(context, { signal: new AbortController().signal, progress: () => {}, ids: {} });
    rests.set(name, clock.rests.slice(before));
    // What was freed is to be found by the next.
    await storage.rows(`UPDATE freed SET check_after = now() - interval '1 day'`);
    await storage.rows(`UPDATE blocks SET claimed_until = now() - interval '1 day'`);
  }
  return rests;
}

const jobs: readonly JobName[] = ['apply-policies', 'prune', 'settle', 'reclaim', 'compact', 'recount'];

describe('jobs that can wait', () => {
  test('rest after each second of work as their share says', async () => {
    const rests = await runAll(jobs, 0.25, new Clock());
    for (const name of jobs) {
      expect([name, rests.get(name)!.length > 0]).toEqual([name, true]);
      // A quarter of the time: three seconds for one.
      for (const rest of rests.get(name)!) expect([name, rest]).toEqual([name, 3 * second]);
    }
  });

  test('do not rest when all of the time is theirs', async () => {
    const clock = new Clock();
    await runAll(jobs, 1, clock);
    expect(clock.rests).toEqual([]);
  });

  test('reclaim that has been at it for a quarter of an hour rests no more', async () => {
    await runAll(['prune', 'settle'], 1, new Clock());
    const clock = new Clock();
    const original = clock.nowMs;
    let asked = 0;
    // The first look is at the beginning; by the second, 16 minutes have gone.
    clock.nowMs = () => (asked++ === 0 ? original() - 16 * 60 * second : original());
    const rests = await runAll(['reclaim'], 0.25, clock);
    expect(clock.now).toBeGreaterThan(0); // it had something to do
    expect(rests.get('reclaim')).toEqual([]);
  });
});
