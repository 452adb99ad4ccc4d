/**
 * Stores an archive as it is made: bytes in, sealed parts in the bucket. Holds two parts at most: one that grows, and one on
 * its way. Returns when the last is stored, so who goes on after it has a whole archive.
 */
import type { ObjectStore } from '../../../storage/objects/object-store.ts';
import { FrameCipher, frameBytes, partFramesDefault, partKey, type StagedPlace, sealedFrameBytes } from './frames.ts';

export interface StoreParts extends StagedPlace {
  objects: Pick<ObjectStore, 'put'>;
  /** `stagingKeyBytes` at random, for this attempt alone. */
  secret: Uint8Array;
  partFrames?: number;
  signal: AbortSignal;
  /** Asked before each part is stored, with what there is in the bucket when it is. May throw: then it is not. */
  mayStore: (storedBytes: number) => Promise<void>;
}

export interface StoredParts {
  /** Bytes of the archive. */
  length: number;
  /** Bytes in the bucket. */
  storedBytes: number;
}

/** @throws what the store, `mayStore` and the source throw; the signal's reason */
export async function storeParts(source: AsyncIterable<Buffer>, asked: StoreParts): Promise<StoredParts> {
  const { objects, secret, attempt, partFrames = partFramesDefault, signal, mayStore } = asked;
  const cipher = new FrameCipher(secret, attempt);
  const done: StoredParts = { length: 0, storedBytes: 0 };
  const frame = Buffer.allocUnsafe(frameBytes);
  let filled = 0;
  let frames = 0;
  // One grows while the other is on its way. New ones each time would wait for the collector, and be most of the memory.
  const room = [0, 1].map(() => Buffer.allocUnsafe(partFrames * sealedFrameBytes));
  let partBytes = 0;
  let parts = 0;
  let onItsWay: Promise<void> = Promise.resolve();

  const endFrame = (): void => {
    for (const piece of cipher.sealFrame(frames, frame.subarray(0, filled))) {
      room[parts % 2]!.set(piece, partBytes);
      partBytes += piece.byteLength;
      // Copied: its memory is free now, and not when somebody collects it.
      if (piece.byteLength === piece.buffer.byteLength) (piece.buffer as ArrayBuffer).transfer(0);
    }
    frames++;
    filled = 0;
  };
  const storePart = async (): Promise<void> => {
    const length = partBytes;
    const chunks = [room[parts % 2]!.subarray(0, length)];
    const key = partKey(asked, parts++);
    partBytes = 0;
    await onItsWay;
    signal.throwIfAborted();
    await mayStore(done.storedBytes + length);
    done.storedBytes += length;
    onItsWay = objects.put(key, { length, chunks }, { signal });
    onItsWay.catch(() => {}); // told where it is waited for
  };

  try {
    for await (const bytes of source) {
      for (let at = 0; at < bytes.byteLength; ) {
        const taken = bytes.copy(frame, filled, at, Math.min(bytes.byteLength, at + frameBytes - filled));
        at += taken;
        filled += taken;
        done.length += taken;
        if (filled < frameBytes) continue;
        endFrame();
        if (frames % partFrames === 0) await storePart();
      }
    }
    if (filled > 0) endFrame();
    if (partBytes > 0) await storePart();
  } finally {
    // What is on its way when something else fails must have ended before anybody deletes what there is.
    await onItsWay.catch(() => {});
  }
  await onItsWay;
  return done;
}
