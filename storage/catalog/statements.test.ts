/**
 * What the catalog's speed and its sharding stand on: every statement of the engine finds its rows by a key that
 * holds vault_id. Asked of PostgreSQL itself, for catalogs of every size: a plan is made once per connection and kept.
 */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type TestStorage, testStorage } from '../../tests/helpers/storage.ts';
import { declaredStatements, type Statement } from './database.ts';
import './writing/blocks.ts';
import './writing/commits.ts';
import './reading/reading.ts';
import './writing/runs.ts';
import './checking/adopting.ts';
import './checking/alerts.ts';
import './checking/checking.ts';
import './deleting/cold.ts';
import './deleting/compacting.ts';
import './reading/archive-facts.ts';
import './checking/damage.ts';
import './deleting/dead-objects.ts';
import './deleting/deleting.ts';
import './deleting/ending.ts';
import './checking/fence.ts';
import './deleting/garbage.ts';
import './reading/histories.ts';
import './reading/leases.ts';
import './reading/manifest.ts';
import './reading/plain-history.ts';
import './reading/search.ts';
import './writing/lists.ts';
import './checking/mark-damaged.ts';
import './deleting/reclaiming.ts';
import './checking/recounting.ts';
import './hidden-blocks.ts';
import './plain-figures.ts';
import './refs.ts';
import './usage.ts';
import './vault-keys.ts';
import './vaults.ts';
import { findersOfVaults } from './deleting/vaults-with.ts';

/** The statements that are not about one vault, and why. */
const notOfOneVault: Record<string, string> = {
  'catalog.read': 'the single row that says who the catalog is',
  'vaults.findByUser': 'finds the vault itself, by the unique key on its user',
  'vaults.insert': 'makes the vault',
  'objects.any': 'asks at the start whether the catalog ever stored anything',
  'catalog.now': 'asks for the time',
  'objects.countElsewhere': 'a command that counts over all vaults, once',
  'catalog.setId': 'the same single row, for adopt',
  'vaults.lastId': 'the sequence of the ids of vaults, for adopt',
  'vaults.advanceIds': 'the same',
  'catalog.allowScans': 'sets what the recount may do',
  'catalog.denyScans': 'sets what the recount may do',
  'fence.read': 'the single row of the fence',
  'fence.renew': 'the single row of the fence',
  'fence.replace': 'the single row of the fence',
  'vaults.after': 'pages through all vaults, for work in one at a time',
  'vaults.toVerify': 'finds the vaults where there is work, two steps along an index for each',
  'blocks.recount': 'reads one vault whole, in a transaction that may scan and hash',
  'lists.recount': 'reads one vault whole, in a transaction that may scan and hash',
  'objects.recount': 'reads one vault whole, in a transaction that may scan and hash',
  'plainFigures.recount': 'reads one vault whole, in a transaction that may scan and hash',
  'hiddenBlocks.recount': 'sums up the notes of one vault',
  'alerts.countOpen': 'counts what is open over all vaults, for the metrics',
  'archives.all': 'daily jobs go through all archives',
  'archives.withDueFiles': 'a job that first finds the archives where there is work, one step along an index for each',
  'freed.overdue': 'how far deleting is behind, for the metrics: garbage.test.ts',
  'freedLists.overdue': 'the same',
  'objects.overdue': 'the same',
  'objects.freeBytes': 'the same',
  'plainFigures.allHidden': 'what is hidden over all vaults, for the metrics: a few rows for each repository',
  'runs.vaultsWithStale': 'a job that first finds the vaults where there is work, and then works in one at a time',
};

const engineTables = new Set([
  'vaults',
  'vault_keys',
  'held_vault_keys',
  'archives',
  'objects',
  'blocks',
  'files',
  'versions',
  'commits',
  'runs',
  'run_skipped',
  'freed',
  'freed_lists',
  'lists',
  'holds',
  'restores',
  'usage_deltas',
  'vault_usage',
  'damage',
  'damage_versions',
  'plain_figures',
  'plain_deletes',
  'hidden_blocks',
  'alerts',
]);
const statements = declaredStatements().filter(
  ({ name }) => !name.startsWith('directory.') && !(name in notOfOneVault) && !findersOfVaults.has(name),
);

