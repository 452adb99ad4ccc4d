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
import type { AppDeps, RequestState } from '../deps.ts';
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

export function archiveRoutes(router: Router<RequestState>, { storage, directory, metrics, slots }: AppDeps): void {
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
      if (query.after === null) await noteArchiveRead(directory, reader, { ...query, archive }, addressOf(ctx));
      await streamed(ctx, frameStreamType, encoded(streamVersions(storage, archive, query)));
    } finally {
      release();
    }
  });

  router.get('/v1/archives/:archive/history', device('read'), async (ctx) => {
    const query = readQuery(ctx, { path: pathValue, after: seqOrNull, limit: pageLimit });
    answer(ctx, await readHistory(storage, ctx.state.archive!, query));
  });

  router.get('/v1/archives/:archive/damaged', device('own'), async (ctx) => {
    const { after, limit } = readQuery(ctx, { after: pathValue, limit: pageLimit });
    answer(ctx, await listDamagedPaths(storage, ctx.state.archive!, { after, limit }));
  });
}

async function* encoded(frames: AsyncIterable<VersionsFrame>): AsyncGenerator<Uint8Array> {
  for await (const frame of frames) yield encodeFrame(frame);
}
