import { beforeEach, describe, expect, test } from '@jest/globals';
import { bitAt, sha256 } from '../../../protocol/hashes.ts';
import { readBlock } from '../../../storage/archive/reading/read-blocks.ts';
import { claimBlocks } from '../../../storage/archive/writing/claim.ts';
import type { Database } from '../../../storage/catalog/database.ts';
import { endLapsedLeases } from '../../../storage/catalog/deleting/dead-objects.ts';
import { foldVaultUsage, readChargedBytes } from '../../../storage/catalog/usage.ts';
import { insertAdmittedObject, insertWritingObject } from '../../../storage/catalog/writing/blocks.ts';
import { MemoryStore } from '../../../storage/objects/memory-store.ts';
import { commit, newArchive, newRun, storageForFile, version } from '../../../tests/helpers/storage.ts';
import { findAdmission } from './admission.ts';
import { newBlock, QuotaWorld, refusalOf, someoneWaits, type TestUser, uploadInto } from './test-quotas.ts';

const storage = storageForFile({ poolMax: 12 });
let world: QuotaWorld;
let top: number;
let ann: TestUser;

beforeEach(async () => {
  world = await QuotaWorld.create(storage);
  top = await world.organization(null, 'Top');
  ann = await world.user(top);
});

const charged = (...users: TestUser[]): Promise<number> =>
  readChargedBytes(
    storage.database,
    users.map(({ vault }) => vault),
  );
const keysOf = async (vault: number): Promise<number> =>
  (await storage.objects.list(`${storage.catalogId}/blocks/${vault}/`, { limit: 1_000 })).objects.length;
const rowsOf = async (vault: number): Promise<number> =>
  (await storage.rows('SELECT 1 FROM objects WHERE vault_id = $1', [vault])).length;

describe("a user's quota", () => {
  test('takes what fits to the byte, and one byte more leaves nothing behind', async () => {
    await world.set(top, 'quotas.bytesPerUser', 3_000);
    await uploadInto(storage, ann.vault, newBlock(1_000));
    expect(await refusalOf(uploadInto(storage, ann.vault, newBlock(2_001)))).toEqual({
      quota: 'user',
      limitBytes: 3_000,
      usedBytes: 1_000,
    });
    expect([await rowsOf(ann.vault), await keysOf(ann.vault), await charged(ann)]).toEqual([1, 1, 1_000]);
    await uploadInto(storage, ann.vault, newBlock(1_500), newBlock(500));
    expect(await charged(ann)).toBe(3_000);
    expect(await refusalOf(uploadInto(storage, ann.vault, newBlock(1)))).toMatchObject({ usedBytes: 3_000 });
  });

  test('what is there is claimed, committed and read all the same, and with more room the upload goes on', async () => {
    await world.set(top, 'quotas.bytesPerUser', 1_000);
    const ref = await newArchive(storage, ann.vault);
    const [kept, more] = [newBlock(1_000), newBlock(1)];
    await uploadInto(storage, ann.vault, kept);
    expect(await refusalOf(uploadInto(storage, ann.vault, kept, more))).not.toBeNull();
    expect(await uploadInto(storage, ann.vault, kept)).toMatchObject({ stored: 0, known: 1 });
    const { send } = await claimBlocks(storage, ann.vault, Buffer.concat([sha256(kept), sha256(more)]));
    expect([bitAt(send, 0), bitAt(send, 1)]).toEqual([false, true]);
    await commit(storage, ref, await newRun(storage, ref), [version('/a', [kept])]);
    const read = await readBlock(storage, ann.vault, sha256(kept));
    expect(Buffer.concat(await Array.fromAsync(read!.stream))).toEqual(kept);
    await world.set(top, 'quotas.bytesPerUser', 1_001);
    expect(await uploadInto(storage, ann.vault, kept, more)).toMatchObject({ stored: 1, known: 1 });
  });

  test('is the same before and after its figures are folded', async () => {
    await world.set(top, 'quotas.bytesPerUser', 2_000);
    for (let i = 0; i < 2; i++) {
      await uploadInto(storage, ann.vault, newBlock(1_000));
      await foldVaultUsage(storage.database, ann.vault);
    }
    expect(await charged(ann)).toBe(2_000);
    expect(await refusalOf(uploadInto(storage, ann.vault, newBlock(1)))).toMatchObject({ usedBytes: 2_000 });
  });

  test.each([
    ['of the nearest organization', [5, 10, null], false, 10],
    ['that the top has locked', [5, 10, 20], true, 5],
    ['inherited', [5, null, null], false, 5],
    ['none', [null, null, null], false, null],
    ['taken away below', [5, -1, null], false, null],
    ['nothing at all', [null, null, 0], false, 0],
  ])('%s: %j', async (_name, values, locked, expected) => {
    const path = [top];
    while (path.length < 3) path.push(await world.organization(path.at(-1)!));
    const user = await world.user(path[2]!);
    for (const [i, value] of values.entries())
      if (value !== null) await world.set(path[i]!, 'quotas.bytesPerUser', value, locked && i === 0);
    const size = expected === null ? 1_000 : expected + 1;
    const refusal = await refusalOf(uploadInto(storage, user.vault, newBlock(size)));
    expect(refusal).toEqual(expected === null ? null : { quota: 'user', limitBytes: expected, usedBytes: 0 });
    if (expected) expect(await refusalOf(uploadInto(storage, user.vault, newBlock(expected)))).toBeNull();
  });
});

