/**
 * restic's REST backend protocol (restic's documentation, "REST Backend"), with what its client demands beyond it: exactly 200
 * for what worked, the length of what is asked for, 404 for what cannot be. docs/decisions/restic.md says why each is as it is.
 *
 * A repository is an archive of plain files: what is POSTed appears whole or not at all, and what is DELETEd is hidden.
 */
import type Router from '@koa/router';
import { limits } from '../../../protocol/limits.ts';
import { Problem } from '../../../protocol/problems.ts';
import { fenceDefaults, openFence } from '../../../storage/archive/checking/fence.ts';
import type { PlainName } from '../../../storage/archive/plain-files/commit-plain.ts';
import { hideFile } from '../../../storage/archive/plain-files/hide-file.ts';
import { listFolder, statFile } from '../../../storage/archive/plain-files/list-folder.ts';
import {
  fileBytesMax,
  type PutResult,
  pieceBytes,
  putFile,
  putLargeFile,
  putNamedFile,
} from '../../../storage/archive/plain-files/put-file.ts';
import { readFile } from '../../../storage/archive/plain-files/read-file.ts';
import { findAdmission } from '../../directory/quotas/admission.ts';
import { streamed } from '../answers.ts';
import { checkHeaders, openCharged, rawBody, stream } from '../bodies.ts';
import { parseRange } from '../byte-range.ts';
import type { AppDeps, Context, RequestState } from '../deps.ts';
import { assertMayHide, assertMayPut, configFile, fileOf, folderOf, isLock } from './names.ts';
import { piecesOf } from './pieces.ts';
import { repository } from './repository.ts';

const listV1 = 'application/vnd.x.restic.rest.v1';
const listV2 = 'application/vnd.x.restic.rest.v2';
const bytesType = 'application/octet-stream';

/** restic's has some 150 bytes. */
const configBytesMax = 64 * 1024;
/** restic's have some 200 bytes; a token for reading writes these and nothing else. */
const lockBytesMax = 64 * 1024;

