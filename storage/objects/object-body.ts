/**
 * What every store does with a body: hold it to its promised length, and stop when asked to.
 * The last piece is handed on only when the body is known to be whole, so a store that streams to a remote
 * place never completes an object whose body turns out wrong.
 */
import { type ObjectBody, ObjectLengthMismatch } from './object-store.ts';

/** Bytes of all chunks. */
export function chunksLength(chunks: readonly Uint8Array[]): number {
  let length = 0;
  for (const chunk of chunks) length += chunk.byteLength;
  return length;
}

/**
 * The body as pieces, in order, none of them empty. Throws `ObjectLengthMismatch` before the last piece of a body that
 * is too short or too long, and the signal's reason as soon as it is aborted, even while the body is silent.
 */
export async function* bodyPieces(key: string, body: ObjectBody, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  if ('chunks' in body) {
    if (chunksLength(body.chunks) !== body.length) throw new ObjectLengthMismatch(key, body.length);
    for (const chunk of body.chunks) {
      signal?.throwIfAborted();
      if (chunk.byteLength > 0) yield chunk;
    }
    return;
  }
  let received = 0;
  let held: Uint8Array | undefined;
  for await (const piece of untilAborted(body.stream(), signal)) {
    if (piece.byteLength === 0) continue;
    received += piece.byteLength;
    if (received > body.length) throw new ObjectLengthMismatch(key, body.length);
    if (held) yield held;
    held = piece;
  }
  if (received !== body.length) throw new ObjectLengthMismatch(key, body.length);
  if (held) yield held;
}

/** Iterates the source, but throws the signal's reason at once when it is aborted; the source is then told to end. */
export async function* untilAborted<T>(source: AsyncIterable<T>, signal?: AbortSignal): AsyncGenerator<T> {
  if (!signal) {
    yield* source;
    return;
  }
  signal.throwIfAborted();
  const iterator = source[Symbol.asyncIterator]();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  aborted.catch(() => {});
  const onAbort = () => reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  let ended = false;
  try {
    for (;;) {
      const next = await Promise.race([iterator.next(), aborted]);
      if (next.done) {
        ended = true;
        return;
      }
      yield next.value;
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
    // Not awaited: a source that is stuck in next() would never answer.
    if (!ended) iterator.return?.().catch(() => {});
  }
}

/** Gathers pieces into groups of exactly `groupBytes` (the last may be smaller), without copying. */
export async function* pieceGroups(
  pieces: AsyncIterable<Uint8Array>,
  groupBytes: number,
): AsyncGenerator<Uint8Array[]> {
  let group: Uint8Array[] = [];
  let room = groupBytes;
  for await (const piece of pieces) {
    for (let rest = piece; rest.byteLength > 0; ) {
      const taken = rest.subarray(0, room);
      rest = rest.subarray(taken.byteLength);
      group.push(taken);
      room -= taken.byteLength;
      if (room > 0) continue;
      yield group;
      group = [];
      room = groupBytes;
    }
  }
  if (group.length > 0) yield group;
}

/**
 * A stream that runs `release` exactly once: when it ended, failed or was abandoned, also if it was never begun,
 * which a generator's `finally` would miss.
 */
export function releasingStream(
  source: AsyncIterator<Uint8Array>,
  release: () => Promise<void> | void,
): AsyncIterable<Uint8Array> & AsyncIterator<Uint8Array> {
  let released: Promise<void> | undefined;
  let finished = false;
  const releaseOnce = () => {
    finished = true;
    released ??= Promise.resolve(release());
    return released;
  };
  return {
    async next() {
      if (finished) return { done: true, value: undefined };
      try {
        const next = await source.next();
        if (next.done) await releaseOnce();
        return next;
      } catch (error) {
        await releaseOnce();
        throw error;
      }
    },
    async return() {
      await releaseOnce();
      await source.return?.();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
