/** Takes a pushed restore back from its device. */
import type { Transaction } from '../../../../storage/catalog/database.ts';
import { lockCommandOfRestore, setCommandState } from '../../devices/commands/rows.ts';
import { tell } from '../../devices/commands/tell.ts';
import type { RestoreWithLists } from '../rows.ts';
import { endPushed, keepNoLonger } from './ending.ts';

/** At once where it was not told of it, else as soon as it hears. Under the restore's lock. */
export async function cancelPushed(tx: Transaction, row: RestoreWithLists): Promise<void> {
  const command = await lockCommandOfRestore(tx, row.id);
  if (!command || command.state === 'ended') return;
  if (command.state === 'queued') await endPushed(tx, row, command.id, 0);
  else {
    await setCommandState(tx, command.id, 'cancelling');
    await keepNoLonger(tx, row);
  }
  await tell(tx, { device: command.guid });
}
