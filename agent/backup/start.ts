/**
 * The start of a run: the cache may be trusted only if it shows the archive exactly as the server has it. The server
 * knows the last commit we saw acknowledged, counts as many versions as we do, and purged nothing since: otherwise
 * the two are compared first.
 */
import { limits } from '../../protocol/limits.ts';
import { Problem } from '../../protocol/problems.ts';
import type { Client } from '../client/client.ts';
import { resolveArchivePath } from '../files/roots.ts';
import type { LocalPath } from '../files/types.ts';
import { type ReconcileWorld, reconcile } from './reconcile.ts';

export interface StartWorld extends ReconcileWorld {
  client: Pick<Client, 'versions' | 'startRun' | 'commitEncoded' | 'damaged'>;
}

export interface StartedRun {
  run: number;
  purgeEpoch: number;
  /** Why the cache was compared with the archive first; null when it could be trusted. */
  reconciled: string | null;
}

/** @throws Problem archive_not_active, unauthorized, ... */
export async function startRun(
  world: StartWorld,
  roots: readonly LocalPath[],
  signal?: AbortSignal,
): Promise<StartedRun> {
  await finishPendingCommit(world);
  const rootPaths = await archivePaths(roots);
  const mark = world.cache.archiveMark();
  const ask = (lastCommit: typeof mark.lastCommit) =>
    world.client.startRun(world.archive, { lastCommit, roots: rootPaths });
  let rolledBack = false;
  const answer = await ask(mark.lastCommit).catch((error: unknown) => {
    if (!(error instanceof Problem && error.code === 'archive_rolled_back')) throw error;
    rolledBack = true;
    return ask(null);
  });
  const reason = rolledBack
    ? 'the server was restored to an earlier state'
    : answer.purgeEpoch !== mark.purgeEpoch
      ? 'paths were purged from the archive'
      : answer.nextSeq !== mark.knownSeq + 1
        ? 'the archive holds versions that this agent does not know'
        : null;
  if (reason !== null) {
    await reconcile(world, signal);
    world.cache.setArchiveMark({
      knownSeq: answer.nextSeq - 1,
      purgeEpoch: answer.purgeEpoch,
      keepLastCommit: !rolledBack,
    });
  }
  if (answer.damaged) await distrustDamaged(world);
  return { run: answer.run, purgeEpoch: answer.purgeEpoch, reconciled: reason };
}

/**
 * The server has damaged blocks of these files: they are read again although they did not change, and what the server
 * then asks for is sent. Noted in the cache, so that one this run does not come to is read by a later one.
 */
async function distrustDamaged({ client, cache, archive }: StartWorld): Promise<void> {
  for (let after: Buffer | undefined; ; ) {
    const page = await client.damaged(archive, { after, limit: limits.pageEntriesMax });
    for (const path of page.paths) cache.distrust(path);
    after = page.paths.at(-1);
    if (!page.more || !after) break;
  }
  cache.flush();
}

/** In the middle of a run the server says that paths were purged. @returns the epoch to commit under */
export async function archiveChanged(world: ReconcileWorld, purgeEpoch: number): Promise<number> {
  const { knownSeq } = world.cache.archiveMark();
  await reconcile(world);
  world.cache.setArchiveMark({ knownSeq, purgeEpoch, keepLastCommit: true });
  return purgeEpoch;
}

/** A commit whose answer never came is sent again as it was: the server answers as before, or takes it now. */
async function finishPendingCommit(world: StartWorld): Promise<void> {
  const pending = world.cache.pendingCommit();
  if (!pending) return;
  try {
    const answer = await world.client.commitEncoded(world.archive, pending.body);
    world.cache.confirmCommit(answer.firstSeq, answer.count);
  } catch (error) {
    // Refused: it was never stored, or not in this state of the archive. The numbering tells whether to reconcile.
    if (!(error instanceof Problem) || error.status >= 500) throw error;
    world.cache.dropPendingCommit();
  }
}

/** For the server's record of the run; a root the archive cannot hold fails by name in the walk. */
async function archivePaths(roots: readonly LocalPath[]): Promise<Buffer[]> {
  const paths = await Promise.all(roots.map((root) => resolveArchivePath(root).catch(() => null)));
  return paths.filter((path) => path !== null).slice(0, 1_000);
}
