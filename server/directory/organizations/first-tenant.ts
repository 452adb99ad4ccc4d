/** The first tenant of a new server, with its top organization and an administrator. */
import type { By } from '../audit/act.ts';
import type { Directory } from '../directory.ts';
import { makeTenant } from '../tenants/changing.ts';
import { hasTenant } from './inserting.ts';

export interface FirstTenant {
  name: string;
  registrationKey: string;
  userName: string;
  password: string;
}

const server: By = { tenant: null, party: { kind: 'server', id: null, name: 'Holdfast' }, address: null };

/**
 * Makes the first tenant, unless there is one. The caller has written the secrets down before.
 * @returns whether it was made now
 */
export async function createFirstTenant(directory: Directory, first: FirstTenant): Promise<boolean> {
  const { name, registrationKey, userName, password } = first;
  const passwordHash = await directory.passwords.hash(password);
  return directory.database.transaction(async (tx) => {
    if (await hasTenant(tx)) return false;
    await makeTenant(tx, server, { name, registrationKey, administrator: { name: userName, passwordHash } });
    return true;
  });
}
