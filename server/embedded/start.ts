/**
 * The embedded default: everything a server needs that was not set, brought along in one data folder and kept across
 * restarts. It makes the folder, holds its lock, and fills in the database, the certificate and the server key.
 */
import { accessSync, chmodSync, constants, mkdirSync, statSync } from 'node:fs';
import { totalmem } from 'node:os';
import type { Config } from '../config.ts';
import { type Certificate, ensureCertificate } from './certificate.ts';
import { type FolderLock, lockFolder } from './folder-lock.ts';
import { type EmbeddedPostgres, startPostgres } from './postgres.ts';

export interface EmbeddedParts {
  databaseUrl: string;
  /** null when files were set, or TLS is off. */
  certificate: Certificate | null;
  /** null when a database was set. */
  postgres: EmbeddedPostgres | null;
  lock: FolderLock;
}

/**
 * Makes the data folder ready and starts what belongs to it. The caller stops the parts: PostgreSQL, then the lock.
 * @throws Error in words for the operator
 */
export async function startEmbedded(config: Config, log: (line: string) => void): Promise<EmbeddedParts> {
  makeDataFolder(config.data);
  const lock = await lockFolder(config.data, log);
  try {
    const certificate = config.tls && !config.tlsCertificate ? await ensureCertificate(config.data) : null;
    const postgres = config.databaseUrl ? null : await startOwnPostgres(config, log);
    return { databaseUrl: config.databaseUrl ?? postgres!.connectionString, certificate, postgres, lock };
  } catch (error) {
    lock.release();
    throw error;
  }
}

function makeDataFolder(folder: string): void {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    // It holds keys and passwords. One that was there before is closed as well.
    if (process.platform !== 'win32' && (statSync(folder).mode & 0o077) !== 0) chmodSync(folder, 0o700);
  } catch (cause) {
    throw new Error(
      `the data folder ${folder} cannot be used (${(cause as Error).message}): set HOLDFAST_DATA to a folder of your own`,
      { cause },
    );
  }
}

function startOwnPostgres(config: Config, log: (line: string) => void): Promise<EmbeddedPostgres> {
  const memoryBytes = Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
  return startPostgres({
    folder: config.data,
    durable: true,
    userName: config.postgresUser,
    createUser: true,
    sharedBuffersMiB: memoryBytes >= 2 * 1024 ** 3 ? 256 : 128,
    // The engine's pool, the job queue's connections, migrations, and an operator's own.
    connectionsMax: config.databasePoolMax + 30,
    log,
  });
}
