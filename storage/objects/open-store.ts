/**
 * From settings to a store that is ready for the engine: the only place that knows which kinds there are.
 */
import { openDirectoryStore } from './directory-store.ts';
import type { ObjectStore } from './object-store.ts';
import { RetryingStore, type RetryOptions } from './retrying-store.ts';
import type { S3Options } from './s3-client.ts';
import { S3Store } from './s3-store.ts';

export type ObjectStoreSettings = { kind: 'directory'; path: string } | ({ kind: 's3' } & S3Options);

export interface OpenStoreOptions extends RetryOptions {
  /** Of a directory: see `DirectoryStoreOptions`. Buckets hold many catalogs, and nobody mounts them. */
  catalogId?: string;
  create?: boolean;
}

/**
 * Opens the store the settings name. A bucket is not contacted (use `check`).
 * Throws what `openDirectoryStore` and `S3Store` throw. Retries apply to every call but `check`.
 */
export async function openObjectStore(settings: ObjectStoreSettings, how: OpenStoreOptions = {}): Promise<ObjectStore> {
  const { catalogId, create, ...retry } = how;
  if (settings.kind === 'directory')
    return new RetryingStore(await openDirectoryStore({ path: settings.path, catalogId, create }), retry);
  const { kind: _, ...options } = settings;
  return new RetryingStore(new S3Store(options), retry);
}
