/** A real OpenID provider (oidc-provider) on this machine, and a browser that goes there and comes back. */
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What is used of it. It has no types of its own; named by a variable, so that nobody looks for them. */
interface Provider {
  callback(): (request: IncomingMessage, response: ServerResponse) => Promise<void>;
  interactionFinished(request: IncomingMessage, response: ServerResponse, result: object): Promise<void>;
  Grant: new (of: {
    clientId: string;
    accountId: string;
  }) => { addOIDCScope(scope: string): void; save(): Promise<string> };
}
interface ProviderContext {
  oidc: { client: { clientId: string }; session: { accountId: string } };
}
const module = 'oidc-provider';
const { Provider } = (await import(module)) as { Provider: new (issuer: string, configuration: object) => Provider };
// Its own default, without the warning that this is for tests.
const { createMemoryAdapter } = (await import(`${module}/lib/adapters/memory_adapter.js`)) as {
  createMemoryAdapter(clockTolerance: number): object;
};

export interface Person {
  sub: string;
  email?: string;
  email_verified?: boolean;
  name?: string;
  preferred_username?: string;
  groups?: unknown;
}

export interface TestProvider {
  issuer: string;
  redirectUri: string;
  client: { id: string; secret: string };
  /** Who signs in next. */
  person: Person;
  /** Changes the claims of ID tokens that are made next, which are signed again; null: they stay as they are. */
  alter: ((claims: Record<string, unknown>) => Record<string, unknown>) | null;
  /** Altered tokens are signed with a key that is not the provider's. */
  forge: boolean;
  /** New signing keys, and the old ones are gone. */
  rotateKeys(): void;
  /** Answers nothing more; `slow` keeps connections open. */
  breakDown(how: 'refuse' | 'endless' | 'error'): void;
  repair(): void;
  /** Sends the browser there. @returns the callback with its query */
  visit(url: string): Promise<URL>;
  close(): Promise<void>;
}

const redirectUri = 'https://backup.example/v1/sign-in/callback';

export async function testProvider(): Promise<TestProvider> {
  let keys = 0;
  let answer: (request: IncomingMessage, response: ServerResponse) => void;
  const server: Server = createServer((request, response) => answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  let serve: typeof answer;

  const world: TestProvider = {
    issuer,
    redirectUri,
    client: { id: 'holdfast', secret: 'the secret of the client' },
    person: { sub: 'nobody' },
    alter: null,
    forge: false,
    rotateKeys() {
      const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 });
      const { privateKey: stranger } = generateKeyPairSync('rsa', { modulusLength: 2_048 });
      const jwk = { ...privateKey.export({ format: 'jwk' }), kid: `key ${++keys}`, use: 'sig', alg: 'RS256' };
      const provider = makeProvider(world, jwk);
      const callback = provider.callback();
      serve = (request, response) => {
        if (request.url === '/token' && world.alter)
          alterAnswer(response, world.alter, world.forge ? stranger : privateKey, jwk.kid);
        if (!request.url?.startsWith('/interaction/')) return void callback(request, response);
        const { sub: accountId } = world.person;
        void provider.interactionFinished(request, response, { login: { accountId } });
      };
      answer = serve;
    },
    breakDown(how) {
      answer = (_request, response) => {
        if (how === 'refuse') return void response.destroy();
        response.statusCode = how === 'error' ? 500 : 200;
        response.setHeader('content-type', 'application/json');
        if (how === 'error') return void response.end('{}');
        const more = (): void => {
          while (response.write(' '.repeat(65_536)));
          response.once('drain', more);
        };
        more();
      };
    },
    repair() {
      answer = serve;
    },
    visit: (url) => visit(url, redirectUri),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  world.rotateKeys();
  return world;
}

/** The answer of the token endpoint, with another ID token in it. */
function alterAnswer(
  response: ServerResponse,
  alter: NonNullable<TestProvider['alter']>,
  key: KeyObject,
  kid: string,
): void {
  const end = response.end.bind(response) as (body: string) => ServerResponse;
  const json = (part: object): string => Buffer.from(JSON.stringify(part)).toString('base64url');
  response.end = ((body: string | Buffer) => {
    const answer = JSON.parse(String(body)) as { id_token: string };
    const claims = JSON.parse(Buffer.from(answer.id_token.split('.')[1]!, 'base64url').toString('utf8'));
    const signed = `${json({ alg: 'RS256', kid })}.${json(alter(claims))}`;
    const signature = sign('sha256', Buffer.from(signed), key).toString('base64url');
    const altered = JSON.stringify({ ...answer, id_token: `${signed}.${signature}` });
    response.setHeader('content-length', Buffer.byteLength(altered));
    return end(altered);
  }) as typeof response.end;
}

function makeProvider(world: TestProvider, jwk: object): Provider {
  const claims = { email: ['email', 'email_verified'], profile: ['name', 'preferred_username'], groups: ['groups'] };
  const provider: Provider = new Provider(world.issuer, {
    adapter: createMemoryAdapter(0),
    clients: [
      {
        client_id: world.client.id,
        client_secret: world.client.secret,
        redirect_uris: [redirectUri],
        post_logout_redirect_uris: ['https://backup.example/'],
      },
    ],
    jwks: { keys: [jwk] },
    scopes: ['openid', 'email', 'profile', 'groups'],
    claims: { openid: ['sub'], ...claims },
    cookies: { keys: ['test'] },
    features: { devInteractions: { enabled: false } },
    pkce: { required: () => true },
    ttl: {
      IdToken: 3_600,
      AccessToken: 600,
      AuthorizationCode: 60,
      Grant: 600,
      Interaction: 600,
      Session: 600,
    },
    interactions: { url: (_ctx: unknown, interaction: { uid: string }) => `/interaction/${interaction.uid}` },
    findAccount: (_ctx: unknown, sub: string) => ({ accountId: sub, claims: () => ({ ...world.person, sub }) }),
    loadExistingGrant: async (ctx: ProviderContext) => {
      const grant = new provider.Grant({
        clientId: ctx.oidc.client.clientId,
        accountId: ctx.oidc.session.accountId,
      });
      grant.addOIDCScope('openid email profile groups');
      await grant.save();
      return grant;
    },
  });
  return provider;
}

/** Follows where it is sent, with the cookies it is given, until it is sent back to us. */
async function visit(url: string, until: string): Promise<URL> {
  const cookies = new Map<string, string>();
  let at = new URL(url);
  for (let hop = 0; hop < 20; hop++) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const response = await fetch(at, { redirect: 'manual', headers: { cookie } });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line)!;
      cookies.set(name!, value!);
    }
    const location = response.headers.get('location');
    if (!location) throw new Error(`the provider answered ${response.status}: ${await response.text()}`);
    at = new URL(location, at);
    if (at.href.startsWith(until)) return at;
  }
  throw new Error('the provider sends the browser around');
}
