/**
 * What a server tells devices to do, and what they say of it. `GET /v1/self/commands` is one long answer of frames
 * (wire.ts); everything else is a request of its own. A command has a number and is told again on each connection until
 * it has ended, so none is lost and a device does each once however often it is told.
 *
 * Paths are as archives hold them, also those of the device's own folders: `/C:/Users` on Windows.
 */
import { z } from 'zod';
import { limits } from './limits.ts';
import { bytes, count, fileKinds, guid, moment, pathBytes, text } from './messages.ts';

const id = z.int().min(1).max(Number.MAX_SAFE_INTEGER);
const fileCount = z.int().min(0).max(limits.restoredFilesMax);
const byteCount = z.int().min(0).max(limits.restoredBytesMax);
/** One try of an agent at a command: drawn anew when it begins it again, so that the server can tell them apart. */
const attempt = bytes(16, 16);

/** Where restored files go. `original`: each to the path it had. */
const CommandTarget = z.union([z.object({ folder: pathBytes }), z.object({ original: z.literal(true) })]);

export const existingPolicies = ['rename', 'overwrite'] as const;
export const restoredPermissions = ['current', 'original'] as const;

export const RestoreCommand = z.object({
  id,
  kind: z.literal('restore'),
  /** The number by which people know it, as the server shows it to them. Servers before it was told say none. */
  restore: id.optional(),
  /** Of the same user's vault; of this device or another of its user. */
  archive: count,
  sourceGuid: guid,
  /** What the source device is: 'linux', 'darwin', 'win32' or 'other'. Original places are those of such a system. */
  sourcePlatform: z.string().min(1),
  /** Each with all that is below it; '/' is everything. Together at most `commandPathBytesMax` bytes. */
  paths: z.array(pathBytes).min(1).max(limits.commandPathsMax),
  /** The moment; the server keeps it while the command is open. */
  seq: count,
  /** What was deleted by then too, as it last was. */
  deleted: z.boolean(),
  target: CommandTarget,
  /** What becomes of something else that stands where a file is to be restored: it is renamed aside, or replaced. */
  existing: z.enum(existingPolicies),
  /** `original`: mode and owner as they were. `current`: as the folder, and whoever the agent runs as, make them. */
  permissions: z.enum(restoredPermissions),
  /** What the server counted when it was planned. */
  files: count,
  bytes: count,
});
export type RestoreCommand = z.infer<typeof RestoreCommand>;

/** Names of a folder of the device. Nothing is opened, and no content travels. */
export const BrowseCommand = z.object({
  id,
  kind: z.literal('browse'),
  /** Null: where to begin: the roots, or drives, and the home folders. Entries are whole paths then. */
  path: pathBytes.nullable(),
  /** Names after this one, in byte order; null: from the first. */
  after: bytes(1, limits.pathBytesMax).nullable(),
  limit: z.int().min(1).max(limits.pageEntriesMax),
});
export type BrowseCommand = z.infer<typeof BrowseCommand>;

export const Command = z.discriminatedUnion('kind', [RestoreCommand, BrowseCommand]);
export type Command = z.infer<typeof Command>;

const frames = [
  /** A device that hears nothing for two heartbeats connects again. */
  z.object({ type: z.literal('hello'), heartbeatSeconds: z.int().min(1).max(3_600) }),
  z.object({ type: z.literal('heartbeat') }),
  z.object({ type: z.literal('command'), command: Command }),
  /** Ended by somebody: it is stopped within seconds, and ended as `cancelled`. */
  z.object({ type: z.literal('cancel'), id }),
] as const;

const isNew = (known: readonly string[]) => z.string().refine((value) => !known.includes(value), 'is not formed so');

/** What a newer server says that an agent does not know: passed over. */
const newFrame = z
  .union([
    z.object({ type: isNew(['hello', 'heartbeat', 'command', 'cancel']) }),
    z.object({ type: z.literal('command'), command: z.object({ kind: isNew(['restore', 'browse']) }) }),
  ])
  .transform((): { type: 'unknown' } => ({ type: 'unknown' }));

