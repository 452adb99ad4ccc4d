/** The shapes an answer has: a message, or a stream of bytes that is whole or visibly broken. */
import { Problem } from '../../protocol/problems.ts';
import { encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { breathe } from '../restoring/flow/breathe.ts';
import { ClientGone } from './body-receiver.ts';
import type { Context } from './deps.ts';

/** What is written at once: so much a reader must take within `writeStallMs`. */
const sliceBytes = 256 * 1024;

/** A msgpack message as the answer. */
export function answer(ctx: Context, message: object, status = 200): void {
  ctx.status = status;
  ctx.body = encodeMessage(message);
  ctx.set('Content-Type', msgpackType);
  ctx.set('Cache-Control', 'no-store');
}

/**
 * Sends a stream as the answer, at the reader's pace. An error before the first bytes becomes a problem; one after
 * them cuts the stream, so that a cut answer never looks like a whole one. A reader that takes nothing for
 * `writeStallMs` is cut.
 * @param source abandoned (its `return` is called) when the client goes
 */
export async function streamed(ctx: Context, type: string, source: AsyncIterable<Uint8Array>): Promise<void> {
  ctx.set('Content-Type', type);
  if (!ctx.res.hasHeader('Cache-Control')) ctx.set('Cache-Control', 'no-store');
  if (ctx.status === 404) ctx.status = 200;
  if (ctx.method === 'HEAD') {
    ctx.respond = false;
    ctx.res.end();
    return;
  }
  const { res } = ctx;
  const iterator = source[Symbol.asyncIterator]();
  try {
    let next = await iterator.next();
    ctx.respond = false;
    for (; !next.done; next = await iterator.next()) await write(ctx, next.value);
    if (res.destroyed) throw new ClientGone();
    res.end();
  } finally {
    await iterator.return?.();
  }
}

async function write(ctx: Context, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.byteLength; at += sliceBytes) {
    await breathe();
    // Nothing is waited for between this look and the write: who goes while it is others' turn is gone at once.
    if (ctx.state.signal.aborted || ctx.res.destroyed) throw new ClientGone();
    const slice = bytes.subarray(at, at + sliceBytes);
    ctx.state.bytesOut += slice.byteLength;
    if (!ctx.res.write(slice)) await drained(ctx);
  }
}

function drained(ctx: Context): Promise<void> {
  const { res } = ctx;
  return new Promise((resolve, reject) => {
    const settle = (act: () => void) => (): void => {
      clearTimeout(timer);
      res.off('drain', onDrain).off('close', onClose);
      act();
    };
    const onDrain = settle(resolve);
    const onClose = settle(() => reject(new ClientGone()));
    const onStall = settle(() => reject(new Problem('request_timeout', 'the client does not read its answer')));
    const timer = setTimeout(onStall, ctx.state.deps.settings.writeStallMs);
    res.on('drain', onDrain).on('close', onClose);
  });
}
