/**
 * The key file: one server key per line in base64; empty lines and lines beginning with # do not count. The first key
 * seals, every key opens. It is read again before each sealing and for each record of an unknown key, so that servers
 * that are running follow a rotation: a record sealed with a key that has left the file could never be opened.
 * A file changes whole under its name or not at all.
 */
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fchmodSync,
  fchownSync,
  fsyncSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { fsyncFolder } from '../../durable-files.ts';
import { type KeyHolder, KeyServiceError } from './key-service.ts';
import { type LocalKeys, localKeyService, nameOfServerKey, serverKeyBytes } from './local-keys.ts';

const fileBytesMax = 64 * 1024;
/** One a week for as long as backups are kept, and none of them ever removed. */
export const serverKeysMax = 500;

const ownerOnly = 0o600;
const heading =
  '# Seals vault keys of level "standard", second factors and secrets of identity providers. Keep a copy elsewhere: without it those backups cannot be opened.';

/** A server key to be. Drawn before the transaction that puts it to use, which may run twice. */
export const newServerKey = (): Buffer => randomBytes(serverKeyBytes);

/**
 * Opens the key file.
 * @param options.create make the file with a new key when it is not there; only while `hasFileSealedRecords` says no
 * @throws KeyServiceError refused, when it cannot be read or holds something else
 */
export function openKeyFile(file: string, options: { create: boolean }): KeyHolder {
  if (options.create && !existsSync(file))
    replaceFile(file, `${heading}\n${linesOf(newServerKey()).join('\n')}\n`, null);
  let keys: LocalKeys = readKeys(file);
  return {
    format: keys.format,
    async seal(plain, context) {
      keys = readKeys(file);
      return keys.seal(plain, context);
    },
    async unseal(record, context) {
      if (!keys.knows(record)) keys = readKeys(file);
      return keys.unseal(record, context);
    },
    async keys() {
      keys = readKeys(file);
      return keys.keys();
    },
    async check() {
      keys = readKeys(file);
    },
  };
}

/**
 * Puts a key before the others of the file. Done already: nothing happens. The file keeps its owner, and who may read it
 * but others than owner and group.
 * @throws KeyServiceError refused, and then the file is as it was
 */
export function putFirstKey(file: string, key: Buffer): void {
  const place = placeOf(file);
  const lines = readText(place).split('\n');
  const keys = keysIn(lines, file);
  if (keys[0]?.equals(key)) return;
  if (keys.length >= serverKeysMax)
    throw new KeyServiceError(
      'refused',
      `${file} holds ${keys.length} keys, and there may be no more: remove old ones`,
    );
  const first = lines.findIndex(isKeyLine);
  const content = lines.toSpliced(first, 0, ...linesOf(key)).join('\n');
  replaceFile(place, content, statSync(place));
}

/** With its name, by which `keys list` knows it. */
const linesOf = (key: Buffer): string[] => [`# ${nameOfServerKey(key)}`, key.toString('base64')];

/** Where the file is, when it is named by a link: the link stays one. */
function placeOf(file: string): string {
  try {
    return realpathSync(file);
  } catch (cause) {
    throw unreadable(file, cause);
  }
}

function readKeys(file: string): LocalKeys {
  let text: string;
  try {
    text = readText(file);
  } catch (cause) {
    throw cause instanceof KeyServiceError ? cause : unreadable(file, cause);
  }
  return localKeyService(keysIn(text.split('\n'), file));
}

function readText(file: string): string {
  const bytes = readFileSync(file);
  if (bytes.byteLength > fileBytesMax)
    throw new KeyServiceError('refused', `the server key file ${file} is longer than ${fileBytesMax} bytes`);
  return bytes.toString('utf8');
}

function isKeyLine(line: string): boolean {
  const text = line.trim();
  return text !== '' && !text.startsWith('#');
}

function keysIn(lines: readonly string[], file: string): Buffer[] {
  const keys = lines.filter(isKeyLine).map((line) => line.trim());
  if (keys.some((key) => !/^[A-Za-z0-9+/]{43}=$/.test(key)))
    throw new KeyServiceError('refused', `the server key file ${file} holds a line that is not 32 bytes in base64`);
  return keys.map((key) => Buffer.from(key, 'base64'));
}

function unreadable(file: string, cause: unknown): KeyServiceError {
  if ((cause as NodeJS.ErrnoException).code === 'ENOENT')
    return new KeyServiceError(
      'refused',
      `the server key file ${file} does not exist. Put your copy of it back, or set HOLDFAST_KEY_FILE to where it is: without it the vault keys sealed with it cannot be opened`,
      { cause },
    );
  return new KeyServiceError(
    'refused',
    `the server key file ${file} cannot be read (${(cause as Error).message}): set HOLDFAST_KEY_FILE`,
    { cause },
  );
}

/**
 * Writes the file beside its place, makes it durable and renames it. Two who replace it at the same time would lose the
 * key of one of them, with which something may be sealed by then: so whoever finds the other's file there stops. The
 * first file is made by a server that has its data folder to itself, and takes away what an interrupted start left.
 * @param before the file that it replaces, whose owner and readers it keeps
 */
function replaceFile(file: string, content: string, before: Stats | null): void {
  const beside = `${file}.new`;
  if (!before) rmSync(beside, { force: true });
  let descriptor: number;
  try {
    descriptor = openSync(beside, 'wx', ownerOnly);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw notWritten(file, cause);
    const what = `${beside} is there: another process is changing the keys, or one was cut short. If none runs, remove it; its key was never used`;
    throw new KeyServiceError('refused', what, { cause });
  }
  try {
    try {
      writeFileSync(descriptor, content);
      if (before && process.platform !== 'win32') {
        const { uid, gid } = before;
        // A file of root's would keep the servers out, which run as somebody else.
        if (uid !== process.geteuid?.() || gid !== process.getegid?.()) fchownSync(descriptor, uid, gid);
        fchmodSync(descriptor, before.mode & 0o660);
      }
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(beside, file);
  } catch (cause) {
    rmSync(beside, { force: true });
    throw notWritten(file, cause);
  }
  fsyncFolder(dirname(file));
}

function notWritten(file: string, cause: unknown): KeyServiceError {
  const { message } = cause as Error;
  return new KeyServiceError('refused', `the server key file ${file} cannot be written (${message})`, { cause });
}
