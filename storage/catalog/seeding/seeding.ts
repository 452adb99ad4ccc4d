/**
 * Fills a catalog with made-up history, for load tests: as many versions and blocks as asked for, by set-based SQL in
 * one transaction. What comes out is a catalog as backups would have left it: every count, sum and date that the engine
 * keeps is what a recount gives. The same shape and seed give the same rows, but for ids that depend on what was there,
 * and dates, which are so long before now.
 *
 * Everything of a vault is numbered. Its blocks 0, 1, 2, ... lie in its objects in this order and belong to its files,
 * `blocksPerFile` to each. A file has ten versions, and block j of it is named by version j mod 10; the first ten
 * blocks also by version j + 5 mod 10. Some of a file's blocks, spread evenly, are named by none: they are freed, and due.
 * Versions are a week apart, 43 to 34 weeks ago, so that retention keeps one of each week; those of an expiring file
 * have their first six in one week, so that five of its ten are due to expire.
 */
import pg from 'pg';
import { hashCount } from '../../../protocol/hashes.ts';
import { expiringPerFile, insertFiles, insertSums, insertVersions, isFreed, versionsPerFile } from './seeding-rows.ts';

export interface SeedShape {
  /** Block rows of full objects in all vaults. Rounded, so that each file has as many. */
  blocks: number;
  /** In all vaults; ten of each file. */
  versions: number;
  /** Each with one archive. */
  vaults: number;
  blockBytes: number;
  /** Bytes of blocks in an object. */
  objectBytes: number;
  /** Share of the files that have versions due to expire, which are the first of each vault: 0 to 1. */
  expiringShare: number;
  /** Share of the blocks that nothing refers to and reclaim may take: 0 to 1. */
  freedShare: number;
  /** Beside those: objects of each vault of which every fourth block is left, named by one version. */
  sparseObjects: number;
  seed: string;
}

export interface SeedPlan {
  files: number;
  blocksPerFile: number;
  /** Of those, the ones that no version names. */
  freedPerFile: number;
  blocksPerObject: number;
  expiringFiles: number;
  /** Of one vault, sparse ones not counted. */
  blocks: number;
  objects: number;
}

/** Of a sparse object's blocks, one in so many is left. */
const sparseEvery = 4;
/** As many as an upload and as a version without lists may have. */
const blocksPerObjectMax = 4_096;

/** How many of everything there will be in one vault. @throws RangeError in words for whoever chose the shape */
export function planSeed(shape: SeedShape): SeedPlan {
  const files = Math.max(1, Math.round(shape.versions / versionsPerFile / shape.vaults));
  const blocksPerFile = Math.max(1, Math.round(shape.blocks / shape.vaults / files));
  const freedPerFile = Math.round(blocksPerFile * shape.freedShare);
  const blocksPerObject = Math.min(blocksPerObjectMax, Math.floor(shape.objectBytes / shape.blockBytes));
  const blocks = files * blocksPerFile;
  if (blocksPerObject < sparseEvery)
    throw new RangeError(
      `an object has to hold ${sparseEvery} blocks at least: ${sparseEvery * shape.blockBytes} bytes`,
    );
  if (freedPerFile >= blocksPerFile) throw new RangeError('some of the blocks have to be named by versions');
  return {
    files,
    blocksPerFile,
    freedPerFile,
    blocksPerObject,
    expiringFiles: Math.round(files * shape.expiringShare),
    blocks,
    objects: Math.ceil(blocks / blocksPerObject),
  };
}

export interface SeedOptions {
  shape: SeedShape;
  /** SHA-256 of the policy the files are to count as planned with: prune plans all of them anew for another. */
  retentionApplied: Uint8Array;
  /** Fills a catalog that is in use. Slower: its indexes stay. */
  force: boolean;
  /**
   * Stores an object of so many blocks and says its key and their hashes (n x 32 bytes). Left out: there are rows only,
   * and they say that the objects were verified just now.
   */
  storeObject?: (object: { vault: number; index: number; blocks: number }) => Promise<{ key: string; hashes: Buffer }>;
  /** Told after each step, from 0 to 1. */
  onProgress?: (done: number, doing: string) => void;
  signal?: AbortSignal;
}

