import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Actor } from '../../roles/may.ts';
import type { Permission } from '../../roles/permissions.ts';
import { loadActor } from '../sessions/actor.ts';
import { ending, problemOf, signInWorld, type World } from '../test-world.ts';
import { newToken } from '../tokens.ts';
import { signInClient, tokensPerClientMax } from './client-sign-in.ts';
import {
  createClient,
  type DrawnClient,
  drawClient,
  listClients,
  type OfClient,
  readClient,
  revokeClient,
  rotateClient,
  updateClient,
} from './clients.ts';
import { CreateClientRequest, RotateClientRequest } from './shapes.ts';

let world: World;
let giver: Actor;
let expiresAt: string;
const address = '192.0.2.1';

beforeAll(async () => {
  world = await signInWorld();
  const grants = [{ role: 'Customer Cloud Admin', scope: 'all', organization: world.root }] as const;
  giver = { tenant: world.tenant, user: 1, organization: world.root, grants };
  expiresAt = new Date(Date.now() + 86_400_000).toISOString();
});
afterAll(() => world?.close());

type Asked = Partial<Parameters<typeof createClient>[2]>;

const create = (of: Asked = {}, drawn = drawClient()) =>
  world.database.transaction((tx) =>
    createClient(
      tx,
      world.by,
      {
        tenant: world.tenant,
        organization: world.child,
        name: 'reports',
        permissions: ['user.read', 'computer.read'],
        scope: 'tree',
        expiresAt,
        giver,
        ...of,
      },
      drawn,
    ),
  );
const signIn = ({ clientKey, secret }: DrawnClient, drawn = newToken()) =>
  signInClient(world.directory, { clientId: clientKey, clientSecret: secret }, drawn, address);
const whyRefused = async (token: string) => (await loadActor(world.database, token)).refused;

