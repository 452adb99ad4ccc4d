/**
 * What a route takes as its body. Each reader says the type, the bound and the reading in the route's line; the bytes
 * are charged to the byte budget until the request is over, or its handler needs them no more.
 */
import type { Readable } from 'node:stream';
import type { z } from 'zod';
import { Problem } from '../../protocol/problems.ts';
import { decodeMessage, msgpackType, validate } from '../../protocol/wire.ts';
import { BodyReceiver, roomFor } from './body-receiver.ts';
import { type Context, type Handler, sessionOf } from './deps.ts';

/** What a message came in. */
export interface MessageBody {
  /** As they came. */
  readonly bytes: Buffer;
  /**
   * Gives the room of the bytes back to the byte budget before the request is over: for an answer that lasts as long
   * as its reader likes. What the handler keeps of the message is to be bounded by something else from then on.
   */
  giveBack(): void;
}

/** A msgpack message of at most `bytesMax` bytes, charged until the handler ends or gives its room back. */
export function message<S extends z.ZodType>(
  schema: S,
  bytesMax: number,
  handler: (ctx: Context, request: z.infer<S>, body: MessageBody) => Promise<void>,
): Handler {
  return (ctx) =>
    withBody(ctx, { type: msgpackType, bytesMax, lengthRequired: false }, async (body, _, giveBack) => {
      const bytes = await joined(body);
      await handler(ctx, decodeMessage(schema, bytes), { bytes, giveBack });
    });
}

/** A JSON document of at most `bytesMax` bytes, charged like a message. For people and their scripts. */
export function json<S extends z.ZodType>(
  schema: S,
  bytesMax: number,
  handler: (ctx: Context, request: z.infer<S>, body: MessageBody) => Promise<void>,
): Handler {
  return (ctx) =>
    withBody(ctx, { type: 'application/json', bytesMax, lengthRequired: false }, async (body, _, giveBack) => {
      const bytes = await joined(body);
      await handler(ctx, validate(schema, parseJson(bytes)), { bytes, giveBack });
    });
}

export const formType = 'application/x-www-form-urlencoded';

/** What a page's form sends, of at most `bytesMax` bytes, charged like a message. Each field once. */
export function form<S extends z.ZodType>(
  schema: S,
  bytesMax: number,
  handler: (ctx: Context, request: z.infer<S>, body: Pick<MessageBody, 'giveBack'>) => Promise<void>,
): Handler {
  const wanted = { type: formType, bytesMax, lengthRequired: false };
  return (ctx) =>
    withBody(ctx, wanted, async (body, _, giveBack) => {
      const fields: Record<string, string> = Object.create(null);
      for (const [name, value] of new URLSearchParams((await joined(body)).toString())) {
        if (name in fields) throw new Problem('malformed_request', `${name} comes twice`, { field: name });
        fields[name] = value;
      }
      await handler(ctx, validate(schema, { ...fields }), { giveBack });
    });
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString());
  } catch {
    throw new Problem('malformed_request', 'the body is not JSON', { field: '(whole message)' });
  }
}

/** A body of known length that is read as it comes. @param type null: whatever it says it is */
export function stream(
  type: string | null,
  bytesMax: number,
  handler: (ctx: Context, body: AsyncIterable<Uint8Array>, length: number) => Promise<void>,
): Handler {
  return (ctx) => withBody(ctx, { type, bytesMax, lengthRequired: true }, (body, length) => handler(ctx, body, length));
}

async function withBody(
  ctx: Context,
  wanted: { type: string | null; bytesMax: number; lengthRequired: boolean },
  use: (body: BodyReceiver, length: number, giveBack: () => void) => Promise<void>,
): Promise<void> {
  const length = checkHeaders(ctx, wanted);
  const bytesMax = length ?? wanted.bytesMax;
  const { body, giveBack, end } = await openCharged(ctx, rawBody(ctx), bytesMax);
  try {
    await use(body, bytesMax, giveBack);
  } finally {
    end();
  }
}

/** A body, or a part of one, that is charged as it arrives until its room is given back. `end` is called once, whatever happened. */
export async function openCharged(
  ctx: Context,
  source: Readable,
  bytesMax: number,
): Promise<{ body: BodyReceiver; giveBack: () => void; end: () => void }> {
  const { deps, signal, device, repository } = ctx.state;
  const session = sessionOf(ctx);
  // restic sends what was refused again from its first byte, after a pause that grows.
  const isPatient = repository !== undefined;
  const account = await deps.budget.open(roomFor(bytesMax), deps.windows.windowBytes(session), { signal, isPatient });
  account.device = (device ?? repository)?.deviceId ?? null;
  deps.windows.track(session, account);
  const body = new BodyReceiver(source, account, bytesMax);
  const giveBack = (): void => {
    deps.windows.untrack(session, account);
    deps.budget.close(account);
  };
  const end = (): void => {
    ctx.state.bytesIn += body.receivedBytes;
    giveBack();
  };
  return { body, giveBack, end };
}

/**
 * @param wanted.type null: whatever it says it is
 * @returns Content-Length, or null for a body that says its end only by ending
 */
export function checkHeaders(
  ctx: Context,
  { type, bytesMax, lengthRequired }: { type: string | null; bytesMax: number; lengthRequired: boolean },
): number | null {
  const given = ctx.get('content-type').split(';')[0]!.trim().toLowerCase();
  if (type !== null && given !== type)
    throw new Problem('unsupported_media_type', `the body must be ${type}`, { field: 'content-type' });
  if (ctx.get('content-encoding'))
    throw new Problem('unsupported_media_type', 'the body must not be encoded', { field: 'content-encoding' });
  const text = ctx.get('content-length');
  if (text === '') {
    if (lengthRequired) throw new Problem('length_required', 'the request must say its Content-Length');
    return null;
  }
  const length = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isNaN(length))
    throw new Problem('malformed_request', 'Content-Length is not a number', { field: 'content-length' });
  if (length > bytesMax)
    throw new Problem('body_too_large', `the body holds ${length} bytes, at most ${bytesMax}`, { bytesMax });
  return length;
}

/** HTTP/2: the stream itself; Node's compatibility layer would put a second queue before us. */
export function rawBody(ctx: Context): Readable {
  return (ctx.req as unknown as { stream?: Readable }).stream ?? ctx.req;
}

async function joined(body: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  const [only] = chunks;
  if (chunks.length === 1) return Buffer.from(only!.buffer, only!.byteOffset, only!.byteLength);
  return Buffer.concat(chunks);
}
