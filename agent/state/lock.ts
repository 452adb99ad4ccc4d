/**
 * One agent at a time works in a folder. The lock is one the operating system takes back when its process ends,
 * however it ends: SQLite's, held open. A killed agent leaves nothing that blocks the next.
 */
import { DatabaseSync } from 'node:sqlite';
import { homeFile, makeHome } from './home.ts';

export class AgentBusy extends Error {
  constructor(home: string) {
    super(`another agent is at work in ${home}. Wait for it to end, or give this one a folder of its own with --home.`);
    this.name = 'AgentBusy';
  }
}

/** Takes the lock of an agent's folder. @returns gives it back @throws AgentBusy */
export function lockHome(home: string): () => void {
  makeHome(home);
  const database = new DatabaseSync(homeFile(home, 'lock.db'), { timeout: 0 });
  try {
    database.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    database.close();
    if (/locked|busy/i.test((error as Error).message)) throw new AgentBusy(home);
    throw error;
  }
  return () => database.close();
}
