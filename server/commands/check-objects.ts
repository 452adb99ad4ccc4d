/** `check-objects`: whether the object store of the settings keeps the contract that the engine relies on. */
import { checkObjects } from '../../storage/objects/check-objects.ts';
import { openObjectStore } from '../../storage/objects/open-store.ts';
import type { Config } from '../config.ts';
import { objectStoreSettings } from '../storage-settings.ts';

/** @returns 0 when the store is fit, 1 when it is not */
export async function checkObjectStore(config: Config, say: (line: string) => void): Promise<number> {
  // Before the first start there is no store yet. One made here is nobody's: a catalog with objects does not take it.
  const store = await openObjectStore(objectStoreSettings(config), { create: true });
  try {
    const { ok } = await checkObjects(store, say);
    say(ok ? 'The object store can be used.' : 'The object store must not be used as it is.');
    return ok ? 0 : 1;
  } finally {
    await store.close();
  }
}
