import { beforeEach, describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import { recount } from '../../../storage/archive/checking/recount.ts';
import { reclaimDue } from '../../../storage/archive/deleting/reclaim.ts';
import { commitPlain } from '../../../storage/archive/plain-files/commit-plain.ts';
import { hideFile } from '../../../storage/archive/plain-files/hide-file.ts';
import { putFile, putLargeFile } from '../../../storage/archive/plain-files/put-file.ts';
import { beginUndo, setBackStep, undoDeletesStep } from '../../../storage/archive/plain-files/undo.ts';
import { plainPolicies } from '../../../storage/archive/retention/plain-policies.ts';
import { pruneArchive } from '../../../storage/archive/retention/prune.ts';
import { readChargedBytes, readHiddenBytes } from '../../../storage/catalog/usage.ts';
import { createArchive } from '../../../storage/catalog/vaults.ts';
import type { PlainName } from '../../../storage/catalog/writing/plain-files.ts';
import type { ArchiveRef } from '../../../storage/storage.ts';
import { newHeldFence, storageForFile } from '../../../tests/helpers/storage.ts';
import { findAdmission } from './admission.ts';
import { readOrganizationQuotas, readUserQuota } from './reading.ts';
import { newBlock, QuotaWorld, refusalOf, someoneWaits, type TestUser } from './test-quotas.ts';

const storage = storageForFile({ poolMax: 12 });
let world: QuotaWorld;
let top: number;
let ann: TestUser;
let ref: ArchiveRef;

beforeEach(async () => {
  world = await QuotaWorld.create(storage);
  top = await world.organization(null, 'Top');
  ann = await world.user(top);
  ref = await repositoryOf(ann);
});

function repositoryOf({ vault, user }: TestUser): Promise<ArchiveRef> {
  return storage.database.transaction(async (tx) => ({
    vault,
    archive: await createArchive(tx, { vault, deviceId: user, kind: 'plain' }),
  }));
}

const fileOf = (bytes: Buffer): PlainName => ({ folder: 'data', name: sha256(bytes).toString('hex') });

/** @returns what the quota said; null when it was taken */
function put(bytes: Buffer, into: ArchiveRef = ref): Promise<object | null> {
  const body = async function* (): AsyncGenerator<Buffer> {
    yield bytes;
  };
  const upload = putFile(
    storage,
    into,
    { file: fileOf(bytes), digest: sha256(bytes), length: bytes.byteLength },
    body(),
    {
      findAdmission: () => findAdmission(storage.database, into.vault),
    },
  );
  return refusalOf(upload as never);
}

async function full(limitBytes: number): Promise<Buffer> {
  const bytes = newBlock(limitBytes);
  expect(await put(bytes)).toBeNull();
  expect(await put(newBlock(1))).not.toBeNull();
  return bytes;
}

describe("a user's quota", () => {
  beforeEach(() => world.set(top, 'quotas.bytesPerUser', 1_000));

  test('does not charge what is hidden, to the byte', async () => {
    const bytes = await full(1_000);
    await hideFile(storage, ref, fileOf(bytes));
    const { tenant } = world;
    expect(await readUserQuota(storage.database, { tenant, user: ann.user })).toMatchObject({
      bytes: { limit: 1_000, used: 0, hidden: 1_000 },
    });
    expect(await put(newBlock(1_001))).toEqual({ quota: 'user', limitBytes: 1_000, usedBytes: 0 });
    expect(await put(newBlock(1_000))).toBeNull();
    expect(await put(newBlock(1))).toEqual({ quota: 'user', limitBytes: 1_000, usedBytes: 1_000 });
  });

  test('is passed by as much again, at most: whoever fills it by deleting is stopped, and still deletes', async () => {
    for (let i = 0; i < 2; i++) await hideFile(storage, ref, fileOf(await full(1_000)));
    // 2,000 bytes are hidden, of which 1,000 are not charged: there is no room, as if nothing were deleted.
    expect(await put(newBlock(1))).toEqual({ quota: 'user', limitBytes: 1_000, usedBytes: 1_000 });
    const { tenant } = world;
    expect(await readUserQuota(storage.database, { tenant, user: ann.user })).toMatchObject({
      bytes: { limit: 1_000, used: 1_000, hidden: 2_000 },
    });
  });

  test('lets deletes be undone when that passes it, and takes nothing more then', async () => {
    const at = new Date(Date.now() - 60_000);
    const bytes = await full(1_000);
    await hideFile(storage, ref, fileOf(bytes));
    expect(await put(newBlock(600))).toBeNull();
    await storage.database.transaction(async (tx) => undoDeletesStep(tx, ref, (await beginUndo(tx, ref, at))!));
    expect(await put(newBlock(1))).toEqual({ quota: 'user', limitBytes: 1_000, usedBytes: 1_600 });
  });

  test('and deletes beside uploads: what was let in fits what is charged then', async () => {
    const bytes = await full(1_000);
    const done: (object | null)[] = [];
    await Promise.all([
      hideFile(storage, ref, fileOf(bytes)),
      ...Array.from({ length: 6 }, async () => void done.push(await put(newBlock(300)))),
    ]);
    const taken = done.filter((each) => each === null).length;
    expect(taken).toBeLessThanOrEqual(3);
    for (let more = taken; more < 3; more++) expect(await put(newBlock(300))).toBeNull();
    expect(await put(newBlock(300))).toMatchObject({ usedBytes: 900 });
  });
});

describe('what is hidden is charged as long as anything that is there needs it', () => {
  async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
    yield bytes;
  }
  const hiddenOf = async (): Promise<number> => {
    const kept = await readHiddenBytes(storage.database, [ref.vault]);
    expect(await recount(storage, ref.vault)).toMatchObject({ figures: 0, tooLow: 0, tooHigh: 0 });
    return kept;
  };
  const inFolder = (folder: string, bytes: Buffer): PlainName => ({ folder, name: sha256(bytes).toString('hex') });
  const putIn = (folder: string, bytes: Buffer, into = ref) =>
    putFile(
      storage,
      into,
      { file: inFolder(folder, bytes), digest: sha256(bytes), length: bytes.byteLength },
      once(bytes),
    );

  test('the same content in two folders, until both are hidden in one step', async () => {
    const at = new Date(Date.now() - 60_000);
    const bytes = newBlock(100);
    await putIn('data', bytes);
    await putIn('index', bytes);
    await hideFile(storage, ref, inFolder('index', bytes));
    expect(await hiddenOf()).toBe(0);
    await putIn('index', bytes);
    await storage.database.transaction(async (tx) =>
      setBackStep(tx, ref, (await beginUndo(tx, ref, at))!, { dryRun: false }),
    );
    expect(await hiddenOf()).toBe(100);
    await putIn('snapshots', bytes);
    expect(await hiddenOf()).toBe(0);
  });

  test('in two repositories of a user', async () => {
    const other = await repositoryOf(ann);
    const bytes = newBlock(100);
    await putIn('data', bytes);
    await hideFile(storage, ref, inFolder('data', bytes));
    expect(await hiddenOf()).toBe(100);
    await putIn('data', bytes, other);
    expect(await hiddenOf()).toBe(0);
  });

  test('by somebody who names it in the moment in which it is hidden', async () => {
    const other = await repositoryOf(ann);
    const bytes = newBlock(100);
    await putIn('data', bytes);
    const content = { size: bytes.byteLength, blocks: sha256(bytes) };
    let hiding: Promise<unknown> = Promise.resolve();
    await storage.database.transaction(async (tx) => {
      await commitPlain(tx, other, [{ file: inFolder('data', bytes), content }]);
      let isOver = false;
      hiding = hideFile(storage, ref, inFolder('data', bytes)).finally(() => {
        isOver = true;
      });
      await someoneWaits(storage, () => isOver);
      expect(isOver).toBe(false);
    });
    await hiding;
    expect(await hiddenOf()).toBe(0);
  });

  test('a file of equal pieces counts once, and not again when it comes and goes', async () => {
    const piece = newBlock(100);
    const whole = Buffer.concat([piece, piece, piece]);
    const put = { file: inFolder('data', whole), digest: sha256(whole), length: whole.byteLength };
    for (let i = 0; i < 2; i++) {
      await putLargeFile(
        storage,
        ref,
        put,
        (async function* () {
          for (let n = 0; n < 3; n++) yield once(piece);
        })(),
      );
      await hideFile(storage, ref, put.file);
      expect(await hiddenOf()).toBe(100);
    }
  });

  test('its bytes are given back and no longer hidden in one moment', async () => {
    const bytes = newBlock(100);
    await putIn('locks', bytes);
    await hideFile(storage, ref, inFolder('locks', bytes));
    const fence = await newHeldFence(storage);
    const deps = {
      readPolicies: async () => plainPolicies(30, 'test'),
      assertMayDelete: () => fence.assertHeld(),
      assertStillHeld: (read: Parameters<typeof fence.assertStillHeld>[0]) => fence.assertStillHeld(read),
    };
    expect(await pruneArchive(storage, ref, deps)).toMatchObject({ versions: 2 });
    const charged = async () => (await readChargedBytes(storage.database, [ref.vault])) - (await hiddenOf());
    expect([await readChargedBytes(storage.database, [ref.vault]), await charged()]).toEqual([100, 0]);
    await storage.rows('UPDATE blocks SET claimed_until = now() WHERE vault_id = $1', [ref.vault]);
    await storage.rows('UPDATE freed SET check_after = now() WHERE vault_id = $1', [ref.vault]);
    await reclaimDue(storage);
    expect([await readChargedBytes(storage.database, [ref.vault]), await hiddenOf()]).toEqual([0, 0]);
  });

  test('a figure that is wrong is corrected by the recount', async () => {
    const bytes = newBlock(100);
    await putIn('data', bytes);
    await hideFile(storage, ref, inFolder('data', bytes));
    await storage.rows('INSERT INTO usage_deltas (vault_id, hidden_bytes) VALUES ($1, 7)', [ref.vault]);
    expect(await recount(storage, ref.vault)).toMatchObject({ figures: 1 });
    expect(await hiddenOf()).toBe(100);
  });
});