/**
 * The catalogs a plan may be made for, and then kept: one that is new and never analyzed, one as small as autovacuum ever
 * analyzes (it waits for 50 changes), and a large one. Filled without the verbs: only numbers of rows matter here.
 */
const catalogs = { empty: 0, tiny: 1, large: 20 };
const storages = new Map<string, TestStorage>();

beforeAll(async () => {
  for (const [name, vaults] of Object.entries(catalogs)) {
    const storage = await testStorage();
    storages.set(name, storage);
    if (vaults > 0) await fill(storage, vaults, vaults === 1 ? 60 : 5_000);
  }
});
afterAll(async () => {
  for (const storage of storages.values()) await storage.close();
});

async function fill(storage: TestStorage, vaults: number, rows: number): Promise<void> {
  const run = (text: string): Promise<unknown[]> => storage.database.query({ name: '', text });
  await run(`INSERT INTO vaults (user_id) SELECT n FROM generate_series(1, ${vaults}) n`);
  await run('INSERT INTO archives (vault_id, device_id, next_seq) SELECT vault_id, vault_id, 5001 FROM vaults');
  await run(`INSERT INTO vault_keys SELECT vault_id, 1, 'standard', '\\x00' FROM vaults`);
  await run(`INSERT INTO held_vault_keys SELECT vault_id, 1, '\\x00' FROM vaults`);
  await run(`INSERT INTO objects (vault_id, key, state, size_bytes, live_bytes)
             SELECT vault_id, vault_id || '/' || n, 'live', 100, 100 FROM vaults, generate_series(1, ${Math.ceil(rows / 50)}) n`);
  await run(`INSERT INTO blocks (vault_id, hash, object_id, byte_offset, byte_length, claimed_until)
             SELECT o.vault_id, sha256((o.object_id || '/' || n)::bytea), o.object_id, n, 1, now() FROM objects o, generate_series(1, ${Math.min(rows, 100)}) n`);
  await run(`INSERT INTO files (vault_id, archive_id, file_id, parent_id, name, folder, implied, created_seq)
             SELECT vault_id, archive_id, n, n / 50, ('name ' || n)::bytea, false, false, n FROM archives, generate_series(1, ${rows}) n`);
  await run(`INSERT INTO versions SELECT vault_id, archive_id, n, n, now(), 'file', false, 0, 0, '', sha256(''), ''
               FROM archives, generate_series(1, ${rows}) n`);
  await run(`INSERT INTO commits SELECT vault_id, archive_id, substr(sha256(n::text::bytea), 1, 16), 1, '', n, 1, now()
               FROM archives, generate_series(1, ${rows}) n`);
  await run(`INSERT INTO runs (vault_id, archive_id, roots, finished_at, outcome)
             SELECT vault_id, archive_id, '', now(), 'completed' FROM archives, generate_series(1, ${Math.ceil(rows / 5)}) n`);
  await run(`INSERT INTO run_skipped SELECT vault_id, archive_id, run_id, sha256(''), '', 'unreadable', '' FROM runs`);
  await run(`INSERT INTO freed SELECT vault_id, hash, now() FROM blocks WHERE byte_offset % 10 = 1`);
  await run(`INSERT INTO lists (vault_id, hash, claimed_until, blocks)
             SELECT vault_id, sha256(n::text::bytea), now(), sha256(n::text::bytea) FROM vaults, generate_series(1, ${Math.ceil(rows / 50)}) n`);
  await run('INSERT INTO freed_lists SELECT vault_id, hash, now() FROM lists');
  await run(`INSERT INTO holds (vault_id, policy) SELECT vault_id, '{}' FROM vaults, generate_series(1, 3) n`);
  await run(
    `INSERT INTO restores SELECT vault_id, archive_id, n, now() FROM archives, generate_series(1, ${Math.ceil(rows / 50)}) n`,
  );
  await run(
    `INSERT INTO usage_deltas (vault_id) SELECT vault_id FROM vaults, generate_series(1, ${Math.ceil(rows / 5)}) n`,
  );
  await run('INSERT INTO vault_usage SELECT vault_id, 0, 0, 0, 0, 0 FROM vaults');
  await run(
    `INSERT INTO damage (vault_id, hash) SELECT vault_id, sha256(n::text::bytea) FROM vaults, generate_series(1, ${Math.ceil(rows / 50)}) n`,
  );
  await run(
    `INSERT INTO damage_versions SELECT vault_id, sha256(n::text::bytea), archive_id, n, n FROM archives, generate_series(1, ${Math.ceil(rows / 50)}) n`,
  );
  await run(
    `INSERT INTO alerts (vault_id, kind, reviewed_at) SELECT vault_id, 'x' || n, now() FROM vaults, generate_series(1, ${Math.ceil(rows / 50)}) n`,
  );
  await run(
    `INSERT INTO plain_figures SELECT vault_id, archive_id, 'folder ' || n, 1, 1, 1, 1 FROM archives, generate_series(1, 6) n`,
  );
  await run(
    `INSERT INTO plain_deletes SELECT vault_id, archive_id, now()::date - n, 1, 1 FROM archives, generate_series(1, ${Math.ceil(rows / 50)}) n`,
  );
  await run('INSERT INTO hidden_blocks SELECT vault_id, hash, byte_length FROM blocks WHERE byte_offset % 3 = 0');
  await run('UPDATE files SET prune_after = now() WHERE file_id % 3 = 0');
  await run('ANALYZE');
}

