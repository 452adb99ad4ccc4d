/** Whoever reads an alert is told all of it, in words: of every kind the engine raises, with the details it raises. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { compareBucket } from '../../storage/archive/checking/compare-bucket.ts';
import { type Fence, openFence } from '../../storage/archive/checking/fence.ts';
import { verifyDue } from '../../storage/archive/checking/verify.ts';
import { onlyPolicy } from '../../storage/archive/retention/policies.ts';
import { pruneArchive } from '../../storage/archive/retention/prune.ts';
import { defaultRetention } from '../../storage/archive/retention/retention.ts';
import { type AlertKind, type AlertRow, closeAlert, listAlerts } from '../../storage/catalog/checking/alerts.ts';
import { MemoryStore } from '../../storage/objects/memory-store.ts';
import {
  commit,
  deletion,
  newArchive,
  newRun,
  type TestStorage,
  testStorage,
  upload,
  version,
} from '../../tests/helpers/storage.ts';
import { explainAlert } from './alert-words.ts';

type Details = Record<string, unknown>;

/** At least one of each shape that details have. The compiler asks for a kind that is missing here. */
const samples: Record<AlertKind, Details[]> = {
  suspicious_run: [
    { run: 71, beforeSeq: 1234, startedAt: 0, watchBeforeSeq: 1234, replacedFiles: 90, liveFilesBefore: 100 },
    { run: 72, beforeSeq: 1234, startedAt: 0, watchBeforeSeq: 1200, replacedFiles: 91, liveFilesBefore: 100 },
  ],
  expiry_cap: [{ cap: 1_000, versionCount: 5_000, expiredToday: 37, expiring: 2_000, digest: 'c0ffee' }],
  refs_drift: [
    { found: 'prune', message: '3 of 4 blocks named by versions are gone' },
    { found: 'reclaim', message: 'a count of references would fall below zero' },
    {
      found: 'recount',
      ...{ tooLow: 11, tooHigh: 12, absent: 13, liveBytes: 14, raised: 15, lowered: 16 },
      examples: { blocks: { hash: 'abcdef', refs: 17, counted: 18, total: 19 } },
    },
    { what: 'dead objects that block rows name', keys: ['catalog/blocks/1/a', 'catalog/blocks/1/b'] },
  ],
  verify_suspicious: [
    { damaged: 21, blocks: 300, objects: 40 },
    { missingObjects: 22, objects: 41 },
  ],
  damaged: [{ blocks: 23, oldestFoundAt: '2026-01-02T03:04:05.678Z' }],
  audit_log_altered: [
    { logs: 2, tenant: 7, detail: 'acts from 12 on are missing' },
    { logs: 1, tenant: 0, detail: 'x' },
  ],
  unusual_restores: [{ askerName: 'ann', restoredBytes: 70, bytes: 40, thresholdBytes: 100, review: 3 }],
  deleting_stopped: [
    { reason: 'clock', detail: "the database's clock jumped ahead by 90 s" },
    { reason: 'bucket_unreachable', detail: 'the object store did not answer' },
  ],
  retention_unreadable: [
    {
      why: 'the retention policy of device laptop (123), for archive 4 of vault 2, is none: windows.0.untilDays: too small',
    },
  ],
};
const kinds = Object.keys(samples) as AlertKind[];

/** What agreeing to an alert is compared with: it says nothing to people. */
const notTold = new Set(['digest']);

/** Numbers and texts, however deep they lie. */
function leavesOf(details: unknown, name = ''): string[] {
  if (notTold.has(name)) return [];
  if (name === 'startedAt') return [new Date(details as number).toISOString()];
  if (typeof details !== 'object' || details === null) return [String(details)];
  return Object.entries(details).flatMap(([key, value]) => leavesOf(value, key));
}

function expectAllTold(kind: AlertKind, details: Details): void {
  const { says, toDo } = explainAlert(kind, details);
  const told = `${says} ${toDo}`;
  const missing = leavesOf(details).filter((leaf) => {
    const at = told.indexOf(leaf);
    return at < 0 || (/^\d+$/.test(leaf) && !new RegExp(`(?<![\\d.])${leaf}(?!\\d)`).test(told));
  });
  expect({ kind, told, missing }).toEqual({ kind, told, missing: [] });
  expect(told).not.toMatch(/unknown number|undefined|null|NaN|\[object/);
  expect(says).toMatch(/\.$/);
  expect(toDo).toMatch(/^[A-Z].{20,}\.$/);
}

describe.each(kinds)('%s', (kind) => {
  test('is told whole, with what to do', () => {
    for (const details of samples[kind]) expectAllTold(kind, details);
  });

  test('has words, whatever its details hold', () => {
    for (const details of [{}, { blocks: null, run: 'x', startedAt: 'never', keys: 5, detail: 7, examples: null }]) {
      const { says, toDo } = explainAlert(kind, details);
      expect(`${says} ${toDo}`).not.toMatch(/undefined|NaN|\[object/);
      expect(says).not.toMatch(/^An alert of the kind/);
    }
  });
});

test('every kind that the engine knows, and raises, has its words here', () => {
  const root = join(import.meta.dirname, '../..');
  const read = (name: string): string => readFileSync(join(root, name), 'utf8');
  const [, union] = /export type AlertKind =([^;]+);/.exec(read('storage/catalog/checking/alerts.ts'))!;
  const known = [...union!.matchAll(/'(\w+)'/g)].map(([, kind]) => kind);
  expect(known.toSorted()).toEqual(kinds.toSorted());
  const files = ['storage', 'server']
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name)),
    )
    .filter((name) => /(?<!\.test)\.ts$/.test(name));
  const sources = files.map(read).filter((text) => text.includes('raiseAlert('));
  const raised = sources.flatMap((text) => [...text.matchAll(/\bkind: '(\w+)'/g)].map(([, kind]) => kind));
  expect([...new Set(raised)].toSorted()).toEqual(kinds.toSorted());
});

