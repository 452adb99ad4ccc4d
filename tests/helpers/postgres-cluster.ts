/**
 * Holds the PostgreSQL of one test run, in a process of its own: `node postgres-cluster.ts FOLDER OWNER_PID`.
 * It ends, and takes its folder along, as soon as the owner (the jest process that all test files share) is gone,
 * however that ended; so failing, killed and interrupted runs leave nothing behind.
 */
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { startPostgres } from '../../server/embedded/postgres.ts';
import { migrate } from '../../storage/catalog/migrate.ts';

const [folder, owner] = [process.argv[2]!, Number(process.argv[3])];

function say(answer: { connectionString: string } | { error: string }): void {
  writeFileSync(join(folder, 'answer.new'), JSON.stringify(answer));
  renameSync(join(folder, 'answer.new'), join(folder, 'answer.json'));
}

function ownerLives(): boolean {
  try {
    process.kill(owner, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

try {
  const postgres = await startPostgres({
    folder,
    durable: false,
    createUser: false,
    sharedBuffersMiB: 128,
    connectionsMax: 300,
    log: () => {},
  });
  try {
    const client = new pg.Client({ connectionString: postgres.connectionString });
    await client.connect();
    await client.query('CREATE DATABASE migrated');
    await client.end();
    const template = new URL(postgres.connectionString);
    template.pathname = '/migrated';
    await migrate(template.href, () => {});
    say({ connectionString: postgres.connectionString });
    while (ownerLives()) await sleep(200);
  } finally {
    await postgres.stop();
  }
} catch (error) {
  say({ error: (error as Error).stack ?? String(error) });
  while (ownerLives()) await sleep(200);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
