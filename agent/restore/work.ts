/** What the parts of one restore share: the target, the counts, the events, and how failures are told apart. */
import { Problem } from '../../protocol/problems.ts';
import { SealError } from '../../protocol/sealing/index.ts';
import type { JobPool } from '../files/job-pool.ts';
import { letGoOfMany } from '../files/memory.ts';
import type { Ownership } from './apply.ts';
import type { Fetcher, FetchJob } from './fetcher.ts';
import type { Folder } from './folders.ts';
import type { HardLinks } from './hard-links.ts';
import type { Staging } from './staging.ts';
import {
  eventsKeptMax,
  LeftOut,
  noCounts,
  placesFor,
  type RestoreCounts,
  RestoreError,
  type RestoreNotice,
  type RestoreOptions,
  type RestoreProblem,
  type RestoreProgress,
} from './types.ts';

export interface Work {
  options: RestoreOptions;
  target: Folder;
  staging: Staging;
  ownership: Ownership | null;
  fetcher: Fetcher;
  links: HardLinks;
  /** Files compared with what stands at their names, beside the manifest's reading. */
  checks: JobPool;
  /** Files begun and not done: a failure of the whole ends them. */
  active: Set<FetchJob>;
  signal: AbortSignal;
  ledger: Ledger;
}

/** Files whose versions, by then, lie behind. */
const letGoEveryFiles = 500;

/** Counts and events of one restore. */
export class Ledger {
  readonly counts: RestoreCounts;
  readonly progress: RestoreProgress = {
    filesSeen: 0,
    bytesSeen: 0,
    seenAll: false,
    filesDone: 0,
    bytesDone: 0,
    bytesFetched: 0,
  };
  readonly problems: RestoreProblem[] = [];
  readonly notices: RestoreNotice[] = [];
  readonly #options: RestoreOptions;

  constructor(options: RestoreOptions) {
    this.#options = options;
    this.counts = options.counts ?? noCounts();
  }

  problem(path: Buffer, reason: RestoreProblem['reason'], detail: string): void {
    const event: RestoreProblem = { type: 'problem', path, reason, detail };
    this.counts.problems++;
    if (this.problems.length < placesFor(event, eventsKeptMax)) this.problems.push(event);
    this.#options.onEvent?.(event);
  }

  notice(path: Buffer, what: RestoreNotice['what'], detail: string): void {
    const event: RestoreNotice = { type: 'notice', path, what, detail };
    this.counts.notices++;
    if (this.notices.length < eventsKeptMax) this.notices.push(event);
    this.#options.onEvent?.(event);
  }

  seen(bytes: number): void {
    if (++this.progress.filesSeen % letGoEveryFiles === 0) letGoOfMany();
    this.progress.bytesSeen += bytes;
  }

  /** Bytes of a file that is not whole yet. */
  wrote(bytes: number): void {
    this.progress.bytesDone += bytes;
    this.report();
  }

  /** @param bytes those of the file that `wrote` did not tell of */
  done(bytes: number): void {
    this.progress.filesDone++;
    this.progress.bytesDone += bytes;
    this.report();
  }

  fetched(bytes: number): void {
    this.counts.blocksFetched++;
    this.counts.bytesFetched += bytes;
    this.progress.bytesFetched += bytes;
    this.report();
  }

  report(): void {
    this.#options.onProgress?.({ ...this.progress });
  }
}

/** Failures of the target as a whole: going on would only repeat them for every file. */
const fatalCodes = new Set(['ENOSPC', 'EDQUOT', 'EROFS', 'EIO', 'EMFILE', 'ENFILE', 'ENOMEM', 'ESTALE']);

/**
 * What a failure means for one file.
 * @throws the failure itself when it is one of the whole restore
 */
export function leftOutBy(work: Work, error: unknown): LeftOut {
  if (work.signal.aborted) throw error;
  if (error instanceof LeftOut) return error;
  if (error instanceof RestoreError) throw error;
  if (error instanceof SealError && error.reason === 'wrong_generation')
    return new LeftOut('key_missing', `${error.message}: get it with 'unlock'`, { cause: error });
  if (error instanceof SealError) return new LeftOut('attributes_damaged', error.message, { cause: error });
  if (error instanceof Problem) return new LeftOut('attributes_damaged', error.message, { cause: error });
  const { code, syscall, message } = error as NodeJS.ErrnoException;
  if (typeof code !== 'string' || typeof syscall !== 'string') throw error;
  if (fatalCodes.has(code))
    throw new RestoreError('target_failed', `the target cannot be written: ${message}`, { cause: error });
  return new LeftOut('target_refused', `${code} (${syscall})`, { cause: error });
}

/** Runs a step that sets attributes; where the target does not take them, that is said and the file stays. */
export async function settingAttributes(work: Work, path: Buffer, step: () => Promise<void>): Promise<void> {
  try {
    await step();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!['EPERM', 'EACCES', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EINVAL'].includes(code ?? '')) throw error;
    work.ledger.notice(path, 'attributes_not_set', `the target does not take its owner, mode or time (${code})`);
  }
}
