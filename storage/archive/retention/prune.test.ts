import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import {
  commit,
  deletion,
  newArchive,
  newRun,
  type TestStorage,
  testStorage,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { listAlerts } from '../../catalog/checking/alerts.ts';
import { foldVaultUsage, readVaultUsage } from '../../catalog/usage.ts';
import type { ArchiveRef } from '../../storage.ts';
import { reclaimDue } from '../deleting/reclaim.ts';
import { readHistory, streamVersions } from '../reading/read-tree.ts';
import { onlyPolicy } from './policies.ts';
import { PolicyUnreadable } from './policy-unreadable.ts';
import { type PruneDeps, planFiles, pruneArchive, pruneDue } from './prune.ts';
import { defaultRetention, type RetentionPolicy } from './retention.ts';
import { reviewAlert } from './review-alert.ts';

let storage: TestStorage;
beforeAll(async () => {
  storage = await testStorage({
    settings: {
      claimWindowMs: 0,
      freedMarginMs: 0,
      objectDeleteDelayMs: 0,
      suspiciousFilesMin: 5,
      expiryVersionsMin: 20,
    },
  });
});
afterAll(() => storage.close());

const block = (seed: string, length = 3000): Buffer => Buffer.alloc(length, `block ${seed} `);
const withPolicy = (policy: RetentionPolicy = defaultRetention): PruneDeps => ({
  readPolicies: async () => onlyPolicy(policy),
  assertMayDelete: async () => {},
  assertStillHeld: () => {},
});
const nothingStays: RetentionPolicy = { ...defaultRetention, deletedAfterDays: 0 };

async function rows<Row = Record<string, unknown>>(text: string, values: unknown[] = []): Promise<Row[]> {
  return storage.database.query<Row>({ name: '', text }, values);
}

/** A vault of its own with an archive and a run. */
async function begin(): Promise<{ ref: ArchiveRef; run: number }> {
  const ref = await newArchive(storage);
  return { ref, run: await newRun(storage, ref) };
}

/** Commits one more state of each path, all of the one block `x`, which is there. */
function commitAll(ref: ArchiveRef, run: number, paths: readonly string[]): ReturnType<typeof commit> {
  return commit(
    storage,
    ref,
    run,
    paths.map((path) => version(path, [block('x')])),
  );
}

/** Commits states of one path, one after the other, each of one block of its own. */
async function commitStates(ref: ArchiveRef, run: number, path: string, contents: string[]): Promise<void> {
  for (const content of contents) {
    await upload(storage, ref.vault, [block(content)]);
    await commit(storage, ref, run, [version(path, [block(content)])]);
  }
}

/** Sets everything committed so far back in time. */
async function age(ref: ArchiveRef, days: number): Promise<void> {
  for (const table of ['versions', 'commits'])
    await rows(`UPDATE ${table} SET committed_at = committed_at - $1 * interval '1 day' WHERE vault_id = $2`, [
      days,
      ref.vault,
    ]);
  await rows(`UPDATE archives SET last_committed_at = last_committed_at - $1 * interval '1 day' WHERE vault_id = $2`, [
    days,
    ref.vault,
  ]);
}

async function seqsOf(ref: ArchiveRef): Promise<number[]> {
  const found = await rows<{ seq: number }>(
    'SELECT seq FROM versions WHERE vault_id = $1 AND archive_id = $2 ORDER BY seq',
    [ref.vault, ref.archive],
  );
  return found.map((row) => row.seq);
}

async function countOf(table: string, vault: number): Promise<number> {
  const [row] = await rows<{ n: number }>(`SELECT count(*) AS n FROM ${table} WHERE vault_id = $1`, [vault]);
  return row!.n;
}

test('what retention lets go of leaves versions, counts, block rows and usage; what it keeps stays whole', async () => {
  const { ref, run } = await begin();
  await commitStates(ref, run, '/often', ['a', 'b', 'c']);
  await commitStates(ref, run, '/once', ['c', 'once']); // shares a block with the newest of the other
  await age(ref, 30);

  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 3, refused: null });
  expect(await seqsOf(ref)).toEqual([3, 5]);
  const { versions } = await readHistory(storage, ref, { path: Buffer.from('/often'), after: null, limit: 10 });
  expect(versions.map((each) => each.blocks)).toEqual([sha256(block('c'))]);

  expect(await countOf('freed', ref.vault)).toBe(2);
  expect(await reclaimDue(storage)).toMatchObject({ blocks: 2, drifts: 0 });
  expect(await countOf('freed', ref.vault)).toBe(0);
  const left = await rows<{ hash: Buffer; refs: number }>('SELECT hash, refs FROM blocks WHERE vault_id = $1', [
    ref.vault,
  ]);
  expect(new Map(left.map((row) => [row.hash.toString('hex'), row.refs]))).toEqual(
    new Map([
      [sha256(block('c')).toString('hex'), 1],
      [sha256(block('once')).toString('hex'), 1],
    ]),
  );
  const usage = { logicalBytes: 6000, storedBytes: 6000, referencedBytes: 6000, versions: 2 };
  expect(await readVaultUsage(storage.database, ref.vault)).toMatchObject(usage);
  await foldVaultUsage(storage.database, ref.vault);
  expect(await countOf('usage_deltas', ref.vault)).toBe(0);
  expect(await readVaultUsage(storage.database, ref.vault)).toMatchObject(usage);
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ files: 0, versions: 0 });
});