test('a kind that a newer server raised is told as it is', () => {
  for (const kind of ['of_tomorrow', 'toString', '__proto__'] as unknown as AlertKind[])
    expect(explainAlert(kind, { found: 5 }).says).toBe(`An alert of the kind "${kind}": {"found":5}.`);
});

test('several runs that changed much together: before the first of them, not before the last', () => {
  const [one, several] = samples.suspicious_run.map((details) => explainAlert('suspicious_run', details));
  expect(one!.toDo).toContain('"--before-run 71"');
  expect(several!.says).toContain('from version 1201 on');
  expect(several!.toDo).not.toContain('--before-run 72');
});

describe('as the engine raises it', () => {
  let storage: TestStorage;
  let fence: Fence;
  const memory = new MemoryStore();
  beforeAll(async () => {
    const settings = { suspiciousFilesMin: 2, expiryVersionsMin: 1, expiryShareMax: 0.01 };
    storage = await testStorage({ objects: memory, settings });
    fence = openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 1 });
    await fence.beat();
  });
  afterAll(() => storage?.close());

  const block = (seed: number): Buffer => Buffer.alloc(500, `block ${seed} `);
  const keys = async (vault: number): Promise<string[]> => {
    const { objects } = await memory.list(`${storage.catalogId}/blocks/${vault}/`, { limit: 1_000 });
    return objects.map(({ key }) => key);
  };
  async function raised(vault: number): Promise<AlertRow> {
    const [alert, ...more] = await listAlerts(storage.database, vault, { reviewed: false, limit: 10 });
    expect(more).toEqual([]);
    expectAllTold(alert!.kind, alert!.details);
    return alert!;
  }

  test('much is missing, or much looks damaged', async () => {
    const { vault } = await newArchive(storage);
    for (let i = 0; i < 10; i++) await upload(storage, vault, [block(i)]);
    for (const key of (await keys(vault)).slice(1)) await memory.delete(key);
    expect(await compareBucket(storage, fence)).toMatchObject({ missing: 9, stopped: 1 });
    const missing = await raised(vault);
    expect(missing.kind).toBe('verify_suspicious');
    const { says } = explainAlert(missing.kind, missing.details);
    expect(says).toContain("9 of this user's 10 objects are not in the bucket");

    const other = (await newArchive(storage)).vault;
    for (let i = 0; i < 9; i++) await upload(storage, other, [block(i)]);
    for (const key of await keys(other)) memory.flipBit(key, 5);
    expect(await verifyDue(storage, fence, { bytesPerSecond: 1e9, everyMs: 60_000 })).toMatchObject({ stopped: 1 });
    const damaged = await raised(other);
    expect(damaged.kind).toBe('verify_suspicious');
    expect(explainAlert(damaged.kind, damaged.details).says).toContain('9 of 9 blocks, in 9 objects of this user');
  });

  test('a run changed much, and retention would delete much', async () => {
    const ref = await newArchive(storage);
    await upload(storage, ref.vault, [block(1), block(2)]);
    const all = ['/a', '/b', '/c'];
    await commit(
      storage,
      ref,
      await newRun(storage, ref),
      all.map((path) => version(path, [block(1)])),
    );
    await commit(storage, ref, await newRun(storage, ref), all.map(deletion));
    const suspicious = await raised(ref.vault);
    expect(suspicious.kind).toBe('suspicious_run');
    await closeAlert(storage.database, ref.vault, suspicious.alert, 'somebody');
    await storage.database.query({ name: '', text: 'UPDATE archives SET frozen_at = NULL WHERE vault_id = $1' }, [
      ref.vault,
    ]);
    const policy = { ...defaultRetention, deletedAfterDays: 0 };
    const deps = {
      readPolicies: async () => onlyPolicy(policy),
      assertMayDelete: async () => {},
      assertStillHeld: () => {},
    };
    expect(await pruneArchive(storage, ref, deps)).toMatchObject({ refused: 'over_cap' });
    expect((await raised(ref.vault)).kind).toBe('expiry_cap');
  });
});
