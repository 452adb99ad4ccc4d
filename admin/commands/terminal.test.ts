/** Signing in as a person does: on a terminal, which shows none of the secrets that are typed. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { Secret, TOTP } from 'otpauth';
import { createPasswords } from '../../server/directory/sign-in/passwords.ts';
import { ApiWorld } from '../../tests/api/world.ts';
import { hasTerminal, TestAdmin } from '../testing.ts';

const password = 'a password ünd more';
const onTerminal = hasTerminal ? test : test.skip;

let world: ApiWorld;
let admin: TestAdmin;
let hash: string;

beforeAll(async () => {
  world = await ApiWorld.open();
  hash = await createPasswords({ concurrentMax: 1, waitingMax: 1 }).hash(password);
}, 60_000);
afterAll(() => world?.close());
beforeEach(() => {
  admin = new TestAdmin();
});
afterEach(() => admin.remove());

async function person(name: string): Promise<string[]> {
  const { user } = await world.person('Customer Cloud Admin', { name });
  await world.storage.rows('UPDATE users SET password_hash = $1 WHERE user_id = $2', [hash, user]);
  return ['sign-in', '--server', world.server.origin, '--tenant', String(world.tenant), '--user', name];
}

onTerminal('the password is asked for and not shown; one that was typed wrong can be mended', async () => {
  const args = await person('ada');
  const { code, screen } = await admin.onTerminal(args, [['Password of ada at', `x\u007f${password}\r`]]);
  expect(screen).toContain(`Signed in to ${world.server.origin} as ada`);
  expect(code).toBe(0);
  expect(screen).not.toContain('password ');
  expect(await admin.json('whoami')).toMatchObject({ name: 'ada' });
});

onTerminal('a wrong password is said to be, and ends with 1', async () => {
  const { code, screen } = await admin.onTerminal(await person('bo'), [['Password of bo at', 'a wrong guess\r']]);
  expect([code, screen.includes('wrong guess')]).toEqual([1, false]);
  expect(screen).toContain('password is not right');
});

onTerminal('so is the code of the second factor, after the password', async () => {
  const args = await person('cy');
  await admin.onTerminal(args, [['Password of cy at', `${password}\r`]]);
  const { secret } = await admin.json<{ secret: string }>('me', 'second-factor', 'set-up');
  const codeAt = (timestamp: number) => new TOTP({ secret: Secret.fromBase32(secret) }).generate({ timestamp });
  await admin.json('me', 'second-factor', 'confirm', '--code', codeAt(Date.now()));
  // Each is good once: the next one is taken a little early.
  const next = codeAt(Date.now() + 30_000);
  const { code, screen } = await admin.onTerminal(args, [
    ['Password of cy at', `${password}\r`],
    ['Code of the second factor: ', `${next}\r`],
  ]);
  expect([code, screen.includes(next)]).toEqual([0, false]);
});

onTerminal('and a new password, twice, where one has to be set', async () => {
  const args = await person('di');
  await world.storage.rows(`UPDATE users SET password_once_until = now() + interval '1 hour' WHERE name = 'di'`);
  const own = 'a horse of many colours';
  const differs = await admin.onTerminal(args, [
    ['Password of di at', `${password}\r`],
    ['New password: ', `${own}\r`],
    ['The same again: ', `${own}!\r`],
  ]);
  expect([differs.code, differs.screen.includes('are not the same')]).toEqual([2, true]);
  const { code, screen } = await admin.onTerminal(args, [
    ['Password of di at', `${password}\r`],
    ['New password: ', `${own}\r`],
    ['The same again: ', `${own}\r`],
  ]);
  expect([code, screen.includes(own)]).toEqual([0, false]);
});

onTerminal('Ctrl-C where a secret is asked ends it, and nothing is kept', async () => {
  const { code, screen } = await admin.onTerminal(await person('ed'), [['Password of ed at', 'half of it\u0003']]);
  expect([code, screen.includes('half')]).toEqual([2, false]);
  expect(existsSync(join(admin.home, 'sign-in.json'))).toBe(false);
});

onTerminal('what cannot be undone asks for the name of what it is about', async () => {
  await admin.onTerminal(await person('flo'), [['Password of flo at', `${password}\r`]]);
  const { user } = await world.person('PROe User', { name: 'leaver' });
  const deactivate = ['users', 'deactivate', String(user)];
  const other = await admin.onTerminal(deactivate, [['to go on: ', 'leavers\r']]);
  expect([other.code, other.screen.includes('another name')]).toEqual([2, true]);
  expect((await admin.onTerminal(deactivate, [['to go on: ', 'leaver\r']])).code).toBe(0);
});
