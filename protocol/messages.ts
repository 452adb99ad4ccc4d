/**
 * Every message between agents and server, as the schema that validates it. docs/protocol.md shows them as bytes.
 * Requests are strict (an unknown key is refused, so that a newer agent is not half understood); answers are read
 * leniently, so that a newer server may say more.
 */
import { z } from 'zod';
import { limits } from './limits.ts';
import { pathFault } from './paths.ts';

const { hashBytes } = limits;

/** A byte string of lo..hi bytes. Decoded msgpack gives Buffers. */
export const bytes = (lo: number, hi: number) =>
  z
    .instanceof(Uint8Array, { message: 'must be a byte string' })
    .check((context) => {
      const length = context.value.byteLength;
      if (length > hi)
        context.issues.push({
          code: 'too_big',
          origin: 'bytes',
          maximum: hi,
          input: length,
          message: `holds ${length} bytes, at most ${hi}`,
        });
      if (length < lo)
        context.issues.push({
          code: 'too_small',
          origin: 'bytes',
          minimum: lo,
          input: length,
          message: `holds ${length} bytes, at least ${lo}`,
        });
    })
    .transform((value): Buffer => Buffer.from(value.buffer, value.byteOffset, value.byteLength));

/** A string of lo..hi hashes, one after the other. */
const hashes = (lo: number, hi: number) =>
  bytes(lo * hashBytes, hi * hashBytes).refine(
    (value) => value.byteLength % hashBytes === 0,
    `must be whole hashes of ${hashBytes} bytes`,
  );

const noHashes = (): Buffer => Buffer.alloc(0);
export const count = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
/** Milliseconds since the Unix epoch; files older than it have negative ones. */
export const moment = z.int().min(-8_640_000_000_000_000).max(8_640_000_000_000_000);
/** PostgreSQL's text holds no NUL. */
const withoutNul = (value: string): boolean => !value.includes('\0');
export const text = z.string().max(limits.textMax).refine(withoutNul, 'holds a NUL');

export const pathBytes = bytes(1, limits.pathBytesMax).check((context) => {
  const fault = pathFault(context.value);
  if (fault) context.issues.push({ code: 'custom', input: null, message: `is not a path: it ${fault}` });
});

/** A device's GUID: a decimal 64-bit integer. A string, because JavaScript's numbers end at 2^53. */
export const guid = z.string().regex(/^[1-9]\d{0,18}$/, 'must be a decimal 64-bit integer');

// --- registration -----------------------------------------------------------------------------------------------

/**
 * Who can open a vault. `standard`: the server keeps the key, sealed. `password`: it keeps a record that only the
 * archive password opens. `custom`: it never sees the key, only a value to recognise a wrong one by.
 */
export const VaultKeyProposal = z.discriminatedUnion('level', [
  z.strictObject({ level: z.literal('standard') }),
  z.strictObject({ level: z.literal('password'), wrapped: bytes(1, 1024) }),
  z.strictObject({ level: z.literal('custom'), check: bytes(16, 16) }),
]);
export type VaultKeyProposal = z.infer<typeof VaultKeyProposal>;

/** 32 random bytes, base64url: 43 characters, of which the last has one way to be written. */
const deviceToken = z
  .string()
  .refine(
    (value) => value.length === 43 && Buffer.from(value, 'base64url').toString('base64url') === value,
    'must be 32 bytes in base64url',
  );

/** Who asks, before there is a device: a user's sign-in, or a code that stands for one. */
const signInOrCode = {
  registrationKey: z.string().min(1).max(64).optional(),
  userName: z.string().min(1).max(254).optional(),
  password: z.string().min(1).max(1024).optional(),
  /** Of the second factor, or a recovery code: needed when the answer was `second_factor_needed`. */
  code: z.string().min(1).max(64).optional(),
  /** Instead of all of these. */
  registrationCode: z.string().min(1).max(64).optional(),
};

