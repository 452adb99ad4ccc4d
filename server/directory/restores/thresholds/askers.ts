/**
 * Whom a restore counts for: the user who asks, and for an API client whoever was shown its secret last, since otherwise each
 * program would be a new allowance for them. A client of which nobody knows that counts for itself.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';

const behind = statement(
  'directory.userBehindClient',
  'SELECT secret_shown_to AS "user" FROM api_clients WHERE tenant_id = $1 AND client_id = $2',
);

export interface Asker {
  tenant: number;
  kind: 'user' | 'client';
  id: number;
}

/** Which user or program it is. @throws Problem forbidden */
export function askerOf({ party }: By): { kind: 'user' | 'client'; id: number } {
  if ((party.kind !== 'user' && party.kind !== 'client') || typeof party.id !== 'number')
    throw new Problem('forbidden', 'restores are asked for by people and programs of a tenant');
  return { kind: party.kind, id: party.id };
}

/** @throws Problem forbidden for whoever is neither a user nor a client of a tenant */
export async function countedFor(db: Transaction, by: By): Promise<Asker> {
  const { kind, id } = askerOf(by);
  const tenant = by.tenant!;
  const user = await userBehind(db, by);
  return user === null ? { tenant, kind, id } : { tenant, kind: 'user', id: user };
}

/** The user who acts, themselves or through a program; null: nobody knows, or there is none. */
export async function userBehind(db: Transaction, { tenant, party }: By): Promise<number | null> {
  if (typeof party.id !== 'number' || (party.kind !== 'user' && party.kind !== 'client')) return null;
  if (party.kind === 'user') return party.id;
  const [row] = await db.query<{ user: number | null }>(behind, [tenant, party.id]);
  return row?.user ?? null;
}
