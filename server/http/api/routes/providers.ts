/** Identity providers: connected by administrators, and signed in by in a browser. */
import { z } from 'zod';
import { beginProviderSignIn, finishProviderSignIn } from '../../../directory/sign-in/openid/provider-sign-in.ts';
import {
  createProvider,
  listProviders,
  listProvidersForSignIn,
  prepareProvider,
  readProvider,
  sealSecret,
  updateProvider,
} from '../../../directory/sign-in/openid/providers.ts';
import {
  CreateProviderRequest,
  ListProvidersQuery,
  ProviderPage,
  ProviderView,
  SignInProviders,
  UpdateProviderRequest,
} from '../../../directory/sign-in/openid/shapes.ts';
import { SignInAnswer } from '../../../directory/sign-in/sessions/sign-in-shapes.ts';
import { drawTokens } from '../../../directory/sign-in/sessions/tokens-of-session.ts';
import type { Context } from '../../deps.ts';
import { idText, theTenant } from '../finders.ts';
import { origin } from '../origin.ts';
import { type ApiRoute, act, change, read } from '../route.ts';
import { comesFrom, letIn, told } from './sessions.ts';

const tag = 'Identity providers';
const one = '/v1/identity-providers/:provider';
const params = z.strictObject({ provider: idText });
const callbackPath = '/v1/openid/callback';
const cookieName = '__Host-holdfast-sign-in';
/** Without TLS browsers keep no cookie of that name: only on this machine. */
const plainCookieName = 'holdfast-sign-in';

/** A path of ours: no other host, and nothing that a browser takes for one. */
const returnTo = z
  .string()
  .max(1_024)
  .regex(/^\/(?![/\\])[\x21-\x5b\x5d-\x7e]*$/, 'is no path of this server')
  .optional()
  .meta({ description: 'Where the browser goes in the end, with the tokens not in it; left out: they are the answer' });

const isPlain = (ctx: Context): boolean => origin(ctx).startsWith('http:');

function setCookie(ctx: Context, value: string, seconds: number): void {
  const name = isPlain(ctx) ? plainCookieName : cookieName;
  const secure = isPlain(ctx) ? '' : ' Secure;';
  // `__Host-` wants the whole server as its path.
  ctx.set('Set-Cookie', `${name}=${value}; Path=/; HttpOnly;${secure} SameSite=Lax; Max-Age=${seconds}`);
}

function readCookie(ctx: Context): string | null {
  const name = isPlain(ctx) ? plainCookieName : cookieName;
  const found = ctx
    .get('cookie')
    .split(/;\s*/)
    .find((each) => each.startsWith(`${name}=`));
  return found?.slice(name.length + 1) ?? null;
}

export const providerRoutes: readonly ApiRoute[] = [
  act({
    method: 'GET',
    path: '/v1/openid/providers',
    tag: 'Sign-in',
    summary: 'List the identity providers that people of a tenant may sign in by',
    may: { anyone: 'it is for the page that signs in.' },
    query: z.strictObject({ tenant: z.string().min(1).max(255) }),
    answer: SignInProviders,
    act: ({ database, query }) => listProvidersForSignIn(database, query.tenant),
  }),
  act({
    method: 'GET',
    path: '/v1/openid/begin',
    tag: 'Sign-in',
    summary: 'Sign in by an identity provider, in a browser',
    says: `Sends the browser to the provider, which sends it back to \`${callbackPath}\`: register that address there.`,
    may: { anyone: 'it is how one signs in.' },
    query: z.strictObject({ provider: idText, returnTo }),
    answer: z.strictObject({}),
    act: async ({ ctx, deps, query, address }) => {
      const request = {
        provider: query.provider,
        redirectUri: `${origin(ctx)}${callbackPath}`,
        returnTo: query.returnTo ?? null,
      };
      const { url, cookie } = await beginProviderSignIn(deps.directory, request, address);
      setCookie(ctx, cookie, 600);
      ctx.set('Cache-Control', 'no-store');
      ctx.redirect(url);
      return {};
    },
  }),
  act({
    method: 'GET',
    path: callbackPath,
    tag: 'Sign-in',
    summary: 'Where an identity provider sends the browser back to',
    may: { anyone: 'it is how one signs in.' },
    query: z.looseObject({}),
    answer: SignInAnswer.extend({ returnTo: z.string().nullable() }),
    act: async ({ ctx, deps, address, database }) => {
      const request = {
        query: ctx.querystring,
        cookie: readCookie(ctx),
        redirectUri: `${origin(ctx)}${callbackPath}`,
      };
      setCookie(ctx, '', 0);
      ctx.set('Referrer-Policy', 'no-referrer');
      const { returnTo, ...tokens } = await finishProviderSignIn(
        deps.directory,
        request,
        comesFrom(ctx, address),
        drawTokens(),
      );
      await letIn(database, tokens, address);
      return { ...told(tokens), returnTo };
    },
  }),
  read({
    path: '/v1/identity-providers',
    tag,
    summary: 'List identity providers',
    may: { permission: 'directory.identity_management.read', target: theTenant },
    query: ListProvidersQuery,
    answer: ProviderPage,
    read: ({ deps, caller, query }) => listProviders(deps.directory.database, caller.tenant!, query),
  }),
  change({
    method: 'POST',
    path: '/v1/identity-providers',
    tag,
    summary: 'Connect an identity provider',
    says: `OpenID Connect. Register \`${callbackPath}\` of this server there as the redirect address.`,
    may: { permission: 'directory.identity_management.write', target: theTenant },
    body: CreateProviderRequest,
    status: 201,
    answer: ProviderView,
    prepare: ({ deps, caller, body }) => prepareProvider(deps.directory, caller.tenant!, body),
    change: (tx, { by, caller, body: { openidSecret: _, ...body } }, prepared) =>
      createProvider(tx, by, { ...body, tenant: caller.tenant! }, prepared),
  }),
  read({
    path: one,
    tag,
    summary: 'Show an identity provider',
    may: { permission: 'directory.identity_management.read', target: theTenant },
    params,
    answer: ProviderView,
    read: ({ deps, caller, params }) =>
      readProvider(deps.directory.database, { tenant: caller.tenant!, provider: params.provider }),
  }),
  change({
    method: 'PATCH',
    path: one,
    tag,
    summary: 'Change an identity provider, or turn it off',
    may: { permission: 'directory.identity_management.write', target: theTenant },
    params,
    body: UpdateProviderRequest,
    answer: ProviderView,
    prepare: async ({ deps, caller, params, body }) => {
      const tenant = caller.tenant!;
      const { issuer, openidClient } = await readProvider(deps.directory.database, {
        tenant,
        provider: params.provider,
      });
      const { openidSecret } = body;
      if (openidSecret === undefined || openidSecret === null) return { sealed: null };
      return { sealed: await sealSecret(deps.directory, tenant, { issuer, openidClient, openidSecret }) };
    },
    change: (tx, { by, caller, params, body, expected }, prepared) =>
      updateProvider(tx, by, { tenant: caller.tenant!, provider: params.provider, expected, change: body }, prepared),
  }),
];
