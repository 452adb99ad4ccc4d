/** One archive: commits into it, and the ways to read it. A device writes to its own and reads its user's. */
import type Router from '@koa/router';
import { sha256 } from '../../../protocol/hashes.ts';
import { limits } from '../../../protocol/limits.ts';
import { CommitRequest, type VersionsFrame } from '../../../protocol/messages.ts';
import { encodeFrame, frameStreamType } from '../../../protocol/wire.ts';
import { listDamagedPaths } from '../../../storage/archive/checking/damage.ts';
import { readHistory, readTree, streamVersions } from '../../../storage/archive/reading/read-tree.ts';
import { commitVersions } from '../../../storage/archive/writing/commit.ts';
import { noteArchiveRead } from '../../directory/devices/archive-reads.ts';
import { answer, streamed } from '../answers.ts';
import { message } from '../bodies.ts';
import { addressOf } from '../client-address.ts';
import type { AppDeps, Context, RequestState } from '../deps.ts';
import { device } from '../device.ts';
import {
  flag,
  momentOrNull,
  nameOrNull,
  pageLimit,
  pathOrNull,
  pathValue,
  readQuery,
  seqOrNull,
} from '../parameters.ts';
import { type Reading, ToldReadings } from '../told-readings.ts';

export function archiveRoutes(router: Router<RequestState>, { storage, directory, metrics, slots }: AppDeps): void {
  const told = new ToldReadings();
  router.post(
    '/v1/archives/:archive/commits',
    device('own'),
    message(CommitRequest, limits.commitBodyBytesMax, async (ctx, request, { bytes }) => {
      const commit = await commitVersions(storage, ctx.state.archive!, request, sha256(bytes));
      metrics.versionsCommitted(commit.count);
      answer(ctx, commit);
    }),
  );

  router.get('/v1/archives/:archive/tree', device('read'), async (ctx) => {
    const query = readQuery(ctx, {
      path: pathValue,
      at: momentOrNull,
      deleted: flag,
      after: nameOrNull,
      limit: pageLimit,
    });
    answer(ctx, await readTree(storage, ctx.state.archive!, query));
  });

  router.get('/v1/archives/:archive/versions', device('read'), async (ctx) => {
    const query = readQuery(ctx, {
      path: pathValue,
      at: momentOrNull,
      seq: seqOrNull,
      after: pathOrNull,
      deleted: flag,
    });
    const reader = ctx.state.device!;
    const archive = ctx.state.archive!;
    const release = await slots.versionStreams.take(reader.deviceId, ctx.state.signal);
    try {
      const { path, seq: asked, after, deleted } = query;
      const readAt = (seq: number): Reading => ({
        ...readingOf(ctx, path),
        moment: { seq, deleted },
      });
      // It goes on at the moment that its beginning was answered with.
      const goesOn = after !== null && asked !== null && told.has(readAt(asked));
      if (!goesOn) await noteArchiveRead(directory, reader, { ...query, archive }, addressOf(ctx));
      const onBegin = (seq: number): void => {
        if (!goesOn) told.add(readAt(seq));
      };
      await streamed(ctx, frameStreamType, encoded(streamVersions(storage, archive, query), onBegin));
    } finally {
      release();
    }
  });

  router.get('/v1/archives/:archive/history', device('read'), async (ctx) => {
    const query = readQuery(ctx, { path: pathValue, after: seqOrNull, limit: pageLimit });
    const archive = ctx.state.archive!;
    const reader = ctx.state.device!;
    const { path } = query;
    const reading = { ...readingOf(ctx, path), moment: null };
    // It names the blocks of every version: whoever has it can restore the file.
    if (query.after === null || !told.has(reading)) {
      await noteArchiveRead(directory, reader, { archive, path, at: null, deleted: true }, addressOf(ctx));
      told.add(reading);
    }
    answer(ctx, await readHistory(storage, archive, query));
  });

  router.get('/v1/archives/:archive/damaged', device('own'), async (ctx) => {
    const { after, limit } = readQuery(ctx, { after: pathValue, limit: pageLimit });
    answer(ctx, await listDamagedPaths(storage, ctx.state.archive!, { after, limit }));
  });
}

function readingOf(ctx: Context, path: Buffer): Omit<Reading, 'moment'> {
  const { vault, archive } = ctx.state.archive!;
  return { device: ctx.state.device!.deviceId, address: addressOf(ctx), vault, archive, path };
}

async function* encoded(
  frames: AsyncIterable<VersionsFrame>,
  onBegin: (seq: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const frame of frames) {
    if (frame.frame === 'begin') onBegin(frame.seq);
    yield encodeFrame(frame);
  }
}
