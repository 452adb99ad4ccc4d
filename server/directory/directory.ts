/** What the directory's verbs work on, as one argument. */
import type { Database } from '../../storage/catalog/database.ts';
import type { KeyService } from './keys/key-service.ts';
import { createOpenIdClients, type OpenIdClients } from './sign-in/openid/clients.ts';
import { type Credentials, createCredentials } from './sign-in/operators/basic-sign-in.ts';
import { createPasswords, type Passwords } from './sign-in/passwords.ts';
import { createSignInRate, type SignInRate } from './sign-in/sign-in-rate.ts';

export interface Directory {
  database: Database;
  keys: KeyService;
  passwords: Passwords;
  signIns: SignInRate;
  /** Those who run the server need a second factor. */
  operatorSecondFactor: boolean;
  /** Of operators at the dashboard, who sign in with every request. */
  credentials: Credentials;
  /** The way to identity providers. */
  openid: OpenIdClients;
}

export interface DirectoryOptions {
  database: Database;
  keys: KeyService;
  passwordHashesMax: number;
  signInsPerMinute: number;
  /** Those who run the server need a second factor; false unless it is said. */
  operatorSecondFactor?: boolean;
  /** Identity providers on this machine may be spoken to in plain HTTP: for tests. */
  plainOpenIdOnLoopback?: boolean;
}

export function openDirectory(options: DirectoryOptions): Directory {
  const { database, keys, passwordHashesMax, signInsPerMinute } = options;
  const { operatorSecondFactor = false, plainOpenIdOnLoopback = false } = options;
  return {
    database,
    keys,
    operatorSecondFactor,
    // A hash takes some 30 ms, so the last in the queue waits about a second.
    passwords: createPasswords({ concurrentMax: passwordHashesMax, waitingMax: 32 * passwordHashesMax }),
    signIns: createSignInRate({
      failuresPerMinute: signInsPerMinute,
      entriesMax: 20_000,
      now: () => performance.now(),
    }),
    credentials: createCredentials({ forMs: 60_000, entriesMax: 1_000, now: () => performance.now() }),
    openid: createOpenIdClients({
      timeoutSeconds: 10,
      plainOnLoopback: plainOpenIdOnLoopback,
      now: () => performance.now(),
    }),
  };
}
