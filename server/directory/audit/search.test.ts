import { beforeAll, describe, expect, test } from '@jest/globals';
import { storageForFile } from '../../../tests/helpers/storage.ts';
import type { Act, By } from './act.ts';
import { cefLine, csvText, exportActs } from './export.ts';
import { record } from './record.ts';
import { type ActFilter, type ActReach, searchActs, searchStatements } from './search.ts';

const storage = storageForFile();
const all: ActReach = { all: true };
const tenant = 1;
const partyOf = {
  ada: { kind: 'user', id: 7, name: 'Ada' },
  bob: { kind: 'user', id: 8, name: 'Bob' },
  client: { kind: 'client', id: 7, name: 'reporting' },
  laptop: { kind: 'device', id: '9223372036854775807', name: 'laptop' },
  server: { kind: 'server', id: null, name: 'Holdfast' },
} as const;

/** Organizations 1 > 2 > 3, and 4 beside 2. What was done, in order: who, what, where, to whom, and how it ended. */
const story: [keyof typeof partyOf, string, number | null, Act['target'], Act['result']?, string?][] = [
  ['ada', 'user.create', 2, { kind: 'user', id: 8, name: 'Bob' }],
  ['bob', 'session.begin', 2, null, 'done', '192.0.2.8'],
  ['bob', 'user.update', 3, { kind: 'user', id: 9, name: 'Grace' }, 'refused', '192.0.2.8'],
  ['client', 'user.update', 3, { kind: 'user', id: 9, name: 'GRACE' }],
  ['laptop', 'restore.begin', 4, { kind: 'archive', id: 12, name: null }],
  ['server', 'log.expire', null, { kind: 'log', id: 1, name: null }],
  ['ada', 'user_role.grant', 1, { kind: 'user', id: 7, name: 'Ada' }, 'failed', '2001:db8::7'],
];

beforeAll(async () => {
  await storage.rows(`INSERT INTO tenants (name) VALUES ('T')`);
  await storage.rows(`INSERT INTO organizations (organization_id, tenant_id, parent_id, name, registration_key, path) OVERRIDING SYSTEM VALUE
    VALUES (1, 1, NULL, 'top', 'k1', '{1}'), (2, 1, 1, 'a', 'k2', '{1,2}'), (3, 1, 2, 'b', 'k3', '{1,2,3}'), (4, 1, 1, 'c', 'k4', '{1,4}')`);
  for (const [who, action, organization, target, result = 'done', address = '192.0.2.1'] of story) {
    const by: By = { tenant, party: partyOf[who], address };
    await storage.database.transaction((tx) =>
      record(tx, by, { action, organization, target, result, details: { why: '=1+1' } }),
    );
  }
  const elsewhere: By = { tenant: 2, party: partyOf.ada, address: '192.0.2.1' };
  const same: Act = { action: 'user.create', organization: 2, target: null, result: 'done', details: {} };
  await storage.database.transaction((tx) => record(tx, elsewhere, same));
});

const numbers = async (filter: ActFilter, reach: ActReach = all): Promise<number[]> => {
  const page = await searchActs(storage.database, tenant, filter, { reach, cursor: null, limit: 1_000 });
  expect(page.next).toBeNull();
  return page.items.map(({ number }) => number);
};

