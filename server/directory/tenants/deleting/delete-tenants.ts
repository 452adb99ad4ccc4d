/**
 * Deletes the data of tenants that have left, step by step: ways in, programs and providers; what every vault has
 * (storage/archive/deleting/end-vault.ts); users whose vault is gone; the tree; and at the end the tenant's row says
 * `deleted`, and its log and the server's what it had. Blocks and objects go as always, in days: so it takes many runs, each
 * goes on where it can, and any of them may end after any transaction.
 *
 * What must stay true: nothing goes but of a tenant in `deleting` whose day has come, as every transaction reads both itself, in
 * a catalog that the fence knows; what a hold covers stays, with the vault, its keys and its user. (The day was asked when it
 * began. But nothing takes that back, and a clock that ran ahead then may be right by now: so it waits for the day again.)
 */
import { DeletingStopped } from '../../../../storage/archive/checking/fence.ts';
import { type EndDeps, type EndedRows, endVault } from '../../../../storage/archive/deleting/end-vault.ts';
import { readFence } from '../../../../storage/catalog/checking/fence.ts';
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { ownerOfVault, vaultsOfUsers, vaultsToEnd } from '../../../../storage/catalog/deleting/ending.ts';
import type { Storage } from '../../../../storage/storage.ts';
import type { By, JsonValue } from '../../audit/act.ts';
import { recordOfTenant } from '../recording.ts';
import { takePrograms, takeTree, takeUsers, takeWaysIn, type UsersTaken } from './people.ts';

const usersPage = 500;

const isDeleting = `state = 'deleting' AND delete_after <= now()`;

const sql = {
  tenants: statement(
    'directory.tenantsToDelete',
    `SELECT tenant_id AS tenant FROM tenants WHERE ${isDeleting} ORDER BY tenant_id`,
  ),
  state: statement('directory.isTenantDeleting', `SELECT ${isDeleting} AS deleting FROM tenants WHERE tenant_id = $1`),
  stateOfUser: statement(
    'directory.isTenantOfUserDeleting',
    `SELECT ${isDeleting} AS deleting FROM tenants WHERE tenant_id = $1
        AND EXISTS (SELECT 1 FROM users WHERE tenant_id = $1 AND user_id = $2)`,
  ),
  users: statement(
    'directory.usersOfTenant',
    `SELECT user_id AS "user" FROM users WHERE tenant_id = $1 AND user_id > $2 ORDER BY user_id LIMIT ${usersPage}`,
  ),
  // FOR UPDATE: nothing that refers to the tenant is made meanwhile.
  lock: statement(
    'directory.lockTenantToEnd',
    `SELECT name, ${isDeleting} AS deleting FROM tenants WHERE tenant_id = $1 FOR UPDATE`,
  ),
  isLeft: statement(
    'directory.isLeftOfTenant',
    `SELECT EXISTS (SELECT 1 FROM organizations WHERE tenant_id = $1) OR EXISTS (SELECT 1 FROM users WHERE tenant_id = $1)
         OR EXISTS (SELECT 1 FROM identity_providers WHERE tenant_id = $1) OR EXISTS (SELECT 1 FROM plans WHERE tenant_id = $1)
         OR EXISTS (SELECT 1 FROM act_repeats WHERE tenant_id = $1) AS "isLeft"`,
  ),
  end: statement(
    'directory.endTenant',
    `UPDATE tenants SET state = 'deleted', deleted_at = now(), version = version + 1 WHERE tenant_id = $1
     RETURNING had, deleting_by AS "begunBy", deleting_at AS "begunAt", delete_after AS "deleteAfter", deleted_at AS "deletedAt"`,
  ),
};

export interface DeleteTenantsResult extends EndedRows {
  /** Tenants looked at. */
  tenants: number;
  users: number;
  /** Tenants of which nothing is left but their row and their log. */
  finished: number;
}

export interface DeleteTenantsOptions {
  signal?: AbortSignal;
  /** Told after each transaction how far it has come. */
  onProgress?: (soFar: Record<string, number>) => void;
}

type FenceDeps = Pick<EndDeps, 'assertMayDelete' | 'assertStillHeld'>;

/**
 * Goes as far as it can now. A vault or a tenant with a fault keeps no other from its turn.
 * @throws the first fault, at the end; DeletingStopped and an abort at once
 */
export async function deleteTenants(
  storage: Storage,
  fence: FenceDeps,
  options: DeleteTenantsOptions = {},
): Promise<Record<string, number>> {
  const sum: DeleteTenantsResult = {
    ...{ tenants: 0, versions: 0, bytes: 0, archives: 0, keys: 0, vaults: 0 },
    ...{ users: 0, finished: 0 },
  };
  const add = (more: Partial<DeleteTenantsResult>): void => {
    for (const [name, number] of Object.entries(more)) sum[name as keyof DeleteTenantsResult] += number;
    options.onProgress?.({ ...sum });
  };
  const { signal } = options;
  let fault: unknown;
  const orFault = async (work: Promise<void>): Promise<void> => {
    try {
      await work;
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof DeletingStopped) throw error;
      fault ??= error;
    }
  };
  for (const { tenant } of await storage.database.query<{ tenant: number }>(sql.tenants)) {
    add({ tenants: 1 });
    await orFault(deleteTenant({ storage, fence, signal, add, orFault }, tenant));
  }
  if (fault) throw fault;
  return { ...sum };
}

