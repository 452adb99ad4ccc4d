/** Policies of folders, where versions really go: on PostgreSQL, with whole prunes. */
import { expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import { commit, newArchive, newRun, storageForFile, upload, version } from '../../../tests/helpers/storage.ts';
import { listAlerts } from '../../catalog/checking/alerts.ts';
import type { ArchiveRef } from '../../storage.ts';
import { applyPolicies } from './apply-policies.ts';
import { reportPlan } from './plan-report.ts';
import { type ArchivePolicies, type FolderPolicy, onlyPolicy } from './policies.ts';
import { applyPolicy, type PlannedFile, type PruneDeps, pruneArchive } from './prune.ts';
import { defaultRetention, type RetentionPolicy } from './retention.ts';
import { reviewAlert } from './review-alert.ts';

const storage = storageForFile({ settings: { expiryVersionsMin: 20, suspiciousFilesMin: 1_000 } });
const rows = <Row = Record<string, unknown>>(text: string, values: unknown[] = []): Promise<Row[]> =>
  storage.database.query<Row>({ name: '', text }, values);
const content = Buffer.alloc(1_000, 'x');

/** Every window as one spacing. */
const spaced = (everyMinutes: number, more: Partial<RetentionPolicy> = {}): RetentionPolicy => ({
  ...defaultRetention,
  windows: defaultRetention.windows.map((window) => ({ ...window, everyMinutes })) as never,
  ...more,
});
const everything = spaced(0);
const newestOfDay = spaced(1440);
const folder = (path: string | Buffer, policy: RetentionPolicy, anyCase = false): FolderPolicy => ({
  name: `plan of ${path}`,
  policy,
  folders: [{ path: Buffer.from(path), anyCase }],
});
const withFolders = (policy: RetentionPolicy, ...folders: FolderPolicy[]): ArchivePolicies => ({
  ...onlyPolicy(policy, 'own'),
  folders,
});
const by = (policies: ArchivePolicies): PruneDeps => ({
  readPolicies: async () => policies,
  assertMayDelete: async () => {},
  assertStillHeld: () => {},
});

/** An archive in which each path has three versions of one hour, a hundred days ago. */
async function archiveOf(paths: readonly (string | Buffer)[]): Promise<ArchiveRef> {
  const ref = await newArchive(storage);
  const run = await newRun(storage, ref);
  await upload(storage, ref.vault, [content]);
  for (let i = 0; i < 3; i++)
    await commit(
      storage,
      ref,
      run,
      paths.map((path) => ({ ...version('', [content]), blocks: sha256(content), path: Buffer.from(path) })),
    );
  await rows(
    `UPDATE versions SET committed_at = date_trunc('day', now()) - interval '100 days' + seq * interval '1 minute' WHERE vault_id = $1`,
    [ref.vault],
  );
  return ref;
}

/** How many versions each file has, by the last part of its path. */
async function left(ref: ArchiveRef): Promise<Record<string, number>> {
  const found = await rows<{ name: Buffer; n: number }>(
    `SELECT f.name, count(*)::int AS n FROM versions v JOIN files f USING (vault_id, archive_id, file_id)
      WHERE v.vault_id = $1 GROUP BY f.name ORDER BY f.name`,
    [ref.vault],
  );
  return Object.fromEntries(found.map(({ name, n }) => [name.toString('latin1'), n]));
}

test('what lies in a folder goes by its policy, all else by that of the archive; a second prune takes nothing', async () => {
  const ref = await archiveOf([
    '/data/a',
    '/data/sub/b',
    '/database/c',
    '/d',
    Buffer.from([...Buffer.from('/data/'), 0xff]),
  ]);
  const policies = withFolders(newestOfDay, folder('/data', everything));
  expect(await pruneArchive(storage, ref, by(policies))).toMatchObject({ versions: 4, refused: null });
  expect(await left(ref)).toEqual({ a: 3, b: 3, c: 1, d: 1, '\xff': 3 });
  expect(await pruneArchive(storage, ref, by(policies))).toMatchObject({ files: 0, versions: 0 });
  // The other way about: the folder's is what lets go.
  const strict = withFolders(everything, folder('/data', newestOfDay));
  expect(await pruneArchive(storage, ref, by(strict))).toMatchObject({ versions: 6, refused: null });
  expect(await left(ref)).toEqual({ a: 1, b: 1, c: 1, d: 1, '\xff': 1 });
});

test('where folders lie in one another the file is kept by either, whatever the archive says', async () => {
  const ref = await archiveOf(['/data/a', '/data/mail/b', '/e']);
  const policies = withFolders(everything, folder('/data', newestOfDay), folder('/data/mail', spaced(1)));
  expect(await pruneArchive(storage, ref, by(policies))).toMatchObject({ versions: 2 });
  expect(await left(ref)).toEqual({ a: 1, b: 3, e: 3 });
});

test('paths of Windows are found whatever their case, others in doubt are kept by both', async () => {
  const ref = await archiveOf(['/C:/Users/a', '/Home/b', '/home/c']);
  const policies = withFolders(everything, folder('/C:/users', newestOfDay, true), folder('/home', newestOfDay));
  expect(await pruneArchive(storage, ref, by(policies))).toMatchObject({ versions: 4 });
  expect(await left(ref)).toEqual({ a: 1, b: 3, c: 1 });
});

test('a policy of a folder that comes, changes or goes is noticed where nothing was due', async () => {
  const ref = await archiveOf(['/data/a', '/b']);
  const prune = (policies: ArchivePolicies) => pruneArchive(storage, ref, by(policies));
  await prune(onlyPolicy(everything));
  const due = async () =>
    (await rows(`SELECT 1 FROM files WHERE vault_id = $1 AND prune_after <= now()`, [ref.vault])).length;
  expect(await due()).toBe(0);
  const changes: [ArchivePolicies, boolean][] = [
    [withFolders(everything, folder('/data', everything)), true],
    [withFolders(everything, { ...folder('/data', everything), name: 'renamed' }), false],
    [withFolders(everything, folder('/data', spaced(0, { keepNewest: 1 }))), true],
    [withFolders(everything, folder('/other', spaced(0, { keepNewest: 1 }))), true],
    [onlyPolicy(everything), true],
  ];
  for (const [policies, isOther] of changes) {
    expect([await applyPolicy(storage, ref, by(policies)), await due()]).toEqual([isOther, isOther ? 2 : 0]);
    expect(await prune(policies)).toMatchObject({ versions: 0 });
  }
  expect(
    (await applyPolicies(storage, by(withFolders(everything, folder('/data', newestOfDay))))).changed,
  ).toBeGreaterThan(0);
  expect(await due()).toBe(2);
});

test('a file is planned again when the last of its policies lets go, and not when the first does', async () => {
  const ref = await archiveOf(['/data/a']);
  const [soon, late] = [101, 130].map((keepWithinDays) => spaced(43_200, { keepWithinDays }));
  const again = async (...folders: FolderPolicy[]): Promise<number> => {
    await pruneArchive(storage, ref, by(withFolders(newestOfDay, ...folders)));
    const [row] = await rows<{ days: number }>(
      `SELECT extract(epoch FROM prune_after - date_trunc('day', now()))::float8 / 86400 AS days
         FROM files WHERE vault_id = $1 AND prune_after IS NOT NULL`,
      [ref.vault],
    );
    return Math.floor(row!.days);
  };
  expect(await again(folder('/data', soon!))).toBe(1);
  expect(await again(folder('/data', soon!), folder('/', late!))).toBe(30);
  expect(await left(ref)).toEqual({ a: 3 });
});

test('more than the cap waits for a person, who agrees to these policies and no others', async () => {
  const paths = Array.from({ length: 15 }, (_, i) => `/data/${i}`);
  const ref = await archiveOf(paths);
  const policies = withFolders(everything, folder('/data', newestOfDay));
  expect(await pruneArchive(storage, ref, by(policies))).toMatchObject({ versions: 0, refused: 'over_cap' });
  const [alert] = await listAlerts(storage.database, ref.vault, { reviewed: false, limit: 10 });
  expect(alert).toMatchObject({ kind: 'expiry_cap', details: { expiring: 30 } });
  await reviewAlert(storage, { vault: ref.vault, alert: alert!.alert, by: 'ann' });
  const other = withFolders(everything, folder('/', newestOfDay));
  expect(await pruneArchive(storage, ref, by(other))).toMatchObject({ versions: 0, refused: 'over_cap' });
  const [again] = await listAlerts(storage.database, ref.vault, { reviewed: false, limit: 10 });
  await reviewAlert(storage, { vault: ref.vault, alert: again!.alert, by: 'ann' });
  expect(await pruneArchive(storage, ref, by(other))).toMatchObject({ versions: 30, refused: null });
});

test('policies of folders that change between the look and the batch are not carried out', async () => {
  const ref = await archiveOf(['/data/a']);
  let asked = 0;
  const deps: PruneDeps = {
    ...by(onlyPolicy(everything)),
    readPolicies: async () => withFolders(everything, ...(asked++ < 2 ? [] : [folder('/data', newestOfDay)])),
  };
  expect(await pruneArchive(storage, ref, deps)).toMatchObject({ versions: 0 });
  expect([asked, await left(ref)]).toEqual([3, { a: 3 }]);
});

test('a report says of each file which policies it has, and of each version whose reason it is', async () => {
  const ref = await archiveOf(['/data/a', '/b']);
  const policies = withFolders(
    newestOfDay,
    folder('/data', newestOfDay),
    folder('/data/a', spaced(0, { keepNewest: 2 })),
  );
  const report = reportPlan(storage, ref, by(policies), { dueOnly: false });
  const files: PlannedFile[] = [];
  for (;;) {
    const { done, value } = await report.next();
    if (done) {
      expect(value).toMatchObject({ files: 2, keep: 4, expire: 2, policies });
      break;
    }
    files.push(value);
  }
  const told = files.map(({ path, policies, decisions }) => [
    path.toString(),
    policies.map(({ name }) => name),
    decisions.map(({ keep, by }) => `${keep ? 'stays' : 'goes'} by ${by.name}`),
  ]);
  expect(told).toEqual([
    ['/b', ['own'], ['goes by own', 'goes by own', 'stays by own']],
    [
      '/data/a',
      ['plan of /data', 'plan of /data/a'],
      // The latest stays by any: the first of them is named.
      ['stays by plan of /data/a', 'stays by plan of /data/a', 'stays by plan of /data'],
    ],
  ]);
  expect(await left(ref)).toEqual({ a: 3, b: 3 });
});