export interface Seeded {
  vaults: number;
  files: number;
  versions: number;
  /** Of those, due to expire. */
  expiring: number;
  blocks: number;
  freed: number;
  objects: number;
  sparseObjects: number;
  bytes: number;
}

export class CatalogInUse extends Error {
  override name = 'CatalogInUse';
}

/**
 * @throws CatalogInUse when there are vaults or objects already and `force` was not said; nothing was changed then, nor
 * when anything else is thrown (objects that were stored stay in the store, as any without a row do)
 */
export async function seedCatalog(connectionString: string, options: SeedOptions): Promise<Seeded> {
  const client = new pg.Client({ connectionString, application_name: 'holdfast seed' });
  await client.connect();
  try {
    await client.query('BEGIN');
    // Ids are given out here; nobody else may be given the same meanwhile.
    await client.query('LOCK TABLE vaults, archives, objects IN EXCLUSIVE MODE');
    const { rows } = await client.query('SELECT 1 FROM vaults UNION ALL SELECT 1 FROM objects LIMIT 1');
    const isEmpty = rows.length === 0;
    if (!isEmpty && !options.force) throw new CatalogInUse('the catalog is not empty');
    const rebuild = isEmpty ? await dropIndexes(client) : [];
    const seeded = await fill(client, options);
    for (const sql of rebuild) {
      options.onProgress?.(0.9, 'building indexes');
      options.signal?.throwIfAborted();
      await client.query(sql);
    }
    await client.query('COMMIT');
    // What was inserted is told to the statistics before the vacuum is, or autovacuum would come and do it again.
    await client.query('SELECT pg_stat_force_next_flush()');
    options.onProgress?.(0.95, 'vacuum and analyze');
    await client.query(`VACUUM (FREEZE, ANALYZE) ${filledTables.join(', ')}`);
    options.onProgress?.(1, 'done');
    return seeded;
  } finally {
    await client.end();
  }
}

const filledTables = [
  'vaults',
  'archives',
  'objects',
  'blocks',
  'freed',
  'files',
  'versions',
  'commits',
  'runs',
  'vault_usage',
];
const largeTables = ['blocks', 'files', 'versions', 'freed'];

/** Built again from nothing, an index of millions costs a fraction. @returns statements that put all back, in order */
async function dropIndexes(client: pg.Client): Promise<string[]> {
  const constraints = await client.query<{ drop: string; add: string }>(
    `SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) AS drop,
            format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) AS add
       FROM pg_constraint WHERE conrelid = ANY ($1::text[]::regclass[]) AND contype IN ('p', 'u', 'f')
      ORDER BY contype = 'f', conname`,
    [largeTables],
  );
  const indexes = await client.query<{ drop: string; add: string }>(
    `SELECT format('DROP INDEX %s', i.indexrelid::regclass) AS drop, pg_get_indexdef(i.indexrelid) AS add FROM pg_index i
      WHERE i.indrelid = ANY ($1::text[]::regclass[])
        AND NOT EXISTS (SELECT 1 FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u'))
      ORDER BY i.indexrelid::regclass::text`,
    [largeTables],
  );
  const all = [...constraints.rows, ...indexes.rows];
  for (const { drop } of all) await client.query(drop);
  return all.map(({ add }) => add);
}

