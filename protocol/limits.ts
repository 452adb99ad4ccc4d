/**
 * Every bound that agents and server agree on. Nothing on the wire is without one.
 * A request at a bound is accepted; one past it is refused with a problem that names the field.
 */
const KiB = 1024;
const MiB = 1024 * KiB;

export const limits = {
  /** Bytes of a SHA-256, the name of every block and list. */
  hashBytes: 32,

  /** Sealed bytes of one block, as the server accepts it. Agents cut far smaller (see `chunking`). */
  blockBytesMax: 32 * MiB,
  /** Body bytes of one upload, without its header: one upload becomes one object. */
  uploadBytesMax: 32 * MiB,
  /** Blocks in one upload. */
  uploadBlocksMax: 8_192,
  /** Bytes of the msgpack header that opens an upload. 8,192 blocks x (32 + 5) bytes is 303 KiB. */
  uploadHeaderBytesMax: 1 * MiB,

  /** Hashes in one claim. More in one statement and the planner's choice starts to matter (docs/decisions/catalog.md). */
  claimBlocksMax: 16_384,
  /** Hashes in one fetch. Bounds how long one response holds its place in the store's connection pool. */
  fetchBlocksMax: 4_096,
  /** Lists in one upload: they are entered a few at a time, and the sender waits for all. */
  uploadListsMax: 64,
  /** Lists in one fetch: an answer of 32 MiB at most. */
  fetchListsMax: 256,

  /** File states in one commit. */
  commitVersionsMax: 10_000,
  /** Distinct hashes named by one commit: all of them are locked together. */
  commitHashesMax: 16_384,
  /** Bytes of a commit's body. 10,000 versions of about 500 bytes and 16,384 hashes fit five times over. */
  commitBodyBytesMax: 32 * MiB,
  /** Blocks one version may name directly: what one commit can lock. Agents name lists long before (see `listing`). */
  versionBlocksMax: 16_384,
  /**
   * Lists one version may name. Of blocks of 8 MiB (see `chunking`) and lists of 1,024 (see `listing`) that is a file
   * of about 128 TiB; a larger one is refused by name.
   */
  versionListsMax: 16_384,
  /** Hashes in one list. */
  listBlocksMax: 4_096,

  /** Generations of a vault's key. Each comes with a higher level, of which there are three; the rest is room. */
  keyGenerationsMax: 8,

  /** Bytes of a path, from its leading slash. */
  pathBytesMax: 32 * KiB,
  /** Bytes of one name in a path. No file system goes past 1,020; an entry of PostgreSQL's index must fit 2,704. */
  nameBytesMax: 2_048,
  /** Names in one path. Each level is a step of a commit's transaction, so the depth is bounded apart from the length. */
  pathDepthMax: 512,
  /** Sealed attributes of one version. */
  attributesBytesMax: 16 * KiB,

  /** Entries in one page of a listing. */
  pageEntriesMax: 1_000,
  /** Bytes of a message that is not an upload or a commit. Holds a full claim (512 KiB) and a full fetch. */
  messageBytesMax: 1 * MiB,
  /** Bytes of one frame of a streamed answer: a version with 16,384 blocks or lists is 512 KiB, and one entry always fits. */
  frameBytesMax: 4 * MiB,
  /** Nesting of a msgpack message. */
  messageDepthMax: 8,

  /** Files left out that one message of a run may name; a run may send many messages. */
  runSkippedMax: 1_000,
  /** Files left out that the server keeps for one run; the rest are counted. */
  runSkippedKeptMax: 10_000,
  /** Characters of a human's words: a reason, a device's name. */
  textMax: 1_024,

  /** Paths of one restore that a device is told to do. */
  commandPathsMax: 1_000,
  /** Bytes of all of them together: a command is one frame. */
  commandPathBytesMax: 1 * MiB,
  /** Files left out that the end of a command names; the rest are counted. */
  commandProblemsMax: 100,
  /** What one restore may say of its files and of its bytes: sums of many stay exact. More than any archive has. */
  restoredFilesMax: 2 ** 40,
  restoredBytesMax: 2 ** 50,
  /** Bytes of a command's end: all those paths at their longest, and what is said of each. */
  commandEndBytesMax: 8 * MiB,
  /** Bytes of a folder's page: every name at its longest is 2 MiB. */
  browseAnswerBytesMax: 4 * MiB,
  /** Commands of one device that wait or are under way. */
  deviceCommandsMax: 100,
  /** Bytes of the paths of all of them. */
  devicePathBytesMax: 8 * MiB,
} as const;

/** Content-defined chunk sizes, in plain bytes, by file size. The larger the file, the fewer blocks name it. */
export const chunking = [
  { fileBytesUpTo: 4 * 1024 * MiB, minBytes: 256 * KiB, averageBytes: 1 * MiB, maxBytes: 4 * MiB },
  { fileBytesUpTo: Number.POSITIVE_INFINITY, minBytes: 2 * MiB, averageBytes: 8 * MiB, maxBytes: 16 * MiB },
] as const;

/** How a file's blocks are named: up to `directBlocksMax` by its version, more by lists of these sizes, in hashes. */
export const listing = { directBlocksMax: 1_024, minBlocks: 256, averageBlocks: 1_024, maxBlocks: 4_096 } as const;