export function resticRoutes(router: Router<RequestState>, { storage, directory, metrics, slots }: AppDeps): void {
  const root = '/restic/:repository/';
  const config = '/restic/:repository/config';
  const folder = '/restic/:repository/:type/';
  const file = '/restic/:repository/:type/:name';

  // The repository is there already: it was made with its first token.
  router.post(root, repository, (ctx) => {
    if (new URLSearchParams(ctx.querystring).get('create') !== 'true')
      throw new Problem('malformed_request', 'a repository is made with create=true', { field: 'create' });
    assertMayPut(ctx.state.repository!.mode, configFile);
    done(ctx);
  });

  router.get(config, repository, (ctx) => give(ctx, configFile));
  router.post(
    config,
    repository,
    mayPut(() => configFile),
    stream(null, configBytesMax, async (ctx, body) => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of body) chunks.push(chunk);
      note(await putNamedFile(storage, ctx.state.repository!, configFile, Buffer.concat(chunks), optionsOf(ctx)));
      done(ctx);
    }),
  );
  router.delete(config, repository, (ctx) => hide(ctx, configFile));

  router.get(folder, repository, async (ctx) => {
    const type = folderOf(ctx);
    const { deviceId } = ctx.state.repository!;
    const release = await slots.versionStreams.take(deviceId, ctx.state.signal);
    try {
      const withSizes = ctx.get('accept').includes(listV2);
      await streamed(ctx, withSizes ? listV2 : listV1, listing(ctx, type, withSizes));
    } finally {
      release();
    }
  });

  router.get(file, repository, (ctx) => give(ctx, fileOf(ctx)));
  router.post(file, repository, mayPut(fileOf), (ctx) => put(ctx, fileOf(ctx)));
  router.delete(file, repository, (ctx) => hide(ctx, fileOf(ctx)));

  /** Asked before the body is received. */
  function mayPut(which: (ctx: Context) => PlainName) {
    return async (ctx: Context, next: () => Promise<unknown>): Promise<void> => {
      assertMayPut(ctx.state.repository!.mode, which(ctx));
      await next();
    };
  }

  async function put(ctx: Context, file: PlainName): Promise<void> {
    const bytesMax = isLock(file) ? lockBytesMax : fileBytesMax;
    const length = checkHeaders(ctx, { type: null, bytesMax, lengthRequired: true })!;
    const put = { file, digest: Buffer.from(file.name, 'hex'), length };
    const ref = ctx.state.repository!;
    if (length > limits.blockBytesMax)
      note(await putLargeFile(storage, ref, put, piecesOf(ctx, length, pieceBytes), optionsOf(ctx)));
    else {
      const { body, end } = await openCharged(ctx, rawBody(ctx), length);
      try {
        note(await putFile(storage, ref, put, body, optionsOf(ctx)));
      } finally {
        end();
      }
    }
    done(ctx);
  }

  function note({ upload, changed }: PutResult): void {
    if (upload) metrics.blocks(upload);
    if (changed) metrics.versionsCommitted(1);
  }

  function optionsOf(ctx: Context) {
    const { vault } = ctx.state.repository!;
    return { signal: ctx.state.signal, findAdmission: () => findAdmission(directory.database, vault) };
  }

  async function hide(ctx: Context, file: PlainName): Promise<void> {
    assertMayHide(ctx.state.repository!.mode, file);
    if (await hideFile(storage, ctx.state.repository!, file)) metrics.versionsCommitted(1);
    done(ctx);
  }

  async function give(ctx: Context, file: PlainName): Promise<void> {
    const { deviceId, vault } = ctx.state.repository!;
    const found = await statFile(storage, ctx.state.repository!, file);
    if (!found) throw new Problem('not_found', 'there is no such file');
    ctx.set('Accept-Ranges', 'bytes');
    const range = rangeOf(ctx, found.size);
    const { offset, length } = range ?? { offset: 0, length: found.size };
    ctx.status = range ? 206 : 200;
    if (range) ctx.set('Content-Range', `bytes ${offset}-${offset + length - 1}/${found.size}`);
    ctx.set('Content-Length', String(length));
    if (ctx.method === 'HEAD') return streamed(ctx, bytesType, nothing());
    const release = await slots.fetches.take(deviceId, ctx.state.signal);
    try {
      const fence = openFence(storage, fenceDefaults);
      await streamed(ctx, bytesType, readFile(storage, fence, vault, found, { offset, length }, ctx.state));
    } finally {
      release();
    }
  }

  async function* listing(ctx: Context, type: string, withSizes: boolean): AsyncGenerator<Uint8Array> {
    let before = '[';
    for await (const page of listFolder(storage, ctx.state.repository!, type, ctx.state.signal)) {
      if (page.length === 0) continue;
      // Names are hexadecimal digits.
      const entries = page.map(({ name, size }) => (withSizes ? `{"name":"${name}","size":${size}}` : `"${name}"`));
      yield Buffer.from(before + entries.join(','));
      before = ',';
    }
    yield Buffer.from(before === '[' ? '[]' : ']');
  }
}

/** Exactly 200: any other success is a failure to restic. */
function done(ctx: Context): void {
  ctx.status = 200;
  ctx.set('Cache-Control', 'no-store');
  ctx.body = '';
}

/** Of an empty file there is no range: it is given whole. @throws Problem range_not_satisfiable */
function rangeOf(ctx: Context, size: number): { offset: number; length: number } | null {
  if (size === 0 || ctx.method === 'HEAD') return null;
  const range = parseRange(ctx.get('range'), size);
  if (range === 'unsatisfiable')
    throw new Problem('range_not_satisfiable', `the file holds ${size} bytes`, { length: size });
  return range;
}

async function* nothing(): AsyncGenerator<Uint8Array> {}
