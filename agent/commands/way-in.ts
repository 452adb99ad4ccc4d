/**
 * What lets this machine register: a registration key with a user's name and password, a registration code, or what a
 * server on this machine has left for its first agent. Where the server wants a code of the second factor too, the person
 * is asked for it; and what a refusal means is said in words that name the next step.
 */
import { Problem } from '../../protocol/problems.ts';
import { parseFingerprint } from '../client/pinned-session.ts';
import { surroundings } from '../state/home.ts';
import type { EnrollOptions, WayIn } from './enroll.ts';
import { findFirstStart } from './first-start.ts';
import { type Output, UsageError } from './output.ts';
import { askLine, hasTerminal, readPassword } from './passwords.ts';

export interface WayInOptions {
  server?: string;
  fingerprint?: string;
  key?: string;
  user?: string;
  passwordFile?: string;
  code?: string;
  registrationCode?: string;
  local?: boolean;
}

/** A person may mistype a code; a server counts ten. */
const asksMax = 3;

/** @throws UsageError saying what is missing */
export async function readWayIn(
  options: WayInOptions,
): Promise<Pick<EnrollOptions, 'url' | 'certificateSha256' | 'wayIn'>> {
  if (options.local) return localWayIn();
  const { registrationCode: given, key, user, code } = options;
  const wanted = given === undefined ? (['server', 'key', 'user'] as const) : (['server'] as const);
  const missing = wanted.filter((name) => !options[name]);
  if (missing.length > 0) {
    const instead = given === undefined && missing.length < 3 ? ' (or give --server and --registration-code)' : '';
    throw new UsageError(`${missing.map((name) => `--${name}`).join(', ')} missing${instead}; see register --help`);
  }
  const certificateSha256 = options.fingerprint === undefined ? null : parseFingerprint(options.fingerprint);
  if (options.fingerprint !== undefined && certificateSha256 === null)
    throw new UsageError('--fingerprint takes a SHA-256: 64 hex digits, with or without colons');
  const at = { url: options.server!, certificateSha256 };
  if (given !== undefined) {
    if (key !== undefined || user !== undefined || options.passwordFile !== undefined)
      throw new UsageError('--registration-code stands for --key, --user and the password: leave those out');
    return { ...at, wayIn: { registrationCode: await readRegistrationCode(given) } };
  }
  const password = await readPassword(`Password of ${user}`, options.passwordFile, '--password-file');
  const wayIn = { registrationKey: key!, userName: user!, password, ...(code === undefined ? {} : { code }) };
  return { ...at, wayIn };
}

function localWayIn() {
  const found = findFirstStart(surroundings());
  if (!found)
    throw new UsageError(
      'no first-start file of a server on this machine was found; is it running, under the same HOLDFAST_DATA?',
    );
  const { url, certificateSha256, registrationKey, userName, password } = found;
  return { url, certificateSha256, wayIn: { registrationKey, userName, password } };
}

/** '-': asked for, or from stdin, where nobody else on this machine reads it. */
async function readRegistrationCode(given: string): Promise<string> {
  if (given !== '-') return given;
  return (await readPassword('Registration code', hasTerminal() ? undefined : '-', '--registration-code')).trim();
}

/**
 * Does what a way in is for; where the server wants a code of the second factor with it, asks the person and does it again.
 * @throws Problem with what to do next
 */
export async function withCode<T>(wayIn: WayIn, output: Output, work: (wayIn: WayIn) => Promise<T>): Promise<T> {
  let given = wayIn;
  for (let asked = 0; ; asked++) {
    try {
      return await work(given);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      const isAsked = error.code === 'second_factor_needed' && error.extras.setUpFirst !== true;
      if (!isAsked || 'registrationCode' in given || asked === asksMax || !hasTerminal()) throw withNextStep(error);
      if (given.code !== undefined) output.note(`${error.message}. Wait for the next one, or take a recovery code.`);
      given = { ...given, code: await askLine('Code of your second factor, or a recovery code') };
    }
  }
}

/** The same problem, in words that say what to do. */
export function withNextStep(error: Problem): Problem {
  const next = nextStep(error);
  return next === null ? error : new Problem(error.code, `${error.message}.\n${next}`, error.extras, { cause: error });
}

function nextStep({ code, extras }: Problem): string | null {
  switch (code) {
    case 'second_factor_needed':
      if (extras.setUpFirst === true)
        return 'Sign in with `npm run admin -- sign-in`, run `npm run admin -- me second-factor set-up`, and register then.';
      return 'Give a code of your second factor, or a recovery code, with --code or HOLDFAST_CODE. A code is good once: wait for the next.';
    case 'password_change_needed':
      return 'Set a password of your own with `npm run admin -- sign-in`, and register with that.';
    case 'sign_in_failed':
      if (extras.field === 'registrationCode')
        return (
          'Whoever gave it to you makes another: `npm run admin -- users registration-codes create USER`; for yourself, ' +
          '`npm run admin -- me registration-codes create`. A code is good for one device and for a short time.'
        );
      return (
        'If you sign in at an identity provider, or have no password, take a registration code: make one with ' +
        '`npm run admin -- me registration-codes create`, or ask your administrator, and give --registration-code.'
      );
    case 'too_many_requests':
      return 'Nothing was looked at. Wait, or ask an administrator: `npm run admin -- users unlock USER`.';
    default:
      return null;
  }
}
