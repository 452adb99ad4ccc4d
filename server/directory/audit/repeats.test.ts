import { beforeEach, describe, expect, test } from '@jest/globals';
import { storageForFile } from '../../../tests/helpers/storage.ts';
import type { By } from './act.ts';
import { act, byAda } from './heads/testing.ts';
import { recordAlone } from './record.ts';
import { repeatLimits } from './repeats.ts';
import { tellRepeats } from './tell-repeats.ts';

const storage = storageForFile();
const refused = act({ action: 'session.begin', target: null, result: 'refused', details: { why: 'password' } });
const { ofOneParty, ofAll } = repeatLimits;
let tenant = 100;

/** Counted in one minute: a test that begins at its end waits for the next. */
beforeEach(async () => {
  tenant++;
  await storage.rows(
    `SELECT pg_sleep(CASE WHEN extract(second FROM now()) > 50 THEN 60.01 - extract(second FROM now()) ELSE 0 END)::text`,
  );
  await minutesLater();
  await tellRepeats(storage.database); // of the test before
}, 20_000);

const nobody = (address: string, name = 'typed'): By => ({ tenant, party: { kind: 'user', id: null, name }, address });
async function times(count: number, by: (i: number) => By, about = refused): Promise<number> {
  let written = 0;
  for (let i = 0; i < count; i++) if (await recordAlone(storage.database, by(i), about)) written++;
  return written;
}
const acts = () =>
  storage.rows<Record<string, unknown>>(
    `SELECT action, party_kind AS kind, party_id AS id, party_name AS name, address, result, (details->>'notWritten')::int AS more
       FROM acts WHERE tenant_id = ${tenant} ORDER BY number`,
  );
/** As if these minutes were over. */
const minutesLater = () => storage.rows(`UPDATE act_repeats SET minute = minute - interval '5 minutes'`);

describe('refused acts', () => {
  test('of one party and minute are written up to ten, and counted from then on', async () => {
    expect(await times(ofOneParty, () => byAda(tenant))).toBe(10);
    expect(await times(1, () => byAda(tenant))).toBe(0);
    expect(await times(40, () => byAda(tenant))).toBe(0);
    expect(await acts()).toHaveLength(10);
    // Neither another party, nor another action, nor another tenant has to do with it.
    expect(await times(1, () => ({ ...byAda(tenant), party: { kind: 'user', id: 8, name: 'bob' } }))).toBe(1);
    expect(await times(1, () => byAda(tenant), { ...refused, action: 'restore.begin' })).toBe(1);
    expect(await times(1, () => byAda(90))).toBe(1);
  });

  test('of one reason do not hide the first of another, and the sum says which it is of', async () => {
    expect(await times(ofOneParty + 3, () => byAda(tenant))).toBe(ofOneParty);
    const code = { ...refused, details: { why: 'wrong code' } };
    expect(await times(ofOneParty, () => byAda(tenant), code)).toBe(ofOneParty);
    expect(await times(2, () => byAda(tenant), code)).toBe(0);
    expect(await times(ofAll + 1, (i) => nobody(`10.3.${i >> 8}.${i & 255}`))).toBe(ofAll - ofOneParty);
    expect(await times(1, () => nobody('10.4.0.1'), code)).toBe(1);
    await minutesLater();
    await tellRepeats(storage.database);
    const told = await storage.rows<{ why: string; more: number }>(
      `SELECT details->>'why' AS why, (details->>'notWritten')::int AS more
         FROM acts WHERE tenant_id = ${tenant} AND details->>'notWritten' IS NOT NULL ORDER BY 1, 2`,
    );
    expect(told).toEqual([
      { why: 'password', more: 3 },
      { why: 'password', more: 11 },
      { why: 'wrong code', more: 2 },
    ]);
  }, 30_000);

  test('that were counted are told in one act when their minute is over, once', async () => {
    await times(15, () => byAda(tenant));
    expect(await tellRepeats(storage.database)).toBe(0);
    await minutesLater();
    const told = await Promise.all([tellRepeats(storage.database), tellRepeats(storage.database)]);
    expect(told[0]! + told[1]!).toBe(1);
    const all = await acts();
    expect(all).toHaveLength(11);
    const about = { action: 'session.begin', kind: 'user', id: '7', name: 'ada@example.org', address: '192.0.2.7' };
    expect(all.at(-1)).toEqual({ ...about, result: 'refused', more: 5 });
    expect(await tellRepeats(storage.database)).toBe(0);
    expect(await storage.rows('SELECT 1 FROM act_repeats')).toEqual([]);
    expect(await times(1, () => byAda(tenant))).toBe(1);
  });

  test('that nobody can be named for count by address, whatever name is typed', async () => {
    expect(await times(15, (i) => nobody('192.0.2.1', `typed ${i}`))).toBe(10);
    expect(await times(2, () => nobody('192.0.2.2'))).toBe(2);
    expect(await times(2, () => ({ ...nobody(''), address: null }))).toBe(2);
  });

  test('of ever new parties are written up to three hundred, and take no more rows than that', async () => {
    expect(await times(ofAll + 25, (i) => nobody(`10.1.${i >> 8}.${i & 255}`))).toBe(ofAll);
    const rows = await storage.rows(`SELECT 1 FROM act_repeats WHERE tenant_id = ${tenant}`);
    expect(rows).toHaveLength(ofAll + 1);
    await minutesLater();
    await tellRepeats(storage.database);
    expect((await acts()).at(-1)).toMatchObject({ kind: 'server', name: 'several', more: 25 });
    expect(await acts()).toHaveLength(ofAll + 1);
  });

  test('of many at a time are counted to the last one', async () => {
    const written = await Promise.all(
      Array.from({ length: 8 }, (_, who) => times(20, (i) => (i % 2 ? byAda(tenant) : nobody(`10.2.0.${who}`)))),
    );
    expect(written.reduce((sum, each) => sum + each, 0)).toBe(10 + 8 * 10);
    await minutesLater();
    await tellRepeats(storage.database);
    const told = (await acts()).reduce((sum, { more }) => sum + Number(more ?? 0), 0);
    expect(told).toBe(70);
  });
});
