/**
 * Takes a user's open registration codes away. Apart from what else is done with them, because whatever ends a user's
 * sign-ins does this too.
 */
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';

const revoke = statement(
  'directory.revokeRegistrationCodes',
  'DELETE FROM registration_codes WHERE user_id = $1 AND used_at IS NULL RETURNING expires_at > now() AS open',
);

/** The caller has locked the user's row. @returns how many were good until now */
export async function revokeOpenCodes(tx: Transaction, user: number): Promise<number> {
  const rows = await tx.query<{ open: boolean }>(revoke, [user]);
  return rows.filter(({ open }) => open).length;
}
