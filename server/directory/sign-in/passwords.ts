/**
 * Hashes and checks passwords with Argon2id (RFC 9106; parameters as OWASP's Password Storage Cheat Sheet gives them).
 * A hash takes 19 MiB and a processor for a moment, so few run at a time and few may wait: a flood of sign-ins is
 * answered with 429 and takes neither memory nor the upload's processors.
 */
import { type Argon2Parameters, argon2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import { Problem } from '../../../protocol/problems.ts';

const hashArgon2 = promisify(argon2);
const current = { memory: 19_456 /* KiB */, passes: 2, parallelism: 1 };
const saltBytes = 16;
const tagBytes = 32;

export interface Passwords {
  /** The hash as a PHC string, with algorithm, parameters and salt. */
  hash(password: string): Promise<string>;
  /**
   * Whether the password is the one hashed. Without a hash (no such user) it does the same work and says no.
   * @throws Problem too_many_requests when too many wait
   */
  verify(password: string, phc: string | null): Promise<boolean>;
}

export interface PasswordLimits {
  /** Hashes at a time. */
  concurrentMax: number;
  /** Hashes that may wait for their turn. */
  waitingMax: number;
}

export function createPasswords(bounds: PasswordLimits): Passwords {
  const turn = createTurns(bounds);
  // What an unknown user's password is compared with: random, so no password fits, and the same work as a known one's.
  const nobody = formatPhc(randomBytes(saltBytes), randomBytes(tagBytes));

  return {
    hash: (password) =>
      turn(async () => {
        const salt = randomBytes(saltBytes);
        return formatPhc(salt, await compute(password, salt, current));
      }),
    verify: (password, phc) =>
      turn(async () => {
        const { salt, tag, parameters } = parsePhc(phc ?? nobody);
        return timingSafeEqual(await compute(password, salt, parameters), tag) && phc !== null;
      }),
  };
}

type Cost = Pick<Argon2Parameters, 'memory' | 'passes' | 'parallelism'>;

/** Typed the same on every keyboard: composed and decomposed letters are one (RFC 8265 asks for NFC). */
function compute(password: string, nonce: Buffer, cost: Cost): Promise<Buffer> {
  return hashArgon2('argon2id', { message: password.normalize('NFC'), nonce, tagLength: tagBytes, ...cost });
}

const unpadded = (bytes: Buffer): string => bytes.toString('base64').replace(/=+$/, '');

function formatPhc(salt: Buffer, tag: Buffer): string {
  return `$argon2id$v=19$m=${current.memory},t=${current.passes},p=${current.parallelism}$${unpadded(salt)}$${unpadded(tag)}`;
}

function parsePhc(phc: string): { salt: Buffer; tag: Buffer; parameters: Cost } {
  const match = /^\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/.exec(phc);
  if (!match) throw new Error('a password hash in the directory has a form this server does not know');
  const [, memory, passes, parallelism, salt, tag] = match;
  return {
    salt: Buffer.from(salt!, 'base64'),
    tag: Buffer.from(tag!, 'base64'),
    parameters: { memory: Number(memory), passes: Number(passes), parallelism: Number(parallelism) },
  };
}

/** Lets so many work at a time and so many wait; everyone else is turned away. */
function createTurns({ concurrentMax, waitingMax }: PasswordLimits) {
  const waiting: (() => void)[] = [];
  let working = 0;
  return async <T>(work: () => Promise<T>): Promise<T> => {
    if (working >= concurrentMax) {
      if (waiting.length >= waitingMax)
        throw new Problem('too_many_requests', 'too many sign-ins at the moment', { retryAfterSeconds: 5 });
      await new Promise<void>((resolve) => waiting.push(resolve)); // whoever ends hands its place over
    } else working++;
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else working--;
    }
  };
}
