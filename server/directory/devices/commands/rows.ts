/**
 * Commands to devices as rows. A device is named by its GUID, so that an installation which takes the place of another is told
 * what the other was.
 *
 * Lock order: the restore's row, the device's queue (an advisory lock, of whoever makes a command), the command's row, the head
 * of the audit log. What an asker is charged with is locked before the queue where a command is made, whose row nobody else
 * can know, and after the command's row where one ends.
 */
import { limits } from '../../../../protocol/limits.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { tell } from './tell.ts';

/** How long an ended one is known, for an agent that did not hear that its end was taken. */
const keptEndedDays = 7;

const columns = `c.command_id AS id, c.tenant_id AS tenant, c.guid::text AS guid, c.kind, c.restore_id AS restore, c.state,
  c.attempts_before AS "attemptsBefore", c.expires_at <= now() AS "isExpired"`;

/** However often it is heard of, it is over then. */
const daysMax = 60;

const sql = {
  // Two who queue for one device at once do not each see room.
  lockQueue: statement(
    'directory.lockCommandQueue',
    "SELECT pg_advisory_xact_lock(hashtextextended('device_commands ' || $1::text, 0))",
  ),
  countOpen: statement(
    'directory.countOpenCommands',
    `SELECT count(*) AS open FROM (SELECT 1 FROM device_commands WHERE guid = $1::bigint AND state <> 'ended' LIMIT $2) each`,
  ),
  // Of base64url, four characters for three bytes.
  sumPaths: statement(
    'directory.sumPathsOfOpenCommands',
    `SELECT coalesce(sum(floor(length(path) * 3 / 4.0)), 0)::bigint AS bytes
       FROM device_commands c JOIN restore_requests r ON r.restore_id = c.restore_id
      CROSS JOIN LATERAL jsonb_array_elements_text(r.selection->'paths') AS path
      WHERE c.guid = $1::bigint AND c.state <> 'ended'`,
  ),
  insert: statement(
    'directory.insertCommand',
    `INSERT INTO device_commands (tenant_id, user_id, guid, kind, restore_id, body, expires_at)
     VALUES ($1, $2, $3::bigint, $4, $5, $6::jsonb, now() + $7 * interval '1 ms') RETURNING command_id AS id`,
  ),
  find: statement(
    'directory.findCommand',
    `SELECT ${columns} FROM device_commands c WHERE c.command_id = $1 AND c.tenant_id = $2 AND c.guid = $3::bigint`,
  ),
  lock: statement(
    'directory.lockCommand',
    `SELECT ${columns} FROM device_commands c WHERE c.command_id = $1 FOR UPDATE`,
  ),
  lockOfRestore: statement(
    'directory.lockCommandOfRestore',
    `SELECT ${columns} FROM device_commands c WHERE c.restore_id = $1 FOR UPDATE`,
  ),
  // As its device is told it.
  open: statement(
    'directory.openCommand',
    `SELECT c.command_id AS id, c.guid::text AS guid, c.kind, c.state, c.body, c.restore_id AS restore, r.archive_id AS archive, r.guid::text AS "sourceGuid",
            r.selection, r.seq, r.pushed, r.planned_files AS files, r.planned_bytes AS bytes, s.platform AS "sourcePlatform"
       FROM device_commands c
       LEFT JOIN restore_requests r ON r.restore_id = c.restore_id
       LEFT JOIN devices s ON s.tenant_id = r.tenant_id AND s.guid = r.guid AND s.state <> 'replaced'
      WHERE c.command_id = $1 AND c.guid = $2::bigint AND c.state <> 'ended' AND c.expires_at > now()`,
  ),
  // Those that a device is told when it connects, and whenever something has changed for it; without their bodies.
  openIds: statement(
    'directory.openCommandIds',
    `SELECT c.command_id AS id, c.guid::text AS guid, c.state FROM unnest($1::bigint[]) AS asked (guid)
      CROSS JOIN LATERAL (SELECT * FROM device_commands WHERE guid = asked.guid AND state <> 'ended' AND expires_at > now()
             ORDER BY command_id LIMIT ${limits.deviceCommandsMax}) c
      ORDER BY c.command_id`,
  ),
  sent: statement(
    'directory.noteCommandSent',
    `UPDATE device_commands SET state = 'sent' WHERE command_id = $1 AND state = 'queued'`,
  ),
  setState: statement(
    'directory.setCommandState',
    `UPDATE device_commands SET state = $2, ended_at = CASE WHEN $2 = 'ended' THEN coalesce(ended_at, now()) END
      WHERE command_id = $1`,
  ),
  beginAttempt: statement(
    'directory.beginCommandAttempt',
    `UPDATE device_commands SET state = 'running',
            attempts_before = CASE WHEN $2::uuid IS NULL THEN attempts_before
                                   ELSE (attempts_before || $2::uuid)[greatest(1, cardinality(attempts_before) - 6):] END
      WHERE command_id = $1`,
  ),
  prolong: statement(
    'directory.prolongCommand',
    `UPDATE device_commands
        SET expires_at = greatest(expires_at, least(now() + $2 * interval '1 ms', created_at + interval '${daysMax} days'))
      WHERE command_id = $1 RETURNING expires_at AS "expiresAt"`,
  ),
  remove: statement('directory.removeCommand', 'DELETE FROM device_commands WHERE command_id = $1'),
  forgetEnded: statement(
    'directory.forgetEndedCommands',
    `DELETE FROM device_commands WHERE command_id = ANY (ARRAY(SELECT command_id FROM device_commands
        WHERE state = 'ended' AND ended_at < now() - interval '${keptEndedDays} days' ORDER BY ended_at LIMIT $1)) RETURNING 1`,
  ),
  forgetAnswered: statement(
    'directory.forgetAnsweredBrowses',
    `DELETE FROM device_commands WHERE command_id = ANY (ARRAY(SELECT command_id FROM device_commands
        WHERE state = 'ended' AND kind = 'browse' AND ended_at < now() - interval '1 minute' LIMIT $1)) RETURNING 1`,
  ),
};

