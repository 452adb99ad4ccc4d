/**
 * Who asks the JSON API: whoever an access token stands for, read anew with every request, so that what was taken away is
 * gone with the next one. To the outside every token that is not enough is the same 401.
 */
import { Problem, type ProblemCode } from '../../../protocol/problems.ts';
import type { By } from '../../directory/audit/act.ts';
import { type Actor, may } from '../../directory/roles/may.ts';
import { type Identity, loadActor } from '../../directory/sign-in/sessions/actor.ts';
import { refuseCleartext } from '../cleartext.ts';
import { addressOf } from '../client-address.ts';
import type { Context } from '../deps.ts';

export interface Caller {
  kind: 'user' | 'client' | 'operator';
  id: number;
  name: string;
  /** Null: an operator, who is of no tenant. */
  tenant: number | null;
  /** Null: an operator, who has no permission in any tenant. */
  actor: Actor | null;
  /** Null: an API client. */
  session: number | null;
  /** Why the session can do no more yet than what is missing; null: it can do everything. */
  limited: ProblemCode | null;
}

const unauthorized = (): Problem =>
  new Problem('unauthorized', 'sign in (POST /v1/sessions) and send the access token as Authorization: Bearer');

/** @throws Problem unauthorized, whatever is wrong with the token */
export async function authenticate(ctx: Context): Promise<Caller> {
  refuseCleartext(ctx);
  const [scheme, token, ...more] = ctx.get('authorization').split(' ');
  if (scheme?.toLowerCase() !== 'bearer' || !token || more.length > 0) throw unauthorized();
  const { deps, log, signal } = ctx.state;
  const release = await deps.slots.signIns.take(addressOf(ctx), signal);
  const loaded = await loadActor(deps.directory.database, token).finally(release);
  if (loaded.refused !== null) {
    if (loaded.refused !== 'unknown') log.info({ refused: loaded.refused, who: loaded.identity }, 'token refused');
    throw unauthorized();
  }
  const { identity, actor, limited } = loaded;
  // Whoever lost it is not signed in any more, as far as the console and the API go.
  if (actor && identity.kind === 'user' && !maySignIn(actor))
    throw new Problem('forbidden', 'your roles do not let you sign in here (console.login)');
  return { ...named(identity), actor, limited: limited ? 'second_factor_needed' : null };
}

/** `console.login` is about oneself. */
export function maySignIn(actor: Actor): boolean {
  const { tenant, organization, user } = actor;
  return may(actor, 'console.login', { tenant, organizationPath: [organization], ...(user !== null && { user }) })
    .allowed;
}

function named(identity: Identity): Omit<Caller, 'actor' | 'limited'> {
  switch (identity.kind) {
    case 'user':
      return {
        kind: 'user',
        id: identity.user,
        name: identity.userName,
        tenant: identity.tenant,
        session: identity.session,
      };
    case 'client':
      return { kind: 'client', id: identity.client, name: identity.clientName, tenant: identity.tenant, session: null };
    case 'operator':
      return {
        kind: 'operator',
        id: identity.operator,
        name: identity.operatorName,
        tenant: null,
        session: identity.session,
      };
  }
}

export function byOf({ kind, id, name, tenant }: Caller, address: string): By {
  return { tenant, party: { kind, id, name }, address };
}

/** Under what their places and their keys are counted. */
export function requesterOf(caller: Caller | null, ctx: Context): string {
  return caller ? `${caller.kind} ${caller.id}` : `address ${addressOf(ctx)}`;
}
