import { limits, listing } from '../../protocol/limits.ts';
import { printablePath } from '../../protocol/paths.ts';
import { Problem } from '../../protocol/problems.ts';
import type { Keyring } from '../../protocol/sealing/index.ts';
import type { Client } from '../client/client.ts';
import { ConnectionLost } from '../client/errors.ts';
import { JobPool } from '../files/job-pool.ts';
import { isAtOrBelow, platformRules, untouchedBelow } from '../files/path-rules.ts';
import { smallBytesMax } from '../files/read.ts';
import { type Excludes, FileReadError, type FileState, type LocalPath, type WalkEvent } from '../files/types.ts';
import { walk } from '../files/walk.ts';
import type { Cache, CachedFile } from '../state/cache.ts';
import { keyringOf, type Registration } from '../state/registration.ts';
import { BlockSender, defaultSenderOptions, type SenderOptions } from './block-sender.ts';
import { ClaimRenewals } from './claim-renewals.ts';
import { Committer, type CommitterOptions, defaultCommitterOptions, type Entry } from './committer.ts';
import { isUnchanged } from './compare.ts';
import type { ContentNaming } from './content-names.ts';
import { CpuPacer } from './cpu-pacer.ts';
import { deletionOf, type EntryWorld, isSameVersion, makeEntry, pendingOf } from './entries.ts';
import { HardLinks } from './hard-links.ts';
import { type Counts, newProgress, type Progress, runCounts } from './progress.ts';
import { acceptRoot } from './root-accept.ts';
import { RunLog } from './run-log.ts';
import { archiveChanged, type StartedRun, startRun } from './start.ts';
import { type ContentWorld, type StoredContent, storeContent } from './store-content.ts';

export interface BackupOptions {
  client: Client;
  cache: Cache;
  registration: Registration;
  roots: readonly LocalPath[];
  excludes: Excludes;
  oneFileSystem: boolean;
  /** Read every file, whatever its times say. */
  rehash?: boolean;
  /** Take the roots as they are now, though they look emptied or exchanged. */
  acceptRoots?: boolean;
  /** Record as deleted also what the archive holds below the roots and this machine never had. */
  deleteUnseen?: boolean;
  /**
   * Archive paths whose deletions are for other runs to find: below one of them, where it lies below a root, nothing is
   * recorded as deleted.
   */
  untouched?: readonly Buffer[];
  /** Of one processor: 0.5 is half of one. */
  cpuShare?: number;
  sender?: Partial<SenderOptions>;
  committer?: Partial<CommitterOptions>;
  naming?: Partial<ContentNaming>;
  /** Stops the run at the next file; requests under way are finished and what is complete is committed. */
  signal?: AbortSignal;
  /** Filled as the run goes. */
  progress?: Progress;
  /** Told of every folder at and below the roots, once: `watch` listens there. */
  onFolder?: (localPath: LocalPath) => void;
}

export interface BackupResult {
  outcome: 'completed' | 'failed' | 'interrupted';
  /** Why it failed; empty when it did not. */
  reason: string;
  run: number;
  generation: number;
  counts: Counts;
  /** The cache had to be compared with the archive first, and why. */
  reconciled: string | null;
}

/** Everything a run carries along. */
interface Run {
  options: BackupOptions;
  progress: Progress;
  generation: number;
  content: ContentWorld;
  entries: EntryWorld;
  sender: BlockSender;
  committer: Committer;
  log: RunLog;
  jobs: JobPool;
  links: HardLinks;
  /** Roots read to their end so far, and those that failed, in words. */
  goodRoots: Buffer[];
  failedRoots: string[];
  /** Nothing at or below it is looked at. */
  ignored: Buffer | null;
}

const MiB = 1024 * 1024;
const none = Buffer.alloc(0);
const tellEveryMs = 30_000;
const commitCheckEveryMs = 2_000;
const renewalCheckEveryMs = 500;
/** Weights of files read side by side: sixteen small ones, eight below a MiB, two of some MiB, or a large one alone. */
const jobsWeightMax = 16;

/**
 * Runs one backup.
 * @returns how it ended; `failed` with a reason when a root could not be trusted
 * @throws what made going on impossible (Problem, ConnectionLost, ...), after recording the run as failed
 */
