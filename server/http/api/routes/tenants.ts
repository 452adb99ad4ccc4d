/** Tenants, for those who run the server; and what a tenant's own administrators take away of it. */
import { z } from 'zod';
import { newPassword, newRegistrationKey } from '../../../directory/organizations/registration-key.ts';
import { createTenant, renameTenant, resumeTenant, suspendTenant } from '../../../directory/tenants/changing.ts';
import { beginDeleting } from '../../../directory/tenants/deleting/begin.ts';
import { exportLines, noteTenantExport } from '../../../directory/tenants/export.ts';
import { beginOffboarding } from '../../../directory/tenants/offboarding.ts';
import { listTenants, readTenant } from '../../../directory/tenants/reading.ts';
import {
  CreatedTenant,
  CreateTenantRequest,
  DeleteTenantRequest,
  ListTenantsQuery,
  OffboardTenantRequest,
  RenameTenantRequest,
  TenantPage,
  TenantView,
} from '../../../directory/tenants/shapes.ts';
import { idText, theTenant } from '../finders.ts';
import { type ApiRoute, change, lines, read } from '../route.ts';

const tag = 'Tenants';
const one = '/v1/tenants/:tenant';
const params = z.strictObject({ tenant: idText });
const may = { operator: true } as const;

export const tenantRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/tenants',
    tag,
    summary: 'List tenants',
    says: 'With what they use, and nothing of what they have.',
    may,
    query: ListTenantsQuery,
    answer: TenantPage,
    read: ({ deps, query }) => listTenants(deps.directory.database, query),
  }),
  change({
    method: 'POST',
    path: '/v1/tenants',
    tag,
    summary: 'Create a tenant, with its first organization and administrator',
    says: 'The password is shown once: a repeated request is answered without it.',
    may,
    body: CreateTenantRequest,
    status: 201,
    answer: CreatedTenant.extend({ password: z.string().optional() }),
    prepare: async ({ deps }) => {
      const password = newPassword();
      return {
        password,
        passwordHash: await deps.directory.passwords.hash(password),
        registrationKey: newRegistrationKey(),
      };
    },
    change: (tx, { by, body }, { passwordHash, registrationKey }) =>
      createTenant(tx, by, {
        name: body.name,
        registrationKey,
        administrator: { name: body.administrator, passwordHash },
      }),
    reveal: (answer, { password }) => ({ ...(answer as object), password }),
  }),
  read({
    path: one,
    tag,
    summary: 'Show a tenant',
    may,
    params,
    answer: TenantView,
    read: ({ deps, params }) => readTenant(deps.directory.database, params.tenant),
  }),
  change({
    method: 'PATCH',
    path: one,
    tag,
    summary: 'Rename a tenant',
    may,
    params,
    body: RenameTenantRequest,
    answer: TenantView,
    change: (tx, { by, params, body, expected }) => renameTenant(tx, by, { tenant: params.tenant, ...body, expected }),
  }),
  change({
    method: 'POST',
    path: `${one}/suspend`,
    tag,
    summary: 'Suspend a tenant',
    says: 'Nobody signs in or restores; backups go on.',
    may,
    params,
    answer: TenantView,
    change: (tx, { by, params, expected }) => suspendTenant(tx, by, { tenant: params.tenant, expected }),
  }),
  change({
    method: 'POST',
    path: `${one}/resume`,
    tag,
    summary: 'Take back a suspension, or an offboarding',
    says: 'Not once its data is being deleted.',
    may,
    params,
    answer: TenantView,
    change: (tx, { by, params, expected }) => resumeTenant(tx, by, { tenant: params.tenant, expected }),
  }),
  change({
    method: 'POST',
    path: `${one}/offboard`,
    tag,
    summary: 'Let a tenant leave',
    says: 'Nothing is backed up, read or restored any more; after the delay its data may be deleted. A legal hold forbids it.',
    may,
    params,
    body: OffboardTenantRequest,
    answer: TenantView,
    change: (tx, { by, params, body, expected }) =>
      beginOffboarding(tx, by, { tenant: params.tenant, ...body, expected }),
  }),
  change({
    method: 'POST',
    path: `${one}/delete`,
    tag,
    summary: 'Delete the data of a tenant that has left',
    says: 'After the delay of the offboarding, and never taken back: archives, keys, devices, users and organizations go. Its name, figures and audit log stay. It takes days; `deletion` of the answer tells how far it has come.',
    may,
    params,
    body: DeleteTenantRequest,
    answer: TenantView,
    change: (tx, { by, params, body, expected }) => beginDeleting(tx, by, { tenant: params.tenant, ...body, expected }),
  }),
  lines({
    method: 'POST',
    path: '/v1/tenant/export',
    tag: 'Tenant',
    summary: 'Export the directory of your tenant',
    says: 'Organizations, settings, users and devices, one a line, without secrets; the last line has `kind` `end`.',
    may: { permission: 'customer_admin.all', target: theTenant },
    answer: z.looseObject({ kind: z.string() }),
    async *lines({ deps, caller, by }) {
      const { database } = deps.directory;
      await database.transaction((tx) => noteTenantExport(tx, by, caller.tenant!));
      yield* exportLines(database, caller.tenant!);
    },
  }),
];
