import { beforeEach, describe, expect, test } from '@jest/globals';
import { storageForEachTest } from '../../../../tests/helpers/storage.ts';
import { type AuditKeys, newAuditKeyFile, readAuditKeys } from './audit-key.ts';
import { expireLogs } from './expire-logs.ts';
import { signHeads } from './sign-heads.ts';
import { listSigned } from './signed.ts';
import { asOwner, chainAgain, heldFence, recordMany } from './testing.ts';
import { verifyLog } from './verify-log.ts';

const tenant = 3;
const storage = storageForEachTest();
let keys: AuditKeys;
beforeEach(() => {
  keys = readAuditKeys(newAuditKeyFile());
});

const sign = () => signHeads(storage, keys, heldFence);
const verify = () => verifyLog(storage, keys, tenant);
async function heads(): Promise<number[]> {
  return (await Array.fromAsync(listSigned(storage, { kind: 'head', tenant }))).map(({ number }) => number);
}

describe('expiry', () => {
  const expire = () => expireLogs(storage, keys, heldFence);

  /** Twelve acts, the first `old` of them 40 days old, with heads at 4, 8 and 12; kept for 30 days. */
  async function logWith(old: number, ...days: unknown[]): Promise<void> {
    await storage.rows(`INSERT INTO tenants OVERRIDING SYSTEM VALUE VALUES (${tenant}, 'T')`);
    for (const [i, value] of days.entries()) {
      await storage.rows(
        `INSERT INTO organizations (organization_id, tenant_id, name, registration_key, path) OVERRIDING SYSTEM VALUE
         VALUES ($1::bigint, ${tenant}, 'top', 'key ' || $1::bigint, ARRAY[$1::bigint])`,
        [i + 1],
      );
      if (value !== null)
        await storage.rows(`INSERT INTO organization_settings VALUES (${tenant}, $1, 'auditLog.days', $2)`, [
          i + 1,
          JSON.stringify(value),
        ]);
    }
    await recordMany(storage, tenant, 12);
    await asOwner(
      storage,
      `UPDATE acts SET at = at - interval '40 days' WHERE number <= ${old}`,
      chainAgain(tenant, 1),
    );
    await signHeads(storage, keys, heldFence, { actsMax: 4 });
    expect(await heads()).toEqual([4, 8, 12]);
  }
  const numbers = async () =>
    (await storage.rows<{ n: number }>('SELECT number AS n FROM acts ORDER BY number')).map(({ n }) => n);

  test.each([
    [3, []],
    [4, [1, 2, 3, 4]],
    [7, [1, 2, 3, 4]],
    [8, [1, 2, 3, 4, 5, 6, 7, 8]],
    [12, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]],
  ])('of %d old acts those up to a signed head go, and the rest is still what was written', async (old, gone) => {
    await logWith(old, 30);
    expect(await expire()).toEqual({ logs: 1, deleted: gone.length, refused: 0 });
    const left = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].filter((number) => !gone.includes(number));
    // That it was done is an act.
    expect(await numbers()).toEqual(gone.length > 0 ? [...left, 13] : left);
    expect(await verify()).toMatchObject({ expiredTo: gone.length, findings: [] });
    expect(await heads()).toEqual([4, 8, 12]);
    await recordMany(storage, tenant, 1);
    await sign();
    expect(await expire()).toMatchObject({ deleted: 0, refused: 0 });
    expect((await verify()).findings).toEqual([]);
    // What expired proves nothing for what is left.
    await asOwner(storage, `UPDATE acts SET party_name = 'eve' WHERE number = (SELECT min(number) FROM acts)`);
    expect((await verify()).findings).toMatchObject([{ kind: 'altered' }]);
  });

  test.each<[what: string, days: unknown[], deleted: number, refused: number]>([
    ['nobody has said how long', [null], 0, 0],
    ['one of several at the top keeps them longer', [30, 60], 0, 0],
    ['one of several at the top has said nothing, which is for good', [30, null], 0, 0],
    ['all of several let them go', [30, 35], 8, 0],
    ['what was said cannot be read', ['soon'], 0, 1],
    ['what was said is too short to be allowed', [29], 0, 1],
  ])('where %s', async (_, days, deleted, refused) => {
    await logWith(8, ...days);
    expect(await expire()).toEqual({ logs: 1, deleted, refused });
    expect((await verify()).findings).toEqual([]);
  });

  test('refuses a head that is not of the acts, or not ours', async () => {
    await logWith(8, 30);
    expect(await expireLogs(storage, readAuditKeys(newAuditKeyFile()), heldFence)).toMatchObject({
      deleted: 0,
      refused: 1,
    });
    await asOwner(storage, `UPDATE acts SET party_name = 'eve' WHERE number = 2`, chainAgain(tenant, 2));
    expect(await expire()).toMatchObject({ deleted: 0, refused: 1 });
    expect(await numbers()).toHaveLength(12);
  });

  test('that was stopped goes on, and verifying meanwhile finds nothing', async () => {
    await logWith(8, 30);
    const stop = new AbortController();
    const aborting = { assertHeld: async () => stop.abort() };
    await expireLogs(storage, keys, aborting, { signal: stop.signal });
    expect(await numbers()).toHaveLength(13);
    expect(await verify()).toMatchObject({ expiredTo: 8, acts: 5, findings: [] });
    await storage.rows(`SELECT delete_expired_acts(${tenant}, 3)`);
    expect((await numbers())[0]).toBe(4);
    expect(await verify()).toMatchObject({ expiredTo: 8, acts: 5, findings: [] });
    expect(await expire()).toMatchObject({ deleted: 5 });
    expect((await numbers())[0]).toBe(9);
  });
});
