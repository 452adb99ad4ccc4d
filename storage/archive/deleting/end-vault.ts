/**
 * Takes away all a vault has, for an owner who is gone for good: the versions of its archives, through the one deleter; the
 * rows of each archive when it is empty; its keys, when the last archive is gone; and the vault when nothing is left of it.
 *
 * What must stay true: what a hold covers or a reader looks at stays, and with a hold the keys that open it; a vault stays
 * for as long as the store has bytes of it. Blocks and objects go as always (reclaim, settle, store deletes), in days, so
 * it takes several calls. Whether all may go is asked in every transaction, after its locks.
 */
import { readFence } from '../../catalog/checking/fence.ts';
import type { Transaction } from '../../catalog/database.ts';
import { lockArchiveForDeleting, lockVaultAndReadHolds, readHoldsUnlocked } from '../../catalog/deleting/deleting.ts';
import { deleteVaultKeys, endArchiveRows, endVaultRows, lockVaultToEnd } from '../../catalog/deleting/ending.ts';
import { archivesOfVault } from '../../catalog/reading/histories.ts';
import { forgetHeldVaultKeys } from '../../catalog/vault-keys.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import type { PruneDeps } from '../retention/prune.ts';
import { emptyArchive } from './empty-archive.ts';

export interface EndDeps extends Pick<PruneDeps, 'assertMayDelete' | 'assertStillHeld'> {
  /** Whether all that the vault has may go, read in the transaction that deletes. */
  mayEnd(tx: Transaction, vault: number): Promise<boolean>;
}

/** What was taken away. */
export type EndedRows = {
  versions: number;
  /** Plain bytes of those versions. */
  bytes: number;
  archives: number;
  /** Records of keys. */
  keys: number;
  vaults: number;
};

export const nothingEnded: Readonly<EndedRows> = { versions: 0, bytes: 0, archives: 0, keys: 0, vaults: 0 };

/**
 * Goes as far as it can now; called again it goes on.
 * @param options.onProgress told after each transaction what it took away
 * @throws DeletingStopped, RefsDrift (of which an alert tells), and the signal's reason between two transactions
 */
export async function endVault(
  storage: Storage,
  vault: number,
  deps: EndDeps,
  options: { signal?: AbortSignal; onProgress: (more: Partial<EndedRows>) => void },
): Promise<void> {
  const { signal, onProgress } = options;
  /** One transaction after the other, until there is nothing more to take. */
  const repeat = async (work: (tx: Transaction) => Promise<Step>): Promise<void> => {
    for (let again = true; again; ) {
      signal?.throwIfAborted();
      await deps.assertMayDelete();
      const step = await storage.database.transaction(work);
      if (step.took) onProgress(step.took);
      again = step.again;
    }
  };

  const emptying = {
    ...deps,
    by: 'tenant' as const,
    mayEmpty: (tx: Transaction) => deps.mayEnd(tx, vault),
  };
  for (const ref of await archivesOfVault(storage.database, vault)) {
    const onBatch = ({ versions, bytes }: { versions: number; bytes: number }): void => onProgress({ versions, bytes });
    await emptyArchive(storage, ref, emptying, { ...(signal && { signal }), onBatch });
    await repeat((tx) => endArchive(tx, ref, deps));
  }
  await repeat((tx) => shredKeys(tx, vault, deps));
  await repeat((tx) => endEmptyVault(tx, vault, deps));
}

interface Step {
  took: Partial<EndedRows> | null;
  again: boolean;
}
const stays: Step = { took: null, again: false };

/** After the locks: whether this catalog is the one that was looked at, and the owner still gone. */
async function mayEnd(tx: Transaction, vault: number, deps: EndDeps): Promise<boolean> {
  deps.assertStillHeld(await readFence(tx));
  return deps.mayEnd(tx, vault);
}

/** Under the locks of vault and archive, as a batch of the deleter: no commit is under way, and none begins. */
async function endArchive(tx: Transaction, ref: ArchiveRef, deps: EndDeps): Promise<Step> {
  await lockVaultAndReadHolds(tx, ref.vault);
  if (!(await lockArchiveForDeleting(tx, ref)) || !(await mayEnd(tx, ref.vault, deps))) return stays;
  const ended = await endArchiveRows(tx, ref);
  return ended === 'gone' ? { took: { archives: 1 }, again: false } : { took: null, again: ended === 'some' };
}

/** From here on nobody opens what the store still has, whoever finds it. A hold needs the keys for as long as it is there. */
async function shredKeys(tx: Transaction, vault: number, deps: EndDeps): Promise<Step> {
  if (!(await isFreeToEnd(tx, vault, deps))) return stays;
  const held = await forgetHeldVaultKeys(tx, vault);
  const keys = (await deleteVaultKeys(tx, vault)) + held.length;
  return { took: keys > 0 ? { keys } : null, again: false };
}

async function endEmptyVault(tx: Transaction, vault: number, deps: EndDeps): Promise<Step> {
  if (!(await isFreeToEnd(tx, vault, deps))) return stays;
  const ended = await endVaultRows(tx, vault);
  return ended === 'gone' ? { took: { vaults: 1 }, again: false } : { took: null, again: ended === 'some' };
}

/** Holds in a later statement than the vault's lock, as always. */
async function isFreeToEnd(tx: Transaction, vault: number, deps: EndDeps): Promise<boolean> {
  if ((await lockVaultToEnd(tx, vault)) === null) return false;
  if ((await readHoldsUnlocked(tx, vault)).length > 0) return false;
  if ((await archivesOfVault(tx, vault)).length > 0) return false;
  return mayEnd(tx, vault, deps);
}