describe('searching', () => {
  test.each<[ActFilter, number[], ActReach]>([
    [{}, [7, 6, 5, 4, 3, 2, 1], all],
    [{ partyKind: 'user' }, [7, 3, 2, 1], all],
    [{ partyKind: 'user', partyId: '7' }, [7, 1], all],
    [{ partyKind: 'device', partyId: '9223372036854775807' }, [5], all],
    [{ targetKind: 'user' }, [7, 4, 3, 1], all],
    [{ targetKind: 'user', targetId: '9' }, [4, 3], all],
    [{ targetKind: 'user', targetId: '9', partyKind: 'client', partyId: '7' }, [4], all],
    [{ action: 'user.' }, [4, 3, 1], all],
    [{ action: 'user' }, [7, 4, 3, 1], all],
    [{ action: 'user.update' }, [4, 3], all],
    [{ action: 'user.update', result: 'refused' }, [3], all],
    [{ action: '%' }, [], all],
    [{ action: '' }, [7, 6, 5, 4, 3, 2, 1], all],
    [{ result: 'done' }, [6, 5, 4, 2, 1], all],
    [{ result: 'refused' }, [3], all],
    [{ result: 'failed' }, [7], all],
    [{ address: '192.0.2.8' }, [3, 2], all],
    [{ address: '2001:db8::7' }, [7], all],
    [{ text: 'grace' }, [4, 3], all],
    [{ text: 'BO' }, [3, 2, 1], all],
    [{ text: '%' }, [], all],
    [{ organization: 2 }, [4, 3, 2, 1], all],
    [{ organization: 3 }, [4, 3], all],
    [{ organization: 1 }, [7, 5, 4, 3, 2, 1], all],
    [{ organization: 99 }, [], all],
    [{ organization: 2, action: 'session.' }, [2], all],
    [{}, [4, 3, 2, 1], { path: 2 }],
    [{ organization: 1 }, [4, 3, 2, 1], { path: 2 }],
    [{ organization: 4 }, [], { path: 2 }],
    [{ partyKind: 'user', partyId: '7' }, [1], { path: 2 }],
    [{}, [3, 2, 1], { user: 8 }],
    [{ action: 'user.' }, [3, 1], { user: 8 }],
    [{}, [7, 1], { user: 7 }],
    [{ targetKind: 'user', targetId: '9' }, [], { user: 7 }],
  ])('for %j finds %j, as far as %j', async (filter, found, reach) => {
    expect(await numbers(filter, reach)).toEqual(found);
  });

  test('from a moment on includes it, and up to one does not', async () => {
    const { items } = await searchActs(storage.database, tenant, {}, { reach: all, cursor: null, limit: 10 });
    const third = items.find(({ number }) => number === 3)!.at;
    expect(third).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    expect(await numbers({ from: third })).toEqual([7, 6, 5, 4, 3]);
    expect(await numbers({ to: third })).toEqual([2, 1]);
    expect(await numbers({ from: third, to: third })).toEqual([]);
    expect(await numbers({ to: third, partyKind: 'user', partyId: '8' })).toEqual([2]);
  });

  test('shows what was written', async () => {
    const page = await searchActs(
      storage.database,
      tenant,
      { result: 'refused' },
      { reach: all, cursor: null, limit: 1 },
    );
    expect(page.items).toEqual([
      {
        number: 3,
        at: expect.any(String),
        party: { kind: 'user', id: 8, name: 'Bob' },
        address: '192.0.2.8',
        action: 'user.update',
        target: { kind: 'user', id: 9, name: 'Grace' },
        organization: 3,
        result: 'refused',
        details: { why: '=1+1' },
        hash: expect.stringMatching(/^[0-9a-f]{64}$/),
      },
    ]);
    const [device] = (
      await searchActs(storage.database, tenant, { partyKind: 'device' }, { reach: all, cursor: null, limit: 1 })
    ).items;
    expect(device!.party.id).toBe('9223372036854775807');
  });

  test.each<[ActFilter, ActReach]>([
    [{}, all],
    [{ action: 'user' }, all],
    [{ organization: 1 }, all],
    [{}, { user: 8 }],
    [{ targetKind: 'user', targetId: '9' }, all],
  ])('pages of %j hold each act once, also of one moment and while others come', async (filter, reach) => {
    const whole = await numbers(filter, reach);
    for (const limit of [1, 2, 3]) {
      const found: number[] = [];
      for (let cursor: string | null = null; ; ) {
        const page = await searchActs(storage.database, tenant, filter, { reach, cursor, limit });
        expect(page.items.length).toBeLessThanOrEqual(limit);
        found.push(...page.items.map(({ number }) => number));
        cursor = page.next;
        if (cursor === null) break;
      }
      expect(found).toEqual(whole);
    }
  });

  test('of acts of one transaction, which have one time, goes by number', async () => {
    const by: By = { tenant: 5, party: partyOf.server, address: null };
    await storage.database.transaction(async (tx) => {
      for (let i = 0; i < 5; i++)
        await record(tx, by, { action: 'a.b', organization: null, target: null, result: 'done', details: { i } });
    });
    const found = [];
    for (let cursor: string | null = null; ; ) {
      const page = await searchActs(storage.database, 5, {}, { reach: all, cursor, limit: 2 });
      found.push(...page.items.map(({ number }) => number));
      if (page.next === null) break;
      cursor = page.next;
    }
    expect(found).toEqual([5, 4, 3, 2, 1]);
  });

  test.each<[ActFilter, number, string | null, string]>([
    [{}, 0, null, 'limit'],
    [{}, 1_001, null, 'limit'],
    [{}, 1.5, null, 'limit'],
    [{ partyId: '7' }, 1, null, 'partyKind'],
    [{ targetId: '7' }, 1, null, 'targetKind'],
    [{ from: 'yesterday' }, 1, null, 'from'],
    [{ to: '2026-02-30T00:00:00Z' }, 1, null, 'to'],
    [{ text: 'x'.repeat(513) }, 1, null, 'text'],
    [{ text: 'a\0b' }, 1, null, 'text'],
    [{ action: 'a\0b' }, 1, null, 'action'],
    [{}, 1, 'nonsense', 'cursor'],
    [{}, 1, Buffer.from('{"at":"x","number":1}').toString('base64url'), 'cursor'],
    [{}, 1, Buffer.from('{"at":"2026-01-02T03:04:05.000006Z","number":1e300}').toString('base64url'), 'cursor'],
  ])('refuses %j, limit %d, cursor %j, naming %s', async (filter, limit, cursor, field) => {
    const asked = searchActs(storage.database, tenant, filter, { reach: all, cursor, limit });
    await expect(asked).rejects.toMatchObject({ extras: { field } });
  });

  test('takes what is at its edge', async () => {
    expect(await numbers({ text: 'x'.repeat(512) })).toEqual([]);
    expect(await numbers({ from: '2000-01-02T03:04:05+01:00' })).toHaveLength(7);
  });
});