const signInFields = ['registrationKey', 'userName', 'password'] as const;

/** Either a whole sign-in or a registration code; which is missing or too much is named. */
function oneWayIn(context: {
  value: Partial<Record<keyof typeof signInOrCode, string | undefined>>;
  issues: z.core.$ZodRawIssue[];
}): void {
  const { value } = context;
  const refuse = (field: string, message: string): void => {
    context.issues.push({ code: 'custom', input: null, path: [field], message });
  };
  if (value.registrationCode === undefined) {
    const missing = signInFields.find((field) => value[field] === undefined);
    if (missing)
      refuse(missing, 'is missing: a registration takes registrationKey, userName and password, or a registrationCode');
    return;
  }
  const extra = [...signInFields, 'code' as const].find((field) => value[field] !== undefined);
  if (extra) refuse(extra, 'does not go together with a registrationCode, which stands for the whole sign-in');
}

export const RegisterRequest = z
  .strictObject({
    ...signInOrCode,
    /**
     * Drawn by the agent, and kept before it asks: the same request with the same token answers the device that it made.
     * Left out by agents that do not know it; then the server draws one.
     */
    token: deviceToken.optional(),
    device: z.strictObject({
      name: z.string().min(1).max(255),
      platform: z.enum(['linux', 'darwin', 'win32', 'other']),
      agentVersion: z.string().min(1).max(64).refine(withoutNul, 'holds a NUL'),
    }),
    /** The GUID of a device of the same user whose place and archive this installation takes. */
    replace: guid.optional(),
    /** Used when the user has no vault yet; otherwise the existing vault's level stands. */
    vaultKey: VaultKeyProposal,
  })
  .check(oneWayIn);
export type RegisterRequest = z.infer<typeof RegisterRequest>;

export const VaultKey = z.discriminatedUnion('level', [
  z.object({ level: z.literal('standard'), generation: count, key: bytes(32, 32) }),
  z.object({ level: z.literal('password'), generation: count, wrapped: bytes(1, 1024) }),
  z.object({ level: z.literal('custom'), generation: count, check: bytes(16, 16) }),
]);
export type VaultKey = z.infer<typeof VaultKey>;

/**
 * One generation of a vault's key as the server keeps it; all of a vault are of one level. `standard`: `key` only in the
 * answer to a registration. `custom`: `check` of the newest, which is the user's own; the earlier ones wrapped by it.
 */
export const KeptKey = z.discriminatedUnion('level', [
  z.object({ level: z.literal('standard'), generation: count, key: bytes(32, 32).optional() }),
  z.object({ level: z.literal('password'), generation: count, wrapped: bytes(1, 1024) }),
  z.object({
    level: z.literal('custom'),
    generation: count,
    check: bytes(16, 16).optional(),
    wrapped: bytes(1, 1024).optional(),
  }),
]);
export type KeptKey = z.infer<typeof KeptKey>;

/** Oldest first; the last is the newest, with which agents seal. Empty from a server that knows one generation only. */
const keptKeys = z.array(KeptKey).max(limits.keyGenerationsMax).default([]);

export const RegisterAnswer = z.object({
  guid,
  deviceName: z.string(),
  /** Whose device it is: whoever has a registration code may not know. Left out by servers that take no such codes. */
  userName: z.string().min(1).optional(),
  /** 256 random bits, base64url: the one that was sent. The server keeps only its hash. */
  token: z.string().min(1),
  vault: count,
  archive: count,
  /** The newest generation. */
  vaultKey: VaultKey,
  vaultKeys: keptKeys,
});
export type RegisterAnswer = z.infer<typeof RegisterAnswer>;

/** What a device may see of itself and of its user's other devices. */
export const SelfAnswer = z.object({
  guid,
  deviceName: z.string(),
  userName: z.string(),
  vault: count,
  archive: count,
  archives: z.array(
    z.object({ archive: count, guid, deviceName: z.string(), own: z.boolean(), lastCommittedAt: moment.nullable() }),
  ),
  serverTime: moment,
  vaultKeys: keptKeys,
});
export type SelfAnswer = z.infer<typeof SelfAnswer>;