export async function backup(options: BackupOptions): Promise<BackupResult> {
  const progress = options.progress ?? newProgress();
  const { client, cache, registration } = options;
  const { archive, vault } = registration;
  const keys = keyringOf(registration);
  const generation = cache.beginRun(
    options.roots.map((root) => printableLocal(root)),
    Date.now(),
  );
  const end = (outcome: BackupResult['outcome'], reason: string): void =>
    cache.endRun(generation, { now: Date.now(), outcome, reason, counts: progress.counts });

  let started: StartedRun;
  try {
    progress.phase = 'comparing';
    started = await startRun({ client, cache, keys, vault, archive }, options.roots, options.signal);
  } catch (error) {
    end(options.signal?.aborted ? 'interrupted' : 'failed', (error as Error).message);
    throw error;
  }
  const run = createRun(options, progress, { generation, keys, ...started });
  const timers = [
    setInterval(() => void run.committer.closeIfDue().catch(() => undefined), commitCheckEveryMs),
    // A broken server shows in what must not fail.
    setInterval(() => void run.log.tell().catch(() => undefined), tellEveryMs),
    setInterval(() => void run.content.renewals.renewIfDue().catch(() => undefined), renewalCheckEveryMs),
  ];
  try {
    const interrupted = await work(run);
    progress.phase = 'ending';
    const outcome = interrupted ? 'interrupted' : run.failedRoots.length > 0 ? 'failed' : 'completed';
    const reason = run.failedRoots.join('; ').slice(0, limits.textMax);
    updateCounts(run);
    const skipped = await run.log.takeLast();
    await client.finishRun(archive, started.run, { outcome, reason, counts: runCounts(progress.counts), skipped });
    end(outcome, reason);
    return { outcome, reason, run: started.run, generation, counts: progress.counts, reconciled: started.reconciled };
  } catch (error) {
    updateCounts(run);
    end('failed', (error as Error).message);
    await tellFailure(options, started.run, progress, error as Error);
    throw error;
  } finally {
    for (const timer of timers) clearInterval(timer);
    await run.jobs.settle();
    cache.flush();
  }
}

function createRun(
  options: BackupOptions,
  progress: Progress,
  start: { generation: number; keys: Keyring; run: number; purgeEpoch: number },
): Run {
  const { client, cache, registration } = options;
  const renewals = new ClaimRenewals(client);
  const sender = new BlockSender(client, { ...defaultSenderOptions, ...options.sender }, (claimedForMs) =>
    renewals.learn(claimedForMs),
  );
  const content: ContentWorld = {
    client,
    keys: start.keys.newest,
    vault: registration.vault,
    keyGeneration: start.keys.generation,
    sender,
    renewals,
    naming: { ...listing, ...options.naming },
    pacer: options.cpuShare ? new CpuPacer(options.cpuShare) : null,
    onRead: (bytes) => {
      progress.counts.bytesRead += bytes;
      progress.bytesDone += bytes;
      updateCounts(run);
    },
  };
  const committer = new Committer(
    {
      client,
      cache,
      sender,
      archive: registration.archive,
      run: start.run,
      generation: start.generation,
      restore: (entry) => readAgain(run, entry),
      onArchiveChanged: (purgeEpoch) =>
        archiveChanged(
          { client, cache, keys: start.keys, vault: registration.vault, archive: registration.archive },
          purgeEpoch,
        ),
      onCommitted: (entries) => {
        for (const { version } of entries) {
          if (version.deleted) progress.counts.filesDeleted++;
          else if (version.kind !== 'directory') progress.counts.filesChanged++;
        }
      },
    },
    start.purgeEpoch,
    { ...defaultCommitterOptions, ...options.committer },
  );
  const run: Run = {
    options,
    progress,
    generation: start.generation,
    content,
    entries: {
      keys: start.keys.newest,
      vault: registration.vault,
      archive: registration.archive,
      keyGeneration: start.keys.generation,
    },
    sender,
    committer,
    log: new RunLog(client, cache, progress, {
      archive: registration.archive,
      run: start.run,
      generation: start.generation,
    }),
    jobs: new JobPool(jobsWeightMax),
    links: new HardLinks(),
    goodRoots: [],
    failedRoots: [],
    ignored: null,
  };
  return run;
}

/** Walks, stores, records deletions. @returns whether the signal cut it short; what is complete is committed either way */
async function work(run: Run): Promise<boolean> {
  const { signal } = run.options;
  run.progress.phase = 'backing_up';
  try {
    for await (const event of walk(run.options.roots, {
      excludes: run.options.excludes,
      oneFileSystem: run.options.oneFileSystem,
      signal,
    })) {
      await take(run, event);
      if (run.log.isFull) await run.log.tell();
      signal?.throwIfAborted();
    }
    await run.jobs.drain();
  } catch (error) {
    if (!signal?.aborted) throw error;
  }
  await run.jobs.settle();
  await run.committer.finish();
  if (signal?.aborted) return true;
  await recordDeletions(run);
  // What no commit waits for: a file that is as the archive has it was read again, and the server asked for its blocks.
  await run.sender.barrier();
  return false;
}

async function take(run: Run, event: WalkEvent): Promise<void> {
  if (event.type === 'root-failed') return failRoot(run, event.path, event.detail);
  if (event.type === 'root') {
    run.ignored = null;
    const suspicion = await acceptRoot(run.options.cache, event, run.options.acceptRoots ?? false);
    if (suspicion) {
      run.ignored = event.path;
      failRoot(run, event.path, `${suspicion}. If that is as it should be, run once with --accept-roots`);
    } else run.goodRoots.push(event.path);
    return;
  }
  const path = event.type === 'file' ? event.file.path : event.path;
  if (run.ignored && isAtOrBelow(path, run.ignored)) return;
  if (event.type === 'skipped') return run.log.leaveOut(event);
  await takeFile(run, event.file);
}

