/** Organizations, and what they set. */
import { z } from 'zod';
import { renameOrganization, rotateRegistrationKey } from '../../../directory/organizations/changing.ts';
import { createOrganization, deleteOrganization } from '../../../directory/organizations/creating.ts';
import { moveOrganization } from '../../../directory/organizations/moving.ts';
import { listOrganizations, readOrganization } from '../../../directory/organizations/reading.ts';
import { newRegistrationKey } from '../../../directory/organizations/registration-key.ts';
import {
  CreateOrganizationRequest,
  DeletedOrganization,
  ListOrganizationsQuery,
  MoveOrganizationRequest,
  OrganizationDetail,
  OrganizationPage,
  RenameOrganizationRequest,
} from '../../../directory/organizations/shapes.ts';
import { changeOrganizationState, type OrganizationStateChange } from '../../../directory/organizations/states.ts';
import { changeSettings } from '../../../directory/settings/changing.ts';
import { pushSettings } from '../../../directory/settings/pushing.ts';
import {
  ChangeSettingsRequest,
  PushedSettings,
  PushSettingsRequest,
  SettingsView,
} from '../../../directory/settings/shapes.ts';
import { readSettings } from '../../../directory/settings/stored.ts';
import { organizationInBody, organizationInPath, organizationParams } from '../finders.ts';
import { type ApiRoute, change, read, stateRoutes } from '../route.ts';

const tag = 'Organizations';
const one = '/v1/organizations/:organization';

/** What every verb about one organization is told. */
const about = ({ target, expected }: { target: { tenant: number; id: number }; expected: number | null }) => ({
  tenant: target.tenant,
  organization: target.id,
  expected,
});

const stateRoute = stateRoutes(
  { path: one, tag, params: organizationParams, target: organizationInPath, answer: OrganizationDetail },
  about,
);

/** The verb is one for all of them. */
const changeTo = (state: OrganizationStateChange, summary: string, says: string): ApiRoute =>
  stateRoute(
    state,
    'org.update_deactivate',
    (tx, by, of) => changeOrganizationState(tx, by, { ...of, change: state }),
    { summary, says },
  );

