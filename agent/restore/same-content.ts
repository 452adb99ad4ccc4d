/**
 * Whether bytes that are here are those of a version, without fetching any. Sealing is deterministic: cut and sealed
 * again, equal bytes give blocks of the same names. So a file that was restored before, or begun, is recognised by its
 * content and not by its name, size and time; and if sealing itself changed since, the answer is only "fetch it".
 */
import type { FileHandle } from 'node:fs/promises';
import { hashAt, hashCount, sha256 } from '../../protocol/hashes.ts';
import { chunkSizesFor, chunksOf, readSealedHeader, sealAsync, type VaultKeys } from '../../protocol/sealing/index.ts';

export interface Content {
  size: number;
  blocks: Buffer;
  /** Sealed under the generation of the version's blocks, as far as can be told. */
  attributes: Buffer;
}

const readBytes = 1024 * 1024;

/**
 * How many of the version's first blocks the file holds, and their plain bytes. Reads at most `content.size` bytes.
 */
export async function matchingPrefix(
  handle: FileHandle,
  content: Content,
  sealing: { keys: VaultKeys; vault: number },
  signal?: AbortSignal,
): Promise<{ blocks: number; bytes: number }> {
  const { generation } = readSealedHeader(content.attributes);
  const match = { blocks: 0, bytes: 0 };
  let padding = false;
  for await (const chunk of chunksOf(readUpTo(handle, content.size), sealing.keys.gear, chunkSizesFor(content.size))) {
    signal?.throwIfAborted();
    if (match.blocks === hashCount(content.blocks)) break;
    const wanted = hashAt(content.blocks, match.blocks);
    const as = { type: 'block', vault: sealing.vault, generation } as const;
    let equal = sha256(await sealAsync(sealing.keys, { ...as, padding }, chunk)).equals(wanted);
    if (!equal && match.blocks === 0) {
      // Whether an organization pads is not told; the first block shows it.
      padding = true;
      equal = sha256(await sealAsync(sealing.keys, { ...as, padding }, chunk)).equals(wanted);
    }
    if (!equal) break;
    match.blocks++;
    match.bytes += chunk.byteLength;
  }
  return match;
}

async function* readUpTo(handle: FileHandle, bytes: number): AsyncGenerator<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(Math.min(bytes, readBytes) || 1);
  for (let at = 0; at < bytes; ) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.byteLength, bytes - at), at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}
