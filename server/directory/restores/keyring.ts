/**
 * The keys of a vault for one restore: unsealed by the server, or unwrapped with the archive password that the request
 * brought. What is made here is held by the restore alone and is forgotten with it; a password is in no row, no log and no
 * problem.
 */
import { Problem } from '../../../protocol/problems.ts';
import { type Keyring, makeKeyring, SealError, unwrapKey } from '../../../protocol/sealing/index.ts';
import type { Transaction } from '../../../storage/catalog/database.ts';
import { readVaultKeys } from '../../../storage/catalog/vault-keys.ts';
import type { KeyLevel, VaultKeyRow } from '../../../storage/catalog/vaults.ts';
import type { RestoreFormat } from '../../restoring/types.ts';
import type { By } from '../audit/act.ts';
import type { Directory } from '../directory.ts';
import { unsealVaultKey } from '../keys/unseal.ts';

/**
 * The level of a vault that a browser can be given files of. An export is of any: null, for nothing is opened.
 * @throws Problem conflict for `custom`, with `level`
 */
export async function requireOpenable(
  db: Transaction,
  vault: number,
  format: RestoreFormat = 'zip',
): Promise<Exclude<KeyLevel, 'custom'> | null> {
  if (format === 'export') return null;
  const level = (await readVaultKeys(db, vault)).at(-1)?.level ?? null;
  if (level === 'custom')
    throw new Problem(
      'conflict',
      "the server cannot open this backup: it never had its key. Restore with the agent of a device of its user, which has it (restore), or register one with the user's own key; or take it sealed (format 'export'), and open it with that key",
      { level },
    );
  return level;
}

export interface OpenKeyring {
  by: By;
  /** The archive's user. */
  user: number;
  vault: number;
  /** Why, for the log of keys that the server opens. */
  reason: string;
  password: string | undefined;
  address: string;
}

/**
 * @throws Problem conflict (`custom`, no key, several levels), malformed_request (field `password`: it is needed, or of no
 *   use), forbidden (field `password`: it is wrong), too_many_requests; what `unsealVaultKey` throws
 */
export async function openKeyring(
  directory: Pick<Directory, 'database' | 'keys' | 'signIns'>,
  asked: OpenKeyring,
): Promise<Keyring> {
  const { database } = directory;
  const { user, vault, by, reason, password } = asked;
  const level = await requireOpenable(database, vault);
  const rows = await readVaultKeys(database, vault);
  if (level === null || rows.some((row) => row.level !== level))
    throw new Problem('conflict', 'the server has no keys that open this backup', { level });
  if (level === 'password') return unwrapped(directory, rows, asked);
  if (password !== undefined)
    throw new Problem('malformed_request', 'this backup is not wrapped with an archive password', {
      field: 'password',
    });
  const keys: { generation: number; key: Buffer }[] = [];
  for (const { generation } of rows)
    keys.push({ generation, key: await unsealVaultKey(directory, by, { user, vault, generation, reason }) });
  return makeKeyring(keys);
}

/** Each takes as much memory as the agent chose, up to 256 MiB: so there is one of them in the process. */
let isUnwrapping = false;

async function unwrapped(
  { signIns }: Pick<Directory, 'signIns'>,
  rows: readonly VaultKeyRow[],
  { password, vault, address }: OpenKeyring,
): Promise<Keyring> {
  if (password === undefined)
    throw new Problem('malformed_request', "this backup is wrapped with its user's archive password: send it", {
      field: 'password',
      level: 'password',
    });
  if (isUnwrapping)
    throw new Problem('too_many_requests', 'somebody else is opening a backup with a password', {
      retryAfterSeconds: 2,
    });
  isUnwrapping = true;
  try {
    // Guesses are counted like those at signing in.
    const succeeded = signIns.attempt(`archive password of vault ${vault}`, address);
    const keys: { generation: number; key: Buffer }[] = [];
    for (const { generation, record } of rows)
      keys.push({ generation, key: await unwrapKey(record, password, { generation }) });
    succeeded();
    return makeKeyring(keys);
  } catch (error) {
    if (!(error instanceof SealError)) throw error;
    if (error.reason === 'wrong_password')
      throw new Problem('forbidden', 'this is not the archive password of this backup', { field: 'password' });
    // Its words are about the record; none of them is of the password.
    throw new Problem('conflict', `the wrapped key cannot be opened: ${error.message}`, { level: 'password' });
  } finally {
    isUnwrapping = false;
  }
}