async function fill(client: pg.Client, options: SeedOptions): Promise<Seeded> {
  const { shape, onProgress, signal } = options;
  const plan = planSeed(shape);
  await client.query("SET LOCAL work_mem = '128MB'");
  await client.query("SET LOCAL maintenance_work_mem = '256MB'");
  await client.query('CREATE TEMP TABLE seed_blocks (n bigint NOT NULL, hash bytea NOT NULL) ON COMMIT DROP');
  await client.query('CREATE TEMP TABLE seed_objects (i bigint NOT NULL, key text NOT NULL) ON COMMIT DROP');
  for (let index = 0; index < shape.vaults; index++) {
    const steps = stepsOfVault(client, options, plan, index);
    for (const [step, { doing, work }] of steps.entries()) {
      signal?.throwIfAborted();
      onProgress?.((0.9 * (index + step / steps.length)) / shape.vaults, `vault ${index + 1}: ${doing}`);
      await work();
    }
  }
  const each = (count: number): number => count * shape.vaults;
  const sparseBlocks = shape.sparseObjects * Math.ceil(plan.blocksPerObject / sparseEvery);
  return {
    vaults: shape.vaults,
    files: each(plan.files + shape.sparseObjects),
    versions: each(plan.files * versionsPerFile + shape.sparseObjects),
    expiring: each(plan.expiringFiles * expiringPerFile),
    blocks: each(plan.blocks + sparseBlocks),
    freed: each(plan.files * plan.freedPerFile),
    objects: each(plan.objects + shape.sparseObjects),
    sparseObjects: each(shape.sparseObjects),
    bytes: each((plan.blocks + shape.sparseObjects * plan.blocksPerObject) * shape.blockBytes),
  };
}

interface Step {
  doing: string;
  work(): Promise<unknown>;
}

