/** `migrate`: the schema of the catalog and, where the job queue lives in PostgreSQL, of the queue. */
import { migrate } from '../../storage/catalog/migrate.ts';
import type { Config } from '../config.ts';
import { migrateQueue } from '../jobs/queues.ts';

/** Safe when several run at once: they wait for one another. @throws SchemaError when the catalog belongs to newer code */
export async function migrateAll(config: Config, say: (line: string) => void): Promise<number> {
  const databaseUrl = config.databaseUrl!; // the configuration asks for it
  const { applied } = await migrate(databaseUrl, say);
  if (!config.redisUrl) await migrateQueue(databaseUrl);
  say(applied.length === 0 ? 'the schema is current' : `the schema is current (${applied.length} migrations applied)`);
  return 0;
}
