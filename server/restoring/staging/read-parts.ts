/**
 * Reads any range of a staged archive: whole frames are fetched, opened, which authenticates them, and cut. A piece is read
 * while the one before it is sent; nothing is asked for that the reader has not come to, and no connection to the store is
 * kept while it is slow. What does not open is read once more; wrong again, it is damaged.
 */
import { ObjectNotFound, ObjectRangeInvalid, type ObjectStore } from '../../../storage/objects/object-store.ts';
import type { Room } from '../flow/room.ts';
import { FrameCipher, frameBytes, partKey, StagedDamaged, type StagedPlace, sealedFrameBytes } from './frames.ts';

export interface ReadParts extends StagedPlace {
  objects: Pick<ObjectStore, 'get'>;
  secret: Uint8Array;
  /** Bytes of the archive. */
  length: number;
  partFrames: number;
  signal: AbortSignal;
  /** The memory it shares with others; left out: it has all it needs. */
  room?: Room;
}

/** Frames in one request to the store: 1 MiB. Each reader holds one that is sealed, and two opened: 3 MiB; less, where room is short. */
const pieceFrames = 16;

interface Piece {
  part: number;
  /** Numbers of its first frame, and of the one after its last. */
  from: number;
  to: number;
}

interface OpenedPiece {
  frames: Buffer[];
  /** Of the room, until they are sent. */
  heldBytes: number;
}

/**
 * Room is taken for both forms of a piece before it is asked for; that of the opened one is given back when its reader has it.
 * @param range within the archive, of one byte at least
 * @throws while it is read: StagedDamaged; what the store throws; the signal's reason
 */
export async function* readParts(given: ReadParts, range: { offset: number; length: number }): AsyncGenerator<Buffer> {
  const left = new AbortController();
  const asked = { ...given, signal: AbortSignal.any([given.signal, left.signal]) };
  const share = asked.room?.enter();
  const giveBack = (bytes: number): void => {
    if (share && bytes > 0) asked.room!.giveBack(share.holding, bytes);
  };
  const cipher = new FrameCipher(asked.secret, asked.attempt);
  const end = range.offset + range.length;
  const pieces = piecesOf(asked, Math.floor(range.offset / frameBytes), Math.ceil(end / frameBytes));
  const open = async (piece: Piece): Promise<OpenedPiece> => {
    const heldBytes = (piece.to - piece.from) * frameBytes;
    const sealedBytes = (piece.to - piece.from) * sealedFrameBytes;
    if (share) await asked.room!.take(share.holding, heldBytes + sealedBytes, asked.signal);
    try {
      const frames = await readPiece(asked, cipher, piece);
      giveBack(sealedBytes);
      return { frames, heldBytes };
    } catch (error) {
      giveBack(heldBytes + sealedBytes);
      throw error;
    }
  };
  const start = (): Promise<OpenedPiece> | null => {
    const { value: piece } = pieces.next();
    if (!piece) return null;
    const opened = open(piece);
    opened.catch(() => {}); // told when it is its turn
    return opened;
  };
  let at = Math.floor(range.offset / frameBytes) * frameBytes;
  let heldBytes = 0;
  let next = start();
  try {
    while (next) {
      const opened: OpenedPiece = await next;
      heldBytes = opened.heldBytes;
      next = start();
      for (const frame of opened.frames) {
        asked.signal.throwIfAborted();
        const from = Math.max(0, range.offset - at);
        const to = Math.min(frame.byteLength, end - at);
        at += frame.byteLength;
        if (from < to) yield frame.subarray(from, to);
      }
      giveBack(heldBytes);
      heldBytes = 0;
    }
  } finally {
    left.abort(new DOMException('nobody reads on', 'AbortError'));
    giveBack(heldBytes);
    giveBack((await next?.catch(() => null))?.heldBytes ?? 0);
    share?.leave();
  }
}

function* piecesOf({ partFrames }: ReadParts, first: number, last: number): Generator<Piece, undefined> {
  for (let from = first; from < last; ) {
    const part = Math.floor(from / partFrames);
    const to = Math.min(last, from + pieceFrames, (part + 1) * partFrames);
    yield { part, from, to };
    from = to;
  }
  return undefined;
}

async function readPiece(asked: ReadParts, cipher: FrameCipher, piece: Piece): Promise<Buffer[]> {
  const sealed = Buffer.allocUnsafeSlow((piece.to - piece.from) * sealedFrameBytes);
  const opening = { cipher, sealed };
  try {
    return await readOnce(asked, opening, piece).catch((error: unknown) => {
      if (!(error instanceof StagedDamaged)) throw error;
      return readOnce(asked, opening, piece);
    });
  } finally {
    // Its memory is free now, and not when somebody collects it: what was opened of it is in buffers of its own.
    sealed.buffer.transfer(0);
  }
}

interface Opening {
  cipher: FrameCipher;
  /** Room for a piece. */
  sealed: Buffer;
}

/** What the store says is not there, or shorter, is damaged; whether it is the right store is for the caller to ask. */
async function readOnce(asked: ReadParts, { cipher, sealed }: Opening, { part, from, to }: Piece): Promise<Buffer[]> {
  const { objects, length, partFrames, signal } = asked;
  const lastFrame = Math.ceil(length / frameBytes) - 1;
  const plainBytes = (number: number): number => (number < lastFrame ? frameBytes : length - lastFrame * frameBytes);
  const sealedBytes = (number: number): number => plainBytes(number) + sealedFrameBytes - frameBytes;
  let bytes = 0;
  for (let number = from; number < to; number++) bytes += sealedBytes(number);
  const range = { offset: (from - part * partFrames) * sealedFrameBytes, length: bytes };
  try {
    let filled = 0;
    for await (const chunk of (await objects.get(partKey(asked, part), range, { signal })).stream) {
      sealed.set(chunk, filled);
      filled += chunk.byteLength;
    }
  } catch (cause) {
    if (cause instanceof ObjectNotFound || cause instanceof ObjectRangeInvalid)
      throw new StagedDamaged(`part ${part} is not there as it was stored`, { cause });
    throw cause;
  }
  const frames: Buffer[] = [];
  for (let number = from, at = 0; number < to; number++) {
    const next = at + sealedBytes(number);
    frames.push(cipher.openFrame(number, sealed.subarray(at, next)));
    at = next;
  }
  return frames;
}
