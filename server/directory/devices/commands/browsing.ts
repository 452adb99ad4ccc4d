/**
 * A look into a folder of a device: asked for by a row, answered by its agent into that row, read once and gone. Names,
 * sizes and times travel; nothing is opened.
 */
import { CommandAnswerRequest } from '../../../../protocol/commands.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { decodeMessage } from '../../../../protocol/wire.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import type { DeviceTarget } from '../../targets.ts';
import { findCommand, insertCommand, lockCommand, type OfDevice, removeCommand, setCommandState } from './rows.ts';
import { tell } from './tell.ts';

const sql = {
  answer: statement('directory.answerBrowse', 'UPDATE device_commands SET answer = $2 WHERE command_id = $1'),
  read: statement(
    'directory.readBrowseAnswer',
    'SELECT answer FROM device_commands WHERE command_id = $1 AND answer IS NOT NULL',
  ),
};

export interface BrowseAsked {
  path: Buffer | null;
  /** Names after this one. */
  after: Buffer | null;
  limit: number;
}

/** @param keptMs whoever asked has read the answer by then, or never will */
export function askToBrowse(
  tx: Transaction,
  target: DeviceTarget,
  { path, after, limit }: BrowseAsked,
  keptMs: number,
): Promise<number> {
  const { tenant, user, id: guid } = target;
  const text = (bytes: Buffer | null): string | null => (bytes === null ? null : bytes.toString('base64url'));
  const browse = { path: text(path), after: text(after), limit };
  return insertCommand(tx, { tenant, user, guid, of: { browse }, expiresMs: keptMs });
}

/**
 * Takes an answer, the first one.
 * @param bytes as it came, checked
 * @returns false: it was answered before, or nobody waits for it
 */
export async function browseAnswered(tx: Transaction, of: OfDevice, bytes: Buffer): Promise<boolean> {
  const found = await findCommand(tx, of);
  if (found?.kind !== 'browse') throw new Problem('not_found', 'there is no such command');
  const command = await lockCommand(tx, of.command);
  if (!command || command.state === 'ended' || command.isExpired) return false;
  await tx.query(sql.answer, [command.id, bytes]);
  await setCommandState(tx, command.id, 'ended');
  await tell(tx, { answer: command.id });
  return true;
}

/** @returns null: there is none yet */
export async function readBrowseAnswer(db: Transaction, command: number): Promise<CommandAnswerRequest | null> {
  const [row] = await db.query<{ answer: Buffer }>(sql.read, [command]);
  return row ? decodeMessage(CommandAnswerRequest, row.answer) : null;
}

/** Nobody is told of it any more. */
export const takeBack = (tx: Transaction, command: number): Promise<void> => removeCommand(tx, command);

const pathCharactersTold = 300;

/** Writes down that somebody is shown a folder, and forgets what they are shown. */
export async function browsed(
  tx: Transaction,
  by: By,
  target: DeviceTarget,
  { command, path, entries, fault }: { command: number; path: Buffer | null; entries: number; fault: string | null },
): Promise<void> {
  await removeCommand(tx, command);
  const shown = path === null ? null : path.toString('utf8').slice(0, pathCharactersTold).toWellFormed();
  await record(tx, by, {
    action: 'device.browse',
    target: { kind: 'device', id: target.id, name: target.name },
    organization: target.organizationPath.at(-1) ?? null,
    result: fault === null ? 'done' : 'failed',
    details: { user: target.user, path: shown, entries, ...(fault !== null && { fault }) },
  });
}
