/** The administrator's command as its users run it: a process of its own against the real server. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { ApiWorld } from '../tests/api/world.ts';
import { TestAdmin } from './testing.ts';

let world: ApiWorld;
let admin: TestAdmin;

beforeAll(async () => {
  world = await ApiWorld.open();
}, 60_000);
afterAll(() => world?.close());

beforeEach(() => {
  admin = new TestAdmin();
});
afterEach(() => admin.remove());

/** As whoever has this role, without a sign-in. */
async function as(role: string): Promise<void> {
  const { token } = await world.person(role, { name: `${role} of ${admin.home}` });
  admin.environment = { HOLDFAST_ADMIN_SERVER: world.server.origin, HOLDFAST_ADMIN_TOKEN: token };
}

describe('asking and changing', () => {
  beforeEach(() => as('Customer Cloud Admin'));

  test('makes, shows, changes and lists, for people and for scripts', async () => {
    const parent = String(world.places.own.organization);
    const made = await admin.json<{ id: number; version: number }>(
      ...['organizations', 'create', '--name', 'Sales', '--parent', parent],
    );
    const id = String(made.id);
    expect(await admin.json('organizations', 'show', id)).toMatchObject({ name: 'Sales', parent: Number(parent) });
    const shown = await admin.run(['organizations', 'show', id]);
    expect(shown.out).toMatch(/^name +Sales$/m);
    expect(shown.out).toMatch(/^effective\.state +active$/m);
    expect(await admin.json('organizations', 'update', id, '--name', 'Sales and more')).toMatchObject({
      name: 'Sales and more',
    });
    const listed = await admin.run(['organizations', 'list', '--below', parent]);
    expect(listed).toMatchObject({ code: 0, err: '' });
    expect(listed.out.split('\n')[0]).toMatch(/^id +parent +name +state/);
    expect(listed.out).toMatch(/^\d+ +\d+ +Sales and more +active/m);
  });

  test('settings by their dots, numbers as numbers, null to inherit, as the API spells them, too', async () => {
    const id = String(world.places.child.organization);
    type Settings = Record<string, Record<string, { own: unknown }>>;
    const shown = async () =>
      (await admin.json<{ settings: Settings }>('organizations', 'settings', 'show', id)).settings;
    const own = async () => (await shown()).quotas!.seats!.own;
    await admin.json('organizations', 'settings', 'update', id, '--settings.quotas.seats', '5');
    expect(await own()).toBe(5);
    await admin.json('organizations', 'settings', 'update', id, '--settings.quotas.seats', 'null');
    expect(await own()).toBeNull();
    await admin.json('organizations', 'settings', 'update', id, '--settings.quotas.bytesPerUser', '1000');
    const include = '--settings.backup-defaults.include';
    const included = async () => (await shown()).backupDefaults!.include!.own;
    await admin.json('organizations', 'settings', 'update', id, include, '/a', include, '/b');
    expect(await included()).toEqual(['/a', '/b']);
    await admin.json('organizations', 'settings', 'update', id, include, 'null');
    expect(await included()).toBeNull();
    await admin.json('organizations', 'two-factor', 'set', id, '--required', 'true');
    const refused = await admin.run(['organizations', 'settings', 'update', id, '--settings.quotas.seats', '-5']);
    expect(refused).toMatchObject({ code: 1, err: expect.stringContaining('quotas.seats') });
  });

  test('a body from a file, with options over it, and from stdin', async () => {
    const file = join(admin.home, 'body.json');
    const parent = world.places.own.organization;
    writeFileSync(file, JSON.stringify({ name: 'from a file', parent }));
    expect(await admin.json('organizations', 'create', '--body', `@${file}`)).toMatchObject({ name: 'from a file' });
    expect(await admin.json('organizations', 'create', '--body', `@${file}`, '--name', 'over it')).toMatchObject({
      name: 'over it',
      parent,
    });
    const piped = await admin.run(
      ['organizations', 'create', '--body', '@-', '--json'],
      JSON.stringify({ name: 'piped', parent }),
    );
    expect(JSON.parse(piped.out)).toMatchObject({ name: 'piped' });
    writeFileSync(file, '{');
    expect(await admin.run(['organizations', 'create', '--body', `@${file}`])).toMatchObject({
      code: 2,
      err: expect.stringContaining('no JSON'),
    });
    expect(await admin.run(['organizations', 'create', '--body', '@nowhere.json'])).toMatchObject({ code: 2 });
  });

  test('names the field at fault, in words and for scripts', async () => {
    const args = ['organizations', 'create', '--name', '', '--parent', String(world.places.own.organization)];
    expect(await admin.run(args)).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringContaining('at fault: --name ""'),
    });
    const { code, err } = await admin.run([...args, '--json']);
    expect(code).toBe(1);
    expect(JSON.parse(err)).toMatchObject({ status: 400, field: 'name' });
  });

  test('sends nothing that is known to be wrong, and ends with 2', async () => {
    const wrong: [args: string[], says: string][] = [
      [['organizations', 'create', '--parent', '1'], 'missing: --name'],
      [['organizations', 'create', '--name', 'x', '--parent', 'one'], '--parent takes a whole number, not "one"'],
      [['organizations', 'create', '--name', 'x', '--name', 'y'], '--name is given 2 times'],
      [['organizations', 'show'], "missing required argument 'organization'"],
      [['organizations', 'show', '1', '2'], 'too many arguments'],
      [['organizations', 'show', '..'], 'is empty'],
      [['organizations', 'list', '--state', 'gone'], '--state takes one of active'],
      [['organizations', 'update', '1', '--name', 'x', '--if-match', 'v1'], '--if-match'],
      [['organizations', 'delete', '999999'], '--yes'],
      [['organizations', 'lst'], 'Did you mean list?'],
      [['organisations', 'list'], 'Did you mean organizations?'],
      [['organizations', 'list', '--belo', '3'], 'Did you mean --below?'],
    ];
    for (const [args, says] of wrong) {
      const { code, out, err } = await admin.run(args);
      expect([args, code, out, err]).toEqual([args, 2, '', expect.stringContaining(says)]);
    }
  });

  test('a moment that is none is told with one that is, and nothing is sent', async () => {
    const run = await admin.run(['audit', 'export', '--from', 'yesterday']);
    expect(run).toMatchObject({
      code: 2,
      out: '',
      err: expect.stringMatching(/^--from takes a moment .* 2026-03-01T/),
    });
  });

  test('--yes is taken by commands that ask nothing, and not shown by them', async () => {
    expect(await admin.run(['organizations', 'list', '--yes'])).toMatchObject({ code: 0, err: '' });
    expect(await admin.run(['whoami', '--yes'])).toMatchObject({ code: 0, err: '' });
    expect((await admin.run(['organizations', 'list', '--help'])).out).not.toContain('--yes');
    expect((await admin.run(['organizations', 'delete', '--help'])).out).toContain('--yes');
  });

  test('a folder of a device is a table; a device that is away is told how it comes back', async () => {
    const { guid } = await world.person('Desktop User', { name: `away ${admin.home}` });
    const { code, err } = await admin.run(['devices', 'browse', guid]);
    expect([code, err]).toEqual([1, expect.stringMatching(/not connected.*npm run agent -- watch/)]);
    const help = await admin.run(['devices', 'browse', '--help']);
    expect(help.out).not.toContain('--all');
  });

  test('what was changed meanwhile is not changed, with --if-match', async () => {
    const { id, version } = await admin.json<{ id: number; version: number }>(
      ...['organizations', 'create', '--name', 'versions', '--parent', String(world.places.own.organization)],
    );
    const rename = (name: string) =>
      admin.run(['organizations', 'update', String(id), '--name', name, '--if-match', String(version)]);
    expect((await rename('second')).code).toBe(0);
    expect(await rename('third')).toMatchObject({ code: 1, err: expect.stringContaining('version') });
  });

  test('the same key does it once', async () => {
    const args = ['organizations', 'create', '--name', 'once', '--parent', String(world.places.own.organization)];
    const first = await admin.json<{ id: number }>(...args, '--idempotency-key', 'k1');
    expect((await admin.json<{ id: number }>(...args, '--idempotency-key', 'k1')).id).toBe(first.id);
    expect((await admin.json<{ id: number }>(...args)).id).not.toBe(first.id);
  });

  test('every page, as a table and as lines', async () => {
    const page = await admin.run(['users', 'list', '--limit', '2']);
    expect(page.out.trim().split('\n')).toHaveLength(3);
    expect(page.err).toMatch(/There is more: --all, or --after \S+/);
    const after = /--after (\S+)/.exec(page.err)![1]!;
    const next = await admin.json<{ items: { id: number }[] }>('users', 'list', '--limit', '2', '--after', after);
    const { out } = await admin.run(['users', 'list', '--all', '--limit', '2', '--json']);
    const all = out
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { id: number }).id);
    expect(all.length).toBeGreaterThan(4);
    expect(new Set(all).size).toBe(all.length);
    expect(all.slice(2, 4)).toEqual(next.items.map(({ id }) => id));
    const table = await admin.run(['users', 'list', '--all', '--limit', '2']);
    expect(table.out.trim().split('\n')).toHaveLength(all.length + 1);
  });

  test('what names play with a terminal with is shown, and does nothing', async () => {
    // Older than the rule that refuses such names, or of an identity provider.
    const name = 'evil\u001b]0;owned\u0007\u009b2J\u202etxt';
    const organization = world.places.own.organization;
    const user = await world.addUser(world.tenant, organization, name);
    await world.addDevice(world.tenant, user);
    const id = String(user);
    const runs = [
      await admin.run(['users', 'show', id]),
      await admin.run(['users', 'list', '--organization', String(organization)]),
      await admin.run(['users', 'show', id, '--json']),
    ];
    for (const { code, out } of runs) {
      expect(code).toBe(0);
      expect(out).toContain('evil');
      expect(out).not.toMatch(/[^\P{Cc}\n]|\p{Cf}/u);
    }
    expect(JSON.parse(runs[2]!.out).name).toBe(name);
  });

  test('a stream goes to stdout as it is, or whole into a file', async () => {
    await admin.json('organizations', 'update', String(world.places.own.organization), '--name', 'own');
    const { code, out } = await admin.run(['audit', 'export', '--format', 'jsonl']);
    expect(code).toBe(0);
    const lines = out.trim().split('\n');
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) expect(typeof JSON.parse(line)).toBe('object');
    const file = join(admin.home, 'acts.csv');
    const written = await admin.run(['audit', 'export', '--format', 'csv', '--output', file]);
    expect(written).toMatchObject({ code: 0, out: '', err: expect.stringContaining(file) });
    expect(readFileSync(file, 'utf8').split('\n').length).toBeGreaterThan(1);
    expect(readdirSync(admin.home).filter((name) => name.includes('.part'))).toEqual([]);
    const nowhere = await admin.run(['audit', 'export', '--format', 'csv', '--output', '/nowhere/at/all']);
    expect(nowhere).toMatchObject({ code: 2, err: expect.stringContaining('/nowhere/at/all') });
  });

  test('what takes something away is asked about, and done with --yes', async () => {
    const made = await admin.json<{ id: number }>(
      ...['organizations', 'create', '--name', 'short-lived', '--parent', String(world.places.own.organization)],
    );
    const id = String(made.id);
    const asked = await admin.run(['organizations', 'deactivate', id], 'short-lived\n');
    expect(asked).toMatchObject({ code: 2, err: expect.stringContaining('--yes') });
    expect(await admin.json('organizations', 'show', id)).toMatchObject({ state: 'active' });
    expect(await admin.json('organizations', 'deactivate', id, '--yes')).toMatchObject({ state: 'deactivated' });
    expect(await admin.json('organizations', 'delete', id, '--yes')).toEqual({ deleted: made.id });
  });

  test('so is a restore that may write over what a device has, and no other', async () => {
    const push = ['pushed-restores', 'create', '--device', '5', '--paths', '/d', '--to.device', '6'];
    const asked = { code: 2, err: expect.stringContaining('--yes') };
    expect(await admin.run([...push, '--to.original', 'true'])).toMatchObject(asked);
    expect(await admin.run([...push, '--to.folder', '/new', '--existing', 'overwrite'])).toMatchObject(asked);
    expect(await admin.run([...push, '--to.folder', '/new'])).toMatchObject({ code: 1 });
    expect(await admin.run([...push, '--to.original', 'true', '--yes'])).toMatchObject({ code: 1 });
    expect((await admin.run(['pushed-restores', 'create', '--help'])).out).toContain('--yes');
  });

  test('who may not is told what it needs', async () => {
    await as('PROe User');
    const { code, err } = await admin.run(['audit', 'list']);
    expect([code, err]).toEqual([1, expect.stringMatching(/permission auditlog\.read[\s\S]*whoami/)]);
  });
});

