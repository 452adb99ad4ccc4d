/**
 * Raises who can open a user's backups: to `password`, or to `custom`. A new generation of the key comes for what is
 * backed up from now on; every earlier one is kept wrapped by the new secret, and what the server had of it is destroyed,
 * in one transaction: there is no moment at which a key opens with neither or with both. What a hold needs is kept for
 * legal, and nobody is answered otherwise for it (docs/decisions/keys.md). Lowering is refused.
 */
import type { RaiseAnswer, RaiseRequest } from '../../../../protocol/messages.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { readKeyInKey, readWrappedGeneration, SealError } from '../../../../protocol/sealing/index.ts';
import type { Transaction } from '../../../../storage/catalog/database.ts';
import { lockVaultAndReadHolds } from '../../../../storage/catalog/deleting/deleting.ts';
import { holdVaultKey, lockVaultKeys, rewrapVaultKey } from '../../../../storage/catalog/vault-keys.ts';
import { putVaultKey, type VaultKeyRow } from '../../../../storage/catalog/vaults.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import type { DeviceIdentity } from '../../devices/devices.ts';
import type { Directory } from '../../directory.ts';
import { endStagedOfUsers } from '../../restores/staging/rows.ts';
import { signInAt, signInFailed } from '../../sign-in/sign-in.ts';
import { lockActiveUser } from '../../users/people.ts';
import { keyLevels, requireKeyLevel } from '../levels.ts';
import { findKeyOwner } from '../unseal.ts';

type Raiser = Pick<DeviceIdentity, 'tenantId' | 'userId' | 'userName' | 'guid' | 'vault'>;

/**
 * @param device of the user, who also gives their password: a token alone must not shut its owner out
 * @param address where the request came from
 * @throws Problem sign_in_failed, second_factor_needed, too_many_requests; malformed_request for records that are none;
 *   conflict: `level` when it is not above the present one, or not the one the organization has fixed (field `to`);
 *   `generation` and `generations` when others are there than the request names
 */
export async function raiseKeyLevel(
  directory: Directory,
  device: Raiser,
  request: RaiseRequest,
  address: string,
): Promise<RaiseAnswer> {
  checkRecords(request);
  const { tenantId: tenant, userName } = device;
  const { password, code } = request;
  const user = await signInAt(directory, { id: tenant }, { userName, password, code }, address);
  if (user.userId !== device.userId) throw signInFailed();
  return directory.database.transaction((tx) => raise(tx, device, request, address));
}

/**
 * Locks the tenant's row for sharing and the user's, as a registration does, so that no device gets a key that is gone;
 * then the vault alone, as holds do, so that none comes between looking and destroying; then its keys. Deleters hold a
 * vault and ask for no user; who seals keys anew holds rows of keys, and asks for nothing but the log's head, which is
 * last here too. What is staged comes before that: who holds it asks for the head alone.
 */
async function raise(tx: Transaction, device: Raiser, request: RaiseRequest, address: string): Promise<RaiseAnswer> {
  const { tenantId: tenant, userId: user, vault } = device;
  const { to, newGeneration, oldGenerations } = request;
  if (!(await lockActiveUser(tx, user))) throw signInFailed();
  const isHeld = (await lockVaultAndReadHolds(tx, vault)).length > 0;
  const keys = await lockVaultKeys(tx, vault);
  const next = { generation: newGeneration.generation, level: to, record: recordOf(request) };
  const answer: RaiseAnswer = { level: to, generation: next.generation };
  // The same once more, after a COMMIT of unknown outcome or an answer that was lost.
  if (isSame(keys.at(-1), next)) return answer;

  const owner = await findKeyOwner(tx, { tenant, user });
  if (!owner) throw signInFailed();
  const from = requireRaise(keys, request);
  await requireKeyLevel(tx, { tenant, organization: owner.organization }, to, 'to');
  const wrapped = new Map(oldGenerations.map((old) => [old.generation, old.wrapped]));
  for (const key of keys) {
    if (isHeld && key.level === 'standard') await holdVaultKey(tx, vault, key);
    await rewrapVaultKey(tx, vault, { generation: key.generation, level: to, record: wrapped.get(key.generation)! });
  }
  await putVaultKey(tx, vault, next);
  // Made with a key that the server could open, and kept with one that it can.
  await endStagedOfUsers(tx, tenant, [user]);

  const by: By = { tenant, party: { kind: 'user', id: user, name: owner.name }, address };
  await record(tx, by, {
    action: 'key.raise',
    target: { kind: 'user', id: user, name: owner.name },
    organization: owner.organization,
    result: 'done',
    // Not whether something was kept: a hold is not to be felt.
    details: { vault, from, to, generation: next.generation, device: device.guid },
  });
  return answer;
}

