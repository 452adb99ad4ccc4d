/** Tells in one act each what was refused too often to be written act by act. */
import type { Database, Transaction } from '../../../storage/catalog/database.ts';
import { type By, serverLog } from './act.ts';
import { record } from './record.ts';
import { everybody, type Repeat, repeatLimits, takeRepeats } from './repeats.ts';

const takeAtATime = 100;

/** Tells what was counted in minutes that are over. @returns acts written */
export async function tellRepeats(database: Database, { signal }: { signal?: AbortSignal } = {}): Promise<number> {
  let told = 0;
  for (let more = true; more && !signal?.aborted; ) {
    const done = await database.transaction(async (tx) => {
      const over = await takeRepeats(tx, takeAtATime);
      const many = over.map((repeat) => ({ ...repeat, notWritten: repeat.seen - limitOf(repeat) }));
      // Logs in order, so that two workers that each lock several heads do not wait for one another.
      const due = many.filter(({ notWritten }) => notWritten > 0).toSorted((a, b) => b.tenant - a.tenant);
      for (const repeat of due) await tellRepeat(tx, repeat);
      return { taken: over.length, told: due.length };
    });
    told += done.told;
    more = done.taken === takeAtATime;
  }
  return told;
}

const limitOf = ({ party }: Repeat): number => (party === everybody ? repeatLimits.ofAll : repeatLimits.ofOneParty);

function tellRepeat(tx: Transaction, repeat: Repeat & { notWritten: number }): Promise<void> {
  const { tenant, action, why, kind, id, name, address, minute, notWritten } = repeat;
  const by: By = { tenant: tenant === serverLog ? null : tenant, party: { kind, id, name }, address };
  const details = { ...(why !== '' && { why }), notWritten, minute: minute.toISOString() };
  return record(tx, by, { action, target: null, organization: null, result: 'refused', details });
}
