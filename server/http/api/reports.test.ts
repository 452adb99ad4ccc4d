/** Retention, alerts and reports of the JSON API on a real catalog: what is asked over HTTP, and what is answered. */
import { createHash, randomBytes } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { RegisterRequest } from '../../../protocol/messages.ts';
import { findDamageUsers } from '../../../storage/archive/checking/damage.ts';
import { openFence } from '../../../storage/archive/checking/fence.ts';
import { defaultRetention } from '../../../storage/archive/retention/retention.ts';
import { listAlerts, raiseAlert } from '../../../storage/catalog/checking/alerts.ts';
import {
  commit,
  deletion,
  newRun,
  type TestStorage,
  testStorage,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { registerDevice } from '../../directory/devices/register.ts';
import { type Directory, openDirectory } from '../../directory/directory.ts';
import { localKeyService } from '../../directory/keys/local-keys.ts';
import { insertOrganization, insertTenant } from '../../directory/organizations/inserting.ts';
import { newRegistrationKey } from '../../directory/organizations/registration-key.ts';
import { createSession, type Owner } from '../../directory/sign-in/sessions/sessions.ts';
import { drawTokens } from '../../directory/sign-in/sessions/tokens-of-session.ts';
import { insertUser } from '../../directory/users/people.ts';
import { type Answer, h2, problem, request, startTestServer, type TestServer } from '../testing.ts';

let storage: TestStorage;
let directory: Directory;
let server: TestServer;
let session: ClientHttp2Session;
const password = 'of everybody here';

interface Tenant {
  id: number;
  root: number;
  leaf: number;
  key: string;
  /** Of `boss`. */
  token: string;
}
let tenant: Tenant;
/** Of one who runs the server. */
let operator: { id: null; token: string };

const signIn = async (owner: Owner): Promise<string> => {
  const made = { owner, limited: false, provider: null, address: null, program: null };
  return (await storage.database.transaction((tx) => createSession(tx, made, drawTokens()))).accessToken;
};

/** root > leaf; `boss` administers and is in the root, `ann` in the leaf. */
async function makeTenant(): Promise<Tenant> {
  const key = newRegistrationKey();
  const passwordHash = await directory.passwords.hash(password);
  const { boss, ...made } = await storage.database.transaction(async (tx) => {
    const tenantId = await insertTenant(tx, 'tenant');
    const add = (name: string, parentId: number | null, registrationKey: string): Promise<number> =>
      insertOrganization(tx, { tenantId, parentId, name, registrationKey });
    const root = await add('root', null, newRegistrationKey());
    const leaf = await add('leaf', root, key);
    const administrator = { name: 'boss', passwordHash, administrator: true };
    const boss = await insertUser(tx, { tenantId, organizationId: root, ...administrator });
    await insertUser(tx, { tenantId, organizationId: leaf, name: 'ann', passwordHash });
    return { id: tenantId, root, leaf, key, boss };
  });
  return { ...made, token: await signIn({ tenant: made.id, user: boss }) };
}

async function registerOf(of: Tenant, userName = 'ann') {
  const registration = RegisterRequest.parse({
    registrationKey: of.key,
    userName,
    password,
    device: { name: 'laptop', platform: 'linux', agentVersion: '1' },
    vaultKey: { level: 'standard' },
  });
  const { guid, vault, archive } = await registerDevice(directory, registration, '192.0.2.1');
  return { guid, ref: { vault, archive } };
}

beforeAll(async () => {
  storage = await testStorage({ settings: { expiryVersionsMin: 3 } });
  const keys = localKeyService([randomBytes(32)]);
  directory = openDirectory({ database: storage.database, keys, passwordHashesMax: 2, signInsPerMinute: 1_000 });
  server = await startTestServer({ storage, directory });
  session = await h2(server);
  tenant = await makeTenant();
  const [row] = await storage.rows<{ id: number }>(
    `INSERT INTO operators (name, password_hash) VALUES ('olga', '-') RETURNING operator_id AS id`,
  );
  operator = { id: null, token: await signIn({ operator: row!.id }) };
});

afterAll(async () => {
  session?.destroy();
  await server?.shutDown({ leaveMs: 0, drainMs: 100 });
  await storage?.close();
});

/** Asks as the administrator of a tenant, or as one who runs the server. */
async function ask(method: string, path: string, body?: unknown, as: { token: string } = tenant): Promise<Answer> {
  const headers = { ':method': method, ':path': path, authorization: `Bearer ${as.token}` };
  if (body === undefined) return request(session, headers);
  const bytes = typeof body === 'string' ? Buffer.from(body) : Buffer.from(JSON.stringify(body));
  return request(session, { ...headers, 'content-type': 'application/json' }, bytes);
}

// biome-ignore lint/suspicious/noExplicitAny: answers are looked at as they come
type Json = Record<string, any>;

const document = ({ body }: Answer): Json => JSON.parse(body.toString());
const lines = ({ body }: Answer): Json[] =>
  body
    .toString()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
/** Reviews of alerts, as the log of a tenant (or of the server) has them. */
const acts = (of: number | null): Promise<Json[]> =>
  storage.rows(
    `SELECT party_name AS who, target_id AS target, organization_id AS organization FROM acts
      WHERE tenant_id = $1 AND action = 'alert.review' ORDER BY number`,
    [of ?? 0],
  );
const block = (seed: string): Buffer => Buffer.alloc(2_000, seed);

describe('retention', () => {
  const strict = { ...defaultRetention, deletedAfterDays: 0 };

  test('is inherited, and says from where; null inherits again', async () => {
    const own = await makeTenant();
    const { guid } = await registerOf(own);
    const device = `/v1/devices/${guid}/retention`;
    const settings = (id: number) => `/v1/organizations/${id}/settings`;
    const put = (policy: unknown) => ask('PUT', device, { policy }, own);
    const get = async () => document(await ask('GET', device, undefined, own));
    const setOfRoot = (policy: unknown, locked?: boolean) =>
      ask(
        'PATCH',
        settings(own.root),
        {
          settings: { retention: { policy } },
          ...(locked !== undefined && { locked: { retention: { policy: locked } } }),
        },
        own,
      );

    expect(await get()).toEqual({
      device: { guid, name: 'laptop' },
      user: { id: expect.any(Number), name: 'ann' },
      policy: null,
      effective: { policy: defaultRetention, from: 'default', locked: false, plans: [] },
      version: 1,
    });
    expect((await setOfRoot(strict)).status).toBe(200);
    const fromRoot = { policy: strict, from: { organization: { id: own.root, name: 'root' } } };
    expect(await get()).toMatchObject({ policy: null, effective: fromRoot });

    const gentle = { ...strict, keepNewest: 5 };
    const answer = await put(gentle);
    expect([answer.status, answer.headers.etag]).toEqual([200, '"2"']);
    expect(document(answer).effective).toEqual({
      policy: gentle,
      from: { device: { guid, name: 'laptop' } },
      locked: false,
      plans: [],
    });
    await setOfRoot(strict, true);
    expect(await get()).toMatchObject({ policy: gentle, effective: { ...fromRoot, locked: true } });
    const refused = await put(strict);
    expect([refused.status, problem(refused).lockedBy]).toEqual([409, { id: own.root, name: 'root' }]);
    await setOfRoot(strict, false);
    await put(null);
    expect(await get()).toMatchObject({ policy: null, effective: fromRoot });
    await setOfRoot(null);
    expect((await get()).effective.from).toBe('default');
  });

  test('a wrong policy is refused, naming every field at fault, and nothing is set', async () => {
    const { guid } = await registerOf(tenant);
    const path = `/v1/devices/${guid}/retention`;
    const refused = async (body: unknown) => {
      const answer = await ask('PUT', path, body);
      const { field, code } = problem(answer);
      return [answer.status, code, field];
    };
    const [week, quarter, year, rest] = defaultRetention.windows;
    const windows = [week, { ...quarter, untilDays: 5 }, year, rest];
    const answer = await ask('PUT', path, { policy: { ...strict, windows, keepNewest: -1 } });
    expect(problem(answer).faults).toEqual([
      { field: 'policy.windows.1.untilDays', message: expect.stringContaining('more than the 7') },
      { field: 'policy.keepNewest', message: expect.stringContaining('0 to 10000') },
    ]);
    expect(await refused({ policy: { ...strict, keepHourly: 1 } })).toEqual([400, 'malformed_request', 'policy']);
    expect(await refused({ policy: 'daily' })).toEqual([400, 'malformed_request', 'policy']);
    expect(await refused({})).toEqual([400, 'malformed_request', 'policy']);
    expect(await refused({ policy: null, more: 1 })).toEqual([400, 'malformed_request', '(whole message)']);
    expect(await refused('{')).toEqual([400, 'malformed_request', '(whole message)']);
    expect(await refused(' '.repeat(16 * 1024))).toEqual([400, 'malformed_request', '(whole message)']);
    expect((await refused(' '.repeat(16 * 1024 + 1)))[0]).toBe(413);
    // Nobody is to believe that it was only tried out.
    expect(problem(await ask('PUT', `${path}?dryRun=1`, { policy: strict })).status).toBe(400);
    expect(document(await ask('GET', path)).effective.from).toBe('default');
  });

  test('a stored policy that is none is shown with what is wrong, and a plan says that nothing is deleted', async () => {
    const own = await makeTenant();
    const { guid } = await registerOf(own);
    await storage.database.query(
      {
        name: '',
        text: `INSERT INTO organization_settings (tenant_id, organization_id, name, value)
               SELECT tenant_id, organization_id, 'retention.policy', '{"keepNewest": 1}' FROM organizations WHERE organization_id = $1`,
      },
      [own.leaf],
    );
    const shown = document(await ask('GET', `/v1/devices/${guid}/retention`, undefined, own));
    expect(shown.effective).toMatchObject({ policy: null, from: { organization: { id: own.leaf, name: 'leaf' } } });
    expect(shown.faults.map((fault: Json) => fault.field)).toContain('windows');
    const plan = lines(await ask('GET', `/v1/devices/${guid}/retention/plan`, undefined, own));
    expect(plan).toEqual([{ summary: null, unreadable: expect.stringContaining('organization leaf') }]);
  });

  test('a plan says of every version whether it stays and why; one tried out changes nothing', async () => {
    const own = await makeTenant();
    const { guid, ref } = await registerOf(own);
    const run = await newRun(storage, ref);
    const gone = Buffer.from([0x2f, 0xff, 0x0a]); // a name that is no UTF-8
    await commit(storage, ref, run, [version('/kept'), version('/changed'), { ...version('/x'), path: gone }]);
    await commit(storage, ref, run, [version('/changed'), { ...deletion('/x'), path: gone }]);
    await storage.database.query(
      { name: '', text: `UPDATE versions SET committed_at = '2020-05-05T10:00:00Z' WHERE vault_id = $1` },
      [ref.vault],
    );
    const plan = lines(await ask('GET', `/v1/devices/${guid}/retention/plan`, undefined, own));
    const summary = plan.pop()!.summary;
    expect(summary).toMatchObject({ files: 2, keep: 3, expire: 1, overCap: false, frozen: false });
    expect(summary.policy).toEqual(defaultRetention);
    expect(plan.map(({ path, seq, keep, reason }) => [path, seq, keep, reason.rule])).toEqual([
      ['/changed', 2, false, 'superseded'],
      ['/changed', 4, true, 'latest'],
      ['/\ufffd\n', 3, true, 'window'],
      ['/\ufffd\n', 5, true, 'deletionRecord'],
    ]);
    expect(plan[0]).toMatchObject({
      committedAt: '2020-05-05T10:00:00.000Z',
      reason: { rule: 'superseded', window: 3, by: 4 },
      because: 'version 4 is newer in the same 30 days (365 days old or older)',
    });
    expect(plan[2]).toMatchObject({ pathBytes: gone.toString('base64url') });

    const tried = lines(await ask('POST', `/v1/devices/${guid}/retention/plan`, { policy: strict }, own));
    expect(tried.at(-1)!.summary).toMatchObject({ keep: 1, expire: 3, overCap: false, policy: strict });
    expect(document(await ask('GET', `/v1/devices/${guid}/retention`, undefined, own)).effective.from).toBe('default');
    const due = await ask('POST', `/v1/devices/${guid}/retention/plan?due=1`, { policy: strict }, own);
    expect([due.status, problem(due).code]).toEqual([400, 'malformed_request']);
  });

  test('of a backup plan is set by who may say how long things are kept, and told of each file', async () => {
    const own = await makeTenant();
    const { guid, ref } = await registerOf(own);
    const [ann] = await storage.rows<{ id: number }>(
      `SELECT user_id AS id FROM users WHERE tenant_id = $1 AND name = 'ann'`,
      [own.id],
    );
    for (const role of ['PROe User', 'Desktop User'])
      await storage.rows(
        `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, $3, 'self', $4) ON CONFLICT DO NOTHING`,
        [own.id, ann!.id, role, own.leaf],
      );
    const asAnn = { token: await signIn({ tenant: own.id, user: ann!.id }) };
    const of = { device: guid, exclude: [], everyMinutes: 15, windows: [] };
    const make = (more: object, as: { token: string }) => ask('POST', '/v1/plans', { ...of, ...more }, as);
    const everything = {
      ...defaultRetention,
      windows: defaultRetention.windows.map((each) => ({ ...each, everyMinutes: 0 })),
    };
    const data = { name: 'data', include: ['/data'], retention: everything };
    expect((await make({ ...data, name: 'mine', retention: null }, asAnn)).status).toBe(201);
    expect(problem(await make(data, asAnn)).detail).toContain('computer.update');
    const ofLeaf = { ...data, name: 'Leaf', device: undefined, organization: own.leaf };
    expect((await make(ofLeaf, own)).status).toBe(201);
    const inItsPlace = { ...data, name: 'leaf', retention: null };
    expect(problem(await make(inItsPlace, asAnn)).detail).toContain('computer.update');
    expect((await make(inItsPlace, own)).status).toBe(201);
    const made = await make(data, own);
    expect([made.status, document(made).retention]).toEqual([201, everything]);
    const [week, quarter, year, rest] = everything.windows;
    const wrong = { ...everything, windows: [week, { ...quarter, untilDays: 5 }, year, rest] };
    expect(problem(await make({ ...data, name: 'x', retention: wrong }, own))).toMatchObject({
      code: 'malformed_request',
      field: 'retention.windows.1.untilDays',
    });
    expect(problem(await make({ ...data, name: 'x', include: ['~'] }, own))).toMatchObject({ field: 'include.0' });

    const run = await newRun(storage, ref);
    for (let i = 0; i < 2; i++) await commit(storage, ref, run, [version('/data/a'), version('/b')]);
    await storage.rows(`UPDATE versions SET committed_at = '2020-05-05T10:00:00Z' WHERE vault_id = $1`, [ref.vault]);
    const name = `plan data (${document(made).id}) of device laptop (${guid})`;
    const told = (answer: Answer) =>
      lines(answer)
        .slice(0, -1)
        .map(({ path, keep, by, policies }) => [path, keep, by, policies]);
    const path = `/v1/devices/${guid}/retention/plan`;
    const answer = await ask('GET', path, undefined, own);
    expect(told(answer)).toEqual([
      ['/b', false, 'the default', ['the default']],
      ['/b', true, 'the default', ['the default']],
      ['/data/a', true, name, [name]],
      ['/data/a', true, name, [name]],
    ]);
    expect(lines(answer).at(-1)!.summary).toMatchObject({
      policy: defaultRetention,
      plans: [{ name, policy: everything }],
    });
    // What is tried out is tried in the place of the archive's own: plans go on.
    const tried = await ask('POST', path, { policy: strict }, own);
    expect(told(tried).map(([, keep, by]) => [keep, by])).toEqual([
      [false, 'the policy tried out'],
      [true, 'the policy tried out'],
      [true, name],
      [true, name],
    ]);
  });

  test('a plan that would go over the cap says so', async () => {
    const own = await makeTenant();
    const { guid, ref } = await registerOf(own);
    const run = await newRun(storage, ref);
    for (let i = 0; i < 5; i++) await commit(storage, ref, run, [version('/often')]);
    const minutes = {
      ...defaultRetention,
      windows: defaultRetention.windows.map((each) => ({ ...each, everyMinutes: 600_000 })),
    };
    const tried = lines(await ask('POST', `/v1/devices/${guid}/retention/plan`, { policy: minutes }, own));
    expect(tried.at(-1)!.summary).toMatchObject({ keep: 1, expire: 4, cap: 3, overCap: true });
  });
});

describe('alerts', () => {
  test("are the tenant's, in words, the latest first; reviewing one sets going what it says, once", async () => {
    const own = await makeTenant();
    const { guid, ref } = await registerOf(own);
    const { database } = storage;
    await database.query({ name: '', text: 'UPDATE archives SET frozen_at = now() WHERE vault_id = $1' }, [ref.vault]);
    const details = { run: 7, beforeSeq: 3, startedAt: 0, replacedFiles: 90, liveFilesBefore: 100 };
    await raiseAlert(database, { ...ref, kind: 'suspicious_run', details });
    await raiseAlert(database, { vault: ref.vault, kind: 'damaged', details: { blocks: 2 } });
    await raiseAlert(database, { vault: ref.vault, kind: 'damaged', details: { blocks: 3 } });

    const shown = document(await ask('GET', '/v1/alerts', undefined, own));
    expect(shown.more).toBe(false);
    expect(shown.alerts).toMatchObject([
      { kind: 'damaged', count: 2, device: null, user: { name: 'ann' }, says: expect.stringContaining('3 blocks') },
      { kind: 'suspicious_run', count: 1, device: { guid, name: 'laptop' }, details },
    ]);
    expect(shown.alerts[1].says).toContain('90 of the 100 files');
    expect(shown.alerts[1].toDo).toContain('--before-run 7');
    const page = document(await ask('GET', '/v1/alerts?limit=1', undefined, own));
    expect([page.alerts.length, page.more]).toEqual([1, true]);

    const { vault, alert } = shown.alerts[1];
    const review = () => ask('POST', `/v1/alerts/${vault}/${alert}/review`, undefined, own);
    expect(document(await review())).toEqual({ vault, alert, kind: 'suspicious_run', reviewedBy: 'boss' });
    expect((await review()).status).toBe(404);
    expect(await acts(own.id)).toEqual([{ who: 'boss', target: `${vault}/${alert}`, organization: own.leaf }]);
    const [archive] = await database.query<Json>(
      { name: '', text: 'SELECT frozen_at AS at FROM archives WHERE vault_id = $1' },
      [ref.vault],
    );
    expect(archive!.at).toBeNull();
    const left = async (query: string) => document(await ask('GET', `/v1/alerts${query}`, undefined, own)).alerts;
    expect(await left('')).toHaveLength(1);
    expect((await left('?reviewed=1')).find((each: Json) => each.alert === alert)).toMatchObject({
      reviewedBy: 'boss',
    });
  });

  test('about the whole server are for those who run it', async () => {
    await raiseAlert(storage.database, {
      vault: 0,
      kind: 'deleting_stopped',
      details: { reason: 'clock', detail: 'set it' },
    });
    const [row] = await listAlerts(storage.database, 0, { reviewed: false, limit: 1 });
    const seen = async (path: string, as: { token: string }) =>
      document(await ask('GET', path, undefined, as)).alerts.map((each: Json) => each.kind);
    expect(await seen('/v1/alerts', tenant)).toEqual([]);
    expect(await seen('/v1/operator/alerts', operator)).toEqual(['deleting_stopped']);
    for (const path of [`/v1/alerts/0/${row!.alert}/review`, `/v1/operator/alerts/${row!.alert}/review`])
      expect((await ask('POST', path)).status).toBe(404);
    const review = () => ask('POST', `/v1/operator/alerts/${row!.alert}/review`, undefined, operator);
    expect(document(await review())).toEqual({
      vault: 0,
      alert: row!.alert,
      kind: 'deleting_stopped',
      reviewedBy: 'olga',
    });
    expect((await review()).status).toBe(404);
    expect(await seen('/v1/operator/alerts', operator)).toEqual([]);
    expect(await acts(null)).toEqual([{ who: 'olga', target: `0/${row!.alert}`, organization: null }]);
    // Whoever runs the server reads nothing of a tenant.
    expect((await ask('GET', '/v1/alerts', undefined, operator)).status).toBe(403);
  });
});

test('usage is summed up the tree', async () => {
  const own = await makeTenant();
  const { guid, ref } = await registerOf(own);
  const boss = await registerOf(own, 'boss');
  const run = await newRun(storage, ref);
  await upload(storage, ref.vault, [block('a'), block('b')]);
  await commit(storage, ref, run, [version('/a', [block('a')])]);
  await upload(storage, boss.ref.vault, [block('c')]);
  await commit(storage, boss.ref, await newRun(storage, boss.ref), [version('/c', [block('c')])]);

  const shown = lines(await ask('GET', '/v1/usage', undefined, own));
  const [bossLine, annLine, root, leaf, end] = shown;
  expect(shown).toHaveLength(5);
  expect(annLine).toMatchObject({
    user: { name: 'ann' },
    organization: own.leaf,
    vault: ref.vault,
    devices: [{ guid, name: 'laptop' }],
    logicalBytes: 2_000,
    versions: 1,
  });
  expect(annLine!.storedBytes).toBeGreaterThan(4_000);
  expect(annLine!.reclaimableBytes).toBe(annLine!.storedBytes - 2_000);
  expect(bossLine).toMatchObject({ user: { name: 'boss' }, logicalBytes: 2_000 });
  expect(leaf).toMatchObject({ organization: { name: 'leaf', parent: own.root }, users: 1, own: { versions: 1 } });
  expect(root).toMatchObject({
    organization: { name: 'root', parent: null },
    users: 1,
    own: { versions: 1 },
    total: { versions: 2, logicalBytes: 4_000, storedBytes: annLine!.storedBytes + bossLine!.storedBytes },
  });
  expect(end!.summary).toEqual({ users: 2, ...root!.total });
});

test('reports are of what their reader reaches', async () => {
  const own = await makeTenant();
  const [ann, boss] = [await registerOf(own), await registerOf(own, 'boss')];
  for (const { ref } of [ann, boss])
    await raiseAlert(storage.database, { vault: ref.vault, kind: 'damaged', details: { blocks: 1 } });
  /** Somebody with a role in the leaf, where ann is. */
  const holderOf = async (role: string, scope: string): Promise<{ id: number; token: string }> => {
    const [row] = await storage.rows<{ id: number }>(
      `INSERT INTO users (tenant_id, organization_id, name) VALUES ($1, $2, $3) RETURNING user_id AS id`,
      [own.id, own.leaf, role],
    );
    for (const each of ['PROe User', role])
      await storage.rows(
        'INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, $3, $4, $5)',
        [own.id, row!.id, each, scope, own.leaf],
      );
    return { id: row!.id, token: await signIn({ tenant: own.id, user: row!.id }) };
  };
  const seenBy = async (as: { token: string }) => {
    const get = (path: string) => ask('GET', path, undefined, as);
    const users = (rows: Json[]): string[] => rows.filter(({ user }) => user).map(({ user }) => user.name);
    const usage = lines(await get('/v1/usage'));
    return {
      alerts: users(document(await get('/v1/alerts')).alerts).toSorted(),
      usage: users(usage),
      organizations: usage.filter(({ total }) => total).map(({ organization }) => organization.name),
      users: usage.at(-1)!.summary.users,
      verify: users(lines(await get('/v1/verify'))),
    };
  };
  expect(await seenBy(own)).toEqual({
    alerts: ['ann', 'boss'],
    usage: ['boss', 'ann'],
    organizations: ['root', 'leaf'],
    users: 2,
    verify: ['boss', 'ann'],
  });
  const leafAdmin = await holderOf('Org Admin', 'tree');
  expect(await seenBy(leafAdmin)).toEqual({
    alerts: ['ann'],
    usage: ['ann', 'Org Admin'],
    organizations: ['leaf'],
    users: 2,
    verify: ['ann'],
  });
  const bossAlert = document(await ask('GET', '/v1/alerts', undefined, own)).alerts.find(
    ({ user }: Json) => user.name === 'boss',
  );
  const review = await ask('POST', `/v1/alerts/${bossAlert.vault}/${bossAlert.alert}/review`, undefined, leafAdmin);
  expect(review.status).toBe(404);
});

test('whoever may see organizations and not their people is told sums alone', async () => {
  const own = await makeTenant();
  await registerOf(own);
  const [row] = await storage.rows<{ id: number }>(
    `INSERT INTO api_clients (tenant_id, organization_id, name, client_key, secret_sha256, permissions, scope, expires_at, made_by)
     VALUES ($1, $2, 'program', 'client-of-sums', sha256('x'), '{org.read}', 'all', now() + interval '1 day', 'test') RETURNING client_id AS id`,
    [own.id, own.root],
  );
  const token = randomBytes(32).toString('base64url');
  await storage.rows(
    `INSERT INTO access_tokens (token_sha256, client_id, expires_at) VALUES ($1, $2, now() + interval '1 hour')`,
    [createHash('sha256').update(Buffer.from(token, 'base64url')).digest(), row!.id],
  );
  const shown = lines(await ask('GET', '/v1/usage', undefined, { token }));
  expect(shown.map((line) => Object.keys(line)[0])).toEqual(['organization', 'organization', 'summary']);
  expect(shown.at(-1)!.summary.users).toBe(2);
});

test('damage: which moments of a file are whole, and how much has been verified', async () => {
  const own = await makeTenant();
  const [mine, other] = [await registerOf(own), await registerOf(own)];
  const { ref } = mine;
  const run = await newRun(storage, ref);
  await upload(storage, ref.vault, [block('x'), block('y')]);
  await commit(storage, ref, run, [version('/f', [block('x')]), version('/g', [block('x')])]);
  await commit(storage, ref, run, [version('/f', [block('y')])]);
  const statements = [
    `UPDATE blocks SET damaged_at = now() WHERE vault_id = $1 AND hash = sha256(decode(repeat('78', 2000), 'hex'))`,
    `INSERT INTO damage (vault_id, hash) SELECT vault_id, hash FROM blocks WHERE vault_id = $1 AND damaged_at IS NOT NULL`,
    `UPDATE objects SET verified_at = '2026-01-02' WHERE vault_id = $1`,
  ];
  for (const text of statements) await storage.database.query({ name: '', text }, [ref.vault]);
  await findDamageUsers(storage);

  const path = `/v1/devices/${mine.guid}/damage`;
  const shown = document(await ask('GET', path, undefined, own));
  expect(shown).toMatchObject({ blocks: 1, notLookedUp: 0, next: null });
  expect(
    shown.files.map(({ path: at, latestDamaged, moments }: Json) => [
      at,
      latestDamaged,
      moments.map((m: Json) => m.damaged),
    ]),
  ).toEqual([
    ['/f', false, [false, true]],
    ['/g', true, [true]],
  ]);
  const first = document(await ask('GET', `${path}?limit=1`, undefined, own));
  expect([first.files[0].path, first.next]).toEqual(['/f', first.files[0].file]);
  const second = document(await ask('GET', `${path}?limit=1&after=${first.next}`, undefined, own));
  expect(second.files[0].path).toBe('/g');
  // The user's other device shares the vault, and none of the files.
  expect(document(await ask('GET', `/v1/devices/${other.guid}/damage`, undefined, own)).files).toEqual([]);

  const [ann, end] = lines(await ask('GET', '/v1/verify', undefined, own));
  expect(ann).toMatchObject({
    user: { name: 'ann' },
    vault: ref.vault,
    coverage: 1,
    verifiedObjects: 1,
    oldestVerifiedAt: new Date('2026-01-02T00:00:00Z').toISOString(),
  });
  expect(ann!.devices.map((device: Json) => device.guid).sort()).toEqual([mine.guid, other.guid].sort());
  expect(end!.summary).toMatchObject({ vaults: 1, coverage: 1 });
});

test('the fence is told as it is in catalog and bucket', async () => {
  const look = async () => document(await ask('GET', '/v1/operator/fence', undefined, operator));
  expect(await look()).toMatchObject({ mayDelete: false, stoppedBecause: ['no worker has begun to renew it'] });
  const fence = openFence(storage, { beatMs: 60_000, beatsBeforeDeleting: 1 });
  await fence.beat();
  expect(await look()).toMatchObject({ catalogId: storage.catalogId, mayDelete: true, stoppedBecause: [], mark: null });
  await storage.database.query({ name: '', text: `UPDATE fence SET renewed_at = renewed_at - interval '3 minutes'` });
  expect((await look()).stoppedBecause).toEqual(['nobody renews it: does a worker run?']);
  await storage.database.query({
    name: '',
    text: `UPDATE fence SET nonce = 'another', previous = NULL, renewed_at = now()`,
  });
  expect(await look()).toMatchObject({ mayDelete: false, stoppedBecause: ["the bucket's half is not this catalog's"] });
});
