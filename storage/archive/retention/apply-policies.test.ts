import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  commit,
  deletion,
  newArchive,
  newRun,
  type TestStorage,
  testStorage,
  version,
} from '../../../tests/helpers/storage.ts';
import { listAlerts } from '../../catalog/checking/alerts.ts';
import { archivesWithDueFiles } from '../../catalog/reading/histories.ts';
import type { ArchiveRef } from '../../storage.ts';
import { applyPolicies } from './apply-policies.ts';
import { onlyPolicy } from './policies.ts';
import { PolicyUnreadable } from './policy-unreadable.ts';
import { pruneDue } from './prune.ts';
import { defaultRetention, type RetentionPolicy } from './retention.ts';

let storage: TestStorage;
beforeAll(async () => {
  storage = await testStorage();
});
afterAll(() => storage?.close());

const alertsOf = async ({ vault }: ArchiveRef, reviewed = false): Promise<unknown[]> =>
  (await listAlerts(storage.database, vault, { reviewed, limit: 10 })).map(({ kind, archive, details, count }) => ({
    kind,
    archive,
    details,
    count,
  }));

test('a policy that deletes what nothing made due is applied, archive by archive; one that cannot be read stops only itself', async () => {
  const policies = new Map<number, RetentionPolicy | null>();
  const deps = {
    readPolicies: async (_: unknown, ref: ArchiveRef) => {
      const policy = policies.get(ref.archive);
      if (!policy) throw new PolicyUnreadable(ref, 'none');
      return onlyPolicy(policy);
    },
    assertMayDelete: async () => {},
    assertStillHeld: () => {},
  };
  const refs: ArchiveRef[] = [];
  for (let i = 0; i < 3; i++) {
    const ref = await newArchive(storage);
    refs.push(ref);
    policies.set(ref.archive, defaultRetention);
    const run = await newRun(storage, ref);
    await commit(storage, ref, run, [version('/gone')]);
    await commit(storage, ref, run, [deletion('/gone')]);
  }
  await applyPolicies(storage, deps);
  expect((await pruneDue(storage, deps)).versions).toBe(0);
  expect(await archivesWithDueFiles(storage.database)).toEqual([]);

  // Deleted files are to go now, in one of them; and another has a policy that is none.
  policies.set(refs[0]!.archive, null);
  policies.set(refs[1]!.archive, { ...defaultRetention, deletedAfterDays: 0 });
  expect((await pruneDue(storage, deps)).versions).toBe(0); // nothing is due, so it does not look
  for (let count = 1; count <= 2; count++) {
    expect(await applyPolicies(storage, deps)).toMatchObject({ archives: 3, unreadable: 1 });
    const told = { kind: 'retention_unreadable', archive: refs[0]!.archive, details: { why: 'none' }, count };
    expect([await alertsOf(refs[0]!), await alertsOf(refs[1]!)]).toEqual([[told], []]);
  }
  expect(await archivesWithDueFiles(storage.database)).toEqual([refs[1]]);
  const told: number[] = [];
  expect(await pruneDue(storage, deps, { onProgress: ({ versions }) => told.push(versions!) })).toMatchObject({
    archives: 1,
    versions: 2,
  });
  expect(told.at(-1)).toBe(2);
  expect(await archivesWithDueFiles(storage.database)).toEqual([]);

  // Somebody enters one that is a policy.
  policies.set(refs[0]!.archive, defaultRetention);
  expect(await applyPolicies(storage, deps)).toMatchObject({ archives: 3, unreadable: 0 });
  expect(await alertsOf(refs[0]!)).toEqual([]);
  expect(await alertsOf(refs[0]!, true)).toMatchObject([{ kind: 'retention_unreadable', count: 2 }]);
});
