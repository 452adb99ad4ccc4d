/**
 * How each route of the agent protocol is called, rightly: tests of access and of bad input begin from these. Which
 * routes there are is the router's to say (routes.ts); tests/access.test.ts fails for one that is not here.
 */
import { sha256 } from '../../protocol/hashes.ts';
import { type RegisterRequest, RegisterRequest as RegisterSchema } from '../../protocol/messages.ts';
import { encodeUpload } from '../../protocol/upload.ts';
import { encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { defaultRetention } from '../../storage/archive/retention/retention.ts';
import type { Person } from './server.ts';
import { noCounts, version } from './storage.ts';

/** The one file of the archive that is asked for. */
export const secretPath = Buffer.from('/secret/plans');

export function registration(person: Person, more: Partial<RegisterRequest> = {}): RegisterRequest {
  const device = { name: 'device', platform: 'linux' as const, agentVersion: '1' };
  const { registrationKey, userName, password } = person;
  return RegisterSchema.parse({
    registrationKey,
    userName,
    password,
    device,
    vaultKey: { level: 'standard' },
    ...more,
  });
}

/** What a call names: the owner's things, or things that nobody has. */
export interface Target {
  archive: number;
  run: number;
  hash: Buffer;
  /** The bytes of the hash. */
  content: Buffer;
  guid: string;
  /** Of those who administer, too. */
  organization: number;
  vault: number;
  alert: number;
}

export interface Call {
  path: string;
  type?: string;
  body?: Buffer;
}

export interface Described {
  /**
   * `open`: for everybody. `signIn`: with a sign-in. `token`: any device, in its own vault. `read`, `own`: an archive.
   * `administrator`: one of the tenant. `operator`: one of the server's first tenant.
   */
  needs: 'open' | 'signIn' | 'token' | 'read' | 'own' | 'administrator' | 'operator';
  /** The status the owner gets. */
  status: number;
  call: (target: Target, as: Person) => Call;
}

const message = (at: string, body: object): Call => ({ path: at, type: msgpackType, body: encodeMessage(body) });
const jsonType = 'application/json';
const json = (at: string, body: object): Call => ({
  path: at,
  type: jsonType,
  body: Buffer.from(JSON.stringify(body)),
});
export const hex = (hash: Buffer): string => hash.toString('hex');

/** How each route is called, by method and path. */
export const described: Record<string, Described> = {
  'GET /livez': { needs: 'open', status: 200, call: () => ({ path: '/livez' }) },
  'GET /readyz': { needs: 'open', status: 200, call: () => ({ path: '/readyz' }) },
  'GET /metrics': { needs: 'open', status: 200, call: () => ({ path: '/metrics' }) }, // from this machine only: shell.test.ts
  'POST /v1/register': {
    needs: 'signIn',
    status: 201,
    call: ({ guid }, as) => message('/v1/register', registration(as, { replace: guid })),
  },
  'POST /v1/devices/query': {
    needs: 'signIn',
    status: 200,
    call: (_, { registrationKey, userName, password }) =>
      message('/v1/devices/query', { registrationKey, userName, password }),
  },
  'GET /v1/self': { needs: 'token', status: 200, call: () => ({ path: '/v1/self' }) },
  'POST /v1/blocks/claim': {
    needs: 'token',
    status: 200,
    call: ({ hash }) => message('/v1/blocks/claim', { blocks: hash }),
  },
  'POST /v1/blocks': {
    needs: 'token',
    status: 200,
    call: ({ hash, content: bytes }) => ({
      path: '/v1/blocks',
      type: 'application/vnd.holdfast.upload',
      body: Buffer.concat(encodeUpload([{ hash, bytes }]).chunks),
    }),
  },
  'PUT /v1/blocks/:hash': {
    needs: 'token',
    status: 200,
    call: ({ hash, content: body }) => ({ path: `/v1/blocks/${hex(hash)}`, type: 'application/octet-stream', body }),
  },
  'GET /v1/blocks/:hash': { needs: 'token', status: 200, call: ({ hash }) => ({ path: `/v1/blocks/${hex(hash)}` }) },
  'POST /v1/blocks/fetch': {
    needs: 'token',
    status: 200,
    call: ({ hash }) => message('/v1/blocks/fetch', { blocks: hash }),
  },
  'POST /v1/lists/fetch': {
    needs: 'token',
    status: 200,
    call: ({ hash }) => message('/v1/lists/fetch', { lists: hash }),
  },
  'GET /v1/archives/:archive/runs': {
    needs: 'read',
    status: 200,
    call: ({ archive }) => ({ path: `/v1/archives/${archive}/runs` }),
  },
  'GET /v1/archives/:archive/damaged': {
    needs: 'own',
    status: 200,
    call: ({ archive }) => ({ path: `/v1/archives/${archive}/damaged` }),
  },
  'POST /v1/archives/:archive/runs': {
    needs: 'own',
    status: 201,
    call: ({ archive }) => message(`/v1/archives/${archive}/runs`, { lastCommit: null, roots: [] }),
  },
  'POST /v1/archives/:archive/runs/:run/progress': {
    needs: 'own',
    status: 200,
    call: ({ archive, run }) => message(`/v1/archives/${archive}/runs/${run}/progress`, { counts: noCounts }),
  },
  'POST /v1/archives/:archive/runs/:run/finish': {
    needs: 'own',
    status: 200,
    call: ({ archive, run }) =>
      message(`/v1/archives/${archive}/runs/${run}/finish`, { counts: noCounts, outcome: 'completed' }),
  },
  'POST /v1/archives/:archive/commits': {
    needs: 'own',
    status: 200,
    call: ({ archive, run, content: bytes }) =>
      message(`/v1/archives/${archive}/commits`, {
        commitId: sha256(bytes).subarray(0, 16),
        run,
        purgeEpoch: 0,
        versions: [version('/planted', [bytes])],
      }),
  },
  'GET /v1/archives/:archive/tree': {
    needs: 'read',
    status: 200,
    call: ({ archive }) => ({ path: `/v1/archives/${archive}/tree` }),
  },
  'GET /v1/archives/:archive/versions': {
    needs: 'read',
    status: 200,
    call: ({ archive }) => ({ path: `/v1/archives/${archive}/versions` }),
  },
  'GET /v1/archives/:archive/history': {
    needs: 'read',
    status: 200,
    call: ({ archive }) => ({ path: `/v1/archives/${archive}/history?path=${secretPath.toString('base64url')}` }),
  },
  'GET /v1/admin/organizations/:organization/retention': {
    needs: 'administrator',
    status: 200,
    call: ({ organization }) => ({ path: `/v1/admin/organizations/${organization}/retention` }),
  },
  'PUT /v1/admin/organizations/:organization/retention': {
    needs: 'administrator',
    status: 200,
    call: ({ organization }) => json(`/v1/admin/organizations/${organization}/retention`, { policy: null }),
  },
  'GET /v1/admin/devices/:guid/retention': {
    needs: 'administrator',
    status: 200,
    call: ({ guid }) => ({ path: `/v1/admin/devices/${guid}/retention` }),
  },
  'PUT /v1/admin/devices/:guid/retention': {
    needs: 'administrator',
    status: 200,
    call: ({ guid }) => json(`/v1/admin/devices/${guid}/retention`, { policy: defaultRetention }),
  },
  'GET /v1/admin/devices/:guid/retention/plan': {
    needs: 'administrator',
    status: 200,
    call: ({ guid }) => ({ path: `/v1/admin/devices/${guid}/retention/plan` }),
  },
  'POST /v1/admin/devices/:guid/retention/plan': {
    needs: 'administrator',
    status: 200,
    call: ({ guid }) => json(`/v1/admin/devices/${guid}/retention/plan`, { policy: defaultRetention }),
  },
  'GET /v1/admin/devices/:guid/damage': {
    needs: 'administrator',
    status: 200,
    call: ({ guid }) => ({ path: `/v1/admin/devices/${guid}/damage` }),
  },
  'GET /v1/admin/alerts': { needs: 'administrator', status: 200, call: () => ({ path: '/v1/admin/alerts' }) },
  'POST /v1/admin/alerts/:vault/:alert/review': {
    needs: 'administrator',
    status: 200,
    call: ({ vault, alert }) => ({ path: `/v1/admin/alerts/${vault}/${alert}/review` }),
  },
  'GET /v1/admin/usage': { needs: 'administrator', status: 200, call: () => ({ path: '/v1/admin/usage' }) },
  'GET /v1/admin/verify': { needs: 'administrator', status: 200, call: () => ({ path: '/v1/admin/verify' }) },
  'GET /v1/admin/fence': { needs: 'operator', status: 200, call: () => ({ path: '/v1/admin/fence' }) },
};

/** How an administrator signs in, with every request. */
export function basic(userName: string, password: string): { authorization: string } {
  return { authorization: `Basic ${Buffer.from(`${userName}:${password}`).toString('base64')}` };
}
