/** Signing in and out, and what one may know about oneself. */
import { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import type { Database } from '../../../../storage/catalog/database.ts';
import { reachOf } from '../../../directory/roles/may.ts';
import { permissions } from '../../../directory/roles/permissions.ts';
import { signInClient } from '../../../directory/sign-in/clients/client-sign-in.ts';
import { ClientTokenAnswer, ClientTokenRequest } from '../../../directory/sign-in/clients/shapes.ts';
import { loadActor } from '../../../directory/sign-in/sessions/actor.ts';
import { signInOperator, signInUser } from '../../../directory/sign-in/sessions/begin.ts';
import { refreshSession } from '../../../directory/sign-in/sessions/refresh.ts';
import {
  endSession,
  endSessionsOfUser,
  listSessions,
  type Owner,
  type SessionTokens,
} from '../../../directory/sign-in/sessions/sessions.ts';
import {
  EndedSessions,
  OperatorSignInRequest,
  RefreshRequest,
  SessionList,
  SessionsQuery,
  SignInAnswer,
  SignInRequest,
} from '../../../directory/sign-in/sessions/sign-in-shapes.ts';
import { drawTokens } from '../../../directory/sign-in/sessions/tokens-of-session.ts';
import { newToken } from '../../../directory/sign-in/tokens.ts';
import type { Context } from '../../deps.ts';
import { type Caller, maySignIn, noteNotLetIn, notLetIn } from '../callers.ts';
import { idText, userInPath, userParams } from '../finders.ts';
import { type ApiRoute, act, change, read } from '../route.ts';

const tag = 'Sign-in';
const done = z.strictObject({});

export const comesFrom = (ctx: Context, address: string) => ({ address, program: ctx.get('user-agent') || null });

export const ownerOf = ({ kind, id, tenant }: Caller): Owner =>
  kind === 'operator' ? { operator: id } : { tenant: tenant!, user: id };

export const told = ({ refreshExpiresAt, ...tokens }: SessionTokens) => ({
  ...tokens,
  refreshExpiresAt: refreshExpiresAt.toISOString(),
});

/** Ends the session again where the roles do not let sign in, and says so in the log. @throws Problem forbidden */
export async function letIn(
  database: Database,
  { accessToken, session }: SessionTokens,
  address: string,
): Promise<void> {
  const loaded = await loadActor(database, accessToken);
  if (loaded.refused !== null || loaded.identity.kind !== 'user') throw new Problem('sign_in_failed', 'sign in again');
  if (loaded.actor && maySignIn(loaded.actor)) return;
  const { tenant, user, userName } = loaded.identity;
  const by = { tenant, party: { kind: 'user' as const, id: user, name: userName }, address };
  await database.transaction((tx) => endSession(tx, by, { tenant, user }, session));
  await noteNotLetIn(database, loaded.identity, address, 'session.create');
  throw notLetIn();
}

const WhoAmI = z.strictObject({
  kind: z.enum(['user', 'client', 'operator']),
  id: z.int(),
  name: z.string(),
  tenant: z.int().nullable(),
  organization: z.int().nullable(),
  permissions: z.record(z.string(), z.enum(['self', 'tree', 'all'])).meta({
    description: 'What you may, and how far it reaches: yourself, your organization and below, the whole tenant.',
  }),
});

export const sessionRoutes: readonly ApiRoute[] = [
  act({
    method: 'POST',
    path: '/v1/sessions',
    tag,
    summary: 'Sign in',
    says: 'Answers an access token, good for minutes, and a refresh token.',
    may: { anyone: 'it is how one signs in.' },
    body: SignInRequest,
    status: 201,
    answer: SignInAnswer,
    act: async ({ ctx, deps, body, address, database }) => {
      const tokens = await signInUser(deps.directory, body, comesFrom(ctx, address), drawTokens());
      await letIn(database, tokens, address);
      return told(tokens);
    },
  }),
  act({
    method: 'POST',
    path: '/v1/operator/sessions',
    tag,
    summary: 'Sign in as one who runs the server',
    may: { anyone: 'it is how one signs in.' },
    body: OperatorSignInRequest,
    status: 201,
    answer: SignInAnswer,
    act: async ({ ctx, deps, body, address }) =>
      told(await signInOperator(deps.directory, body, comesFrom(ctx, address), drawTokens())),
  }),
  act({
    method: 'POST',
    path: '/v1/sessions/refresh',
    tag,
    summary: 'Exchange a refresh token for new tokens',
    says: 'Each is good once. One that is used again later ends the session: one of the two was stolen.',
    may: { anyone: 'the refresh token is the sign-in.' },
    body: RefreshRequest,
    answer: SignInAnswer,
    act: async ({ deps, body, address }) =>
      told(await refreshSession(deps.directory, body.refreshToken, drawTokens(), address)),
  }),
  act({
    method: 'POST',
    path: '/v1/clients/token',
    tag,
    summary: 'Sign in as an API client',
    says: 'OAuth 2.0 client credentials, as JSON.',
    may: { anyone: 'the secret is the sign-in.' },
    body: ClientTokenRequest,
    answer: ClientTokenAnswer,
    act: async ({ deps, body, address }) => {
      const given = { clientId: body.client_id, clientSecret: body.client_secret };
      const { accessToken, expiresInSeconds } = await signInClient(deps.directory, given, newToken(), address);
      return { access_token: accessToken, token_type: 'Bearer', expires_in: expiresInSeconds };
    },
  }),
  read({
    path: '/v1/me',
    tag,
    summary: 'Show who you are and what you may',
    may: { signedIn: true, even: 'limited' },
    answer: WhoAmI,
    read: async ({ caller: { kind, id, name, tenant, actor } }) => ({
      kind,
      id,
      name,
      tenant,
      organization: actor?.organization ?? null,
      permissions: Object.fromEntries(
        [...permissions.keys()].flatMap((permission) => {
          const reach = actor && reachOf(actor, permission);
          return reach ? [[permission, reach]] : [];
        }),
      ),
    }),
  }),
  read({
    path: '/v1/sessions',
    tag,
    summary: 'List your sessions',
    may: { signedIn: true, kinds: ['user', 'operator'] },
    query: SessionsQuery,
    answer: SessionList,
    read: async ({ deps, caller, query }) => {
      const { items, next } = await listSessions(deps.directory.database, ownerOf(caller), query);
      const iso = (at: Date): string => at.toISOString();
      return {
        items: items.map((item) => ({
          ...item,
          createdAt: iso(item.createdAt),
          lastUsedAt: iso(item.lastUsedAt),
          endsAt: iso(item.endsAt),
        })),
        next,
      };
    },
  }),
  change({
    method: 'DELETE',
    path: '/v1/sessions/current',
    tag,
    summary: 'Sign out',
    may: { signedIn: true, even: 'limited', kinds: ['user', 'operator'] },
    answer: done,
    change: async (tx, { by, caller }) => {
      await endSession(tx, by, ownerOf(caller), caller.session!);
      return {};
    },
  }),
  change({
    method: 'DELETE',
    path: '/v1/sessions/:session',
    tag,
    summary: 'End one of your sessions',
    may: { signedIn: true, kinds: ['user', 'operator'] },
    params: z.strictObject({ session: idText }),
    answer: done,
    change: async (tx, { by, caller, params }) => {
      await endSession(tx, by, ownerOf(caller), params.session);
      return {};
    },
  }),
  change({
    method: 'POST',
    path: '/v1/users/:user/end-sessions',
    tag: 'Users',
    summary: 'End all sessions of a user',
    may: { permission: 'user.update', target: userInPath },
    params: userParams,
    answer: EndedSessions,
    change: (tx, { by, target }) => endSessionsOfUser(tx, by, { tenant: target.tenant, user: target.id, except: null }),
  }),
];
