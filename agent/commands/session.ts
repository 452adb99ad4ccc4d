/**
 * What every command needs before it can work: the agent's folder, its registration, a client, and a person's Ctrl-C.
 * The first Ctrl-C lets requests under way finish; the second breaks them.
 */
import { Problem } from '../../protocol/problems.ts';
import { type Client, type ConnectOptions, connect } from '../client/client.ts';
import { Cache } from '../state/cache.ts';
import { defaultAgentHome, homeFile, surroundings } from '../state/home.ts';
import { type Registration, readRegistration } from '../state/registration.ts';
import { enroll } from './enroll.ts';
import { findFirstStart, setUpAnewAdvice } from './first-start.ts';
import { exitCodes, type Output, UsageError } from './output.ts';

/** A server that stays away is mentioned this often. */
const retryNoteEveryMs = 10_000;

export interface CommonOptions {
  home?: string;
  json?: boolean;
}

export function homeOf(options: CommonOptions): string {
  return options.home ?? defaultAgentHome(surroundings());
}

/**
 * The registration of this agent; where there is none, and a server runs on this machine, it is made.
 * @throws UsageError saying how to register
 */
export async function registrationOf(home: string, output: Output): Promise<Registration> {
  const registration = readRegistration(home);
  if (registration) return registration;
  const found = findFirstStart(surroundings());
  if (!found) {
    throw new UsageError(
      'This machine is not registered with a server, and no server on this machine was found. Register first:\n' +
        '  npm run agent -- register --server https://HOST:PORT --fingerprint SHA256 --key REGISTRATION-KEY --user NAME',
    );
  }
  output.note(
    `Not registered yet. Found the server of this machine (${found.file}): registering with ${found.url} as ${found.userName}.`,
  );
  const { url, certificateSha256, ...signIn } = found;
  const made = await enroll({ url, certificateSha256, home, wayIn: signIn });
  output.note(`Registered as device ${made.guid} (${made.deviceName}). Token and key are in ${home}.`);
  output.emit('registered', { guid: made.guid, deviceName: made.deviceName, url: made.url, home });
  return made;
}

export function cacheOf(home: string, registration: Registration, options: { readOnly?: boolean } = {}): Cache {
  return new Cache(
    homeFile(home, 'cache.db'),
    `${registration.url} ${registration.guid} ${registration.archive}`,
    options,
  );
}

export function clientOf(
  registration: Registration,
  output: Output,
  options: Pick<ConnectOptions, 'limitUploadBytesPerSecond' | 'connections' | 'retry'> = {},
): Client {
  let saidAt = Number.NEGATIVE_INFINITY;
  return connect({
    url: registration.url,
    certificateSha256: registration.certificateSha256,
    token: registration.token,
    ...options,
    onRetry: (error, delayMs) => {
      // Several requests fail with one connection, and a server may be away for minutes: one line is enough for each.
      if (performance.now() - saidAt < retryNoteEveryMs) return;
      saidAt = performance.now();
      output.note(`${error.message}; trying again`);
      output.emit('retry', { message: error.message, delayMs: Math.round(delayMs) });
    },
  });
}

/** An error with what the person can do about it, where this machine shows it. */
export function explained(error: unknown, registration: Registration): unknown {
  const advice = setUpAnewAdvice(error, registration, findFirstStart(surroundings()));
  if (advice !== null) return new Error(advice, { cause: error });
  if (error instanceof Problem && (error.code === 'unauthorized' || error.code === 'device_deauthorized')) {
    return new Error(
      `The server at ${registration.url} does not accept this device (${registration.guid}): ${error.message}.\n` +
        'Its place may have been taken by another installation, or an administrator blocked it. To take it back: npm run agent -- register --replace --force ...',
      { cause: error },
    );
  }
  return error;
}

/** Runs `work` with a signal that Ctrl-C and SIGTERM abort. A second one ends the process at once. */
export async function withInterrupt<T>(output: Output, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = (): void => {
    if (controller.signal.aborted) process.exit(exitCodes.interrupted);
    output.note('\nStopping: what is under way is being finished. Press Ctrl-C again to stop at once.');
    controller.abort(new Error('interrupted'));
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  try {
    return await work(controller.signal);
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}
