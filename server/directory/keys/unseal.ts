/**
 * The only ways of a vault key out of escrow: to the server itself, for a reason (`unsealVaultKey`), and to a device of
 * the key's own user (`noteKeyIssued`). Each is an act that is in the log before anybody has the key, and nothing of the
 * key is in it.
 */
import { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { vaultKeyBytes } from '../../../protocol/sealing/keys.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { readHeldVaultKey } from '../../../storage/catalog/vault-keys.ts';
import { type KeyLevel, readVaultKeyGeneration } from '../../../storage/catalog/vaults.ts';
import type { Act, By, JsonValue } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import type { Directory } from '../directory.ts';
import { forCaller, KeyServiceError, vaultKeyContext } from './key-service.ts';
import { sealingKeyOf } from './records.ts';

const sql = {
  owner: statement(
    'directory.keyOwner',
    'SELECT user_id AS "user", name, organization_id AS organization FROM users WHERE tenant_id = $1 AND user_id = $2',
  ),

  ownsVault: statement('directory.ownsVault', 'SELECT 1 FROM vaults WHERE user_id = $1 AND vault_id = $2'),
};

/** Characters. */
export const reasonMax = 500;

/** Why a key is opened, for whoever reads the log. */
export const UnsealReason = z
  .string()
  .max(reasonMax)
  .refine((value) => value.trim() !== '', 'must say something')
  .refine((value) => !value.includes('\0') && value.isWellFormed(), 'is no text')
  .meta({ description: 'Why the key is opened; kept in the audit log.' });

export interface UnsealRequest {
  user: number;
  vault: number;
  generation: number;
  /** 1 to 500 characters. */
  reason: string;
}

/** What else than `standard` means for whoever wants to open a key. */
const closed: Record<Exclude<KeyLevel, 'standard'>, string> = {
  password: "the server cannot open this backup: its key is wrapped with its user's archive password",
  custom: 'the server cannot open this backup: it never had its key',
};

type Found = { sealed: Buffer } | { level: Exclude<KeyLevel, 'standard'> };

type Parts = Pick<Directory, 'database' | 'keys'>;
type FindKey = (tx: Transaction, of: { vault: number; generation: number }) => Promise<Found | null>;

/**
 * Opens a vault key. The act `key.unseal` is committed before the key service is asked, so not in the caller's
 * transaction: what was opened is in the log, whatever happens next. Whoever has the key forgets it when done, and writes
 * it nowhere.
 * @param by.tenant the user's; users of other tenants are not found
 * @returns 32 bytes
 * @throws Problem not_found; out_of_bounds and malformed_request (field `reason`); conflict with `level` for keys that
 *   the server cannot open; unavailable when the key service cannot be asked
 */
export function unsealVaultKey(parts: Parts, by: By, request: UnsealRequest): Promise<Buffer> {
  return unsealNoted(parts, by, request, findEscrowed);
}

/**
 * The same for legal alone, who also opens what was kept for a hold when the user raised the level. Who calls it has
 * asked whether the actor is legal.
 * @returns and throws as `unsealVaultKey`
 */
export function unsealVaultKeyForLegal(parts: Parts, by: By, request: UnsealRequest): Promise<Buffer> {
  return unsealNoted(parts, by, request, async (tx, of) => {
    const held = await readHeldVaultKey(tx, of);
    return held ? { sealed: held } : findEscrowed(tx, of);
  });
}

const findEscrowed: FindKey = async (tx, of) => {
  const key = await readVaultKeyGeneration(tx, of);
  if (!key) return null;
  return key.level === 'standard' ? { sealed: key.record } : { level: key.level };
};

async function unsealNoted({ database, keys }: Parts, by: By, request: UnsealRequest, find: FindKey): Promise<Buffer> {
  const reason = readReason(request.reason);
  const found = await database.transaction((tx) => noteUnsealing(tx, by, { ...request, reason }, find));
  if ('level' in found) throw new Problem('conflict', closed[found.level], { level: found.level });
  try {
    const key = await forCaller(keys.unseal(found.sealed, vaultKeyContext(request.user, request.generation)));
    if (key.byteLength !== vaultKeyBytes) throw new KeyServiceError('damaged', 'an opened vault key is not 32 bytes');
    return key;
  } catch (error) {
    // That it was asked for is in the log already; why it failed is what the caller has to know.
    await database.transaction((tx) => noteFailure(tx, by, { ...request, reason })).catch(() => undefined);
    throw error;
  }
}

function readReason(reason: string): string {
  const parsed = UnsealReason.safeParse(reason);
  if (parsed.success) return parsed.data.trim();
  const { code, message } = parsed.error.issues[0]!;
  const problem = code === 'too_big' || reason.trim() === '' ? 'out_of_bounds' : 'malformed_request';
  throw new Problem(problem, `reason: ${message} (1 to ${reasonMax} characters)`, { field: 'reason' });
}

/** Reads rows that only the act depends on; the log's head is the only lock. */
async function noteUnsealing(tx: Transaction, by: By, request: UnsealRequest, find: FindKey): Promise<Found> {
  const { user, vault, generation } = request;
  const owner = await requireOwner(tx, by, request);
  const found = (await ownsVault(tx, { user, vault })) ? await find(tx, { vault, generation }) : null;
  if (!found) throw new Problem('not_found', 'this user has no such key');
  if ('level' in found) await record(tx, by, unsealAct(owner, request, 'refused', { level: found.level }));
  else await record(tx, by, unsealAct(owner, request, 'done', { sealedBy: sealingKeyOf(found.sealed) }));
  return found;
}

async function noteFailure(tx: Transaction, by: By, request: UnsealRequest): Promise<void> {
  const owner = await requireOwner(tx, by, request);
  await record(tx, by, unsealAct(owner, request, 'failed', { why: 'the key could not be opened' }));
}

async function requireOwner(tx: Transaction, by: By, { user }: UnsealRequest): Promise<KeyOwner> {
  const owner = by.tenant === null ? null : await findKeyOwner(tx, { tenant: by.tenant, user });
  if (!owner) throw new Problem('not_found', 'there is no such user');
  return owner;
}

function unsealAct(
  owner: KeyOwner,
  { vault, generation, reason }: UnsealRequest,
  result: Act['result'],
  more: Record<string, JsonValue>,
): Act {
  return {
    action: 'key.unseal',
    target: { kind: 'user', id: owner.user, name: owner.name },
    organization: owner.organization,
    result,
    details: { reason, vault, generation, ...more },
  };
}

/**
 * Writes down that a device of the user's own gets a key in escrow: the act `key.issue`, in the transaction that
 * registers the device, and so before the key is opened.
 */
export async function noteKeyIssued(
  tx: Transaction,
  by: By,
  issued: { device: { guid: string; name: string }; owner: KeyOwner; vault: number; generation: number },
): Promise<void> {
  const { device, owner, vault, generation } = issued;
  await record(tx, by, {
    action: 'key.issue',
    target: { kind: 'device', id: device.guid, name: device.name },
    organization: owner.organization,
    result: 'done',
    details: { user: owner.user, vault, generation },
  });
}

export interface KeyOwner {
  user: number;
  name: string;
  organization: number;
}

/** The user as the tenant knows it, or null. */
export async function findKeyOwner(tx: Transaction, of: { tenant: number; user: number }): Promise<KeyOwner | null> {
  const [row] = await tx.query<KeyOwner>(sql.owner, [of.tenant, of.user]);
  return row ?? null;
}

async function ownsVault(tx: Transaction, of: { user: number; vault: number }): Promise<boolean> {
  return (await tx.query(sql.ownsVault, [of.user, of.vault])).length > 0;
}
