/**
 * A PostgreSQL of its own for a load test that measures the engine without a server: `FOLDER DATABASE...`. Makes the
 * databases, migrated, says where they are as one line of JSON, and stops in order on SIGTERM.
 */
import { mkdirSync } from 'node:fs';
import pg from 'pg';
import { startPostgres } from '../server/embedded/postgres.ts';
import { migrate } from '../storage/catalog/migrate.ts';

const [folder, ...names] = process.argv.slice(2);
mkdirSync(folder!, { recursive: true });
const postgres = await startPostgres({
  folder: folder!,
  durable: true,
  // Started by root, PostgreSQL needs another user: one that is there, so that no user is left behind.
  ...(process.getuid?.() === 0 ? { userName: 'nobody' } : {}),
  createUser: false,
  sharedBuffersMiB: 256, // as the embedded default has
  connectionsMax: 50,
  log: () => {},
});
process.on('SIGTERM', () => void postgres.stop().then(() => process.exit(0)));

const urls: Record<string, string> = {};
for (const name of names) {
  const client = new pg.Client({ connectionString: postgres.connectionString });
  await client.connect();
  await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
  await client.end();
  const url = new URL(postgres.connectionString);
  url.pathname = `/${name}`;
  urls[name] = url.href;
  await migrate(url.href);
}
console.log(JSON.stringify({ pid: postgres.pid, urls }));
