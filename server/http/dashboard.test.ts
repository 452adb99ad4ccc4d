/** Operators' way in, and the queues' dashboard behind it, over a real listener and real queues. */
import { randomBytes } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { msgpackType } from '../../protocol/wire.ts';
import { type Database, databaseDefaults, openDatabase } from '../../storage/catalog/database.ts';
import { type TestDatabase, testDatabase } from '../../tests/helpers/postgres.ts';
import { type Directory, openDirectory } from '../directory/directory.ts';
import { localKeyService } from '../directory/keys/local-keys.ts';
import { createFirstTenant } from '../directory/organizations/first-tenant.ts';
import { newRegistrationKey } from '../directory/organizations/registration-key.ts';
import { createFirstOperator, createOperator } from '../directory/sign-in/operators/operators.ts';
import { createDashboard } from '../jobs/dashboard.ts';
import { openQueues, type Queues } from '../jobs/queues.ts';
import type { Dashboard } from './deps.ts';
import { operator } from './operator.ts';
import { dashboardPath, dashboardRoutes } from './routes/dashboard.ts';
import { registrationRoutes } from './routes/registration.ts';
import {
  type Answer,
  h2,
  problem,
  request,
  startTestServer,
  type TestServer,
  type TestServerOptions,
  until,
} from './testing.ts';

let test_: TestDatabase;
let database: Database;
let directory: Directory;
let queues: Queues;
let dashboard: Dashboard;
const password = 'correct horse';
const servers: { server: TestServer; session: ClientHttp2Session }[] = [];

const basic = (userName: string, given = password): string =>
  `Basic ${Buffer.from(`${userName}:${given}`).toString('base64')}`;

beforeAll(async () => {
  test_ = await testDatabase();
  database = openDatabase({ ...databaseDefaults, connectionString: test_.connectionString });
  directory = openDirectory({
    database,
    keys: localKeyService([randomBytes(32)]),
    passwordHashesMax: 2,
    signInsPerMinute: 1_000,
  });
  await createFirstTenant(directory, {
    name: 'first',
    registrationKey: newRegistrationKey(),
    userName: 'admin',
    password,
  });
  await createFirstOperator(directory, { name: 'operator', password });
  const server = { tenant: null, party: { kind: 'server', id: null, name: 'test' }, address: null } as const;
  const passwordHash = await directory.passwords.hash(password);
  await database.transaction((tx) => createOperator(tx, server, 'olga', passwordHash));
  queues = await openQueues({ databaseUrl: test_.connectionString, migrate: true }, () => {});
  dashboard = createDashboard(queues, { path: dashboardPath, onError: () => {} }) as unknown as Dashboard;
});

afterEach(async () => {
  for (const { server, session } of servers.splice(0)) {
    session.destroy();
    await server.shutDown({ leaveMs: 0, drainMs: 100 });
  }
});

afterAll(async () => {
  await queues?.close();
  await database?.close();
  await test_?.drop();
});

async function start(options: Partial<TestServerOptions> = {}): Promise<ClientHttp2Session> {
  const server = await startTestServer({
    directory,
    routes: (router, deps) => {
      dashboardRoutes(router, { ...deps, dashboard });
      router.all('/admin/who', operator(), (ctx) => {
        ctx.body = JSON.stringify(ctx.state.operator);
      });
      router.get('/admin/stays', operator(), async (ctx) => {
        await new Promise((resolve) => ctx.state.signal.addEventListener('abort', resolve));
      });
      registrationRoutes(router, deps);
    },
    ...options,
  });
  const session = await h2(server);
  servers.push({ server, session });
  return session;
}

const page = (session: ClientHttp2Session, path = '', headers: Record<string, string> = {}): Promise<Answer> =>
  request(session, { ':path': `${dashboardPath}${path}`, authorization: basic('operator'), ...headers });
const put = (session: ClientHttp2Session, path: string, headers: Record<string, string> = {}): Promise<Answer> =>
  page(session, path, { ':method': 'PUT', ...headers });

/** The metric, as the server that was started last tells it. */
async function signIns(): Promise<string[]> {
  const text = await servers.at(-1)!.server.metrics.render();
  return (text.match(/^holdfast_operator_sign_ins_total.*$/gm) ?? []).toSorted();
}

