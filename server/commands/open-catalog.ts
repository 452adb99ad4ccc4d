/**
 * The catalog, for commands that look at it or decide something in it: that of the settings, or else the one that the
 * embedded server on this machine has running. The object store is not touched, so its settings need not be there.
 */
import { databaseDefaults, openDatabase } from '../../storage/catalog/database.ts';
import type { ObjectStore } from '../../storage/objects/object-store.ts';
import { openStorage, type Storage } from '../../storage/storage.ts';
import { type Config, loadConfig } from '../config.ts';
import { findRunningPostgres } from '../embedded/running-postgres.ts';
import { storageSettings } from '../storage-settings.ts';

/** @throws ConfigError, and Error in words for the operator */
export async function withCatalog<T>(work: (storage: Storage) => Promise<T>): Promise<T> {
  const config = loadConfig({ embedded: false, needs: [] });
  const database = openDatabase({
    ...databaseDefaults,
    connectionString: databaseUrlOf(config),
    poolMax: 2,
    applicationName: 'holdfast command',
  });
  try {
    return await work(await openStorage({ database, objects: untouched, settings: storageSettings(config) }));
  } finally {
    await database.close();
  }
}

function databaseUrlOf({ databaseUrl, data }: Config): string {
  return databaseUrl ?? findRunningPostgres(data);
}

const refuse = (): never => {
  throw new Error('this command does not touch the object store');
};

const untouched: ObjectStore = {
  put: refuse,
  get: refuse,
  head: refuse,
  list: refuse,
  delete: refuse,
  check: refuse,
  inspect: refuse,
  close: async () => {},
};
