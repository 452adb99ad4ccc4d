/** A tenant with a real identity provider, and somebody who signs in by it: one for each file of tests that imports this. */
import { type Directory, openDirectory } from '../../directory.ts';
import { loadActor } from '../sessions/actor.ts';
import { drawTokens } from '../sessions/tokens-of-session.ts';
import { home, signInWorld, type World } from '../test-world.ts';
import { beginProviderSignIn, finishProviderSignIn, type SentAway } from './provider-sign-in.ts';
import { createProvider, prepareProvider, updateProvider } from './providers.ts';
import { CreateProviderRequest, UpdateProviderRequest } from './shapes.ts';
import { type Person, type TestProvider, testProvider } from './test-provider.ts';

export let world: World;
export let there: TestProvider;
export let directory: Directory;
export let provider: number;
/** How many tests have begun: names are made of it. */
export let made = 0;

export async function open(): Promise<void> {
  world = await signInWorld();
  there = await testProvider();
  const { database, keys } = world.directory;
  const bounds = { passwordHashesMax: 2, signInsPerMinute: 10_000 };
  directory = openDirectory({ database, keys, ...bounds, plainOpenIdOnLoopback: true });
  provider = (await connect()).id;
}

export async function close(): Promise<void> {
  await there?.close();
  await world?.close();
}

/** Before each test: somebody new is at the provider, which does as it should. */
export function begun(): void {
  const name = `person${++made}`;
  there.person = { sub: name, email: `${name}@example.com`, email_verified: true, name: `Person ${made}` };
  there.repair();
  there.alter = null;
  there.forge = false;
}

export const settings = (of: object = {}) => ({
  scopes: ['email', 'profile', 'groups'],
  groupsClaim: 'groups',
  groups: [
    { group: 'helpers', organization: world.child, roles: [{ role: 'Org Help Desk', scope: 'tree' }] },
    { group: 'admins', roles: [{ role: 'Customer Cloud Admin', scope: 'all' }] },
  ],
  createsUsers: true,
  organization: world.root,
  domains: ['example.com'],
  ...of,
});

export async function connect(of: object = {}) {
  const { id, secret } = there.client;
  const request = CreateProviderRequest.parse({
    name: 'Test',
    issuer: there.issuer,
    openidClient: id,
    openidSecret: secret,
    settings: settings(),
    ...of,
  });
  const sealed = await prepareProvider(directory, world.tenant, request);
  return world.database.transaction((tx) => createProvider(tx, world.by, { ...request, tenant: world.tenant }, sealed));
}
export const change = (
  request: object,
  of: { tenant?: number; expected?: number | null } = {},
  sealed: Buffer | null = null,
) =>
  world.database.transaction((tx) =>
    updateProvider(
      tx,
      world.by,
      { tenant: world.tenant, provider, expected: null, change: UpdateProviderRequest.parse(request), ...of },
      { sealed },
    ),
  );

export const begin = (returnTo: string | null = null): Promise<SentAway> =>
  beginProviderSignIn(directory, { provider, redirectUri: there.redirectUri, returnTo }, home.address);
export const finish = (query: string, cookie: string | null, drawn = drawTokens()) =>
  finishProviderSignIn(directory, { query, cookie, redirectUri: there.redirectUri }, home, drawn);
export async function signIn(person: Partial<Person> = {}) {
  Object.assign(there.person, person);
  const { url, cookie } = await begin();
  return finish((await there.visit(url)).search, cookie);
}
export const lastWhy = async (): Promise<unknown> => (await world.acts('session.create')).at(-1)!.details.why;
export const userOf = async (tokens: { accessToken: string }) => {
  const loaded = await loadActor(world.database, tokens.accessToken);
  if (loaded.refused !== null || loaded.identity.kind !== 'user') throw new Error(`not signed in: ${loaded.refused}`);
  return { ...loaded.identity, grants: loaded.actor!.grants };
};