describe("an organization's quota", () => {
  test('does not charge what is hidden in it and below, and is passed by as much again at most', async () => {
    const below = await world.organization(top);
    const ben = await world.user(below);
    const bens = await repositoryOf(ben);
    await world.set(top, 'quotas.bytes', 1_000);
    const [mine, his] = [newBlock(600), newBlock(400)];
    expect(await put(mine)).toBeNull();
    expect(await put(his, bens)).toBeNull();
    expect(await put(newBlock(1))).toMatchObject({ quota: 'organization', usedBytes: 1_000 });
    await hideFile(storage, bens, fileOf(his));
    const { tenant } = world;
    expect(await readOrganizationQuotas(storage.database, { tenant, organization: top })).toMatchObject({
      bytes: { limit: 1_000, used: 600, hidden: 400 },
    });
    expect(await put(newBlock(401))).toMatchObject({ quota: 'organization', usedBytes: 600 });
    expect(await put(newBlock(400))).toBeNull();
    await hideFile(storage, ref, fileOf(mine));
    expect(await put(newBlock(600))).toBeNull();
    expect(await put(newBlock(1))).toMatchObject({ usedBytes: 1_000 });
  });

  test('an upload waits for nobody who hides or shows', async () => {
    await world.set(top, 'quotas.bytes', 1_000);
    const bytes = newBlock(1_000);
    await put(bytes);
    let isOver = false;
    await storage.database.transaction(async (tx) => {
      await tx.query({ name: '', text: 'SELECT 1 FROM plain_figures WHERE vault_id = $1 FOR UPDATE' }, [ref.vault]);
      const refused = put(newBlock(1), await repositoryOf(await world.user(top))).finally(() => {
        isOver = true;
      });
      await someoneWaits(storage, () => isOver);
      expect(isOver).toBe(true);
      expect(await refused).toMatchObject({ quota: 'organization' });
    });
  });
});
