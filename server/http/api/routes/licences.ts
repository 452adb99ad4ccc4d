/** What is used of quotas and licences. */
import { z } from 'zod';
import { licencesCsv, statementCsv } from '../../../directory/licences/csv.ts';
import { eachLicences, listLicences, readLicenceStatement } from '../../../directory/licences/reading.ts';
import { LicenceStatement, LicencesAnswer, LicencesQuery, StatementQuery } from '../../../directory/licences/shapes.ts';
import {
  OrganizationQuotasAnswer,
  readOrganizationQuotas,
  readUserQuota,
  UserQuotaAnswer,
} from '../../../directory/quotas/reading.ts';
import { organizationInPath, organizationParams, userInPath, userParams } from '../finders.ts';
import { type ApiRoute, lines, read } from '../route.ts';

const quotas = 'Quotas';
const tag = 'Licences';
const csvType = 'text/csv; charset=utf-8; header=present';

export const licenceRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/organizations/:organization/quotas',
    tag: quotas,
    summary: 'Show the quotas of an organization, and what is used of them',
    may: { permission: 'org.read', target: organizationInPath },
    params: organizationParams,
    answer: OrganizationQuotasAnswer,
    read: ({ deps, target }) =>
      readOrganizationQuotas(deps.directory.database, { tenant: target.tenant, organization: target.id }),
  }),
  read({
    path: '/v1/users/:user/quota',
    tag: quotas,
    summary: 'Show the quota of a user, and what is used of it',
    may: { permission: 'user.read', target: userInPath },
    params: userParams,
    answer: UserQuotaAnswer,
    read: ({ deps, target }) => readUserQuota(deps.directory.database, { tenant: target.tenant, user: target.id }),
  }),
  read({
    path: '/v1/licences',
    tag,
    summary: 'List who uses how many licences, and when each renews',
    may: { permission: 'account.read', of: 'listing' },
    query: LicencesQuery,
    answer: LicencesAnswer,
    read: ({ deps, caller, within, query: { after, limit } }) =>
      listLicences(deps.directory.database, {
        tenant: caller.tenant!,
        within,
        limit,
        ...(after !== undefined && { after }),
      }),
  }),
  lines({
    method: 'GET',
    path: '/v1/licences/export',
    tag,
    summary: 'Export all licences as CSV',
    may: { permission: 'account.read', of: 'listing' },
    answer: z.string(),
    type: () => csvType,
    lines: ({ deps, caller, within }) =>
      licencesCsv(eachLicences(deps.directory.database, { tenant: caller.tenant!, within })),
  }),
  read({
    path: '/v1/organizations/:organization/licence-statement',
    tag,
    summary: 'Show which licences of an organization renew in a month',
    says: 'Of the organization and all below it.',
    may: { permission: 'org.read', target: organizationInPath },
    params: organizationParams,
    query: StatementQuery,
    answer: LicenceStatement,
    read: ({ deps, target, query }) =>
      readLicenceStatement(deps.directory.database, { tenant: target.tenant, organization: target.id, ...query }),
  }),
  lines({
    method: 'GET',
    path: '/v1/organizations/:organization/licence-statement/csv',
    tag,
    summary: 'The same as CSV',
    may: { permission: 'org.read', target: organizationInPath },
    params: organizationParams,
    query: StatementQuery,
    answer: z.string(),
    type: () => csvType,
    async *lines({ deps, target, query }) {
      const of = { tenant: target.tenant, organization: target.id, ...query };
      yield statementCsv(await readLicenceStatement(deps.directory.database, of));
    },
  }),
];
