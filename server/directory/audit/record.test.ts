import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { storageForFile } from '../../../tests/helpers/storage.ts';
import type { Act, By, JsonValue } from './act.ts';
import { actBytes, actHash, noHash, type StoredAct } from './act-bytes.ts';
import { detailsText } from './clean.ts';
import { actsAfter, readLogHead } from './heads/log-rows.ts';
import { act, byAda, recordMany } from './heads/testing.ts';
import { record } from './record.ts';

const clients: pg.Client[] = [];
afterAll(() => Promise.all(clients.map((client) => client.end()))); // before the database is dropped
const storage = storageForFile();
let tenants = 100;

beforeAll(async () => {
  for (let i = 0; i < 8; i++) clients.push(new pg.Client({ connectionString: storage.connectionString }));
  await Promise.all(clients.map((client) => client.connect()));
});

async function logOf(tenant: number) {
  return Array.fromAsync(actsAfter(storage.database, { tenant, after: 0 }));
}

/** Fails unless the log is numbered from 1 without gaps, each act follows from the one before, and the head is the last. */
async function expectWhole(tenant: number): Promise<number> {
  const acts = await logOf(tenant);
  let previous = noHash as Buffer;
  for (const [i, each] of acts.entries()) {
    expect(each.number).toBe(String(i + 1));
    expect(each.hash.toString('hex')).toBe(actHash(previous, each).toString('hex'));
    previous = each.hash;
  }
  expect(await readLogHead(storage.database, tenant)).toMatchObject({ number: acts.length, hash: previous });
  return acts.length;
}

describe('the bytes of an act', () => {
  const vector: StoredAct = {
    tenant: '3',
    number: '42',
    at: '1767323045000006',
    organization: null,
    partyKind: 'user',
    partyId: '7',
    partyName: 'ada',
    address: '192.0.2.7',
    action: 'user.create',
    targetKind: 'user',
    targetId: '9',
    targetName: '',
    result: 'done',
    details: '{"a":1}',
  };
  const hex =
    '0000000e686f6c6466617374206163742031' + // holdfast act 1
    '0000000133' + // 3
    '000000023432' + // 42
    '0000001031373637333233303435303030303036' + // 1767323045000006
    'ffffffff' + // no organization
    '0000000475736572' + // user
    '0000000137' + // 7
    '00000003616461' + // ada
    '000000093139322e302e322e37' + // 192.0.2.7
    '0000000b757365722e637265617465' + // user.create
    '0000000475736572' + // user
    '0000000139' + // 9
    '00000000' + // a name that is empty
    '00000004646f6e65' + // done
    '000000077b2261223a317d'; // {"a":1}
  const hash = '7f8e4cee439dbc173c9fc4cd422666e760c57adcefab8fee36b74bda106d1c4e';

  test('are those of the test vector', () => {
    expect(actBytes(vector).toString('hex')).toBe(hex);
    expect(actHash(noHash, vector).toString('hex')).toBe(hash);
  });

  test('are the same in the database', async () => {
    const [row] = await storage.rows<{ bytes: string; hash: string }>(
      `SELECT encode(act_bytes(a), 'hex') AS bytes, encode(sha256(decode(repeat('00', 32), 'hex') || act_bytes(a)), 'hex') AS hash
         FROM (SELECT ROW(3, 42, '2026-01-02T03:04:05.000006Z', NULL, 'user', '7', 'ada', '192.0.2.7', 'user.create', 'user', '9', '', 'done',
                          '{"a":1}', '')::acts AS a) x`,
    );
    expect(row).toEqual({ bytes: hex, hash });
  });
});