/** A command that does not say what one of its kind does: passed over, and ended where its number can be read. */
const unreadableCommand = z
  .object({ type: z.literal('command'), command: z.object({ id, kind: z.enum(['restore', 'browse']) }) })
  .transform(({ command }) => ({ type: 'unreadable' as const, id: command.id, kind: command.kind }));
const commandWithoutNumber = z
  .object({ type: z.literal('command') })
  .transform((): { type: 'unknown' } => ({ type: 'unknown' }));

/** The first frame is a `hello`. */
export const ChannelFrame = z.union([
  z.discriminatedUnion('type', frames),
  newFrame,
  unreadableCommand,
  commandWithoutNumber,
]);
export type ChannelFrame = z.infer<typeof ChannelFrame>;

/** What the last answers say so far; `Seen` are totals as far as they are known. */
export const CommandProgressRequest = z.strictObject({
  attempt,
  filesSeen: fileCount,
  filesDone: fileCount,
  bytesSeen: byteCount,
  bytesDone: byteCount,
  bytesFetched: byteCount,
});
export type CommandProgressRequest = z.infer<typeof CommandProgressRequest>;

/** `cancelled`: stop, and end it as such. `gone`: it has ended; stop, and say nothing more of it. */
export const CommandProgressAnswer = z.object({ go: z.enum(['on', 'cancelled', 'gone']) });
export type CommandProgressAnswer = z.infer<typeof CommandProgressAnswer>;

/** `incomplete`: all was done but for files that are counted and named. `failed`: it cannot be done; `why` says it. */
export const commandOutcomes = ['completed', 'incomplete', 'failed', 'cancelled'] as const;

export const CommandProblem = z.strictObject({
  path: bytes(1, limits.pathBytesMax),
  reason: z.string().min(1).max(64).regex(/^\w+$/),
  detail: text.default(''),
});
export type CommandProblem = z.infer<typeof CommandProblem>;

const commandCounts = z.strictObject({
  /** Files written, and files that were there with the right content. */
  filesRestored: fileCount,
  filesIdentical: fileCount,
  folders: fileCount,
  symlinks: fileCount,
  bytesRestored: byteCount,
  /** Bytes that earlier tries had fetched already. */
  bytesResumed: byteCount,
  bytesFetched: byteCount,
  /** Left out; the first of them are `problems`. */
  problems: fileCount,
  /** Done otherwise than the archive says: names that were changed, attributes that could not be set. */
  notices: fileCount,
});
export type CommandCounts = z.infer<typeof commandCounts>;

export const CommandEndRequest = z.strictObject({
  attempt,
  outcome: z.enum(commandOutcomes),
  counts: commandCounts,
  problems: z.array(CommandProblem).max(limits.commandProblemsMax).default([]),
  why: text.default(''),
});
export type CommandEndRequest = z.infer<typeof CommandEndRequest>;

export const BrowseEntry = z.strictObject({
  /** A name; where to begin has whole paths. */
  name: bytes(1, limits.pathBytesMax),
  kind: z.enum([...fileKinds, 'other']),
  size: count,
  mtime: moment,
  /** Nothing can be written there, as far as that can be told without trying. */
  readOnly: z.boolean().optional(),
});
export type BrowseEntry = z.infer<typeof BrowseEntry>;

export const browseFaults = ['not_found', 'not_folder', 'not_allowed', 'refused', 'failed'] as const;

/** The answer to a browse: a page of names in byte order, or why there is none. */
export const CommandAnswerRequest = z.union([
  z.strictObject({
    /** As it was asked; of null, the platform's root: '/'. */
    path: pathBytes,
    entries: z.array(BrowseEntry).max(limits.pageEntriesMax),
    /** The last name of this page, where there are more. */
    next: bytes(1, limits.pathBytesMax).nullable(),
  }),
  z.strictObject({ fault: z.strictObject({ code: z.enum(browseFaults), detail: text }) }),
]);
export type CommandAnswerRequest = z.infer<typeof CommandAnswerRequest>;
