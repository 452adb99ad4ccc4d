/** What only the user has: the archive password, typed twice where it is new, and the file with the user's own key. */
import { randomBytes } from 'node:crypto';
import { readTextFile, writePrivateFile } from '../../state/home.ts';
import { type Output, UsageError } from '../output.ts';
import { readPassword } from '../passwords.ts';

export interface SecretOptions {
  archivePasswordFile?: string | undefined;
  customKeyFile?: string | undefined;
}

/** @param of.isNew asks twice on a terminal: a slip would lose everything. @throws UsageError */
export async function readArchivePassword(options: SecretOptions, of: { isNew: boolean }): Promise<string> {
  const { archivePasswordFile: file } = options;
  const option = '--archive-password-file';
  const typed = await readPassword(of.isNew ? 'New archive password' : 'Archive password', file, option);
  if (of.isNew && file === undefined && (await readPassword('The same again', file, option)) !== typed)
    throw new UsageError('the two are not the same');
  return typed;
}

/**
 * The user's own key, 64 hex digits.
 * @param of.mayMake writes a new one where the file does not exist
 * @throws UsageError
 */
export async function readCustomKey(options: SecretOptions, of: { mayMake: boolean }, output: Output): Promise<Buffer> {
  const { customKeyFile: file } = options;
  if (file === undefined) throw new UsageError("level 'custom' needs --custom-key-file FILE");
  const text = readTextFile(file);
  if (text === null && !of.mayMake)
    throw new UsageError(`${file} does not exist; this archive opens only with the key file it was made with`);
  if (text === null) {
    const key = randomBytes(32);
    writePrivateFile(file, `${key.toString('hex')}\n`);
    output.note(
      `A new key was written to ${file}. Keep a copy in a safe place: without it nothing can be restored, by anyone.`,
    );
    return key;
  }
  if (!/^[0-9a-f]{64}$/i.test(text.trim())) throw new UsageError(`${file} does not hold a key of 64 hex digits`);
  return Buffer.from(text.trim(), 'hex');
}

/** Asks once, however often it is needed. */
export function once<T>(ask: () => Promise<T>): () => Promise<T> {
  let asked: Promise<T> | undefined;
  return () => {
    asked ??= ask();
    return asked;
  };
}