describe('record', () => {
  const odd: [string, Partial<By['party']>, Partial<Act>][] = [
    ['nothing but what has to be there', { kind: 'server', id: null, name: '' }, { target: null, details: {} }],
    ['a GUID past 2^53', { kind: 'device', id: '9223372036854775807', name: 'laptop' }, {}],
    [
      'letters of every kind',
      { name: 'Zoë 🦋 שלום e\u0301' },
      { target: { kind: 'user', id: 1, name: '\u202etxt.exe' } },
    ],
    [
      'NUL and half a character',
      { name: 'a\0b\ud800c' },
      { details: { 'k\0': 'v\0\udfff', path: 'C:\\u0000\\ud800' } },
    ],
    [
      'numbers and order as JSON has them',
      {},
      { details: { b: 1e21, a: -0, c: 0.1, d: [1.0, null, { z: 1, y: '"\\' }] } },
    ],
    [
      'names that are too long',
      { name: 'x'.repeat(5_000) },
      { target: { kind: 'route', id: 'y'.repeat(5_000), name: null } },
    ],
    ['details that are too long', {}, { details: { small: 1, large: 'z'.repeat(20_000) } }],
  ];

  test.each(odd)('writes %s, and what is read back has the hash that was written', async (_, party, more) => {
    const tenant = ++tenants;
    const by = byAda(tenant);
    await storage.database.transaction((tx) => record(tx, { ...by, party: { ...by.party, ...party } }, act(more)));
    await storage.database.transaction((tx) => record(tx, by, act()));
    expect(await expectWhole(tenant)).toBe(2);
  });

  test('keeps what was told, with the time of the transaction to the microsecond', async () => {
    const tenant = ++tenants;
    const now = await storage.database.transaction(async (tx) => {
      await record(tx, byAda(tenant), act({ organization: 5, result: 'refused', details: { b: 2, a: 'é' } }));
      const [row] = await tx.query<{ now: string }>({
        name: '',
        text: `SELECT ((extract(epoch FROM now()) * 1000000)::bigint)::text AS now`,
      });
      return row!.now;
    });
    expect(now).toHaveLength(16);
    const [only] = await logOf(tenant);
    expect(only).toMatchObject({ at: now, organization: '5', result: 'refused', details: '{"b":2,"a":"é"}' });
    expect(only).toMatchObject({ partyKind: 'user', partyId: '7', partyName: 'ada@example.org', address: '192.0.2.7' });
    expect(only).toMatchObject({ targetKind: 'user', targetId: '9', targetName: 'grace', action: 'user.create' });
  });

  test('writes what is no tenant’s into a log of its own', async () => {
    const before = (await readLogHead(storage.database, 0))?.number ?? 0;
    await recordMany(storage, null, 2);
    expect((await readLogHead(storage.database, 0))!.number).toBe(before + 2);
    await expectWhole(0);
  });

  test('is undone with what it tells, and leaves no gap', async () => {
    const tenant = ++tenants;
    await recordMany(storage, tenant, 1);
    const undone = storage.database.transaction(async (tx) => {
      await record(tx, byAda(tenant), act());
      await record(tx, byAda(tenant), act());
      throw new Error('undone');
    });
    await expect(undone).rejects.toThrow('undone');
    await recordMany(storage, tenant, 1);
    expect(await expectWhole(tenant)).toBe(2);
  });
});

describe('details', () => {
  test.each<[string, JsonValue]>([
    ['{"a":"\\\\u0000"}', { a: '\\u0000' }],
    ['{"a":"\\ufffd"}', { a: '\0' }],
    ['{"a":"\\ufffd\\\\ud800"}', { a: '\udbff\\ud800' }],
    ['{"a":"🦋"}', { a: '🦋' }],
  ])('are written as %s', (text, details) => {
    expect(detailsText(details as Act['details'])).toBe(text);
  });

  test('of 16 KiB stay whole, and one byte more is shortened to what is small', () => {
    const filled = (bytes: number) => ({ who: 'ada', why: 'x'.repeat(bytes - '{"who":"ada","why":""}'.length) });
    expect(detailsText(filled(16_384))).toHaveLength(16_384);
    expect(JSON.parse(detailsText(filled(16_385)))).toEqual({ who: 'ada', why: { bytes: 16_365, leftOut: true } });
    const wide = Object.fromEntries(Array.from({ length: 2_000 }, (_, i) => [`name ${i}`, 'value']));
    expect(JSON.parse(detailsText(wide))).toEqual({ bytes: JSON.stringify(wide).length, leftOut: true });
  });
});

describe('eight transactions at a time on one log', () => {
  const insert = `INSERT INTO acts (tenant_id, party_kind, party_name, action, result, details) VALUES ($1, 'server', $2, 'log.test', 'done', '{}')`;

  /** @returns acts that were committed; some transactions write two, every third is rolled back, most rest in between */
  async function race(tenant: number, rounds: number): Promise<number> {
    const ended = await Promise.allSettled(
      clients.map(async (client, who) => {
        let own = 0;
        for (let round = 0; round < rounds; round++) {
          await client.query('BEGIN');
          const acts = 1 + ((who + round) % 2);
          for (let i = 0; i < acts; i++) await client.query(insert, [tenant, `${who}.${round}.${i}`]);
          await client.query('SELECT pg_sleep(random() * 0.002)');
          const kept = (who + round) % 3 !== 0;
          await client.query(kept ? 'COMMIT' : 'ROLLBACK');
          if (kept) own += acts;
        }
        return own;
      }),
    );
    return ended.reduce((sum, each) => {
      if (each.status === 'rejected') throw each.reason;
      return sum + each.value;
    }, 0);
  }

  test('give numbers without gaps and an unbroken chain, rollbacks included', async () => {
    const tenant = ++tenants;
    const written = await race(tenant, 30);
    expect(written).toBeGreaterThan(100);
    expect(await expectWhole(tenant)).toBe(written);
  });

  test('would not without the lock: two of them take one number', async () => {
    const client = clients[0]!;
    const body = (await client.query(`SELECT pg_get_functiondef('chain_act'::regproc) AS body`)).rows[0].body as string;
    const without = body.replace('WHERE tenant_id = NEW.tenant_id FOR UPDATE', 'WHERE tenant_id = NEW.tenant_id');
    expect(without).not.toBe(body);
    await client.query(without);
    try {
      await expect(race(++tenants, 30)).rejects.toThrow(/acts_pkey|only goes forward/);
    } finally {
      await Promise.all(clients.map((each) => each.query('ROLLBACK').catch(() => {})));
      await client.query(body);
    }
  });
});
