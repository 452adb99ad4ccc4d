/**
 * The body of an upload: 4 bytes big-endian header length, the msgpack header, then the blocks' bytes and the lists'
 * bytes in the header's order, and nothing after them. The header says every length, so that the whole is known to be
 * consistent before a byte of a block is kept.
 */
import { hashCount, joinHashes } from './hashes.ts';
import { limits } from './limits.ts';
import type { List } from './lists.ts';
import { UploadHeader } from './messages.ts';
import { Problem } from './problems.ts';
import { type ByteReader, decodeMessage, encodeMessage } from './wire.ts';

export interface SealedBlock {
  hash: Uint8Array;
  bytes: Uint8Array;
}

/** The pieces of an upload's body, to be sent one after the other, and their total length. */
export function encodeUpload(
  blocks: readonly SealedBlock[],
  lists: readonly List[] = [],
): { length: number; chunks: Uint8Array[] } {
  const named = {
    lists: joinHashes(lists.map((list) => list.hash)),
    listLengths: lists.map((list) => list.blocks.byteLength),
  };
  const header = encodeMessage({
    blocks: joinHashes(blocks.map((block) => block.hash)),
    lengths: blocks.map((block) => block.bytes.byteLength),
    ...(lists.length > 0 ? named : {}),
  });
  const prefix = Buffer.allocUnsafe(4);
  prefix.writeUInt32BE(header.byteLength);
  const chunks = [prefix, header, ...blocks.map((block) => block.bytes), ...lists.map((list) => list.blocks)];
  return { length: chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0), chunks };
}

/**
 * Reads and checks an upload's header; what the reader still holds is the blocks' bytes and the lists'.
 * @param contentLength bytes of the whole body
 * @throws Problem malformed_request or out_of_bounds, with the field
 */
export async function readUploadHeader(reader: ByteReader, contentLength: number): Promise<UploadHeader> {
  const headerBytes = (await reader.read(4))!.readUInt32BE(0);
  if (headerBytes > limits.uploadHeaderBytesMax) {
    throw new Problem(
      'out_of_bounds',
      `the header holds ${headerBytes} bytes, at most ${limits.uploadHeaderBytesMax}`,
      { field: 'header' },
    );
  }
  if (headerBytes > contentLength - 4)
    throw new Problem('malformed_request', 'the header is longer than the body', { field: 'header' });
  const header = decodeMessage(UploadHeader, (await reader.read(headerBytes))!);
  checkCounts(header.blocks, header.lengths, 'lengths');
  checkCounts(header.lists, header.listLengths, 'listLengths');
  if (header.lengths.length + header.listLengths.length === 0)
    throw new Problem('out_of_bounds', 'an upload holds at least one block or list', { field: 'blocks' });
  const bodyBytes = [...header.lengths, ...header.listLengths].reduce((sum, length) => sum + length, 0);
  if (bodyBytes > limits.uploadBytesMax) {
    throw new Problem(
      'out_of_bounds',
      `the blocks and lists hold ${bodyBytes} bytes, at most ${limits.uploadBytesMax}`,
      { field: 'lengths' },
    );
  }
  if (4 + headerBytes + bodyBytes !== contentLength) {
    throw new Problem(
      'malformed_request',
      `the lengths add up to ${4 + headerBytes + bodyBytes} bytes, the body has ${contentLength}`,
      { field: 'lengths' },
    );
  }
  return header;
}

function checkCounts(hashes: Buffer, lengths: readonly number[], field: string): void {
  if (hashCount(hashes) === lengths.length) return;
  throw new Problem('malformed_request', `${hashCount(hashes)} hashes and ${lengths.length} lengths`, { field });
}

/** Most bytes an upload's body may have in all. */
export const uploadBodyBytesMax = 4 + limits.uploadHeaderBytesMax + limits.uploadBytesMax;