export const organizationRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/organizations',
    tag,
    summary: 'List organizations',
    may: { permission: 'org.read', of: 'listing' },
    query: ListOrganizationsQuery,
    answer: OrganizationPage,
    read: ({ deps, caller, within, query }) =>
      listOrganizations(deps.directory.database, { tenant: caller.tenant!, within }, query),
  }),
  change({
    method: 'POST',
    path: '/v1/organizations',
    tag,
    summary: 'Create an organization',
    says: 'Below `parent`; with null at the top of the tenant, which needs `crossorg_org.create`.',
    may: { permission: 'org.create', target: organizationInBody('parent') },
    body: CreateOrganizationRequest,
    status: 201,
    answer: OrganizationDetail,
    prepare: async () => newRegistrationKey(),
    change: (tx, { by, caller, body }, registrationKey) =>
      createOrganization(tx, by, { ...body, tenant: caller.tenant!, registrationKey }),
  }),
  read({
    path: one,
    tag,
    summary: 'Show an organization',
    may: { permission: 'org.read', target: organizationInPath },
    params: organizationParams,
    answer: OrganizationDetail,
    read: ({ deps, target }) =>
      readOrganization(deps.directory.database, { tenant: target.tenant, organization: target.id }),
  }),
  change({
    method: 'PATCH',
    path: one,
    tag,
    summary: 'Rename an organization',
    may: { permission: 'org.update_deactivate', target: organizationInPath },
    params: organizationParams,
    body: RenameOrganizationRequest,
    answer: OrganizationDetail,
    change: (tx, request) => renameOrganization(tx, request.by, { ...about(request), name: request.body.name }),
  }),
  change({
    method: 'POST',
    path: `${one}/move`,
    tag,
    summary: 'Move an organization, with all that is below it',
    says: 'Roles of scope `tree` that its users have elsewhere stay as they are. Needs `org.create` where it goes, too.',
    may: {
      permission: 'org.update_deactivate',
      target: organizationInPath,
      second: { permission: 'org.create', target: organizationInBody('parent') },
    },
    params: organizationParams,
    body: MoveOrganizationRequest,
    answer: OrganizationDetail,
    change: (tx, request) => moveOrganization(tx, request.by, { ...about(request), parent: request.body.parent }),
  }),
  changeTo('block', 'Block an organization', 'Nobody below it signs in or restores; backups go on.'),
  changeTo('unblock', 'Unblock an organization', 'What is blocked below it by itself stays blocked.'),
  changeTo(
    'deactivate',
    'Deactivate an organization',
    'Nobody below it backs up; archives go cold, each until its date.',
  ),
  changeTo(
    'reactivate',
    'Reactivate an organization',
    'Archives come back from the cold, unless something else keeps them there.',
  ),
  change({
    method: 'DELETE',
    path: one,
    tag,
    summary: 'Delete an organization that is deactivated and empty',
    may: { permission: 'org.delete', target: organizationInPath },
    params: organizationParams,
    answer: DeletedOrganization,
    change: (tx, request) => deleteOrganization(tx, request.by, about(request)),
  }),
  change({
    method: 'POST',
    path: `${one}/registration-key`,
    tag,
    summary: 'Give an organization a new registration key',
    says: 'The old one is refused at once. Devices that are registered are not touched.',
    may: { permission: 'org.update_deactivate', target: organizationInPath },
    params: organizationParams,
    answer: OrganizationDetail,
    prepare: async () => newRegistrationKey(),
    change: (tx, request, registrationKey) =>
      rotateRegistrationKey(tx, request.by, { ...about(request), registrationKey }),
  }),
  read({
    path: `${one}/settings`,
    tag,
    summary: 'Show the settings of an organization, and where each comes from',
    may: { permission: 'org.read', target: organizationInPath },
    params: organizationParams,
    answer: SettingsView,
    read: ({ deps, target }) =>
      readSettings(deps.directory.database, { tenant: target.tenant, organization: target.id }),
  }),
  change({
    method: 'PATCH',
    path: `${one}/settings`,
    tag,
    summary: 'Change settings of an organization, or lock them for those below',
    says: 'null lets a setting inherit again.',
    may: { permission: 'org.update_deactivate', target: organizationInPath },
    params: organizationParams,
    body: ChangeSettingsRequest,
    answer: SettingsView,
    change: (tx, request) => changeSettings(tx, request.by, { ...about(request), changes: request.body }),
  }),
  change({
    method: 'POST',
    path: `${one}/settings/push`,
    tag,
    summary: 'Make all below inherit settings again',
    says: 'Organizations and devices below lose the values they have of their own.',
    may: { permission: 'org.update_deactivate', target: organizationInPath },
    params: organizationParams,
    body: PushSettingsRequest,
    answer: PushedSettings,
    change: (tx, request) =>
      pushSettings(tx, request.by, { ...about(request), settings: request.body.settings as never }),
  }),
  change({
    method: 'PUT',
    path: `${one}/two-factor`,
    tag,
    summary: 'Say whether users with a password need a second factor',
    says: 'The setting `signIn.twoFactor`, for whoever may set no other. null: as inherited.',
    may: { permission: 'twofactorauth.configure', target: organizationInPath },
    params: organizationParams,
    body: z.strictObject({ required: z.boolean().nullable(), locked: z.boolean().optional() }),
    answer: SettingsView,
    change: (tx, request) => {
      const { required, locked } = request.body;
      const changes = {
        settings: { signIn: { twoFactor: required } },
        locked: locked === undefined ? {} : { signIn: { twoFactor: locked } },
      };
      return changeSettings(tx, request.by, { ...about(request), changes });
    },
  }),
];
