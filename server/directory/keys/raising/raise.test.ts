import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type KeptKey, RaiseRequest, RegisterRequest, type VaultKeyProposal } from '../../../../protocol/messages.ts';
import { keyCheck, unwrapKey, unwrapKeyInKey, wrapKey, wrapKeyInKey } from '../../../../protocol/sealing/index.ts';
import { type Database, databaseDefaults, openDatabase, type Statement } from '../../../../storage/catalog/database.ts';
import { type TestDatabase, testDatabase } from '../../../../tests/helpers/postgres.ts';
import type { By } from '../../audit/act.ts';
import { authenticateDevice } from '../../devices/access.ts';
import { registerDevice } from '../../devices/register.ts';
import { type Directory, openDirectory } from '../../directory.ts';
import type { KeyService } from '../key-service.ts';
import { localKeyService } from '../local-keys.ts';
import { resealRecords } from '../reseal.ts';
import { hasFileSealedRecords } from '../sealed/kinds.ts';
import { unsealVaultKey, unsealVaultKeyForLegal } from '../unseal.ts';
import { forgetHeldKeys } from './forget-held.ts';
import { keptKeysOf } from './kept-keys.ts';
import { raiseKeyLevel } from './raise.ts';

let test_: TestDatabase;
let database: Database;
let directory: Directory;
let passwordHash: string;
const serverKey = randomBytes(32);
const keys = localKeyService([serverKey]);
const password = 'a password';
const address = '192.0.2.1';
/** As cheap as a wrapped key may be. */
const cheap = { memoryKiB: 19 * 1024, passes: 2, parallelism: 1 };

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

const ask = <Row>(text: string, values: unknown[] = []): Promise<Row[]> =>
  database.query<Row>({ name: '', text } satisfies Statement, values);

let world: { tenant: number; top: number; registrationKey: string };
let by: By;
let number = 0;

beforeEach(async () => {
  const registrationKey = `KEY-${++number}`;
  const [made] = await ask<{ tenant: number; top: number }>(
    `WITH t AS (INSERT INTO tenants (name) VALUES ('tenant') RETURNING tenant_id),
          id AS MATERIALIZED (SELECT nextval(pg_get_serial_sequence('organizations', 'organization_id')) AS top)
     INSERT INTO organizations (organization_id, tenant_id, name, registration_key, path) OVERRIDING SYSTEM VALUE
     SELECT top, tenant_id, 'top', $1, ARRAY[top] FROM t, id RETURNING tenant_id AS tenant, organization_id AS top`,
    [registrationKey],
  );
  world = { ...made!, registrationKey };
  by = { tenant: world.tenant, party: { kind: 'user', id: 7, name: 'legal' }, address };
});

async function addUser(name: string): Promise<number> {
  const [row] = await ask<{ id: number }>(
    'INSERT INTO users (tenant_id, organization_id, name, password_hash) VALUES ($1, $2, $3, $4) RETURNING user_id AS id',
    [world.tenant, world.top, name, passwordHash],
  );
  return row!.id;
}

const register = (userName: string, vaultKey: VaultKeyProposal = { level: 'standard' }, in_ = directory) => {
  const device = { name: `laptop of ${userName}`, platform: 'linux', agentVersion: '1' };
  const { registrationKey } = world;
  return registerDevice(in_, RegisterRequest.parse({ registrationKey, userName, password, device, vaultKey }), address);
};

/** A user with a device and the key it got. */
async function enrolled(name = 'ann') {
  const user = await addUser(name);
  const registered = await register(name);
  const device = (await authenticateDevice(directory, registered.token))!;
  if (registered.vaultKey.level !== 'standard') throw new Error('not in escrow');
  return { user, vault: registered.vault, key: registered.vaultKey.key, device, token: registered.token };
}
type Enrolled = Awaited<ReturnType<typeof enrolled>>;

const archivePassword = 'only ann knows';

/** What an agent asks to raise from the first generation to `password`. */
async function toPassword(old: Buffer, more: object = {}): Promise<RaiseRequest> {
  return RaiseRequest.parse({
    password,
    to: 'password',
    newGeneration: {
      generation: 2,
      wrapped: await wrapKey(randomBytes(32), archivePassword, { generation: 2, ...cheap }),
    },
    oldGenerations: [{ generation: 1, wrapped: await wrapKey(old, archivePassword, { generation: 1, ...cheap }) }],
    ...more,
  });
}

