/** The first tenant of a new server, with its root organization and an administrator; and the secrets they start with. */
import { randomInt } from 'node:crypto';
import type { Directory } from './directory.ts';
import { hasTenant, insertOrganization, insertTenant, insertUser } from './people.ts';

/** Without 0, 1, I and O, which are taken for one another. 32 of them: 5 bits each. */
const letters = '23456789ABCDEFGHJKLMNPQRSTUVWXYZ';

export interface FirstTenant {
  name: string;
  registrationKey: string;
  userName: string;
  password: string;
}

/** XXXX-XXXX-XXXX-XXXX: 80 random bits. */
export function newRegistrationKey(): string {
  return Array.from({ length: 4 }, () => randomLetters(4)).join('-');
}

/** 24 letters and digits: 120 random bits. */
export function newPassword(): string {
  return randomLetters(24);
}

function randomLetters(count: number): string {
  return Array.from({ length: count }, () => letters[randomInt(letters.length)]).join('');
}

/**
 * Makes the first tenant, unless there is one. The caller has written the secrets down before.
 * @returns whether it was made now
 */
export async function createFirstTenant(directory: Directory, first: FirstTenant): Promise<boolean> {
  const passwordHash = await directory.passwords.hash(first.password);
  return directory.database.transaction(async (tx) => {
    if (await hasTenant(tx)) return false;
    const tenantId = await insertTenant(tx, first.name);
    const organizationId = await insertOrganization(tx, {
      tenantId,
      parentId: null,
      name: first.name,
      registrationKey: first.registrationKey,
    });
    await insertUser(tx, { tenantId, organizationId, name: first.userName, passwordHash, administrator: true });
    return true;
  });
}
