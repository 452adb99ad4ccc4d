/**
 * What the first start of a server makes up and an operator needs: `first-start.json` in the data folder. An agent on
 * the same machine reads it to find the server and register. The file is written before the tenant is made, so that a
 * start cut short between the two leaves no tenant whose password nobody knows.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Directory } from '../directory/directory.ts';
import { createFirstTenant, newPassword, newRegistrationKey } from '../directory/first-tenant.ts';

export interface FirstStart {
  /** How this machine reaches the server; written anew at each start. */
  url: string;
  /** Lower hex; null without TLS. */
  certificateSha256: string | null;
  registrationKey: string;
  userName: string;
  password: string;
}

export const firstStartFile = (folder: string): string => join(folder, 'first-start.json');

/** Makes the first tenant, if there is none, with secrets that are on disk by then. */
export async function ensureFirstTenant(folder: string, directory: Directory): Promise<void> {
  const file = firstStartFile(folder);
  const known = read(file);
  const secrets = known ?? { registrationKey: newRegistrationKey(), userName: 'admin', password: newPassword() };
  if (!known) write(file, { url: '', certificateSha256: null, ...secrets });
  const { registrationKey, userName, password } = secrets;
  await createFirstTenant(directory, { name: 'First organization', registrationKey, userName, password });
}

/** Says in the file where the server is now. Does nothing when an operator has removed the file. */
export function noteAddress(folder: string, address: Pick<FirstStart, 'url' | 'certificateSha256'>): void {
  const known = read(firstStartFile(folder));
  if (known) write(firstStartFile(folder), { ...known, ...address });
}

function read(file: string): FirstStart | null {
  if (!existsSync(file)) return null;
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as FirstStart;
  } catch (cause) {
    throw new Error(`${file} is damaged: it is no JSON`, { cause });
  }
}

function write(file: string, content: FirstStart): void {
  writeFileSync(`${file}.new`, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600, flush: true });
  renameSync(`${file}.new`, file);
}