/** @returns the present level */
function requireRaise(keys: readonly VaultKeyRow[], { to, newGeneration, oldGenerations }: RaiseRequest) {
  const newest = keys.at(-1);
  if (!newest) throw new Error('a vault has no key');
  const level = newest.level;
  if (keyLevels.indexOf(to) <= keyLevels.indexOf(level)) {
    const detail = `your backup keys are at level "${level}": a level is raised, and never lowered`;
    throw new Problem('conflict', detail, { field: 'to', level });
  }
  const expected = newest.generation + 1;
  if (newGeneration.generation !== expected) {
    const detail = `the next generation of your backup key is ${expected}, not ${newGeneration.generation}`;
    throw new Problem('conflict', detail, { field: 'newGeneration', generation: expected });
  }
  const named = new Set(oldGenerations.map(({ generation }) => generation));
  if (named.size !== keys.length || !keys.every(({ generation }) => named.has(generation))) {
    const generations = keys.map(({ generation }) => generation);
    const detail = `every earlier generation has to be wrapped anew: ${generations.join(', ')}`;
    throw new Problem('conflict', detail, { field: 'oldGenerations', generations });
  }
  return level;
}

function isSame(key: VaultKeyRow | undefined, next: VaultKeyRow): boolean {
  return (
    key !== undefined &&
    key.generation === next.generation &&
    key.level === next.level &&
    key.record.equals(next.record)
  );
}

/** What the server keeps of the new generation. */
function recordOf({ to, newGeneration }: RaiseRequest): Buffer {
  const kept = to === 'password' ? newGeneration.wrapped : newGeneration.check;
  if (!kept) throw new Error('the request has no record of its new generation');
  return kept;
}

/**
 * Whether the records are what they say, as far as that can be told without the secret: what an agent has mixed up would
 * lose its user everything, with no way back.
 * @throws Problem malformed_request naming the field
 */
function checkRecords({ to, newGeneration, oldGenerations }: RaiseRequest): void {
  const refuse = (field: string, why: string): never => {
    throw new Problem('malformed_request', `${field}: ${why}`, { field });
  };
  const reading = <T>(field: string, read: () => T): T => {
    try {
      return read();
    } catch (error) {
      if (error instanceof SealError) return refuse(field, error.message);
      throw error;
    }
  };
  const by = newGeneration.generation;
  if (to === 'password') {
    const named = reading('newGeneration.wrapped', () => readWrappedGeneration(newGeneration.wrapped!));
    if (named !== by) refuse('newGeneration.wrapped', `is of generation ${named}, not ${by}`);
  }
  const seen = new Set<number>();
  for (const [index, { generation, wrapped }] of oldGenerations.entries()) {
    const field = `oldGenerations.${index}`;
    if (seen.has(generation)) refuse(field, `generation ${generation} is named twice`);
    seen.add(generation);
    const named = reading(`${field}.wrapped`, () =>
      to === 'password' ? { generation: readWrappedGeneration(wrapped), by } : readKeyInKey(wrapped),
    );
    if (named.generation !== generation || named.by !== by) {
      const words = to === 'password' ? '' : `, wrapped by ${named.by}`;
      refuse(`${field}.wrapped`, `is of generation ${named.generation}${words}`);
    }
  }
}
