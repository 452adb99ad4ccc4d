/**
 * Answers that are no refusal, and yet not what was asked for: a device that says why it shows nothing, a file that was not
 * there to have back. Words and the exit code tell so; `--json` has the answer as it is. Pure.
 */
import type { Operation } from '../document/operations.ts';

export interface Verdict {
  says: string;
  /** Nothing of it was done, or not all of it: an exit code, and not a note alone. */
  isFailure: boolean;
}

/** What was asked with it. */
export interface AskedWith {
  params: readonly string[];
  body?: unknown;
}

/** @returns null: nothing is to be said beside the answer */
export function verdictOn(
  { method, path }: Pick<Operation, 'method' | 'path'>,
  asked: AskedWith,
  answer: unknown,
): Verdict | null {
  if (typeof answer !== 'object' || answer === null) return null;
  const { fault } = answer as { fault?: unknown };
  if (isFault(fault)) return { says: `${fault.detail} (${fault.code})`, isFailure: true };
  if (`${method} ${path}` === 'POST /v1/repositories/{guid}/undelete') return verdictOnUndeleting(asked, answer);
  return null;
}

function isFault(fault: unknown): fault is { code: string; detail: string } {
  const { code, detail } = (fault ?? {}) as { code?: unknown; detail?: unknown };
  return typeof code === 'string' && typeof detail === 'string';
}

/** Names that are told in words. */
const namesMax = 5;

function verdictOnUndeleting(
  { params, body }: AskedWith,
  answer: { gone?: unknown; shown?: unknown; damaged?: unknown; next?: unknown },
): Verdict | null {
  const { gone, shown, damaged, next } = answer;
  const faults: string[] = [];
  const never = namesIn(gone);
  if (never.length > 0)
    faults.push(
      `Nothing is hidden under ${namesInWords(never, never.length)}: it never was there, or is gone for good.\nWhat can be had back: npm run admin -- repositories hidden list ${params[0]}`,
    );
  const { files = 0, first } = (damaged ?? {}) as { files?: number; first?: unknown };
  if (files > 0)
    faults.push(
      `${files === 1 ? '1 file' : `${files} files`} cannot be had back, for what they hold is damaged: ${namesInWords(namesIn(first), files)}.\nWhoever runs the server sees more by its check (the alert \`damaged\`); once it is mended, undelete them again.`,
    );
  if (faults.length > 0) return { says: faults.join('\n'), isFailure: true };
  if (Object.keys(shown ?? {}).length > 0 || (next ?? null) !== null) return null;
  // Steps before this one may have had everything back.
  const isFirst = ((body ?? {}) as { after?: unknown }).after === undefined;
  const says = isFirst ? 'Nothing of it was hidden, so nothing has changed.' : 'Nothing more of it is hidden.';
  return { says, isFailure: false };
}

const namesIn = (list: unknown): string[] => (Array.isArray(list) ? list.map(String) : []);

/** The first of them, and how many more there are. */
function namesInWords(names: readonly string[], count: number): string {
  const told = names.slice(0, namesMax);
  const more = count > told.length ? ` and ${count - told.length} more` : '';
  return `${told.join(', ')}${more}`;
}