test('a deleted file goes with its row, and the folders it leaves empty with it', async () => {
  const { ref, run } = await begin();
  await commitStates(ref, run, '/folder/below/file', ['x']);
  await commit(storage, ref, run, [version('/folder/other', [block('x')]), deletion('/folder/below/file')]);
  await age(ref, 2);
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 0 }); // never, by default
  expect(await pruneArchive(storage, ref, withPolicy(nothingStays))).toMatchObject({ versions: 2 });
  const names = await rows<{ name: Buffer }>('SELECT name FROM files WHERE vault_id = $1 ORDER BY name', [ref.vault]);
  expect(names.map((row) => `${row.name}`)).toEqual(['folder', 'other']);

  await commit(storage, ref, run, [deletion('/folder/other')]);
  await age(ref, 2);
  await pruneArchive(storage, ref, withPolicy(nothingStays));
  expect([await countOf('files', ref.vault), await countOf('versions', ref.vault)]).toEqual([0, 0]);
  await reclaimDue(storage);
  expect(await countOf('blocks', ref.vault)).toBe(0);
  expect(await rows('SELECT state FROM objects WHERE vault_id = $1', [ref.vault])).toEqual([{ state: 'dead' }]);
  const [archive] = await rows('SELECT version_count, live_files FROM archives WHERE vault_id = $1', [ref.vault]);
  expect(archive).toEqual({ version_count: 0, live_files: 0 });
});

describe('a hold', () => {
  const place = (ref: ArchiveRef, policy: object, released: string | null = null): Promise<unknown> =>
    rows('INSERT INTO holds (vault_id, policy, release_effective_at) VALUES ($1, $2, now() + $3::interval)', [
      ref.vault,
      JSON.stringify(policy),
      released,
    ]);

  test.each([
    { name: 'keeps everything when it has no bounds', policy: {}, kept: [1, 2, 3, 4, 5] },
    { name: 'keeps everything when it is not understood', policy: { mailboxes: ['ann'] }, kept: [1, 2, 3, 4, 5] },
    { name: 'keeps what lies below its paths', policy: { paths: ['/held'] }, kept: [1, 2, 3, 5] },
    { name: 'does not take a longer name for one below', policy: { paths: ['/hel'] }, kept: [3, 5] },
    {
      name: 'keeps nothing of a time before there was anything',
      policy: { until: '2000-01-01T00:00:00Z' },
      kept: [3, 5],
    },
    { name: 'keeps what was current in its time', policy: { from: '2000-01-01T00:00:00Z' }, kept: [1, 2, 3, 4, 5] },
    { name: 'keeps nothing once its release is effective', policy: {}, released: '-1 s', kept: [3, 5] },
    { name: 'keeps everything until its release is effective', policy: {}, released: '1 hour', kept: [1, 2, 3, 4, 5] },
  ])('$name', async ({ policy, released, kept }) => {
    const { ref, run } = await begin();
    await commitStates(ref, run, '/held/file', ['1', '2', '3']);
    await commitStates(ref, run, '/free', ['4', '5']);
    await age(ref, 30);
    await place(ref, policy, released ?? null);
    expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 5 - kept.length });
    expect(await seqsOf(ref)).toEqual(kept);
  });
});

