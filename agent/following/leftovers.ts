/**
 * Takes away what a restore left in folders that nobody goes on with: the unfinished files of it, and nothing else. A folder may be
 * on a disk that does not answer any more, so they are taken one after the other, each for its time.
 */
import { unlink } from 'node:fs/promises';
import { printablePath } from '../../protocol/paths.ts';
import { type Folder, nameOf } from '../restore/folders.ts';
import { closeStaging, openLeftStaging, type Staging } from '../restore/staging.ts';
import { HolderUnknown } from '../restore/staging-lock.ts';
import { RestoreError } from '../restore/types.ts';
import { NoWay, openWay, type WayOptions } from './open-way.ts';

/** For a hundred thousand files of a disk that turns. */
const timeMsMax = 60_000;

/** Keeps no more than one of the four threads that Node has for files, however many disks are away. */
export class Tidier {
  readonly #timeMs: number;
  readonly #clear: typeof clearLeftovers;
  #turn: Promise<void> = Promise.resolve();
  /** The folder whose time was up, and that the system still works at. */
  #stuckIn: Buffer | null = null;

  /** @param options for tests */
  constructor({ timeMs = timeMsMax, clear = clearLeftovers }: { timeMs?: number; clear?: typeof clearLeftovers } = {}) {
    this.#timeMs = timeMs;
    this.#clear = clear;
  }

  /** @throws as `clearLeftovers`; Error when it takes too long (it goes on all the same), or another still does */
  clear(...args: Parameters<typeof clearLeftovers>): Promise<void> {
    const turn = this.#turn.then(() => this.#clearWithin(args));
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  async #clearWithin(args: Parameters<typeof clearLeftovers>): Promise<void> {
    if (this.#stuckIn) throw new Error(`${printablePath(this.#stuckIn)} does not answer yet`);
    const { promise, resolve } = Promise.withResolvers<'late'>();
    const timer = setTimeout(resolve, this.#timeMs, 'late');
    const clearing = this.#clear(...args);
    const done = await Promise.race([clearing, promise]).finally(() => clearTimeout(timer));
    if (done !== 'late') return;
    this.#stuckIn = args[0];
    const unstuck = (): void => {
      this.#stuckIn = null;
    };
    clearing.then(unstuck, unstuck);
    throw new Error(`${printablePath(args[0])}: it takes too long (more than ${this.#timeMs / 1000} s)`);
  }
}

/**
 * Nothing is to be done where the folder is gone, or something has its name that is not ours; nor where another restore works
 * in it, which takes all of them away at its end. One of which nothing is known but its lock may have ended.
 * @throws what keeps them from being taken away
 */
async function clearLeftovers(folder: Buffer, way?: Omit<WayOptions, 'make'>): Promise<void> {
  const target = await openWay(folder, { ...way, make: false }).catch((error: unknown) => {
    if (error instanceof NoWay && error.reason !== 'not_allowed') return null;
    throw error;
  });
  if (!target) return;
  try {
    const staging = await openLeft(target);
    if (!staging) return;
    try {
      for (const name of staging.leftovers) await removeIfThere(staging.folder, name);
    } finally {
      await closeStaging(target, staging, { keep: true }); // there is none, or none that can be taken away
    }
  } finally {
    await target.close();
  }
}

/** Another who is about to find the folder locked makes some there, and takes them away again. */
async function removeIfThere(folder: Folder, name: string): Promise<void> {
  await unlink(folder.at(nameOf(folder, name))).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
}

async function openLeft(target: Folder): Promise<Staging | null> {
  try {
    return await openLeftStaging(target);
  } catch (error) {
    if (error instanceof HolderUnknown) throw error;
    if (error instanceof RestoreError && (error.code === 'target_busy' || error.code === 'target_unsafe')) return null;
    throw error;
  }
}