interface PlanNode {
  'Node Type': string;
  'Relation Name'?: string;
  'Index Cond'?: string;
  Plans?: PlanNode[];
}

/** The plan as every connection makes it: for no values in particular. */
async function planOf(statement: Statement, catalog: string): Promise<PlanNode> {
  const [row] = await storages.get(catalog)!.database.query<{ 'QUERY PLAN': [{ Plan: PlanNode }] }>({
    name: '',
    text: `EXPLAIN (GENERIC_PLAN, FORMAT JSON) ${statement.text}`,
  });
  return row!['QUERY PLAN'][0].Plan;
}

function nodesOf(plan: PlanNode): PlanNode[] {
  return [plan, ...(plan.Plans ?? []).flatMap(nodesOf)];
}

test('there is something to check', () => {
  expect(statements.length).toBeGreaterThan(25);
});

test.each(statements)('$name names vault_id', ({ text }) => {
  expect(text).toMatch(/\bvault_id\b/);
});

/** What the key of each table is compared with at least: less than that, and the index is read at length. */
const keyColumns: Record<string, string[][]> = {
  vaults: [['vault_id'], ['user_id']],
  vault_keys: [['vault_id']],
  held_vault_keys: [['vault_id']],
  archives: [['vault_id']], // an archive is a device; a vault holds a person's
  objects: [
    ['vault_id', 'object_id'],
    ['vault_id', 'key'],
    ['vault_id', 'created_at'], // partial: objects that are not settled yet
    ['vault_id', 'next_at'],
    ['vault_id', 'charged_bytes'], // partial: of uploads under way
    ['vault_id', 'verified_at'],
    ['vault_id', 'key)::text'], // in the order of bytes, through an index of its own
  ],
  blocks: [
    ['vault_id', 'hash'],
    ['vault_id', 'object_id'],
  ],
  files: [
    ['vault_id', 'archive_id', 'parent_id'],
    ['vault_id', 'archive_id', 'file_id'],
    ['vault_id', 'archive_id', 'prune_after'],
  ],
  versions: [
    ['vault_id', 'archive_id', 'file_id'],
    ['vault_id', 'archive_id', 'committed_at'],
    ['vault_id', 'archive_id', 'ROW(file_id, seq)'], // from a place on, page by page
  ],
  commits: [
    ['vault_id', 'archive_id', 'commit_id'],
    ['vault_id', 'archive_id'], // trimming reads an archive's, and those are a month's
  ],
  runs: [['vault_id', 'archive_id', 'run_id'], ['vault_id']],
  run_skipped: [['vault_id', 'archive_id', 'run_id']],
  freed: [
    ['vault_id', 'hash'],
    ['vault_id', 'check_after'],
  ],
  freed_lists: [
    ['vault_id', 'hash'],
    ['vault_id', 'check_after'],
  ],
  lists: [['vault_id', 'hash']],
  holds: [['vault_id']],
  restores: [['vault_id', 'archive_id'], ['vault_id']],
  usage_deltas: [['vault_id', 'delta_id'], ['vault_id']],
  vault_usage: [['vault_id']],
  damage: [['vault_id', 'hash'], ['vault_id']],
  damage_versions: [
    ['vault_id', 'hash'],
    ['vault_id', 'archive_id', 'file_id'],
  ],
  alerts: [['vault_id']],
  plain_figures: [['vault_id', 'archive_id'], ['vault_id']],
  hidden_blocks: [['vault_id', 'hash']],
  plain_deletes: [['vault_id', 'archive_id'], ['vault_id']], // days of a year or so for each repository
};