/** Numbers of generations fit PostgreSQL's integer. */
const generation = z
  .int()
  .min(1)
  .max(2 ** 31 - 1);

/**
 * Raises who can open the user's backups: a new generation of the key, and every earlier one wrapped so that the new
 * secret alone opens it. What the server had of them before is destroyed.
 */
export const RaiseRequest = z
  .strictObject({
    /** Of the user whose device this is: a token alone must not shut its owner out. */
    password: z.string().min(1).max(1024),
    /** Of the user's second factor, where there is one. */
    code: z.string().min(1).max(64).optional(),
    to: z.enum(['password', 'custom']),
    newGeneration: z.strictObject({ generation, wrapped: bytes(1, 1024).optional(), check: bytes(16, 16).optional() }),
    /** All there are, in any order. */
    oldGenerations: z
      .array(z.strictObject({ generation, wrapped: bytes(1, 1024) }))
      .min(1)
      .max(limits.keyGenerationsMax - 1),
  })
  .check((context) => {
    const { to, newGeneration } = context.value;
    const [wanted, other] = to === 'password' ? (['wrapped', 'check'] as const) : (['check', 'wrapped'] as const);
    if (newGeneration[wanted] !== undefined && newGeneration[other] === undefined) return;
    const message = `for level "${to}" it has "${wanted}" and no "${other}"`;
    context.issues.push({ code: 'custom', input: null, path: ['newGeneration'], message });
  });
export type RaiseRequest = z.infer<typeof RaiseRequest>;

export const RaiseAnswer = z.object({ level: z.enum(['password', 'custom']), generation: count });
export type RaiseAnswer = z.infer<typeof RaiseAnswer>;

/** A user's sign-in asks which devices there are to replace. A registration code is not used up by it. */
export const DevicesRequest = z.strictObject(signInOrCode).check(oneWayIn);
export type DevicesRequest = z.infer<typeof DevicesRequest>;
export const DevicesAnswer = z.object({
  /** Where a code of the second factor was used up: good for ten minutes, to register with in its place. */
  registrationCode: z.string().min(1).optional(),
  devices: z.array(
    z.object({
      guid,
      deviceName: z.string(),
      platform: z.string(),
      state: z.string(),
      lastCommittedAt: moment.nullable(),
    }),
  ),
});
export type DevicesAnswer = z.infer<typeof DevicesAnswer>;

// --- blocks -------------------------------------------------------------------------------------------------------

export const ClaimRequest = z
  .strictObject({
    blocks: hashes(0, limits.claimBlocksMax),
    lists: hashes(0, limits.claimBlocksMax).default(noHashes),
  })
  .check((context) => {
    const { blocks, lists } = context.value;
    if (blocks.byteLength + lists.byteLength <= limits.claimBlocksMax * hashBytes) return;
    const message = `blocks and lists together are more than ${limits.claimBlocksMax}`;
    context.issues.push({
      code: 'too_big',
      origin: 'array',
      maximum: limits.claimBlocksMax,
      input: null,
      path: ['lists'],
      message,
    });
  });
export type ClaimRequest = z.infer<typeof ClaimRequest>;

export const ClaimAnswer = z.object({
  /** A bit per hash asked, in order, lowest bit of the first byte first; 1 = send it. */
  blocks: bytes(0, limits.claimBlocksMax / 8),
  lists: bytes(0, limits.claimBlocksMax / 8),
  /** The blocks and lists that need not be sent stay until then at least, so a commit may name them. */
  claimedUntil: moment,
  /** The same as a duration in milliseconds, from when the request was sent: for a device whose clock is wrong. */
  claimedForMs: count,
});
export type ClaimAnswer = z.infer<typeof ClaimAnswer>;