describe('the description of the server', () => {
  test('is kept: help needs no server, and what the copy does not know is looked for', async () => {
    await as('Customer Cloud Admin');
    const help = await admin.run(['organizations', 'move', '--help']);
    expect(help).toMatchObject({ code: 0, err: '' });
    expect(help.out).toContain('--parent <number>');
    expect(help.out).toContain('org.update_deactivate');
    expect(help.out).toContain('npm run admin -- organizations move 3 --parent 1');
    expect((await admin.run([])).out + (await admin.run(['--help'])).out).toContain('organizations');
    // An older server's, without most commands.
    const [file] = readdirSync(admin.home).filter((name) => name.startsWith('api-'));
    const copy = JSON.parse(readFileSync(join(admin.home, file!), 'utf8'));
    const { '/v1/roles': roles } = copy.document.paths;
    copy.document.paths = { '/v1/roles': roles };
    writeFileSync(join(admin.home, file!), JSON.stringify(copy));
    expect((await admin.run(['--help'])).out).not.toContain('organizations');
    expect(await admin.run(['organizations', 'list', '--json'])).toMatchObject({ code: 0, err: '' });
    writeFileSync(join(admin.home, file!), '{');
    expect(await admin.run(['roles', 'list'])).toMatchObject({ code: 0, err: '' });
  });

  test('a server that is away is named, with and without a copy', async () => {
    const gone = 'http://127.0.0.1:1';
    admin.environment = { HOLDFAST_ADMIN_SERVER: gone, HOLDFAST_ADMIN_TOKEN: 'x' };
    expect(await admin.run(['users', 'list'])).toMatchObject({
      code: 1,
      err: expect.stringContaining(`cannot reach ${gone}`),
    });
    const help = await admin.run(['--help']);
    expect(help).toMatchObject({ code: 0, err: expect.stringContaining(`cannot reach ${gone}`) });
    expect(help.out).toContain('sign-in');
    const { code, err } = await admin.run(['users', 'list', '--json']);
    expect([code, JSON.parse(err).code]).toEqual([1, 'connection_lost']);
  });

  test('without a server the way in is told', async () => {
    expect(await admin.run(['users', 'list'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('sign-in --help'),
    });
    expect((await admin.run(['--help'])).out).toContain('sign in first');
    expect(await admin.run(['whoami'])).toMatchObject({ code: 1, err: expect.stringContaining('sign-in --server') });
  });

  test('what is no Holdfast server is said to be none', async () => {
    const other = createServer((_, answer) => answer.end('<html>hello</html>'));
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    admin.environment = {
      HOLDFAST_ADMIN_SERVER: `http://127.0.0.1:${(other.address() as AddressInfo).port}`,
      HOLDFAST_ADMIN_TOKEN: 'x',
    };
    expect(await admin.run(['users', 'list'])).toMatchObject({ code: 1, err: expect.stringContaining('no JSON') });
    other.close();
  });
});
