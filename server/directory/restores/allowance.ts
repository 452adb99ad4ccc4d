/**
 * How much somebody may restore of an archive to a browser: by `restore.all` anything, by `restore.limited` and
 * `restore.personal` as much as the organization of the archive's user allows. Who has several has the largest of them.
 */
import { Problem } from '../../../protocol/problems.ts';
import type { Transaction } from '../../../storage/catalog/database.ts';
import { zipEntriesMax } from '../../restoring/formats/zip.ts';
import type { RestorePlan } from '../../restoring/plan.ts';
import type { RestoreFormat } from '../../restoring/types.ts';
import { settingsOfMany } from '../devices/settings-of-many.ts';
import { type Actor, may } from '../roles/may.ts';
import type { DeviceTarget } from '../targets.ts';

export interface Allowance {
  permission: 'restore.all' | 'restore.limited' | 'restore.personal';
  /** Plain bytes of files; null: any number. */
  bytesMax: number | null;
}

const limited = [
  ['restore.limited', 'webRestore.administratorBytesMax'],
  ['restore.personal', 'webRestore.userBytesMax'],
] as const;

/** @returns null: none of the permissions reaches it */
export async function allowanceOf(db: Transaction, actor: Actor, target: DeviceTarget): Promise<Allowance | null> {
  if (may(actor, 'restore.all', target).allowed) return { permission: 'restore.all', bytesMax: null };
  const held = limited.filter(([permission]) => may(actor, permission, target).allowed);
  if (held.length === 0) return null;
  const organization = target.organizationPath.at(-1)!;
  const names = held.map(([, name]) => name);
  const settings = await settingsOfMany(db, target.tenant, [organization], names);
  const all = held.map(([permission, name]): Allowance => {
    const bytesMax = settings.value(organization, name);
    // Nobody knows how much may go out then, so nothing does.
    if (bytesMax === null) throw new Error(`the setting ${name} of organization ${organization} cannot be read`);
    return { permission, bytesMax };
  });
  return all.reduce((most, each) => (each.bytesMax! > most.bytesMax! ? each : most));
}

/** @throws Problem forbidden, with the numbers */
export function assertWithin({ permission, bytesMax }: Allowance, bytes: number): void {
  if (bytesMax === null) return;
  if (bytesMax === 0)
    throw new Problem('forbidden', `restores to a browser by ${permission} are switched off in this organization`, {
      permission,
      bytesMax,
    });
  if (bytes > bytesMax)
    throw new Problem(
      'forbidden',
      `this comes to ${bytes} bytes; ${permission} allows ${bytesMax} at a time in this organization: choose less, or restore with the agent`,
      { permission, bytes, bytesMax },
    );
}

/** The last entries, which tell of the others. */
const ownEntries = 2;

/** @throws Problem out_of_bounds, field `format` */
export function assertFits(format: RestoreFormat, plan: Pick<RestorePlan, 'files' | 'folders' | 'links'>): void {
  const entries = plan.files + plan.folders + plan.links;
  const entriesMax = zipEntriesMax - ownEntries;
  if (format === 'zip' && entries > entriesMax)
    throw new Problem(
      'out_of_bounds',
      `a zip holds ${entriesMax} files, folders and links, and this is ${entries}: take a tar`,
      {
        field: 'format',
        entries,
        entriesMax,
      },
    );
}