/** Bytes of a list: whole hashes, at least one. */
const listLength = z
  .int()
  .min(hashBytes)
  .max(limits.listBlocksMax * hashBytes)
  .refine((length) => length % hashBytes === 0, `must be whole hashes of ${hashBytes} bytes`);

/**
 * Opens an upload: 4 bytes big-endian length of this header, the header, then the blocks' bytes in this order, then
 * the lists'. The blocks are stored first: a list may name those that come with it.
 */
export const UploadHeader = z.strictObject({
  blocks: hashes(0, limits.uploadBlocksMax),
  lengths: z.array(z.int().min(1).max(limits.blockBytesMax)).max(limits.uploadBlocksMax),
  lists: hashes(0, limits.uploadListsMax).default(noHashes),
  listLengths: z.array(listLength).max(limits.uploadListsMax).default([]),
});
export type UploadHeader = z.infer<typeof UploadHeader>;

export const UploadAnswer = z.object({
  /** Blocks written now, and blocks the vault had. */
  stored: count,
  known: count,
  /** Lists written now; the vault had the others. */
  listsStored: count,
  /** Until then at least all of them stay; and the same in milliseconds from when the request was sent. */
  claimedUntil: moment,
  claimedForMs: count,
});
export type UploadAnswer = z.infer<typeof UploadAnswer>;

export const FetchRequest = z.strictObject({ blocks: hashes(1, limits.fetchBlocksMax) });
export type FetchRequest = z.infer<typeof FetchRequest>;

/** Lists come back as blocks do (block-frames.ts): the bytes of a list are its blocks' hashes. */
export const ListFetchRequest = z.strictObject({ lists: hashes(1, limits.fetchListsMax) });
export type ListFetchRequest = z.infer<typeof ListFetchRequest>;

// --- versions and commits -----------------------------------------------------------------------------------------

export const fileKinds = ['file', 'directory', 'symlink'] as const;
export type FileKind = (typeof fileKinds)[number];

const versionFields = {
  path: pathBytes,
  kind: z.enum(fileKinds),
  /** Plain bytes of a file; 0 for everything else. */
  size: count,
  mtime: moment,
  /** Sealed by the agent: mode, owner, link target and the like. Empty for the record of a deletion. */
  attributes: bytes(0, limits.attributesBytesMax),
  /** The blocks that make up the content, in order; or, of a large file, the lists whose blocks do. */
  blocks: hashes(0, limits.versionBlocksMax).default(noHashes),
  lists: hashes(0, limits.versionListsMax).default(noHashes),
  /** The agent's MAC over all of the above and the archive; checked by whoever restores. */
  mac: bytes(32, 32),
  /** The record that this path is gone. Nothing but path, kind, mtime and mac is set then. */
  deleted: z.boolean().default(false),
};

export const VersionMessage = z.strictObject(versionFields).check((context) => {
  const version = context.value;
  const refuse = (field: string, message: string): void => {
    context.issues.push({ code: 'custom', input: null, path: [field], message });
  };
  const named = version.blocks.byteLength + version.lists.byteLength;
  if (version.blocks.byteLength > 0 && version.lists.byteLength > 0)
    refuse('lists', 'a version names blocks or lists, not both');
  if (named > 0 && (version.deleted || version.kind !== 'file'))
    refuse('blocks', 'only a file that exists has content');
  if (version.size > 0 && (version.deleted || version.kind !== 'file'))
    refuse('size', 'only a file that exists has a size');
  if (version.size > 0 && named === 0) refuse('blocks', 'a file with a size names its blocks');
  if (version.size === 0 && named > 0) refuse('size', 'a file with blocks has a size');
});
export type VersionMessage = z.infer<typeof VersionMessage>;

