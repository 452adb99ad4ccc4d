/**
 * Answers that are no refusal, and yet not what was asked for: a device that says why it shows nothing, a file that was not
 * there to have back. Words and the exit code tell so; `--json` has the answer as it is. Pure.
 */
import type { Operation } from '../document/operations.ts';

export interface Verdict {
  says: string;
  /** Nothing of it was done: an exit code, and not a note alone. */
  isFailure: boolean;
}

/** @returns null: nothing is to be said beside the answer */
export function verdictOn(
  { method, path }: Pick<Operation, 'method' | 'path'>,
  params: readonly string[],
  answer: unknown,
): Verdict | null {
  if (typeof answer !== 'object' || answer === null) return null;
  const { fault } = answer as { fault?: unknown };
  if (isFault(fault)) return { says: `${fault.detail} (${fault.code})`, isFailure: true };
  if (`${method} ${path}` === 'POST /v1/repositories/{guid}/undelete') return verdictOnUndeleting(params[0]!, answer);
  return null;
}

function isFault(fault: unknown): fault is { code: string; detail: string } {
  const { code, detail } = (fault ?? {}) as { code?: unknown; detail?: unknown };
  return typeof code === 'string' && typeof detail === 'string';
}

/** Names that are told in words. */
const namesMax = 5;

function verdictOnUndeleting(
  repository: string,
  answer: { gone?: unknown; shown?: unknown; next?: unknown },
): Verdict | null {
  const { gone, shown, next } = answer;
  const names = Array.isArray(gone) ? gone.map(String) : [];
  if (names.length > 0) {
    const more = names.length > namesMax ? ` and ${names.length - namesMax} more` : '';
    return {
      says: `Nothing is hidden under ${names.slice(0, namesMax).join(', ')}${more}: it never was there, or is gone for good.\nWhat can be had back: npm run admin -- repositories hidden list ${repository}`,
      isFailure: true,
    };
  }
  const isNothing = Object.keys(shown ?? {}).length === 0 && (next ?? null) === null;
  return isNothing ? { says: 'Nothing of it was hidden, so nothing has changed.', isFailure: false } : null;
}