test('what a reader has begun to read stays until its lease ends', async () => {
  const { ref, run } = await begin();
  await commitStates(ref, run, '/file', ['1', '2']);
  const reading = streamVersions(storage, ref, {
    path: Buffer.from('/'),
    at: null,
    seq: null,
    after: null,
    deleted: false,
  });
  expect((await reading.next()).value).toMatchObject({ frame: 'begin', seq: 2 });
  await commitStates(ref, run, '/file', ['3', '4']);
  await age(ref, 30);
  await pruneArchive(storage, ref, withPolicy());
  expect(await seqsOf(ref)).toEqual([2, 4]);
  const frame = (await reading.next()).value;
  expect(frame).toMatchObject({ frame: 'versions', versions: [{ seq: 2, blocks: sha256(block('2')) }] });

  await rows(`UPDATE restores SET lease_until = now() - interval '1 s' WHERE vault_id = $1`, [ref.vault]);
  await rows(`UPDATE files SET prune_after = now() WHERE vault_id = $1`, [ref.vault]);
  await pruneArchive(storage, ref, withPolicy());
  expect(await seqsOf(ref)).toEqual([4]);
});

test('more than the cap is an alert and deletes nothing, until somebody has looked; then once', async () => {
  const { ref, run } = await begin();
  const paths = Array.from({ length: 12 }, (_, i) => `/file ${i}`);
  await upload(storage, ref.vault, [block('x')]);
  for (let i = 0; i < 3; i++) await commitAll(ref, run, paths);
  await age(ref, 30);

  // 24 of 36 would go: over 30 % and over 20.
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 0, refused: 'over_cap' });
  expect(await seqsOf(ref)).toHaveLength(36);
  const [alert, ...others] = await listAlerts(storage.database, ref.vault, { reviewed: false, limit: 10 });
  expect(others).toEqual([]);
  const details = { cap: 20, versionCount: 36, expiring: 24 };
  expect(alert).toMatchObject({ kind: 'expiry_cap', archive: ref.archive, details });

  await reviewAlert(storage, { vault: ref.vault, alert: alert!.alert, by: 'ann' });
  await expect(reviewAlert(storage, { vault: ref.vault, alert: alert!.alert, by: 'ann' })).rejects.toMatchObject({
    code: 'not_found',
  });
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 24, refused: null });

  for (let i = 0; i < 3; i++) await commitAll(ref, run, paths);
  await age(ref, 30);
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 0, refused: 'over_cap' });
});

test('a leave to go over the cap is for what was asked, and for nothing else', async () => {
  const { ref, run } = await begin();
  const paths = Array.from({ length: 12 }, (_, i) => `/file ${i}`);
  await upload(storage, ref.vault, [block('x')]);
  const more = () => commitAll(ref, run, paths);
  for (let i = 0; i < 3; i++) await more();
  await age(ref, 30);
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ refused: 'over_cap' });
  const alertOf = async () => (await listAlerts(storage.database, ref.vault, { reviewed: false, limit: 1 }))[0]!.alert;
  await reviewAlert(storage, { vault: ref.vault, alert: await alertOf(), by: 'ann' });
  // Another policy, which would delete more than was agreed to.
  const none: RetentionPolicy = {
    ...defaultRetention,
    windows: defaultRetention.windows.map((each) => ({
      ...each,
      everyMinutes: 5_256_000,
    })) as unknown as RetentionPolicy['windows'],
  };
  await more();
  await age(ref, 30);
  expect(await pruneArchive(storage, ref, withPolicy(none))).toMatchObject({ versions: 0, refused: 'over_cap' });
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 0, refused: 'over_cap' });
  expect(await seqsOf(ref)).toHaveLength(48);
});

test('the cap is for a day, however many prunes there are, and what was agreed to does not count', async () => {
  const { ref, run } = await begin();
  const paths = Array.from({ length: 15 }, (_, i) => `/file ${i}`);
  await upload(storage, ref.vault, [block('x')]);
  const more = () => commitAll(ref, run, paths);
  for (let i = 0; i < 2; i++) await more();
  await age(ref, 30);
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 15, refused: null });
  for (let i = 0; i < 2; i++) await more();
  await age(ref, 30);
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 0, refused: 'over_cap' }); // 15 more than the 20 a day
  await rows(`UPDATE archives SET expired_since = now() - interval '25 hours' WHERE vault_id = $1`, [ref.vault]);
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 15, refused: null });
});

test('a policy that changes between the look and the batch is not carried out', async () => {
  const { ref, run } = await begin();
  const paths = Array.from({ length: 30 }, (_, i) => `/file ${i}`);
  await upload(storage, ref.vault, [block('x')]);
  await commit(
    storage,
    ref,
    run,
    paths.map((path) => version(path, [block('x')])),
  );
  await commit(storage, ref, run, paths.map(deletion));
  await age(ref, 30);
  let asked = 0;
  const changing: PruneDeps = {
    ...withPolicy(),
    readPolicies: async () => onlyPolicy(asked++ < 2 ? defaultRetention : nothingStays),
  };
  expect(await pruneArchive(storage, ref, changing)).toMatchObject({ versions: 0 });
  expect(await seqsOf(ref)).toHaveLength(60);
});

