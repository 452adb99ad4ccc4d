/**
 * Looking around in an archive before restoring from it: a folder, the versions of a file, a search. For whoever may restore
 * from it in one way or another, to a browser or to a device.
 *
 * Every answer names the seq it is of; what follows is asked for with it, and is of the same moment.
 */
import { z } from 'zod';
import { limits } from '../../../../protocol/limits.ts';
import { splitPath } from '../../../../protocol/paths.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { browseFolder, browseVersions, type MomentAsked } from '../../../../storage/archive/reading/browse.ts';
import { type Hit, searchArchive } from '../../../../storage/archive/reading/search.ts';
import { searchBounds } from '../../../../storage/archive/reading/search-pattern.ts';
import { followPath } from '../../../../storage/catalog/reading/reading.ts';
import { candidatesAmong, findShown, noFilters, type Shown } from '../../../../storage/catalog/reading/search.ts';
import type { ArchiveRef, Storage } from '../../../../storage/storage.ts';
import { assertMayBrowse } from '../../../directory/restores/may-browse.ts';
import { checkedPath, textPath } from '../../../directory/restores/pushing/target.ts';
import { wantedText } from '../../../directory/users/shapes.ts';
import { deviceInPath, deviceParams, momentText, yesOrNo } from '../finders.ts';
import { sendNow } from '../json-answers.ts';
import { type ApiRoute, lines, read } from '../route.ts';

const tag = 'Browsing';
const may = {
  permission: 'restore.limited',
  or: ['restore.personal', 'pushrestore.limited', 'pushrestore.personal'],
  target: deviceInPath,
} as const;

/** A whole number of at most 15 digits, so below 2^53. */
const whole = z
  .string()
  .regex(/^\d{1,15}$/, 'is not a whole number')
  .meta({ examples: ['12'] })
  .transform(Number);
// Milliseconds of a date that there is.
const bytesText = (max: number) =>
  z
    .string()
    .min(1)
    .max(Math.ceil((max * 4) / 3))
    .regex(/^[\w-]+$/, 'is not base64url')
    .transform((text) => Buffer.from(text, 'base64url'));

const place = {
  path: z
    .string()
    .min(1)
    .max(limits.pathBytesMax)
    .optional()
    .meta({ description: 'From the root; left out: the root' }),
  pathBytes: bytesText(limits.pathBytesMax).optional().meta({ description: 'Base64url, in the place of `path`' }),
};
const moment = {
  at: momentText.optional().meta({ description: 'As of this moment' }),
  seq: whole.optional().meta({ description: 'As of this seq, as an answer named it; neither: now' }),
};
const limit = z.coerce.number().int().min(1).max(limits.pageEntriesMax).default(100);
const after = z.string().min(1).max(4_000).optional().meta({ description: 'The `next` of the page before' });

interface PlaceAsked {
  path?: string | undefined;
  pathBytes?: Buffer | undefined;
}

function pathOf({ path, pathBytes }: PlaceAsked): Buffer {
  if (path !== undefined && pathBytes)
    throw new Problem('malformed_request', 'a path is given as text or as bytes, not both', { field: 'pathBytes' });
  return pathBytes ? checkedPath(pathBytes, 'pathBytes') : textPath(path ?? '/', 'path');
}

const anyName = { bytesMin: 0, like: null, holds: null };

interface PlaceLooked {
  path: Buffer;
  seq: number;
  deleted: boolean;
}

/**
 * An empty page is no answer about a file, nor about where nothing is at the moment: so it is asked what is there, as its
 * own folder shows it.
 * @throws Problem not_found, or conflict with `kind`; field `path`
 */
