/**
 * What the first start of a server makes up and its people need: `first-start.json` in the data folder. An agent on the
 * same machine reads it to find the server and register. The file is written before the tenant and the operator are made,
 * so that a start cut short between leaves nobody whose password nobody knows.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Directory } from '../directory/directory.ts';
import { createFirstTenant } from '../directory/organizations/first-tenant.ts';
import { hasTenant } from '../directory/organizations/inserting.ts';
import { newPassword, newRegistrationKey } from '../directory/organizations/registration-key.ts';
import { createFirstOperator, isOperatorThere } from '../directory/sign-in/operators/operators.ts';

export interface FirstStart {
  /** How this machine reaches the server; written anew at each start. */
  url: string;
  /** Lower hex; null without TLS. */
  certificateSha256: string | null;
  /** Of the first tenant, and its administrator's. */
  registrationKey: string;
  userName: string;
  password: string;
  /** Who runs the server; left out when it was made by a version that had no operators, until the next start. */
  operator?: { userName: string; password: string };
}

export const firstStartFile = (folder: string): string => join(folder, 'first-start.json');

/**
 * Makes the first tenant and the first operator, whichever there is not, with secrets that are on disk by then. Where the
 * file was removed from a server that is in use, no operator is made: there is nowhere to leave the password.
 * @returns whether there is an operator
 */
export async function ensureFirstPeople(folder: string, directory: Directory): Promise<{ operator: boolean }> {
  const { database } = directory;
  const [tenantIsThere, operatorIsThere] = [await hasTenant(database), await isOperatorThere(database)];
  if (tenantIsThere && operatorIsThere) return { operator: true };
  const file = firstStartFile(folder);
  let known = read(file);
  if (!known) {
    if (tenantIsThere) return { operator: false };
    const secrets = { registrationKey: newRegistrationKey(), userName: 'admin', password: newPassword() };
    known = { url: '', certificateSha256: null, ...secrets };
  }
  const operator = known.operator ?? { userName: 'operator', password: newPassword() };
  const { registrationKey, userName, password } = known;
  write(file, { ...known, ...(!operatorIsThere && { operator }) });
  if (!tenantIsThere)
    await createFirstTenant(directory, { name: 'First organization', registrationKey, userName, password });
  if (!operatorIsThere) await createFirstOperator(directory, { name: operator.userName, password: operator.password });
  return { operator: true };
}

/** Says in the file where the server is now. Does nothing when an operator has removed the file. */
export function noteAddress(folder: string, address: Pick<FirstStart, 'url' | 'certificateSha256'>): void {
  const known = read(firstStartFile(folder));
  if (known) write(firstStartFile(folder), { ...known, ...address });
}

/** Whose secrets the file holds. */
export function secretsIn(folder: string): { administrator: boolean; operator: boolean } {
  const known = read(firstStartFile(folder));
  return { administrator: known !== null, operator: known?.operator !== undefined };
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
