/**
 * Makes an agent installation a device: a registration key and a user's sign-in, or a registration code, become a GUID, an
 * archive and the way to the vault's key, for the token that the agent has drawn. A user's first device makes the vault.
 * All rows of one registration appear together.
 *
 * What must stay true: one token is one device. A registration that comes again is answered with the device it made,
 * after whoever asks was judged as the first time, and with nothing else.
 *
 * Lock order: the tenant's row for sharing, the user's, what is used up by signing in, the device's whose place is taken,
 * what is the engine's, the log's head. Registrations of one user meet at the user's row: of two with one code, or with one
 * token, the second finds what the first has done.
 */
import { randomBytes } from 'node:crypto';
import type { KeptKey, RegisterAnswer, RegisterRequest, VaultKey } from '../../../protocol/messages.ts';
import { Problem } from '../../../protocol/problems.ts';
import { vaultKeyBytes } from '../../../protocol/sealing/keys.ts';
import type { Database, Transaction } from '../../../storage/catalog/database.ts';
import { readVaultKeys } from '../../../storage/catalog/vault-keys.ts';
import {
  createArchive,
  createVault,
  findVaultOfUser,
  moveArchive,
  putVaultKey,
  type VaultKeyRow,
} from '../../../storage/catalog/vaults.ts';
import { record } from '../audit/record.ts';
import type { Directory } from '../directory.ts';
import { forCaller, vaultKeyContext } from '../keys/key-service.ts';
import { requireKeyLevel } from '../keys/levels.ts';
import { keptKey } from '../keys/raising/kept-keys.ts';
import { findKeyOwner, noteKeyIssued } from '../keys/unseal.ts';
import { type SignedIn, signInFailed } from '../sign-in/sign-in.ts';
import { newToken, tokenHash } from '../sign-in/tokens.ts';
import { lockActiveUser } from '../users/people.ts';
import { tell } from './commands/tell.ts';
import {
  type DeviceThere,
  devicesPerUserMax,
  findRegistered,
  hasRoomForDevice,
  insertDevice,
  lockDeviceByGuid,
  nextDeviceId,
  type RegisteredDevice,
  setDeviceState,
} from './devices.ts';
import {
  byUser,
  noSuchCode,
  type Registrant,
  usedMeanwhile,
  useUp,
  whoRegisters,
} from './registering/who-registers.ts';

const tooManyDevices = `you have ${devicesPerUserMax} devices, and there may be no more: put this installation in the place of one of them`;

/** The first generation of a vault's key. Later ones come with raising the level. */
const firstGeneration = 1;

/**
 * Registers a device, or with `replace` puts this installation in the place of an earlier one, whose token stops working.
 * With the token of a device that the same request made before: answers that device.
 * @param address where the request came from, for the bound on failed sign-ins
 * @throws Problem as `whoRegisters`; not_found and forbidden (field `replace`); forbidden when the user has as many devices
 *   as there may be; conflict (field `token`) when the token is that of another device, or of one that is active no more
 */
export async function registerDevice(
  directory: Directory,
  request: RegisterRequest,
  address: string,
): Promise<RegisterAnswer> {
  const who = await whoRegisters(directory, request, address);
  const token = request.token ?? newToken();
  const prepared = await prepareKeys(directory, who, request.vaultKey);
  // The transaction may run twice, after a COMMIT of unknown outcome: what is random is chosen here, once.
  const drawn = { guid: newGuid(), tokenSha256: tokenHash(token)! };
  let run: 'first' | 'made' | 'found' = 'first';

  const entered = await tokenOnce(
    directory.database.transaction(async (tx) => {
      if (!(await lockActiveUser(tx, who.userId))) throw who.by === 'code' ? noSuchCode() : signInFailed();
      const there = await findRegistered(tx, drawn.tokenSha256);
      if (there) assertSame(there, who, request);
      // Found, and made by this very call: what was given is used up by then.
      const isOurs = there !== null && run === 'made';
      if (!isOurs && !(await useUp(tx, who)) && !(there && run === 'found')) return null;
      run = there && !isOurs ? 'found' : 'made';
      const device = there ?? (await enterDevice(tx, who, request, drawn, prepared.rows.at(-1)!));
      const rows = await readVaultKeys(tx, device.vault);
      if (!isOurs) await noteRegistration(tx, who, { device, rows, address, request, isAgain: there !== null });
      return { device, rows };
    }),
  );
  if (!entered) throw await usedMeanwhile(directory, who);
  const { device, rows } = entered;
  if (rows.length === 0) throw new Error(`vault ${device.vault} has no key`);
  // Another device of the user's may have made the vault meanwhile, with another key, or raised its level.
  const keys = isAsPrepared(rows, prepared.rows) ? prepared.keys : await openKeys(directory, who, rows);
  const { guid, deviceName, vault, archive } = device;
  const { userName } = who;
  return { guid, deviceName, userName, vault, archive, token, vaultKey: newestOf(keys), vaultKeys: keys };
}

/** Whether the device of this token is what the request asks for, made when it came before. */
function assertSame(there: DeviceThere, who: SignedIn, { replace }: RegisterRequest): void {
  const isWanted = replace === undefined ? !there.tookPlace : there.tookPlace && there.guid === replace;
  if (there.userId !== who.userId || there.state !== 'active' || !isWanted) throw tokenTaken();
}

/** Two users with one token do not meet at a row of theirs, but here. */
async function tokenOnce<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const { code, constraint } = error as { code?: unknown; constraint?: string };
    if (code === '23505' && constraint === 'devices_token_sha256_key') throw tokenTaken();
    throw error;
  }
}

function tokenTaken(): Problem {
  return new Problem('conflict', 'this token cannot be registered: draw another', { field: 'token' });
}

