import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { RegisterRequest, type VaultKeyProposal } from '../../../protocol/messages.ts';
import { type Database, databaseDefaults, openDatabase, statement } from '../../../storage/catalog/database.ts';
import { putVaultKey } from '../../../storage/catalog/vaults.ts';
import { type TestDatabase, testDatabase } from '../../../tests/helpers/postgres.ts';
import type { By } from '../audit/act.ts';
import { registerDevice } from '../devices/register.ts';
import { type Directory, openDirectory } from '../directory.ts';
import { type KeyService, KeyServiceError } from './key-service.ts';
import { localKeyService } from './local-keys.ts';
import { reasonMax, unsealVaultKey } from './unseal.ts';

let test_: TestDatabase;
let database: Database;
let directory: Directory;
let passwordHash: string;
const keys = localKeyService([randomBytes(32)]);
const password = 'a password';
const address = '192.0.2.1';

beforeAll(async () => {
  test_ = await testDatabase();
  database = openDatabase({ ...databaseDefaults, connectionString: test_.connectionString });
  directory = openDirectory({ database, keys, passwordHashesMax: 2, signInsPerMinute: 10_000 });
  passwordHash = await directory.passwords.hash(password);
});
afterAll(async () => {
  await database?.close();
  await test_?.drop();
});

const statements = new Map<string, ReturnType<typeof statement>>();
function ask<Row>(text: string, values: unknown[] = []): Promise<Row[]> {
  const known = statements.get(text) ?? statement(`test.unseal.${statements.size}`, text);
  statements.set(text, known);
  return database.query<Row>(known, values);
}

interface World {
  tenant: number;
  top: number;
  below: number;
  registrationKey: string;
}
let world: World;
let by: By;
let number = 0;

beforeEach(async () => {
  number++;
  const registrationKey = `KEY-${number}`;
  const [made] = await ask<{ tenant: number; top: number; below: number }>(
    `WITH t AS (INSERT INTO tenants (name) VALUES ('tenant') RETURNING tenant_id),
          ids AS MATERIALIZED (SELECT nextval(pg_get_serial_sequence('organizations', 'organization_id')) AS top,
                                      nextval(pg_get_serial_sequence('organizations', 'organization_id')) AS below),
          o AS (INSERT INTO organizations (organization_id, tenant_id, parent_id, name, registration_key, path)
                OVERRIDING SYSTEM VALUE
                SELECT top, tenant_id, NULL, 'top', $1, ARRAY[top] FROM t, ids
                UNION ALL SELECT below, tenant_id, top, 'below', $1 || '-below', ARRAY[top, below] FROM t, ids)
     SELECT tenant_id AS tenant, top, below FROM t, ids`,
    [registrationKey],
  );
  world = { ...made!, registrationKey };
  by = { tenant: world.tenant, party: { kind: 'user', id: 7, name: 'legal' }, address };
});

async function addUser(name: string, organization = world.below): Promise<number> {
  const [row] = await ask<{ id: number }>(
    'INSERT INTO users (tenant_id, organization_id, name, password_hash) VALUES ($1, $2, $3, $4) RETURNING user_id AS id',
    [world.tenant, organization, name, passwordHash],
  );
  return row!.id;
}

const fix = (organization: number, level: unknown, locked = false) =>
  ask(
    `INSERT INTO organization_settings (tenant_id, organization_id, name, value, locked)
     VALUES ($1, $2, 'keyEscrow.level', $3::jsonb, $4)`,
    [world.tenant, organization, JSON.stringify(level), locked],
  );

const proposals: Record<'standard' | 'password' | 'custom', VaultKeyProposal> = {
  standard: { level: 'standard' },
  password: { level: 'password', wrapped: randomBytes(96) },
  custom: { level: 'custom', check: randomBytes(16) },
};

function register(userName: string, level: keyof typeof proposals = 'standard', in_: Directory = directory) {
  const device = { name: `laptop of ${userName}`, platform: 'linux', agentVersion: '1' };
  const { registrationKey } = world;
  const vaultKey = proposals[level];
  return registerDevice(in_, RegisterRequest.parse({ registrationKey, userName, password, device, vaultKey }), address);
}

interface ActRow {
  action: string;
  party: string;
  target: string;
  organization: number;
  result: string;
  address: string;
  details: Record<string, unknown>;
}
const acts = () =>
  ask<ActRow>(
    `SELECT action, party_kind || ' ' || party_name AS party, target_kind || ' ' || target_id || ' ' || target_name AS target,
            organization_id AS organization, result, address, details
       FROM acts WHERE tenant_id = $1 AND action LIKE 'key.%' ORDER BY number`,
    [world.tenant],
  );

const failing = (kind: KeyServiceError['kind']): KeyService => ({
  ...keys,
  seal: () => Promise.reject(new KeyServiceError(kind, 'told to nobody')),
  unseal: () => Promise.reject(new KeyServiceError(kind, 'told to nobody')),
});

/** A user with a vault; the key as the device got it. */
async function enrolled(level: keyof typeof proposals = 'standard') {
  const user = await addUser('ann');
  const { vault, vaultKey } = await register('ann', level);
  return { user, vault, key: vaultKey.level === 'standard' ? vaultKey.key : null };
}