describe('operator()', () => {
  const ask = (session: ClientHttp2Session, headers: Record<string, string>): Promise<Answer> =>
    request(session, { ':path': '/admin/who', ...headers });

  test('lets in one who runs the server, and tells the route who it is', async () => {
    const session = await start();
    const answer = await ask(session, { authorization: basic('operator') });
    expect(JSON.parse(answer.body.toString())).toEqual({ id: expect.any(Number), name: 'operator' });
    expect(answer.headers['www-authenticate']).toBeUndefined();
  });

  test.each<[string, Record<string, string>, string]>([
    ['nothing', {}, 'unauthorized'],
    ['a device token', { authorization: `Bearer ${'A'.repeat(43)}` }, 'unauthorized'],
    ['no colon', { authorization: `Basic ${Buffer.from('operator').toString('base64')}` }, 'unauthorized'],
    ['no name', { authorization: basic('') }, 'unauthorized'],
    ['too much', { authorization: basic('operator', 'x'.repeat(3_000)) }, 'unauthorized'],
    ['a wrong password', { authorization: basic('operator', 'wrong') }, 'sign_in_failed'],
    ['a wrong name', { authorization: basic('nobody') }, 'sign_in_failed'],
    ["an administrator's name and password", { authorization: basic('admin') }, 'sign_in_failed'],
  ])('answers %s with 401, and how to sign in', async (_, headers, code) => {
    const answer = await ask(await start(), headers);
    expect(problem(answer)).toMatchObject({
      status: 401,
      code,
      type: 'urn:holdfast:problem:operator_sign_in',
      title: "An operator's name and password are needed",
      detail: expect.stringMatching(/name (?:and|or) password/),
    });
    expect(answer.body.toString()).not.toMatch(/device|registration|token/);
    expect(answer.headers['www-authenticate']).toBe('Basic realm="Holdfast", charset="UTF-8"');
  });

  test('the log says who asked, by number: neither names nor passwords, and nobody where nobody was let in', async () => {
    const session = await start();
    const { server } = servers[0]!;
    const { id } = JSON.parse((await ask(session, { authorization: basic('operator') })).body.toString());
    const other = await ask(session, { authorization: basic('olga') });
    await ask(session, { authorization: basic('operator', 'a wrong guess') });
    await ask(session, {});
    const told = () => server.lines.filter(({ msg }) => msg === 'request');
    await until(() => told().length === 4);
    const { id: otherId } = JSON.parse(other.body.toString());
    expect(otherId).not.toBe(id);
    expect(told().map(({ status, operator }) => [status, operator])).toEqual([
      [200, id],
      [200, otherId],
      [401, undefined],
      [401, undefined],
    ]);
    expect(JSON.stringify(server.lines)).not.toMatch(/olga|correct horse|a wrong guess|Basic/);
  });

  test('how sign-ins end is counted', async () => {
    const full = await start({ settings: { strangersMax: 0, slotWaitMs: 10 } });
    expect((await ask(full, { authorization: basic('operator') })).status).toBe(503); // there is no place
    expect(await signIns()).toEqual(['holdfast_operator_sign_ins_total{result="turned_away"} 1']);

    const session = await start();
    for (const name of ['operator', 'operator', 'olga']) await ask(session, { authorization: basic(name) });
    await ask(session, {});
    for (const guess of ['a', 'b']) await ask(session, { authorization: basic('operator', guess) });
    expect(await signIns()).toEqual([
      'holdfast_operator_sign_ins_total{result="let_in"} 3',
      'holdfast_operator_sign_ins_total{result="unsigned"} 1',
      'holdfast_operator_sign_ins_total{result="wrong"} 2',
    ]);
  });

  test('one has so many requests under way, and leaves the others alone', async () => {
    const session = await start({ settings: { requestsPerDeviceMax: 2, slotWaitMs: 50 } });
    const stays = [1, 2].map(() =>
      session.request({ ':path': '/admin/stays', authorization: basic('operator') }).on('error', () => {}),
    );
    const { deps } = servers[0]!.server;
    await until(() => deps.requests.open.size === 2);
    await until(async () => (await ask(session, { authorization: basic('operator') })).status === 503);
    expect((await ask(session, { authorization: basic('olga') })).status).toBe(200);
    for (const stream of stays) stream.close(8);
    await until(() => deps.requests.open.size === 0);
    expect((await ask(session, { authorization: basic('operator') })).status).toBe(200);
  });

  test('who goes while waiting for a place lets somebody else wait', async () => {
    const settings = { requestsPerDeviceMax: 1, slotWaitersPerDeviceMax: 1, slotWaitMs: 60_000 };
    const session = await start({ settings });
    const { lines } = servers[0]!.server;
    /** As the `count`th that was let in. */
    const stay = async (count: number) => {
      const stream = session
        .request({ ':path': '/admin/stays', authorization: basic('operator') })
        .on('error', () => {});
      await until(async () => (await signIns()).includes(`holdfast_operator_sign_ins_total{result="let_in"} ${count}`));
      return stream;
    };
    const staying = await stay(1);
    const waiting = await stay(2);
    expect((await ask(session, { authorization: basic('operator') })).status).toBe(503);
    waiting.close(8);
    await until(() => lines.some(({ status }) => status === 499));
    const next = await stay(4);
    staying.close(8);
    await until(() => lines.filter(({ status }) => status === 499).length === 2);
    next.close(8);
    await until(() => lines.filter(({ status }) => status === 499).length === 3);
    expect((await ask(session, { authorization: basic('operator') })).status).toBe(200);
  });

  test('registrations that drip shut no operator out', async () => {
    const session = await start({ settings: { strangersMax: 1, slotWaitMs: 50 } });
    const headers = { ':method': 'POST', 'content-type': msgpackType, ':path': '/v1/register' };
    const dripping = session.request(headers);
    dripping.on('error', () => {});
    dripping.write(Buffer.alloc(1));
    const { deps } = servers[0]!.server;
    await until(() => deps.budget.bodies === 1);
    expect((await request(session, headers, Buffer.alloc(1))).status).toBe(503);
    expect((await ask(session, { authorization: basic('operator') })).status).toBe(200);
    dripping.close(8);
  });

  test('takes no password over the net in the clear', async () => {
    const forwarded = { 'x-forwarded-for': '192.0.2.7', authorization: basic('operator') };
    const behindNothing = await start({ cleartext: true });
    expect((await ask(behindNothing, { authorization: basic('operator') })).status).toBe(200); // on this machine
    expect(problem(await ask(behindNothing, { ...forwarded, 'x-forwarded-proto': 'https' })).code).toBe('forbidden');
    const behindIngress = await start({ cleartext: true, settings: { proxies: 1 } });
    expect((await ask(behindIngress, { ...forwarded, 'x-forwarded-proto': 'https' })).status).toBe(200);
    expect(problem(await ask(behindIngress, { ...forwarded, 'x-forwarded-proto': 'https, http' })).code).toBe(
      'forbidden',
    );
    expect(problem(await ask(behindIngress, forwarded)).code).toBe('forbidden');
  });

  test.each<[string, Record<string, string>, number]>([
    ['a script, which says nothing', {}, 200],
    ['a page of ours', { 'sec-fetch-site': 'same-origin' }, 200],
    ['a page of another site', { 'sec-fetch-site': 'cross-site' }, 403],
    ['a page of a sister domain', { 'sec-fetch-site': 'same-site' }, 403],
    ['an old browser on another site', { origin: 'https://evil.example' }, 403],
    ['an old browser in a sandbox', { origin: 'null' }, 403],
  ])('for a change asked for by %s', async (_, headers, status) => {
    const session = await start();
    const answer = await ask(session, { ':method': 'POST', authorization: basic('operator'), ...headers });
    expect(answer.status).toBe(status);
    expect((await ask(session, { authorization: basic('operator'), ...headers })).status).toBe(200); // reading
  });

  test('an old browser on a page of ours may change things', async () => {
    const session = await start();
    const { origin } = servers[0]!.server;
    const headers = { ':method': 'POST', authorization: basic('operator'), origin };
    expect((await ask(session, headers)).status).toBe(200);
  });
});

