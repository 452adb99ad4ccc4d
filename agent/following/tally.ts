/** What there is to say of a restore that was told of, within the bounds of what a server takes. */
import type {
  CommandCounts,
  CommandEndRequest,
  CommandProblem,
  CommandProgressRequest,
} from '../../protocol/commands.ts';
import { limits } from '../../protocol/limits.ts';
import {
  noCounts,
  placesFor,
  type RestoreCounts,
  type RestoreProblem,
  type RestoreProgress,
} from '../restore/types.ts';

type Progress = Omit<CommandProgressRequest, 'attempt'>;

/** Of the paths that an end names: a hundred of the usual ones are a few KiB, and what the server has not heard is kept. */
const problemBytesMax = 256 * 1024;

export class Tally {
  readonly counts: RestoreCounts = noCounts();
  readonly problems: CommandProblem[] = [];
  /** Of places that are done. */
  #before: Progress = { filesSeen: 0, bytesSeen: 0, filesDone: 0, bytesDone: 0, bytesFetched: 0 };
  #now = this.#before;
  #problemBytes = 0;

  get progress(): Progress {
    return bounded(this.#now);
  }

  see(progress: RestoreProgress): void {
    const sum = { ...this.#before };
    for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += progress[name];
    this.#now = sum;
  }

  placeDone(): void {
    this.#before = this.#now;
  }

  problem({ path, reason, detail }: Omit<RestoreProblem, 'type'>): void {
    if (
      this.problems.length >= placesFor({ reason }, limits.commandProblemsMax) ||
      this.#problemBytes + path.byteLength > problemBytesMax
    )
      return;
    this.#problemBytes += path.byteLength;
    this.problems.push({ path, reason, detail: words(detail) });
  }

  /** What the server is told at its end. */
  end(attempt: Buffer, outcome: CommandEndRequest['outcome'], why = ''): CommandEndRequest {
    const { filesKept: _, hardLinks, blocksFetched: __, filesRestored, ...counts } = this.counts;
    const told = bounded({ ...counts, filesRestored: filesRestored + hardLinks });
    return { attempt, outcome, counts: told, problems: this.problems, why: words(why) };
  }
}

/** One more thing that there is to say of an end. */
export function addWhy(end: CommandEndRequest, more: string): CommandEndRequest {
  return { ...end, why: words(end.why ? `${end.why}; ${more}` : more) };
}

/**
 * What is left of an end that the server refuses for what it says: without the files that it names, and when that is refused as
 * well, without its counts. What was done is not told as done then: it has failed, and says that it was refused.
 * @returns null: less cannot be said
 */
export function plainerEnd(end: CommandEndRequest, refusal: string): CommandEndRequest | null {
  const { attempt, outcome, counts, problems, why } = end;
  const none = new Tally().end(attempt, 'failed').counts;
  const saysNumbers = Object.values(counts).some((count) => count !== 0);
  if (problems.length === 0 && !saysNumbers && outcome === 'failed' && why.startsWith(refused)) return null;
  const { filesRestored, filesIdentical, problems: leftOut } = counts;
  const did = `${outcome}; ${filesRestored} files restored, ${filesIdentical} there already, ${leftOut} left out`;
  return {
    attempt,
    outcome: 'failed',
    counts: problems.length > 0 ? counts : none,
    problems: [],
    why: why.startsWith(refused) ? why : words(`${refused} (${did}${why && `; ${why}`}): ${refusal}`),
  };
}

const refused = 'the server refuses what the device says of its end';

const bytesOf = new Set<string>(['bytesSeen', 'bytesDone', 'bytesFetched', 'bytesRestored', 'bytesResumed'] satisfies (
  | keyof Progress
  | keyof CommandCounts
)[]);

/** Numbers that are not to be believed, as of sizes that a server made up, are not to keep the rest from being told. */
function bounded<Counts extends Progress | CommandCounts>(counts: Counts): Counts {
  const entries = Object.entries(counts).map(([name, count]: [string, number]) => [
    name,
    Math.min(count, bytesOf.has(name) ? limits.restoredBytesMax : limits.restoredFilesMax),
  ]);
  return Object.fromEntries(entries) as Counts;
}

/** Within the bounds of what a server takes. */
function words(text: string): string {
  return text.replaceAll('\0', '').slice(0, limits.textMax).toWellFormed();
}