function failRoot(run: Run, path: Buffer, detail: string): void {
  run.failedRoots.push(`${printablePath(path)}: ${detail}`);
  run.log.leaveOut({ path, reason: 'root_suspicious', detail, subtree: true });
}

async function takeFile(run: Run, file: FileState): Promise<void> {
  const { options, progress } = run;
  const { cache } = options;
  const { counts } = progress;
  progress.path = file.path;
  if (file.kind === 'directory') {
    counts.foldersSeen++;
    if (options.onFolder && run.goodRoots.some((root) => isAtOrBelow(file.path, root)))
      options.onFolder(file.localPath);
  } else {
    counts.filesSeen++;
    counts.bytesSeen += file.size;
  }
  const cached = cache.lookup(file.path);
  if (cached) cache.markSeen(cached.id, run.generation);
  if (file.kind === 'file' && file.size > 0) {
    if (cached && !options.rehash && isUnchanged(file, cached)) {
      counts.filesUnchanged++;
      progress.bytesDone += file.size;
      return;
    }
    await run.jobs.add(weightOf(file), () => storeFile(run, file, cached));
  } else {
    await offer(run, { file, blocks: none, lists: none, readAtMs: Date.now() }, cached);
  }
}

function weightOf(file: FileState): number {
  if (file.size <= smallBytesMax) return 1;
  if (file.size <= MiB) return 2;
  return file.size <= 64 * MiB ? 6 : jobsWeightMax;
}

async function storeFile(run: Run, file: FileState, cached: CachedFile | null): Promise<void> {
  const { cache, rehash, signal } = run.options;
  // Of a file that is read because the server has damaged blocks of it, or to be sure, every block is asked about.
  const isWell = cached?.trusted && !rehash;
  const previousLists = isWell ? cache.contentOf(cached.id).lists : none;
  try {
    await offer(
      run,
      await run.links.contentOf(file, () => storeContent(run.content, file, { previousLists, signal })),
      cached,
    );
  } catch (error) {
    if (!(error instanceof FileReadError)) throw error;
    run.log.leaveOut({ path: file.path, reason: error.reason, detail: error.message, subtree: false });
  }
}

/** Hands a file state to the committer, unless the archive has the very same already. */
async function offer(run: Run, content: StoredContent, cached: CachedFile | null): Promise<void> {
  const { file } = content;
  const pending = pendingOf(content);
  if (cached && isSameVersion(run.options.cache, cached, pending)) {
    run.options.cache.refresh(cached.id, run.generation, pending);
    if (file.kind !== 'directory') run.progress.counts.filesUnchanged++;
    return;
  }
  const entry = makeEntry(run.entries, pending, file);
  if (entry.version.attributes.byteLength > limits.attributesBytesMax) {
    throw new FileReadError('too_large', `its attributes take more than ${limits.attributesBytesMax} bytes`);
  }
  await run.committer.add(entry);
}

/** The server misses blocks of this entry: reads the file once more and makes the entry anew. */
async function readAgain(run: Run, entry: Entry): Promise<Entry | null> {
  const file = entry.source!;
  try {
    const content = await storeContent(run.content, file);
    return makeEntry(run.entries, pendingOf(content), content.file);
  } catch (error) {
    if (!(error instanceof FileReadError)) throw error;
    run.log.leaveOut({ path: file.path, reason: error.reason, detail: error.message, subtree: false });
    return null;
  }
}

/** What earlier runs met below the good roots and this one did not. */
async function recordDeletions(run: Run): Promise<void> {
  const { cache } = run.options;
  run.progress.phase = 'deletions';
  for (const root of run.goodRoots) {
    const untouched = untouchedBelow(root, run.options.untouched ?? [], platformRules(process.platform));
    for (const gone of cache.gone(root, run.generation, run.options.deleteUnseen ?? false)) {
      if (untouched(gone.path)) continue;
      await run.committer.add(makeEntry(run.entries, deletionOf(gone, Date.now()), null));
    }
    cache.forgetOldSkipped(root, run.generation);
  }
  await run.committer.finish();
}

function updateCounts(run: Run): void {
  const { plainBytesKnown, ...counts } = run.sender.counts;
  Object.assign(run.progress.counts, { ...counts, bytesKnown: plainBytesKnown });
}

/** The server learns why, if it can be reached; the run's own error is the one to report. */
async function tellFailure(options: BackupOptions, run: number, progress: Progress, error: Error): Promise<void> {
  const isFull = error instanceof Problem && error.code === 'quota_exceeded';
  if (error instanceof ConnectionLost || (error instanceof Problem && error.status >= 500 && !isFull)) return;
  const reason = error.message.slice(0, limits.textMax);
  const request = { outcome: 'failed' as const, reason, counts: runCounts(progress.counts), skipped: [] };
  await options.client.finishRun(options.registration.archive, run, request).catch(() => undefined);
}

function printableLocal(path: LocalPath): string {
  return typeof path === 'string' ? path : path.toString('utf8');
}
