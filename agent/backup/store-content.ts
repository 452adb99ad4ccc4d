/**
 * One file's content on its way to the server: read, cut, sealed, named and handed to the sender.
 * A file whose content changed under the reading is not stored: its parts would never have existed together.
 */
import { joinHashes, sha256 } from '../../protocol/hashes.ts';
import { limits } from '../../protocol/limits.ts';
import { chunkSizesFor, chunksOf, seal, sealAsync, type VaultKeys } from '../../protocol/sealing/index.ts';
import { letGo } from '../files/memory.ts';
import { openFile, refreshFile, smallBytesMax } from '../files/read.ts';
import { FileReadError, type FileState, type OpenFile } from '../files/types.ts';
import type { BlockSender } from './block-sender.ts';
import type { CpuPacer } from './cpu-pacer.ts';

export interface ContentWorld {
  keys: VaultKeys;
  vault: number;
  keyGeneration: number;
  sender: BlockSender;
  pacer: CpuPacer | null;
  /** Told of plain bytes as they are read. */
  onRead: (bytes: number) => void;
}

export interface StoredContent {
  /** The file as it was when this content was read. */
  file: FileState;
  /** n x 32 bytes. */
  blocks: Buffer;
  readAtMs: number;
}

/** Chunks sealed side by side: one compresses on the thread pool while the next is cut. */
const sealsInFlight = 2;
/** Below this, compressing takes less time than the way to the thread pool and back. */
const sealWaitingBytesMax = 64 * 1024;

/**
 * Reads a file, once more if it changed meanwhile, and hands its blocks to the sender.
 * @throws FileReadError saying why the file cannot be stored, or what broke sending
 */
export async function storeContent(world: ContentWorld, file: FileState, signal?: AbortSignal): Promise<StoredContent> {
  try {
    return await readOnce(world, file, signal);
  } catch (error) {
    if (!(error instanceof FileReadError && error.reason === 'changed_while_read')) throw error;
    return readOnce(world, await refreshFile(file), signal);
  }
}

async function readOnce(world: ContentWorld, file: FileState, signal?: AbortSignal): Promise<StoredContent> {
  refuseTooLarge(file, Math.ceil(file.size / chunkSizesFor(file.size).averageBytes));
  const readAtMs = Date.now();
  const open = await openFile(file);
  try {
    if (file.size <= smallBytesMax) return await storeWhole(world, open, { file, readAtMs });
    const hashes: Buffer[] = [];
    const sealing: Promise<Buffer>[] = [];
    const handOver = async (): Promise<void> => {
      hashes.push(await sealing.shift()!);
      refuseTooLarge(file, hashes.length);
    };
    try {
      for await (const chunk of chunksOf(open.chunks(), world.keys.gear, chunkSizesFor(file.size))) {
        signal?.throwIfAborted();
        if (sealing.length >= sealsInFlight) await handOver();
        world.onRead(chunk.byteLength);
        sealing.push(sealAndSend(world, chunk));
        sealing.at(-1)!.catch(() => undefined); // handOver reports it
        await world.pacer?.pause();
      }
      while (sealing.length > 0) await handOver();
    } finally {
      await Promise.allSettled(sealing);
    }
    if (await open.changed()) throw new FileReadError('changed_while_read', 'it changed while it was read');
    return { file, blocks: joinHashes(hashes), readAtMs };
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
  return { ...of, blocks: hash };
}

async function sealAndSend(world: ContentWorld, chunk: Buffer): Promise<Buffer> {
  const as = { type: 'block', vault: world.vault, generation: world.keyGeneration } as const;
  const sealed =
    chunk.byteLength <= sealWaitingBytesMax ? seal(world.keys, as, chunk) : await sealAsync(world.keys, as, chunk);
  const hash = sha256(sealed);
  await world.sender.add(hash, sealed, chunk.byteLength);
  letGo(chunk.byteLength);
  return hash;
}

function refuseTooLarge(file: FileState, blocks: number): void {
  if (blocks <= limits.versionBlocksMax) return;
  throw new FileReadError(
    'too_large',
    `its ${file.size} bytes make more than ${limits.versionBlocksMax} blocks, the most one file may have`,
  );
}
