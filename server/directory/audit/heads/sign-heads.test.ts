import { beforeEach, describe, expect, test } from '@jest/globals';
import { compareBucket } from '../../../../storage/archive/checking/compare-bucket.ts';
import { DeletingStopped } from '../../../../storage/archive/checking/fence.ts';
import { hasOpenAlert } from '../../../../storage/catalog/checking/alerts.ts';
import type { ObjectStore } from '../../../../storage/objects/object-store.ts';
import { storageForEachTest } from '../../../../tests/helpers/storage.ts';
import { type AuditKeys, newAuditKeyFile, readAuditKeys } from './audit-key.ts';
import { hasSignedHeads, readLogHead } from './log-rows.ts';
import { resumeLog } from './resume-log.ts';
import { signHeads } from './sign-heads.ts';
import { keyOf, listSigned, readDocument, readSigned } from './signed.ts';
import { asOwner, byAda, chainAgain, heldFence, recordMany } from './testing.ts';
import { verifyLog } from './verify-log.ts';

const tenant = 3;
const storage = storageForEachTest();
let keys: AuditKeys;
beforeEach(() => {
  keys = readAuditKeys(newAuditKeyFile());
});

const sign = (over: Partial<typeof storage> = {}) => signHeads({ ...storage, ...over }, keys, heldFence);
const verify = () => verifyLog(storage, keys, tenant);
async function heads(): Promise<number[]> {
  return (await Array.fromAsync(listSigned(storage, { kind: 'head', tenant }))).map(({ number }) => number);
}
const isAlarmed = () => hasOpenAlert(storage.database, { vault: 0, archive: 0, kind: 'audit_log_altered' });

/** The store with some of its calls replaced. */
function storeWith(over: Partial<ObjectStore>): ObjectStore {
  const { objects } = storage;
  const own = {} as Record<string, unknown>;
  for (const name of ['put', 'get', 'head', 'delete', 'list', 'check', 'inspect', 'close'] as const)
    own[name] = (objects[name] as (...all: unknown[]) => unknown).bind(objects);
  return { ...(own as unknown as ObjectStore), ...over };
}