describe('unsealing', () => {
  const reason = 'restore for a matter';

  test('gives the key, and the act that says why was there before the key service was asked', async () => {
    const { user, vault, key } = await enrolled();
    let actsThen = -1;
    const watched: KeyService = {
      ...keys,
      unseal: async (...asked) => {
        actsThen = (await acts()).filter(({ action }) => action === 'key.unseal').length;
        return keys.unseal(...asked);
      },
    };
    const opened = await unsealVaultKey({ database, keys: watched }, by, {
      user,
      vault,
      generation: 1,
      reason: ` ${reason} `,
    });
    expect(opened).toEqual(key);
    expect(actsThen).toBe(1);
    const [, act] = await acts();
    expect(act).toEqual({
      action: 'key.unseal',
      party: 'user legal',
      target: `user ${user} ann`,
      organization: world.below,
      result: 'done',
      address,
      details: { reason, vault, generation: 1, sealedBy: (await keys.keys())[0] },
    });
    const everything = JSON.stringify(await ask('SELECT a::text FROM acts a WHERE tenant_id = $1', [world.tenant]));
    for (const encoding of ['hex', 'base64', 'latin1'] as const)
      expect(everything).not.toContain(key!.toString(encoding));
  });

  test.each(['password', 'custom'] as const)(
    'a vault of level %s is refused, and that is an act too',
    async (level) => {
      const { user, vault } = await enrolled(level);
      const asked = unsealVaultKey({ database, keys: failing('damaged') }, by, { user, vault, generation: 1, reason });
      await expect(asked).rejects.toMatchObject({ code: 'conflict', extras: { level } });
      expect(await acts()).toMatchObject([{ action: 'key.unseal', result: 'refused', details: { reason, level } }]);
    },
  );

  test('what is not this tenant\u2019s, this user\u2019s or this vault\u2019s is not found, and nothing is opened', async () => {
    const { user, vault } = await enrolled();
    const other = await addUser('bob');
    const right = { user, vault, generation: 1, reason };
    const nothing = { database, keys: failing('damaged') };
    for (const [who, wrong] of [
      [by, { ...right, user: other }],
      [by, { ...right, vault: vault + 1_000 }],
      [by, { ...right, generation: 2 }],
      [{ ...by, tenant: world.tenant + 1_000 }, right],
      [{ ...by, tenant: null }, right],
    ] as const)
      await expect(unsealVaultKey(nothing, who, wrong)).rejects.toMatchObject({ code: 'not_found' });
    expect(await acts()).toMatchObject([{ action: 'key.issue' }]);
  });

  test('each generation opens by itself', async () => {
    const { user, vault, key } = await enrolled();
    const second = randomBytes(32);
    const record = await keys.seal(second, `holdfast vault key, user ${user}, generation 2`);
    await database.transaction((tx) => putVaultKey(tx, vault, { generation: 2, level: 'standard', record }));
    const unseal = (generation: number) => unsealVaultKey(directory, by, { user, vault, generation, reason });
    expect([await unseal(1), await unseal(2)]).toEqual([key, second]);
  });

  test.each([
    ['x', true],
    ['x'.repeat(reasonMax), true],
    ['x'.repeat(reasonMax + 1), 'out_of_bounds'],
    ['', 'out_of_bounds'],
    [' \n', 'out_of_bounds'],
    ['a\0b', 'malformed_request'],
    ['a\ud800', 'malformed_request'],
  ])('the reason %j', async (given, expected) => {
    const { user, vault } = await enrolled();
    const asked = unsealVaultKey(directory, by, { user, vault, generation: 1, reason: given });
    if (expected === true) expect(await asked).toHaveLength(32);
    else await expect(asked).rejects.toMatchObject({ code: expected, extras: { field: 'reason' } });
    expect((await acts()).length).toBe(expected === true ? 2 : 1);
  });

  test.each([
    ['unreachable', 'unavailable'],
    ['refused', 'unavailable'],
    ['damaged', undefined],
  ] as const)(
    'a key service that says %s: %s, nothing internal, and the log says that it failed',
    async (kind, code) => {
      const { user, vault } = await enrolled();
      const asked = unsealVaultKey({ database, keys: failing(kind) }, by, { user, vault, generation: 1, reason });
      const error = await asked.catch((thrown: { code?: string }) => thrown);
      expect((error as { code?: string }).code).toBe(code);
      if (code) expect(JSON.stringify(error)).not.toContain('told to nobody');
      expect((await acts()).map(({ action, result }) => [action, result])).toEqual([
        ['key.issue', 'done'],
        ['key.unseal', 'done'],
        ['key.unseal', 'failed'],
      ]);
    },
  );

  test('a record that was put into another user\u2019s row does not open', async () => {
    const { user, vault } = await enrolled();
    await addUser('eve');
    const theirs = await register('eve');
    await ask('UPDATE vault_keys k SET record = o.record FROM vault_keys o WHERE k.vault_id = $1 AND o.vault_id = $2', [
      vault,
      theirs.vault,
    ]);
    const asked = unsealVaultKey(directory, by, { user, vault, generation: 1, reason });
    await expect(asked).rejects.toMatchObject({ kind: 'damaged' });
  });
});

