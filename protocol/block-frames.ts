/**
 * The answer to a fetch: for each block a frame of two 4-byte big-endian numbers, the index of its hash in the
 * request and its length, then its bytes. Frames come in the order the server read them, not the order asked.
 * Length 0 says that the vault does not have the block, or that it is damaged. The stream ends with the index
 * 0xffffffff and the number of frames before it; without that it was cut, and what is missing is asked again.
 */
import { limits } from './limits.ts';
import { Problem } from './problems.ts';
import { ByteReader } from './wire.ts';

const END = 0xffff_ffff;

export interface BlockFrame {
  index: number;
  /** null: absent or damaged. */
  bytes: Buffer | null;
}

export function encodeBlockFrameHeader(index: number, length: number): Buffer {
  const header = Buffer.allocUnsafe(8);
  header.writeUInt32BE(index, 0);
  header.writeUInt32BE(length, 4);
  return header;
}

export function encodeBlockFramesEnd(frames: number): Buffer {
  return encodeBlockFrameHeader(END, frames);
}

/**
 * Reads the frames of a fetch.
 * @throws Problem malformed_request when the stream is cut short or says what cannot be
 */
export async function* decodeBlockFrames(source: AsyncIterable<Uint8Array>, asked: number): AsyncGenerator<BlockFrame> {
  const reader = new ByteReader(source);
  for (let frames = 0; ; frames++) {
    const header = (await reader.read(8))!;
    const index = header.readUInt32BE(0);
    const length = header.readUInt32BE(4);
    if (index === END) {
      if (length !== frames)
        throw new Problem('malformed_request', `${frames} frames came, ${length} were sent`, { field: 'body' });
      return;
    }
    if (index >= asked || length > limits.blockBytesMax) {
      throw new Problem('malformed_request', `a frame for block ${index} of ${length} bytes was not asked for`, {
        field: 'body',
      });
    }
    yield { index, bytes: length === 0 ? null : (await reader.read(length))! };
  }
}
