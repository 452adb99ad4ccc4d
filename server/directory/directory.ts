/** What the directory's verbs work on, as one argument. */
import type { Database } from '../../storage/catalog/database.ts';
import { type Credentials, createCredentials } from './administrators.ts';
import type { KeyService } from './key-service.ts';
import { createPasswords, type Passwords } from './passwords.ts';
import { createSignInRate, type SignInRate } from './sign-in-rate.ts';

export interface Directory {
  database: Database;
  keys: KeyService;
  passwords: Passwords;
  signIns: SignInRate;
  /** Of administrators, who sign in with every request. */
  credentials: Credentials;
}

export interface DirectoryOptions {
  database: Database;
  keys: KeyService;
  passwordHashesMax: number;
  signInsPerMinute: number;
}

export function openDirectory({ database, keys, passwordHashesMax, signInsPerMinute }: DirectoryOptions): Directory {
  return {
    database,
    keys,
    // A hash takes some 30 ms, so the last in the queue waits about a second.
    passwords: createPasswords({ concurrentMax: passwordHashesMax, waitingMax: 32 * passwordHashesMax }),
    signIns: createSignInRate({
      failuresPerMinute: signInsPerMinute,
      entriesMax: 20_000,
      now: () => performance.now(),
    }),
    credentials: createCredentials({ forMs: 60_000, entriesMax: 1_000, now: () => performance.now() }),
  };
}