/** To `custom`, from as many generations. */
function toCustom(own: Buffer, old: readonly Buffer[], more: object = {}): RaiseRequest {
  const by_ = old.length + 1;
  return RaiseRequest.parse({
    password,
    to: 'custom',
    newGeneration: { generation: by_, check: keyCheck(own) },
    oldGenerations: old.map((key, index) => ({
      generation: index + 1,
      wrapped: wrapKeyInKey(key, own, { generation: index + 1, by: by_ }),
    })),
    ...more,
  });
}

const raise = ({ device }: Pick<Enrolled, 'device'>, request: RaiseRequest, in_ = directory) =>
  raiseKeyLevel(in_, device, request, address);
const rowsOf = (vault: number) =>
  ask<{ generation: number; level: string; record: Buffer }>(
    'SELECT generation, level, record FROM vault_keys WHERE vault_id = $1 ORDER BY generation',
    [vault],
  );
const heldOf = (vault: number) => ask('SELECT generation FROM held_vault_keys WHERE vault_id = $1', [vault]);
const hold = (vault: number) => ask(`INSERT INTO holds (vault_id, policy) VALUES ($1, '{}')`, [vault]);
const release = (vault: number, when = 'now()') =>
  ask(`UPDATE holds SET release_effective_at = ${when} WHERE vault_id = $1`, [vault]);
const acts = (action: string) =>
  ask<{ party: string; target: string; details: object }>(
    `SELECT party_kind || ' ' || party_name AS party, target_kind || ' ' || target_name AS target, details
       FROM acts WHERE tenant_id = $1 AND action = $2 ORDER BY number`,
    [world.tenant, action],
  );
const refusal = (asked: Promise<unknown>) =>
  asked.then(
    () => 'accepted',
    ({ code, extras }: { code?: string; extras?: { field?: string } }) => `${code} ${extras?.field ?? ''}`.trim(),
  );

describe('raised to password', () => {
  test('every generation is wrapped by the password, and the server opens none any more', async () => {
    const ann = await enrolled();
    const request = await toPassword(ann.key);
    expect(await raise(ann, request)).toEqual({ level: 'password', generation: 2 });
    const kept = await keptKeysOf(database, ann.vault);
    expect(kept.map(({ level, generation }) => [level, generation])).toEqual([
      ['password', 1],
      ['password', 2],
    ]);
    const [first] = kept as Extract<KeptKey, { level: 'password' }>[];
    expect(await unwrapKey(first!.wrapped, archivePassword, { generation: 1 })).toEqual(ann.key);
    for (const generation of [1, 2]) {
      const asked = { user: ann.user, vault: ann.vault, generation, reason: 'to see' };
      await expect(unsealVaultKey(directory, by, asked)).rejects.toMatchObject({ extras: { level: 'password' } });
      await expect(unsealVaultKeyForLegal(directory, by, asked)).rejects.toMatchObject({
        extras: { level: 'password' },
      });
    }
    expect(await heldOf(ann.vault)).toEqual([]);
  });

  test('it is an act with the device it was asked from, and nothing of a key in it', async () => {
    const ann = await enrolled();
    const request = await toPassword(ann.key);
    await raise(ann, request);
    expect(await acts('key.raise')).toEqual([
      {
        party: 'user ann',
        target: 'user ann',
        details: { vault: ann.vault, from: 'standard', to: 'password', generation: 2, device: ann.device.guid },
      },
    ]);
    const everything = JSON.stringify(await ask('SELECT a::text FROM acts a WHERE tenant_id = $1', [world.tenant]));
    for (const secret of [ann.key, request.oldGenerations[0]!.wrapped, request.newGeneration.wrapped!])
      for (const encoding of ['hex', 'base64', 'latin1'] as const)
        expect(everything).not.toContain(secret.toString(encoding));
  });

  test('what was staged with the key that the server had is gone', async () => {
    const [ann, ben] = [await enrolled(), await enrolled('ben')];
    const stagedOf = ({ user }: Enrolled) =>
      ask<{ state: string; key: Buffer | null }>(
        'SELECT state, key_record AS key FROM staged_archives WHERE user_id = $1',
        [user],
      );
    for (const { user } of [ann, ben])
      await ask(
        `INSERT INTO staged_archives (tenant_id, user_id, restore_id, asker_kind, asker_id, attempt, state, key_record, reserved_bytes, length, part_frames)
         VALUES ($1, $2, $2, 'user', $2, gen_random_uuid(), 'ready', 'key', 1, 1, 1)`,
        [world.tenant, user],
      );
    await raise(ann, await toPassword(ann.key));
    expect(await stagedOf(ann)).toEqual([{ state: 'dead', key: null }]);
    expect(await stagedOf(ben)).toMatchObject([{ state: 'ready' }]);
    // Its key is none that could be sealed anew.
    await ask('DELETE FROM staged_archives');
  });

  test('a later device gets all generations, oldest first, and the newest where older agents look', async () => {
    const ann = await enrolled();
    const request = await toPassword(ann.key);
    await raise(ann, request);
    const later = await register('ann');
    expect(later.vaultKey).toEqual({ level: 'password', generation: 2, wrapped: request.newGeneration.wrapped });
    expect(later.vaultKeys).toEqual([
      { level: 'password', generation: 1, wrapped: request.oldGenerations[0]!.wrapped },
      later.vaultKey,
    ]);
  });

  test('and then to custom: the own key opens all generations', async () => {
    const ann = await enrolled();
    const second = randomBytes(32);
    await raise(ann, {
      ...(await toPassword(ann.key)),
      newGeneration: { generation: 2, wrapped: await wrapKey(second, archivePassword, { generation: 2, ...cheap }) },
    });
    const own = randomBytes(32);
    await raise(ann, toCustom(own, [ann.key, second]));
    const kept = (await keptKeysOf(database, ann.vault)) as Extract<KeptKey, { level: 'custom' }>[];
    expect(kept.map(({ level, generation }) => [level, generation])).toEqual([
      ['custom', 1],
      ['custom', 2],
      ['custom', 3],
    ]);
    expect(kept[2]).toEqual({ level: 'custom', generation: 3, check: keyCheck(own) });
    expect(unwrapKeyInKey(kept[0]!.wrapped!, own, { generation: 1, by: 3 })).toEqual(ann.key);
    expect(unwrapKeyInKey(kept[1]!.wrapped!, own, { generation: 2, by: 3 })).toEqual(second);
    const later = await register('ann');
    expect(later.vaultKeys).toEqual(kept);
    expect(later.vaultKey).toEqual(kept[2]);
  });
});

