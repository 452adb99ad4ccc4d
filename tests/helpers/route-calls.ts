/**
 * How each route is called, rightly, but those of the JSON API (tests/api/calls.ts): tests of access and of bad input begin
 * from these. Which routes there are is the router's to say (routes.ts); tests/access.test.ts fails for one that is not here.
 */
import { sha256 } from '../../protocol/hashes.ts';
import { type RegisterRequest, RegisterRequest as RegisterSchema } from '../../protocol/messages.ts';
import { wrapKeyInKey } from '../../protocol/sealing/index.ts';
import { encodeUpload } from '../../protocol/upload.ts';
import { encodeMessage, msgpackType } from '../../protocol/wire.ts';
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
}

export interface Call {
  path: string;
  type?: string;
  body?: Buffer;
}

export interface Described {
  /** `open`: for everybody. `signIn`: with a sign-in. `token`: any device, in its own vault. `read`, `own`: an archive. */
  needs: 'open' | 'signIn' | 'token' | 'read' | 'own';
  /** The status the owner gets. */
  status: number;
  call: (target: Target, as: Person) => Call;
}

const message = (at: string, body: object): Call => ({ path: at, type: msgpackType, body: encodeMessage(body) });
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
  'GET /v1/self/plans': { needs: 'token', status: 200, call: () => ({ path: '/v1/self/plans' }) },
  'GET /v1/self/commands': { needs: 'token', status: 200, call: () => ({ path: '/v1/self/commands?once=1' }) },
  'POST /v1/self/commands/:command/progress': {
    needs: 'token',
    status: 200, // of a command that is none it is told to stop
    call: ({ run }) =>
      message(`/v1/self/commands/${run}/progress`, {
        attempt: Buffer.alloc(16, 1),
        filesSeen: 0,
        filesDone: 0,
        bytesSeen: 0,
        bytesDone: 0,
        bytesFetched: 0,
      }),
  },
  'POST /v1/self/commands/:command/end': {
    needs: 'token',
    status: 404, // there is none
    call: ({ run }) =>
      message(`/v1/self/commands/${run}/end`, {
        attempt: Buffer.alloc(16, 1),
        outcome: 'completed',
        counts: {
          filesRestored: 0,
          filesIdentical: 0,
          folders: 0,
          symlinks: 0,
          bytesRestored: 0,
          bytesResumed: 0,
          bytesFetched: 0,
          problems: 0,
          notices: 0,
        },
      }),
  },
  'POST /v1/self/commands/:command/answer': {
    needs: 'token',
    status: 404,
    call: ({ run }) => message(`/v1/self/commands/${run}/answer`, { fault: { code: 'failed', detail: 'of a test' } }),
  },
  'POST /v1/keys/raise': {
    needs: 'token',
    status: 200,
    call: (_, { password }) =>
      message('/v1/keys/raise', {
        password,
        to: 'custom',
        newGeneration: { generation: 2, check: Buffer.alloc(16, 1) },
        oldGenerations: [
          { generation: 1, wrapped: wrapKeyInKey(Buffer.alloc(32, 1), Buffer.alloc(32, 2), { generation: 1, by: 2 }) },
        ],
      }),
  },
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
  // What the JSON API tells of itself; its own routes are walked by tests/api.
  'GET /v1/openapi.json': { needs: 'open', status: 200, call: () => ({ path: '/v1/openapi.json' }) },
  'GET /api': { needs: 'open', status: 200, call: () => ({ path: '/api' }) },
  'GET /api/files/:file': { needs: 'open', status: 200, call: () => ({ path: '/api/files/show.js' }) },
};
