/** Every way to change a log that its rows, or the bucket, could be changed in; and that an untouched one passes. */
import { beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { storageForFile } from '../../../../tests/helpers/storage.ts';
import { newAuditKeyFile, readAuditKeys } from './audit-key.ts';
import type { FindingKind } from './findings.ts';
import { signHeads } from './sign-heads.ts';
import { type Head, keyOf, putSigned, readDocument, signed } from './signed.ts';
import { asOwner, chainAgain, heldFence, recordMany } from './testing.ts';
import { verifyLog, verifyLogs } from './verify-log.ts';

const storage = storageForFile();
const keys = readAuditKeys(newAuditKeyFile());
const neighbour = 1;
/** Of the test; each has a log of its own. */
let tenant = 100;

const headKey = (number: number): string => keyOf({ kind: 'head', catalog: storage.catalogId, tenant, number });
const sign = (actsMax?: number) => signHeads(storage, keys, heldFence, actsMax === undefined ? {} : { actsMax });
const verify = () => verifyLog(storage, keys, tenant);
const put = (key: string, text: string): Promise<void> => {
  const bytes = Buffer.from(text);
  return storage.objects.put(key, { length: bytes.byteLength, chunks: [bytes] });
};

beforeAll(async () => {
  await recordMany(storage, neighbour, 2);
  await sign();
});

/** Twelve acts, of which heads are signed at the sixth and the tenth. */
beforeEach(async () => {
  tenant++;
  await recordMany(storage, tenant, 6);
  await sign();
  await recordMany(storage, tenant, 4);
  await sign();
  await recordMany(storage, tenant, 2);
});

/** @param statements TENANT in them is that of the test */
const owner = (...statements: string[]): Promise<void> =>
  asOwner(storage, ...statements.map((each) => each.replaceAll('TENANT', String(tenant))));

/** What is wrong, as `kind from-to`. */
async function findings(): Promise<string[]> {
  expect((await verifyLog(storage, keys, neighbour)).findings).toEqual([]); // whatever happens to this one
  return (await verify()).findings.map(({ kind, from, to }) => `${kind} ${from}-${to ?? ''}`);
}

describe('an untouched log', () => {
  test('passes, and says how far it is signed', async () => {
    expect(await verify()).toEqual({
      ...{ tenant, acts: 12, first: 1, last: 12, heads: 2, signedTo: 10, expiredTo: 0, resumptions: [] },
      ...{ findings: [], moreFindings: 0 },
    });
    const all = await Array.fromAsync(verifyLogs(storage, keys));
    expect(all.map((report) => [report.tenant, report.acts])).toEqual([
      [neighbour, 2],
      [tenant, 12],
    ]);
  });

  test('passes while it grows and is signed', async () => {
    let over = false;
    const growing = (async () => {
      for (let i = 0; i < 40; i++) {
        await recordMany(storage, tenant, 3);
        await sign();
      }
      over = true;
    })();
    let looked = 0;
    for (; !over; looked++) expect((await verify()).findings).toEqual([]);
    await growing;
    expect(looked).toBeGreaterThan(3);
    expect(await verify()).toMatchObject({ acts: 132, signedTo: 132, heads: 42, findings: [] });
  });

  test('is read page by page, and so are its heads', async () => {
    await storage.rows(`INSERT INTO acts (tenant_id, party_kind, party_name, action, result, details)
                        SELECT ${tenant}, 'server', 'n ' || n, 'log.test', 'done', '{}' FROM generate_series(1, 1500) n`);
    await sign(20);
    expect(await verify()).toMatchObject({ acts: 1_512, heads: 78, signedTo: 1_512, findings: [] });
    await owner(`UPDATE acts SET party_name = 'eve' WHERE tenant_id = ${tenant} AND number = 1400`);
    expect(await findings()).toEqual(['altered 1400-1400']);
  });

  test('of which nothing was ever written passes', async () => {
    expect(await verifyLog(storage, keys, 99)).toMatchObject({ acts: 0, first: null, findings: [] });
  });
});

const of = 'tenant_id = TENANT';
const rehashed = (number: number): string =>
  `UPDATE acts a SET hash = sha256((SELECT hash FROM acts b WHERE b.tenant_id = a.tenant_id AND b.number = a.number - 1) || act_bytes(a)) WHERE ${of} AND number = ${number}`;

describe('rows that were changed by the owner of the database are found', () => {
  test.each<[what: string, found: string[], ...sql: string[]]>([
    ['a name', ['altered 4-4'], `UPDATE acts SET party_name = 'eve' WHERE ${of} AND number = 4`],
    [
      'a time, by a microsecond',
      ['altered 4-4'],
      `UPDATE acts SET at = at + interval '1 microsecond' WHERE ${of} AND number = 4`,
    ],
    [
      'details, by a space',
      ['altered 4-4'],
      `UPDATE acts SET details = (details::text || ' ')::json WHERE ${of} AND number = 4`,
    ],
    ['null for nothing', ['altered 4-4'], `UPDATE acts SET target_name = NULL WHERE ${of} AND number = 4`],
    [
      'an act that no head covers yet',
      ['altered 12-12'],
      `UPDATE acts SET result = 'refused' WHERE ${of} AND number = 12`,
    ],
    [
      'an act and its own hash',
      ['altered 5-5'],
      `UPDATE acts SET party_name = 'eve' WHERE ${of} AND number = 4`,
      rehashed(4),
    ],
    [
      'an act and all hashes after it',
      ['rewritten 1-6'],
      `UPDATE acts SET party_name = 'eve' WHERE ${of} AND number = 4`,
      chainAgain('TENANT', 4),
    ],
    [
      'the same after a signed head',
      ['rewritten 7-10'],
      `UPDATE acts SET party_name = 'eve' WHERE ${of} AND number = 8`,
      chainAgain('TENANT', 8),
    ],
    ['one that is gone', ['missing 5-5'], `DELETE FROM acts WHERE ${of} AND number = 5`],
    ['several that are gone', ['missing 5-8'], `DELETE FROM acts WHERE ${of} AND number BETWEEN 5 AND 8`],
    [
      'one that is gone, with the gap closed',
      ['rewritten 1-6'],
      `DELETE FROM acts WHERE ${of} AND number = 5`,
      `UPDATE acts SET number = number - 1000 WHERE ${of} AND number > 5`,
      `UPDATE acts SET number = number + 999 WHERE ${of} AND number < 0`,
      chainAgain('TENANT', 5),
    ],
    [
      'two that changed places',
      ['altered 2-2', 'altered 3-3', 'altered 4-4'],
      `UPDATE acts SET number = CASE number WHEN 2 THEN -3 ELSE -2 END WHERE ${of} AND number IN (2, 3)`,
      `UPDATE acts SET number = -number WHERE ${of} AND number < 0`,
    ],
    [
      'two that changed places, with all hashes',
      ['rewritten 1-6'],
      `UPDATE acts SET number = CASE number WHEN 2 THEN -3 ELSE -2 END WHERE ${of} AND number IN (2, 3)`,
      `UPDATE acts SET number = -number WHERE ${of} AND number < 0`,
      chainAgain('TENANT', 2),
    ],
    ['the last, which no head covers', ['truncated 11-12'], `DELETE FROM acts WHERE ${of} AND number > 10`],
    ['the last that are signed', ['truncated 9-12'], `DELETE FROM acts WHERE ${of} AND number > 8`],
    [
      'the same with the log’s end set back',
      ['truncated 9-10'],
      `DELETE FROM acts WHERE ${of} AND number > 8`,
      chainAgain('TENANT', 8),
    ],
    ['all', ['truncated 1-12'], `DELETE FROM acts WHERE ${of}`],
    [
      'all, and the log’s end',
      ['truncated 1-10', 'log_head 0-'],
      `DELETE FROM acts WHERE ${of}`,
      `DELETE FROM act_heads WHERE ${of}`,
    ],
    [
      'the first, as if they had expired',
      ['missing 1-6'],
      `DELETE FROM acts WHERE ${of} AND number <= 6`,
      `UPDATE act_heads SET expired_to = 6 WHERE ${of}`,
    ],
    ['the log’s end', ['log_head 12-12'], `UPDATE act_heads SET hash = sha256('x') WHERE ${of}`],
    [
      'the log’s end, set back',
      ['log_head 12-'],
      `UPDATE act_heads SET number = 11, hash = (SELECT hash FROM acts WHERE ${of} AND number = 11) WHERE ${of}`,
    ],
    ['the log’s end, removed', ['log_head 12-'], `DELETE FROM act_heads WHERE ${of}`],
    [
      'one that was added',
      ['altered 13-13', 'log_head 13-'],
      `INSERT INTO acts (tenant_id, number, party_kind, party_name, action, result, details, hash)
       VALUES (TENANT, 13, 'user', 'eve', 'user.create', 'done', '{}', sha256('x'))`,
    ],
    [
      'what the catalog remembers of the newest head',
      ['head_forged 10-'],
      `UPDATE act_heads SET signed_document = '{"signed":"{}"}' WHERE ${of}`,
    ],
  ])('%s', async (_, found, ...statements) => {
    expect(await findings()).toEqual([]);
    await owner(...statements);
    expect(await findings()).toEqual(found);
  });

  test('also many, of which so many are told as are asked for', async () => {
    await owner(`UPDATE acts SET party_name = 'eve' WHERE ${of}`);
    const report = await verifyLog(storage, keys, tenant, { findingsMax: 5 });
    expect(report.findings.map(({ from }) => from)).toEqual([1, 2, 3, 4, 5]);
    expect(report.moreFindings).toBe(7);
  });
});

describe('heads that were changed in the bucket are found', () => {
  const changes: [what: string, found: [FindingKind, number][], change: () => Promise<unknown>][] = [
    ['one that is gone', [['head_missing', 6]], () => storage.objects.delete(headKey(6))],
    ['the newest that is gone', [['head_missing', 10]], () => storage.objects.delete(headKey(10))],
    [
      'all that are gone',
      [['head_missing', 10]],
      async () => {
        await storage.objects.delete(headKey(6));
        await storage.objects.delete(headKey(10));
      },
    ],
    [
      'one of another key',
      [
        ['head_forged', 10],
        ['head_missing', 10],
      ],
      () => {
        const content = { kind: 'head', format: 1, catalog: storage.catalogId, tenant, number: 10, at: '0' } as const;
        const eve = readAuditKeys(newAuditKeyFile());
        return putSigned(storage, signed<Head>(eve, { ...content, hash: '0'.repeat(64), previous: null }));
      },
    ],
    [
      'one that was altered',
      [
        ['head_forged', 6],
        ['head_missing', 6],
      ],
      async () => put(headKey(6), (await readDocument(storage.objects, headKey(6)))!.replace('number', 'Number')),
    ],
    [
      'one under another’s name',
      [['head_forged', 8]],
      async () => put(headKey(8), (await readDocument(storage.objects, headKey(6)))!),
    ],
    ['what is no head at all', [['head_forged', 7]], () => put(headKey(7), 'x'.repeat(100_000))],
    [
      'another tenant’s',
      [['head_forged', 2]],
      async () => {
        const theirs = keyOf({ kind: 'head', catalog: storage.catalogId, tenant: neighbour, number: 2 });
        await put(headKey(2), (await readDocument(storage.objects, theirs))!);
      },
    ],
    [
      'an expiry that nobody signed',
      [['head_forged', 6]],
      () => put(keyOf({ kind: 'expiry', catalog: storage.catalogId, tenant, number: 6 }), '{}'),
    ],
  ];

  test.each(changes)('%s', async (_, found, change) => {
    await change();
    const report = await verify();
    expect(report.findings.map(({ kind, from }) => [kind, from])).toEqual(found);
  });

  test('and removing them does not hide what was done to the rows', async () => {
    await storage.objects.delete(headKey(10));
    await owner(`DELETE FROM acts WHERE ${of} AND number > 4`, chainAgain('TENANT', 4));
    expect(await findings()).toEqual(['truncated 5-6', 'head_missing 10-10']);
  });

  test('a key that is not in the key file proves nothing', async () => {
    const others = readAuditKeys(newAuditKeyFile());
    const report = await verifyLog(storage, others, tenant);
    expect(report.findings.map(({ kind, from }) => [kind, from])).toEqual([
      ['head_forged', 6],
      ['head_forged', 10],
      ['head_forged', 10],
    ]);
  });
});

test('acts that stay unsigned are found', async () => {
  const soon = await verifyLog(storage, keys, tenant, { unsignedMsMax: -1_000 });
  expect(soon.findings).toEqual([expect.objectContaining({ kind: 'unsigned', from: 11 })]);
  await sign();
  expect((await verifyLog(storage, keys, tenant, { unsignedMsMax: -1_000 })).findings).toEqual([]);
});
