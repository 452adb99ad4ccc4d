/**
 * How each route of the JSON API that asks for a permission is called, and which permission that is: written apart from the
 * routes, so that one that asks for another permission than it should is seen. tests/api/walk.test.ts fails for a route that
 * is not here.
 */
import type { Place } from './world.ts';

/** What a call is about. */
export interface About extends Place {
  /** Another place of the same tenant that the asker may anything in, where a call needs two. */
  elsewhere: number;
}

export interface ApiCall {
  permission: string;
  /** Suffices as well. */
  or?: string | readonly string[];
  /** `tenant`: the tenant itself. `listing`: what the asker reaches is shown. */
  about: 'organization' | 'user' | 'device' | 'tenant' | 'listing';
  path: (about: About) => string;
  body?: (about: About) => unknown;
  /** What whoever may is answered, where it is not what the walk expects of such a route. */
  status?: number;
  /** What whoever may not is answered, where the two could be taken for one another. */
  refused?: number;
}

const organization = (rest = '') => ({
  about: 'organization' as const,
  path: ({ organization }: About) => `/v1/organizations/${organization}${rest}`,
});
const user = (rest = '') => ({
  about: 'user' as const,
  path: ({ user }: About) => `/v1/users/${user}${rest}`,
});
const device = (rest = '') => ({
  about: 'device' as const,
  path: ({ guid }: About) => `/v1/devices/${guid}${rest}`,
});
const client = (rest = '') => ({
  about: 'organization' as const,
  path: ({ client }: About) => `/v1/clients/${client}${rest}`,
});
const plan = (rest = '') => ({
  about: 'organization' as const,
  path: ({ plan }: About) => `/v1/plans/${plan}${rest}`,
});
const restore = (rest = '') => ({
  permission: 'restore.limited',
  or: 'restore.personal',
  about: 'device' as const,
  path: ({ restore }: About) => `/v1/restores/${restore}${rest}`,
});
const pushed = (rest = '') => ({
  permission: 'pushrestore.limited',
  or: 'pushrestore.personal',
  about: 'device' as const,
  path: ({ pushed }: About) => `/v1/pushed-restores/${pushed}${rest}`,
});
/** Whoever looks after devices, or restores from what is their own. */
const ofRepository = (permission: string, rest = '') => ({
  permission,
  or: 'restore.personal',
  about: 'device' as const,
  path: ({ repository }: About) => `/v1/repositories/${repository}${rest}`,
});
const minuteAgo = new Date(Date.now() - 60_000).toISOString();
const listing = (path: string) => ({ about: 'listing' as const, path: () => path });
const tenant = (path: string) => ({ about: 'tenant' as const, path: () => path });

/** A retention policy. */
const keepEverything = {
  windows: [7, 90, 365, null].map((untilDays) => ({ untilDays, everyMinutes: 0 })),
  deletedAfterDays: null,
  keepNewest: 0,
  keepWithinDays: 0,
};