test('a time that the clocks do not agree on decides nothing', async () => {
  const { ref, run } = await begin();
  await commitStates(ref, run, '/file', ['1', '2']);
  await age(ref, 30);
  const wrong = {
    ...withPolicy(),
    assertStillHeld: () => {
      throw new Error('the clock jumped');
    },
  };
  await expect(pruneArchive(storage, ref, wrong)).rejects.toThrow('the clock jumped');
  expect(await seqsOf(ref)).toEqual([1, 2]);
});

test('a policy that cannot be read is told, once for each archive, until it can be read; nothing is deleted', async () => {
  const [first, second] = [await begin(), await begin()];
  for (const { ref, run } of [first, second]) {
    await commitStates(ref, run, '/file', ['1', '2']);
    await age(ref, 30);
  }
  const open = (ref: ArchiveRef): Promise<unknown[]> =>
    listAlerts(storage.database, ref.vault, { reviewed: false, limit: 10 });
  const why = 'x'.repeat(501);
  const deps: PruneDeps = {
    ...withPolicy(),
    readPolicies: async (_, ref) => {
      if (ref.archive === first.ref.archive) throw new PolicyUnreadable(ref, why);
      return onlyPolicy(defaultRetention);
    },
  };
  for (let count = 1; count <= 2; count++) {
    await expect(pruneDue(storage, deps)).rejects.toThrow(PolicyUnreadable);
    expect(await open(first.ref)).toMatchObject([
      { kind: 'retention_unreadable', archive: first.ref.archive, details: { why: why.slice(1) }, count },
    ]);
    expect(await open(second.ref)).toEqual([]);
    expect([await seqsOf(first.ref), await seqsOf(second.ref)]).toEqual([[1, 2], [2]]);
  }
  expect(await pruneArchive(storage, first.ref, withPolicy())).toMatchObject({ versions: 1 });
  expect(await open(first.ref)).toEqual([]);
});

test('a policy that becomes unreadable between the look and the batch is told, too', async () => {
  const { ref, run } = await begin();
  await commitStates(ref, run, '/file', ['1', '2']);
  await age(ref, 30);
  let asked = 0;
  const readPolicies: PruneDeps['readPolicies'] = async () => {
    if (++asked > 2) throw new PolicyUnreadable(ref, 'none');
    return onlyPolicy(defaultRetention);
  };
  await expect(pruneArchive(storage, ref, { ...withPolicy(), readPolicies })).rejects.toThrow(PolicyUnreadable);
  expect([asked, await seqsOf(ref)]).toEqual([3, [1, 2]]);
  expect(await listAlerts(storage.database, ref.vault, { reviewed: false, limit: 10 })).toMatchObject([
    { kind: 'retention_unreadable', archive: ref.archive, details: { why: 'none' } },
  ]);
});

test('an archive with a fault keeps no other from its turn', async () => {
  const [first, second] = [await begin(), await begin()];
  for (const { ref, run } of [first, second]) {
    await commitStates(ref, run, '/file', ['1', '2']);
    await age(ref, 30);
  }
  const deps: PruneDeps = {
    ...withPolicy(),
    readPolicies: async (_, ref) => {
      if (ref.archive === first.ref.archive) throw new Error('no policy');
      return onlyPolicy(defaultRetention);
    },
  };
  await expect(pruneDue(storage, deps)).rejects.toThrow('no policy');
  expect(await seqsOf(first.ref)).toEqual([1, 2]);
  expect(await seqsOf(second.ref)).toEqual([2]);
});

test('commits dated by a clock that was years ahead are kept apart when it is right again', async () => {
  const { ref, run } = await begin();
  await commitStates(ref, run, '/file', ['1', '2']);
  await age(ref, -3_650);
  await commitStates(ref, run, '/file', ['3', '4']); // a microsecond after the last one
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 0, refused: null });
  expect(await seqsOf(ref)).toEqual([1, 2, 3, 4]);
});

test('at the cap nothing is wrong', async () => {
  const { ref, run } = await begin();
  const paths = Array.from({ length: 10 }, (_, i) => `/file ${i}`);
  await upload(storage, ref.vault, [block('x')]);
  for (let i = 0; i < 3; i++) await commitAll(ref, run, paths);
  await age(ref, 30);
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 20, refused: null });
});