describe('is refused', () => {
  test('to a lower level and to the same, and nothing is changed', async () => {
    const ann = await enrolled();
    await raise(ann, toCustom(randomBytes(32), [ann.key]));
    const before = await rowsOf(ann.vault);
    const lower = await toPassword(ann.key, {
      newGeneration: { generation: 3, wrapped: await wrapKey(randomBytes(32), 'x', { generation: 3, ...cheap }) },
    });
    await expect(raise(ann, lower)).rejects.toMatchObject({
      code: 'conflict',
      extras: { field: 'to', level: 'custom' },
    });
    expect(await refusal(raise(ann, toCustom(randomBytes(32), [ann.key, randomBytes(32)])))).toBe('conflict to');
    expect(await rowsOf(ann.vault)).toEqual(before);
    expect(await acts('key.raise')).toHaveLength(1);
  });

  test.each([
    ['standard', 'custom', 'conflict to'],
    ['password', 'custom', 'conflict to'],
    ['custom', 'custom', 'accepted'],
    ['free', 'custom', 'accepted'],
    ['password', 'password', 'accepted'],
    ['custom', 'password', 'conflict to'],
  ] as const)('where the organization has fixed %s, to %s: %s', async (fixed, to, expected) => {
    const ann = await enrolled();
    await ask(
      `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'keyEscrow.level', $3::jsonb)`,
      [world.tenant, world.top, JSON.stringify(fixed)],
    );
    const request = to === 'custom' ? toCustom(randomBytes(32), [ann.key]) : await toPassword(ann.key);
    expect(await refusal(raise(ann, request))).toBe(expected);
    expect((await rowsOf(ann.vault)).length).toBe(expected === 'accepted' ? 2 : 1);
  });

  test('with a wrong password, however good the token; and the user keeps their keys', async () => {
    const ann = await enrolled();
    const request = toCustom(randomBytes(32), [ann.key], { password: 'a guess' });
    expect(await refusal(raise(ann, request))).toBe('sign_in_failed');
    expect(await rowsOf(ann.vault)).toMatchObject([{ level: 'standard' }]);
  });

  test('to a user who is not active any more', async () => {
    const ann = await enrolled();
    await ask(`UPDATE users SET state = 'blocked' WHERE user_id = $1`, [ann.user]);
    expect(await refusal(raise(ann, toCustom(randomBytes(32), [ann.key])))).toBe('sign_in_failed');
  });

  test('with generations that are not those there are', async () => {
    const ann = await enrolled();
    const own = randomBytes(32);
    const at = (generation: number, olds: readonly number[]) =>
      RaiseRequest.parse({
        password,
        to: 'custom',
        newGeneration: { generation, check: keyCheck(own) },
        oldGenerations: olds.map((old) => ({
          generation: old,
          wrapped: wrapKeyInKey(ann.key, own, { generation: old, by: generation }),
        })),
      });
    expect(await refusal(raise(ann, at(3, [1])))).toBe('conflict newGeneration');
    expect(await refusal(raise(ann, at(3, [1, 2])))).toBe('conflict newGeneration');
    await raise(ann, await toPassword(ann.key));
    expect(await refusal(raise(ann, at(3, [2])))).toBe('conflict oldGenerations');
    expect(await refusal(raise(ann, at(3, [1, 2])))).toBe('accepted');
  });

  test('with records that are not of the generations they are given as', async () => {
    const ann = await enrolled();
    const own = randomBytes(32);
    const right = toCustom(own, [ann.key]);
    const [old] = right.oldGenerations;
    const passwordOf = (generation: number) => wrapKey(ann.key, 'x', { generation, ...cheap });
    const password_ = await toPassword(ann.key);
    const wrong: [RaiseRequest, string][] = [
      [{ ...right, oldGenerations: [{ generation: 1, wrapped: randomBytes(80) }] }, 'oldGenerations.0.wrapped'],
      [{ ...right, oldGenerations: [{ generation: 1, wrapped: await passwordOf(1) }] }, 'oldGenerations.0.wrapped'],
      [{ ...right, oldGenerations: [old!, old!] }, 'oldGenerations.1'],
      [{ ...right, newGeneration: { ...right.newGeneration, generation: 3 } }, 'oldGenerations.0.wrapped'],
      [{ ...password_, oldGenerations: [{ generation: 1, wrapped: await passwordOf(2) }] }, 'oldGenerations.0.wrapped'],
      [{ ...password_, oldGenerations: right.oldGenerations }, 'oldGenerations.0.wrapped'],
      [{ ...password_, newGeneration: { generation: 2, wrapped: await passwordOf(1) } }, 'newGeneration.wrapped'],
    ];
    for (const [request, field] of wrong) expect(await refusal(raise(ann, request))).toBe(`malformed_request ${field}`);
    expect(await rowsOf(ann.vault)).toMatchObject([{ level: 'standard' }]);
  });
});