const meterOf = async (organization: number): Promise<number> =>
  (
    await storage.rows<{ bytes: number }>('SELECT bytes FROM organization_meters WHERE organization_id = $1', [
      organization,
    ])
  )[0]!.bytes;

/** As if the last change were long ago, and counting took no time: nothing but being full is a reason to count. */
const believe = (organization: number): Promise<unknown> =>
  storage.rows(
    "UPDATE organization_meters SET changed_at = now() - interval '1 hour', counted_at = now(), count_ms = 0 WHERE organization_id = $1",
    [organization],
  );

describe("an organization's quota", () => {
  test('counts everything below it, and every one above the user is asked', async () => {
    const middle = await world.organization(top, 'Middle');
    const [bob, carl] = [await world.user(middle), await world.user(await world.organization(middle))];
    await world.set(top, 'quotas.bytes', 2_500);
    await world.set(middle, 'quotas.bytes', 2_000);
    await uploadInto(storage, bob.vault, newBlock(1_000));
    await uploadInto(storage, carl.vault, newBlock(500));
    const ofMiddle = { quota: 'organization', organization: { id: middle, name: 'Middle' } };
    expect(await refusalOf(uploadInto(storage, carl.vault, newBlock(501)))).toEqual({
      ...ofMiddle,
      limitBytes: 2_000,
      usedBytes: 1_500,
    });
    await uploadInto(storage, ann.vault, newBlock(600));
    expect(await refusalOf(uploadInto(storage, carl.vault, newBlock(401)))).toEqual({
      quota: 'organization',
      organization: { id: top, name: 'Top' },
      limitBytes: 2_500,
      usedBytes: 2_100,
    });
    await uploadInto(storage, carl.vault, newBlock(400));
    expect(await refusalOf(uploadInto(storage, ann.vault, newBlock(1)))).toMatchObject({ usedBytes: 2_500 });
  });

  test('counts what was there before it was set, and again when it is set after a while without', async () => {
    const bob = await world.user(top);
    await uploadInto(storage, ann.vault, newBlock(900));
    await world.set(top, 'quotas.bytes', 1_000);
    expect(await refusalOf(uploadInto(storage, bob.vault, newBlock(101)))).toMatchObject({ usedBytes: 900 });
    await world.set(top, 'quotas.bytes', -1);
    await uploadInto(storage, bob.vault, newBlock(50));
    await world.set(top, 'quotas.bytes', 1_000);
    expect(await refusalOf(uploadInto(storage, bob.vault, newBlock(51)))).toMatchObject({ usedBytes: 950 });
    await world.set(top, 'quotas.bytes', null);
    await uploadInto(storage, bob.vault, newBlock(25));
    await world.set(top, 'quotas.bytes', 1_000);
    expect(await refusalOf(uploadInto(storage, bob.vault, newBlock(26)))).toMatchObject({ usedBytes: 975 });
    await uploadInto(storage, bob.vault, newBlock(25));
  });

  test('follows users who move, and organizations', async () => {
    const [left, right] = [await world.organization(top), await world.organization(top)];
    const [bob, carl] = [await world.user(left), await world.user(right)];
    await world.set(left, 'quotas.bytes', 1_000);
    await world.set(right, 'quotas.bytes', 1_000);
    await uploadInto(storage, bob.vault, newBlock(800));
    await uploadInto(storage, carl.vault, newBlock(100));
    await world.moveUser(bob.user, right);
    const ofRight = (usedBytes: number) => ({ organization: { id: right }, usedBytes });
    expect(await refusalOf(uploadInto(storage, carl.vault, newBlock(101)))).toMatchObject(ofRight(900));
    await world.moveUser(carl.user, left);
    await uploadInto(storage, carl.vault, newBlock(900));
    await world.moveUser(carl.user, right);
    expect(await refusalOf(uploadInto(storage, bob.vault, newBlock(1)))).toMatchObject(ofRight(1_800));

    const away = await world.organization(null);
    await world.set(away, 'quotas.bytes', 1_800);
    await storage.rows(
      'UPDATE organizations SET parent_id = $2, path = ARRAY[$2::bigint, $1] WHERE organization_id = $1',
      [right, away],
    );
    await world.set(right, 'quotas.bytes', null);
    expect(await refusalOf(uploadInto(storage, bob.vault, newBlock(1)))).toMatchObject({
      organization: { id: away },
      usedBytes: 1_800,
    });
  });

  test('knows of bytes that went, though nobody told it', async () => {
    await world.set(top, 'quotas.bytes', 1_000);
    await uploadInto(storage, ann.vault, newBlock(1_000));
    expect(await refusalOf(uploadInto(storage, ann.vault, newBlock(1)))).not.toBeNull();
    await storage.rows('INSERT INTO usage_deltas (vault_id, stored_bytes) VALUES ($1, -400)', [ann.vault]);
    await believe(top);
    expect(await refusalOf(uploadInto(storage, ann.vault, newBlock(401)))).toMatchObject({ usedBytes: 600 });
    await believe(top);
    await uploadInto(storage, ann.vault, newBlock(400));
  });

  test('is not counted while its meter, however high, leaves room', async () => {
    await world.set(top, 'quotas.bytes', 1_000);
    await uploadInto(storage, ann.vault, newBlock(100));
    await believe(top);
    await storage.rows('UPDATE organization_meters SET bytes = 700 WHERE organization_id = $1', [top]);
    await uploadInto(storage, ann.vault, newBlock(300));
    expect(await meterOf(top)).toBe(1_000);
    await uploadInto(storage, ann.vault, newBlock(10));
    expect(await meterOf(top)).toBe(410);
  });

  test('a count that took long is not repeated at once, and never believed past a move', async () => {
    await world.set(top, 'quotas.bytes', 1_000);
    await uploadInto(storage, ann.vault, newBlock(900));
    await storage.rows('INSERT INTO usage_deltas (vault_id, stored_bytes) VALUES ($1, -900)', [ann.vault]);
    await storage.rows('UPDATE organization_meters SET count_ms = 3600000 WHERE organization_id = $1', [top]);
    expect(await refusalOf(uploadInto(storage, ann.vault, newBlock(101)))).toMatchObject({ usedBytes: 900 });
    const bob = await world.user(await world.organization(null));
    await world.moveUser(bob.user, top);
    expect(await refusalOf(uploadInto(storage, ann.vault, newBlock(101)))).toBeNull();
  });
});

