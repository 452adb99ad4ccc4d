import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import { hideFile } from '../../../storage/archive/plain-files/hide-file.ts';
import { putFile } from '../../../storage/archive/plain-files/put-file.ts';
import { undoBounds } from '../../../storage/archive/plain-files/undo.ts';
import { PolicyUnreadable } from '../../../storage/archive/retention/policy-unreadable.ts';
import { pruneArchive } from '../../../storage/archive/retention/prune.ts';
import { defaultRetention } from '../../../storage/archive/retention/retention.ts';
import { newHeldFence, type TestStorage, testStorage } from '../../../tests/helpers/storage.ts';
import { readDeviceRetention, setDeviceRetention } from '../device-retention.ts';
import {
  blockDevice,
  deactivateDevice,
  deauthorizeDevice,
  reactivateDevice,
  renameDevice,
} from '../devices/changes.ts';
import { readDeviceView } from '../devices/read.ts';
import { type TestTenant, testTenant } from '../organizations/testing.ts';
import { pruneDeps, readEffectiveRetention } from '../retention.ts';
import { changeSettings } from '../settings/changing.ts';
import { ChangeSettingsRequest } from '../settings/shapes.ts';
import { type DeviceTarget, findDeviceTarget } from '../targets.ts';
import { createRepository, drawGuid, findMadeRepository, listRepositories, readRepository } from './repositories.ts';
import { newResticToken, resticTokenHash } from './secrets.ts';
import {
  CreatedRepository,
  CreateRepositoryRequest,
  CreateTokenRequest,
  HiddenPage,
  ListHiddenQuery,
  ListRepositoriesQuery,
  ListTokensQuery,
  RepositoryDetails,
  SetBack,
  SetBackQuery,
  SetBackRequest,
  TokenView,
  Undeleted,
  UndeleteRequest,
} from './shapes.ts';
import { createToken, listTokens, revokeToken } from './tokens.ts';
import { listHidden, setBack, trySetBack, undelete } from './undoing.ts';

let storage: TestStorage;
let its: TestTenant;
let sub: number;
let ann: number;

beforeAll(async () => {
  storage = await testStorage();
});
afterAll(() => storage?.close());
beforeEach(async () => {
  its = await testTenant(storage.database);
  sub = (await its.chain(its.top, 'sub'))[0]!;
  ann = await its.user(sub, 'ann@example.test');
});

async function create(name = 'laptop', more: object = {}, user = ann) {
  const drawn = { guid: drawGuid(), token: newResticToken() };
  const request = { tenant: its.tenant, user, ...CreateRepositoryRequest.parse({ name, ...more }) };
  const made = await storage.database.transaction((tx) => createRepository(tx, its.by, request, drawn));
  return { ...made, drawn, guid: drawn.guid };
}

const of = (guid: string) => ({ tenant: its.tenant, guid });
const target = async (guid: string): Promise<DeviceTarget> =>
  (await findDeviceTarget(storage.database, its.tenant, guid))!;
const details = async (guid: string) => RepositoryDetails.parse(await readRepository(storage.database, of(guid)));

async function put(guid: string, folder: string, bytes = randomBytes(100)): Promise<string> {
  const digest = sha256(bytes);
  const name = digest.toString('hex');
  const body = async function* (): AsyncGenerator<Buffer> {
    yield bytes;
  };
  await putFile(storage, await target(guid), { file: { folder, name }, digest, length: bytes.byteLength }, body());
  return `${folder}/${name}`;
}

async function remove(guid: string, file: string): Promise<void> {
  const [folder, name] = file.split('/') as [string, string];
  expect(await hideFile(storage, await target(guid), { folder, name })).not.toBeNull();
}

const settings = (organization: number, request: object) =>
  storage.database.transaction((tx) =>
    changeSettings(tx, its.by, {
      tenant: its.tenant,
      organization,
      expected: null,
      changes: ChangeSettingsRequest.parse(request),
    }),
  );