export type CommandKind = 'restore' | 'browse';
export type CommandState = 'queued' | 'sent' | 'running' | 'cancelling' | 'ended';

export interface CommandRow {
  id: number;
  tenant: number;
  guid: string;
  kind: CommandKind;
  restore: number | null;
  state: CommandState;
  /** UUIDs. */
  attemptsBefore: string[];
  isExpired: boolean;
}

export interface NewCommand {
  tenant: number;
  /** Whose device. */
  user: number;
  guid: string;
  of: { restore: number; pathBytes: number } | { browse: { path: string | null; after: string | null; limit: number } };
  expiresMs: number;
}

/**
 * Queues a command, and lets whoever has the device's channel know. Holds the device's queue till the transaction ends: after it
 * comes nothing but the head of the audit log.
 * @throws Problem too_many_requests: so many wait for the device, or so much, that it is not there to do them
 */
export async function insertCommand(tx: Transaction, asked: NewCommand): Promise<number> {
  const { tenant, user, guid, of, expiresMs } = asked;
  const max = limits.deviceCommandsMax;
  await tx.query(sql.lockQueue, [guid]);
  const [row] = await tx.query<{ open: number }>(sql.countOpen, [guid, max]);
  if (row!.open >= max)
    throw new Problem('too_many_requests', `${max} commands wait for this device already`, { retryAfterSeconds: 600 });
  const isRestore = 'restore' in of;
  if (isRestore) {
    const [paths] = await tx.query<{ bytes: number }>(sql.sumPaths, [guid]);
    const bytesMax = limits.devicePathBytesMax;
    if (paths!.bytes + of.pathBytes > bytesMax)
      throw new Problem(
        'too_many_requests',
        `the restores that wait for this device name paths of ${paths!.bytes} bytes, and with these it would be more than ` +
          `${bytesMax}: choose folders in the place of many files, or wait until some are done`,
        { retryAfterSeconds: 600 },
      );
  }
  const [made] = await tx.query<{ id: number }>(sql.insert, [
    tenant,
    user,
    guid,
    isRestore ? 'restore' : 'browse',
    isRestore ? of.restore : null,
    isRestore ? null : JSON.stringify(of.browse),
    expiresMs,
  ]);
  await tell(tx, { device: guid });
  return made!.id;
}