describe('the dashboard', () => {
  test('is for those who run the server', async () => {
    const session = await start();
    for (const path of ['', '/api/queues', '/static/favicon.ico']) {
      expect((await page(session, path, { authorization: '' })).status).toBe(401);
      expect(problem(await page(session, path, { authorization: basic('admin') })).code).toBe('sign_in_failed');
      expect((await page(session, path, { authorization: basic('olga') })).status).toBe(200);
    }
  });

  test('is a page with its files, which may load nothing from elsewhere', async () => {
    const session = await start();
    const answer = await page(session);
    expect(answer.status).toBe(200);
    expect(answer.headers['content-type']).toMatch(/^text\/html/);
    expect(answer.headers['content-security-policy']).toMatch(/^default-src 'none'; script-src 'self';/);
    expect(answer.headers['cache-control']).toBe('no-store');
    const html = answer.body.toString();
    expect(html).toContain(`<base href="${dashboardPath}/"`);
    const [, script] = /src="(static\/js\/main\.[^"]+)"/.exec(html)!;
    const file = await page(session, `/${script}`);
    expect(file.status).toBe(200);
    expect(file.headers['cache-control']).toBe('private, max-age=3600');
    expect(problem(await page(session, '/static/js/none.js')).status).toBe(404);
    expect(problem(await page(session, '/nothing/of/the/sort')).status).toBe(404);
  });

  test('shows the queues and their jobs', async () => {
    await queues.add({ name: 'prune', queue: 'deleting' });
    const answer = await page(await start(), '/api/queues?activeQueue=deleting&page=1&jobsPerPage=10&status=waiting');
    const shown = JSON.parse(answer.body.toString()).queues as { name: string; counts: { waiting: number } }[];
    expect(shown.map(({ name }) => name).toSorted()).toEqual(['checking', 'deleting', 'housekeeping', 'restoring']);
    expect(shown.find(({ name }) => name === 'deleting')!.counts.waiting).toBe(1);
    expect(answer.headers['cache-control']).toBe('no-store');
  });

  test('begins what has failed again, and what waits at once', async () => {
    const [queue] = queues.bullmq;
    const job = await queue!.add('abandon-stale-runs', {}, { delay: 3_600_000 });
    const session = await start();
    const path = `/api/queues/${queue!.name}/${job.id}`;
    expect((await put(session, `${path}/promote`)).status).toBe(204);
    expect(await queue!.getJobState(job.id!)).toBe('waiting');
    expect(problem(await put(session, `${path}/promote`, { 'sec-fetch-site': 'cross-site' })).code).toBe('forbidden');
    const lines = servers[0]!.server.lines.filter(({ msg }) => msg === 'queues changed by an operator');
    expect(lines).toMatchObject([{ path: `${path}/promote`, operator: expect.any(Number) }]);
    expect(servers[0]!.server.lines.find(({ msg }) => msg === 'request')).toMatchObject({
      route: `${dashboardPath}/{*page}`,
    });
  });

  test.each([
    ['PUT', '/api/queues/deleting/pause'],
    ['PUT', '/api/queues/pause'],
    ['PUT', '/api/queues/deleting/empty'],
    ['PUT', '/api/queues/deleting/obliterate'],
    ['PUT', '/api/queues/deleting/clean/completed'],
    ['PUT', '/api/queues/deleting/clean/retry'],
    ['PUT', '/api/queues/deleting/CLEAN/retry'],
    ['PUT', '/api/queues/deleting/Retry/promote'],
    ['PUT', '/api/queues/deleting/retry/completed'],
    ['PUT', '/api/queues/deleting/retry/promote'],
    ['PUT', '/api/queues/deleting/concurrency'],
    ['PUT', '/api/queues/deleting/1/clean'],
    ['PUT', '/api/queues/deleting/job-schedulers/prune/remove'],
  ])('changes nothing else: %s %s', async (method, path) => {
    const session = await start();
    expect(problem(await page(session, path, { ':method': method })).code).toBe('forbidden');
  });

  test.each([
    ['POST', '/api/queues/deleting/add'],
    ['PATCH', '/api/queues/deleting/1/update-data'],
    ['PATCH', '/api/queues/deleting/job-schedulers/prune'],
    ['DELETE', '/api/queues/deleting'],
  ])('has no %s %s', async (method, path) => {
    const session = await start();
    expect((await page(session, path, { ':method': method })).status).toBe(405);
  });
});
