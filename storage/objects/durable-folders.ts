/**
 * Makes folders, and what was renamed into them or deleted from them, survive a power failure: a name is durable when
 * its folder was fsynced after the name was made. Calls that come together share one fsync.
 */
import { constants } from 'node:fs';
import { lstat, mkdir, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** Folders remembered as made and durable; beyond it all are forgotten, which costs fsyncs and nothing else. */
const rememberedMax = 100_000;

export class DurableFolders {
  /** The one folder that is never made here; everything is below it. */
  private readonly root: string;
  private readonly ready = new Map<string, Promise<void>>();
  /** Folders seen to be folders, whether or not their names are durable. */
  private readonly seen = new Set<string>();
  private readonly syncs = new Map<string, { running: Promise<void>; next: Promise<void> | undefined }>();

  constructor(root: string) {
    this.root = root;
    this.ready.set(root, Promise.resolve());
  }

  /** The path of a folder below the root, made if need be, with all its parents durable. Refuses symbolic links. */
  async make(names: readonly string[]): Promise<string> {
    let folder = this.root;
    for (const name of names) {
      const parent = folder;
      folder = join(parent, name);
      await (this.ready.get(folder) ?? this.remember(folder, () => this.makeOne(parent, folder)));
    }
    return folder;
  }

  /**
   * The path of a folder below the root, or null when it does not exist.
   * Throws when a part of it is not a folder: a link planted there must not lead out of the root.
   */
  async find(names: readonly string[]): Promise<string | null> {
    let folder = this.root;
    for (const name of names) {
      folder = join(folder, name);
      if (this.seen.has(folder) || this.ready.has(folder)) continue;
      try {
        await requireFolder(folder);
        if (this.seen.size >= rememberedMax) this.seen.clear();
        this.seen.add(folder);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
        throw error;
      }
    }
    return folder;
  }

  /**
   * Returns when every change made in the folder before the call is durable. One fsync runs at a time; calls made
   * while it runs began after it, so they wait for the next one, together.
   */
  sync(folder: string): Promise<void> {
    const current = this.syncs.get(folder);
    if (current) {
      current.next ??= current.running.then(
        () => this.startSync(folder),
        () => this.startSync(folder),
      );
      return current.next;
    }
    return this.startSync(folder);
  }

  /** To be called when a remembered folder turns out to be gone: somebody else removed it. */
  forget(): void {
    this.seen.clear();
    this.ready.clear();
    this.ready.set(this.root, Promise.resolve());
  }

  private startSync(folder: string): Promise<void> {
    const sync = { running: fsyncFolder(folder), next: undefined as Promise<void> | undefined };
    this.syncs.set(folder, sync);
    const done = () => {
      if (!sync.next) this.syncs.delete(folder);
    };
    sync.running.then(done, done);
    return sync.running;
  }

  private remember(folder: string, make: () => Promise<void>): Promise<void> {
    if (this.ready.size >= rememberedMax) this.forget();
    const made = make();
    this.ready.set(folder, made);
    made.catch(() => this.ready.delete(folder));
    return made;
  }

  private async makeOne(parent: string, folder: string): Promise<void> {
    try {
      await mkdir(folder, { mode: 0o700 });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      await requireFolder(folder);
    }
    // Also when it existed: whoever made it may have died before making it durable.
    await this.sync(parent);
  }
}

async function requireFolder(folder: string): Promise<void> {
  const found = await lstat(folder);
  if (!found.isDirectory()) throw new Error(`${folder} is not a folder`);
}

/** Makes durable which names the folder holds. */
export async function fsyncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Fsyncs the folder that holds `path`. */
export function fsyncParent(path: string): Promise<void> {
  return fsyncFolder(dirname(path));
}