export const CommitRequest = z.strictObject({
  /** 16 random bytes, chosen once per commit and repeated when it is sent again. */
  commitId: bytes(16, 16),
  /** The run this belongs to, as `POST .../runs` numbered it. */
  run: count,
  /** As the agent last saw it; an older one than the archive's is refused with archive_changed. */
  purgeEpoch: count,
  versions: z.array(VersionMessage).min(1).max(limits.commitVersionsMax),
});
export type CommitRequest = z.infer<typeof CommitRequest>;

export const CommitAnswer = z.object({
  /** The versions got firstSeq, firstSeq + 1, ... in the order sent. */
  firstSeq: count,
  count,
  purgeEpoch: count,
});
export type CommitAnswer = z.infer<typeof CommitAnswer>;

// --- reading ------------------------------------------------------------------------------------------------------

export const TreeEntry = z.object({
  name: bytes(0, limits.nameBytesMax),
  kind: z.enum(fileKinds),
  size: count,
  mtime: moment,
  /** 0 for a folder that is only known from what lies in it. */
  seq: count,
  committedAt: moment.nullable(),
  deleted: z.boolean(),
});
export type TreeEntry = z.infer<typeof TreeEntry>;

/** One folder, in byte order of names. `after` of the next page is the last name of this one. */
export const TreeAnswer = z.object({ seq: count, entries: z.array(TreeEntry), more: z.boolean() });
export type TreeAnswer = z.infer<typeof TreeAnswer>;

export const StoredVersion = z.object({ ...versionFields, seq: count, committedAt: moment });
export type StoredVersion = z.infer<typeof StoredVersion>;

/**
 * Something was at this path by the moment, and retention has kept no version of it up to then. `next`: the first one with
 * content since; null when there is none. `folder`: something has lain in it, at some time.
 */
export const ThinnedVersion = z.object({
  path: pathBytes,
  folder: z.boolean().default(false),
  next: z.object({ seq: count, committedAt: moment }).nullable(),
});
export type ThinnedVersion = z.infer<typeof ThinnedVersion>;

/**
 * The frames of GET .../versions: first `begin`, then `versions` pages, last `end`. A stream without `end` was cut:
 * ask again with the `seq` of `begin` and, as `after`, the `upTo` of the last page or, where it has none, the path of its
 * last version.
 */
export const VersionsFrame = z.discriminatedUnion('frame', [
  z.object({ frame: z.literal('begin'), seq: count, at: moment }),
  z.object({
    frame: z.literal('versions'),
    versions: z.array(StoredVersion),
    /** Those of the same stretch of the archive. */
    thinned: z.array(ThinnedVersion).optional(),
    upTo: pathBytes.optional(),
  }),
  z.object({ frame: z.literal('end') }),
]);
export type VersionsFrame = z.infer<typeof VersionsFrame>;

/** All versions of one path, newest first. */
export const HistoryAnswer = z.object({ versions: z.array(StoredVersion), more: z.boolean() });
export type HistoryAnswer = z.infer<typeof HistoryAnswer>;

// --- runs ---------------------------------------------------------------------------------------------------------

export const RunStartRequest = z.strictObject({
  /** The last commit this agent saw acknowledged, with the seq of its first version; or null if it never saw one (new, or replacing a device). */
  lastCommit: z.strictObject({ commitId: bytes(16, 16), seq: count }).nullable(),
  roots: z.array(pathBytes).max(1_000),
});
export type RunStartRequest = z.infer<typeof RunStartRequest>;

export const RunStartAnswer = z.object({
  run: count,
  /** The seq the next version will get: 1 for an archive that holds nothing. */
  nextSeq: count,
  purgeEpoch: count,
  serverTime: moment,
  /** Blocks of this archive's files are damaged: ask which (`GET .../damaged`), and read those files again. */
  damaged: z.boolean().default(false),
});
export type RunStartAnswer = z.infer<typeof RunStartAnswer>;

