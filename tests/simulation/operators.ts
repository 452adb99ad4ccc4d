/** What operators do: place and release holds, look at alerts, edit policies. */
import { Problem } from '../../protocol/problems.ts';
import { reviewAlert } from '../../storage/archive/retention/review-alert.ts';
import { listAlerts } from '../../storage/catalog/checking/alerts.ts';
import { statement } from '../../storage/catalog/database.ts';
import type { Storage } from '../../storage/storage.ts';
import { operatorWaits } from './deleter-watch.ts';
import { NetworkError, type World } from './world.ts';

const operatorSql = {
  lockVault: statement('simulation.lockVault', 'UPDATE vaults SET hold_epoch = hold_epoch + 1 WHERE vault_id = $1'),
  placeHold: statement('simulation.placeHold', 'INSERT INTO holds (vault_id, policy) VALUES ($1, $2)'),
  releaseHolds: statement(
    'simulation.releaseHolds',
    `UPDATE holds SET release_effective_at = now() + $2 * interval '1 ms' WHERE vault_id = $1 AND release_effective_at IS NULL`,
  ),
};

/**
 * Legal holds as the product will place them: first the vault's row, then whatever else belongs to a hold, then the hold.
 * @param meanwhile what happens between the two
 */
export function placeHold(
  storage: Storage,
  vault: number,
  policy: object,
  meanwhile: () => Promise<void> = async () => {},
): Promise<void> {
  return storage.database.transaction(async (tx) => {
    await tx.query(operatorSql.lockVault, [vault]);
    await meanwhile();
    await tx.query(operatorSql.placeHold, [vault, JSON.stringify(policy)]);
  });
}

export function releaseHolds(storage: Storage, vault: number, delayMs: number): Promise<void> {
  return storage.database.transaction(async (tx) => {
    await tx.query(operatorSql.lockVault, [vault]);
    await tx.query(operatorSql.releaseHolds, [vault, delayMs]);
  });
}

/** An administrator looks at every open alert of a vault, and lets what it stopped go on. @returns how many */
export async function reviewAlerts(storage: Storage, vault: number): Promise<number> {
  const open = await listAlerts(storage.database, vault, { reviewed: false, limit: 100 });
  for (const { alert } of open) await reviewAlert(storage, { vault, alert, by: 'simulation' });
  // Damage is told for as long as it is there, and agents heal it, not reviews.
  return open.filter(({ kind }) => kind !== 'damaged').length;
}

/** Something now and then, for ever; when a deleter was met, a hold on the very vault, soon released. */
export async function runOperator(world: World): Promise<void> {
  const { random, scheduler } = world;
  for (;;) {
    await scheduler.sleep(operatorWaits, 50 + random.below(400));
    const deleter = world.deleters.take();
    const { vault, archive } = random.pick(world.devices);
    try {
      if (deleter) {
        await world.request('hold', (storage) => placeSomeHold(world, storage, deleter.vault));
        await scheduler.sleep('hold', random.below(80));
        await world.request('hold', (storage) => releaseHolds(storage, deleter.vault, random.pick([0, 0, 0, 20_000])));
        continue;
      }
      const dice = random.next();
      if (dice < 0.3) await world.request('review', (storage) => reviewAlerts(storage, vault));
      else if (dice < 0.45) await world.request('hold', (storage) => placeSomeHold(world, storage, vault));
      else if (dice < 0.8)
        await world.request('hold', (storage) => releaseHolds(storage, vault, random.pick([0, 0, 30_000])));
      else world.setPolicies(archive, world.somePolicies());
    } catch (error) {
      if (!(error instanceof NetworkError) && !(error instanceof Problem)) throw error;
    }
  }
}

/** On everything, or on a part. What else belongs to a hold takes a while, under the vault's lock. */
function placeSomeHold(world: World, storage: Storage, vault: number): Promise<void> {
  const { random, scheduler, databaseMs } = world;
  const until = { until: new Date(databaseMs).toISOString() };
  const policy = random.pick([{}, {}, { paths: ['/folder1'] }, until]);
  const gates = random.below(8);
  return placeHold(storage, vault, policy, async () => {
    for (let i = 0; i < gates; i++) await scheduler.gate('placing a hold');
  });
}