function isAsPrepared(rows: readonly VaultKeyRow[], prepared: readonly VaultKeyRow[]): boolean {
  const isPrepared = ({ generation, record }: VaultKeyRow, index: number): boolean =>
    generation === prepared[index]!.generation && record.equals(prepared[index]!.record);
  return rows.length === prepared.length && rows.every(isPrepared);
}

/** As agents were told before a vault could have several. */
function newestOf(keys: readonly KeptKey[]): VaultKey {
  const newest = keys.at(-1)!;
  if (newest.level === 'password') return newest;
  const { level, generation } = newest;
  if (level === 'standard' && newest.key) return { level, generation, key: newest.key };
  if (level === 'custom' && newest.check) return { level, generation, check: newest.check };
  throw new Error('the newest generation of a key is not as it should be');
}

/** Registrations of one user come here one at a time: the user's row is locked. */
async function enterDevice(
  tx: Transaction,
  user: Registrant,
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
    registeredWith: user.registeredWith,
  };
  if (request.replace !== undefined) {
    const old = await takePlaceOf(tx, user.userId, request.replace);
    const device = { guid: request.replace, deviceName: old.deviceName, vault: old.vault, archive: old.archive };
    await insertDevice(tx, { ...common, ...device, replaces: old.deviceId });
    await moveArchive(tx, device, { deviceId });
    return device;
  }
  if (!(await hasRoomForDevice(tx, user.userId))) throw new Problem('forbidden', tooManyDevices);
  const vault = await findOrCreateVault(tx, user, proposed);
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
  await tell(tx, { device: guid }); // its channel ends
  return old;
}

async function findOrCreateVault(tx: Transaction, user: SignedIn, proposed: VaultKeyRow): Promise<number> {
  const existing = await findVaultOfUser(tx, user.userId);
  // One that came with a repository of restic has no key yet: nothing in it is ours to open.
  if (existing !== null && (await readVaultKeys(tx, existing)).length > 0) return existing;
  const { organization } = await ownerOf(tx, user);
  await requireKeyLevel(tx, { tenant: user.tenantId, organization }, proposed.level);
  const created = existing ?? (await createVault(tx, { userId: user.userId }));
  if (created === null) throw new Error(`user ${user.userId} got a vault outside a registration`);
  await putVaultKey(tx, created, proposed);
  return created;
}

/** The log's head is locked last, after the user, the device and what is the engine's. */
async function noteRegistration(
  tx: Transaction,
  who: Registrant,
  made: {
    device: RegisteredDevice;
    rows: readonly VaultKeyRow[];
    address: string;
    request: RegisterRequest;
    isAgain: boolean;
  },
): Promise<void> {
  const { device, rows, address, request, isAgain } = made;
  const owner = await ownerOf(tx, who);
  const { guid, deviceName: name, vault } = device;
  const by = byUser({ ...who, userName: owner.name }, address);
  const action = request.replace === undefined ? 'device.register' : 'device.replace';
  await record(tx, by, {
    action: isAgain ? 'device.register_again' : action,
    target: { kind: 'device', id: guid, name },
    organization: owner.organization,
    result: 'done',
    details: {
      user: owner.user,
      with: who.how,
      platform: request.device.platform,
      agentVersion: cleanName(request.device.agentVersion),
    },
  });
  // An answer that is given again gives the key again.
  for (const { level, generation } of rows)
    if (level === 'standard') await noteKeyIssued(tx, by, { device: { guid, name }, owner, vault, generation });
}

async function ownerOf(tx: Transaction, { tenantId: tenant, userId: user }: SignedIn) {
  const owner = await findKeyOwner(tx, { tenant, user });
  if (!owner) throw signInFailed();
  return owner;
}

/**
 * The keys that the device will most likely get: of the vault that is there, or of one to be. Asking a key service may take
 * seconds, so it is done before the transaction; and it is opened here, so that no device and no vault is made whose key
 * cannot be had. It leaves this process only when the transaction has written down that it does.
 */
async function prepareKeys(
  directory: Directory,
  user: SignedIn,
  proposal: RegisterRequest['vaultKey'],
): Promise<{ rows: VaultKeyRow[]; keys: KeptKey[] }> {
  const there = await keysOfUser(directory.database, user.userId);
  const rows = there.length > 0 ? there : [await proposeKey(directory, user, proposal)];
  return { rows, keys: await openKeys(directory, user, rows) };
}

async function keysOfUser(db: Database, userId: number): Promise<VaultKeyRow[]> {
  const vault = await findVaultOfUser(db, userId);
  return vault === null ? [] : readVaultKeys(db, vault);
}

/** The row that a new vault would get. */
async function proposeKey(
  { keys }: Directory,
  { userId }: SignedIn,
  proposal: RegisterRequest['vaultKey'],
): Promise<VaultKeyRow> {
  const generation = firstGeneration;
  switch (proposal.level) {
    case 'standard': {
      const sealing = keys.seal(randomBytes(vaultKeyBytes), vaultKeyContext(userId, generation));
      return { generation, level: 'standard', record: await forCaller(sealing) };
    }
    case 'password':
      return { generation, level: 'password', record: proposal.wrapped };
    case 'custom':
      return { generation, level: 'custom', record: proposal.check };
  }
}

function openKeys({ keys }: Directory, user: SignedIn, rows: readonly VaultKeyRow[]): Promise<KeptKey[]> {
  const open = async (row: VaultKeyRow): Promise<KeptKey> => {
    const kept = keptKey(row, { newest: row === rows.at(-1) });
    if (kept.level !== 'standard') return kept;
    const key = await forCaller(keys.unseal(row.record, vaultKeyContext(user.userId, row.generation)));
    return { ...kept, key };
  };
  return Promise.all(rows.map(open));
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
