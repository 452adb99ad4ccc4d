/**
 * What the benchmark sends: incompressible bytes cut into blocks of one size, named and packed into uploads before any
 * clock runs. Every set of bodies is new to the server, though the bytes are made once: each block begins with a
 * fresh mark.
 */
import { createHash, randomBytes } from 'node:crypto';
import { joinHashes, sha256 } from '../protocol/hashes.ts';
import { encodeUpload, type SealedBlock } from '../protocol/upload.ts';

export interface BodyShape {
  blockBytes: number;
  blocksPerBody: number;
  bodies: number;
}

export interface UploadBody {
  /** n x 32 bytes, in the order of the body. */
  hashes: Buffer;
  blocks: number;
  /** Bytes of the blocks alone: what throughput counts. */
  blockBytes: number;
  /** The whole body, in pieces of at most 1 MiB. */
  parts: Uint8Array[];
  /** SHA-256 of the whole body. */
  digest: Buffer;
}

/** So much is handed to a stream at a time: a write for each 4 KiB would measure the client. */
const pieceBytes = 1024 * 1024;
/** 16 random bytes: no two blocks of a run begin alike. */
const markBytes = 16;

export function shapeBytes(shape: BodyShape): number {
  return shape.blockBytes * shape.blocksPerBody * shape.bodies;
}

/**
 * Marks the pool's blocks anew and makes bodies of them. The bodies are views of the pool: making the next ones ends
 * the use of these.
 * @param pool random bytes, at least as many as the shape has
 */
export function makeBodies(pool: Buffer, shape: BodyShape): UploadBody[] {
  if (pool.byteLength < shapeBytes(shape))
    throw new RangeError(`${pool.byteLength} bytes are too few for ${shapeBytes(shape)}`);
  const bodyBytes = shape.blockBytes * shape.blocksPerBody;
  return Array.from({ length: shape.bodies }, (_, body) => {
    const content = pool.subarray(body * bodyBytes, (body + 1) * bodyBytes);
    const marks = randomBytes(markBytes * shape.blocksPerBody);
    const blocks: SealedBlock[] = Array.from({ length: shape.blocksPerBody }, (_, index) => {
      const bytes = content.subarray(index * shape.blockBytes, (index + 1) * shape.blockBytes);
      marks.copy(bytes, 0, index * markBytes, (index + 1) * markBytes);
      return { hash: sha256(bytes), bytes };
    });
    const [prefix, header] = encodeUpload(blocks).chunks;
    const parts: Uint8Array[] = [Buffer.concat([prefix!, header!])];
    for (let at = 0; at < content.byteLength; at += pieceBytes) parts.push(content.subarray(at, at + pieceBytes));
    const hash = createHash('sha256');
    for (const part of parts) hash.update(part);
    return {
      hashes: joinHashes(blocks.map((block) => block.hash)),
      blocks: blocks.length,
      blockBytes: bodyBytes,
      parts,
      digest: hash.digest(),
    };
  });
}