interface Work {
  storage: Storage;
  fence: FenceDeps;
  signal: AbortSignal | undefined;
  add(more: Partial<DeleteTenantsResult>): void;
  orFault(work: Promise<void>): Promise<void>;
}

async function deleteTenant(work: Work, tenant: number): Promise<void> {
  await eachBatchOfUsers(work, tenant, takeWaysIn);
  await inDeleting(work, tenant, (tx) => takePrograms(tx, tenant));
  for await (const vault of vaultsOf(work.storage.database, tenant))
    await work.orFault(endVaultOf(work, tenant, vault));
  await eachBatchOfUsers(work, tenant, takeUsers);
  let tree: string | null = 'some';
  while (tree === 'some') {
    tree = await inDeleting(work, tenant, async (tx) => {
      const taken = await takeTree(tx, tenant);
      // What came late, in a request that had begun before.
      if (taken === 'gone') await takePrograms(tx, tenant);
      return taken;
    });
  }
  if (tree === 'gone' && (await endTenant(work, tenant))) work.add({ finished: 1 });
}

/** In a transaction that has seen the fence's row and the tenant's state. Null: it is not in `deleting` (any more), or its day has not come. */
async function inDeleting<T>(
  { storage, fence, signal }: Work,
  tenant: number,
  take: (tx: Transaction) => Promise<T>,
): Promise<T | null> {
  signal?.throwIfAborted();
  await fence.assertMayDelete();
  return storage.database.transaction(async (tx) => {
    fence.assertStillHeld(await readFence(tx));
    const [row] = await tx.query<{ deleting: boolean }>(sql.state, [tenant]);
    return row?.deleting ? take(tx) : null;
  });
}

async function eachBatchOfUsers(
  work: Work,
  tenant: number,
  take: (tx: Transaction, tenant: number, after: number) => Promise<UsersTaken>,
): Promise<void> {
  for (let after: number | null = 0; after !== null; ) {
    const from: number = after;
    const taken: UsersTaken | null = await inDeleting(work, tenant, (tx) => take(tx, tenant, from));
    if (taken && taken.users > 0) work.add({ users: taken.users });
    after = taken?.after ?? null;
  }
}

/** The directory is asked for users and the engine for their vaults: the two are joined nowhere. */
async function* vaultsOf(db: Database, tenant: number): AsyncGenerator<number> {
  for (let after = 0; ; ) {
    const page = await db.query<{ user: number }>(sql.users, [tenant, after]);
    const users = page.map(({ user }) => user);
    const vaults = (await vaultsOfUsers(db, users)).map(({ vault }) => vault);
    yield* await vaultsToEnd(db, vaults);
    if (page.length < usersPage) return;
    after = users.at(-1)!;
  }
}

/**
 * A state that never goes back, with a day that stays what it is, needs no lock: what is read of it stays true. It is read after the locks of vault and archive
 * all the same, so that it is the state of the catalog that deletes.
 */
function endVaultOf({ storage, fence, signal, add }: Work, tenant: number, vault: number): Promise<void> {
  const mayEnd = async (tx: Transaction): Promise<boolean> => {
    const user = await ownerOfVault(tx, vault);
    if (user === null) return false;
    const [row] = await tx.query<{ deleting: boolean }>(sql.stateOfUser, [tenant, user]);
    return row?.deleting ?? false;
  };
  return endVault(storage, vault, { ...fence, mayEnd }, { ...(signal && { signal }), onProgress: add });
}

interface Ended {
  had: Record<string, JsonValue>;
  begunBy: string;
  begunAt: Date;
  deleteAfter: Date;
  deletedAt: Date;
}

/** The tenant's lock first, the logs' heads last. Refused acts that are counted and not told yet are told before (in a minute). */
async function endTenant({ storage, fence, signal }: Work, tenant: number): Promise<boolean> {
  signal?.throwIfAborted();
  await fence.assertMayDelete();
  return storage.database.transaction(async (tx) => {
    const [locked] = await tx.query<{ name: string; deleting: boolean }>(sql.lock, [tenant]);
    fence.assertStillHeld(await readFence(tx));
    if (!locked?.deleting) return false;
    const [rest] = await tx.query<{ isLeft: boolean }>(sql.isLeft, [tenant]);
    if (rest!.isLeft) return false;
    const [ended] = await tx.query<Ended>(sql.end, [tenant]);
    const { had, begunBy, begunAt, deleteAfter, deletedAt } = ended!;
    const by: By = { tenant, party: { kind: 'server', id: null, name: 'Holdfast' }, address: null };
    const dates = {
      deleteAfter: deleteAfter.toISOString(),
      begunAt: begunAt.toISOString(),
      deletedAt: deletedAt.toISOString(),
    };
    const details = { had, begunBy, ...dates };
    await recordOfTenant(tx, by, { id: tenant, name: locked.name }, { action: 'tenant.deleted', details });
    return true;
  });
}
