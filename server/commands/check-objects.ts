/** `check-objects`: whether the object store of the settings keeps the contract that the engine relies on. */
import { checkObjects } from '../../storage/objects/check-objects.ts';
import { openObjectStore } from '../../storage/objects/open-store.ts';
import type { Config } from '../config.ts';
import { objectStoreSettings } from '../storage-settings.ts';

/** @returns 0 when the store is fit, 1 when it is not */
export async function checkObjectStore(config: Config, say: (line: string) => void): Promise<number> {
  const store = await openObjectStore(objectStoreSettings(config));
  try {
    const { ok } = await checkObjects(store, say);
    say(ok ? 'The object store can be used.' : 'The object store must not be used as it is.');
    return ok ? 0 : 1;
  } finally {
    await store.close();
  }
}