describe('registration', () => {
  test('that hands out a key in escrow is an act, with the device and where it came from', async () => {
    const user = await addUser('cem');
    const { guid, vault } = await register('CEM');
    expect(await acts()).toEqual([
      {
        action: 'key.issue',
        party: 'user cem',
        target: `device ${guid} laptop of CEM`,
        organization: world.below,
        result: 'done',
        address,
        details: { user, vault, generation: 1 },
      },
    ]);
  });

  test.each(['password', 'custom'] as const)('at level %s hands out no key, so there is no such act', async (level) => {
    await addUser('dee');
    await register('dee', level);
    expect(await acts()).toEqual([]);
  });

  test('repeated after a COMMIT of unknown outcome is one act', async () => {
    await addUser('eli');
    const losing: Database = {
      ...database,
      transaction: async (work) => {
        await database.transaction(work);
        return database.transaction(work);
      },
    };
    await register('eli', 'standard', { ...directory, database: losing });
    expect(await acts()).toHaveLength(1);
  });

  test('without the key service: unavailable, and nothing was made; a vault that needs none registers', async () => {
    await addUser('fay');
    const without = { ...directory, keys: failing('unreachable') };
    await expect(register('fay', 'standard', without)).rejects.toMatchObject({ code: 'unavailable' });
    expect(await ask('SELECT 1 FROM devices WHERE tenant_id = $1', [world.tenant])).toEqual([]);
    const first = await register('fay', 'password', without);
    // The proposal of a later device changes nothing, so nothing is sealed for it.
    expect((await register('fay', 'standard', without)).vaultKey).toEqual(first.vaultKey);
    await addUser('finn');
    await register('finn');
    await expect(register('finn', 'standard', without)).rejects.toMatchObject({ code: 'unavailable' });
    expect(await ask('SELECT 1 FROM devices WHERE tenant_id = $1', [world.tenant])).toHaveLength(3);
    expect(await acts()).toHaveLength(1);
  });
});

test('two first devices at the same moment have one key, whichever made the vault', async () => {
  await addUser('gil');
  // Each waits with what it has prepared until the other has too.
  let waiting: (() => void)[] = [];
  const together: Database = {
    ...database,
    transaction: async (work) => {
      await new Promise<void>((resolve) => {
        waiting.push(resolve);
        if (waiting.length < 2) return;
        for (const go of waiting) go();
        waiting = [];
      });
      return database.transaction(work);
    },
  };
  const both = await Promise.all([1, 2].map(() => register('gil', 'standard', { ...directory, database: together })));
  expect(both[0]!.vaultKey).toEqual(both[1]!.vaultKey);
  expect(both[0]!.guid).not.toBe(both[1]!.guid);
  expect(await acts()).toHaveLength(2);
});

describe('the level', () => {
  test.each(['standard', 'password', 'custom'] as const)('nobody has fixed it: %s is taken', async (level) => {
    await addUser('gus');
    expect((await register('gus', level)).vaultKey.level).toBe(level);
  });

  test.each(['standard', 'password', 'custom'] as const)('fixed at %s, it is the only one', async (level) => {
    await fix(world.top, level);
    for (const proposed of ['standard', 'password', 'custom'] as const) {
      await addUser(proposed);
      if (proposed === level) expect((await register(proposed, proposed)).vaultKey.level).toBe(level);
      else
        await expect(register(proposed, proposed)).rejects.toMatchObject({
          code: 'conflict',
          message: expect.stringContaining(`"${level}"`),
          extras: { field: 'vaultKey', level },
        });
    }
    const vaults = await ask('SELECT u.name FROM users u JOIN vaults v USING (user_id) WHERE u.tenant_id = $1', [
      world.tenant,
    ]);
    expect(vaults).toEqual([{ name: level }]);
  });

  test('its own value wins over the one above, not over a lock there; `free` says that each chooses', async () => {
    await fix(world.top, 'password');
    await fix(world.below, 'free');
    await addUser('hal');
    expect((await register('hal', 'custom')).vaultKey.level).toBe('custom');
    await ask('UPDATE organization_settings SET locked = true WHERE organization_id = $1', [world.top]);
    await addUser('ida');
    await expect(register('ida', 'custom')).rejects.toMatchObject({ code: 'conflict', extras: { level: 'password' } });
    await addUser('jon', world.top);
    expect((await register('jon', 'password')).vaultKey.level).toBe('password');
  });

  test('a vault that is there keeps its level, whatever was fixed since', async () => {
    await addUser('kim');
    const { vaultKey } = await register('kim', 'standard');
    await fix(world.top, 'custom');
    expect((await register('kim', 'custom')).vaultKey).toEqual(vaultKey);
  });

  test('a stored level that cannot be read lets nobody begin', async () => {
    await fix(world.top, 'whatever');
    await addUser('lou');
    await expect(register('lou')).rejects.toThrow('a setting cannot be read');
  });
});
