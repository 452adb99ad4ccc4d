/** The history of restores: filters, taken out as a file, added up, and forgotten when it is old. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { forgetRestores } from '../../server/directory/restores/history-forgetting.ts';
import { listRestoreRows } from '../../server/directory/restores/rows.ts';
import { ApiWorld, type Holder } from './world.ts';

let world: ApiWorld;
let admin: Holder;
let ann: Holder;
let ben: Holder;
const ids: Record<string, number> = {};

/** Rows by the names in the first; no cell here has a line break. */
function parse(csv: string): Record<string, string>[] {
  const cells = (line: string): string[] =>
    [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map(([, quoted, plain]) =>
      quoted === undefined ? plain! : quoted.replaceAll('""', '"'),
    );
  const [names, ...rows] = csv.trimEnd().split('\r\n').map(cells) as [string[], ...string[][]];
  return rows.map((row) => Object.fromEntries(names.map((name, i) => [name, row[i]!])));
}

interface Row {
  of?: Holder;
  asker?: { kind: 'user' | 'client'; id: number; name: string };
  kind?: 'streamed' | 'staged' | 'pushed';
  planned?: number;
  done?: number;
  /** Days ago. */
  planAge?: number;
  begunAge?: number | null;
  endAge?: number | null;
  state?: string;
}

async function add(row: Row): Promise<number> {
  const { of = ann, kind = 'streamed', planned = 10, done = 0, planAge = 1, begunAge = null, endAge = null } = row;
  const asker = row.asker ?? { kind: 'user', id: admin.user, name: admin.name };
  const [made] = await world.storage.rows<{ id: number }>(
    `INSERT INTO restore_requests (tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, kind, format,
            selection, seq, permission, reason, planned_files, planned_folders, planned_links, planned_bytes, planned_damaged,
            planned_gone, planned_missing, done_files, done_bytes, state, created_at, lapses_at, begun_at, ended_at,
            target_guid, pushed)
     SELECT $1, $2, $3, $4, 1, $5, $6, $7, $8, CASE WHEN $8 = 'pushed' THEN NULL ELSE 'zip' END, '{"paths":["Lw"],"deleted":false}', 0,
            'restore.all', '=1+1', 1, 0, 0, $9, 0, 0, 0, 1, $10, $11, now() - $12 * interval '1 day',
            now() - ($12 - 1) * interval '1 day', now() - $13 * interval '1 day', now() - $14 * interval '1 day',
            CASE WHEN $8 = 'pushed' THEN $3::bigint END,
            CASE WHEN $8 = 'pushed' THEN '{"name":"laptop","folder":null,"existing":"rename","permissions":"current"}'::jsonb END
     RETURNING restore_id AS id`,
    [
      world.tenant,
      of.user,
      of.guid,
      of.vault,
      asker.kind,
      asker.id,
      asker.name,
      kind,
      planned,
      done,
      row.state ?? (begunAge === null ? 'planned' : 'completed'),
      planAge,
      begunAge,
      endAge,
    ],
  );
  return made!.id;
}

beforeAll(async () => {
  world = await ApiWorld.open();
  admin = await world.person('Admin Restore', { name: 'Ädmin Ann' });
  ann = await world.person('Desktop User', { name: 'anna' });
  ben = await world.person('Desktop User', { name: 'berta', organization: world.places.sibling.organization });
  await world.storage.rows('DELETE FROM restore_requests');
  const client = { kind: 'client' as const, id: world.places.own.client, name: 'program' };
  const own = { kind: 'user' as const, id: ann.user, name: 'anna' };
  ids.streamed = await add({ planned: 10, done: 9, begunAge: 1, endAge: 1 });
  ids.staged = await add({ kind: 'staged', planned: 20, done: 20, begunAge: 1, endAge: 1 });
  ids.pushed = await add({ kind: 'pushed', of: ben, planned: 30, done: 30, begunAge: 1, endAge: 1 });
  ids.program = await add({ asker: client, planned: 40, done: 40, begunAge: 1, endAge: 1 });
  ids.own = await add({ asker: own, planned: 50, done: 50, begunAge: 1, endAge: 1 });
  ids.old = await add({ planned: 60, done: 60, planAge: 40, begunAge: 40, endAge: 40 });
  ids.never = await add({ planned: 70 });
}, 60_000);
afterAll(() => world?.close());

const get = (path: string, who = admin) => world.ask('GET', path, { token: who.token });
const found = async (query: string, who = admin): Promise<string[]> => {
  const { status, json, text } = await get(`/v1/restores?limit=1000${query}`, who);
  if (status !== 200) throw new Error(`${status} ${text}`);
  const names = new Map(Object.entries(ids).map(([name, id]) => [id, name]));
  return (json.items as { id: number }[]).map(({ id }) => names.get(id) ?? String(id));
};

describe('filters', () => {
  test.each<[string, () => string, string[]]>([
    ['a kind', () => '&kind=pushed', ['pushed']],
    ['whose archives', () => `&user=${ben.user}`, ['pushed']],
    ['who asked, by a part of the name', () => '&askedByName=ROGR', ['program']],
    ['who asked, whatever the case', () => '&askedByName=%C3%84DMIN', ['never', 'old', 'pushed', 'staged', 'streamed']],
    ['at least so many bytes', () => '&bytesMin=50', ['never', 'old', 'own']],
    ['one byte more', () => '&bytesMin=51', ['never', 'old']],
    ['several', () => `&kind=streamed&user=${ann.user}&bytesMin=40&askedByName=ann`, ['never', 'old', 'own']],
    ['a device and a kind', () => `&device=${ann.guid}&kind=staged`, ['staged']],
  ])('%s', async (_, query, expected) => expect(await found(query())).toEqual(expected));

  test.each(['kind=sent', 'user=x', 'askedByName=', `askedByName=${'x'.repeat(256)}`, 'bytesMin=-1', 'bytesMin=1.5'])(
    '%s is refused',
    async (query) => expect((await get(`/v1/restores?${query}`)).status).toBe(400),
  );
});

describe('as a file', () => {
  test('JSON lines are what the list has, with its filters', async () => {
    const listed = (await get('/v1/restores?limit=1000&bytesMin=20')).json.items;
    const { text, headers } = await get('/v1/restores/export?format=jsonl&bytesMin=20');
    expect(headers.get('content-type')).toBe('application/jsonl; charset=utf-8');
    const lines = text.trim().split('\n');
    expect(lines.map((line) => JSON.parse(line))).toEqual(listed);
    expect(lines.length).toBe(6);
  });

  test('CSV has a line for each, nothing that a spreadsheet would run, and goes over pages', async () => {
    const { text, headers } = await get('/v1/restores/export');
    expect(headers.get('content-type')).toContain('text/csv');
    const rows = parse(text);
    expect(rows.length).toBe(7);
    expect(rows.find((row) => row.id === String(ids.pushed))).toMatchObject({
      kind: 'pushed',
      format: '',
      'asked by name': 'Ädmin Ann',
      'user name': 'berta',
      reason: "'=1+1",
      'planned bytes': '30',
      'done bytes': '30',
    });
    await world.storage.rows(
      `INSERT INTO restore_requests (tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, kind, format,
              selection, seq, permission, planned_files, planned_folders, planned_links, planned_bytes, planned_damaged,
              planned_gone, planned_missing, lapses_at, created_at)
       SELECT tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, 'many', kind, format, selection, seq, permission,
              0, 0, 0, 0, 0, 0, 0, now(), created_at FROM restore_requests, generate_series(1, 501) WHERE restore_id = $1`,
      [ids.never],
    );
    const many = parse((await get('/v1/restores/export?askedByName=many')).text);
    expect(new Set(many.map(({ id }) => id)).size).toBe(501);
    await world.storage.rows("DELETE FROM restore_requests WHERE asker_name = 'many'");
  });

  test('somebody who restores from their own devices only gets what they restored themselves', async () => {
    const rows = parse((await get('/v1/restores/export', ann)).text);
    expect(rows.map(({ id }) => id)).toEqual([String(ids.own)]);
  });
});

describe('whoever sees only their own', () => {
  interface Node {
    'Relation Name'?: string;
    'Index Cond'?: string;
    Plans?: Node[];
  }
  /** By what the rows of the history are come to. */
  const walkOf = ({ 'Relation Name': relation, 'Index Cond': by = '', Plans: plans = [] }: Node): string =>
    [relation === 'restore_requests' ? by : '', ...plans.map(walkOf)].join('');

  test('walks along those, however many others planned, and finds nothing of anybody who is not them', async () => {
    await world.storage.rows(
      `INSERT INTO restore_requests (tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, kind, format,
              selection, seq, permission, planned_files, planned_folders, planned_links, planned_bytes, planned_damaged,
              planned_gone, planned_missing, lapses_at, created_at)
       SELECT tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id + i % 500, 'many', kind, format, selection, seq, permission,
              0, 0, 0, 0, 0, 0, 0, now(), created_at FROM restore_requests, generate_series(1, 5000) i WHERE restore_id = $1`,
      [ids.never],
    );
    await world.storage.rows('ANALYZE restore_requests');
    const none = { path: null, state: null, since: null, until: null, guid: null, asker: null, kind: null, user: null };
    const asked = { ...none, askerName: null, bytesMin: null, below: 0, rows: 101, alone: ann.user };
    // As it is planned once for everybody, when it was asked for often.
    const walkFor = async (more: object): Promise<string | null> => {
      let walk: string | null = null;
      const query = async <Row>({ text }: { text: string }): Promise<Row[]> => {
        const [row] = await world.storage.rows<{ 'QUERY PLAN': [{ Plan: Node }] }>(
          `EXPLAIN (GENERIC_PLAN, FORMAT JSON) ${text}`,
        );
        walk = walkOf(row!['QUERY PLAN'][0].Plan);
        return [];
      };
      await listRestoreRows({ query }, world.tenant, { ...asked, ...more });
      return walk;
    };
    const own: object[] = [{}, { guid: ann.guid }, { user: ann.user }, { asker: { kind: 'user', id: ann.user } }];
    for (const more of own) expect(await walkFor(more)).toContain('asker_id = ');
    expect(await walkFor({ asker: { kind: 'user', id: admin.user } })).toBeNull();
    expect(await walkFor({ asker: { kind: 'client', id: ann.user } })).toBeNull();
    expect(await walkFor({ alone: null })).not.toContain('asker_id = ');
    await world.storage.rows("DELETE FROM restore_requests WHERE asker_name = 'many'");
    expect(await found('', ann)).toEqual(['own']);
    expect(await found(`&askedBy=${ann.user}`, ann)).toEqual(['own']);
    expect(await found(`&askedBy=${admin.user}`, ann)).toEqual([]);
  });
});

describe('totals', () => {
  const day = (age: number) => new Date(Date.now() - age * 86_400_000).toISOString();
  const totals = (query = '', who = admin, [since, until] = [day(10), day(0)]) =>
    get(`/v1/restores/totals?since=${since}&until=${until}${query}`, who);
  const told = (items: unknown) =>
    (items as { askedBy: { name: string }; user: { name: string }; restores: number; bytes: number }[]).map((each) => [
      each.askedBy.name,
      each.user.name,
      each.restores,
      each.bytes,
    ]);

  test('who restored how much of whose, of what was begun in the period', async () => {
    const all = [
      ['program', 'anna', 1, 40],
      ['Ädmin Ann', 'anna', 2, 29],
      ['Ädmin Ann', 'berta', 1, 30],
      ['anna', 'anna', 1, 50],
    ];
    expect(told((await totals()).json.items)).toEqual(all);
    expect(told((await totals('&othersOnly=1')).json.items)).toEqual(all.slice(0, 3));
    expect(told((await totals('', admin, [day(50), day(0)])).json.items)[1]).toEqual(['Ädmin Ann', 'anna', 3, 89]);
    const paged: unknown[] = [];
    for (let after = ''; ; ) {
      const { json } = await totals(`&limit=1${after}`);
      paged.push(...told(json.items));
      if (json.next === null) break;
      after = `&after=${json.next as string}`;
    }
    expect(paged).toEqual(all);
    expect(told((await totals('', ann)).json.items)).toEqual([['anna', 'anna', 1, 50]]);
  });

  test('a period has a beginning before its end, and 366 days at most', async () => {
    const at = (ms: number) => new Date(1_790_000_000_000 + ms).toISOString();
    const year = 366 * 86_400_000;
    const status = async (ms: number) => (await totals('', admin, [at(0), at(ms)])).status;
    expect(await Promise.all([year, year + 1, 0, -1].map(status))).toEqual([200, 400, 400, 400]);
    for (const after of [
      'x',
      Buffer.from('["user",1]').toString('base64url'),
      Buffer.from('["x",1,1]').toString('base64url'),
    ])
      expect((await totals(`&after=${after}`)).json).toMatchObject({ code: 'out_of_bounds', field: 'after' });
  });
});

test('what is old is forgotten: ended ones after their time, what was never begun a month after it lapsed', async () => {
  const kept = [
    await add({ planAge: 100, begunAge: 99, endAge: 59 }),
    await add({ planAge: 30 }),
    // Still to be carried out, and still staged.
    await add({ kind: 'pushed', planAge: 400, begunAge: 400, endAge: 400 }),
    await add({ kind: 'staged', planAge: 400, begunAge: 400, endAge: 400 }),
  ];
  const gone = [
    await add({ planAge: 100, begunAge: 99, endAge: 61 }),
    await add({ planAge: 32 }),
    // Its end was never written down.
    await add({ planAge: 100, begunAge: 90, state: 'planned' }),
  ];
  await world.storage.rows(
    `INSERT INTO device_commands (tenant_id, user_id, guid, kind, restore_id, state, expires_at)
     VALUES ($1, $2, $3, 'restore', $4, 'queued', now())`,
    [world.tenant, ann.user, ann.guid, kept[2]],
  );
  await world.storage.rows(
    `INSERT INTO staged_archives (tenant_id, user_id, restore_id, asker_kind, asker_id, attempt, state, dead_at, reserved_bytes, part_frames)
     VALUES ($1, $2, $3, 'user', $2, gen_random_uuid(), 'dead', now(), 1, 1)`,
    [world.tenant, ann.user, kept[3]],
  );
  await world.storage.rows(
    `INSERT INTO restore_charges VALUES ($1, 1, 'user', 1, 1, 0, 1),
       ($1, 2, 'user', 1, 1, floor(extract(epoch FROM now()) / 3600), 1)`,
    [world.tenant],
  );
  const before = await forgetRestores(world.storage.database, { keepMs: 60 * 86_400_000 });
  expect(before).toEqual({ restores: 2, neverBegun: 1 });
  const left = await world.storage.rows<{ id: number }>(
    'SELECT restore_id AS id FROM restore_requests WHERE restore_id = ANY ($1)',
    [[...kept, ...gone]],
  );
  expect(left.map(({ id }) => id).sort((a, b) => a - b)).toEqual(kept);
  expect((await world.storage.rows('SELECT restore_id FROM restore_charges')).length).toBe(1);
});