const cases = Object.keys(catalogs).flatMap((catalog) =>
  statements.map((statement) => ({ catalog, name: statement.name, statement })),
);

test.each(cases)('$name reaches every table by key in a catalog that is $catalog', async ({ statement, catalog }) => {
  const nodes = nodesOf(await planOf(statement, catalog));
  expect(nodes.filter((node) => /Hash Join|Merge Join/.test(node['Node Type']))).toEqual([]);
  const wrong: string[] = [];
  for (const node of nodes) {
    const table = node['Relation Name'];
    if (!table || !engineTables.has(table) || node['Node Type'] === 'ModifyTable') continue;
    // By their places, which another node of the same plan has found, and that by key.
    if (node['Node Type'] === 'Tid Scan') continue;
    const index =
      node['Node Type'] === 'Bitmap Heap Scan'
        ? nodesOf(node).find((each) => each['Node Type'] === 'Bitmap Index Scan')
        : node;
    const condition = index?.['Index Cond'] ?? '';
    const satisfied = keyColumns[table]!.some((columns) => columns.every((column) => condition.includes(`${column} `)));
    if (!satisfied || !/^(Index (Only )?|Bitmap Heap )Scan$/.test(node['Node Type']))
      wrong.push(`${node['Node Type']} on ${table}: ${condition}`);
  }
  expect(wrong).toEqual([]);
});

test.each(Object.keys(catalogs))(
  'a moment finds its run by when it began, in a catalog that is %s',
  async (catalog) => {
    const statement = statements.find(({ name }) => name === 'archives.findMoment')!;
    const runs = nodesOf(await planOf(statement, catalog)).filter((node) => node['Relation Name'] === 'runs');
    const conditions = runs.map((node) => /started_at|run_id/.exec(node['Index Cond'] ?? '')?.[0]).sort();
    expect(conditions).toEqual(['run_id', 'started_at']);
  },
);

test.each([...findersOfVaults].map((name) => ({ name })))('$name reads along an index', async ({ name }) => {
  const finder = declaredStatements().find((statement) => statement.name === name)!;
  for (const catalog of Object.keys(catalogs)) {
    const nodes = nodesOf(await planOf(finder, catalog)).filter((node) =>
      engineTables.has(node['Relation Name'] ?? ''),
    );
    expect(nodes.length).toBeGreaterThan(1);
    expect(nodes.map((node) => node['Node Type']).filter((type) => !/^Index (Only )?Scan$/.test(type))).toEqual([]);
  }
});

test('every table of the engine has vault_id first in its primary key, and none cascades', async () => {
  type Row = { table: string; first: string };
  const keys = await storages.get('empty')!.database.query<Row>({
    name: '',
    text: `SELECT c.conrelid::regclass::text AS table, a.attname::text AS first FROM pg_constraint c
             JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1] WHERE c.contype = 'p'`,
  });
  const firstOf = new Map(keys.map((key) => [key.table, key.first]));
  for (const table of engineTables) expect([table, firstOf.get(table)]).toEqual([table, 'vault_id']);
  const cascades = await storages.get('empty')!.database.query({
    name: '',
    text: "SELECT conname FROM pg_constraint WHERE contype = 'f' AND (confdeltype = 'c' OR confupdtype = 'c')",
  });
  expect(cascades).toEqual([]);
});

test('a block can be counted and claimed without touching an index', async () => {
  const indexed = await storages.get('empty')!.database.query<{ name: string }>({
    name: '',
    text: `SELECT DISTINCT a.attname::text AS name FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
            WHERE i.indrelid = 'blocks'::regclass ORDER BY 1`,
  });
  expect(indexed.map((column) => column.name)).toEqual(['hash', 'object_id', 'vault_id']);
});