test('a run that changes or deletes most files freezes expiry, and says what was before it', async () => {
  const { ref, run } = await begin();
  const paths = Array.from({ length: 10 }, (_, i) => `/file ${i}`);
  await upload(storage, ref.vault, [block('good'), block('locked')]);
  await commit(
    storage,
    ref,
    run,
    paths.map((path) => version(path, [block('good')])),
  );
  await commit(
    storage,
    ref,
    run,
    paths.map((path) => version(path, [block('good')], { mtime: 5 })),
  ); // only times
  expect(await rows('SELECT suspicious FROM runs WHERE vault_id = $1', [ref.vault])).toEqual([{ suspicious: false }]);

  const attack = await newRun(storage, ref); // on the same day
  const changed = (path: string) => version(path, [block('locked')]);
  await commit(storage, ref, attack, paths.slice(0, 4).map(changed)); // 4 of 10, and fewer than 5
  expect(await listAlerts(storage.database, ref.vault, { reviewed: false, limit: 10 })).toEqual([]);
  await commit(storage, ref, attack, [deletion(paths[4]!)]);
  const [alert] = await listAlerts(storage.database, ref.vault, { reviewed: false, limit: 10 });
  expect(alert).toMatchObject({
    kind: 'suspicious_run',
    details: { run: attack, beforeSeq: 20, watchBeforeSeq: 20, replacedFiles: 5, liveFilesBefore: 10 },
  });

  await age(ref, 30);
  expect(await pruneArchive(storage, ref, withPolicy(nothingStays))).toMatchObject({ versions: 0, refused: 'frozen' });
  expect(await seqsOf(ref)).toHaveLength(25);
  await reviewAlert(storage, { vault: ref.vault, alert: alert!.alert, by: 'ann' });
  expect(await pruneArchive(storage, ref, withPolicy(nothingStays))).toMatchObject({ refused: null, versions: 16 });
});

describe('the watch for mass changes', () => {
  const paths = Array.from({ length: 10 }, (_, i) => `/file ${i}`);
  const alerts = (ref: ArchiveRef) => listAlerts(storage.database, ref.vault, { reviewed: false, limit: 10 });
  const all = (content: string, of = paths) => of.map((path) => version(path, [block(content)]));

  async function filled(): Promise<{ ref: ArchiveRef; run: number }> {
    const { ref, run } = await begin();
    await upload(
      storage,
      ref.vault,
      ['good', 'a', 'b'].map((content) => block(content)),
    );
    await commit(storage, ref, run, all('good'));
    return { ref, run: await newRun(storage, ref) };
  }

  test('counts over several runs', async () => {
    const { ref } = await filled();
    await commit(storage, ref, await newRun(storage, ref), all('a', paths.slice(0, 3)));
    await commit(storage, ref, await newRun(storage, ref), all('a', paths.slice(3, 4)));
    expect(await alerts(ref)).toEqual([]);
    await commit(storage, ref, await newRun(storage, ref), all('a', paths.slice(4, 5)));
    expect(await alerts(ref)).toMatchObject([
      { kind: 'suspicious_run', details: { watchBeforeSeq: 10, replacedFiles: 5 } },
    ]);
  });

  test('counts a file once, and none that was not there: many changes of a few files are no alarm', async () => {
    const { ref, run } = await filled();
    for (const content of ['a', 'b', 'a', 'b']) await commit(storage, ref, run, all(content, paths.slice(0, 4)));
    const fresh = await begin();
    await upload(storage, fresh.ref.vault, [block('a'), block('b')]);
    for (const content of ['a', 'b', 'a']) await commit(storage, fresh.ref, fresh.run, all(content));
    expect([await alerts(ref), await alerts(fresh.ref)]).toEqual([[], []]);
  });

  test('is about files with content: folders and empty files do not hide a change of all others', async () => {
    const { ref, run } = await filled();
    const others = Array.from({ length: 40 }, (_, i) => version(`/folder ${i}`, [], { kind: 'directory' }));
    await commit(storage, ref, run, [...others, version('/empty')]);
    await commit(storage, ref, await newRun(storage, ref), all('a', paths.slice(0, 5)));
    expect(await alerts(ref)).toHaveLength(1);
  });

  test('begins anew after a review, and an alert keeps what the first run came after', async () => {
    const { ref, run } = await filled();
    await commit(storage, ref, run, all('a'));
    const [first] = await alerts(ref);
    await reviewAlert(storage, { vault: ref.vault, alert: first!.alert, by: 'ann' });
    const second = await newRun(storage, ref);
    await commit(storage, ref, second, all('b'));
    expect(await alerts(ref)).toMatchObject([{ details: { run: second, watchBeforeSeq: 20 } }]);
  });
});

