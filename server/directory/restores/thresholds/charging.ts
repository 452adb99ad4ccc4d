/**
 * What somebody restores of others' archives within a day is counted, in every way there is to restore, and who would come
 * to more than the setting `restoreAlerts.bytesPerDay` of the archive's user allows is refused and stopped until somebody
 * else has looked (blocking.ts, reviewing.ts). What must stay true:
 * - a restore is charged with its planned bytes in the transaction that begins it, or it does not begin;
 * - of two that begin at once the second sees what the first was charged: both hold the meter of their asker;
 * - the end replaces what was planned by what was done, once.
 *
 * Lock order: the restore's row, then the asker's meter, then a block of theirs, then an alert, then the head of the audit
 * log. Whoever holds a meter asks for no restore's row. One who begins a restore once more may hold two meters, when it counted
 * for somebody else before (an API client's secret was shown to another): both are taken at its start, users' first, by number.
 * A secret that is shown to another in the middle of planning may break that order; then one of the two is done again.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { settingsOfMany } from '../../devices/settings-of-many.ts';
import { type Asker, countedFor } from './askers.ts';
import { bytesOf, type ChargedHour, counting, withBytes } from './window.ts';

const sql = {
  inForce: statement(
    'directory.restoreBlockInForce',
    `SELECT block_id AS id, since FROM restore_blocks
      WHERE tenant_id = $1 AND asker_kind = $2 AND asker_id = $3 AND state <> 'released'`,
  ),
  make: statement(
    'directory.makeRestoreMeter',
    'INSERT INTO restore_meters (tenant_id, asker_kind, asker_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING',
  ),
  lock: statement(
    'directory.lockRestoreMeter',
    `SELECT epoch, hours, floor(extract(epoch FROM now()) / 3600)::int AS now FROM restore_meters
      WHERE tenant_id = $1 AND asker_kind = $2 AND asker_id = $3 FOR UPDATE`,
  ),
  write: statement(
    'directory.writeRestoreMeter',
    'UPDATE restore_meters SET epoch = $4, hours = $5::jsonb WHERE tenant_id = $1 AND asker_kind = $2 AND asker_id = $3',
  ),
  charged: statement(
    'directory.readRestoreCharge',
    `SELECT asker_kind AS kind, asker_id AS id, epoch, hour, bytes FROM restore_charges WHERE tenant_id = $1 AND restore_id = $2`,
  ),
  charge: statement(
    'directory.chargeRestore',
    `INSERT INTO restore_charges (tenant_id, restore_id, asker_kind, asker_id, epoch, hour, bytes) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
  ),
  discharge: statement(
    'directory.dischargeRestore',
    'DELETE FROM restore_charges WHERE tenant_id = $1 AND restore_id = $2',
  ),
};

/** As beginning a restore knows it: a row of the history has all of it. */
export interface Charged {
  tenant: number;
  /** Its id. */
  id: number;
  /** Whose archive. */
  user: number;
  /** The organization they are in. */
  organization: number;
  vault: number;
  archive: number;
  guid: string;
  deviceName: string | null;
  plannedBytes: number;
  /** Of a staged one nothing leaves the server before it is whole. */
  kind: 'streamed' | 'staged' | 'pushed';
  /** As far as an earlier try was heard of. */
  doneBytes: number;
}

/** Refused, and whoever sees it end in an answer has to write the block down: blockFor, in blocking.ts. */
export class ThresholdCrossed extends Problem {
  readonly by: By;
  readonly of: Charged;
  /** What counted before it. */
  readonly restoredBytes: number;
  readonly thresholdBytes: number;

  constructor(
    by: By,
    of: Charged,
    { restoredBytes, thresholdBytes }: { restoredBytes: number; thresholdBytes: number },
  ) {
    super(
      'restores_blocked',
      `with this you would have restored ${restoredBytes + of.plannedBytes} bytes of other people's archives within a day, and ${thresholdBytes} are allowed there: nothing more is restored for you until somebody else has reviewed it`,
      { restoredBytes, bytes: of.plannedBytes, thresholdBytes },
    );
    this.by = by;
    this.of = of;
    this.restoredBytes = restoredBytes;
    this.thresholdBytes = thresholdBytes;
  }
}

/**
 * For whatever leads to a restore and is none yet: planning one, staging, fetching what was staged by a link.
 * @param by a user or API client
 * @throws Problem restores_blocked
 */
export async function assertNotBlocked(db: Transaction, by: By): Promise<void> {
  await assertAskerNotBlocked(db, await countedFor(db, by));
}

