/** docs/roles.md: what every role may do, and how far. Made of what the server decides by, so that it is never another. */

import { may, reachOf } from '../directory/roles/may.ts';
import {
  narrower,
  type Permission,
  type PermissionGroup,
  permissionGroups,
  permissions,
  type Scope,
} from '../directory/roles/permissions.ts';
import { type Role, roles } from '../directory/roles/roles.ts';
import { type ApiRoute, sufficing } from '../http/api/route.ts';
import { apiRoutes } from '../http/api/routes.ts';

/** The whole page, as Markdown. */
export function rolesMarkdown(): string {
  const inUse = [...permissions.values()].filter((each) => each.inUse).length;
  return `# Roles and permissions

<!-- Generated from server/directory/roles/ by server/commands/write-roles.ts; a test says when it is not current. -->

A user has any number of roles, and may do what any of them lets, each as far as that one reaches; an API client has
permissions of its own instead. A role reaches \`all\` organizations of the tenant, the \`tree\` of its holder's organization
and everything below, or its holder's \`self\`: the user and their devices. Nothing reaches another tenant. Why some of
them are as they are stands in [decisions/roles.md](decisions/roles.md).

A permission whose name ends in \`.all\` has the others of its name in it. One that begins with \`crossorg_\` lets do what
its twin does, in every organization of the tenant.

## Roles
| role | reaches | what it is for |
|---|---|---|
${[...roles].map(([name, { scope, description }]) => `| ${name} | \`${scope}\` | ${description} |`).join('\n')}

## Permissions
${inUse} of ${permissions.size} are in use. The others can be assigned, and change nothing yet. *At most* is how far one reaches,
whoever has it.

| permission | at most | in use | what it allows |
|---|---|---|---|
${[...permissions].map(([name, { reach, inUse, allows }]) => `| \`${name}\` | \`${reach}\` | ${inUse ? 'yes' : 'no'} | ${allows} |`).join('\n')}

## Who may what
How far each role lets do what a permission is about; empty: not at all. Where it is by a permission that has this one in
it, and not by name, it stands in brackets.

${groups().map(groupMarkdown).join('\n\n')}

## Who may call what
How far each role reaches with each request of the JSON API that asks for a permission; empty: not at all. Lists show what
is reached. What needs no more than being signed in, or an operator, is in the API's own document.

${tags().map(tagMarkdown).join('\n\n')}
`;
}

const guarded = apiRoutes.filter((route) => 'permission' in route.may);

function tags(): string[] {
  return [...new Set(guarded.map(({ tag }) => tag))];
}

/** A role for each line and a request for each column. */
function tagMarkdown(tag: string): string {
  const columns = guarded.filter((route) => route.tag === tag);
  const rows = [...roles.keys()]
    .map((role) => [role, ...columns.map((route) => reachOfRoute(role, route))])
    .filter(([, ...cells]) => cells.some((each) => each !== ''));
  const head = ['role', ...columns.map(({ method, path }) => `\`${method} ${path.replace('/v1', '')}\``)];
  return `### ${tag}\n${[head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')}`;
}

/** The farthest that any of the permissions that suffice lets. */
function reachOfRoute(role: Role, { may: guard }: ApiRoute): string {
  if (!('permission' in guard)) return '';
  const reaches = ('or' in guard ? sufficing(guard) : [guard.permission]).map((permission: Permission) =>
    reachOf({ tenant: 1, user, organization, grants: [{ role, scope: 'all', organization } as const] }, permission),
  );
  return (
    reaches.reduce<Scope | null>(
      (best, each) => (!best || (each && narrower(best, each) === best) ? each : best),
      null,
    ) ?? ''
  );
}

function groups(): PermissionGroup[] {
  return Object.keys(permissionGroups) as PermissionGroup[];
}

/** A role for each line and a permission for each column. A `crossorg_` twin shows in how far its plain one reaches. */
function groupMarkdown(group: PermissionGroup): string {
  const columns = [...permissions].filter(([, each]) => each.group === group).map(([name]) => name);
  const rows = [...roles.keys()]
    .map((role) => [role, ...columns.map((permission) => cell(role, permission))])
    .filter(([, ...cells]) => cells.some((each) => each !== ''));
  const head = ['role', ...columns.map((name) => `\`${name}\``)];
  return `### ${group}\n${[head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')}`;
}

const organization = 1;
const user = 1;

/** As the server answers about a user who has this role and no other. */
function cell(role: Role, permission: Permission): string {
  const holder = { tenant: 1, user, organization, grants: [{ role, scope: 'all', organization } as const] };
  const reach = reachOf(holder, permission);
  if (!reach) return '';
  const self = { tenant: 1, organizationPath: [organization], user, deviceUser: user };
  const answer = may(holder, permission, self);
  return answer.allowed && answer.by.through === permission ? reach : `(${reach})`;
}
