/**
 * What a restore is made with: the vault's keys for a zip or tar; for a sealed export none, only what the server keeps of
 * them and may tell.
 */
import { Problem } from '../../../protocol/problems.ts';
import { exportKeyOf } from '../../../protocol/sealed-export.ts';
import type { Database } from '../../../storage/catalog/database.ts';
import type { Way } from '../../restoring/assemble.ts';
import type { ExportAbout } from '../../restoring/types.ts';
import type { Directory } from '../directory.ts';
import { keptKeysOf } from '../keys/raising/kept-keys.ts';
import { type OpenKeyring, openKeyring } from './keyring.ts';
import { formatOf, type RestoreWithLists } from './rows.ts';

/** @throws Problem malformed_request (field `password`) for one that an export has no use for; what `openKeyring` throws */
export async function openWay(
  directory: Pick<Directory, 'database' | 'keys' | 'signIns'>,
  row: RestoreWithLists,
  asked: OpenKeyring,
): Promise<Way> {
  const format = formatOf(row);
  if (format !== 'export') return { format, keyring: await openKeyring(directory, asked) };
  if (asked.password !== undefined)
    throw new Problem(
      'malformed_request',
      'an export is made without the archive password: whoever opens it gives it',
      {
        field: 'password',
      },
    );
  return { format: 'export', about: await aboutExport(directory.database, row) };
}

/**
 * A key wrapped by the archive password goes to the archive's own user only: whoever has it can try passwords as fast as
 * their machines do, and that it is not theirs to try is what the level promises. Others' exports are opened by a device
 * of that user, which has the keys.
 */
async function aboutExport(db: Database, row: RestoreWithLists): Promise<ExportAbout> {
  const isOwn = row.askerKind === 'user' && row.askerId === row.user;
  const keys = await keptKeysOf(db, row.vault);
  return {
    guid: row.guid,
    at: (row.momentAt ?? row.createdAt).getTime(),
    keys: keys.map((key) => exportKeyOf(key, { withPassword: isOwn })),
  };
}