async function assertAskerNotBlocked(db: Transaction, { tenant, kind, id }: Asker): Promise<void> {
  const [block] = await db.query<{ id: number; since: Date }>(sql.inForce, [tenant, kind, id]);
  if (!block) return;
  const since = block.since.toISOString();
  throw new Problem(
    'restores_blocked',
    `nothing is restored for you since ${since}, because it was unusually much: somebody else has to review it (restore review ${block.id})`,
    { review: block.id, since },
  );
}

/**
 * Counts a restore that begins, in the transaction that begins it, under its row's lock if it has one already. One's own
 * archives count nothing. A restore that is begun once more was charged before: then what it came to as far as it was heard
 * of stays; of a staged one, whose earlier try is not there any more, nothing.
 * @throws Problem restores_blocked; as ThresholdCrossed where this is the one that is too much: then the transaction is to
 *   be given up, and blockFor to be called after it. Routes of the JSON API have that done for them.
 */
export async function charge(tx: Transaction, by: By, of: Charged): Promise<void> {
  const asker = await countedFor(tx, by);
  await assertAskerNotBlocked(tx, asker);
  if (asker.kind === 'user' && asker.id === of.user) return;
  const [before] = await tx.query<ChargeRow>(sql.charged, [of.tenant, of.id]);
  const meters: Asker[] = before ? [asker, { tenant: of.tenant, kind: before.kind, id: before.id }] : [asker];
  for (const each of meters.sort(inOrder)) await lockMeter(tx, each);
  await settle(tx, of.tenant, of.id, of.kind === 'staged' ? 0 : of.doneBytes);
  const thresholdBytes = await thresholdOf(tx, of);
  const meter = await lockMeter(tx, asker);
  // Once more: whoever held the meter may have been the one that was too much.
  await assertAskerNotBlocked(tx, asker);
  const hours = counting(meter.hours, meter.now);
  const restoredBytes = bytesOf(hours);
  if (thresholdBytes !== null && restoredBytes + of.plannedBytes > thresholdBytes)
    throw new ThresholdCrossed(by, of, { restoredBytes, thresholdBytes });
  await writeMeter(tx, asker, {
    epoch: meter.epoch,
    hours: withBytes(hours, { hour: meter.now, bytes: of.plannedBytes }),
  });
  await tx.query(sql.charge, [of.tenant, of.id, asker.kind, asker.id, meter.epoch, meter.now, of.plannedBytes]);
}

/**
 * Puts what was done in the place of what was planned, when a restore has ended; of one that was not charged, or whose end
 * was counted before, nothing. Under its row's lock.
 */
export async function settle(tx: Transaction, tenant: number, restore: number, doneBytes: number): Promise<void> {
  const [charged] = await tx.query<ChargeRow>(sql.charged, [tenant, restore]);
  if (!charged) return;
  const asker: Asker = { tenant, kind: charged.kind, id: charged.id };
  const meter = await lockMeter(tx, asker);
  await tx.query(sql.discharge, [tenant, restore]);
  // A review has begun a new count meanwhile, and this is of the one before.
  if (meter.epoch !== charged.epoch) return;
  const hours = withBytes(meter.hours, { hour: charged.hour, bytes: doneBytes - charged.bytes });
  await writeMeter(tx, asker, { epoch: meter.epoch, hours: counting(hours, meter.now) });
}

/** Of meters that are held at a time. */
function inOrder(a: Asker, b: Asker): number {
  if (a.kind !== b.kind) return a.kind === 'user' ? -1 : 1;
  return a.id - b.id;
}

interface ChargeRow {
  kind: 'user' | 'client';
  id: number;
  epoch: number;
  hour: number;
  bytes: number;
}

/** @returns null: there is none */
async function thresholdOf(tx: Transaction, { tenant, organization }: Charged): Promise<number | null> {
  const settings = await settingsOfMany(tx, tenant, [organization], ['restoreAlerts.bytesPerDay']);
  const bytes = settings.value(organization, 'restoreAlerts.bytesPerDay');
  // Nobody knows how much may go out then, so nothing does.
  if (bytes === null)
    throw new Error(`the setting restoreAlerts.bytesPerDay of organization ${organization} cannot be read`);
  return bytes < 0 ? null : bytes;
}

export interface Meter {
  epoch: number;
  hours: ChargedHour[];
}

/** Made when there is none, so that two who begin their first restore meet, too. */
export async function lockMeter(tx: Transaction, { tenant, kind, id }: Asker): Promise<Meter & { now: number }> {
  await tx.query(sql.make, [tenant, kind, id]);
  const [row] = await tx.query<Meter & { now: number }>(sql.lock, [tenant, kind, id]);
  return row!;
}

export async function writeMeter(tx: Transaction, { tenant, kind, id }: Asker, { epoch, hours }: Meter): Promise<void> {
  await tx.query(sql.write, [tenant, kind, id, epoch, JSON.stringify(hours)]);
}
