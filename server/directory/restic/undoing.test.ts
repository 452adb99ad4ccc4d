/** What no place of a caller's making brings about, and what happens when undoing meets a restic at work. */
import { randomBytes } from 'node:crypto';
import { beforeEach, describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import { commitPlain, type PlainName } from '../../../storage/archive/plain-files/commit-plain.ts';
import { hideFile } from '../../../storage/archive/plain-files/hide-file.ts';
import { listFolder } from '../../../storage/archive/plain-files/list-folder.ts';
import { putFile } from '../../../storage/archive/plain-files/put-file.ts';
import { undoBounds } from '../../../storage/archive/plain-files/undo.ts';
import { storageForFile } from '../../../tests/helpers/storage.ts';
import { type TestTenant, testTenant } from '../organizations/testing.ts';
import { someoneWaits } from '../quotas/test-quotas.ts';
import { type DeviceTarget, findDeviceTarget } from '../targets.ts';
import { createRepository, drawGuid } from './repositories.ts';
import { newResticToken } from './secrets.ts';
import { CreateRepositoryRequest, SetBackRequest, UndeleteRequest } from './shapes.ts';
import { setBack, undelete } from './undoing.ts';

const storage = storageForFile();
let its: TestTenant;
let of: DeviceTarget;

beforeEach(async () => {
  its = await testTenant(storage.database);
  const user = await its.user((await its.chain(its.top, 'sub'))[0]!, 'ann@example.test');
  const drawn = { guid: drawGuid(), token: newResticToken() };
  const request = { tenant: its.tenant, user, ...CreateRepositoryRequest.parse({ name: 'laptop' }) };
  await storage.database.transaction((tx) => createRepository(tx, its.by, request, drawn));
  of = (await findDeviceTarget(storage.database, its.tenant, drawn.guid))!;
});

async function put(folder: string): Promise<PlainName> {
  const bytes = randomBytes(100);
  const digest = sha256(bytes);
  const file = { folder, name: digest.toString('hex') };
  await putFile(
    storage,
    of,
    { file, digest, length: bytes.byteLength },
    (async function* () {
      yield bytes;
    })(),
  );
  return file;
}

async function locks(): Promise<string[]> {
  const names: string[] = [];
  for await (const page of listFolder(storage, of, 'locks')) names.push(...page.map(({ name }) => name));
  return names;
}

async function moment(): Promise<string> {
  const [row] = await storage.rows<{ at: Date }>(
    "SELECT date_trunc('milliseconds', clock_timestamp()) AS at, pg_sleep(0.003)",
  );
  await storage.rows('SELECT pg_sleep(0.003)');
  return row!.at.toISOString();
}

const asking = () => ({ by: its.by, target: of, user: null });
const reason = 'a ransom note';
const undo = (request: object) =>
  storage.database.transaction((tx) => undelete(tx, asking(), UndeleteRequest.parse({ reason, ...request })));
const back = (request: object) =>
  storage.database.transaction((tx) => setBack(tx, asking(), SetBackRequest.parse({ reason, ...request })));

describe('a place that was forged', () => {
  test.each(['locks', 'hide'])('has undoing deletes do nothing of the phase %s', async (phase) => {
    const since = await moment();
    for (let i = 0; i < 2; i++) await hideFile(storage, of, await put('data'));
    const usual = { ...undoBounds };
    Object.assign(undoBounds, { filesMax: 1 });
    const { next } = await undo({ since }).finally(() => Object.assign(undoBounds, usual));
    const lock = await put('locks');
    const place = JSON.parse(Buffer.from(next!, 'base64url').toString());
    const after = Buffer.from(JSON.stringify({ ...place, phase, through: 1e9 })).toString('base64url');
    await expect(undo({ since, after })).rejects.toMatchObject({ code: 'out_of_bounds', extras: { field: 'after' } });
    expect(await locks()).toEqual([lock.name]);
    expect(await undo({ since, after: next })).toMatchObject({ shown: { data: { files: 1 } }, next: null });
    expect(await locks()).toEqual([lock.name]);
  });
});

test('a repository that a restic locks while its setting back begins is in use', async () => {
  await put('data');
  const to = await moment();
  const lock = { folder: 'locks', name: sha256(Buffer.from('lock')).toString('hex') };
  let isOver = false;
  let done: Promise<unknown> | null = null;
  await storage.database.transaction(async (tx) => {
    await commitPlain(tx, of, [{ file: lock, content: { size: 0, blocks: Buffer.alloc(0) } }]);
    done = back({ to }).finally(() => {
      isOver = true;
    });
    done.catch(() => {});
    await someoneWaits(storage, () => isOver);
  });
  await expect(done).rejects.toMatchObject({ code: 'conflict', extras: { inUseSince: expect.any(String) } });
  expect(await locks()).toEqual([lock.name]);
});