async function databaseNow(): Promise<Date> {
  const [row] = await storage.rows<{ at: Date }>(
    "SELECT date_trunc('milliseconds', clock_timestamp()) AS at, pg_sleep(0.003)",
  );
  await storage.rows('SELECT pg_sleep(0.003)');
  return row!.at;
}

describe('a repository', () => {
  test('is made with a vault, an archive of its own kind and a token, of which only the digest is kept', async () => {
    const { repository, token, drawn } = await create();
    expect(CreatedRepository.parse({ repository, token })).toMatchObject({
      repository: {
        name: 'laptop',
        path: '/restic/laptop/',
        user: { id: ann },
        health: 'ok',
        files: 0,
        lastBackupAt: null,
      },
      token: { name: 'first', mode: 'full', state: 'inForce', expiresAt: null, createdBy: 'ada' },
    });
    expect(drawn.token).toMatch(/^hfr_[\w-]{43}$/);
    const [row] = await storage.rows<{ hash: Buffer }>(
      'SELECT token_sha256 AS hash FROM restic_tokens WHERE token_id = $1',
      [token.id],
    );
    expect(row!.hash).toEqual(resticTokenHash(drawn.token));
    const archives = await storage.rows(
      'SELECT a.kind, d.token_sha256 AS token FROM devices d JOIN archives a USING (vault_id, archive_id) WHERE d.guid = $1',
      [drawn.guid],
    );
    expect(archives).toEqual([{ kind: 'plain', token: null }]);
    expect((await its.acts('repository.create')).length).toBe(1);
    expect(JSON.stringify(await its.acts('repository.create_token'))).not.toContain(drawn.token.slice(4));
  });

  test('a second goes into the same vault; of one name there is one, whatever its state, for each user', async () => {
    const first = await create();
    const second = await create('desk.top_2-b');
    expect((await target(first.guid)).vault).toBe((await target(second.guid)).vault);
    await expect(create()).rejects.toMatchObject({ code: 'conflict', extras: { field: 'name' } });
    await storage.database.transaction((tx) => deactivateDevice(tx, its.by, { ...of(first.guid), expected: null }));
    await expect(create()).rejects.toMatchObject({ code: 'conflict' });
    const ben = await its.user(its.top, 'ben');
    expect((await create('laptop', {}, ben)).repository.user.id).toBe(ben);
  });

  test('made twice by one request is one', async () => {
    const { drawn, repository } = await create();
    const request = { tenant: its.tenant, user: ann, ...CreateRepositoryRequest.parse({ name: 'laptop' }) };
    const again = await storage.database.transaction((tx) => createRepository(tx, its.by, request, drawn));
    expect(again.repository.guid).toBe(repository.guid);
    expect(await findMadeRepository(storage.database, { tenant: its.tenant, ...drawn })).toEqual(again);
    expect(await its.acts('repository.create')).toHaveLength(1);
  });

  test('two of one name at once: one is made', async () => {
    const done = await Promise.allSettled([create('both'), create('both')]);
    expect(done.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  });

  test.each(['a', 'x'.repeat(64), 'A.b_c-9', '...'])('may be called %j', (name) => {
    expect(CreateRepositoryRequest.safeParse({ name }).success).toBe(true);
  });
  test.each(['', 'x'.repeat(65), 'a/b', 'ü', 'a b', '.', '..', 'a\0', 'a\n'])('may not be called %j', (name) => {
    expect(CreateRepositoryRequest.safeParse({ name }).success).toBe(false);
  });

  test('is not made for a user who is not active, or of another tenant', async () => {
    await storage.rows("UPDATE users SET state = 'blocked' WHERE user_id = $1", [ann]);
    await expect(create()).rejects.toMatchObject({ code: 'conflict' });
    const other = await testTenant(storage.database);
    await expect(create('laptop', {}, other.administrator)).rejects.toMatchObject({ code: 'not_found' });
  });

  test('is renamed, blocked and brought back as devices are, but not signed out', async () => {
    const { guid } = await create();
    await create('other');
    const change = <T>(verb: (tx: never, by: never, request: never) => Promise<T>, more: object = {}): Promise<T> =>
      storage.database.transaction((tx) =>
        verb(tx as never, its.by as never, { ...of(guid), expected: null, ...more } as never),
      );
    expect(await change(renameDevice, { name: 'lap.top' })).toMatchObject({ name: 'lap.top', kind: 'restic' });
    await expect(change(renameDevice, { name: 'lap top' })).rejects.toMatchObject({ code: 'out_of_bounds' });
    await expect(change(renameDevice, { name: 'other' })).rejects.toMatchObject({ code: 'conflict' });
    await expect(change(deauthorizeDevice)).rejects.toMatchObject({ code: 'conflict' });
    expect(await change(blockDevice)).toMatchObject({ state: 'blocked' });
    expect(await change(deactivateDevice)).toMatchObject({ state: 'deactivated', archive: { state: 'cold' } });
    expect(await change(reactivateDevice)).toMatchObject({ state: 'blocked', archive: { state: 'active' } });
  });

  test('are listed as far as the reader reaches, in pages', async () => {
    const mine = [(await create('one')).guid, (await create('two')).guid];
    const ben = await its.user(its.top, 'ben');
    const bens = (await create('one', {}, ben)).guid;
    const list = async (within: Parameters<typeof listRepositories>[1]['within'], query: object = {}) => {
      const page = await listRepositories(
        storage.database,
        { tenant: its.tenant, within },
        ListRepositoriesQuery.parse(query),
      );
      return { guids: page.items.map(({ guid }) => guid), next: page.next };
    };
    expect((await list({ all: true })).guids).toEqual([...mine, bens]);
    expect((await list({ path: sub })).guids).toEqual(mine);
    expect((await list({ user: ben })).guids).toEqual([bens]);
    expect((await list({ all: true }, { search: 'ONE' })).guids).toEqual([mine[0], bens]);
    const first = await list({ all: true }, { limit: 2 });
    expect(first.guids).toEqual(mine);
    expect(await list({ all: true }, { limit: 2, after: first.next })).toEqual({ guids: [bens], next: null });
  });

  test('is as well as its newest snapshot is new, while there is one', async () => {
    const { guid } = await create();
    await storage.rows(`UPDATE devices SET created_at = now() - interval '20 days' WHERE guid = $1`, [guid]);
    await put(guid, 'data');
    const both = async () => {
      const { health } = await details(guid);
      expect((await readDeviceView(storage.database, of(guid))).health).toBe(health);
      return health;
    };
    expect(await both()).toBe('critical');
    const snapshot = await put(guid, 'snapshots');
    expect(await both()).toBe('ok');
    const view = await details(guid);
    expect(view).toMatchObject({ files: 2, bytes: 200, folders: { data: { files: 1 }, snapshots: { files: 1 } } });
    expect((await readDeviceView(storage.database, of(guid))).lastCompletedAt).toBe(view.lastBackupAt);
    await storage.rows(`UPDATE plain_figures SET last_added_at = now() - interval '8 days'`);
    expect(await both()).toBe('warning');
    await remove(guid, snapshot);
    expect(await both()).toBe('critical');
    expect(await details(guid)).toMatchObject({
      lastBackupAt: null,
      hiddenFiles: 1,
      hiddenBytes: 100,
      deletes: [{ files: 1, bytes: 100 }],
      undeleteDays: 30,
    });
  });
});

describe('tokens', () => {
  const make = (guid: string, request: object = {}, token = newResticToken()) =>
    storage.database.transaction((tx) =>
      createToken(tx, its.by, { ...of(guid), ...CreateTokenRequest.parse(request) }, token),
    );
  const list = async (guid: string, query: object = {}) =>
    listTokens(storage.database, of(guid), ListTokensQuery.parse(query));

  test('are made for a time, listed, and revoked for good', async () => {
    const { guid } = await create();
    const made = TokenView.parse(await make(guid, { name: 'prune', mode: 'append', days: 1 }));
    const lasts = Date.parse(made.expiresAt!) - Date.parse(made.createdAt);
    expect(lasts).toBe(86_400_000);
    const revoke = () => storage.database.transaction((tx) => revokeToken(tx, its.by, { ...of(guid), token: made.id }));
    expect(await revoke()).toMatchObject({ state: 'revoked' });
    expect(await revoke()).toMatchObject({ state: 'revoked' });
    expect(await its.acts('repository.revoke_token')).toHaveLength(1);
    expect((await list(guid)).items.map(({ name, state }) => [name, state])).toEqual([
      ['first', 'inForce'],
      ['prune', 'revoked'],
    ]);
    await storage.rows(`UPDATE restic_tokens SET expires_at = now() WHERE guid = $1 AND name = 'first'`, [guid]);
    expect((await list(guid, { limit: 1 })).items).toMatchObject([{ state: 'expired' }]);
  });

  test('drawn once and made twice are one', async () => {
    const { guid } = await create();
    const token = newResticToken();
    expect((await make(guid, {}, token)).id).toBe((await make(guid, {}, token)).id);
  });

  test('are a hundred in force, at most', async () => {
    const { guid } = await create();
    for (let i = 1; i < 100; i++) await make(guid);
    await expect(make(guid)).rejects.toMatchObject({ code: 'conflict' });
    await storage.rows(
      'UPDATE restic_tokens SET revoked_at = now() WHERE guid = $1 AND name = $2 AND token_id = (SELECT min(token_id) FROM restic_tokens WHERE guid = $1)',
      [guid, 'first'],
    );
    await make(guid);
  });

  test.each([{ mode: 'write' }, { days: 0 }, { days: 3_661 }, { name: '' }, { name: 'x'.repeat(256) }])(
    '%j is no token',
    (request) => {
      expect(CreateTokenRequest.safeParse(request).success).toBe(false);
    },
  );

  test('are of repositories that are in use, and of no other device or tenant', async () => {
    const { guid } = await create();
    const other = await testTenant(storage.database);
    for (const tenant of [other.tenant, its.tenant + 1_000])
      await expect(listTokens(storage.database, { tenant, guid }, ListTokensQuery.parse({}))).rejects.toMatchObject({
        code: 'not_found',
      });
    await storage.database.transaction((tx) => deactivateDevice(tx, its.by, { ...of(guid), expected: null }));
    await expect(make(guid)).rejects.toMatchObject({ code: 'conflict' });
    for (const none of ['1', '0', 'x', String(2n ** 63n)])
      await expect(make(none)).rejects.toMatchObject({ code: 'not_found' });
  });
});

describe('retention', () => {
  const days = async (guid: string) => {
    const { policies, from } = await readEffectiveRetention(storage.database, await target(guid));
    return {
      days: policies.policy.deletedAfterDays,
      locks: policies.folders.map(({ policy }) => policy.deletedAfterDays),
      from,
    };
  };

  test('of a repository follows restic.undeleteDays, inherited and locked like any other setting', async () => {
    const { guid } = await create();
    expect(await days(guid)).toEqual({ days: 30, locks: [0], from: 'default' });
    await settings(its.top, { settings: { restic: { undeleteDays: 90 } } });
    expect(await days(guid)).toMatchObject({ days: 90, from: { organization: { id: its.top } } });
    await settings(sub, { settings: { restic: { undeleteDays: 0 } } });
    expect(await days(guid)).toMatchObject({ days: 0, from: { organization: { id: sub } } });
    expect(await details(guid)).toMatchObject({ undeleteDays: 0 });
    await settings(its.top, { locked: { restic: { undeleteDays: true } } });
    expect(await days(guid)).toMatchObject({ days: 90, from: { organization: { id: its.top } } });
    for (const undeleteDays of [-1, 3_651, 1.5, null])
      if (undeleteDays !== null)
        await expect(settings(its.top, { settings: { restic: { undeleteDays } } })).rejects.toMatchObject({
          code: 'out_of_bounds',
        });
    await settings(its.top, { settings: { restic: { undeleteDays: 3_650 } } });
    expect(await days(guid)).toMatchObject({ days: 3_650 });
  });

  test('is not that of organizations, and nobody gives it another', async () => {
    const { guid } = await create();
    const policy = { ...defaultRetention, deletedAfterDays: 1 };
    await settings(its.top, { settings: { retention: { policy } }, locked: { retention: { policy: true } } });
    expect(await days(guid)).toMatchObject({ days: 30, from: 'default' });
    await expect(
      storage.database.transaction((tx) => setDeviceRetention(tx, its.by, { ...of(guid), expected: null, policy })),
    ).rejects.toMatchObject({ code: 'conflict' });
    await expect(readEffectiveRetention(storage.database, await target(guid), { tried: policy })).rejects.toMatchObject(
      {
        code: 'conflict',
      },
    );
    const view = await readDeviceRetention(storage.database, of(guid));
    expect(view).toMatchObject({
      policy: null,
      effective: { policy: { deletedAfterDays: 30 }, from: 'default', plans: [] },
    });
  });

  test('whose days cannot be read deletes nothing', async () => {
    const { guid } = await create();
    await remove(guid, await put(guid, 'data'));
    await storage.rows(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'restic.undeleteDays', '"never"')`,
      [its.tenant, sub],
    );
    await expect(days(guid)).rejects.toBeInstanceOf(PolicyUnreadable);
    const deps = pruneDeps(await newHeldFence(storage));
    await expect(pruneArchive(storage, await target(guid), deps)).rejects.toBeInstanceOf(PolicyUnreadable);
    expect(await details(guid)).toMatchObject({ undeleteDays: null, hiddenFiles: 1 });
  });

  test('prunes what is over, by the setting as it is in the transaction that deletes', async () => {
    const { guid } = await create();
    const kept = await put(guid, 'data');
    await remove(guid, await put(guid, 'data'));
    const deps = pruneDeps(await newHeldFence(storage));
    expect(await pruneArchive(storage, await target(guid), deps)).toMatchObject({ versions: 0 });
    await settings(sub, { settings: { restic: { undeleteDays: 0 } } });
    expect(await pruneArchive(storage, await target(guid), deps)).toMatchObject({ versions: 2 });
    expect(await details(guid)).toMatchObject({ files: 1, hiddenFiles: 0, hiddenBytes: 0 });
    expect(kept).toMatch(/^data/);
  });
});

describe('having back', () => {
  const asking = async (guid: string, user: number | null = null) => ({ by: its.by, target: await target(guid), user });
  const undo = async (guid: string, request: object, user: number | null = null) => {
    const asked = await asking(guid, user);
    return Undeleted.parse(
      await storage.database.transaction((tx) => undelete(tx, asked, UndeleteRequest.parse(request))),
    );
  };
  const back = async (guid: string, request: object, user: number | null = null) => {
    const asked = await asking(guid, user);
    return SetBack.parse(await storage.database.transaction((tx) => setBack(tx, asked, SetBackRequest.parse(request))));
  };
  const hidden = async (guid: string, query: object = {}) =>
    HiddenPage.parse(await listHidden(storage.database, await target(guid), ListHiddenQuery.parse(query)));
  const reason = 'a ransom note';

  test('lists what was deleted, without locks, by type and time, in pages', async () => {
    const { guid } = await create();
    const files = [
      await put(guid, 'data'),
      await put(guid, 'index'),
      await put(guid, 'data'),
      await put(guid, 'locks'),
    ];
    await put(guid, 'data');
    await remove(guid, files[0]!);
    const between = (await databaseNow()).toISOString();
    for (const file of files.slice(1)) await remove(guid, file);
    const names = (page: { items: { name: string }[] }) => page.items.map(({ name }) => name);
    const all = await hidden(guid);
    expect(names(all)).toEqual(files.slice(0, 3));
    const { deletedAt, goesAfter, bytes } = all.items[0]!;
    expect([Date.parse(goesAfter!) - Date.parse(deletedAt), bytes]).toEqual([30 * 86_400_000, 100]);
    expect(names(await hidden(guid, { since: between }))).toEqual(files.slice(1, 3));
    expect(names(await hidden(guid, { until: between }))).toEqual(files.slice(0, 1));
    expect(names(await hidden(guid, { type: 'index' }))).toEqual([files[1]]);
    const first = await hidden(guid, { limit: 2 });
    expect(names(first)).toEqual(files.slice(0, 2));
    const rest = await hidden(guid, { limit: 2, after: first.next });
    expect([names(rest), rest.next]).toEqual([files.slice(2, 3), null]);
  });

  test('undoes deletes by name or since a moment, and is an act with its reason', async () => {
    const { guid } = await create();
    const files = [await put(guid, 'data'), await put(guid, 'snapshots')];
    await remove(guid, files[0]!);
    const at = (await databaseNow()).toISOString();
    await remove(guid, files[1]!);
    expect(await undo(guid, { since: at, reason })).toMatchObject({
      shown: { snapshots: { files: 1, bytes: 100 } },
      next: null,
    });
    const gone = `data/${'0'.repeat(64)}`;
    expect(await undo(guid, { names: [files[0], gone], reason })).toMatchObject({
      shown: { data: { files: 1 } },
      gone: [gone],
    });
    expect(await details(guid)).toMatchObject({ files: 2, hiddenFiles: 0 });
    expect((await its.acts('repository.undelete')).map(({ details }) => details)).toMatchObject([
      { since: at, reason, user: ann, isAll: true },
      { names: 2, reason },
    ]);
  });

  test('needs a reason for what is another’s, and none for one’s own', async () => {
    const { guid } = await create();
    const names = [await put(guid, 'data')];
    await expect(undo(guid, { names })).rejects.toMatchObject({ extras: { field: 'reason' } });
    expect(await undo(guid, { names }, ann)).toMatchObject({ shown: {} });
  });

  test.each([
    {},
    { names: [] },
    { names: ['locks/'.padEnd(70, 'a')] },
    { names: ['data/xyz'] },
    { names: ['config', 'config'] },
    { names: ['config'], since: '2026-01-01T00:00:00Z' },
    { since: 'yesterday' },
  ])('%j undoes nothing', (request) => {
    expect(UndeleteRequest.safeParse(request).success).toBe(false);
  });

  test('sets a repository back, as it was tried before; a step at a time', async () => {
    const { guid } = await create();
    await put(guid, 'data');
    const gone = await put(guid, 'snapshots');
    const to = (await databaseNow()).toISOString();
    await remove(guid, gone);
    const came = await put(guid, 'data');
    let tried: { shown: object; hidden: object; next: string | null } = { shown: {}, hidden: {}, next: null };
    const all: object[] = [];
    do {
      tried = SetBack.parse(
        await trySetBack(
          storage.database,
          await target(guid),
          SetBackQuery.parse({ to, ...(tried.next && { after: tried.next }) }),
        ),
      );
      all.push(tried.shown, tried.hidden);
    } while (tried.next !== null);
    expect(Object.assign({}, ...all)).toMatchObject({ snapshots: { files: 1 }, data: { files: 1 } });
    expect(await details(guid)).toMatchObject({ hiddenFiles: 1 });

    for (let after: string | null | undefined; after !== null; ) {
      const done: { next: string | null } = await back(guid, { to, reason, ...(after && { after }) });
      after = done.next;
    }
    expect((await hidden(guid)).items.map(({ name }) => name)).toEqual([came]);
    expect((await its.acts('repository.set_back'))[0]!.details).toMatchObject({
      to,
      reason,
      shown: { snapshots: { files: 1 } },
    });
  });

  test('not to a moment yet to come, with a strange place, in use, or longer ago than files are kept', async () => {
    const { guid } = await create();
    await put(guid, 'data');
    const to = (await databaseNow()).toISOString();
    const later = new Date(Date.now() + 3_600_000).toISOString();
    await expect(back(guid, { to: later, reason })).rejects.toMatchObject({ extras: { field: 'to' } });
    await expect(back(guid, { to })).rejects.toMatchObject({ extras: { field: 'reason' } });
    await expect(back(guid, { to, reason, after: 'e30' })).rejects.toMatchObject({ extras: { field: 'after' } });
    const usual = { ...undoBounds };
    Object.assign(undoBounds, { filesMax: 1 });
    for (let i = 0; i < 2; i++) await put(guid, 'data');
    const { next } = await back(guid, { to, reason }).finally(() => Object.assign(undoBounds, usual));
    const forged = (more: object): string =>
      Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(next!, 'base64url').toString()), ...more })).toString(
        'base64url',
      );
    for (const committedAt of ['2026-99-99T00:00:00.000Z', '2026-01-01', "'", 'infinity'])
      await expect(back(guid, { to, reason, after: forged({ after: { committedAt, seq: 0 } }) })).rejects.toMatchObject(
        {
          extras: { field: 'after' },
        },
      );
    // What the moment was is not the caller's to say, nor that the refusals were passed.
    const mine = await put(guid, 'data');
    await storage.rows('UPDATE plain_figures SET gone_before = now()');
    await expect(back(guid, { to, reason, after: next })).rejects.toMatchObject({ extras: { complete: false } });
    await storage.rows('UPDATE plain_figures SET gone_before = NULL');
    const now = (await databaseNow()).toISOString();
    await storage.rows('SELECT pg_sleep(0.01)');
    expect(
      await back(guid, {
        to: now,
        reason,
        after: forged({ at: now, since: 0, through: 1e9, after: { committedAt: '1970-01-01T00:00:00.000Z', seq: 0 } }),
      }),
    ).toMatchObject({ shown: {}, hidden: {} });
    expect((await hidden(guid)).items.map(({ name }) => name)).not.toContain(mine);
    for (const beyond of ['0000-01-01T00:00:00Z', '1969-12-31T23:59:59Z', '9999-12-31T23:59:59-01:00']) {
      expect(SetBackRequest.safeParse({ to: beyond, reason }).success).toBe(false);
      expect(UndeleteRequest.safeParse({ since: beyond }).success).toBe(false);
    }
    for (const within of ['1970-01-01T00:00:00Z', '9999-12-31T23:59:59Z'])
      expect(UndeleteRequest.safeParse({ since: within }).success).toBe(true);
    const other = new Date(Date.parse(to) - 1).toISOString();
    await expect(back(guid, { to: other, reason, after: next })).rejects.toMatchObject({ extras: { field: 'after' } });

    const month = (days: number) => new Date(Date.now() - days * 86_400_000).toISOString();
    expect(await back(guid, { to: month(3_000), reason })).toMatchObject({ complete: true });
    const gone = `UPDATE plain_figures SET gone_before = $1 WHERE folder = $2`;
    await storage.rows(gone, [month(1), 'locks']);
    expect(await back(guid, { to: month(30), reason })).toMatchObject({ complete: true });
    await storage.rows(gone, [month(30), 'data']);
    expect(await back(guid, { to: month(29.9), reason })).toMatchObject({ complete: true });
    await expect(back(guid, { to: month(30.1), reason })).rejects.toMatchObject({ extras: { complete: false } });
    expect(await back(guid, { to: month(30.1), reason, evenIfIncomplete: true })).toMatchObject({ complete: false });

    await put(guid, 'locks');
    await expect(back(guid, { to, reason })).rejects.toMatchObject({
      code: 'conflict',
      extras: { inUseSince: expect.any(String) },
    });
    expect(await back(guid, { to, reason, evenIfInUse: true })).toMatchObject({ inUseSince: expect.any(String) });
    await storage.rows("UPDATE plain_figures SET last_added_at = now() - interval '31 minutes' WHERE folder = 'locks'");
    expect(await back(guid, { to, reason })).toMatchObject({ inUseSince: null });
  });

  test('not of one whose archive is cold', async () => {
    const { guid } = await create();
    const names = [await put(guid, 'data')];
    await remove(guid, names[0]!);
    await storage.database.transaction((tx) => deactivateDevice(tx, its.by, { ...of(guid), expected: null }));
    await expect(undo(guid, { names, reason })).rejects.toMatchObject({ code: 'archive_not_active' });
  });
});