describe('signing', () => {
  test('signs what has moved, once, and each head names the one before', async () => {
    await recordMany(storage, tenant, 2);
    await recordMany(storage, null, 1);
    expect(await hasSignedHeads(storage.database)).toBe(false);
    expect(await sign()).toEqual({ logs: 2, signed: 2, putBack: 0, refused: 0 });
    expect(await hasSignedHeads(storage.database)).toBe(true);
    expect(await sign()).toEqual({ logs: 2, signed: 0, putBack: 0, refused: 0 });
    await recordMany(storage, tenant, 3);
    expect(await sign()).toMatchObject({ signed: 1 });
    expect(await heads()).toEqual([2, 5]);

    const read = async (number: number) => {
      const key = keyOf({ kind: 'head', catalog: storage.catalogId, tenant, number });
      const document = readSigned(keys, 'head', { key, text: (await readDocument(storage.objects, key))! });
      if (typeof document === 'string') throw new Error(document);
      return document;
    };
    const [first, second] = [await read(2), await read(5)];
    expect(first.content.previous).toBeNull();
    expect(second.content.previous).toEqual({ number: 2, sha256: first.sha256 });
    expect(second.content.hash).toBe((await readLogHead(storage.database, tenant))!.hash.toString('hex'));
  });

  test('of two at a time one signs, and the heads are one chain', async () => {
    for (let round = 0; round < 10; round++) {
      await recordMany(storage, tenant, 2);
      const both = await Promise.all([sign(), sign(), recordMany(storage, tenant, 1)]);
      expect(both[0]!.refused + both[1]!.refused).toBe(0);
    }
    await sign();
    expect(await verify()).toMatchObject({ acts: 30, signedTo: 30, findings: [] });
    expect(await isAlarmed()).toBe(false);
  });

  test('that could not put its head puts the same one later, although there are newer acts', async () => {
    await recordMany(storage, tenant, 2);
    const refused = storeWith({
      put: async () => {
        throw new Error('the store is away');
      },
    });
    await expect(sign({ objects: refused })).rejects.toThrow('away');
    const entered = (await readLogHead(storage.database, tenant))!;
    expect(entered).toMatchObject({ signedNumber: 2, signedStored: false });
    await recordMany(storage, tenant, 1);
    expect(await verify()).toMatchObject({ signedTo: 0, findings: [] });
    await sign();
    expect(await heads()).toEqual([2, 3]);
    const key = keyOf({ kind: 'head', catalog: storage.catalogId, tenant, number: 2 });
    expect(await readDocument(storage.objects, key)).toBe(entered.signedDocument);
    expect((await verify()).findings).toEqual([]);
  });

  test('whose answer was lost goes on', async () => {
    await recordMany(storage, tenant, 2);
    const lost = storeWith({
      put: async (...put) => {
        await storage.objects.put(...put);
        throw new Error('no answer');
      },
    });
    await expect(sign({ objects: lost })).rejects.toThrow('no answer');
    expect(await sign()).toMatchObject({ signed: 0, putBack: 0 });
    expect((await readLogHead(storage.database, tenant))!.signedStored).toBe(true);
  });

  test('puts a head back that was removed, at the next that it signs', async () => {
    await recordMany(storage, tenant, 2);
    await sign();
    await storage.objects.delete(keyOf({ kind: 'head', catalog: storage.catalogId, tenant, number: 2 }));
    await recordMany(storage, tenant, 1);
    expect(await sign()).toEqual({ logs: 1, signed: 1, putBack: 1, refused: 0 });
    expect((await verify()).findings).toEqual([]);
  });

  test.each([
    ['altered', `UPDATE acts SET party_name = 'eve' WHERE number = 4`],
    ['missing', 'DELETE FROM acts WHERE number = 4'],
    ['missing at the end', 'DELETE FROM acts WHERE number = 5'],
    [
      'written anew, also those that are signed',
      `UPDATE acts SET party_name = 'eve' WHERE number = 1`,
      chainAgain(tenant, 1),
    ],
  ])('refuses acts that are %s, tells it, and signs the other logs', async (_, ...tampering) => {
    await recordMany(storage, tenant, 2);
    await sign();
    await recordMany(storage, tenant, 3);
    await asOwner(storage, ...tampering);
    await recordMany(storage, 8, 1);
    expect(await sign()).toMatchObject({ logs: 2, signed: 1, refused: 1 });
    expect(await heads()).toEqual([2]);
    expect(await isAlarmed()).toBe(true);
  });

  test('closes its alert when the log is what it was', async () => {
    await recordMany(storage, tenant, 2);
    await asOwner(storage, `UPDATE acts SET party_name = party_name || '!' WHERE number = 2`);
    expect(await sign()).toMatchObject({ refused: 1 });
    await asOwner(storage, `UPDATE acts SET party_name = rtrim(party_name, '!') WHERE number = 2`);
    expect(await sign()).toMatchObject({ signed: 1, refused: 0 });
    expect(await isAlarmed()).toBe(false);
  });

  test('is not done by a copy of the catalog, which the fence stops', async () => {
    await recordMany(storage, tenant, 2);
    const stopped = {
      assertHeld: async () => {
        throw new DeletingStopped('foreign_nonce', 'a copy');
      },
    };
    await expect(signHeads(storage, keys, stopped)).rejects.toThrow(DeletingStopped);
    expect(await heads()).toEqual([]);
    expect((await readLogHead(storage.database, tenant))!.signedNumber).toBe(0);
  });

  test('begins anew under a prefix of its own after "adopt --own-prefix"', async () => {
    await recordMany(storage, tenant, 2);
    await sign();
    const copy = { catalogId: '00000000-0000-4000-8000-000000000000' };
    expect(await sign(copy)).toMatchObject({ signed: 1 });
    await recordMany(storage, tenant, 1);
    expect(await sign(copy)).toMatchObject({ signed: 1 });
    expect(await verifyLog({ ...storage, ...copy }, keys, tenant)).toMatchObject({
      heads: 2,
      signedTo: 3,
      findings: [],
    });
  });

  test('leaves what the comparison of bucket and rows takes for nothing of its own', async () => {
    await recordMany(storage, tenant, 2);
    await sign();
    const held = { ...heldFence, assertStillHeld: () => {}, isOurBucket: async () => true } as never;
    expect(await compareBucket(storage, held)).toMatchObject({ listed: 0, orphansDeleted: 0, strange: 0 });
    expect(await heads()).toEqual([2]);
  });
});

