/**
 * Who asks the JSON API: whoever an access token stands for, read anew with every request, so that what was taken away is
 * gone with the next one. To the outside every token that is not enough is the same 401.
 */
import { Problem, type ProblemCode } from '../../../protocol/problems.ts';
import type { Database } from '../../../storage/catalog/database.ts';
import type { By } from '../../directory/audit/act.ts';
import { recordAlone } from '../../directory/audit/record.ts';
import { type Actor, may } from '../../directory/roles/may.ts';
import {
  type Identity,
  isOperatorLimited,
  loadActor,
  loadActorAgain,
  type UserIdentity,
} from '../../directory/sign-in/sessions/actor.ts';
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
  /** The restore whose link they came with, in the name of whoever made it. */
  link?: number;
  /** Who they are by now, of somebody without a sign-in. @throws Problem when they may nothing any more */
  again?: () => Promise<Caller>;
}

const unauthorized = (): Problem =>
  new Problem('unauthorized', 'sign in (POST /v1/sessions) and send the access token as Authorization: Bearer');

/**
 * @param inForm an access token that came in a form instead of a header
 * @throws Problem unauthorized, whatever is wrong with the token
 */
export async function authenticate(ctx: Context, inForm?: string): Promise<Caller> {
  refuseCleartext(ctx);
  const token = inForm ?? bearerOf(ctx);
  const { deps, log, signal } = ctx.state;
  const release = await deps.slots.signIns.take(addressOf(ctx), signal);
  const loaded = await loadActor(deps.directory.database, token).finally(release);
  if (loaded.refused !== null) {
    if (loaded.refused !== 'unknown') log.info({ refused: loaded.refused, who: loaded.identity }, 'token refused');
    throw unauthorized();
  }
  const { identity, actor } = loaded;
  // Whoever lost it is not signed in any more, as far as the console and the API go.
  if (actor && identity.kind === 'user' && !maySignIn(actor)) {
    await noteNotLetIn(deps.directory.database, identity, addressOf(ctx), 'request.refused');
    throw notLetIn();
  }
  const isLimited = loaded.actor ? loaded.limited : isOperatorLimited(deps.directory, loaded);
  return { ...named(identity), actor, limited: isLimited ? 'second_factor_needed' : null };
}

function bearerOf(ctx: Context): string {
  const [scheme, token, ...more] = ctx.get('authorization').split(' ');
  if (scheme?.toLowerCase() !== 'bearer' || !token || more.length > 0) throw unauthorized();
  return token;
}

/**
 * Who a caller is by now, for what lasts longer than their access token: whether their session, or program, and what they
 * may do are still there.
 * @throws Problem unauthorized; forbidden when their roles do not let them sign in any more
 */
export async function authenticateAgain(ctx: Context, { kind, id, session, again }: Caller): Promise<Caller> {
  if (again) return again();
  const { database } = ctx.state.deps.directory;
  const loaded = await loadActorAgain(database, { session, client: kind === 'client' ? id : null });
  if (loaded.refused !== null || loaded.actor === null) throw unauthorized();
  const { identity, actor } = loaded;
  if (identity.kind === 'user' && !maySignIn(actor)) throw notLetIn();
  return { ...named(identity), actor, limited: loaded.limited ? 'second_factor_needed' : null };
}

export const notLetIn = (): Problem =>
  new Problem('forbidden', 'your roles do not let you sign in here (console.login)');

/** A refusal like any other that a permission is missing for, though nothing was asked for yet. */
export async function noteNotLetIn(
  database: Database,
  { tenant, organization, user, userName }: UserIdentity,
  address: string,
  action: 'session.create' | 'request.refused',
): Promise<void> {
  const by: By = { tenant, party: { kind: 'user', id: user, name: userName }, address };
  await recordAlone(database, by, {
    action,
    target: { kind: 'user', id: user, name: userName },
    organization,
    result: 'refused',
    details: { permission: 'console.login', why: 'not_held' },
  });
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
  if (!caller) return `address ${addressOf(ctx)}`;
  // Whoever has a link takes none of its maker's places.
  return caller.link === undefined ? `${caller.kind} ${caller.id}` : `link ${caller.link}`;
}
