/** What a sign-in leaves in the audit log: who, from where, how it ended and why. Never what was typed. */
import type { Database, Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record, recordAlone } from '../../audit/record.ts';
import type { Account, NoAccount } from '../accounts.ts';

/** Why a sign-in was refused. To whoever tried, most of these are one and the same. */
export type SignInRefusal =
  | 'no such name'
  | 'wrong password'
  | 'no password'
  | 'password not allowed here'
  | 'one-time password lapsed'
  | 'wrong code'
  | 'code used before'
  | 'no code'
  | Exclude<Account['state'], 'active'>;

/** Why not even the right password would let in; null: it would. */
export function whyClosed(found: Account | NoAccount): SignInRefusal | null {
  if (found.kind === 'none') return 'no such name';
  if (found.passwordHash === null) return 'no password';
  if (found.state !== 'active') return found.state;
  if (found.kind === 'operator') return null;
  if (!found.passwordAllowed) return 'password not allowed here';
  return found.onceLapsed ? 'one-time password lapsed' : null;
}

/** On whose behalf a sign-in is made: whoever the name is of. A name that is nobody's is not written: it may be a password. */
export function byAccount(account: Account | NoAccount, address: string): By {
  if (account.kind === 'none')
    return { tenant: account.tenant, party: { kind: 'user', id: null, name: 'unknown' }, address };
  const { kind, id, name } = account;
  return { tenant: kind === 'user' ? account.tenant : null, party: { kind, id, name }, address };
}

/**
 * In a transaction of its own, for a refusal has no other; and bounded, because whoever knows a name can be refused as often
 * as they like, from as many addresses as they have: of each reason the first are written, and the others counted.
 */
export async function recordRefusal(
  database: Database,
  account: Account | NoAccount,
  address: string,
  { action = 'session.create', why }: { action?: string; why: SignInRefusal },
): Promise<void> {
  await recordAlone(database, byAccount(account, address), {
    action,
    target: account.kind === 'user' ? { kind: 'user', id: account.id, name: account.name } : null,
    organization: account.kind === 'user' ? account.organization : null,
    result: 'refused',
    details: { why },
  });
}

export async function recordSignIn(
  tx: Transaction,
  by: By,
  made: { session: number; organization: number | null; with: string; limited: boolean },
): Promise<void> {
  await record(tx, by, {
    action: 'session.create',
    target: { kind: 'session', id: made.session, name: null },
    organization: made.organization,
    result: 'done',
    details: { with: made.with, ...(made.limited && { limited: 'second factor' }) },
  });
}
