/**
 * Brings the catalog's schema up to this code. Forward only; safe when several processes start at once (they wait
 * for one another); code that is too old for a catalog refuses to touch it.
 */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runner } from 'node-pg-migrate';
import pg from 'pg';
import { type Database, statement } from './database.ts';

/** The highest `catalog.breaking` this code can work with. Raised together with a migration that raises it. */
const breakingKnown = 2;

const migrationsFolder = join(dirname(fileURLToPath(import.meta.url)), '../../migrations');
// Any number will do, as long as nothing else in the same database uses it.
const advisoryLock = 4_065_200_721;

export class SchemaError extends Error {
  override name = 'SchemaError';
}

/**
 * Applies what is missing.
 * @returns the names of the migrations applied, none when the catalog was current
 * @throws SchemaError when the catalog belongs to newer code
 */
export async function migrate(
  connectionString: string,
  log: (line: string) => void = () => {},
): Promise<{ applied: string[] }> {
  const client = new pg.Client({ connectionString, application_name: 'holdfast migrate' });
  await client.connect();
  try {
    // A session lock of our own, because the library's gives up at once where waiting is right.
    await client.query('SELECT pg_advisory_lock($1)', [advisoryLock]);
    await refuseNewerCatalog(client);
    const applied = await runner({
      dbClient: client,
      dir: migrationsFolder,
      ignorePattern: '(?!.*\\.sql$).*',
      migrationsTable: 'migrations',
      direction: 'up',
      count: Number.POSITIVE_INFINITY,
      singleTransaction: false,
      checkOrder: true,
      noLock: true,
      log: () => {},
    });
    for (const migration of applied) log(`applied migration ${migration.name}`);
    return { applied: applied.map((migration) => migration.name) };
  } finally {
    await client.end();
  }
}

async function refuseNewerCatalog(client: pg.Client): Promise<void> {
  const exists = await client.query("SELECT to_regclass('catalog') IS NOT NULL AS there");
  if (!exists.rows[0].there) return;
  const { rows } = await client.query('SELECT breaking FROM catalog');
  refuseBreaking(rows[0]?.breaking);
}

function refuseBreaking(breaking: number): void {
  if (breaking <= breakingKnown) return;
  throw new SchemaError(
    `the catalog was changed by a newer Holdfast (schema ${breaking}, this one knows ${breakingKnown}): start that version or a later one`,
  );
}

const readCatalog = statement('catalog.read', 'SELECT catalog_id::text AS "catalogId", breaking FROM catalog');

/**
 * Reads which catalog this is.
 * @throws SchemaError when it belongs to newer code
 */
export async function checkCatalog(database: Database): Promise<{ catalogId: string }> {
  const [row] = await database.query<{ catalogId: string; breaking: number }>(readCatalog);
  if (!row) throw new SchemaError('the catalog has no row of its own: it was not made by `migrate`');
  refuseBreaking(row.breaking);
  return { catalogId: row.catalogId };
}
