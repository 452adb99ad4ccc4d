/** What must be true of the device that a restore is pushed to, and how its folders are named. */
import { limits } from '../../../../protocol/limits.ts';
import { pathFault } from '../../../../protocol/paths.ts';
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { DeviceTarget } from '../../targets.ts';
import { type EffectiveState, heldOfDevice } from '../../users/effective-state.ts';

const facts = statement(
  'directory.factsOfPushTarget',
  `SELECT d.platform, d.kind, held.state, s.platform AS "sourcePlatform", s.kind AS "sourceKind"
     FROM devices d JOIN users u ON u.user_id = d.user_id JOIN organizations o ON o.organization_id = u.organization_id
    CROSS JOIN LATERAL ${heldOfDevice} held
     JOIN devices s ON s.device_id = $3 AND s.tenant_id = $1
    WHERE d.tenant_id = $1 AND d.device_id = $2`,
);

interface Facts {
  platform: string;
  kind: 'agent' | 'restic';
  state: EffectiveState;
  sourcePlatform: string;
  sourceKind: 'agent' | 'restic';
}

/**
 * @param original the files are to go back to their places
 * @returns what the device is
 * @throws Problem conflict, in words that say what to do instead
 */
export async function assertPushable(
  db: Transaction,
  { source, target, original }: { source: DeviceTarget; target: DeviceTarget; original: boolean },
): Promise<{ platform: string }> {
  if (target.user !== source.user || target.vault !== source.vault)
    throw new Problem(
      'conflict',
      "that device is another user's: its agent has no key of this backup, and is given none. Restore to a browser, or to a device of the same user",
      { field: 'to.device' },
    );
  const [row] = await db.query<Facts>(facts, [target.tenant, target.deviceId, source.deviceId]);
  if (row?.kind !== 'agent' || row.sourceKind !== 'agent')
    throw new Problem('conflict', 'repositories of restic have no agent: restore with restic', { field: 'to.device' });
  if (row.state !== 'active')
    throw new Problem('conflict', `that device is ${row.state}: it restores nothing now`, {
      field: 'to.device',
      state: row.state,
    });
  if (original && row.platform !== row.sourcePlatform)
    throw new Problem(
      'conflict',
      `the files come from ${row.sourcePlatform}, and their places are none on ${row.platform}: name a folder`,
      { field: 'to.original' },
    );
  return { platform: row.platform };
}

/** @throws Problem conflict: it has no agent that could be asked */
export async function assertFollows(db: Transaction, target: DeviceTarget): Promise<{ platform: string }> {
  const [row] = await db.query<Facts>(facts, [target.tenant, target.deviceId, target.deviceId]);
  if (row?.kind !== 'agent') throw new Problem('conflict', 'repositories of restic have no agent to ask');
  return { platform: row.platform };
}

/**
 * A path of a device as archives hold it: of Windows `C:\Users` is `/C:/Users`, and `\\server\share` is `/UNC/server/share`.
 * What is written as archives write it stays.
 * @throws Problem path_invalid
 */
export function devicePath(text: string, platform: string, field: string): Buffer {
  return textPath(platform === 'win32' ? windowsPath(text) : text, field);
}

/**
 * A path as people write it: a folder may end with a slash, as shells complete it.
 * @throws Problem path_invalid
 */
export function textPath(text: string, field: string): Buffer {
  return checkedPath(Buffer.from(text.replace(/(?<=[^/])\/$/, '')), field);
}

/** @throws Problem path_invalid */
export function checkedPath(bytes: Buffer, field: string): Buffer {
  const fault = pathFault(bytes);
  if (fault) throw new Problem('path_invalid', `${field} is not a path: it ${fault}`, { field });
  return bytes;
}

function windowsPath(text: string): string {
  const [, drive, below] = /^([A-Za-z]):(?:[\\/]+(.*))?$/s.exec(text) ?? [];
  if (drive !== undefined) return joined(`/${drive.toUpperCase()}:`, below ?? '');
  if (text.startsWith('\\\\')) return joined('/UNC', text.slice(2));
  return text;
}

function joined(start: string, below: string): string {
  return [start, ...below.split(/[\\/]+/).filter((name) => name !== '')].join('/');
}

/** @throws Problem out_of_bounds: a command is one frame */
export function assertTellable(paths: readonly Buffer[]): void {
  const bytes = paths.reduce((sum, path) => sum + path.byteLength, 0);
  if (bytes > limits.commandPathBytesMax)
    throw new Problem('out_of_bounds', `the paths come to ${bytes} bytes, at most ${limits.commandPathBytesMax}`, {
      field: 'paths',
    });
}