/** Why a file is not in this run's versions. */
export const skipReasons = [
  'unreadable',
  'vanished',
  'changed_while_read',
  'special_file',
  'too_large',
  'name_not_storable',
  'other_file_system',
  'excluded',
  'root_suspicious',
] as const;
export type SkipReason = (typeof skipReasons)[number];

export const SkippedFile = z.strictObject({
  path: bytes(1, limits.pathBytesMax * 2),
  reason: z.enum(skipReasons),
  detail: text.default(''),
});
export type SkippedFile = z.infer<typeof SkippedFile>;

const runCounts = z.strictObject({
  filesSeen: count,
  filesChanged: count,
  filesDeleted: count,
  filesSkipped: count,
  bytesSeen: count,
  bytesRead: count,
  bytesSent: count,
});
export type RunCounts = z.infer<typeof runCounts>;

export const RunProgressRequest = z.strictObject({
  counts: runCounts,
  skipped: z.array(SkippedFile).max(limits.runSkippedMax).default([]),
});
export type RunProgressRequest = z.infer<typeof RunProgressRequest>;

export const runOutcomes = ['completed', 'failed', 'interrupted'] as const;
export const RunFinishRequest = z.strictObject({
  outcome: z.enum(runOutcomes),
  reason: text.default(''),
  counts: runCounts,
  skipped: z.array(SkippedFile).max(limits.runSkippedMax).default([]),
});
export type RunFinishRequest = z.infer<typeof RunFinishRequest>;

/** A run as the server remembers it. */
export const RunEntry = z.object({
  run: count,
  startedAt: moment,
  /** Null while it goes on. */
  finishedAt: moment.nullable(),
  outcome: z.enum(runOutcomes).nullable(),
  reason: z.string(),
  /** As the agent last told them; null when it never did. */
  counts: runCounts.nullable(),
  /** The archive's newest seq when it began: `versions?seq=` with it shows the archive just before this run. */
  beforeSeq: count,
  /** It changed or deleted an unusual share of the files that were there. */
  suspicious: z.boolean(),
});
export type RunEntry = z.infer<typeof RunEntry>;

/** Runs of an archive, newest first. `before` of the next page is the last run of this one. */
export const RunsAnswer = z.object({ runs: z.array(RunEntry), more: z.boolean() });
export type RunsAnswer = z.infer<typeof RunsAnswer>;

/** Paths whose latest version names damaged blocks, in byte order. `after` of the next page is the last of this one. */
export const DamagedAnswer = z.object({ paths: z.array(pathBytes), more: z.boolean() });
export type DamagedAnswer = z.infer<typeof DamagedAnswer>;

// --- plans --------------------------------------------------------------------------------------------------------

const minuteOfDay = z.int().min(0).max(1_440);

/**
 * A backup plan as the device that has it is told: what it backs up, and when. Paths and patterns are the administrator's
 * words; docs/excludes.md says how an agent reads them.
 */
export const PlanMessage = z.object({
  /** One device has a name once, whatever its case. */
  name: z.string().min(1),
  /** Folders. None: the home folders. */
  include: z.array(z.string()),
  exclude: z.array(z.string()),
  everyMinutes: z.int().min(1).max(525_600),
  /** When runs may begin, by the device's own clock; days from 1, Monday. None: always. */
  windows: z.array(
    z.object({ days: z.array(z.int().min(1).max(7)).min(1), fromMinute: minuteOfDay, untilMinute: minuteOfDay }),
  ),
  /** Whose plan it is. `settings`: there is none, and these are the defaults of the organization; its `name` is empty. */
  from: z.object({ kind: z.enum(['device', 'organization', 'settings']), name: z.string() }),
});
export type PlanMessage = z.infer<typeof PlanMessage>;

/** In the order in which plans that are due together are run. */
export const PlansAnswer = z.object({ plans: z.array(PlanMessage) });
export type PlansAnswer = z.infer<typeof PlansAnswer>;

/** Answers that say nothing but yes. */
export const EmptyAnswer = z.object({});
