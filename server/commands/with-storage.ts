/**
 * The engine for a command that works on it and ends: what `api` and `worker` open, without ports and queues; or what the
 * embedded server on this machine has running, where the settings name no database.
 */
import { openDatabase } from '../../storage/catalog/database.ts';
import { checkCatalog } from '../../storage/catalog/migrate.ts';
import { openObjectStore } from '../../storage/objects/open-store.ts';
import { openStorage, type Storage } from '../../storage/storage.ts';
import { type Config, loadConfig } from '../config.ts';
import { findRunningPostgres } from '../embedded/running-postgres.ts';
import { databaseSettings, objectStoreSettings, storageSettings } from '../storage-settings.ts';

/** @throws Error in words for the operator; ConfigError */
export async function withStorage<T>(work: (storage: Storage, config: Config) => Promise<T>): Promise<T> {
  const embedded = !loadConfig({ embedded: false, needs: [] }).databaseUrl;
  const config = loadConfig({ embedded, needs: ['objects'] });
  const database = openDatabase(databaseSettings(config, config.databaseUrl ?? findRunningPostgres(config.data)));
  try {
    const { catalogId } = await checkCatalog(database);
    const objects = await openObjectStore(objectStoreSettings(config), { catalogId, create: false });
    try {
      return await work(await openStorage({ database, objects, settings: storageSettings(config) }), config);
    } finally {
      await objects.close();
    }
  } finally {
    await database.close();
  }
}

/** Ends with the first Ctrl-C at the next safe place, and with the second at once. */
export function abortOnInterrupt(): AbortSignal {
  const abort = new AbortController();
  process.once('SIGINT', () => abort.abort(new Error('interrupted: run it again, it goes on')));
  return abort.signal;
}