describe('the request', () => {
  const own = randomBytes(32);
  const right = {
    password,
    to: 'custom',
    newGeneration: { generation: 2, check: randomBytes(16) },
    oldGenerations: [{ generation: 1, wrapped: wrapKeyInKey(own, own, { generation: 1, by: 2 }) }],
  };
  const old = (count: number) =>
    Array.from({ length: count }, (_, at) => ({ generation: at + 1, wrapped: Buffer.of(1) }));
  test.each<[string, object, boolean]>([
    ['as it should be', right, true],
    ['generation 2^31 - 1', { ...right, newGeneration: { generation: 2 ** 31 - 1, check: randomBytes(16) } }, true],
    ['generation 2^31', { ...right, newGeneration: { generation: 2 ** 31, check: randomBytes(16) } }, false],
    ['generation 0', { ...right, newGeneration: { generation: 0, check: randomBytes(16) } }, false],
    ['a check of 15 bytes', { ...right, newGeneration: { generation: 2, check: randomBytes(15) } }, false],
    ['a check of 17 bytes', { ...right, newGeneration: { generation: 2, check: randomBytes(17) } }, false],
    ['no record', { ...right, newGeneration: { generation: 2 } }, false],
    ['the record of another level', { ...right, to: 'password' }, false],
    ['both records', { ...right, newGeneration: { ...right.newGeneration, wrapped: Buffer.of(1) } }, false],
    ['no old generation', { ...right, oldGenerations: [] }, false],
    ['7 old generations', { ...right, oldGenerations: old(7) }, true],
    ['8 old generations', { ...right, oldGenerations: old(8) }, false],
    ['a record of 1,024 bytes', { ...right, oldGenerations: [{ generation: 1, wrapped: Buffer.alloc(1_024) }] }, true],
    ['a record of 1,025 bytes', { ...right, oldGenerations: [{ generation: 1, wrapped: Buffer.alloc(1_025) }] }, false],
    ['an empty record', { ...right, oldGenerations: [{ generation: 1, wrapped: Buffer.alloc(0) }] }, false],
    ['a password of 1,024 characters', { ...right, password: 'p'.repeat(1_024) }, true],
    ['a password of 1,025 characters', { ...right, password: 'p'.repeat(1_025) }, false],
    ['no password', { ...right, password: '' }, false],
    ['a code of 64 characters', { ...right, code: '1'.repeat(64) }, true],
    ['a code of 65 characters', { ...right, code: '1'.repeat(65) }, false],
    ['to standard', { ...right, to: 'standard' }, false],
    ['another key', { ...right, force: true }, false],
  ])('with %s', (_, request, accepted) => {
    expect(RaiseRequest.safeParse(request).success).toBe(accepted);
  });
});

