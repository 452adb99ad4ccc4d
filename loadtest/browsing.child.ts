/**
 * Fills an archive with a million files and looks around in it, as the server's own verbs do: `DATABASE_URL FILES`. Beside
 * each, in the same run, a plain SELECT of the same rows. One line of JSON is the result.
 */
import pg from 'pg';
import { browseFolder } from '../storage/archive/reading/browse.ts';
import { type SearchQuery, searchArchive } from '../storage/archive/reading/search.ts';
import { databaseDefaults, openDatabase } from '../storage/catalog/database.ts';
import { noFilters } from '../storage/catalog/reading/search.ts';
import { MemoryStore } from '../storage/objects/memory-store.ts';
import { openStorage, storageDefaults } from '../storage/storage.ts';
import type { BrowsingFigures, PageFigures, SearchFigures } from './browsing-figures.ts';
import { median } from './statistics.ts';

const [connectionString, filesText] = process.argv.slice(2) as [string, string];
const files = Number(filesText);
const perFolder = 1_000;
const folders = Math.ceil(files / perFolder);
const pageRounds = 200;
const searchRounds = 5;

const client = new pg.Client({ connectionString });
await client.connect();

/** Every file has a version, every tenth three; a fifth each is a report, a photo, an invoice... */
async function fill(): Promise<{ vault: number; spread: number; wide: number; cyrillic: number }> {
  const { rows } = await client.query('INSERT INTO vaults (user_id) VALUES (1) RETURNING vault_id::int AS vault');
  const vault = rows[0].vault as number;
  const archive = async (device: number): Promise<number> => {
    const made = await client.query(
      'INSERT INTO archives (vault_id, device_id, next_seq, next_file_id) VALUES ($1, $2, $3, $4) RETURNING archive_id::int AS archive',
      [vault, device, 4 * files, files + folders + 2],
    );
    return made.rows[0].archive as number;
  };
  const [spread, wide] = [await archive(1), await archive(2)];
  const name = `convert_to((ARRAY['Report', 'holiday photo', 'Minutes of meeting', 'invoice', 'scan'])[1 + f % 5] || ' ' || f ||
                           (ARRAY['.docx', '.jpg', '.txt', '.pdf', '.png'])[1 + f % 5], 'UTF8')`;
  for (const [id, parent] of [
    [spread, `2 + (f - 1) / ${perFolder}`],
    [wide, '1'],
  ] as const) {
    await client.query(
      `INSERT INTO files (vault_id, archive_id, file_id, parent_id, name, folder, implied, created_seq)
       SELECT $1::bigint, $2::bigint, 1, 0, 'home'::bytea, true, true, 1
       UNION ALL SELECT $1, $2, 1 + n, 1, convert_to('folder ' || n, 'UTF8'), true, true, 1 FROM generate_series(1, $3::int) n
       UNION ALL SELECT $1, $2, 1 + $3 + f, ${parent}, ${name}, false, false, 1 FROM generate_series(1, $4::int) f`,
      [vault, id, id === wide ? 0 : folders, files],
    );
    await client.query(
      `INSERT INTO versions (vault_id, archive_id, file_id, seq, committed_at, kind, deleted, size, mtime, attributes, mac, blocks)
       SELECT $1::bigint, $2::bigint, 1 + $3::int + f, v * $4::bigint + f, now() - (4 - v) * interval '1 day', 'file', false, f, f * 1000,
              sha256('a') || sha256('b') || sha256('c'), sha256(int8send(f)), sha256(int8send(f))
         FROM generate_series(1, $4::int) f CROSS JOIN generate_series(0, 2) v WHERE v = 0 OR f % 10 = 0`,
      [vault, id, id === wide ? 0 : folders, files],
    );
  }
  // Names of which the database knows no bytes, and the last of them alone holds a word.
  const cyrillic = await archive(3);
  const words = `(ARRAY['Отчёт за год', 'фото с отпуска', 'Протокол встречи', 'счёт-фактура', 'скан'])[1 + f % 5]`;
  await client.query(
    `INSERT INTO files (vault_id, archive_id, file_id, parent_id, name, folder, implied, created_seq)
     SELECT $1::bigint, $2::bigint, f, 0, convert_to(${words} || ' ' || f || CASE WHEN f = $3 THEN ' последний' ELSE '' END, 'UTF8'),
            false, false, 1 FROM generate_series(1, $3::int) f`,
    [vault, cyrillic, files],
  );
  await client.query(
    `INSERT INTO versions (vault_id, archive_id, file_id, seq, committed_at, kind, deleted, size, mtime, attributes, mac, blocks)
     VALUES ($1, $2, $3, 1, now(), 'file', false, 1, 1, sha256('a'), sha256('b'), sha256('c'))`,
    [vault, cyrillic, files],
  );
  await client.query('VACUUM (FREEZE, ANALYZE) files, versions, archives');
  return { vault, spread, wide, cyrillic };
}

const { vault, spread, wide, cyrillic } = await fill();
const database = openDatabase({ ...databaseDefaults, connectionString });
const storage = await openStorage({ database, objects: new MemoryStore(), settings: storageDefaults });
const now = { at: null, seq: null };

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return performance.now() - startedAt;
}