/** With a million acts the wrong index is seconds: each statement has to find its acts by its own, in the order of time. */
describe('every way of asking has its index', () => {
  beforeAll(async () => {
    await storage.rows(`INSERT INTO acts (tenant_id, organization_id, party_kind, party_id, party_name, address, action, target_kind, target_id, result, details)
      SELECT 6, 1 + n % 4, 'user', (n % 50)::text, 'x', '10.0.0.' || n % 100, 'a.b' || n % 20, 'user', (n % 60)::text, 'done', '{}' FROM generate_series(1, 3000) n`);
    await storage.rows('ANALYZE acts');
  });

  interface Plan {
    'Node Type': string;
    'Index Name'?: string;
    'Relation Name'?: string;
    Plans?: Plan[];
  }
  const nodes = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(nodes)];

  test.each<[keyof typeof searchStatements, string[]]>([
    ['byTime', ['acts_by_time']],
    ['byParty', ['acts_by_party']],
    ['byTarget', ['acts_by_target']],
    ['byAddress', ['acts_by_address']],
    ['refused', ['acts_not_done']],
    ['byAction', ['acts_by_action']],
    ['byOrganization', ['acts_by_organization']],
    ['byUser', ['acts_by_party', 'acts_by_target']],
  ])('%s: %j', async (name, indexes) => {
    const { text } = searchStatements[name];
    const [row] = await storage.rows<{ 'QUERY PLAN': [{ Plan: Plan }] }>(`EXPLAIN (GENERIC_PLAN, FORMAT JSON) ${text}`);
    const onActs = nodes(row!['QUERY PLAN'][0].Plan).filter((node) => node['Relation Name'] === 'acts');
    expect(onActs.length).toBeGreaterThan(0);
    expect([...new Set(onActs.map((node) => node['Index Name'] ?? node['Node Type']))].toSorted()).toEqual(indexes);
  });
});