describe('beside other work', () => {
  test('repeated after a COMMIT of unknown outcome, or an answer that was lost, it is one raise and one act', async () => {
    const ann = await enrolled();
    const request = await toPassword(ann.key);
    const losing: Database = {
      ...database,
      transaction: async (work) => {
        await database.transaction(work);
        return database.transaction(work);
      },
    };
    const answer = await raise(ann, request, { ...directory, database: losing });
    expect(await raise(ann, request)).toEqual(answer);
    expect(await rowsOf(ann.vault)).toHaveLength(2);
    expect(await acts('key.raise')).toHaveLength(1);
  });

  test('of two raises at the same moment one holds, and its keys are of one piece', async () => {
    const ann = await enrolled();
    const bob = { device: (await authenticateDevice(directory, (await register('ann')).token))! };
    const requests = [await toPassword(ann.key), toCustom(randomBytes(32), [ann.key])];
    const ended = await Promise.all([refusal(raise(ann, requests[0]!)), refusal(raise(bob, requests[1]!))]);
    expect(ended.filter((each) => each === 'accepted')).toHaveLength(1);
    const winner = requests[ended.indexOf('accepted')]!;
    expect((await rowsOf(ann.vault)).map(({ level, record }) => [level, record])).toEqual([
      [winner.to, winner.oldGenerations[0]!.wrapped],
      [winner.to, winner.newGeneration.wrapped ?? winner.newGeneration.check],
    ]);
  });

  test('waits for a hold that is being placed, and then keeps the key', async () => {
    const ann = await enrolled();
    let go = (): void => undefined;
    let placed = (): void => undefined;
    const isPlaced = new Promise<void>((resolve) => {
      placed = resolve;
    });
    const placing = database.transaction(async (tx) => {
      await tx.query({ name: '', text: `INSERT INTO holds (vault_id, policy) VALUES ($1, '{}')` }, [ann.vault]);
      placed();
      await new Promise<void>((resolve) => {
        go = resolve;
      });
    });
    await isPlaced;
    const raising = raise(ann, toCustom(randomBytes(32), [ann.key]));
    await untilSomebodyWaits();
    go();
    await Promise.all([placing, raising]);
    expect(await heldOf(ann.vault)).toEqual([{ generation: 1 }]);
  });

  test('a device that registers meanwhile gets what there is then, and never half of it', async () => {
    const ann = await enrolled();
    const request = await toPassword(ann.key);
    let raised = false;
    const between: Database = {
      ...database,
      transaction: async (work) => {
        // Its sign-in and its key are prepared; the transaction that registers comes after the raise.
        if (!raised && isRegistering) {
          raised = true;
          await raise(ann, request);
        }
        return database.transaction(work);
      },
    };
    let isRegistering = false;
    const watched: KeyService = {
      ...keys,
      unseal: (...asked) => {
        isRegistering = true;
        return keys.unseal(...asked);
      },
    };
    const later = await register('ann', undefined, { ...directory, database: between, keys: watched });
    expect(raised).toBe(true);
    expect(later.vaultKeys.map(({ level }) => level)).toEqual(['password', 'password']);
    expect(JSON.stringify(later)).not.toContain(JSON.stringify(ann.key));
    expect(await acts('key.issue')).toHaveLength(1); // of the first device
  });
});

