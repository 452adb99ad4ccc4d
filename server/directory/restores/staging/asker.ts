/**
 * What whoever asked for a restore may do by now, asked without a session: for what a worker does on their behalf, and for who
 * comes with a link of theirs. A session that has ended is no reason; a state or a role that was taken away is.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { type Actor, type Grant, may } from '../../roles/may.ts';
import { loadActorAgain } from '../../sign-in/sessions/actor.ts';
import { type EffectiveState, heldOfUser } from '../../users/effective-state.ts';

const user = statement(
  'directory.actorOfUser',
  `SELECT u.name, o.organization_id AS organization, person.state,
          (SELECT json_agg(json_build_object('role', r.role, 'scope', r.scope, 'organization', r.organization_id)
                           ORDER BY r.role, r.organization_id)
             FROM user_roles r WHERE r.user_id = u.user_id AND r.tenant_id = u.tenant_id) AS roles
     FROM users u JOIN organizations o ON o.organization_id = u.organization_id AND o.tenant_id = u.tenant_id
    CROSS JOIN LATERAL ${heldOfUser} person
    WHERE u.tenant_id = $1 AND u.user_id = $2`,
);

export interface AskedBy {
  tenant: number;
  askerKind: 'user' | 'client';
  askerId: number;
}

export interface Asker {
  actor: Actor;
  name: string;
}

const notAnyMore = (why: string): Problem => new Problem('forbidden', `whoever asked for it ${why}`);

/** @throws Problem forbidden when they may do nothing any more */
export async function askerNow(db: Transaction, { tenant, askerKind, askerId }: AskedBy): Promise<Asker> {
  return askerKind === 'user' ? userNow(db, tenant, askerId) : clientNow(db, tenant, askerId);
}

async function userNow(db: Transaction, tenant: number, id: number): Promise<Asker> {
  const [row] = await db.query<{ name: string; organization: number; state: EffectiveState; roles: Grant[] | null }>(
    user,
    [tenant, id],
  );
  if (!row) throw notAnyMore('is not there any more');
  if (row.state !== 'active') throw notAnyMore(`is ${row.state}`);
  const { name, organization } = row;
  const actor: Actor = { tenant, organization, user: id, grants: row.roles ?? [] };
  const self = { tenant, organizationPath: [organization], user: id };
  if (!may(actor, 'console.login', self).allowed) throw notAnyMore('may not sign in any more (console.login)');
  return { actor, name };
}

async function clientNow(db: Transaction, tenant: number, id: number): Promise<Asker> {
  const loaded = await loadActorAgain(db, { session: null, client: id });
  if (loaded.refused !== null || loaded.actor === null || loaded.actor.tenant !== tenant)
    throw notAnyMore(`is ${loaded.refused ?? 'not there'}`);
  return { actor: loaded.actor, name: loaded.identity.kind === 'client' ? loaded.identity.clientName : '' };
}

/** In whose name it is made. @param address where they asked from; null: a worker does it by itself */
export function byAsker({ tenant, askerKind, askerId }: AskedBy, name: string, address: string | null): By {
  return { tenant, party: { kind: askerKind, id: askerId, name }, address };
}