async function assertIsFolder({ database }: Storage, ref: ArchiveRef, asked: PlaceLooked): Promise<void> {
  const { path, seq, deleted } = asked;
  const names = splitPath(path);
  if (names.length === 0) return;
  const ids = await followPath(database, ref, names);
  const known = ids.length < names.length ? [] : [ids.at(-1)!];
  const made = await candidatesAmong(database, ref, known, { seq, names: anyName });
  const [there] = await findShown(database, ref, made, { seq, deleted, filters: noFilters });
  if (!there) {
    const next = deleted
      ? 'ask for another moment'
      : 'ask for what was deleted, too (`deleted`), or for another moment';
    throw new Problem('not_found', `there is nothing at this path as of this moment: ${next}`, { field: 'path' });
  }
  if (there.kind === 'directory') return;
  const what = there.kind === 'file' ? 'a file' : 'a symbolic link';
  throw new Problem(
    'conflict',
    `this is ${what}, not a folder: to see its versions, ask for its history (devices history list)`,
    { field: 'path', kind: there.kind },
  );
}

function momentOf({ at, seq }: { at?: Date | undefined; seq?: number | undefined }): MomentAsked {
  if (at && seq !== undefined)
    throw new Problem('malformed_request', 'a moment is given as a time or as a seq, not both', { field: 'seq' });
  return { at: at ?? null, seq: seq ?? null };
}

const FolderCursor = z.strictObject({ seq: z.int().min(0), name: z.base64url().min(1) });
const VersionsCursor = z.strictObject({ seq: z.int().min(0), below: z.int().min(1) });

const writeCursor = (cursor: object): string => Buffer.from(JSON.stringify(cursor)).toString('base64url');

