/**
 * Registering with a second factor, without a password, and after being cut off: the real server, and the real agent as a
 * process.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import type { ClientHttp2Session } from 'node:http2';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Secret, TOTP } from 'otpauth';
import { type AgentRun, TestAgent } from './helpers/agent.ts';
import { rawRequest, rawSession } from './helpers/raw-http.ts';
import { addUser, type Person, type RunningServer, startServer } from './helpers/server.ts';

let server: RunningServer;
let session: ClientHttp2Session;
const agents: TestAgent[] = [];

beforeAll(async () => {
  server = await startServer();
  session = await rawSession(server.url);
});
afterAll(async () => {
  for (const agent of agents) agent.remove();
  session?.destroy();
  await server?.stop();
});

const newAgent = (): TestAgent => {
  const agent = new TestAgent();
  agents.push(agent);
  return agent;
};

/** A user who may sign in to the API, too. */
async function personOf(name: string): Promise<Person> {
  const person = await addUser(server, name);
  await server.query(
    `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id)
     SELECT tenant_id, user_id, 'PROe User', 'self', organization_id FROM users WHERE name = $1`,
    [name],
  );
  return person;
}

/** One request of the JSON API. */
async function api(method: string, path: string, of: { token?: string; body?: object } = {}) {
  const { token, body } = of;
  const bytes = body && Buffer.from(JSON.stringify(body));
  const answer = await rawRequest(
    session,
    {
      ':method': method,
      ':path': path,
      ...(token && { authorization: `Bearer ${token}` }),
      ...(bytes && { 'content-type': 'application/json', 'content-length': bytes.byteLength }),
    },
    bytes,
  );
  return { status: answer.status, json: JSON.parse(answer.body.toString()) as Record<string, string> };
}

const signIn = async ({ userName, password }: Person): Promise<string> =>
  (await api('POST', '/v1/sessions', { body: { userName, password } })).json.accessToken!;

const idOf = async (name: string): Promise<number> =>
  Number((await server.query<{ id: string }>('SELECT user_id AS id FROM users WHERE name = $1', [name]))[0]!.id);

const devicesOf = async (name: string): Promise<string[]> =>
  (
    await server.query<{ guid: string }>(
      `SELECT guid::text AS guid FROM devices JOIN users USING (user_id) WHERE users.name = $1 AND devices.state = 'active' ORDER BY device_id`,
      [name],
    )
  ).map(({ guid }) => guid);

const at = () => ['register', '--server', server.url, '--fingerprint', server.certificateSha256];
const errorOf = ({ events }: AgentRun) => events.findLast(({ event }) => event === 'error')!;

describe('with a second factor', () => {
  let anna: Person;
  let codeIn: (steps: number) => string;
  let recoveryCodes: string[];
  let first: TestAgent;

  beforeAll(async () => {
    anna = await personOf('anna');
    const token = await signIn(anna);
    const { secret } = (await api('POST', '/v1/me/second-factor', { token })).json;
    const totp = new TOTP({ secret: Secret.fromBase32(secret!) });
    codeIn = (steps) => totp.generate({ timestamp: Date.now() + steps * 30_000 });
    const confirmed = await api('POST', '/v1/me/second-factor/confirm', { token, body: { code: codeIn(-1) } });
    recoveryCodes = confirmed.json.recoveryCodes as unknown as string[];
    first = newAgent();
  });

  test('a script is told which option to give, and the code registers once', async () => {
    const told = await first.run(...first.signIn(server, anna));
    expect(told.exitCode).toBe(1);
    expect(errorOf(told)).toMatchObject({ code: 'second_factor_needed', message: expect.stringContaining('--code') });
    const code = codeIn(1);
    await first.succeed(...first.signIn(server, anna), '--code', code);
    const other = newAgent();
    const again = await other.run(...other.signIn(server, anna), '--code', code);
    expect(errorOf(again)).toMatchObject({ code: 'second_factor_needed' });
    expect(await devicesOf('anna')).toEqual([first.registration.guid]);
  });

  test('one code is enough to look and to replace', async () => {
    const { guid } = first.registration;
    const other = newAgent();
    const args = [...other.signIn(server, anna), '--code', recoveryCodes[0]!, '--replace'];
    expect(await other.succeed(...args)).toMatchObject({ event: 'registered', guid });
    expect(await devicesOf('anna')).toEqual([guid]);
  });

  test('of several devices the person chooses, and registers with the code that was answered', async () => {
    const second = newAgent();
    await second.succeed(...second.signIn(server, anna), '--code', recoveryCodes[1]!);
    const third = newAgent();
    const shown = await third.run(...third.signIn(server, anna), '--code', recoveryCodes[2]!, '--replace');
    expect(shown.exitCode).toBe(2);
    expect(shown.events.filter(({ event }) => event === 'device')).toHaveLength(2);
    const { registrationCode } = shown.events.at(-1) as unknown as { registrationCode: string };
    const { guid } = second.registration;
    const args = [...at(), '--registration-code', registrationCode, '--replace', guid];
    expect(await third.succeed(...args)).toMatchObject({ event: 'registered', guid });
    expect(third.registration.userName).toBe('anna');
    expect(await devicesOf('anna')).toHaveLength(2);
  });
});

