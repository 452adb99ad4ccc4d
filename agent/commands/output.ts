/**
 * What a command says. For people: results on stdout, errors and progress on stderr. With --json: one object per line
 * on stdout, each with an `event`, and nothing else there.
 */

import { Problem } from '../../protocol/problems.ts';
import { CertificateRefused, ConnectionLost, NotAServer } from '../client/errors.ts';
import { surroundings } from '../state/home.ts';

/** Documented in --help; scripts rely on them. */
export const exitCodes = { ok: 0, failed: 1, usage: 2, incomplete: 3, interrupted: 130 } as const;

/** The caller's mistake, told without a stack. */
export class UsageError extends Error {}

export interface Output {
  json: boolean;
  /** A person watches: progress may be drawn over itself. */
  terminal: boolean;
  /** A line for people. */
  say(line: string): void;
  /** A line for people that is no result. */
  note(line: string): void;
  /** An object for scripts. */
  emit(event: string, fields: object): void;
}

export function createOutput(options: { json: boolean }): Output {
  const { json } = options;
  return {
    json,
    terminal: !json && process.stderr.isTTY === true,
    say: (line) => {
      if (!json) process.stdout.write(`${line}\n`);
    },
    note: (line) => {
      if (!json) process.stderr.write(`${line}\n`);
    },
    emit: (event, fields) => {
      if (json) process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
    },
  };
}

/** Says what went wrong, in the form asked for. @returns the exit code */
export function reportError(output: Output, error: unknown): number {
  const failure = error instanceof Error ? error : new Error(String(error));
  const code = failure instanceof UsageError ? exitCodes.usage : exitCodes.failed;
  output.emit('error', {
    code: (failure as { code?: unknown }).code ?? failure.name,
    message: failure.message,
    exitCode: code,
  });
  if (!output.json) process.stderr.write(`${failure.message}\n`);
  const known =
    failure instanceof UsageError ||
    failure instanceof Problem ||
    failure instanceof ConnectionLost ||
    failure instanceof CertificateRefused ||
    failure instanceof NotAServer;
  if (!known && surroundings().env.HOLDFAST_DEBUG && !output.json) process.stderr.write(`${failure.stack}\n`);
  return code;
}