/** Until a statement waits for a lock. */
async function untilSomebodyWaits(): Promise<void> {
  const text = `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`;
  while ((await ask(text)).length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
}

describe('under a hold', () => {
  test('the key stays for legal, and for nobody else; the answer is the same', async () => {
    const ann = await enrolled();
    await hold(ann.vault);
    expect(await raise(ann, await toPassword(ann.key))).toEqual({ level: 'password', generation: 2 });
    expect(await acts('key.raise')).toMatchObject([{ details: { from: 'standard', to: 'password' } }]);
    expect(JSON.stringify(await acts('key.raise'))).not.toMatch(/h[oe]ld/);
    const asked = { user: ann.user, vault: ann.vault, generation: 1, reason: 'matter 12' };
    await expect(unsealVaultKey(directory, by, asked)).rejects.toMatchObject({ extras: { level: 'password' } });
    expect(await unsealVaultKeyForLegal(directory, by, asked)).toEqual(ann.key);
    expect(await acts('key.unseal')).toMatchObject([
      { details: { level: 'password' } },
      { party: 'user legal', details: { reason: 'matter 12', generation: 1 } },
    ]);
    expect(await keptKeysOf(database, ann.vault)).toMatchObject([{ level: 'password' }, { level: 'password' }]);
    expect((await register('ann')).vaultKeys).toMatchObject([{ level: 'password' }, { level: 'password' }]);
  });

  test('it stays through a second raise', async () => {
    const ann = await enrolled();
    await hold(ann.vault);
    await raise(ann, await toPassword(ann.key));
    await raise(ann, toCustom(randomBytes(32), [ann.key, randomBytes(32)]));
    expect(await heldOf(ann.vault)).toEqual([{ generation: 1 }]);
  });

  test('it is sealed anew with the others, and a lost key file is noticed by it', async () => {
    const ann = await enrolled();
    await hold(ann.vault);
    await raise(ann, await toPassword(ann.key));
    await ask('DELETE FROM vault_keys WHERE level = $1', ['standard']); // what other tests left
    await ask('DELETE FROM held_vault_keys WHERE vault_id <> $1', [ann.vault]);
    expect(await hasFileSealedRecords(database)).toBe(true);
    const next = localKeyService([randomBytes(32), serverKey]);
    const done = await resealRecords({ database, keys: next }, { party: by.party });
    expect([done.looked, done.resealed, done.failed.size]).toEqual([1, 1, 0]);
    const asked = { user: ann.user, vault: ann.vault, generation: 1, reason: 'matter 12' };
    await expect(unsealVaultKeyForLegal(directory, by, asked)).rejects.toMatchObject({ code: 'unavailable' });
    expect(await unsealVaultKeyForLegal({ database, keys: next }, by, asked)).toEqual(ann.key);
    expect((await resealRecords({ database, keys: next }, { party: by.party })).resealed).toBe(0);
  });

  test('it goes when the last hold has ended, and not before; that is an act', async () => {
    const [ann, bob] = [await enrolled('ann'), await enrolled('bob')];
    for (const { vault } of [ann, ann, bob]) await hold(vault);
    await raise(ann, toCustom(randomBytes(32), [ann.key]));
    await raise(bob, toCustom(randomBytes(32), [bob.key]));
    await forgetHeldKeys(database);
    expect([await heldOf(ann.vault), await heldOf(bob.vault)]).toEqual([[{ generation: 1 }], [{ generation: 1 }]]);
    await ask(
      'UPDATE holds SET release_effective_at = now() WHERE hold_id = (SELECT min(hold_id) FROM holds WHERE vault_id = $1)',
      [ann.vault],
    );
    await release(bob.vault, `now() + interval '1 hour'`);
    expect(await forgetHeldKeys(database)).toEqual({ keys: 0 });
    await release(ann.vault);
    expect(await forgetHeldKeys(database)).toEqual({ keys: 1 });
    expect([await heldOf(ann.vault), await heldOf(bob.vault)]).toEqual([[], [{ generation: 1 }]]);
    expect(await acts('key.forget_held')).toEqual([
      { party: 'server Holdfast', target: 'user ann', details: { vault: ann.vault, generations: [1] } },
    ]);
    const asked = { user: ann.user, vault: ann.vault, generation: 1, reason: 'matter 12' };
    await expect(unsealVaultKeyForLegal(directory, by, asked)).rejects.toMatchObject({ extras: { level: 'custom' } });
  });
});
