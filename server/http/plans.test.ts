/** What a device is told of its plans, asked of the route on the real directory. */
import { randomBytes } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { PlansAnswer } from '../../protocol/messages.ts';
import { decodeMessage, msgpackType } from '../../protocol/wire.ts';
import { createPlan, deletePlan } from '../directory/devices/plans/plans.ts';
import { CreatePlanRequest } from '../directory/devices/plans/shapes.ts';
import { openDirectory } from '../directory/directory.ts';
import { localKeyService } from '../directory/keys/local-keys.ts';
import { tokenHash } from '../directory/sign-in/tokens.ts';
import { actingAs, type PeopleWorld, peopleWorld, type TestDevice } from '../directory/users/testing.ts';
import { type Answer, h2, problem, request, startTestServer, type TestServer } from './testing.ts';

let world: PeopleWorld;
let server: TestServer;
let session: ClientHttp2Session;
let tenant: number;
let organization: number;
let laptop: TestDevice & { token: string };

beforeAll(async () => {
  world = await peopleWorld();
  const keys = localKeyService([randomBytes(32)]);
  const directory = openDirectory({ database: world.database, keys, passwordHashesMax: 2, signInsPerMinute: 5 });
  server = await startTestServer({ directory });
  session = await h2(server);
});
afterAll(async () => {
  session?.destroy();
  await server?.shutDown({ leaveMs: 0, drainMs: 1_000 });
  await world?.close();
});
beforeEach(async () => {
  ({ tenant, organization } = await world.tenant());
  laptop = await device();
});

async function device(): Promise<TestDevice & { token: string }> {
  const made = await world.device({ tenant, user: await world.user({ tenant, organization }) }, { name: 'laptop' });
  const token = randomBytes(32).toString('base64url');
  await world.sql('UPDATE devices SET token_sha256 = $2 WHERE device_id = $1', [made.deviceId, tokenHash(token)]);
  return { ...made, token };
}

const content = { include: ['~/Documents'], exclude: ['*.tmp'], everyMinutes: 30 };
const nights = { days: [1, 7], fromMinute: 0, untilMinute: 1_440 };
const make = (of: { organization?: number; device?: string }, name: string, more: object = {}) => {
  const asked = CreatePlanRequest.parse({ ...of, name, ...content, windows: [nights], ...more });
  return world.change((tx) => createPlan(tx, actingAs(tenant), { ...asked, tenant }));
};

function ask(more: Record<string, string> = {}, path = '/v1/self/plans'): Promise<Answer> {
  return request(session, { ':path': path, authorization: `Bearer ${laptop.token}`, ...more });
}

describe('a device asks for its plans', () => {
  test('and is told them in their order, with whose they are, and nothing of how long versions are kept', async () => {
    await make({ organization }, 'pictures');
    const retention = {
      windows: [90, 365, 3_650, null].map((untilDays) => ({ untilDays, everyMinutes: 0 })),
      deletedAfterDays: null,
      keepNewest: 0,
      keepWithinDays: 0,
    };
    await make({ organization }, 'Archive', { include: ['/srv'], retention });
    await make({ device: laptop.guid }, 'mail');
    const answer = await ask();
    expect(answer).toMatchObject({ status: 200, headers: { 'content-type': msgpackType } });
    const { plans } = decodeMessage(PlansAnswer, answer.body);
    expect(plans.map(({ name }) => name)).toEqual(['mail', 'Archive', 'pictures']);
    expect(plans[0]).toEqual({ name: 'mail', ...content, windows: [nights], from: { kind: 'device', name: 'laptop' } });
    expect(plans[1]!.from).toEqual({ kind: 'organization', name: expect.stringMatching(/^organization /) });
    expect(plans[1]).toMatchObject({ name: 'Archive', include: ['/srv'] });
    for (const word of ['retention', 'keepNewest']) expect(answer.body.includes(word)).toBe(false);
  });

  test('and without any is told the defaults of its organization', async () => {
    const { plans } = decodeMessage(PlansAnswer, (await ask()).body);
    expect(plans).toEqual([
      {
        name: 'default',
        include: [],
        exclude: [],
        everyMinutes: 15,
        windows: [],
        from: { kind: 'settings', name: '' },
      },
    ]);
  });

  test('and is told nothing where nothing has changed', async () => {
    const made = await make({ organization }, 'documents');
    const { etag } = (await ask()).headers as { etag: string };
    for (const known of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const again = await ask({ 'if-none-match': known });
      expect([again.status, again.body.byteLength, again.headers.etag]).toEqual([304, 0, etag]);
    }
    expect((await ask({ 'if-none-match': '"other"' })).status).toBe(200);
    await world.change((tx) => deletePlan(tx, actingAs(tenant), { tenant, plan: made.id, expected: null }));
    const after = await ask({ 'if-none-match': etag });
    expect(after.status).toBe(200);
    expect(after.headers.etag).not.toBe(etag);
  });

  test("and never of another's", async () => {
    const other = await device();
    await make({ device: other.guid }, 'theirs');
    const elsewhere = await world.tenant();
    await world.change((tx) => {
      const asked = CreatePlanRequest.parse({
        organization: elsewhere.organization,
        name: 'far',
        ...content,
        windows: [],
      });
      return createPlan(tx, actingAs(elsewhere.tenant), { ...asked, tenant: elsewhere.tenant });
    });
    const { plans } = decodeMessage(PlansAnswer, (await ask()).body);
    expect(plans.map(({ name }) => name)).toEqual(['default']);
  });

  test.each([
    ['blocked', 200],
    ['deauthorized', 401],
    ['deactivated', 401],
    ['replaced', 401],
  ])('%s: %d', async (state, status) => {
    await world.sql('UPDATE devices SET state = $2 WHERE device_id = $1', [laptop.deviceId, state]);
    const answer = await ask();
    expect(answer.status).toBe(status);
    if (status === 401) expect(problem(answer)).toMatchObject({ code: 'device_deauthorized', state });
  });

  test('with a token, and with no parameters', async () => {
    expect(problem(await ask({ authorization: `Bearer ${'x'.repeat(43)}` }))).toMatchObject({ code: 'unauthorized' });
    expect(problem(await ask({}, '/v1/self/plans?all=1'))).toMatchObject({ code: 'malformed_request', field: 'all' });
    expect(problem(await ask({ ':method': 'POST' }))).toMatchObject({ code: 'method_not_allowed' });
  });
});
