/**
 * One exchange of tokens at a time: a refresh token is good once, and commands run side by side. The lock is one the
 * operating system takes back when its process ends, however it ends: SQLite's, held open.
 */
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { makeHome } from './home.ts';

/** An exchange is one request: longer than its retries take, and then it is somebody's who hangs. */
const waitMsMax = 20_000;

/** Takes the lock of a folder, waiting for it. @returns gives it back @throws Error when it does not get free */
export function lockHome(home: string): () => void {
  makeHome(home);
  const database = new DatabaseSync(join(home, 'lock.db'), { timeout: waitMsMax });
  try {
    database.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    database.close();
    if (!/locked|busy/i.test((error as Error).message)) throw error;
    throw new Error(`another admin command has been exchanging the tokens in ${home} for long; try again`, {
      cause: error,
    });
  }
  return () => database.close();
}