function stepsOfVault(client: pg.Client, options: SeedOptions, plan: SeedPlan, index: number): Step[] {
  const { shape, storeObject } = options;
  const { seed, blockBytes, sparseObjects } = shape;
  const { files, blocksPerFile: perFile, freedPerFile, blocksPerObject: perObject } = plan;
  const objects = plan.objects + sparseObjects;
  /** Number of the first block of the sparse objects: they begin with a new object. */
  const sparseFrom = plan.objects * perObject;
  let vault = 0;
  let archive = 0;
  let firstObject = 0;
  const run = (text: string, values: unknown[]): Promise<unknown> => client.query(text, values);
  return [
    {
      doing: 'vault',
      work: async () => {
        await client.query('TRUNCATE seed_blocks, seed_objects');
        // Users and devices that the directory will never have.
        const made = await client.query(
          'INSERT INTO vaults (user_id) SELECT least(min(user_id), 0) - 1 FROM vaults RETURNING vault_id',
        );
        vault = Number(made.rows[0].vault_id);
        const row = await client.query(
          'INSERT INTO archives (vault_id, device_id) VALUES ($1::bigint, -$1::bigint) RETURNING archive_id',
          [vault],
        );
        archive = Number(row.rows[0].archive_id);
        const last = await client.query(
          "SELECT setval(pg_get_serial_sequence('objects', 'object_id'), nextval(pg_get_serial_sequence('objects', 'object_id')) + $1::bigint) AS id",
          [objects],
        );
        firstObject = Number(last.rows[0].id) - objects;
      },
    },
    {
      doing: 'hashes',
      work: async () => {
        if (storeObject) return storeObjects(client, options, { vault, objects, plan, sparseFrom });
        await run(
          `INSERT INTO seed_objects SELECT i, format('%s/blocks/%s/%s.%s', (SELECT catalog_id FROM catalog), $1::bigint,
                    encode(sha256(convert_to(format('%s object %s %s', $2::text, $3::int, i), 'UTF8')), 'hex'), lpad(to_hex(i), 16, '0'))
             FROM generate_series(0, $4::bigint - 1) i`,
          [vault, seed, index, objects],
        );
        await run(
          `INSERT INTO seed_blocks SELECT n, sha256(convert_to(format('%s block %s %s', $1::text, $2::int, n), 'UTF8')) FROM (
             SELECT n FROM generate_series(0, $3::bigint - 1) n
             UNION ALL SELECT n FROM generate_series($4::bigint, $5::bigint - 1, $6) n) wanted`,
          [seed, index, plan.blocks, sparseFrom, objects * perObject, sparseEvery],
        );
      },
    },
    {
      doing: 'objects',
      work: () =>
        run(
          `WITH held AS (SELECT n / $3::int AS i, count(*) AS blocks FROM seed_blocks GROUP BY 1)
           INSERT INTO objects (vault_id, object_id, key, state, size_bytes, live_bytes, created_at, settled, verified_at)
           OVERRIDING SYSTEM VALUE
           SELECT $1::bigint, $2::bigint + i, key, 'live', stored.blocks * ($4::bigint + 36) + 8, held.blocks * $4::bigint,
                  now() - interval '300 days', true, CASE WHEN $5::boolean THEN NULL ELSE now() END
             FROM seed_objects JOIN held USING (i)
            CROSS JOIN LATERAL (SELECT CASE WHEN i < $6::bigint THEN held.blocks ELSE $3::int END AS blocks) stored
            ORDER BY i`,
          [vault, firstObject, perObject, blockBytes, storeObject !== undefined, plan.objects],
        ),
    },
    {
      doing: 'blocks',
      work: async () => {
        await run(
          `INSERT INTO blocks (vault_id, hash, object_id, byte_offset, byte_length, refs, claimed_until)
           SELECT $1::bigint, hash, $2::bigint + n / $3::int, (n % $3::int) * $4::int, $4::int,
                  CASE WHEN n >= $5::bigint THEN 1 WHEN ${isFreed('n', '$6', '$7')} THEN 0
                       WHEN n % $6::int < ${versionsPerFile} THEN 2 ELSE 1 END,
                  now() - interval '1 day'
             FROM seed_blocks ORDER BY n`,
          [vault, firstObject, perObject, blockBytes, sparseFrom, perFile, freedPerFile],
        );
        await run(
          `INSERT INTO freed SELECT $1::bigint, hash, now() - interval '1 day' FROM seed_blocks
            WHERE n < $2::bigint AND ${isFreed('n', '$3', '$4')} ORDER BY n`,
          [vault, sparseFrom, perFile, freedPerFile],
        );
      },
    },
    {
      doing: 'files',
      work: () => insertFiles(client, { vault, archive, files, sparseObjects, expiring: plan.expiringFiles }),
    },
    {
      doing: 'versions',
      work: () => insertVersions(client, { vault, archive, shape, plan, sparseFrom }),
    },
    {
      doing: 'sums',
      work: () =>
        insertSums(client, {
          vault,
          archive,
          files: files + sparseObjects,
          retentionApplied: options.retentionApplied,
        }),
    },
  ];
}

/** Objects with their bytes, and their blocks' hashes for the steps that follow. */
async function storeObjects(
  client: pg.Client,
  { shape, storeObject, onProgress, signal }: SeedOptions,
  { vault, objects, plan, sparseFrom }: { vault: number; objects: number; plan: SeedPlan; sparseFrom: number },
): Promise<void> {
  for (let index = 0; index < objects; index++) {
    signal?.throwIfAborted();
    const from = index * plan.blocksPerObject;
    const blocks = from >= sparseFrom ? plan.blocksPerObject : Math.min(plan.blocksPerObject, plan.blocks - from);
    const { key, hashes } = await storeObject!({ vault, index, blocks });
    if (hashCount(hashes) !== blocks) throw new Error('an object was stored with other blocks than asked for');
    await client.query('INSERT INTO seed_objects VALUES ($1, $2)', [index, key]);
    await client.query(
      `INSERT INTO seed_blocks SELECT $1::bigint + i, substr($2::bytea, i * 32 + 1, 32)
         FROM generate_series(0, octet_length($2::bytea) / 32 - 1, $3) i`,
      [from, hashes, from >= sparseFrom ? sparseEvery : 1],
    );
    onProgress?.((0.9 * index) / objects / shape.vaults, `object ${index + 1} of ${objects}`);
  }
}
