/** The page where operators sign in, and the doors beside it, over a real listener. */
import { randomBytes } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Secret } from 'otpauth';
import { type TestStorage, testStorage } from '../../tests/helpers/storage.ts';
import { type Directory, openDirectory } from '../directory/directory.ts';
import { localKeyService } from '../directory/keys/local-keys.ts';
import { createOperator } from '../directory/sign-in/operators/operators.ts';
import { generator } from '../directory/sign-in/second-factor/codes.ts';
import {
  beginSecondFactor,
  confirmSecondFactor,
  drawSecondFactor,
} from '../directory/sign-in/second-factor/second-factor.ts';
import { signInOperator } from '../directory/sign-in/sessions/begin.ts';
import { drawTokens } from '../directory/sign-in/sessions/tokens-of-session.ts';
import { operator } from './operator.ts';
import { operatorSignInRoutes } from './routes/operator-sign-in.ts';
import { type Answer, h2, problem, request, startTestServer, type TestServer } from './testing.ts';

let storage: TestStorage;
let directory: Directory;
let name: string;
let made = 0;
let server: TestServer;
let session: ClientHttp2Session;
const password = 'a mare of no colour';
const by = { tenant: null, party: { kind: 'server', id: null, name: 'test' }, address: null } as const;
const home = '/admin/who';

beforeAll(async () => {
  storage = await testStorage();
  const keys = localKeyService([randomBytes(32)]);
  directory = openDirectory({ database: storage.database, keys, passwordHashesMax: 2, signInsPerMinute: 1_000 });
});
beforeEach(async () => {
  name = `operator ${++made}`;
  const hash = await directory.passwords.hash(password);
  await storage.database.transaction((tx) => createOperator(tx, by, name, hash));
});
afterEach(async () => {
  session?.destroy();
  await server?.shutDown({ leaveMs: 0, drainMs: 100 });
});
afterAll(() => storage?.close());

async function start(options: { cleartext?: boolean; strict?: boolean } = {}): Promise<void> {
  server = await startTestServer({
    directory: { ...directory, operatorSecondFactor: options.strict ?? false },
    cleartext: options.cleartext ?? false,
    routes: (router) => {
      operatorSignInRoutes(router, home);
      router.all(home, operator(), (ctx) => {
        ctx.body = JSON.stringify(ctx.state.operator);
      });
    },
  });
  session = await h2(server);
}

/** Gives the operator a second factor. @returns a code of it */
async function enrol(): Promise<() => string> {
  const from = { address: '192.0.2.1', program: null };
  const tokens = await signInOperator(directory, { userName: name, password }, from, drawTokens());
  const [of] = await storage.rows<{ operator: number }>(
    'SELECT operator_id AS operator FROM operators WHERE name = $1',
    [name],
  );
  const drawn = await drawSecondFactor(directory, of!, name);
  await storage.database.transaction((tx) => beginSecondFactor(tx, by, of!, drawn));
  const secret = Buffer.from(Secret.fromBase32(drawn.shown.secret).bytes);
  const code = () => generator(secret).generate({ timestamp: Date.now() });
  await confirmSecondFactor(directory, by, { of: of!, session: tokens.session, code: code() }, from.address);
  await storage.rows('UPDATE operator_second_factors SET last_step = last_step - 10');
  return code;
}

