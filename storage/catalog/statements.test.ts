/**
 * What the catalog's speed and its sharding stand on: every statement of the engine finds its rows by a key that
 * begins with vault_id. Asked of PostgreSQL itself, with tables large enough that scanning them would be an option.
 */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type TestStorage, testStorage } from '../../tests/helpers/storage.ts';
import { declaredStatements, type Statement } from './database.ts';
import './blocks.ts';
import './commits.ts';
import './reading.ts';
import './runs.ts';
import './vaults.ts';

/** The statements that are not about one vault, and why. */
const notOfOneVault: Record<string, string> = {
  'catalog.read': 'the single row that says who the catalog is',
  'vaults.findByUser': 'finds the vault itself, by the unique key on its user',
  'vaults.insert': 'makes the vault',
  'runs.vaultsWithStale': 'a job that first finds the vaults where there is work, and then works in one at a time',
};

const engineTables = new Set([
  'vaults',
  'vault_keys',
  'archives',
  'objects',
  'blocks',
  'files',
  'versions',
  'commits',
  'runs',
  'run_skipped',
]);
const statements = declaredStatements().filter(
  (statement) => !statement.name.startsWith('directory.') && !(statement.name in notOfOneVault),
);

let storage: TestStorage;

beforeAll(async () => {
  storage = await testStorage();
  const run = (text: string): Promise<unknown[]> => storage.database.query({ name: '', text });
  // 20 vaults x 10,000 blocks and 5,000 files, entered without the verbs: only their number matters here.
  await run(`INSERT INTO vaults (user_id) SELECT n FROM generate_series(1, 20) n`);
  await run(`INSERT INTO archives (vault_id, device_id, next_seq) SELECT vault_id, vault_id, 5001 FROM vaults`);
  await run(`INSERT INTO vault_keys SELECT vault_id, 1, 'standard', '\\x00' FROM vaults`);
  await run(`INSERT INTO objects (vault_id, key, state, size_bytes, live_bytes)
             SELECT vault_id, vault_id || '/' || n, 'live', 100, 100 FROM vaults, generate_series(1, 100) n`);
  await run(`INSERT INTO blocks (vault_id, hash, object_id, byte_offset, byte_length, claimed_until)
             SELECT o.vault_id, sha256((o.object_id || '/' || n)::bytea), o.object_id, n, 1, now() FROM objects o, generate_series(1, 100) n`);
  await run(`INSERT INTO files (vault_id, archive_id, file_id, parent_id, name, implied, created_seq, latest_seq)
             SELECT vault_id, archive_id, n, n / 50, ('name ' || n)::bytea, false, n, n FROM archives, generate_series(1, 5000) n`);
  await run(
    `INSERT INTO versions SELECT vault_id, archive_id, n, n, now(), 'file', false, 0, 0, '', sha256(''), '' FROM archives, generate_series(1, 5000) n`,
  );
  await run(
    `INSERT INTO commits SELECT vault_id, archive_id, substr(sha256(n::text::bytea), 1, 16), 1, '', n, 1, now() FROM archives, generate_series(1, 1000) n`,
  );
  await run(
    `INSERT INTO runs (vault_id, archive_id, roots, finished_at, outcome) SELECT vault_id, archive_id, '', now(), 'completed' FROM archives, generate_series(1, 1000) n`,
  );
  await run(`INSERT INTO run_skipped SELECT vault_id, archive_id, run_id, sha256(''), '', 'unreadable', '' FROM runs`);
  await run('ANALYZE');
});
afterAll(() => storage.close());

interface PlanNode {
  'Node Type': string;
  'Relation Name'?: string;
  'Index Cond'?: string;
  Plans?: PlanNode[];
}

/** The plan as every connection makes it: for no values in particular. */
async function planOf(statement: Statement): Promise<PlanNode> {
  const [row] = await storage.database.query<{ 'QUERY PLAN': [{ Plan: PlanNode }] }>({
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

test.each(statements)('$name reaches every table by a key that begins with the vault', async (statement) => {
  for (const node of nodesOf(await planOf(statement))) {
    if (!node['Relation Name'] || !engineTables.has(node['Relation Name']) || node['Node Type'] === 'ModifyTable')
      continue;
    expect(node['Node Type']).toMatch(/^Index (Only )?Scan$|^Bitmap Heap Scan$/);
    if (node['Node Type'] === 'Bitmap Heap Scan') {
      for (const index of nodesOf(node).filter((each) => each['Node Type'] === 'Bitmap Index Scan'))
        expect(index['Index Cond']).toContain('vault_id = ');
    } else expect(node['Index Cond']).toContain('vault_id = ');
  }
});

test('no statement joins by hashing or sorting a table', async () => {
  for (const statement of statements) {
    const joins = nodesOf(await planOf(statement)).filter((node) => /Hash Join|Merge Join/.test(node['Node Type']));
    expect([statement.name, joins.length]).toEqual([statement.name, 0]);
  }
});

test('every table of the engine has vault_id first in its primary key, and none cascades', async () => {
  type Row = { table: string; first: string };
  const keys = await storage.database.query<Row>({
    name: '',
    text: `SELECT c.conrelid::regclass::text AS table, a.attname::text AS first FROM pg_constraint c
             JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1] WHERE c.contype = 'p'`,
  });
  const firstOf = new Map(keys.map((key) => [key.table, key.first]));
  for (const table of engineTables) expect([table, firstOf.get(table)]).toEqual([table, 'vault_id']);
  const cascades = await storage.database.query({
    name: '',
    text: "SELECT conname FROM pg_constraint WHERE contype = 'f' AND (confdeltype = 'c' OR confupdtype = 'c')",
  });
  expect(cascades).toEqual([]);
});

test('a block can be counted and claimed without touching an index', async () => {
  const indexed = await storage.database.query<{ name: string }>({
    name: '',
    text: `SELECT DISTINCT a.attname::text AS name FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
            WHERE i.indrelid = 'blocks'::regclass ORDER BY 1`,
  });
  expect(indexed.map((column) => column.name)).toEqual(['hash', 'object_id', 'vault_id']);
});
