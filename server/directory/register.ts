/**
 * Makes an agent installation a device: a registration key and a user's sign-in become a GUID, a token, an archive and
 * the way to the vault's key. A user's first device makes the vault. All rows of one registration appear together.
 */
import { randomBytes } from 'node:crypto';
import type { RegisterAnswer, RegisterRequest, VaultKey } from '../../protocol/messages.ts';
import { Problem } from '../../protocol/problems.ts';
import type { Transaction } from '../../storage/catalog/database.ts';
import {
  createArchive,
  createVault,
  findVaultOfUser,
  moveArchive,
  putVaultKey,
  readVaultKey,
  type VaultKeyRow,
} from '../../storage/catalog/vaults.ts';
import {
  devicesPerUserMax,
  findRegistered,
  hasRoomForDevice,
  insertDevice,
  lockDeviceByGuid,
  nextDeviceId,
  type RegisteredDevice,
  setDeviceState,
} from './devices.ts';
import type { Directory } from './directory.ts';
import { lockActiveUser } from './people.ts';
import { type SignedIn, signIn, signInFailed } from './sign-in.ts';
import { newToken, tokenHash } from './tokens.ts';

const tooManyDevices = `you have ${devicesPerUserMax} devices, and there may be no more: put this installation in the place of one of them`;

/** The first generation of a vault's key. Later ones come with raising the level. */
const firstGeneration = 1;

/**
 * Registers a device, or with `replace` puts this installation in the place of an earlier one, whose token stops working.
 * @param address where the request came from, for the bound on failed sign-ins
 * @throws Problem sign_in_failed, too_many_requests, not_found and forbidden (field `replace`), forbidden when the user
 *   has as many devices as there may be
 */
export async function registerDevice(
  directory: Directory,
  request: RegisterRequest,
  address: string,
): Promise<RegisterAnswer> {
  const user = await signIn(directory, request, address);
  const token = newToken();
  const proposed = await proposeKey(directory, user, request.vaultKey);
  // The transaction may run twice, after a COMMIT of unknown outcome: what is random is chosen here, once.
  const drawn = { guid: newGuid(), tokenSha256: tokenHash(token)! };

  const { device, key } = await directory.database.transaction(async (tx) => {
    if (!(await lockActiveUser(tx, user.userId))) throw signInFailed();
    const device =
      (await findRegistered(tx, drawn.tokenSha256)) ?? (await enterDevice(tx, user, request, drawn, proposed));
    const key = await readVaultKey(tx, device.vault);
    return { device, key };
  });
  if (!key) throw new Error(`vault ${device.vault} has no key`);
  return { ...device, token, vaultKey: await openKey(directory, user, key) };
}

/** Registrations of one user come here one at a time: the user's row is locked. */
async function enterDevice(
  tx: Transaction,
  user: SignedIn,
  request: RegisterRequest,
  drawn: { guid: string; tokenSha256: Buffer },
  proposed: VaultKeyRow,
): Promise<RegisteredDevice> {
  const { platform, agentVersion } = request.device;
  const deviceId = await nextDeviceId(tx);
  const common = {
    deviceId,
    tenantId: user.tenantId,
    userId: user.userId,
    platform,
    agentVersion,
    tokenSha256: drawn.tokenSha256,
  };
  if (request.replace !== undefined) {
    const old = await takePlaceOf(tx, user.userId, request.replace);
    const device = { guid: request.replace, deviceName: old.deviceName, vault: old.vault, archive: old.archive };
    await insertDevice(tx, { ...common, ...device, replaces: old.deviceId });
    await moveArchive(tx, device, { deviceId });
    return device;
  }
  if (!(await hasRoomForDevice(tx, user.userId))) throw new Problem('forbidden', tooManyDevices);
  const vault = await findOrCreateVault(tx, user.userId, proposed);
  const archive = await createArchive(tx, { vault, deviceId });
  const device = { guid: drawn.guid, deviceName: cleanName(request.device.name), vault, archive };
  await insertDevice(tx, { ...common, ...device, replaces: null });
  return device;
}

async function takePlaceOf(tx: Transaction, userId: number, guid: string) {
  // A GUID past 2^63 is a number on the wire and none in the database.
  const old = BigInt(guid) < 2n ** 63n ? await lockDeviceByGuid(tx, userId, guid) : null;
  if (!old) throw new Problem('not_found', 'you have no device of that GUID', { field: 'replace' });
  // A device that an administrator blocked does not come back under a new token.
  if (old.state !== 'active' && old.state !== 'deauthorized')
    throw new Problem('forbidden', `that device is ${old.state} and cannot be replaced`, { field: 'replace' });
  await setDeviceState(tx, old.deviceId, 'replaced');
  return old;
}

async function findOrCreateVault(tx: Transaction, userId: number, proposed: VaultKeyRow): Promise<number> {
  const existing = await findVaultOfUser(tx, userId);
  if (existing !== null) return existing;
  const created = await createVault(tx, { userId });
  if (created === null) throw new Error(`user ${userId} got a vault outside a registration`);
  await putVaultKey(tx, created, proposed);
  return created;
}

/** The row a new vault would get. Sealing may mean asking a service elsewhere, so it is done before the transaction. */
async function proposeKey(
  { keys }: Directory,
  user: SignedIn,
  proposal: RegisterRequest['vaultKey'],
): Promise<VaultKeyRow> {
  const generation = firstGeneration;
  switch (proposal.level) {
    case 'standard':
      return {
        generation,
        level: 'standard',
        record: await keys.seal(randomBytes(32), keyContext(user.userId, generation)),
      };
    case 'password':
      return { generation, level: 'password', record: proposal.wrapped };
    case 'custom':
      return { generation, level: 'custom', record: proposal.check };
  }
}

async function openKey(
  { keys }: Directory,
  user: SignedIn,
  { generation, level, record }: VaultKeyRow,
): Promise<VaultKey> {
  switch (level) {
    case 'standard':
      return { level, generation, key: await keys.unseal(record, keyContext(user.userId, generation)) };
    case 'password':
      return { level, generation, wrapped: record };
    case 'custom':
      return { level, generation, check: record };
  }
}

/** What the key service is told a sealed vault key is: a record moved to another user's row does not open. */
function keyContext(userId: number, generation: number): string {
  return `holdfast vault key, user ${userId}, generation ${generation}`;
}

/** PostgreSQL's text holds no NUL, and half a surrogate pair is no character. */
function cleanName(name: string): string {
  return name.replaceAll('\0', '\ufffd').toWellFormed();
}

/** 1 to 2^63 - 1, at random: unique without asking anyone. */
function newGuid(): string {
  const value = randomBytes(8).readBigUInt64BE() >> 1n;
  return String(value === 0n ? 1n : value);
}