describe('after the database was restored to an earlier moment', () => {
  /** Ten acts with heads at 6 and 10; then the catalog is as it was after the eighth, and `more` acts come. */
  async function restoredWith(more: number): Promise<void> {
    await recordMany(storage, tenant, 6);
    await sign();
    await recordMany(storage, tenant, 2);
    const [row] = await storage.rows<Record<string, unknown>>('SELECT * FROM act_heads');
    await recordMany(storage, tenant, 2);
    await sign();
    await asOwner(
      storage,
      'DELETE FROM acts WHERE number > 8',
      `UPDATE act_heads SET number = 8, hash = '\\x${(row!.hash as Buffer).toString('hex')}', signed_number = 6,
              signed_document = '${row!.signed_document as string}', signed_stored = true`,
    );
    await recordMany(storage, tenant, more);
  }

  test.each([
    // Above all that was signed, and above all that is there.
    [0, 11, 8],
    [1, 11, 9],
    [2, 11, 10],
    [5, 14, 13],
  ])(
    'with %d acts since, nothing is signed until somebody answers for it, and then the log goes on at %d',
    async (more, number, follows) => {
      await restoredWith(more);
      await recordMany(storage, tenant, 0);
      if (more > 0) {
        expect(await sign()).toMatchObject({ signed: 0, refused: 1 });
        expect(await isAlarmed()).toBe(true);
      }
      expect((await verify()).findings).not.toEqual([]);

      expect(await resumeLog(storage, keys, byAda(tenant), 'restored from Tuesday')).toMatchObject({
        ...{ number, follows, agreesTo: 6 },
      });
      expect(await sign()).toMatchObject({ signed: 1, refused: 0 });
      expect(await isAlarmed()).toBe(false);
      await recordMany(storage, tenant, 2);
      await sign();
      expect(await verify()).toMatchObject({
        ...{ acts: follows + 3, last: number + 2, signedTo: number + 2, findings: [] },
        resumptions: [{ number, follows, agreesTo: 6, reason: 'restored from Tuesday' }],
      });
      // What was lost does not cover what is done to the rows.
      await asOwner(storage, `UPDATE acts SET party_name = 'eve' WHERE number = 8`, chainAgain(tenant, 8));
      expect((await verify()).findings.length).toBeGreaterThan(0);
    },
  );

  test('that somebody answers is an act, and the answer is refused where nothing is lost', async () => {
    await restoredWith(1);
    await expect(resumeLog(storage, keys, byAda(tenant), ' ')).rejects.toMatchObject({ code: 'out_of_bounds' });
    await expect(resumeLog(storage, keys, byAda(tenant), 'x'.repeat(1_001))).rejects.toMatchObject({
      code: 'out_of_bounds',
    });
    await resumeLog(storage, keys, byAda(tenant), 'x'.repeat(1_000));
    const acts = await storage.rows(
      `SELECT number, action, party_name AS who, details->>'follows' AS follows FROM acts ORDER BY number DESC LIMIT 1`,
    );
    expect(acts).toEqual([{ number: 11, action: 'log.resume', who: 'ada@example.org', follows: '9' }]);
    await sign();
    await expect(resumeLog(storage, keys, byAda(tenant), 'again')).rejects.toMatchObject({ code: 'conflict' });
    await expect(resumeLog(storage, keys, byAda(77), 'no such log')).rejects.toMatchObject({ code: 'conflict' });
  });

  test('an answer that was put into the bucket and not committed is not taken for the next one', async () => {
    await restoredWith(1);
    const lost = storeWith({
      put: async (...put) => {
        await storage.objects.put(...put);
        throw new Error('no answer');
      },
    });
    await expect(resumeLog({ ...storage, objects: lost }, keys, byAda(tenant), 'first')).rejects.toThrow('no answer');
    await recordMany(storage, tenant, 1);
    expect(await resumeLog(storage, keys, byAda(tenant), 'second')).toMatchObject({ number: 12, follows: 10 });
    await sign();
    expect(await verify()).toMatchObject({ last: 12, signedTo: 12, findings: [] });
  });
});
