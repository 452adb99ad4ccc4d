/**
 * The file `layout` in a directory store's root: that this is a store, of which layout, and of which catalog's objects.
 * A disk that is not mounted leaves an empty folder in its place. So a store is made only where the caller knows that
 * there never was one, and a folder without its marker is never read as a store that happens to be empty.
 */
import { randomUUID } from 'node:crypto';
import { lstat, open, readdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { layoutMarker, placeOf } from './directory-layout.ts';
import { fsyncFolder, fsyncParent } from './durable-folders.ts';
import { ObjectStoreFault } from './object-store.ts';

export interface MarkerOptions {
  /** Whose objects these are; absent for whoever looks at a store without a catalog. */
  catalogId?: string | undefined;
  /** Whether there was no store before, so that one may be made. */
  create: boolean;
}

/** Names that may stand in a folder that is about to become a store: a fresh disk's own, and an opening that crashed. */
const freshNames = /^(lost\+found|layout.*)$/;
const catalogLine = /^catalog ([0-9A-Za-z-]{1,64})\n$/;

const fileOf = (root: string): string => join(root, 'layout');

/**
 * Makes sure that the folder is a store of this layout and of this catalog; makes it one when that is allowed.
 * @throws Error in words for the operator: another layout, another catalog, no store, something else
 */
export async function claimStore(root: string, options: MarkerOptions): Promise<void> {
  const found = await readFile(fileOf(root), 'utf8').catch(ignoreMissing);
  if (found === undefined) return makeStore(root, options);
  const owner = ownerOf(root, found);
  if (options.catalogId === undefined || owner === options.catalogId) return;
  if (owner !== null)
    throw new Error(
      `${root} holds the objects of catalog ${owner}, but this database is catalog ${options.catalogId}: one of the two settings names the wrong place`,
    );
  // A store that was made without a catalog. Objects of ours in it prove that it is the one we wrote to.
  if (!options.create && !(await holdsCatalog(root, options.catalogId))) throw storeMissing(root);
  await writeMarker(root, options.catalogId);
}

/** @throws ObjectStoreFault when the marker is gone: the disk under the running store is no longer there */
export async function requireMarker(root: string): Promise<void> {
  try {
    await lstat(fileOf(root));
  } catch (cause) {
    const message = `the object store in ${root} is gone: is its disk mounted?`;
    throw new ObjectStoreFault(message, { retryable: false, code: 'StoreGone' }, { cause });
  }
}

/** The catalog a marker names, or null when it names none. */
function ownerOf(root: string, marker: string): string | null {
  if (marker === layoutMarker) return null;
  const owner = marker.startsWith(layoutMarker) ? catalogLine.exec(marker.slice(layoutMarker.length))?.[1] : undefined;
  if (owner !== undefined) return owner;
  const shown = JSON.stringify(marker.slice(0, 80));
  throw new Error(`${root} holds objects in a layout that this version does not know: ${shown}`);
}

async function makeStore(root: string, { catalogId, create }: MarkerOptions): Promise<void> {
  const strangers = (await readdir(root)).filter((name) => !freshNames.test(name));
  if (strangers.length > 0) throw new Error(`${root} is not an object store and not empty: it holds ${strangers[0]}`);
  if (!create) throw storeMissing(root);
  await writeMarker(root, catalogId);
}

/** Where a store was promised there is none: what the operator can do. */
export function storeMissing(root: string, cause?: unknown): Error {
  return new Error(
    `the object store is missing: ${root} is not where this catalog's objects lie. Mount its disk, or set HOLDFAST_OBJECTS_FOLDER to where it is`,
    { cause },
  );
}

async function holdsCatalog(root: string, catalogId: string): Promise<boolean> {
  const [folder] = placeOf(`${catalogId}/any`).folders;
  return (await lstat(join(root, 'objects', folder!)).catch(ignoreMissing))?.isDirectory() ?? false;
}

async function writeMarker(root: string, catalogId: string | undefined): Promise<void> {
  const fresh = join(root, `layout.${randomUUID()}`);
  const file = await open(fresh, 'wx', 0o600);
  try {
    await file.writeFile(catalogId === undefined ? layoutMarker : `${layoutMarker}catalog ${catalogId}\n`);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(fresh, fileOf(root));
  await fsyncFolder(root);
  // Also the root's own name: whoever made the folder may have died before making that durable.
  await fsyncParent(root);
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
