/** Bytes in pieces that suit a socket: small ones joined, large ones cut without a copy. */
const joinedBytes = 64 * 1024;
const pieceBytesMax = 1024 * 1024;

export async function* inPieces(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let joined: Buffer[] = [];
  let bytes = 0;
  for await (const buffer of source) {
    if (bytes > 0 && bytes + buffer.byteLength > joinedBytes) {
      yield Buffer.concat(joined, bytes);
      joined = [];
      bytes = 0;
    }
    if (buffer.byteLength > joinedBytes) {
      for (let at = 0; at < buffer.byteLength; at += pieceBytesMax) yield buffer.subarray(at, at + pieceBytesMax);
    } else if (buffer.byteLength > 0) {
      joined.push(buffer);
      bytes += buffer.byteLength;
    }
  }
  if (bytes > 0) yield Buffer.concat(joined, bytes);
}
