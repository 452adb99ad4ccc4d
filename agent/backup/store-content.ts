/**
 * One file's content on its way to the server: read, cut, sealed, named and handed to the sender.
 * A file whose content changed under the reading is not stored: its parts would never have existed together.
 */
import { sha256 } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import { chunkSizesFor, chunksOf, seal, sealAsync, type VaultKeys } from '../../protocol/sealing/index.ts';
import type { Client } from '../client/client.ts';
import { letGo } from '../files/memory.ts';
import { openFile, refreshFile, smallBytesMax } from '../files/read.ts';
import { FileReadError, type FileState, type OpenFile } from '../files/types.ts';
import type { BlockSender } from './block-sender.ts';
import type { ClaimRenewals } from './claim-renewals.ts';
import { ContentNames, type ContentNaming } from './content-names.ts';
import type { CpuPacer } from './cpu-pacer.ts';
import { PreviousLists } from './previous-lists.ts';

export interface ContentWorld {
  client: Pick<Client, 'fetchLists'>;
  keys: VaultKeys;
  vault: number;
  keyGeneration: number;
  sender: BlockSender;
  /** Keeps what this file has sent until its commit, however long the rest takes. */
  renewals: ClaimRenewals;
  naming: ContentNaming;
  pacer: CpuPacer | null;
  /** Told of plain bytes as they are read. */
  onRead: (bytes: number) => void;
}

export interface StoredContent {
  /** The file as it was when this content was read. */
  file: FileState;
  /** What it is made of: n x 32 bytes of blocks, or of a large file of lists. */
  blocks: Buffer;
  lists: Buffer;
  readAtMs: number;
}

/** Chunks sealed side by side: one compresses on the thread pool while the next is cut. */
const sealsInFlight = 2;
/** Below this, compressing takes less time than the way to the thread pool and back. */
const sealWaitingBytesMax = 64 * 1024;

export interface ReadingOptions {
  /** Lists that the archive holds of an earlier state of this file, well: n x 32 bytes. */
  previousLists?: Buffer;
  signal?: AbortSignal;
}

/**
 * Reads a file, once more if it changed meanwhile, and hands its blocks to the sender.
 * @throws FileReadError saying why the file cannot be stored, or what broke sending
 */
export async function storeContent(
  world: ContentWorld,
  file: FileState,
  options: ReadingOptions = {},
): Promise<StoredContent> {
  try {
    return await readOnce(world, file, options);
  } catch (error) {
    if (!(error instanceof FileReadError && error.reason === 'changed_while_read')) throw error;
    return readOnce(world, await refreshFile(file), options);
  }
}

async function readOnce(world: ContentWorld, file: FileState, options: ReadingOptions): Promise<StoredContent> {
  refuseTooLarge(file, file.size / chunkSizesFor(file.size).averageBytes / world.naming.averageBlocks);
  const readAtMs = Date.now();
  const open = await openFile(file);
  try {
    if (file.size <= smallBytesMax) return await storeWhole(world, open, { file, readAtMs });
    const names = new ContentNames(world.naming);
    const previous = new PreviousLists(world.client, options.previousLists ?? Buffer.alloc(0));
    const sealing: Promise<Buffer>[] = [];
    const handOver = async (): Promise<void> => {
      for (const list of names.add(await sealing.shift()!)) await world.sender.addList(list);
      refuseTooLarge(file, names.listCount);
    };
    const release = world.renewals.hold(names);
    try {
      for await (const chunk of chunksOf(open.chunks(), world.keys.gear, chunkSizesFor(file.size))) {
        options.signal?.throwIfAborted();
        if (sealing.length >= sealsInFlight) await handOver();
        world.onRead(chunk.byteLength);
        sealing.push(sealAndSend(world, chunk, previous));
        sealing.at(-1)!.catch(() => undefined); // handOver reports it
        await world.pacer?.pause();
      }
      while (sealing.length > 0) await handOver();
      if (await open.changed()) throw new FileReadError('changed_while_read', 'it changed while it was read');
      for (const list of names.finish()) await world.sender.addList(list);
    } finally {
      await Promise.allSettled(sealing);
      release();
    }
    return { file, blocks: Buffer.from(names.blocks), lists: Buffer.from(names.lists), readAtMs };
  } finally {
    await open.close();
  }
}

/** A file no larger than the least chunk is one chunk: it is read in one go, and sent only if it held still. */
async function storeWhole(
  world: ContentWorld,
  open: OpenFile,
  of: Pick<StoredContent, 'file' | 'readAtMs'>,
): Promise<StoredContent> {
  const plain = await open.whole();
  if (await open.changed()) throw new FileReadError('changed_while_read', 'it changed while it was read');
  world.onRead(plain.byteLength);
  const hash = await sealAndSend(world, plain);
  await world.pacer?.pause();
  return { ...of, blocks: hash, lists: Buffer.alloc(0) };
}

async function sealAndSend(world: ContentWorld, chunk: Buffer, previous?: PreviousLists): Promise<Buffer> {
  const as = { type: 'block', vault: world.vault, generation: world.keyGeneration } as const;
  const sealed =
    chunk.byteLength <= sealWaitingBytesMax ? seal(world.keys, as, chunk) : await sealAsync(world.keys, as, chunk);
  const hash = sha256(sealed);
  if (await previous?.has(hash)) world.sender.addKnown(chunk.byteLength);
  else await world.sender.add(hash, sealed, chunk.byteLength);
  letGo(chunk.byteLength);
  return hash;
}

function refuseTooLarge(file: FileState, lists: number): void {
  if (lists <= limits.versionListsMax) return;
  throw new FileReadError(
    'too_large',
    `its ${file.size} bytes make more than ${limits.versionListsMax} lists, the most one file may have`,
  );
}