test('only files with history are looked at, each again when its plan can change, all when the policy does', async () => {
  const { ref, run } = await begin();
  await commitStates(ref, run, '/still', ['s']);
  await commitStates(ref, run, '/changing', ['1']);
  await age(ref, 3);
  await commitStates(ref, run, '/changing', ['2']);
  const due = async () => {
    const found = await rows<{ name: Buffer; due: string | null }>(
      `SELECT name, CASE WHEN prune_after <= now() THEN 'now' WHEN prune_after IS NULL THEN NULL ELSE 'later' END AS due FROM files WHERE vault_id = $1`,
      [ref.vault],
    );
    return Object.fromEntries(found.map((row) => [`${row.name}`, row.due]));
  };
  expect(await due()).toEqual({ still: null, changing: 'now' });
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ files: 1, versions: 0 });
  expect(await due()).toEqual({ still: null, changing: 'later' });
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ files: 0 });

  const coarse: RetentionPolicy = {
    ...defaultRetention,
    windows: defaultRetention.windows.map((each) => ({
      ...each,
      everyMinutes: 5_256_000,
    })) as unknown as RetentionPolicy['windows'],
  };
  expect(await pruneArchive(storage, ref, withPolicy(coarse))).toMatchObject({ files: 1, versions: 1 });
  expect(await due()).toEqual({ still: null, changing: null });
});

test('a file with more versions than a batch goes in several, oldest first', async () => {
  const { ref, run } = await begin();
  await commitStates(ref, run, '/log', ['1']);
  await rows(
    `INSERT INTO versions (vault_id, archive_id, file_id, seq, committed_at, kind, deleted, size, mtime, attributes, mac, blocks)
     SELECT vault_id, archive_id, file_id, seq + n, committed_at + n * interval '1 ms', kind, deleted, 0, mtime, '', mac, ''
       FROM versions, generate_series(1, 4500) n WHERE vault_id = $1`,
    [ref.vault],
  );
  await rows('UPDATE archives SET version_count = 30000, next_seq = 4502 WHERE vault_id = $1', [ref.vault]);
  await rows('UPDATE files SET prune_after = now() WHERE vault_id = $1', [ref.vault]);
  await age(ref, 30);
  expect(await pruneArchive(storage, ref, withPolicy())).toMatchObject({ versions: 4500, batches: 3 });
  expect(await seqsOf(ref)).toEqual([4501]);
});

test('a dry run says what would happen to every version, and why, and changes nothing', async () => {
  const { ref, run } = await begin();
  await commitStates(ref, run, '/a/file', ['1', '2']);
  await commitStates(ref, run, '/single', ['3']);
  await age(ref, 30);
  const files = await Array.fromAsync(planFiles(storage, ref, withPolicy(), { dueOnly: false, withPaths: true }));
  expect(files.map(({ path, decisions }) => [`${path}`, decisions.map((each) => [each.seq, each.keep])])).toEqual([
    [
      '/a/file',
      [
        [1, false],
        [2, true],
      ],
    ],
  ]);
  expect(await seqsOf(ref)).toEqual([1, 2, 3]);
});

test('counts that do not close delete nothing, and are told', async () => {
  const { ref, run } = await begin();
  await commitStates(ref, run, '/file', ['1', '2']);
  await age(ref, 30);
  await rows('UPDATE blocks SET refs = 0 WHERE vault_id = $1', [ref.vault]);
  expect(await pruneDue(storage, withPolicy())).toMatchObject({ refused: expect.any(Number) });
  expect(await seqsOf(ref)).toEqual([1, 2]);
  expect(await listAlerts(storage.database, ref.vault, { reviewed: false, limit: 10 })).toMatchObject([
    { kind: 'refs_drift' },
  ]);
});

test('without the fence nothing is deleted', async () => {
  const { ref, run } = await begin();
  await commitStates(ref, run, '/file', ['1', '2']);
  await age(ref, 30);
  const stopped = { ...withPolicy(), assertMayDelete: () => Promise.reject(new Error('stopped')) };
  await expect(pruneArchive(storage, ref, stopped)).rejects.toThrow('stopped');
  expect(await seqsOf(ref)).toEqual([1, 2]);
});