/** A page goes on at the moment of the one before: another one may not be asked for with it. */
function readCursor<Cursor extends { seq: number }>(
  shape: z.ZodType<Cursor>,
  cursor: string | undefined,
  moment: MomentAsked,
): { moment: MomentAsked; from: Cursor | null } {
  if (cursor === undefined) return { moment, from: null };
  let from: Cursor;
  try {
    from = shape.parse(JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8')));
  } catch {
    throw new Problem('out_of_bounds', '`after` is the `next` of a page, as it was given', { field: 'after' });
  }
  if (moment.seq !== null && moment.seq !== from.seq)
    throw new Problem('out_of_bounds', 'the page before was of another seq', { field: 'seq', seq: from.seq });
  return { moment: { at: null, seq: from.seq }, from };
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** As text, and where it is none as bytes. */
function written<Name extends 'name' | 'path'>(key: Name, bytes: Buffer) {
  try {
    return { [key]: utf8.decode(bytes) } as { [K in Name]: string };
  } catch {
    return { [key]: null, [`${key}Bytes`]: bytes.toString('base64url') } as { [K in Name]: null };
  }
}

const iso = (time: Date | number | null): string | null => {
  const date = time === null ? null : new Date(time);
  return date === null || Number.isNaN(date.getTime()) ? null : date.toISOString();
};

const kind = z.enum(['file', 'directory', 'symlink']);
const facts = {
  kind,
  bytes: z.int(),
  modifiedAt: z.iso.datetime().nullable().meta({ description: 'As the device said; null: nothing there is' }),
  version: z
    .int()
    .nullable()
    .meta({ description: 'Its seq; of what was deleted the last one before. Null: a folder known by what lies in it' }),
  committedAt: z.iso.datetime().nullable(),
  deletedAt: z.iso.datetime().nullable().meta({ description: 'Null: it was there at the moment' }),
  hasEntries: z.boolean().meta({ description: 'Something lies in it, or did, whatever it is itself' }),
};

function factsOf({ kind, size, mtime, seq, committedAt, deletedAt, hasEntries }: Shown) {
  return {
    kind,
    bytes: size,
    modifiedAt: iso(mtime),
    version: seq,
    committedAt: iso(committedAt),
    deletedAt: iso(deletedAt),
    hasEntries,
  };
}

const named = (what: 'name' | 'path') => ({
  [what]: z.string().nullable().meta({ description: 'Null: its bytes are no text' }),
  [`${what}Bytes`]: z.string().optional().meta({ description: 'Base64url, where they are no text' }),
});

const answered = {
  seq: z.int().meta({ description: 'The moment, to be asked for again' }),
  prunedAt: z.iso.datetime().nullable().meta({
    description:
      'When versions were last deleted from the archive. Nothing is kept for whoever looks around: if this changes between pages, something of the moment may be missing, or show as the version before',
  }),
};
const next = z.string().nullable().meta({ description: 'For the next page: `after`; null: that was all' });

/** So many files are searched without a hit until a line says how far it is. */
const toldEveryFiles = 250_000;
/** Or so long, where names and pattern are such that each takes its time. */
const toldEveryMs = 5_000;

const hitPlace = z.string().meta({ description: 'To go on behind it: `after`' });

function lineOf({ fileId, path, ...shown }: Hit) {
  return { place: String(fileId), ...written('path', path), ...factsOf(shown) };
}

export const browsingRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/devices/:guid/tree',
    tag,
    summary: 'Show a folder of an archive',
    says: 'A page of it as of a moment, in byte order of names. 409 with `kind` for what is no folder, 404 where nothing is at the moment. The pages that follow are of the same moment, whatever is backed up meanwhile. One may come short, or empty, where much was deleted: there are more while `next` says so.',
    may,
    params: deviceParams,
    query: z.strictObject({
      ...place,
      ...moment,
      deleted: yesOrNo.meta({ description: '1: what was deleted, too' }),
      after,
      limit,
    }),
    answer: z.strictObject({
      ...answered,
      items: z.array(z.strictObject({ ...named('name'), ...facts })),
      next,
    }),
    async read({ deps, caller, target, query }) {
      await assertMayBrowse(deps.directory.database, caller.actor!, target);
      const { moment, from } = readCursor(FolderCursor, query.after, momentOf(query));
      const path = pathOf(query);
      const { seq, prunedAt, entries, next } = await browseFolder(deps.storage, target, {
        path,
        moment,
        deleted: query.deleted,
        after: from && Buffer.from(from.name, 'base64url'),
        limit: query.limit,
      });
      if (entries.length === 0 && next === null)
        await assertIsFolder(deps.storage, target, { path, seq, deleted: query.deleted });
      return {
        seq,
        prunedAt: iso(prunedAt),
        items: entries.map(({ name, ...shown }) => ({ ...written('name', name), ...factsOf(shown) })),
        next: next && writeCursor({ seq, name: next.toString('base64url') }),
      };
    },
  }),
  read({
    path: '/v1/devices/:guid/history',
    tag,
    summary: 'List the versions of a file',
    says: 'Up to a moment, newest first; the records of its deletions are among them.',
    may,
    params: deviceParams,
    query: z.strictObject({ ...place, ...moment, after, limit }),
    answer: z.strictObject({
      ...answered,
      items: z.array(
        z.strictObject({
          version: z.int(),
          committedAt: z.iso.datetime(),
          kind,
          deleted: z.boolean().meta({ description: 'The record that it was deleted' }),
          bytes: z.int(),
          modifiedAt: facts.modifiedAt,
        }),
      ),
      next,
    }),
    async read({ deps, caller, target, query }) {
      await assertMayBrowse(deps.directory.database, caller.actor!, target);
      const { moment, from } = readCursor(VersionsCursor, query.after, momentOf(query));
      const { seq, prunedAt, versions, next } = await browseVersions(deps.storage, target, {
        path: pathOf(query),
        moment,
        below: from?.below ?? null,
        limit: query.limit,
      });
      return {
        seq,
        prunedAt: iso(prunedAt),
        items: versions.map(({ seq: version, committedAt, kind, deleted, size: bytes, mtime }) => ({
          version,
          committedAt: committedAt.toISOString(),
          kind,
          deleted,
          bytes,
          modifiedAt: iso(mtime),
        })),
        next: next === null ? null : writeCursor({ seq, below: next }),
      };
    },
  }),
  lines({
    method: 'GET',
    path: '/v1/devices/:guid/search',
    tag,
    summary: 'Search an archive',
    says: `By a part of the name (\`name\`) or a \`pattern\`, in upper or lower case, below a folder, as of a moment. In a pattern \`*\` is any characters and \`?\` one, \`[a-z]\` and \`[!a-z]\` one of a set, \`\\\` takes what follows as it is. One with a slash is about the path, where a name \`**\` is any number of names; without a leading slash it begins anywhere. At most ${searchBounds.starsMax} stars. The first line says the \`seq\`; hits come as they are found, in no order of names; now and then a line says how far it is (\`searched\`). The last line has \`end\` and, if the limit was reached, \`next\`: to go on, \`after\` that and with the same \`seq\`. One that was cut off goes on behind its last line.`,
    may,
    params: deviceParams,
    query: z.strictObject({
      ...place,
      ...moment,
      name: wantedText(searchBounds.textMax).optional(),
      pattern: wantedText(searchBounds.textMax).optional(),
      kind: kind.optional(),
      minBytes: whole.optional().meta({ description: 'Files of this size and above' }),
      maxBytes: whole.optional().meta({ description: 'Files of this size and below' }),
      modifiedFrom: momentText.optional(),
      modifiedBefore: momentText.optional().meta({ description: 'Not at it' }),
      deleted: yesOrNo.meta({ description: '1: what was deleted, too; filters are about how it last was' }),
      after: z
        .string()
        .regex(/^[1-9]\d{0,14}$/, 'is not the place of a line')
        .transform(Number)
        .optional()
        .meta({ description: 'The place to go on behind; with the `seq` it is of' }),
      limit: z.coerce.number().int().min(1).max(10_000).default(1_000),
    }),
    answer: z.union([
      z.strictObject(answered),
      z.strictObject({ place: hitPlace, ...named('path'), ...facts }),
      z.strictObject({ searched: hitPlace }),
      z.strictObject({ end: z.literal(true), hits: z.int(), next: hitPlace.nullable() }),
    ]),
    async *lines({ ctx, deps, caller, target, query }) {
      await assertMayBrowse(deps.directory.database, caller.actor!, target);
      if (query.after !== undefined && query.seq === undefined)
        throw new Problem('malformed_request', 'what goes on is of the seq of what it goes on behind', {
          field: 'seq',
        });
      const { seq, prunedAt, steps } = await searchArchive(deps.storage, target, {
        path: pathOf(query),
        moment: momentOf(query),
        name: query.name ?? null,
        pattern: query.pattern ?? null,
        filters: {
          kind: query.kind ?? null,
          bytesMin: query.minBytes ?? null,
          bytesMax: query.maxBytes ?? null,
          modifiedFrom: query.modifiedFrom?.getTime() ?? null,
          modifiedBefore: query.modifiedBefore?.getTime() ?? null,
        },
        deleted: query.deleted,
        after: query.after ?? null,
        limit: query.limit,
        signal: ctx.state.signal,
      });
      yield { seq, prunedAt: iso(prunedAt) };
      let count = 0;
      let told = query.after ?? 0;
      let toldAt = performance.now();
      let next: string | null = null;
      for await (const { hits, upTo } of steps) {
        for (const hit of hits) yield lineOf(hit);
        count += hits.length;
        next = upTo === null ? null : String(upTo);
        const isLongAgo = (upTo ?? 0) - told >= toldEveryFiles || performance.now() - toldAt >= toldEveryMs;
        if (upTo !== null && hits.length === 0 && isLongAgo) {
          yield { searched: String(upTo) };
          told = upTo;
        } else if (hits.length > 0) told = hits.at(-1)!.fileId;
        else continue;
        toldAt = performance.now();
        yield sendNow;
      }
      yield { end: true, hits: count, next };
    },
  }),
];
