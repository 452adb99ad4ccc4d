/** Small objects that hold text: the fence, heads of the audit log. */
import { ObjectNotFound, type ObjectStore } from './object-store.ts';

/** @returns null when there is no such object; what is longer than `bytesMax`, too long to be ours, is cut */
export async function readText(objects: ObjectStore, key: string, bytesMax: number): Promise<string | null> {
  try {
    const pieces: Uint8Array[] = [];
    let bytes = 0;
    for await (const piece of (await objects.get(key)).stream) {
      pieces.push(piece);
      bytes += piece.byteLength;
      if (bytes > bytesMax) break;
    }
    return Buffer.concat(pieces).toString();
  } catch (error) {
    if (error instanceof ObjectNotFound) return null;
    throw error;
  }
}
