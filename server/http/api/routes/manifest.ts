/** The preservation manifest: all that an archive knows of its files, without their content. */
import { z } from 'zod';
import { type ManifestVersion, readManifest } from '../../../../storage/archive/reading/read-manifest.ts';
import { deviceInPath, deviceParams } from '../finders.ts';
import { type ApiRoute, lines } from '../route.ts';

const place = z
  .string()
  .regex(/^[1-9]\d{0,14}\.[1-9]\d{0,14}$/, 'is not the place of a line')
  .transform((text) => text.split('.').map(Number) as [number, number]);
const seq = z
  .string()
  .regex(/^\d{1,15}$/, 'is not the number of a version')
  .transform(Number);

const Line = z.strictObject({
  place: z.string().meta({ description: 'To go on behind this line: `after`' }),
  path: z.string().nullable().meta({ description: 'Null: its bytes are no text' }),
  pathBytes: z.string().optional().meta({ description: 'Base64url, where they are no text' }),
  version: z.int().meta({ description: 'Its number in the archive' }),
  committedAt: z.iso.datetime(),
  kind: z.enum(['file', 'directory', 'symlink']),
  deleted: z.boolean().meta({ description: 'The record that the file was deleted' }),
  bytes: z.int(),
  modifiedAt: z.iso.datetime().nullable().meta({ description: 'As the device said; null: no time there is' }),
  blocks: z.int(),
  lists: z.int().meta({ description: 'Of a large file, each of thousands of blocks' }),
});

const utf8 = new TextDecoder('utf-8', { fatal: true });

function textOf(bytes: Buffer): string | null {
  try {
    return utf8.decode(bytes);
  } catch {
    return null;
  }
}

function lineOf({ fileId, seq, path, ...version }: ManifestVersion): z.input<typeof Line> {
  const text = textOf(path);
  const modifiedAt = new Date(version.mtime);
  return {
    place: `${fileId}.${seq}`,
    path: text,
    ...(text === null && { pathBytes: path.toString('base64url') }),
    version: seq,
    committedAt: version.committedAt.toISOString(),
    kind: version.kind,
    deleted: version.deleted,
    bytes: version.size,
    modifiedAt: Number.isNaN(modifiedAt.getTime()) ? null : modifiedAt.toISOString(),
    blocks: version.blocks,
    lists: version.lists,
  };
}

export const manifestRoutes: readonly ApiRoute[] = [
  lines({
    method: 'GET',
    path: '/v1/devices/:guid/manifest',
    tag: 'Archives',
    summary: 'Read all files and versions of an archive, without their content',
    says: 'A line for each version, in the order of files; the first line says up to which version it reads (`upTo`), the last one how many there were (`end`). One that was cut off is continued with `after`, the place of the last line, and the same `upTo`.',
    may: { permission: 'preservation.metadata.read', target: deviceInPath },
    params: deviceParams,
    query: z.strictObject({
      after: place.optional().meta({ description: 'The place of the last line received' }),
      upTo: seq.optional().meta({ description: 'What the first line said; left out: the newest' }),
    }),
    answer: z.union([
      z.strictObject({ upTo: z.int() }),
      Line,
      z.strictObject({ end: z.literal(true), versions: z.int() }),
    ]),
    async *lines({ ctx, deps, target, query }) {
      const [fileId, last] = query.after ?? [];
      const after = fileId === undefined ? null : { fileId, seq: last! };
      const { signal } = ctx.state;
      const { upTo, versions } = await readManifest(deps.storage, target, { upTo: query.upTo ?? null, after, signal });
      yield { upTo };
      let count = 0;
      for await (const version of versions) {
        yield lineOf(version);
        count++;
      }
      yield { end: true, versions: count };
    },
  }),
];
