/** What a command says: results on stdout, everything else on stderr, so that a script reads results alone. */
import { Problem } from '../../protocol/problems.ts';
import { ConnectionLost, exitCodes, UsageError } from '../errors.ts';
import { ProblemOfOptions } from './at-fault.ts';
import { printable, printableJson, printableLines } from './printable.ts';

/** A line for people that is no result. */
export function note(line: string): void {
  process.stderr.write(`${printableLines(line)}\n`);
}

export function say(lines: readonly string[]): void {
  if (lines.length > 0) process.stdout.write(`${lines.join('\n')}\n`);
}

/** A document for scripts, which people read in lines. */
export function sayJson(value: unknown): void {
  process.stdout.write(`${printableJson(value, process.stdout.isTTY ? 2 : 0)}\n`);
}

export function sayJsonLine(value: unknown): void {
  process.stdout.write(`${printableJson(value)}\n`);
}

/** Of the terminal that results go to; null: they go somewhere else, whole. */
export function terminalWidth(): number | null {
  return process.stdout.isTTY ? (process.stdout.columns ?? 80) : null;
}

/** Says what went wrong, and what to do where that is known. @returns the exit code */
export function reportError(error: unknown, { json }: { json: boolean }): number {
  const failure = error instanceof Error ? error : new Error(String(error));
  const code = failure instanceof UsageError ? exitCodes.usage : exitCodes.failed;
  if (json) process.stderr.write(`${printableJson(errorForScripts(failure))}\n`);
  else note(failure instanceof Problem ? problemInWords(failure) : failure.message);
  return code;
}

function errorForScripts(failure: Error): object {
  if (failure instanceof Problem) return failure.toJSON();
  return { code: (failure as { code?: unknown }).code ?? failure.name, detail: failure.message };
}

/** The problem's own words, the option or field at fault, and what to do next. */
export function problemInWords(problem: Problem): string {
  const ofOptions = problem instanceof ProblemOfOptions ? problem : null;
  const instead = ofOptions?.instead ?? null;
  const field = ofOptions?.atFault ?? problem.extras.field;
  const where = field === undefined || instead !== null ? '' : ` (${fieldInWords(field)})`;
  const next = instead === null ? adviceFor(problem) : `That is: ${instead}`;
  return `${ofOptions?.inWords ?? problem.message}${where}${next === null ? '' : `\n${next}`}`;
}

function fieldInWords(field: string): string {
  return field === '(whole message)' ? 'the whole of what was sent' : `at fault: ${printable(field)}`;
}

function adviceFor({ code, extras }: Problem): string | null {
  switch (code) {
    case 'precondition_failed':
      return `It was changed meanwhile${extras.version === undefined ? '' : `: its version is ${extras.version}`}. Look at it again, then send the change with that --if-match.`;
    case 'forbidden':
      return 'What you may: npm run admin -- whoami';
    case 'too_many_requests':
      return extras.retryAfterSeconds === undefined ? null : `Try again in ${extras.retryAfterSeconds} s.`;
    case 'idempotency_key_reused':
      return 'Give another --idempotency-key, or none.';
    case 'overloaded':
    case 'unavailable':
    case 'shutting_down':
      return 'The server says that this passes; try again in a while.';
    case 'internal':
      return 'That is a fault of the server; its log says more.';
    default:
      return null;
  }
}

/** A change whose answer was lost may have been made. */
export function withOutcome(error: unknown, what: { isReading: boolean; key: string | null }): unknown {
  if (!(error instanceof ConnectionLost) || !error.sent || what.isReading) return error;
  const how = what.key === null ? '' : `, or the same command with --idempotency-key ${what.key}, which does it once`;
  return new ConnectionLost(`${error.message}\nWhether it was done is not known: look first${how}.`, {
    cause: error,
    sent: true,
  });
}
