/**
 * Puts a file into a plain archive, under a name that is the SHA-256 of its content, or any other.
 *
 * Nothing of it is seen before all of it has arrived, was checked, and is durable: the content is stored first, under a
 * claim, and one commit gives it its name. A file of up to 32 MiB is one block, whose own name is checked while it
 * arrives; a larger one is cut into pieces of one size, so that the same file sent again is the same blocks, and one
 * piece is held at a time. What was cut off leaves blocks that nothing names, and those are reclaimed.
 *
 * The same file again changes nothing, but its bytes are read and checked all the same: of a block that is damaged or gone
 * they take the place.
 */
import { createHash } from 'node:crypto';
import { sha256 } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import { Problem } from '../../../protocol/problems.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';
import { storeHashedBlock, type UploadOptions, type UploadResult, uploadBlocks } from '../writing/upload.ts';
import { commitPlain, type PlainChanged, type PlainContent, type PlainName } from './commit-plain.ts';

const MiB = 1024 * 1024;

/** Bytes of a piece of a file that is more than one block. */
export const pieceBytes = 16 * MiB;
/** Bytes of a file: a version names its pieces itself, and agents' name as many. */
export const fileBytesMax = 1_024 * pieceBytes;

export interface PutResult {
  /** What became of the name; null: it was so already. */
  changed: PlainChanged | null;
  upload: UploadResult | null;
}

/**
 * A file of at most `limits.blockBytesMax` bytes whose name is its digest.
 * @param digest what the content must hash to
 * @param body exactly `length` bytes
 * @throws Problem malformed_request when it does not: then nothing is stored; quota_exceeded, and as commitPlain
 */
export async function putFile(
  storage: Storage,
  ref: ArchiveRef,
  { file, digest, length }: { file: PlainName; digest: Buffer; length: number },
  body: AsyncIterable<Uint8Array>,
  options: UploadOptions = {},
): Promise<PutResult> {
  if (length === 0) {
    if (!sha256(Buffer.alloc(0)).equals(digest)) throw misnamed();
    return { changed: await commit(storage, ref, file, { size: 0, blocks: Buffer.alloc(0) }, options), upload: null };
  }
  const upload = await uploadBlocks(storage, ref.vault, { blocks: digest, lengths: [length] }, body, options).catch(
    (error: unknown) => {
      throw error instanceof Problem && error.code === 'block_corrupt' ? misnamed() : error;
    },
  );
  return { changed: await commit(storage, ref, file, { size: length, blocks: digest }, options), upload };
}

/**
 * A file of any bounded size whose name is its digest, a piece at a time.
 * @param pieces each of `pieceBytes` but for the last, `length` bytes together; the one before is let go when the next is asked for
 */
export async function putLargeFile(
  storage: Storage,
  ref: ArchiveRef,
  { file, digest, length }: { file: PlainName; digest: Buffer; length: number },
  pieces: AsyncIterable<AsyncIterable<Uint8Array>>,
  options: UploadOptions = {},
): Promise<PutResult> {
  const whole = createHash('sha256');
  const blocks: Buffer[] = [];
  const upload = { stored: 0, storedBytes: 0, known: 0, knownBytes: 0, until: new Date(0) };
  let arrived = 0;
  for await (const piece of pieces) {
    const own = createHash('sha256');
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of piece) {
      whole.update(chunk);
      own.update(chunk);
      chunks.push(chunk);
      bytes += chunk.byteLength;
    }
    const hash = own.digest();
    const done = await storeHashedBlock(storage, ref.vault, { hash, length: bytes, chunks }, options);
    upload.stored += done.stored;
    upload.storedBytes += done.storedBytes;
    upload.known += done.known;
    upload.knownBytes += done.knownBytes;
    upload.until = done.until;
    blocks.push(hash);
    arrived += bytes;
  }
  if (arrived !== length) throw new Problem('malformed_request', 'the body ends too early', { field: 'body' });
  if (!whole.digest().equals(digest)) throw misnamed();
  const content = { size: length, blocks: Buffer.concat(blocks) };
  return { changed: await commit(storage, ref, file, content, options), upload };
}

/**
 * A small file under a name that says nothing of its content. It is never written over: what is there stays, unless it is
 * the same or hidden.
 * @param bytes at most `limits.blockBytesMax`
 * @throws Problem forbidden when there is another
 */
export async function putNamedFile(
  storage: Storage,
  ref: ArchiveRef,
  file: PlainName,
  bytes: Uint8Array,
  options: UploadOptions = {},
): Promise<PutResult> {
  if (bytes.byteLength > limits.blockBytesMax) throw new RangeError('a file under a name of its own is one block');
  const blocks = bytes.byteLength === 0 ? Buffer.alloc(0) : sha256(bytes);
  const upload =
    bytes.byteLength === 0
      ? null
      : await storeHashedBlock(
          storage,
          ref.vault,
          { hash: blocks, length: bytes.byteLength, chunks: [bytes] },
          options,
        );
  const content = { size: bytes.byteLength, blocks };
  return { changed: await commit(storage, ref, file, content, { ...options, keepsOther: true }), upload };
}

/** Whoever has gone meanwhile may have hidden the name since, and counts on that: so nothing is named for them any more. */
async function commit(
  storage: Storage,
  ref: ArchiveRef,
  file: PlainName,
  content: PlainContent,
  { signal, keepsOther = false }: UploadOptions & { keepsOther?: boolean },
): Promise<PlainChanged | null> {
  signal?.throwIfAborted();
  const [changed] = await storage.database.transaction((tx) => commitPlain(tx, ref, [{ file, content, keepsOther }]));
  return changed ?? null;
}

function misnamed(): Problem {
  return new Problem('malformed_request', 'the content does not hash to its name; nothing was stored', {
    field: 'body',
  });
}
