/** Signing in and out, as people and scripts do: the command is a process of its own, against the real server. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Secret, TOTP } from 'otpauth';
import { createOperator } from '../../server/directory/sign-in/operators/operators.ts';
import { createPasswords } from '../../server/directory/sign-in/passwords.ts';
import { ApiWorld } from '../../tests/api/world.ts';
import { signedInToken } from '../client/authorization.ts';
import { TestAdmin } from '../testing.ts';
import { connectionTo } from './session.ts';

const password = 'a password of a test';

let world: ApiWorld;
let admin: TestAdmin;

beforeAll(async () => {
  world = await ApiWorld.open();
  await world.storage.rows('UPDATE users SET password_hash = $1 WHERE name = $2', [
    await createPasswords({ concurrentMax: 1, waitingMax: 1 }).hash(password),
    'chief',
  ]);
}, 60_000);
afterAll(() => world?.close());

beforeEach(() => {
  admin = new TestAdmin();
});
afterEach(() => admin.remove());

const signIn = (given = password, user = 'chief') =>
  admin.run(
    [
      'sign-in',
      '--server',
      world.server.origin,
      '--tenant',
      String(world.tenant),
      '--user',
      user,
      '--password-file',
      '-',
    ],
    `${given}\n`,
  );

async function signedIn(): Promise<void> {
  const { code, err } = await signIn();
  if (code !== 0) throw new Error(err);
}

const stored = () => JSON.parse(readFileSync(join(admin.home, 'sign-in.json'), 'utf8'));

describe('signing in', () => {
  test('keeps the tokens in a file for nobody else, and says who one is until one signs out', async () => {
    const made = await signIn();
    expect(made).toMatchObject({ code: 0, err: '' });
    expect(made.out).toContain(`Signed in to ${world.server.origin} as chief`);
    expect(statSync(join(admin.home, 'sign-in.json')).mode & 0o777).toBe(0o600);
    expect(await admin.json('whoami')).toMatchObject({ server: world.server.origin, kind: 'user', name: 'chief' });
    const { accessToken } = stored().tokens;
    expect(await admin.run(['sign-out'])).toMatchObject({ code: 0, err: '' });
    expect(stored().tokens).toBeNull();
    // On the server, too.
    expect((await world.ask('GET', '/v1/me', { token: accessToken })).status).toBe(401);
    expect(await admin.run(['whoami'])).toMatchObject({ code: 1, err: expect.stringContaining('sign-in') });
  });

  test('with a wrong password says so, ends with 1 and keeps nothing', async () => {
    const { code, out, err } = await signIn('another');
    expect([code, out]).toEqual([1, '']);
    expect(err).toContain('password');
    expect(readdirSync(admin.home).filter((name) => name.endsWith('.json'))).toEqual([]);
  });

  test('asks nobody where nobody is, and takes no password from the command line', async () => {
    const where = ['sign-in', '--server', world.server.origin, '--user', 'chief'];
    expect(await admin.run(where)).toMatchObject({ code: 2, err: expect.stringContaining('--password-file') });
    expect(await admin.run([...where, '--password', password])).toMatchObject({
      code: 2,
      err: expect.stringContaining('unknown option'),
    });
    expect(await admin.run(['sign-in', '--server', 'http://192.0.2.1', '--user', 'x'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('not encrypted'),
    });
  });

  test('again ends the session before', async () => {
    await signedIn();
    const { accessToken } = stored().tokens;
    await signedIn();
    expect(stored().tokens.accessToken).not.toBe(accessToken);
    expect((await world.ask('GET', '/v1/me', { token: accessToken })).status).toBe(401);
  });

  test('an access token whose time is over is exchanged, once by however many commands run at once', async () => {
    await signedIn();
    const before = stored();
    writeFileSync(
      join(admin.home, 'sign-in.json'),
      JSON.stringify({ ...before, tokens: { ...before.tokens, accessExpiresAt: Date.now() - 1 } }),
    );
    const runs = await Promise.all(['1', '2', '3'].map(() => admin.run(['organizations', 'list', '--json'])));
    expect(runs.map(({ code, err }) => [code, err])).toEqual([
      [0, ''],
      [0, ''],
      [0, ''],
    ]);
    const after = stored();
    expect(after.tokens.session).toBe(before.tokens.session);
    expect(after.tokens.refreshToken).not.toBe(before.tokens.refreshToken);
    expect(statSync(join(admin.home, 'sign-in.json')).mode & 0o777).toBe(0o600);
    const [{ made }] = (await world.storage.rows<{ made: number }>(
      'SELECT count(*) AS made FROM access_tokens WHERE session_id = $1',
      [before.tokens.session],
    )) as [{ made: number }];
    expect(Number(made)).toBe(2);
  });

  test('whoever comes second with a token that was exchanged meanwhile takes what the first one got', async () => {
    await signedIn();
    const { accessToken, session } = stored().tokens;
    const connection = connectionTo({ origin: world.server.origin, certificateSha256: null });
    const first = await signedInToken(connection, admin.home).renew(accessToken);
    expect(first).not.toBe(accessToken);
    expect(await signedInToken(connection, admin.home).renew(accessToken)).toBe(first);
    connection.close();
    const made = await world.storage.rows('SELECT 1 FROM access_tokens WHERE session_id = $1', [session]);
    expect(made).toHaveLength(2);
  });

  test('a token that the server does not take any more is exchanged, too, and one whose session has ended is not', async () => {
    await signedIn();
    const { session } = stored().tokens;
    await world.storage.rows("UPDATE access_tokens SET expires_at = now() - interval '1 s' WHERE session_id = $1", [
      session,
    ]);
    expect(await admin.run(['whoami'])).toMatchObject({ code: 0 });
    await world.storage.rows('UPDATE sessions SET ended_at = now() WHERE session_id = $1', [session]);
    const { code, err } = await admin.run(['whoami', '--json']);
    expect(code).toBe(1);
    expect(JSON.parse(err)).toMatchObject({ code: 'sign_in_needed', detail: expect.stringContaining('sign-in') });
    expect(stored().tokens).toBeNull();
  });

  test('a one-time password is replaced, and a second factor asks for its code, each from a file', async () => {
    const chief = new TestAdmin();
    const { token } = await world.person('Customer Cloud Admin', { name: 'who helps' });
    chief.environment = { HOLDFAST_ADMIN_SERVER: world.server.origin, HOLDFAST_ADMIN_TOKEN: token };
    const made = await chief.json<{ id: number }>(
      'users',
      'create',
      '--name',
      'newcomer',
      '--organization',
      `${world.top}`,
    );
    await world.addDevice(world.tenant, made.id);
    await chief.json('users', 'roles', 'give', String(made.id), '--role', 'Customer Cloud Admin');
    const once = await chief.json<{ password: string }>('users', 'password-reset', String(made.id), '--yes');
    chief.remove();
    const file = (name: string, text: string): string => {
      writeFileSync(join(admin.home, name), text);
      return join(admin.home, name);
    };
    const where = ['--server', world.server.origin, '--tenant', String(world.tenant), '--user', 'newcomer'];
    const first = ['sign-in', ...where, '--password-file', file('once', `${once.password}\n`)];
    expect(await admin.run(first)).toMatchObject({ code: 2, err: expect.stringContaining('--new-password-file') });
    const own = ['--new-password-file', file('own', 'a password of their own\r\n')];
    expect(await admin.run([...first, ...own])).toMatchObject({ code: 0 });
    const { secret } = await admin.json<{ secret: string }>('me', 'second-factor', 'set-up');
    const codeAt = (timestamp: number): string =>
      new TOTP({ secret: Secret.fromBase32(secret) }).generate({ timestamp });
    await admin.json('me', 'second-factor', 'confirm', '--code', codeAt(Date.now()));
    const again = ['sign-in', ...where, '--password-file', file('own', 'a password of their own')];
    expect(await admin.run(again)).toMatchObject({ code: 2, err: expect.stringContaining('--code-file') });
    const wrong = await admin.run([...again, '--code-file', file('code', '000000')]);
    expect(wrong).toMatchObject({ code: 1, out: '' });
    // A code is good once: the next one is taken a little early.
    const next = await admin.run([...again, '--code-file', file('code', `${codeAt(Date.now() + 30_000)}\n`)]);
    expect(next).toMatchObject({ code: 0 });
  });

  test('one who runs the server signs in as such', async () => {
    const by = { tenant: null, party: { kind: 'server' as const, id: null, name: 'test' }, address: null };
    const hash = await createPasswords({ concurrentMax: 1, waitingMax: 1 }).hash(password);
    await world.storage.database.transaction((tx) => createOperator(tx, by, 'root', hash));
    const args = ['sign-in', '--server', world.server.origin, '--operator', '--user', 'root', '--password-file', '-'];
    expect(await admin.run([...args, '--tenant', '1'])).toMatchObject({ code: 2 });
    expect(await admin.run(args, password)).toMatchObject({ code: 0 });
    expect(await admin.json('whoami')).toMatchObject({ kind: 'operator', name: 'root', tenant: null });
    expect((await admin.json<{ items: unknown[] }>('tenants', 'list')).items.length).toBeGreaterThan(1);
    expect((await admin.run(['users', 'list'])).code).toBe(1);
    // Their second factor is set up as everybody's.
    const { secret } = await admin.json<{ secret: string }>('me', 'second-factor', 'set-up');
    const codeAt = (timestamp: number): string =>
      new TOTP({ secret: Secret.fromBase32(secret) }).generate({ timestamp });
    await admin.json('me', 'second-factor', 'confirm', '--code', codeAt(Date.now()));
    expect(await admin.run(args, password)).toMatchObject({ code: 2, err: expect.stringContaining('--code-file') });
    const file = join(admin.home, 'code');
    writeFileSync(file, codeAt(Date.now() + 30_000));
    expect(await admin.run([...args, '--code-file', file], password)).toMatchObject({ code: 0 });
  });

  test('scripts sign in as an API client, and are told when they cannot', async () => {
    await signedIn();
    const { clientId, clientSecret } = await admin.json<{ clientId: string; clientSecret: string }>(
      'clients',
      'create',
      ...['--name', 'script', '--organization', String(world.top), '--permissions', 'org.read'],
      ...['--scope', 'tree', '--expires-at', new Date(Date.now() + 86_400_000).toISOString()],
    );
    await admin.run(['sign-out']);
    const script = new TestAdmin();
    script.environment = {
      HOLDFAST_ADMIN_SERVER: world.server.origin,
      HOLDFAST_ADMIN_CLIENT_ID: clientId,
      HOLDFAST_ADMIN_CLIENT_SECRET: clientSecret,
    };
    expect(await script.json('whoami')).toMatchObject({ kind: 'client', name: 'script' });
    expect((await script.json<{ items: unknown[] }>('organizations', 'list')).items.length).toBeGreaterThan(2);
    expect(await script.run(['users', 'list'])).toMatchObject({ code: 1, err: expect.stringContaining('user.read') });
    script.environment.HOLDFAST_ADMIN_CLIENT_SECRET = 'x'.repeat(clientSecret.length);
    expect((await script.run(['organizations', 'list'])).code).toBe(1);
    script.remove();
  });
});
