/**
 * Which system user the embedded PostgreSQL runs as. PostgreSQL refuses root, so root hands it to a user of its own;
 * everyone else runs it as themselves. A cluster that exists stays with the user who owns its folder.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync } from 'node:fs';

export interface PostgresUser {
  uid: number;
  gid: number;
  name: string;
}

export interface PostgresUserOptions {
  /** Where the cluster lies or will lie; its owner, if it exists, is the user. */
  clusterFolder: string;
  /** A user to use instead of `holdfast` (setting HOLDFAST_POSTGRES_USER). */
  name?: string | undefined;
  /** Whether a missing `holdfast` user may be created. */
  create: boolean;
  log: (line: string) => void;
}

/** The user to switch to, or null when there is nothing to switch: we are not root, or the system knows no such thing. */
export function choosePostgresUser(options: PostgresUserOptions): PostgresUser | null {
  if (process.getuid?.() !== 0) return null;
  const owner = statSync(options.clusterFolder, { throwIfNoEntry: false });
  if (owner && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid, name: nameOf(owner.uid) };
  if (options.name !== undefined) {
    const named = findUser(options.name);
    if (!named || named.uid === 0)
      throw new Error(
        `HOLDFAST_POSTGRES_USER names "${options.name}", which is ${named ? 'root' : 'no user of this system'}`,
      );
    return named;
  }
  const found =
    findUser('holdfast') ??
    (options.create ? createUser(options.log) : null) ??
    findUser('postgres') ??
    findUser('nobody');
  if (!found)
    throw new Error(
      'PostgreSQL does not run as root, and there is no other user to run it as: create one and name it in HOLDFAST_POSTGRES_USER',
    );
  return found;
}

/** Looks a user up in /etc/passwd, then through the system's name service (LDAP and the like). */
function findUser(name: string): PostgresUser | null {
  const lines = readPasswd();
  const line =
    lines.find((entry) => entry.startsWith(`${name}:`)) ??
    spawnSync('getent', ['passwd', name], { encoding: 'utf8', timeout: 5_000 }).stdout?.trim();
  if (line) return parseUser(line);
  const [uid, gid] = ['-u', '-g'].map((flag) =>
    Number.parseInt(spawnSync('id', [flag, name], { encoding: 'utf8', timeout: 5_000 }).stdout ?? '', 10),
  );
  return Number.isInteger(uid) && Number.isInteger(gid) ? { uid: uid!, gid: gid!, name } : null;
}

function parseUser(line: string): PostgresUser | null {
  const [name, , uid, gid] = line.split(':');
  return name && uid && gid ? { name, uid: Number(uid), gid: Number(gid) } : null;
}

function nameOf(uid: number): string {
  return (
    readPasswd()
      .map(parseUser)
      .find((user) => user?.uid === uid)?.name ?? `user ${uid}`
  );
}

function readPasswd(): string[] {
  try {
    return readFileSync('/etc/passwd', 'utf8').split('\n');
  } catch {
    return [];
  }
}

/** Debian, Red Hat and SUSE have useradd, Alpine has adduser; where neither is, the caller takes an existing user. */
function createUser(log: (line: string) => void): PostgresUser | null {
  const attempts: [string, string[]][] = [
    [
      'useradd',
      [
        '--system',
        '--user-group',
        '--no-create-home',
        '--home-dir',
        '/nonexistent',
        '--shell',
        '/usr/sbin/nologin',
        'holdfast',
      ],
    ],
    ['adduser', ['-S', '-D', '-H', '-h', '/nonexistent', '-s', '/sbin/nologin', 'holdfast']],
  ];
  for (const [command, args] of attempts) {
    if (spawnSync(command, args, { stdio: 'ignore', timeout: 10_000 }).status !== 0) continue;
    const user = findUser('holdfast');
    if (user) {
      log('created the system user "holdfast": PostgreSQL does not run as root');
      return user;
    }
  }
  return null;
}