describe('an API client', () => {
  let drawn: DrawnClient;
  let of: OfClient;
  beforeEach(async () => {
    drawn = drawClient();
    of = { tenant: world.tenant, client: (await create({}, drawn)).id, expected: null };
  });
  const change = (
    request: Parameters<typeof updateClient>[2]['change'],
    by: Partial<OfClient & { giver: Actor }> = {},
  ) => world.database.transaction((tx) => updateClient(tx, world.by, { ...of, giver, ...by, change: request }));
  const rotate = (overlapHours: number, next = drawClient(), by: Partial<OfClient & { giver: Actor }> = {}) =>
    world.database.transaction((tx) => rotateClient(tx, world.by, { ...of, giver, overlapHours, ...by }, next));
  const revoke = (by: Partial<OfClient> = {}) =>
    world.database.transaction((tx) => revokeClient(tx, world.by, { ...of, ...by }));

  test('signs in, and is an actor that is nobody, with its permissions', async () => {
    const { accessToken, expiresInSeconds } = await signIn(drawn);
    expect(expiresInSeconds).toBe(900);
    const place = { tenant: world.tenant, organization: world.child };
    const grants = [{ permissions: ['user.read', 'computer.read'], scope: 'tree', organization: world.child }];
    expect(await loadActor(world.database, accessToken)).toEqual({
      refused: null,
      identity: {
        kind: 'client',
        client: of.client,
        clientName: 'reports',
        organizationPath: [world.root, world.child],
        ...place,
      },
      actor: { ...place, user: null, grants },
      limited: false,
    });
    expect((await readClient(world.database, of)).lastUsedAt).not.toBeNull();
  });

  test('keeps only permissions that there are', async () => {
    await world.query(`UPDATE api_clients SET permissions = '{user.read,of.tomorrow}' WHERE client_id = $1`, [
      of.client,
    ]);
    const loaded = await loadActor(world.database, (await signIn(drawn)).accessToken);
    expect(loaded).toMatchObject({ actor: { grants: [{ permissions: ['user.read'] }] } });
  });

  test('leaves each sign-in in the log, and no secret anywhere', async () => {
    const before = (await world.acts('client.sign_in')).length;
    await signIn(drawn);
    await ending(signIn({ ...drawn, secret: newToken() }));
    await ending(signIn({ clientKey: 'my secret', secret: drawn.secret }));
    const acts = (await world.acts('client.sign_in')).slice(before);
    expect(acts.map(({ result, details, party }) => [party, result, details.why])).toEqual([
      ['reports', 'done', undefined],
      ['reports', 'refused', 'wrong secret'],
      ['unknown', 'refused', 'no such client'],
    ]);
    const rows = await world.query(
      'SELECT acts::text, (SELECT json_agg(c) FROM api_clients c)::text AS clients FROM acts',
    );
    expect(JSON.stringify(rows)).not.toContain(drawn.secret);
    expect(JSON.stringify(rows)).not.toContain('my secret');
  });

  test.each<[what: string, of: (d: DrawnClient) => DrawnClient]>([
    ['another secret', (d) => ({ ...d, secret: newToken() })],
    ['no secret', (d) => ({ ...d, secret: '' })],
    ['half a secret', (d) => ({ ...d, secret: d.secret.slice(0, 20) })],
    ['another name', (d) => ({ ...d, clientKey: `${d.clientKey}0` })],
    ['a NUL in its name', (d) => ({ ...d, clientKey: `${d.clientKey}\0` })],
  ])('is refused with %s, always in the same words', async (_what, wrong) => {
    const refused = await problemOf(signIn(wrong(drawn)));
    expect(refused.toJSON()).toEqual((await problemOf(signIn({ clientKey: 'none', secret: '' }))).toJSON());
    expect(refused.code).toBe('sign_in_failed');
  });

  test('that is asked twice, after a COMMIT of unknown outcome, has one token and one act', async () => {
    const token = newToken();
    const before = (await world.acts('client.sign_in')).length;
    expect(await signIn(drawn, token)).toEqual(await signIn(drawn, token));
    expect(await world.acts('client.sign_in')).toHaveLength(before + 1);
  });

  test('has a bounded number of access tokens', async () => {
    const first = await signIn(drawn);
    await world.query(
      `INSERT INTO access_tokens (token_sha256, client_id, expires_at)
       SELECT sha256(('filler ' || $1::bigint || ' ' || i)::bytea), $1, now() + interval '20 minutes' FROM generate_series(2, $2) i`,
      [of.client, tokensPerClientMax],
    );
    expect(await whyRefused(first.accessToken)).toBeNull();
    const last = await signIn(drawn);
    expect([await whyRefused(first.accessToken), await whyRefused(last.accessToken)]).toEqual(['unknown', null]);
    const [row] = await world.query('SELECT count(*)::int AS tokens FROM access_tokens WHERE client_id = $1', [
      of.client,
    ]);
    expect(row).toEqual({ tokens: tokensPerClientMax });
  });

  test('that is revoked is out at once, for good, and can be revoked again', async () => {
    const { accessToken } = await signIn(drawn);
    expect((await revoke()).revokedAt).not.toBeNull();
    expect(await whyRefused(accessToken)).toBe('revoked');
    expect(await ending(signIn(drawn))).toBe('sign_in_failed');
    const before = (await world.acts('client.revoke')).length;
    expect(await ending(revoke())).toBe('done');
    expect(await world.acts('client.revoke')).toHaveLength(before);
    expect([await ending(rotate(1)), await ending(change({ name: 'x' }))]).toEqual(['conflict', 'conflict']);
  });

  test('ends when its time is up', async () => {
    const { accessToken } = await signIn(drawn);
    await world.query('UPDATE api_clients SET expires_at = now() WHERE client_id = $1', [of.client]);
    expect(await whyRefused(accessToken)).toBe('expired');
    expect(await ending(signIn(drawn))).toBe('sign_in_failed');
  });

  test('of an organization that is blocked waits until that is lifted', async () => {
    const { accessToken } = await signIn(drawn);
    const set = (state: string) =>
      world.query('UPDATE organizations SET state = $2 WHERE organization_id = $1', [world.root, state]);
    await set('blocked');
    expect([await whyRefused(accessToken), await ending(signIn(drawn))]).toEqual(['blocked', 'sign_in_failed']);
    await set('active');
    expect([await whyRefused(accessToken), await ending(signIn(drawn))]).toEqual([null, 'done']);
  });

  test('with a new secret works with both for a while', async () => {
    const next = { ...drawn, secret: newToken() };
    expect((await rotate(24, next)).oldSecretUntil).not.toBeNull();
    expect([await ending(signIn(next)), await ending(signIn(drawn))]).toEqual(['done', 'done']);
    await world.query('UPDATE api_clients SET old_secret_until = now() WHERE client_id = $1', [of.client]);
    expect([await ending(signIn(next)), await ending(signIn(drawn))]).toEqual(['done', 'sign_in_failed']);
  });

  test('whose secret is known to somebody else gets another at once, and they nothing more', async () => {
    const { accessToken } = await signIn(drawn);
    const next = { ...drawn, secret: newToken() };
    expect((await rotate(0, next)).oldSecretUntil).toBeNull();
    expect([await ending(signIn(next)), await ending(signIn(drawn))]).toEqual(['done', 'sign_in_failed']);
    expect(await whyRefused(accessToken)).toBe('unknown');
  });

  test('changes only from the version that was seen, and the log says from what to what', async () => {
    expect(await change({ name: 'monthly', permissions: ['user.read'] }, { expected: 1 })).toMatchObject({
      name: 'monthly',
      permissions: ['user.read'],
      version: 2,
    });
    const stale = await problemOf(change({ name: 'x' }, { expected: 1 }));
    expect([stale.code, stale.extras.version]).toEqual(['precondition_failed', 2]);
    expect(await ending(rotate(1, drawClient(), { expected: 1 }))).toBe('precondition_failed');
    expect(await ending(revoke({ expected: 1 }))).toBe('precondition_failed');
    expect((await world.acts('client.update')).at(-1)!.details).toEqual({
      name: { from: 'reports', to: 'monthly' },
      permissions: { from: ['user.read', 'computer.read'], to: ['user.read'] },
    });
  });

  test('of another tenant is not found', async () => {
    const elsewhere = { tenant: world.tenant + 1_000 };
    expect(await ending(readClient(world.database, { ...of, ...elsewhere }))).toBe('not_found');
    expect(await ending(change({ name: 'x' }, elsewhere))).toBe('not_found');
    expect(await ending(rotate(1, drawClient(), elsewhere))).toBe('not_found');
    expect(await ending(revoke(elsewhere))).toBe('not_found');
  });

  describe('in the hands of somebody who may less than it', () => {
    const helpDesk = (): Actor => ({
      ...giver,
      organization: world.child,
      grants: [{ role: 'Org Help Desk', scope: 'tree', organization: world.child }],
    });

    test('is neither made, widened, nor shown a new secret of', async () => {
      const permissions: Permission[] = ['user.read', 'computer.update'];
      const refused = await problemOf(create({ permissions, giver: helpDesk() }));
      expect([refused.code, refused.extras.permissions]).toEqual(['forbidden', ['computer.update']]);
      expect(await ending(create({ organization: world.root, giver: helpDesk() }))).toBe('forbidden');
      expect(await ending(change({ permissions }, { giver: helpDesk() }))).toBe('forbidden');
      expect(await ending(rotate(1, drawClient(), { giver: helpDesk() }))).toBe('done');
      await change({ permissions });
      expect(await ending(rotate(1, drawClient(), { giver: helpDesk() }))).toBe('forbidden');
    });
  });
});