/** The same names and their newest versions by one statement that is as plain as can be. */
const plainPage = {
  name: 'loadtest.page',
  text: `SELECT f.name, v.seq, v.committed_at, v.kind, v.deleted, v.size, v.mtime
           FROM (SELECT file_id, name FROM files WHERE vault_id = $1 AND archive_id = $2 AND parent_id = $3 ORDER BY name LIMIT $4) f
           LEFT JOIN LATERAL (SELECT * FROM versions v WHERE v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = f.file_id
                               ORDER BY v.seq DESC LIMIT 1) v ON true ORDER BY f.name`,
};

async function page(of: { archive: number; folder: number; path: string }, limit: number): Promise<PageFigures> {
  const ours: number[] = [];
  const plain: number[] = [];
  const query = { path: Buffer.from(of.path), moment: now, deleted: false, after: null, limit };
  let entries = 0;
  for (let round = -20; round < pageRounds; round++) {
    const ms = await timed(async () => {
      entries = (await browseFolder(storage, { vault, archive: of.archive }, query)).entries.length;
    });
    const plainMs = await timed(() => database.query(plainPage, [vault, of.archive, of.folder, limit]));
    if (round < 0) continue;
    ours.push(ms);
    plain.push(plainMs);
  }
  if (entries !== Math.min(limit, files)) throw new Error(`${entries} entries in ${of.path}`);
  const sorted = ours.toSorted((a, b) => a - b);
  return { ms: median(ours), p99Ms: sorted[Math.floor(sorted.length * 0.99)]!, plainMs: median(plain), limit };
}

/** All names of the archive, looked at and counted by the database alone. */
const plainScan = {
  name: 'loadtest.scan',
  text: `SELECT count(*) FROM files WHERE vault_id = $1 AND archive_id = $2 AND file_id > 0 AND position($3::bytea IN name) > 0`,
};

async function search(
  what: string,
  asked: Partial<SearchQuery>,
  expected: number,
  archive = spread,
): Promise<SearchFigures> {
  const figures: SearchFigures = { what, hits: 0, firstMs: null, ms: 0, plainMs: 0, longestStepMs: 0 };
  const first: number[] = [];
  const total: number[] = [];
  const plain: number[] = [];
  for (let round = -1; round < searchRounds; round++) {
    const startedAt = performance.now();
    let last = startedAt;
    let hits = 0;
    const { steps } = await searchArchive(
      storage,
      { vault, archive },
      {
        path: Buffer.from('/'),
        moment: now,
        name: null,
        pattern: null,
        filters: noFilters,
        deleted: false,
        after: null,
        limit: 1_000,
        ...asked,
      },
    );
    for await (const step of steps) {
      const at = performance.now();
      figures.longestStepMs = Math.max(figures.longestStepMs, at - last);
      last = at;
      if (hits === 0 && step.hits.length > 0 && round >= 0) first.push(at - startedAt);
      hits += step.hits.length;
    }
    if (hits !== expected) throw new Error(`${what}: ${hits} hits instead of ${expected}`);
    if (round >= 0) total.push(performance.now() - startedAt);
    figures.hits = hits;
    const plainMs = await timed(() => database.query(plainScan, [vault, archive, Buffer.from(`${files}`)]));
    if (round >= 0) plain.push(plainMs);
  }
  return {
    ...figures,
    firstMs: first.length > 0 ? median(first) : null,
    ms: median(total),
    plainMs: median(plain),
  };
}

const last = folders + 1;
const pages: Record<string, PageFigures> = {};
for (const limit of [100, 1_000]) {
  pages[`${limit} of a folder of ${perFolder}`] = await page(
    { archive: spread, folder: last, path: `/home/folder ${folders}` },
    limit,
  );
  pages[`${limit} of a folder of ${files}`] = await page({ archive: wide, folder: 1, path: '/home' }, limit);
}

const searches = [
  await search('part of the last name', { name: String(files) }, 1),
  await search('part of the last name, with letters', { name: `${lastWord()} ${files}` }, 1),
  await search('pattern of the last name', { pattern: `*${files}.*` }, 1),
  await search('path of the last name', { pattern: `**/folder ${folders}/*${files}*` }, 1),
  await search('no hit: part of a name', { name: 'nowhere' }, 0),
  await search('no hit: a pattern', { pattern: '*.xlsx' }, 0),
  await search('no hit: of part of it the bytes are known', { name: 'Ärger' }, 0),
  await search('no hit: of nothing the bytes are known', { name: 'отчёт' }, 0),
  await search('the last name of Cyrillic ones', { name: 'ПОСЛЕДНИЙ' }, 1, cyrillic),
  await search('a pattern of it', { pattern: '*последн?й' }, 1, cyrillic),
  await search('no hit: a letter with another form (`k`)', { name: 'kkk' }, 0, cyrillic),
  await search('folders, and all below them', { pattern: `/home/folder ${folders}/**` }, perFolder),
  await search('no hit: by size alone', { filters: { ...noFilters, bytesMin: 1e15 } }, 0),
  await search('the first thousand of many', { pattern: '*.docx' }, Math.min(1_000, Math.floor(files / 5))),
  await search('below a folder of a thousand', { path: Buffer.from(`/home/folder ${folders}`), name: `${files}` }, 1),
];

function lastWord(): string {
  return ['REPORT', 'HOLIDAY PHOTO', 'MINUTES OF MEETING', 'INVOICE', 'SCAN'][files % 5]!;
}

const figures: BrowsingFigures = { files, folders, pages, searches };
console.log(JSON.stringify(figures));
process.exit(0);
