/**
 * Names of users and groups by number and back, from /etc/passwd and /etc/group, read once.
 * Accounts that only a directory service knows have no name here; their numbers are kept all the same.
 */
import { readFile } from 'node:fs/promises';

export interface Accounts {
  userName(uid: number): string | undefined;
  groupName(gid: number): string | undefined;
  userId(name: string): number | undefined;
  groupId(name: string): number | undefined;
}

/** Reads the tables of this machine; empty ones where there are none (Windows). */
export async function readAccounts(): Promise<Accounts> {
  const read = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
  return parseAccounts(await read('/etc/passwd'), await read('/etc/group'));
}

/** passwd(5) and group(5): name:password:number:... */
export function parseAccounts(passwd: string, group: string): Accounts {
  const users = parseTable(passwd);
  const groups = parseTable(group);
  return {
    userName: (uid) => users.names.get(uid),
    groupName: (gid) => groups.names.get(gid),
    userId: (name) => users.numbers.get(name),
    groupId: (name) => groups.numbers.get(name),
  };
}

function parseTable(text: string): { names: Map<number, string>; numbers: Map<string, number> } {
  const names = new Map<number, string>();
  const numbers = new Map<string, number>();
  for (const line of text.split('\n')) {
    const [name, , number] = line.split(':');
    if (!name || name.startsWith('#') || !/^\d{1,10}$/.test(number ?? '')) continue;
    // The first entry of a number or a name counts, as for getpwuid(3).
    if (!names.has(Number(number))) names.set(Number(number), name);
    if (!numbers.has(name)) numbers.set(name, Number(number));
  }
  return { names, numbers };
}