describe('clients', () => {
  test('are listed in pages by how far their reader reaches and by state', async () => {
    const made = [
      await create({ name: 'a' }),
      await create({ name: 'b', organization: world.root }),
      await create({ name: 'c' }),
    ];
    await world.query('UPDATE api_clients SET revoked_at = now() WHERE client_id = $1', [made[0]!.id]);
    await world.query('UPDATE api_clients SET expires_at = now() WHERE client_id = $1', [made[1]!.id]);
    const list = async (within: Parameters<typeof listClients>[1]['within'], query = {}) =>
      (await listClients(world.database, { tenant: world.tenant, within }, { limit: 1_000, ...query })).items
        .map(({ id }) => id)
        .filter((id) => id >= made[0]!.id);
    const ids = made.map(({ id }) => id);
    expect(await list({ all: true })).toEqual(ids);
    expect(await list({ path: world.child })).toEqual([ids[0], ids[2]]);
    expect(await list({ user: 1 })).toEqual([]);
    expect(await list({ all: true }, { state: 'revoked' })).toEqual([ids[0]]);
    expect(await list({ all: true }, { state: 'expired' })).toEqual([ids[1]]);
    expect(await list({ all: true }, { state: 'inForce' })).toEqual([ids[2]]);
    const all = { tenant: world.tenant, within: { all: true } } as const;
    const first = await listClients(world.database, all, { limit: 1 });
    const second = await listClients(world.database, all, { limit: 1, after: first.next! });
    expect(second.items[0]!.id).toBeGreaterThan(first.items[0]!.id);
    expect((await listClients(world.database, { ...all, tenant: 9_999 }, { limit: 10 })).items).toEqual([]);
  });

  const inDays = (days: number): string => new Date(Date.now() + days * 86_400_000).toISOString();
  test.each<[what: string, expiresAt: string, ends: string]>([
    ['a moment ago', inDays(-0.01), 'out_of_bounds'],
    ['in two years', inDays(730), 'done'],
    ['in two years and two days', inDays(733), 'out_of_bounds'],
  ])('that end %s', async (_what, at, ends) => {
    expect(await ending(create({ expiresAt: at }))).toBe(ends);
  });

  test('are made in an organization of the tenant that is not deactivated', async () => {
    expect(await ending(create({ organization: 999_999 }))).toBe('not_found');
    const set = (state: string) =>
      world.query('UPDATE organizations SET state = $2 WHERE organization_id = $1', [world.root, state]);
    await set('deactivated');
    expect(await ending(create())).toBe('conflict');
    await set('active');
  });

  const request = {
    name: 'a',
    organization: 1,
    permissions: ['user.read'],
    scope: 'tree',
    expiresAt: '2030-01-01T00:00:00Z',
  };
  test.each<[what: string, change: object, right: boolean]>([
    ['as they should be', {}, true],
    ['without an end', { expiresAt: undefined }, false],
    ['with scope self', { scope: 'self' }, false],
    ['without permissions', { permissions: [] }, false],
    ['with a permission there is not', { permissions: ['user.fly'] }, false],
    ['with a permission twice', { permissions: ['user.read', 'user.read'] }, false],
    ['with something more', { secret: 'x' }, false],
    ['with a long name', { name: 'x'.repeat(255) }, true],
    ['with a longer name', { name: 'x'.repeat(256) }, false],
  ])('are asked for %s', (_what, change, right) => {
    expect(CreateClientRequest.safeParse({ ...request, ...change }).success).toBe(right);
  });

  test.each([
    [0, true],
    [168, true],
    [169, false],
    [-1, false],
  ])('are given an overlap of %s hours: %s', (overlapHours, right) => {
    expect(RotateClientRequest.safeParse({ overlapHours }).success).toBe(right);
  });
});