describe('exporting', () => {
  const exported = async (format: 'csv' | 'jsonl' | 'cef', filter: ActFilter = {}) =>
    (
      await Array.fromAsync(exportActs(storage.database, { tenant, filter, reach: all, format, version: '1.2|3' }))
    ).join('');

  test('as CSV has a line for each act, and nothing that a spreadsheet takes for a formula', async () => {
    const text = await exported('csv', { partyKind: 'user' });
    const lines = text.split('\r\n');
    expect(lines).toHaveLength(6);
    expect(lines[0]).toBe(
      'number,time,action,result,party kind,party id,party name,address,target kind,target id,target name,organization,details,hash',
    );
    expect(lines[4]).toMatch(
      /^1,[\d:.TZ-]{27},user\.create,done,user,7,Ada,192\.0\.2\.1,user,8,Bob,2,"\{""why"":""=1\+1""\}",[0-9a-f]{64}$/,
    );
  });

  test.each([
    ['=1+1', `'=1+1`],
    ['+1', `'+1`],
    ['-1', `'-1`],
    ['@SUM(A1)', `'@SUM(A1)`],
    ['\tx', `'\tx`],
    ['\rx', `"'\rx"`],
    [' =1+1', `' =1+1`],
    ['\n=1', `"'\n=1"`],
    ['＝1', `'＝1`],
    ['a=1', 'a=1'],
    ['a"b,c', '"a""b,c"'],
    ['two\r\nlines', '"two\r\nlines"'],
    ['', ''],
  ])('as CSV the cell %j is written %j', (cell, written) => {
    expect(csvText([[cell, 'x']])).toBe(`${written},x\r\n`);
  });

  test('as JSON lines has each act as it is searched', async () => {
    const lines = (await exported('jsonl')).trimEnd().split('\n');
    const { items } = await searchActs(storage.database, tenant, {}, { reach: all, cursor: null, limit: 100 });
    expect(lines.map((line) => JSON.parse(line))).toEqual(items);
  });

  test('as CEF has an event in a line, with what has a meaning in it escaped', async () => {
    const lines = (await exported('cef')).trimEnd().split('\n');
    expect(lines).toHaveLength(7);
    expect(lines[4]).toMatch(
      /^CEF:0\|Holdfast\|Holdfast\|1\.2\\\|3\|user\.update\|user\.update refused\|6\|rt=\d{13} externalId=3 act=user\.update outcome=refused suid=8 suser=Bob src=192\.0\.2\.8 duid=9 duser=Grace cs1=user cs1Label=partyKind cs2=user 9 cs2Label=target cs3=Grace cs3Label=targetName cs4=\{"why":"\\=1\+1"\} cs4Label=details cs5=[0-9a-f]{64} cs5Label=hash cn1=1 cn1Label=tenant cn2=3 cn2Label=organization$/,
    );
    expect(lines[0]).toContain('c6a2=2001:db8::7 c6a2Label=Source IPv6 Address');
    const [act] = (await searchActs(storage.database, tenant, {}, { reach: all, cursor: null, limit: 1 })).items;
    const odd = {
      ...act!,
      party: { kind: 'user', id: null, name: 'a=b\\c|d\r\ne' },
      address: null,
      target: null,
      organization: null,
    };
    const line = cefLine({ ...odd, details: { long: 'x'.repeat(5_000) } }, { tenant: null, version: 'a\nb\\' });
    expect(line).toMatch(/^CEF:0\|Holdfast\|Holdfast\|a b\\\\\|/);
    expect(line).toContain(' suser=a\\=b\\\\c|d\\r\\ne cs1=user ');
    expect(/cs4=(.*) cs4Label/.exec(line)![1]).toHaveLength(4_000);
    expect(line).not.toMatch(/[\r\n]|suid=|src=|c6a2|duser|cn1|cn2|null|undefined/);
  });

  test('of many is a page at a time, and ends when nobody wants more', async () => {
    const request = { tenant: 6, filter: {}, reach: all, format: 'jsonl', version: '1' } as const;
    const pieces = await Array.fromAsync(exportActs(storage.database, request));
    expect(pieces.map((piece) => piece.trimEnd().split('\n').length)).toEqual([500, 500, 500, 500, 500, 500]);
    const seen = pieces
      .join('')
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { number: number }).number);
    expect(seen).toEqual(Array.from({ length: 3_000 }, (_, i) => 3_000 - i));
    for await (const piece of exportActs(storage.database, request)) {
      expect(piece).toContain('"number":3000');
      break;
    }
  });

  test('of nothing is a heading, or empty', async () => {
    const nothing = { address: 'nowhere' };
    expect((await exported('csv', nothing)).split('\r\n')).toHaveLength(2);
    expect(await exported('jsonl', nothing)).toBe('');
    expect(await exported('cef', nothing)).toBe('');
  });
});
