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
import { archivesWithDueFiles } from '../../catalog/reading/histories.ts';
import type { ArchiveRef } from '../../storage.ts';
import { applyPolicies } from './apply-policies.ts';
import { PolicyUnreadable } from './policy-unreadable.ts';
import { pruneDue } from './prune.ts';
import { defaultRetention, type RetentionPolicy } from './retention.ts';

let storage: TestStorage;
beforeAll(async () => {
  storage = await testStorage();
});
afterAll(() => storage?.close());

test('a policy that deletes what nothing made due is applied, archive by archive; one that cannot be read stops only itself', async () => {
  const policies = new Map<number, RetentionPolicy | null>();
  const deps = {
    readPolicy: async (_: unknown, ref: ArchiveRef) => {
      const policy = policies.get(ref.archive);
      if (!policy) throw new PolicyUnreadable(ref, 'none');
      return policy;
    },
    assertMayDelete: async () => {},
    assertTime: () => {},
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
  expect(await applyPolicies(storage, deps)).toMatchObject({ archives: 3, unreadable: 1 });
  expect(await archivesWithDueFiles(storage.database)).toEqual([refs[1]]);
  expect((await pruneDue(storage, deps)).versions).toBe(2);
  expect(await archivesWithDueFiles(storage.database)).toEqual([]);
});
