/**
 * What is told between the processes that hold channels to devices. Told when its transaction commits, lost when nobody hears
 * it: the rows say all there is, and are looked at besides.
 */
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';

/** Of NOTIFY. */
export const toldOn = 'holdfast_devices';

const notify = statement('directory.tellDevices', `SELECT pg_notify('${toldOn}', $1)`);

export type Told = { device: string } | { answer: number };

/** Something is to be done for a device, or is to be done no more; or a browse was answered. */
export async function tell(tx: Transaction, told: Told): Promise<void> {
  await tx.query(notify, ['device' in told ? `d${told.device}` : `a${told.answer}`]);
}

/** @returns null: not ours */
export function readTold(payload: string): Told | null {
  const [, kind, id] = /^([da])([1-9]\d{0,18})$/.exec(payload) ?? [];
  if (kind === undefined) return null;
  return kind === 'd' ? { device: id! } : { answer: Number(id) };
}
