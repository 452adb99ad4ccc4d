/**
 * Whether bytes that are here are those of a version, without fetching any. Sealing is deterministic: cut and sealed
 * again, equal bytes give blocks of the same names. So a file that was restored before, or begun, is recognised by its
 * content and not by its name, size and time; and if sealing itself changed since, the answer is only "fetch it".
 */
import { sha256 } from '../../protocol/hashes.ts';
import {
  chunkSizesFor,
  chunksOf,
  type Keyring,
  readSealedHeader,
  seal,
  sealAsync,
  type VaultKeys,
} from '../../protocol/sealing/index.ts';
import type { Handle } from '../files/calls.ts';
import { letGo } from '../files/memory.ts';
import type { BlockNames } from './block-names.ts';

export interface Content {
  size: number;
  names: Pick<BlockNames, 'at'>;
  /** Sealed under the generation of the version's blocks, as far as can be told. */
  attributes: Buffer;
}

const readBytes = 1024 * 1024;
/** Below this, compressing takes less time than the way to the thread pool and back. */
const sealWaitingBytesMax = 64 * 1024;

/**
 * How many of the version's first blocks the file holds, and their plain bytes. Reads at most `content.size` bytes.
 */
export async function matchingPrefix(
  handle: Pick<Handle, 'read'>,
  content: Content,
  sealing: { keys: Keyring; vault: number },
  signal?: AbortSignal,
): Promise<{ blocks: number; bytes: number }> {
  const { generation } = readSealedHeader(content.attributes);
  const keys = sealing.keys.of(generation);
  const match = { blocks: 0, bytes: 0 };
  let padding = false;
  for await (const chunk of chunksIn(handle, content.size, keys)) {
    signal?.throwIfAborted();
    const wanted = await content.names.at(match.blocks);
    if (wanted === null) break;
    const as = { type: 'block', vault: sealing.vault, generation } as const;
    const isWanted = async (): Promise<boolean> => {
      const small = chunk.byteLength <= sealWaitingBytesMax;
      const sealed = small ? seal(keys, { ...as, padding }, chunk) : await sealAsync(keys, { ...as, padding }, chunk);
      return sha256(sealed).equals(wanted);
    };
    let equal = await isWanted();
    if (!equal && match.blocks === 0) {
      // Whether an organization pads is not told; the first block shows it.
      padding = true;
      equal = await isWanted();
    }
    if (!equal) break;
    letGo(chunk.byteLength);
    match.blocks++;
    match.bytes += chunk.byteLength;
  }
  return match;
}

function chunksIn(handle: Pick<Handle, 'read'>, size: number, keys: VaultKeys): AsyncIterable<Buffer> {
  const sizes = chunkSizesFor(size);
  // What is not above the least size is one chunk: it need not be copied through a chunker, of which each file has one.
  return size <= sizes.minBytes ? readUpTo(handle, size) : chunksOf(readUpTo(handle, size), keys.gear, sizes);
}

async function* readUpTo(handle: Pick<Handle, 'read'>, bytes: number): AsyncGenerator<Buffer> {
  const buffer = Buffer.allocUnsafe(Math.min(bytes, readBytes));
  for (let at = 0; at < bytes; ) {
    let have = 0;
    const want = Math.min(buffer.byteLength, bytes - at);
    // Filled before it is handed on: of a small file it is the one chunk.
    while (have < want) {
      const { bytesRead } = await handle.read(buffer, have, want - have, at + have);
      if (bytesRead === 0) break;
      have += bytesRead;
    }
    if (have === 0) return;
    at += have;
    yield buffer.subarray(0, have);
    if (have < want) return;
  }
}
