/**
 * The log: JSON lines on standard output. Secrets do not get into it: fields that carry them are blanked by name,
 * and passwords inside connection strings by their shape. The only home of pino.
 */
import pino from 'pino';

export type Log = pino.Logger;

const secretNames = [
  'authorization',
  'cookie',
  'token',
  'password',
  'registrationKey',
  'metricsToken',
  'secretAccessKey',
  'connectionString',
  'vaultKey',
  'key',
  'wrapped',
];
/** pino blanks named paths, not names anywhere: these are the depths at which we log objects. */
const secretPaths = secretNames.flatMap((name) => [
  name,
  `*.${name}`,
  `*.*.${name}`,
  `headers["${name}"]`,
  `*.headers["${name}"]`,
]);

/** `postgres://user:password@host` and `Bearer ...` inside a message or a stack. */
export function maskSecrets(text: string): string {
  return text.replace(/(\w+:\/\/[^\s:/@]*):[^\s@/]+@/g, '$1:***@').replace(/\bBearer\s+[\w.~+/=-]+/gi, 'Bearer ***');
}

interface LoggedError {
  type: string;
  message: string;
  code?: string;
  stack?: string;
  cause?: LoggedError;
}

/** An error as the log shows it, with its causes; not its other fields, which may hold anything. */
export function describeError(error: unknown, depth = 0): LoggedError {
  if (!(error instanceof Error)) return { type: typeof error, message: maskSecrets(String(error)) };
  const { code } = error as { code?: unknown };
  const shown: LoggedError = { type: error.name, message: maskSecrets(error.message) };
  if (typeof code === 'string') shown.code = code;
  if (error.stack) shown.stack = maskSecrets(error.stack);
  if (error.cause !== undefined && depth < 4) shown.cause = describeError(error.cause, depth + 1);
  return shown;
}

/** @param destination where lines go instead of standard output (tests) */
export function createLog(level: string, destination?: { write(line: string): void }): Log {
  const options: pino.LoggerOptions = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: (error: unknown) => describeError(error), error: (error: unknown) => describeError(error) },
    redact: { paths: secretPaths, censor: '***' },
  };
  return destination ? pino(options, destination) : pino(options);
}