const basic = () => ({ authorization: `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}` });
const who = (headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> =>
  request(session, { ':path': home, ':method': method, ...headers });
const send = (fields: Record<string, string>, headers: Record<string, string> = {}): Promise<Answer> =>
  request(
    session,
    {
      ':path': '/admin/sign-in',
      ':method': 'POST',
      'content-type': 'application/x-www-form-urlencoded',
      'sec-fetch-site': 'same-origin',
      ...headers,
    },
    Buffer.from(new URLSearchParams(fields).toString()),
  );
const cookieOf = ({ headers }: Answer): string => String(headers['set-cookie']).split(';')[0]!;
const text = ({ body }: Answer): string => body.toString();

describe('the page', () => {
  test('signs in with name, password and code, and its cookie is the sign-in', async () => {
    const code = await enrol();
    await start();
    const shown = await request(session, { ':path': '/admin/sign-in' });
    expect([shown.status, shown.headers['content-security-policy']]).toEqual([
      200,
      expect.stringMatching(/^default-src 'none'.*form-action 'self'; frame-ancestors 'none'$/),
    ]);
    const without = await send({ userName: name, password, code: '' });
    expect([without.status, text(without), without.headers['set-cookie']]).toEqual([
      401,
      expect.stringContaining('Give a code of your second factor too.'),
      undefined,
    ]);
    const answer = await send({ userName: name, password, code: ` ${code()} ` });
    expect([answer.status, answer.headers.location]).toEqual([303, home]);
    expect(String(answer.headers['set-cookie'])).toMatch(
      /^__Host-holdfast-operator=[\w-]{43}; Path=\/; HttpOnly; Secure; SameSite=Strict$/,
    );
    const cookie = cookieOf(answer);
    expect(JSON.parse(text(await who({ cookie: `a=b; ${cookie}` })))).toMatchObject({ name });
    const [kept] = await storage.rows<{ hours: number; browser: boolean }>(
      `SELECT browser, round(extract(epoch FROM ends_at - created_at) / 3600)::int AS hours FROM sessions ORDER BY session_id DESC LIMIT 1`,
    );
    expect(kept).toEqual({ browser: true, hours: 12 });
  });

  test('signs in without a code whoever has no second factor', async () => {
    await start();
    const answer = await send({ userName: name, password });
    expect([answer.status, (await who({ cookie: cookieOf(answer) })).status]).toEqual([303, 200]);
  });

  test('says what is wrong, and shows nothing of what was typed', async () => {
    await enrol();
    await start();
    const typed = '<script>alert(1)</script>';
    const wrong = await send({ userName: typed, password: typed, code: '' });
    expect([wrong.status, text(wrong).includes('<script')]).toEqual([401, false]);
    expect(text(wrong)).toContain('The name or password is not right.');
    expect(await server.metrics.render()).toContain('holdfast_operator_sign_ins_total{result="wrong"} 1');
    expect(text(await send({ userName: name, password, code: '000' }))).toContain('The code is not right');
    expect((await send({ userName: name })).status).toBe(400);
    expect((await send({ userName: name, password: 'x'.repeat(1_025) })).status).toBe(400);
    expect((await send({ userName: name, password: 'x'.repeat(1_024) })).status).toBe(401);
    expect((await send({ userName: name, password: 'x'.repeat(17_000) })).status).toBe(413);
    expect((await send({ userName: name, password, other: 'x' })).status).toBe(400);
  });

  test('is not filled in by a page of another site', async () => {
    await start();
    const fields = { userName: name, password };
    expect(problem(await send(fields, { 'sec-fetch-site': 'cross-site' })).code).toBe('forbidden');
    expect((await send(fields, { 'sec-fetch-site': 'same-origin' })).status).toBe(303);
  });

  test('lets nobody in who has to set up a second factor first: it says so, and no session stays', async () => {
    await start({ strict: true });
    const answer = await send({ userName: name, password });
    expect([answer.status, answer.headers['set-cookie'], text(answer)]).toEqual([
      401,
      undefined,
      expect.stringContaining('me second-factor set-up'),
    ]);
    const open = await storage.rows(
      'SELECT 1 FROM sessions s JOIN operators p USING (operator_id) WHERE p.name = $1 AND s.ended_at IS NULL',
      [name],
    );
    expect(open).toEqual([]);
  });

  test('signs out', async () => {
    await start();
    const cookie = cookieOf(await send({ userName: name, password }));
    const shown = (headers: Record<string, string>) => request(session, { ':path': '/admin/sign-in', ...headers });
    expect(
      [text(await shown({})), text(await shown({ cookie }))].map((page) => page.includes('/admin/sign-out')),
    ).toEqual([false, true]);
    const out = { ':path': '/admin/sign-out', ':method': 'POST', cookie };
    expect(problem(await request(session, { ...out, 'sec-fetch-site': 'same-site' })).code).toBe('forbidden');
    expect((await who({ cookie })).status).toBe(200);
    const answer = await request(session, out);
    expect([answer.status, String(answer.headers['set-cookie'])]).toEqual([303, expect.stringContaining('Max-Age=0')]);
    expect((await who({ cookie })).status).toBe(401);
  });

  test('gives a browser on this machine without TLS a cookie that it keeps', async () => {
    await start({ cleartext: true });
    const answer = await send({ userName: name, password });
    expect(String(answer.headers['set-cookie'])).toMatch(
      /^holdfast-operator=[\w-]{43}; Path=\/; HttpOnly; SameSite=Strict$/,
    );
    expect((await who({ cookie: cookieOf(answer) })).status).toBe(200);
  });
});

describe('a cookie', () => {
  let cookie: string;
  const expires = async () =>
    (
      await storage.rows<{ seconds: number }>(
        `SELECT extract(epoch FROM expires_at - now())::int AS seconds FROM access_tokens ORDER BY expires_at DESC, ctid DESC LIMIT 1`,
      )
    )[0]!.seconds;
  const shorten = (interval: string) =>
    storage.rows(`UPDATE access_tokens SET expires_at = now() + $1::interval`, [interval]);
  beforeEach(async () => {
    await start();
    cookie = cookieOf(await send({ userName: name, password }));
  });

  test('is good for another while each time it is used, and no longer after that', async () => {
    await shorten('2 minutes');
    expect((await who({ cookie })).status).toBe(200);
    expect(await expires()).toBeGreaterThan(14 * 60);
    await shorten('-1 second');
    expect((await who({ cookie })).status).toBe(401);
    expect(await expires()).toBeLessThan(0);
  });

  test('ends with its session, however much it is used', async () => {
    await storage.rows(`UPDATE sessions SET ends_at = now() - interval '1 second' WHERE browser`);
    expect((await who({ cookie })).status).toBe(401);
  });

  test('of an operator who was blocked is refused with the next request', async () => {
    await createAnother();
    await storage.rows(`UPDATE operators SET state = 'blocked' WHERE name = $1`, [name]);
    expect((await who({ cookie })).status).toBe(401);
  });

  test('changes nothing at the wish of another site', async () => {
    expect(problem(await who({ cookie, 'sec-fetch-site': 'cross-site' }, 'POST')).code).toBe('forbidden');
    expect((await who({ cookie, 'sec-fetch-site': 'same-origin' }, 'POST')).status).toBe(200);
  });

  async function createAnother(): Promise<void> {
    await storage.database.transaction((tx) => createOperator(tx, by, `${name} two`, 'no hash'));
  }
});

describe('an access token of the API', () => {
  const token = async (code?: string) => {
    const given = { userName: name, password, ...(code !== undefined && { code }) };
    const { accessToken } = await signInOperator(directory, given, { address: 'x', program: null }, drawTokens());
    return { authorization: `Bearer ${accessToken}` };
  };

  test('lets scripts of an operator with a second factor in, and lives no longer by it', async () => {
    const code = await enrol();
    await start();
    const headers = await token(code());
    await storage.rows(`UPDATE access_tokens SET expires_at = now() + interval '2 minutes'`);
    expect((await who(headers)).status).toBe(200);
    expect(await storage.rows(`SELECT 1 FROM access_tokens WHERE expires_at > now() + interval '3 minutes'`)).toEqual(
      [],
    );
  });

  test('of a session that can only set up a second factor does not', async () => {
    await start({ strict: true });
    expect(problem(await who(await token())).code).toBe('second_factor_needed');
  });
});

describe('HTTP Basic', () => {
  test('is enough for whoever has no second factor, and for nobody who has', async () => {
    await start();
    expect((await who(basic())).status).toBe(200);
    await enrol();
    const refused = await who(basic());
    expect(problem(refused)).toMatchObject({ status: 401, code: 'second_factor_needed' });
    expect(problem(refused).detail).toContain('/admin/sign-in');
  });

  test('is what scripts are asked for; a browser is sent to the page, and its pages’ requests get no dialog', async () => {
    await enrol();
    await start();
    const [script, browser, known, page] = [
      await who(),
      await who({ accept: 'text/html,*/*', 'sec-fetch-site': 'none' }),
      await who({ accept: 'text/html,*/*', 'sec-fetch-site': 'none', ...basic() }),
      await who({ accept: 'application/json', 'sec-fetch-site': 'same-origin' }),
    ];
    expect([script.status, script.headers['www-authenticate']]).toEqual([401, expect.stringMatching(/^Basic /)]);
    expect([page.status, page.headers['www-authenticate']]).toEqual([401, 'Bearer']);
    for (const sent of [browser, known])
      expect([sent.status, sent.headers.location, sent.headers['www-authenticate']]).toEqual([
        303,
        '/admin/sign-in',
        undefined,
      ]);
  });
});