describe('with a registration code', () => {
  test('of an administrator, a user without a password backs up', async () => {
    await personOf('bert');
    await server.query(`UPDATE users SET password_hash = NULL WHERE name = 'bert'`);
    const token = await signIn(server.firstStart);
    const path = `/v1/users/${await idOf('bert')}/registration-codes`;
    const made = await api('POST', path, { token, body: {} });
    expect(made).toMatchObject({ status: 201, json: { code: expect.stringMatching(/^(\w{4}-){5}\w{4}$/) } });
    const agent = newAgent();
    const args = [...at(), '--registration-code', made.json.code!];
    await agent.succeed(...args);
    const tree = join(agent.home, 'tree');
    mkdirSync(tree);
    writeFileSync(join(tree, 'file'), 'content');
    expect(await agent.succeed('backup', tree)).toMatchObject({ outcome: 'completed' });

    const other = newAgent();
    const refused = await other.run(...args);
    expect(refused.exitCode).toBe(1);
    expect(errorOf(refused)).toMatchObject({
      code: 'sign_in_failed',
      message: expect.stringContaining('registration-codes create'),
    });
    const both = await other.run(...other.signIn(server, server.firstStart), '--registration-code', 'A');
    expect([both.exitCode, String(errorOf(both).message)]).toEqual([2, expect.stringContaining('leave those out')]);
    expect(await devicesOf('bert')).toHaveLength(1);
  });

  test('of their own, shown once, bounded, and revoked', async () => {
    const cleo = await personOf('cleo');
    const token = await signIn(cleo);
    const make = (minutes: number, password = cleo.password) =>
      api('POST', '/v1/me/registration-codes', { token, body: { password, minutes } });
    for (const minutes of [4, 61])
      expect(await make(minutes)).toMatchObject({ status: 400, json: { code: 'out_of_bounds', field: 'minutes' } });
    expect((await make(60)).status).toBe(201);
    const shown = await make(5);
    expect(shown.json.code).toMatch(/^(\w{4}-){5}\w{4}$/);
    // An access token alone makes none.
    expect(await make(5, 'wrong')).toMatchObject({ status: 400, json: { code: 'out_of_bounds', field: 'password' } });
    const revoked = await api('DELETE', '/v1/me/registration-codes', { token });
    expect(revoked).toEqual({ status: 200, json: { revoked: 2 } });
    const agent = newAgent();
    const refused = await agent.run(...at(), '--registration-code', shown.json.code!);
    expect(errorOf(refused)).toMatchObject({ code: 'sign_in_failed' });
  });

  test('none is made by one who runs the server, and is nobody’s user', async () => {
    const { operator } = server.firstStart as unknown as { operator: { userName: string; password: string } };
    const token = (await api('POST', '/v1/operator/sessions', { body: operator })).json.accessToken!;
    expect((await api('POST', '/v1/me/registration-codes', { token, body: {} })).status).toBe(403);
  });
});

describe('after being cut off', () => {
  /** An agent whose server has answered, and which has not kept the answer: it waits for an archive password. */
  async function killedBetween(person: Person, ...more: string[]): Promise<TestAgent> {
    const before = (await devicesOf(person.userName)).length;
    const agent = newAgent();
    const pipe = join(agent.home, 'nobody-writes-here');
    execFileSync('mkfifo', [pipe]);
    const signIn = more.length > 0 ? more : agent.signIn(server, person);
    const { child, done } = agent.start(...signIn, '--archive-password-file', pipe);
    while ((await devicesOf(person.userName)).length === before) {
      if (child.exitCode !== null) throw new Error(`it ended: ${JSON.stringify(await done)}`);
      await sleep(50);
    }
    child.kill('SIGKILL');
    await done;
    expect(existsSync(join(agent.home, 'agent', 'registration.json'))).toBe(false);
    return agent;
  }

  async function withArchivePassword(name: string): Promise<{ person: Person; guid: string }> {
    const person = await personOf(name);
    const agent = newAgent();
    await agent.succeed(...agent.signIn(server, person, 'only we know'), '--level', 'password');
    return { person, guid: agent.registration.guid };
  }

  test('between the answer and keeping it, the agent goes on with the same device', async () => {
    const { person, guid } = await withArchivePassword('dora');
    const agent = await killedBetween(person);
    const made = await devicesOf('dora');
    expect(made).toHaveLength(2);
    const wrong = await agent.run(...agent.signIn(server, person, 'not this one'));
    expect(String(errorOf(wrong).message)).toContain('Run the same command again');
    await agent.succeed(...agent.signIn(server, person, 'only we know'));
    expect(await devicesOf('dora')).toEqual(made);
    expect(made).toEqual([guid, agent.registration.guid]);
    expect(existsSync(join(agent.home, 'agent', 'registering.json'))).toBe(false);
    // What is registered again with --force is another device.
    await agent.succeed(...agent.signIn(server, person, 'only we know'), '--force');
    expect(await devicesOf('dora')).toHaveLength(3);
  });

  test('also with a registration code, which is used by then', async () => {
    const { person } = await withArchivePassword('emil');
    const body = { password: person.password };
    const made = await api('POST', '/v1/me/registration-codes', { token: await signIn(person), body });
    const args = [...at(), '--registration-code', made.json.code!];
    const agent = await killedBetween(person, ...args);
    await agent.succeed(...args, '--archive-password-file', agent.file('archive-password', 'only we know'));
    expect(await devicesOf('emil')).toHaveLength(2);
    expect(await devicesOf('emil')).toContain(agent.registration.guid);
  });

  test('and the device blocked meanwhile, it registers another', async () => {
    const { person } = await withArchivePassword('fritz');
    const agent = await killedBetween(person);
    const [, blocked] = await devicesOf('fritz');
    await server.query(`UPDATE devices SET state = 'deauthorized' WHERE guid = $1`, [blocked]);
    await agent.succeed(...agent.signIn(server, person, 'only we know'));
    expect(agent.registration.guid).not.toBe(blocked);
    expect(await devicesOf('fritz')).toContain(agent.registration.guid);
  });
});