export const apiCalls: Readonly<Record<string, ApiCall>> = {
  'GET /v1/organizations': { permission: 'org.read', ...listing('/v1/organizations?limit=1000') },
  'POST /v1/organizations': {
    permission: 'org.create',
    ...organization(),
    path: () => '/v1/organizations',
    body: (about) => ({ name: 'new', parent: about.organization }),
  },
  'GET /v1/organizations/:organization': { permission: 'org.read', ...organization() },
  'PATCH /v1/organizations/:organization': {
    permission: 'org.update_deactivate',
    ...organization(),
    body: () => ({ name: 'renamed' }),
  },
  'POST /v1/organizations/:organization/move': {
    permission: 'org.update_deactivate',
    ...organization('/move'),
    body: (about) => ({ parent: about.elsewhere }),
  },
  ...Object.fromEntries(
    ['block', 'unblock', 'deactivate', 'reactivate'].map((state) => [
      `POST /v1/organizations/:organization/${state}`,
      { permission: 'org.update_deactivate', ...organization(`/${state}`) },
    ]),
  ),
  'DELETE /v1/organizations/:organization': { permission: 'org.delete', ...organization() },
  'POST /v1/organizations/:organization/registration-key': {
    permission: 'org.update_deactivate',
    ...organization('/registration-key'),
  },
  'GET /v1/organizations/:organization/settings': { permission: 'org.read', ...organization('/settings') },
  'PATCH /v1/organizations/:organization/settings': {
    permission: 'org.update_deactivate',
    ...organization('/settings'),
    body: () => ({ settings: { quotas: { seats: 5 } } }),
  },
  'POST /v1/organizations/:organization/settings/push': {
    permission: 'org.update_deactivate',
    ...organization('/settings/push'),
    body: () => ({ settings: ['retention.policy'] }),
  },
  'PUT /v1/organizations/:organization/two-factor': {
    permission: 'twofactorauth.configure',
    ...organization('/two-factor'),
    body: () => ({ required: true }),
  },

  'GET /v1/users': { permission: 'user.read', ...listing('/v1/users?limit=1000') },
  'POST /v1/users': {
    permission: 'user.create',
    ...organization(),
    path: () => '/v1/users',
    body: (about) => ({ organization: about.organization, name: 'new' }),
  },
  'GET /v1/users/:user': { permission: 'user.read', ...user() },
  'PATCH /v1/users/:user': { permission: 'user.update', ...user(), body: () => ({ displayName: 'Somebody' }) },
  'POST /v1/users/:user/move': {
    permission: 'user.update',
    ...user('/move'),
    body: (about) => ({ organization: about.elsewhere, treeGrants: 'leave' }),
  },
  'POST /v1/users/:user/block': { permission: 'user.update', ...user('/block') },
  'POST /v1/users/:user/unblock': { permission: 'user.update', ...user('/unblock') },
  'POST /v1/users/:user/deactivate': { permission: 'user.delete', ...user('/deactivate') },
  'POST /v1/users/:user/reactivate': { permission: 'user.delete', ...user('/reactivate') },
  'POST /v1/users/:user/roles': {
    permission: 'user.update',
    or: 'directory.uac.elevated_role_manage',
    ...user('/roles'),
    body: () => ({ role: 'PROe User' }),
  },
  'POST /v1/users/:user/roles/take': {
    permission: 'user.update',
    or: 'directory.uac.elevated_role_manage',
    ...user('/roles/take'),
    body: () => ({ role: 'PROe User' }),
  },
  'POST /v1/users/:user/end-sessions': { permission: 'user.update', ...user('/end-sessions') },
  'POST /v1/users/:user/invitation': { permission: 'user.create', ...user('/invitation') },
  'POST /v1/users/:user/registration-codes': {
    permission: 'user.update',
    ...user('/registration-codes'),
    body: () => ({ minutes: 5 }),
  },
  'DELETE /v1/users/:user/registration-codes': { permission: 'user.update', ...user('/registration-codes') },
  'POST /v1/users/:user/password-reset': { permission: 'user.update', ...user('/password-reset') },
  'POST /v1/users/:user/second-factor/reset': {
    permission: 'twofactorauth.configure',
    ...user('/second-factor/reset'),
  },
  'GET /v1/users/:user/sign-in-failures': { permission: 'user.read', ...user('/sign-in-failures') },
  'POST /v1/users/:user/unlock': { permission: 'user.update', ...user('/unlock') },

  'GET /v1/clients': { permission: 'user.read', ...listing('/v1/clients?limit=1000') },
  'POST /v1/clients': {
    permission: 'user.create',
    ...organization(),
    path: () => '/v1/clients',
    body: (about) => ({
      name: 'a program',
      organization: about.organization,
      permissions: ['org.read'],
      scope: 'tree',
      expiresAt: new Date(Date.now() + 86_400_000).toISOString(),
    }),
  },
  'GET /v1/clients/:client': { permission: 'user.read', ...client() },
  'PATCH /v1/clients/:client': { permission: 'user.update', ...client(), body: () => ({ name: 'renamed' }) },
  'POST /v1/clients/:client/secret': { permission: 'user.update', ...client('/secret'), body: () => ({}) },
  'DELETE /v1/clients/:client': { permission: 'user.delete', ...client() },

  'GET /v1/devices': { permission: 'computer.read', ...listing('/v1/devices?limit=1000') },
  'GET /v1/devices/:guid': { permission: 'computer.read', ...device() },
  'GET /v1/devices/:guid/skipped': { permission: 'computer.read', ...device('/skipped') },
  'PATCH /v1/devices/:guid': { permission: 'computer.update', ...device(), body: () => ({ name: 'renamed' }) },
  'POST /v1/devices/:guid/block': { permission: 'computer.update', ...device('/block') },
  'POST /v1/devices/:guid/unblock': { permission: 'computer.update', ...device('/unblock') },
  'POST /v1/devices/:guid/deauthorize': { permission: 'computer.update', ...device('/deauthorize') },
  'POST /v1/devices/:guid/deactivate': { permission: 'computer.delete', ...device('/deactivate') },
  'POST /v1/devices/:guid/reactivate': { permission: 'computer.delete', ...device('/reactivate') },
  'PUT /v1/devices/:guid/cold-until': {
    permission: 'computer.delete',
    ...device('/cold-until'),
    body: () => ({ until: '2099-01-01T00:00:00Z' }),
  },

  'GET /v1/devices/:guid/manifest': { permission: 'preservation.metadata.read', ...device('/manifest') },

  ...Object.fromEntries(
    ['tree', 'history', 'search'].map((what) => [
      `GET /v1/devices/:guid/${what}`,
      {
        permission: 'restore.limited',
        or: ['restore.personal', 'pushrestore.limited', 'pushrestore.personal'],
        ...device(`/${what}`),
      },
    ]),
  ),

  'POST /v1/restores': {
    ...restore(),
    path: () => '/v1/restores',
    body: (about) => ({ device: about.guid, paths: ['/'], reason: 'to see who may' }),
  },
  'GET /v1/restores': { ...restore(), ...listing('/v1/restores') },
  'GET /v1/restores/export': { ...restore(), ...listing('/v1/restores/export') },
  'GET /v1/restores/totals': {
    ...restore(),
    ...listing('/v1/restores/totals?since=2026-01-01T00:00:00Z&until=2026-12-31T00:00:00Z'),
  },
  'GET /v1/restores/:id': { ...restore(), status: 200 },
  'POST /v1/restores/:id/cancel': restore('/cancel'),
  // Whoever may is told that it is not staged.
  'POST /v1/restores/:id/stage': { ...restore('/stage'), status: 409, body: () => ({}) },
  'POST /v1/restores/:id/link': { ...restore('/link'), status: 409, body: () => ({}) },
  // Whoever may is told that it is for whoever planned it, or that the server has no key.
  'GET /v1/restores/:id/content': { ...restore('/content'), status: 409 },
  'POST /v1/restores/:id/content': { ...restore('/content'), status: 409, body: () => ({}) },

  'GET /v1/restore-reviews': { permission: 'user.read', ...listing('/v1/restore-reviews') },
  'POST /v1/restore-reviews/:id': {
    permission: 'user.update',
    about: 'user',
    path: ({ review }) => `/v1/restore-reviews/${review}`,
    body: () => ({ decision: 'keep', reason: 'to see who may' }),
  },

  'POST /v1/pushed-restores': {
    ...pushed(),
    or: ['pushrestore.all', 'pushrestore.personal'],
    path: () => '/v1/pushed-restores',
    body: (about) => ({
      device: about.guid,
      paths: ['/'],
      to: { device: about.guid, folder: '/restored' },
      reason: 'to see who may',
    }),
  },
  'GET /v1/pushed-restores': { ...pushed(), ...listing('/v1/pushed-restores') },
  'GET /v1/pushed-restores/:id': { ...pushed(), status: 200 },
  'POST /v1/pushed-restores/:id/cancel': pushed('/cancel'),
  // Whoever may is told that it is not connected.
  'POST /v1/devices/:guid/browse': {
    permission: 'select.all',
    or: 'select.personal',
    ...device('/browse'),
    status: 409,
    body: () => ({ path: '/' }),
  },

  'GET /v1/repositories': { ...ofRepository('computer.read'), ...listing('/v1/repositories') },
  'POST /v1/users/:user/repositories': {
    permission: 'computer.update',
    ...user('/repositories'),
    body: () => ({ name: 'new' }),
  },
  'GET /v1/repositories/:guid': ofRepository('computer.read'),
  'GET /v1/repositories/:guid/tokens': ofRepository('computer.read', '/tokens'),
  'POST /v1/repositories/:guid/tokens': {
    permission: 'computer.update',
    about: 'device',
    path: ({ repository }) => `/v1/repositories/${repository}/tokens`,
    body: () => ({ name: 'another', mode: 'append' }),
  },
  'DELETE /v1/repositories/:guid/tokens/:token': {
    ...ofRepository('computer.update'),
    path: ({ repository, resticToken }) => `/v1/repositories/${repository}/tokens/${resticToken}`,
  },
  'GET /v1/repositories/:guid/hidden': ofRepository('computer.read', '/hidden'),
  'POST /v1/repositories/:guid/undelete': {
    ...ofRepository('computer.update', '/undelete'),
    body: () => ({ since: '2026-01-01T00:00:00Z', reason: 'to see who may' }),
  },
  'GET /v1/repositories/:guid/set-back': ofRepository('computer.read', `/set-back?to=${minuteAgo}`),
  'POST /v1/repositories/:guid/set-back': {
    ...ofRepository('computer.update', '/set-back'),
    body: () => ({ to: minuteAgo, reason: 'to see who may' }),
  },

  'GET /v1/devices/:guid/retention': { permission: 'computer.read', ...device('/retention') },
  'PUT /v1/devices/:guid/retention': {
    permission: 'computer.update',
    ...device('/retention'),
    body: () => ({ policy: null }),
  },
  'GET /v1/devices/:guid/retention/plan': { permission: 'computer.read', ...device('/retention/plan') },
  'POST /v1/devices/:guid/retention/plan': {
    permission: 'computer.read',
    ...device('/retention/plan'),
    body: () => ({ policy: keepEverything }),
  },
  'GET /v1/devices/:guid/damage': { permission: 'computer.read', ...device('/damage') },

  'GET /v1/alerts': { permission: 'computer.read', ...listing('/v1/alerts') },
  'POST /v1/alerts/:vault/:alert/review': {
    permission: 'computer.update',
    about: 'user',
    path: ({ vault }) => `/v1/alerts/${vault}/1/review`,
  },
  'GET /v1/usage': { permission: 'org.read', ...listing('/v1/usage') },
  'GET /v1/verify': { permission: 'computer.read', ...listing('/v1/verify') },

  'GET /v1/organizations/:organization/quotas': { permission: 'org.read', ...organization('/quotas') },
  'GET /v1/users/:user/quota': { permission: 'user.read', ...user('/quota') },
  'GET /v1/licences': { permission: 'account.read', ...listing('/v1/licences?limit=1000') },
  'GET /v1/licences/export': { permission: 'account.read', ...listing('/v1/licences/export') },
  'GET /v1/organizations/:organization/licence-statement': {
    permission: 'org.read',
    ...organization('/licence-statement?month=2026-11'),
  },
  'GET /v1/organizations/:organization/licence-statement/csv': {
    permission: 'org.read',
    ...organization('/licence-statement/csv?month=2026-11'),
  },

  'GET /v1/plans': { permission: 'plan.read', ...listing('/v1/plans?limit=1000') },
  'POST /v1/plans': {
    permission: 'plan.create',
    ...device(),
    path: () => '/v1/plans',
    body: (about) => ({
      device: about.guid,
      name: 'documents',
      include: [],
      exclude: [],
      everyMinutes: 15,
      windows: [],
    }),
  },
  'GET /v1/plans/:plan': { permission: 'plan.read', ...plan() },
  'PATCH /v1/plans/:plan': { permission: 'plan.update', ...plan(), body: () => ({ everyMinutes: 30 }) },
  'DELETE /v1/plans/:plan': { permission: 'plan.delete', ...plan() },
  'GET /v1/devices/:guid/plans': { permission: 'plan.read', ...device('/plans') },

  'GET /v1/identity-providers': {
    permission: 'directory.identity_management.read',
    ...tenant('/v1/identity-providers'),
  },
  'POST /v1/identity-providers': {
    permission: 'directory.identity_management.write',
    ...tenant('/v1/identity-providers'),
    // Nobody answers there: whoever may is told that, before anything is changed.
    body: () => ({ name: 'x', issuer: 'https://127.0.0.1:1', openidClient: 'x', settings: {} }),
    status: 400,
  },
  'GET /v1/identity-providers/:provider': {
    permission: 'directory.identity_management.read',
    ...tenant('/v1/identity-providers/1'),
    status: 404,
    refused: 403,
  },
  'PATCH /v1/identity-providers/:provider': {
    permission: 'directory.identity_management.write',
    ...tenant('/v1/identity-providers/1'),
    body: () => ({ name: 'y' }),
    status: 404,
    refused: 403,
  },

  'GET /v1/audit': { permission: 'auditlog.read', ...listing('/v1/audit?limit=1') },
  'GET /v1/audit/export': { permission: 'auditlog.read', ...listing('/v1/audit/export?from=2099-01-01T00:00:00Z') },
  'POST /v1/tenant/export': { permission: 'customer_admin.all', ...tenant('/v1/tenant/export') },
};
