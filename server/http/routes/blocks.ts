/** Blocks and lists: asked about, sent, and given back. A device reaches those of its user's vault and no others. */
import type Router from '@koa/router';
import { encodeBlockFrameHeader, encodeBlockFramesEnd } from '../../../protocol/block-frames.ts';
import { bitAt, hashAt, hashCount } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import { ClaimRequest, FetchRequest, ListFetchRequest, type UploadHeader } from '../../../protocol/messages.ts';
import { Problem } from '../../../protocol/problems.ts';
import { readUploadHeader, uploadBodyBytesMax } from '../../../protocol/upload.ts';
import { ByteReader, blockStreamType } from '../../../protocol/wire.ts';
import {
  blockLength,
  type FetchedBlock,
  fetchBlocks,
  readBlock,
} from '../../../storage/archive/reading/read-blocks.ts';
import { claimBlocks } from '../../../storage/archive/writing/claim.ts';
import { claimLists, readLists, storeLists } from '../../../storage/archive/writing/lists.ts';
import { type UploadResult, uploadBlocks } from '../../../storage/archive/writing/upload.ts';
import { findAdmission } from '../../directory/quotas/admission.ts';
import { answer, streamed } from '../answers.ts';
import { message, stream } from '../bodies.ts';
import { readRange } from '../byte-range.ts';
import type { AppDeps, Context, RequestState } from '../deps.ts';
import { device } from '../device.ts';
import { hashParameter, readQuery } from '../parameters.ts';

const uploadType = 'application/vnd.holdfast.upload';
const bytesType = 'application/octet-stream';

export function blockRoutes(router: Router<RequestState>, deps: AppDeps): void {
  const { storage, directory, metrics, slots } = deps;

  router.post(
    '/v1/blocks/claim',
    device(),
    message(ClaimRequest, limits.messageBytesMax, async (ctx, request) => {
      const { vault } = ctx.state.device!;
      const blocks = await claimBlocks(storage, vault, request.blocks);
      const asked = hashCount(request.blocks);
      metrics.claimed({ asked, known: asked - countSet(blocks.send, asked) });
      const lists = request.lists.byteLength > 0 ? await claimLists(storage, vault, request.lists) : noLists;
      answer(ctx, { blocks: blocks.send, lists: lists.send, ...promised(blocks.until) });
    }),
  );

  router.post(
    '/v1/blocks',
    device(),
    stream(uploadType, uploadBodyBytesMax, async (ctx, body, length) => {
      const { vault } = ctx.state.device!;
      const reader = new ByteReader(body);
      const header = await readUploadHeader(reader, length);
      const blocks = await uploadBlocks(storage, vault, header, reader.pieces(sum(header.lengths)), {
        signal: ctx.state.signal,
        findAdmission: () => findAdmission(directory.database, vault),
      });
      // After the blocks, which they may name. If they are refused, the blocks stay.
      const lists = await storeLists(storage, vault, await listsFrom(reader, header));
      answerUpload(ctx, blocks, lists.stored);
    }),
  );

  router.put(
    '/v1/blocks/:hash',
    device(),
    stream(bytesType, limits.blockBytesMax, async (ctx, body, length) => {
      const hash = hashParameter(ctx);
      if (length === 0) throw new Problem('out_of_bounds', 'a block holds at least one byte', { field: 'body' });
      const { vault } = ctx.state.device!;
      const result = await uploadBlocks(storage, vault, { blocks: hash, lengths: [length] }, body, {
        signal: ctx.state.signal,
        findAdmission: () => findAdmission(directory.database, vault),
      });
      answerUpload(ctx, result, 0);
    }),
  );

  router.get('/v1/blocks/:hash', device('restore'), async (ctx) => {
    readQuery(ctx, {});
    const hash = hashParameter(ctx);
    const { deviceId, vault } = ctx.state.device!;
    const length = await blockLength(storage, vault, hash);
    if (length === null) throw absent();
    const etag = `"${hash.toString('hex')}"`;
    ctx.set({ ETag: etag, 'Cache-Control': 'private, max-age=31536000, immutable', 'Accept-Ranges': 'bytes' });
    if (matches(ctx.get('if-none-match'), etag)) {
      ctx.status = 304;
      return;
    }
    const range = readRange(ctx, { etag, length });
    ctx.status = range ? 206 : 200;
    if (range) ctx.set('Content-Range', `bytes ${range.offset}-${range.offset + range.length - 1}/${length}`);
    ctx.set('Content-Length', String(range?.length ?? length));
    if (ctx.method === 'HEAD') return streamed(ctx, bytesType, nothing());
    const release = await slots.fetches.take(deviceId, ctx.state.signal);
    try {
      const block = await readBlock(storage, vault, hash, range ?? undefined, ctx.state);
      if (!block) throw absent();
      await streamed(ctx, bytesType, block.stream);
    } finally {
      release();
    }
  });

  router.post(
    '/v1/blocks/fetch',
    device('restore'),
    message(FetchRequest, limits.messageBytesMax, async (ctx, request, { giveBack }) => {
      const { deviceId, vault } = ctx.state.device!;
      const release = await slots.fetches.take(deviceId, ctx.state.signal);
      giveBack(); // the hashes are kept, one message per slot
      try {
        await streamed(ctx, blockStreamType, frames(fetchBlocks(storage, vault, request.blocks, ctx.state)));
      } finally {
        release();
      }
    }),
  );

  router.post(
    '/v1/lists/fetch',
    device(),
    message(ListFetchRequest, limits.messageBytesMax, async (ctx, request, { giveBack }) => {
      const { deviceId, vault } = ctx.state.device!;
      const release = await slots.fetches.take(deviceId, ctx.state.signal);
      giveBack();
      try {
        await streamed(ctx, blockStreamType, frames(readLists(storage, vault, request.lists)));
      } finally {
        release();
      }
    }),
  );

  function answerUpload(ctx: Context, result: UploadResult, listsStored: number): void {
    metrics.blocks(result);
    answer(ctx, { stored: result.stored, known: result.known, listsStored, ...promised(result.until) });
  }

  /** Every promise is made before its answer, so that counted from the request it is never too long. */
  function promised(until: Date): { claimedUntil: number; claimedForMs: number } {
    return { claimedUntil: until.getTime(), claimedForMs: storage.settings.claimWindowMs };
  }
}