describe('uploads at once', () => {
  /** Its puts wait until they are let through, so that what is under way is under way. */
  class HeldStore extends MemoryStore {
    readonly arrived: (() => void)[] = [];
    override async put(...args: Parameters<MemoryStore['put']>): Promise<void> {
      await new Promise<void>((resolve) => this.arrived.push(resolve));
      return super.put(...args);
    }
  }

  test.each([
    ["one user's", 'quotas.bytesPerUser'],
    ["many users', of an organization,", 'quotas.bytes'],
  ])('%s: eight of them meet the limit, five fit, and five are taken', async (_whose, name) => {
    const child = await world.organization(top);
    const users = name === 'quotas.bytes' ? [ann, await world.user(child), await world.user(child)] : [ann];
    await world.set(top, name, 5_000);
    await uploadInto(storage, ann.vault, newBlock(1));
    await world.set(top, name, 5_001);
    const store = new HeldStore();
    const uploads = Array.from({ length: 8 }, (_, i) =>
      refusalOf(uploadInto({ ...storage, objects: store }, users[i % users.length]!.vault, newBlock(1_000))),
    );
    // Nothing is stored before all eight have been refused or let in: so what is in flight is all that the others see.
    let refused = 0;
    const answered = Promise.all(
      uploads.map(async (upload) => {
        const isRefused = (await upload) !== null;
        if (isRefused) refused++;
        return isRefused;
      }),
    );
    for (let looks = 0; store.arrived.length + refused < 8 && looks < 500; looks++)
      await new Promise((resolve) => setTimeout(resolve, 10));
    const underWay = [store.arrived.length, refused, await charged(...users)];
    for (const letThrough of store.arrived) letThrough();
    expect(underWay).toEqual([5, 3, 5_001]);
    expect((await answered).filter((refused) => !refused)).toHaveLength(5);
    expect(await charged(...users)).toBe(5_001);
  });

  test.each([
    ['user', 'quotas.bytesPerUser'],
    ['organization', 'quotas.bytes'],
  ])('of one %s: whoever asks second waits for the first, and sees what it let in', async (_whose, name) => {
    await world.set(top, name, 1_000);
    await uploadInto(storage, ann.vault, newBlock(1));
    const admit = (await findAdmission(storage.database, ann.vault))!;
    const { vault } = ann;
    const object = { vault, key: newBlock(16).toString('hex'), sizeBytes: 900, leaseMs: 60_000, chargedBytes: 800 };
    let second: ReturnType<typeof refusalOf> | undefined;
    await storage.database.transaction(async (tx) => {
      expect(await admit(tx, 800)).toBeNull();
      await insertWritingObject(tx, { ...object, catalogId: storage.catalogId });
      let isAnswered = false;
      second = refusalOf(uploadInto(storage, vault, newBlock(200))).finally(() => {
        isAnswered = true;
      });
      await someoneWaits(storage, () => isAnswered);
      expect(isAnswered).toBe(false);
    });
    expect(await second).toMatchObject({ usedBytes: 801 });
  });

  test('with moves and quotas that change: nothing is let in past a limit, and no meter is below the truth', async () => {
    const places = [top, await world.organization(top), await world.organization(top)];
    const users = [ann, await world.user(places[1]!), await world.user(places[2]!), await world.user(places[1]!)];
    for (const place of places) await world.set(place, 'quotas.bytes', 20_000);
    await world.set(top, 'quotas.bytesPerUser', 12_000);
    let refused = 0;
    await Promise.all(
      Array.from({ length: 6 }, async (_, worker) => {
        for (let turn = 0; turn < 12; turn++) {
          const pick = worker * 7 + turn * 5;
          const { user, vault } = users[pick % users.length]!;
          if (pick % 6 === 0) await world.moveUser(user, places[pick % 3]!);
          else if (pick % 11 === 0) await world.set(places[pick % 3]!, 'quotas.bytes', 15_000 + pick);
          else if ((await refusalOf(uploadInto(storage, vault, newBlock(700 + pick)))) !== null) refused++;
        }
      }),
    );
    expect(refused).toBeGreaterThan(0);
    for (const user of users) expect(await charged(user)).toBeLessThanOrEqual(12_000);
    // What moves is not refused; but at the top nobody comes or goes.
    expect(await charged(...users)).toBeLessThanOrEqual(20_000);
    const meters = await storage.rows<{ id: number; bytes: number }>(
      'SELECT organization_id AS id, bytes FROM organization_meters WHERE organization_id = ANY ($1::bigint[]) AND counted_at > changed_at',
      [places],
    );
    expect(meters.length).toBeGreaterThan(0);
    for (const { id, bytes } of meters) {
      const below = await storage.rows<{ vault: number }>(
        `SELECT v.vault_id AS vault FROM organizations o JOIN users u USING (organization_id) JOIN vaults v ON v.user_id = u.user_id
          WHERE o.path @> ARRAY[$1::bigint]`,
        [id],
      );
      const truth = await readChargedBytes(
        storage.database,
        below.map(({ vault }) => vault),
      );
      expect(bytes).toBeGreaterThanOrEqual(truth);
    }
  });

  test('one that was cut off holds its place until its lease is ended', async () => {
    await world.set(top, 'quotas.bytesPerUser', 1_000);
    await world.set(top, 'quotas.bytes', 1_000);
    class LosingStore extends MemoryStore {
      override put(): Promise<void> {
        return Promise.reject(new Error('lost'));
      }
    }
    const lost = uploadInto({ ...storage, objects: new LosingStore() }, ann.vault, newBlock(800));
    await expect(lost).rejects.toThrow('lost');
    expect(await refusalOf(uploadInto(storage, ann.vault, newBlock(201)))).toMatchObject({ usedBytes: 800 });
    await uploadInto(storage, ann.vault, newBlock(200));
    await storage.rows(
      "UPDATE objects SET next_at = now() - interval '1 s' WHERE vault_id = $1 AND state = 'writing'",
      [ann.vault],
    );
    await storage.database.transaction((tx) => endLapsedLeases(tx, ann.vault, 10));
    await believe(top);
    expect(await charged(ann)).toBe(200);
    await uploadInto(storage, ann.vault, newBlock(800));
  });

  test('a COMMIT of unknown outcome is counted once', async () => {
    await world.set(top, 'quotas.bytesPerUser', 1_000);
    await world.set(top, 'quotas.bytes', 1_000);
    const { database } = storage;
    const committedTwice: Database = {
      ...database,
      transaction: async (work) => {
        await database.transaction(work);
        return database.transaction(work);
      },
    };
    const object = { vault: ann.vault, key: 'a key', sizeBytes: 900, leaseMs: 60_000, catalogId: storage.catalogId };
    const admit = await findAdmission(database, ann.vault);
    await insertAdmittedObject(committedTwice, { ...object, chargedBytes: 800 }, admit!);
    expect(await charged(ann)).toBe(800);
    expect(await meterOf(top)).toBe(800);
  });
});

