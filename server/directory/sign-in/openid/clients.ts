/**
 * The way to identity providers, over openid-client. Whatever a provider sends is bounded in time and size, and it is
 * spoken to over TLS alone. For each sign-in's answer its description and keys are read anew, so that keys it has changed
 * a moment ago are known; only the way there is remembered for minutes.
 */
import * as openid from 'openid-client';

const answerBytesMax = 1_048_576;
/** Clocks of two well-run servers are that much off. */
export const clockToleranceSeconds = 30;
const rememberMs = 5 * 60_000;
const remembered = 200;

export interface OpenIdOptions {
  /** For one request. */
  timeoutSeconds: number;
  /** Plain HTTP to this machine, for tests. */
  plainOnLoopback: boolean;
  /** Milliseconds of a monotonic clock. */
  now: () => number;
}

/** What is known of a provider here. */
export interface ProviderAddress {
  issuer: string;
  openidClient: string;
}

export interface OpenIdClients {
  /** For the way to the provider, where a client proves nothing: perhaps minutes old. */
  recent(provider: ProviderAddress): Promise<openid.Configuration>;
  /** For its answer: read now. @param secret null: a public client */
  fresh(provider: ProviderAddress, secret: string | null): Promise<openid.Configuration>;
  /** Whether the address of a provider is one that is spoken to. */
  isAllowed(issuer: string): boolean;
}

export function createOpenIdClients({ timeoutSeconds, plainOnLoopback, now }: OpenIdOptions): OpenIdClients {
  const known = new Map<string, { until: number; configuration: Promise<openid.Configuration> }>();
  const isPlain = (issuer: string): boolean => plainOnLoopback && isLoopback(issuer);
  const isAllowed = (issuer: string): boolean => isPlain(issuer) || URL.parse(issuer)?.protocol === 'https:';

  const discover = async (
    { issuer, openidClient }: ProviderAddress,
    authentication: openid.ClientAuth,
  ): Promise<openid.Configuration> => {
    if (!isAllowed(issuer)) throw new TypeError('a provider is spoken to over https');
    const metadata = { [openid.clockTolerance]: clockToleranceSeconds };
    const execute = [openid.enableNonRepudiationChecks, ...(isPlain(issuer) ? [openid.allowInsecureRequests] : [])];
    const options = { timeout: timeoutSeconds, execute, [openid.customFetch]: boundedFetch };
    return openid.discovery(new URL(issuer), openidClient, metadata, authentication, options);
  };

  return {
    isAllowed,
    fresh: (provider, secret) => discover(provider, secret === null ? openid.None() : withSecret(secret)),
    recent(provider) {
      const key = JSON.stringify([provider.issuer, provider.openidClient]);
      const found = known.get(key);
      if (found && found.until > now()) return found.configuration;
      known.delete(key);
      if (known.size >= remembered) known.delete(known.keys().next().value!);
      const configuration = discover(provider, openid.None());
      known.set(key, { until: now() + rememberMs, configuration });
      // What failed is asked again by the next one.
      configuration.catch(() => known.delete(key));
      return configuration;
    },
  };
}

/** As the provider takes it; what it does not say is Basic (OpenID Connect Discovery 1.0, 3). */
function withSecret(secret: string): openid.ClientAuth {
  const [basic, post] = [openid.ClientSecretBasic(secret), openid.ClientSecretPost(secret)];
  return (server, ...rest) => {
    const methods = server.token_endpoint_auth_methods_supported ?? ['client_secret_basic'];
    return (methods.includes('client_secret_basic') ? basic : post)(server, ...rest);
  };
}

function isLoopback(issuer: string): boolean {
  const url = URL.parse(issuer);
  return url?.protocol === 'http:' && ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname);
}

/** An answer is read to its end here, and no further than its bound: the library would read whatever comes. */
const boundedFetch: openid.CustomFetch = async (url, { body, ...options }) => {
  const response = await fetch(url, { ...options, ...(body != null && { body }), redirect: 'manual' } as RequestInit);
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += chunk.byteLength;
    if (length > answerBytesMax) throw new TypeError('the answer of an identity provider is too large');
    chunks.push(chunk);
  }
  const { status, headers } = response;
  const bodiless = [101, 204, 205, 304].includes(status);
  return new Response(bodiless ? null : Buffer.concat(chunks), { status, headers });
};