const noLists = { send: Buffer.alloc(0) };

/** Takes the lists of an upload from its body: each lies in one piece, and all of them are charged as the body is. */
async function listsFrom(reader: ByteReader, header: UploadHeader): Promise<{ hash: Buffer; blocks: Buffer }[]> {
  const lists: { hash: Buffer; blocks: Buffer }[] = [];
  for (const [index, length] of header.listLengths.entries())
    lists.push({ hash: hashAt(header.lists, index), blocks: (await reader.read(length))! });
  await reader.end();
  return lists;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** Pieces up to this are joined: a write per small block would cost more than the copy. */
const joinedBytes = 128 * 1024;

async function* frames(blocks: AsyncIterable<FetchedBlock>): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let held = 0;
  let count = 0;
  const join = (): Buffer => {
    const joined = Buffer.concat(parts, held);
    parts = [];
    held = 0;
    return joined;
  };
  for await (const { index, bytes } of blocks) {
    count++;
    const length = bytes?.reduce((sum, piece) => sum + piece.byteLength, 0) ?? 0;
    for (const piece of [encodeBlockFrameHeader(index, length), ...(bytes ?? [])]) {
      if (piece.byteLength > joinedBytes) {
        if (held > 0) yield join();
        yield piece;
      } else {
        parts.push(piece);
        held += piece.byteLength;
        if (held > joinedBytes) yield join();
      }
    }
  }
  parts.push(encodeBlockFramesEnd(count));
  held += 8;
  yield join();
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

function matches(ifNoneMatch: string, etag: string): boolean {
  return ifNoneMatch.split(',').some((each) => ['*', etag, `W/${etag}`].includes(each.trim()));
}

function absent(): Problem {
  return new Problem('not_found', 'the vault does not hold this block');
}

function countSet(bitmap: Uint8Array, count: number): number {
  let set = 0;
  for (let i = 0; i < count; i++) if (bitAt(bitmap, i)) set++;
  return set;
}