describe('a damaged block', () => {
  const damage = (vault: number, ...blocks: Buffer[]): Promise<unknown> =>
    storage.rows('UPDATE blocks SET damaged_at = now() WHERE vault_id = $1 AND hash = ANY ($2)', [
      vault,
      blocks.map(sha256),
    ]);
  const damaged = async (vault: number): Promise<number> =>
    (await storage.rows('SELECT 1 FROM blocks WHERE vault_id = $1 AND damaged_at IS NOT NULL', [vault])).length;

  test.each([
    ['user', 'quotas.bytesPerUser'],
    ['organization', 'quotas.bytes'],
  ])('sent again is taken over the quota of a %s, alone and among others that are refused', async (_whose, name) => {
    const ref = await newArchive(storage, ann.vault);
    const [first, second] = [newBlock(1_000), newBlock(2_000)];
    await uploadInto(storage, ann.vault, first, second);
    await commit(storage, ref, await newRun(storage, ref), [version('/a', [first, second])]);
    await world.set(top, name, 100);

    await damage(ann.vault, first, second);
    expect(await uploadInto(storage, ann.vault, first)).toMatchObject({ stored: 1 });
    expect(await damaged(ann.vault)).toBe(1);
    const fresh = newBlock(500);
    expect(await refusalOf(uploadInto(storage, ann.vault, fresh, second))).toMatchObject({ usedBytes: 3_000 });
    expect(await damaged(ann.vault)).toBe(0);
    expect(await charged(ann)).toBe(3_000);
    const read = await readBlock(storage, ann.vault, sha256(second));
    expect(Buffer.concat(await Array.fromAsync(read!.stream))).toEqual(second);
    expect(await storage.rows('SELECT 1 FROM blocks WHERE hash = $1', [sha256(fresh)])).toEqual([]);
  });
});

test('a quota that cannot be read lets nothing in, and says whose it is', async () => {
  await world.set(top, 'quotas.bytesPerUser', 'plenty');
  await expect(uploadInto(storage, ann.vault, newBlock(1))).rejects.toThrow(
    `quotas.bytesPerUser of organization ${top} cannot be read`,
  );
  expect(await rowsOf(ann.vault)).toBe(0);
});

test('where there is no quota an upload asks one question more, and no lock or transaction', async () => {
  const asked: string[] = [];
  const { database } = storage;
  const counting: Database = {
    ...database,
    query: (statement, values) => {
      asked.push(statement.name);
      return database.query(statement, values);
    },
    transaction: (work) => {
      asked.push('BEGIN');
      return database.transaction(work);
    },
  };
  await uploadInto({ ...storage, database: counting }, ann.vault, newBlock(10));
  expect(asked).toEqual(['blocks.readClaims', 'directory.quotasOfVault', 'objects.insertWriting', 'BEGIN']);
  expect(await storage.rows('SELECT 1 FROM organization_meters WHERE organization_id = $1', [top])).toEqual([]);
});
