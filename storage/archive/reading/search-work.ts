/**
 * How a search does what takes the processor's time: in turns of a few milliseconds, between which others have theirs and it is
 * asked whether anybody still waits for it. Names and patterns come from outside, and one name may take as long as a turn.
 */
import { setImmediate } from 'node:timers/promises';
import type { Candidate, Candidates } from '../../catalog/reading/search.ts';
import type { MayMatch } from './search-bytes.ts';
import type { NameQuery } from './search-pattern.ts';
import { foldName } from './search-text.ts';

const turnMs = 5;

/** `if (turn.isOver) await turn.next()` after every piece of work. */
export class Turn {
  readonly #signal: AbortSignal | undefined;
  #endsAt = performance.now() + turnMs;

  constructor(signal?: AbortSignal) {
    this.#signal = signal;
  }

  get isOver(): boolean {
    return performance.now() >= this.#endsAt;
  }

  /** @throws the signal's reason */
  async next(): Promise<void> {
    await setImmediate();
    this.#signal?.throwIfAborted();
    this.#endsAt = performance.now() + turnMs;
  }
}

/** Bytes of names, each as often as the pattern has characters, after which it is told how far the search is: some 0.2 s. */
export const workMax = 16 * 1024 * 1024;

/** What leaves out names before they are text. */
export interface LeftOut {
  /** Null: their bytes say nothing. */
  mayMatch: MayMatch | null;
  /** Whether nothing in the folder is searched for. */
  isOut: (folder: number) => boolean;
}

/** Names that are looked at without asking for the time: none of them has more than 2 KiB. */
const askedEvery = 64;

/** Those of which the names match, in as many parts as the work asks for; a part's `upTo` is the last that was looked at. */
export async function* namedAmong(
  candidates: Candidates | readonly Candidate[],
  names: Pick<NameQuery, 'matchesName' | 'length'>,
  leftOut: LeftOut,
  signal?: AbortSignal,
): AsyncGenerator<{ named: Candidate[]; upTo: number | null }> {
  const turn = new Turn(signal);
  let named: Candidate[] = [];
  let work = 0;
  let looked = 0;
  for (const candidate of Array.isArray(candidates) ? candidates : left(candidates as Candidates, leftOut)) {
    if (++looked % askedEvery === 0 && turn.isOver) await turn.next();
    if (candidate === null) continue;
    if (names.matchesName(foldName(candidate.name))) named.push(candidate);
    work += candidate.name.byteLength * names.length;
    if (work >= workMax) {
      yield { named, upTo: candidate.fileId };
      named = [];
      work = 0;
    }
    if (turn.isOver) await turn.next();
  }
  yield { named, upTo: null };
}

/** Null: of as many as are looked at together, there is none more. */
function* left(candidates: Candidates, { mayMatch, isOut }: LeftOut): Generator<Candidate | null> {
  for (const at = candidates.first(); at.isThere; at.next()) {
    const isLeft = (!mayMatch || mayMatch(at.bytes, at.nameStart, at.nameEnd)) && !isOut(at.parentId);
    yield isLeft ? at.candidate() : null;
  }
}