export interface OfDevice {
  tenant: number;
  guid: string;
  command: number;
}

/** A command of that device; null: there is none (any more), or it is another's. */
export async function findCommand(db: Transaction, { tenant, guid, command }: OfDevice): Promise<CommandRow | null> {
  const [row] = await db.query<CommandRow>(sql.find, [command, tenant, guid]);
  return row ?? null;
}

export async function lockCommand(tx: Transaction, command: number): Promise<CommandRow | null> {
  const [row] = await tx.query<CommandRow>(sql.lock, [command]);
  return row ?? null;
}

/** After its restore's row. */
export async function lockCommandOfRestore(tx: Transaction, restore: number): Promise<CommandRow | null> {
  const [row] = await tx.query<CommandRow>(sql.lockOfRestore, [restore]);
  return row ?? null;
}

export interface OpenId {
  id: number;
  guid: string;
  state: CommandState;
}

/** What is open for some devices, in the order in which it was asked for. */
export function listOpenIds(db: Transaction, guids: readonly string[]): Promise<OpenId[]> {
  return db.query<OpenId>(sql.openIds, [guids]);
}

export interface OpenCommand extends OpenId {
  kind: CommandKind;
  body: { path: string | null; after: string | null; limit: number } | null;
  restore: number | null;
  archive: number | null;
  sourceGuid: string | null;
  sourcePlatform: string | null;
  selection: { paths: string[]; deleted: boolean } | null;
  seq: number | null;
  pushed: PushedTo | null;
  files: number | null;
  bytes: number | null;
}

/** As a restore's row has it. */
export interface PushedTo {
  /** What the device was called. */
  name: string;
  /** Base64url; null: the original places. */
  folder: string | null;
  existing: 'rename' | 'overwrite';
  permissions: 'current' | 'original';
}

/** One of them, whole; null: it is open no more. */
export async function readOpen(
  db: Transaction,
  { guid, id }: Pick<OpenId, 'guid' | 'id'>,
): Promise<OpenCommand | null> {
  const [row] = await db.query<OpenCommand>(sql.open, [id, guid]);
  return row ?? null;
}

/** Writes down that it is on its way. */
export async function noteSent(db: Transaction, command: number): Promise<void> {
  await db.query(sql.sent, [command]);
}

export async function setCommandState(tx: Transaction, command: number, state: CommandState): Promise<void> {
  await tx.query(sql.setState, [command, state]);
}

/** @param before the attempt whose place it takes, whatever that says from now on */
export async function beginAttempt(tx: Transaction, command: number, before: string | null): Promise<void> {
  await tx.query(sql.beginAttempt, [command, before]);
}

/** From now on, as far as it may last at all. @returns until when it may be silent */
export async function prolong(tx: Transaction, command: number, forMs: number): Promise<Date> {
  const [row] = await tx.query<{ expiresAt: Date }>(sql.prolong, [command, forMs]);
  return row!.expiresAt;
}

export async function removeCommand(tx: Transaction, command: number): Promise<void> {
  await tx.query(sql.remove, [command]);
}

/** Those that ended long ago; and answers that nobody has read, because whoever asked has gone. @returns how many */
export async function forgetEnded(db: Transaction, max: number): Promise<number> {
  const answered = await db.query(sql.forgetAnswered, [max]);
  return answered.length + (await db.query(sql.forgetEnded, [max])).length;
}
