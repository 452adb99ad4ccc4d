/**
 * Finds the PostgreSQL that a running embedded server brought along, for a command beside it: the password from the data
 * folder, the port from PostgreSQL's own lock file.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const role = 'holdfast';
/** Lines of postmaster.pid (PostgreSQL, "miscinit.h"): pid, folder, start, port. */
const portLine = 3;

/**
 * @param folder the data folder of the server
 * @throws Error in words for the operator, when no server runs there or its files cannot be read
 */
export function findRunningPostgres(folder: string): string {
  const moved = join(folder, 'postgres-folder');
  const elsewhere = `start the server, or set HOLDFAST_DATA to its data folder, or HOLDFAST_DATABASE_URL to its database`;
  try {
    const cluster = join(existsSync(moved) ? readFileSync(moved, 'utf8').trim() : join(folder, 'postgres'), 'cluster');
    const password = readFileSync(join(folder, 'postgres-password'), 'utf8').trim();
    const port = Number(readFileSync(join(cluster, 'postmaster.pid'), 'utf8').split('\n')[portLine]);
    if (!Number.isInteger(port) || port <= 0) throw new Error('PostgreSQL is just starting');
    return `postgres://${role}:${password}@127.0.0.1:${port}/${role}`;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'no server runs there' : message;
    throw new Error(`there is no database to ask in ${folder} (${why}): ${elsewhere}`, { cause });
  }
}
