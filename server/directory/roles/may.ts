/**
 * Who may do what: one question, answered from its arguments alone.
 * What must stay true: nothing reaches into another tenant; a grant never reaches further than its role, its own scope
 * and the permission's reach allow, whichever is narrowest; grants add up, but two of them never make a third.
 */
import assert from 'node:assert/strict';
import { narrower, type Permission, permissions, type Scope, scopes, twinOf, wholeOf } from './permissions.ts';
import { type Role, roles } from './roles.ts';

interface GrantScope {
  /** At most this far; a role's own scope bounds it too. */
  scope: Scope;
  /** The organization it was given in: `tree` counts only while the actor is in that organization. */
  organization: number;
}

/** A role that a user has. */
export interface RoleGrant extends GrantScope {
  role: Role;
  permissions?: never;
}

/** An API client's own permissions. */
export interface PermissionGrant extends GrantScope {
  role?: never;
  permissions: readonly Permission[];
}

export type Grant = RoleGrant | PermissionGrant;

export interface Actor {
  tenant: number;
  /** Null: an API client, which is nobody, so that nothing is its own. */
  user: number | null;
  /** The one the user or API client is in now. */
  organization: number;
  grants: readonly Grant[];
}

export interface Target {
  tenant: number;
  /**
   * From the tenant's topmost organization to the one that the act is about: a user's or device's is the one the user is
   * in, and a new organization's is its parent. Empty: the tenant itself, above its organizations.
   */
  organizationPath: readonly number[];
  /** Whom it is about: the user acted on, or whose files, plans and settings they are. */
  user?: number;
  /** Whose device it reaches into. For a device that is `user` again, unless files of one go to the device of another. */
  deviceUser?: number;
}

/** The part of a grant that the answer rests on. */
export interface Way {
  /** Its place among the actor's grants. */
  grant: number;
  /** Null: an API client's own permissions. */
  role: Role | null;
  /** What the grant names: the permission asked for, its `.all`, or the twin of either across organizations. */
  through: Permission;
  /** How far this reaches. */
  scope: Scope;
  organization: number;
}

/**
 * Why a grant that has the permission does not reach the target:
 * `not_self`, it is about the actor alone, and this is somebody else, or nobody;
 * `other_organization`, neither the actor's organization nor below it;
 * `left_organization`, the actor is no longer in the organization that it was given in;
 * `tenant_itself`, it is about what is in organizations, and this is above them.
 */
export type Miss = 'not_self' | 'other_organization' | 'left_organization' | 'tenant_itself';

export interface Allowed {
  allowed: true;
  permission: Permission;
  /** The first grant that suffices; others may too. */
  by: Way;
}

/**
 * For the audit log, and for an administrator who asks why. Whoever was refused is told no more than that: what is in
 * another place would otherwise be known to exist.
 */
export interface Refused {
  allowed: false;
  permission: Permission;
  /**
   * `other_tenant`; `not_held`, no grant has the permission; `out_of_scope`, grants have it and none reaches the target;
   * `other_users_device`, it lets files only to devices of the user whose they are; `needs`, another permission that this
   * one is of use with is missing here.
   */
  why: 'other_tenant' | 'not_held' | 'out_of_scope' | 'other_users_device' | 'needs';
  /** For `out_of_scope`: which grants have it, and what each misses the target by. */
  held: readonly (Way & { misses: Miss })[];
  /** For `needs`: what is missing. */
  missing: Permission | null;
}

export type Answer = Allowed | Refused;

/**
 * Whether the actor may do to the target what the permission is about, and why. Pure; costs a few look-ups per grant.
 *
 * Ask for the plain permission (an `Act`): its `crossorg_` twin answers for it wherever that reaches. Asked for a twin,
 * it says whether the actor has that very permission.
 *
 * Not asked here: whether the actor may act at all (blocked, deactivated, expired, signed out: whoever makes the Actor
 * refuses those before), what state the target is in, limits in bytes, and whether the target exists.
 *
 * Somebody else's files go to a device in two questions: one about the device they come from, and one about the device
 * they go to, whose Target names the owner of the files as `user` and the owner of that device as `deviceUser`.
 */
export function may(actor: Actor, permission: Permission, target: Target): Answer {
  const asked = facts(permission);
  if (actor.tenant !== target.tenant) return refused(permission, 'other_tenant');

  const held: (Way & { misses: Miss })[] = [];
  const by = findWay(actor, asked, target, held);
  if (!by) return { ...refused(permission, held.length > 0 ? 'out_of_scope' : 'not_held'), held };

  if (asked.sameUser && target.deviceUser !== undefined && target.deviceUser !== target.user)
    return refused(permission, 'other_users_device');
  if (asked.needs && !may(actor, asked.needs, target).allowed)
    return { ...refused(permission, 'needs'), missing: asked.needs };
  return { allowed: true, permission, by };
}

/**
 * How far the actor may do what the permission is about: what a listing is limited to. `tree` is the actor's organization
 * and all below; null, nowhere. Whoever lists so sees exactly what `may` allows one by one.
 */
export function reachOf(actor: Actor, permission: Permission): Scope | null {
  const asked = facts(permission);
  let widest: Scope | null = null;
  for (const grant of actor.grants) {
    for (const form of asked.forms) {
      if (!throughOf(grant, form)) continue;
      const scope = scopeOf(grant, form);
      if (isLeft(actor, grant, scope)) continue;
      if (scope === 'self' && actor.user === null) continue;
      if (widest === null || scopes.indexOf(scope) > scopes.indexOf(widest)) widest = scope;
    }
  }
  if (!asked.needs || widest === null) return widest;
  const other = reachOf(actor, asked.needs);
  return other && narrower(widest, other);
}

/** The first way that reaches the target; else null, and `held` has all that do not. */
function findWay(actor: Actor, asked: Asked, target: Target, held: (Way & { misses: Miss })[]): Way | null {
  for (const [index, grant] of actor.grants.entries()) {
    for (const form of asked.forms) {
      const through = throughOf(grant, form);
      if (!through) continue;
      const scope = scopeOf(grant, form);
      const way = { grant: index, role: grant.role ?? null, through, scope, organization: grant.organization };
      const misses = missOf(actor, grant, { form, scope }, target);
      if (!misses) return way;
      held.push({ ...way, misses });
    }
  }
  return null;
}

/** What keeps a grant from the target; null: nothing. */
function missOf(actor: Actor, grant: Grant, held: { form: Form; scope: Scope }, target: Target): Miss | null {
  const { organizationPath } = target;
  switch (held.scope) {
    case 'self':
      return isSelf(actor, target) ? null : 'not_self';
    case 'tree':
      if (isLeft(actor, grant, held.scope)) return 'left_organization';
      if (organizationPath.length === 0) return 'tenant_itself';
      return organizationPath.includes(grant.organization) ? null : 'other_organization';
    case 'all':
      return organizationPath.length === 0 && !held.form.ofTenant ? 'tenant_itself' : null;
    default: // a grant as it is stored, perhaps by a later server
      throw new Error(`${held.scope satisfies never} is no scope`);
  }
}

/** The target names somebody, and nobody but the actor. */
function isSelf({ user }: Actor, target: Target): boolean {
  if (user === null || (target.user ?? target.deviceUser) === undefined) return false;
  return (target.user ?? user) === user && (target.deviceUser ?? user) === user;
}

/** Moving a user neither takes a grant along nor leaves it behind in force: whoever moves them decides. */
function isLeft(actor: Actor, grant: Grant, scope: Scope): boolean {
  return scope === 'tree' && grant.organization !== actor.organization;
}

function scopeOf(grant: Grant, form: Form): Scope {
  const scope = narrower(grant.scope, form.reach);
  return grant.role !== undefined ? narrower(scope, roles.get(grant.role)?.scope ?? 'self') : scope;
}

/** What in the grant gives the permission in that form; null: nothing. A role that is none (any more) gives nothing. */
function throughOf(grant: Grant, { name, whole }: Form): Permission | null {
  if (isIn(grant, name)) return name;
  return whole && isIn(grant, whole) ? whole : null;
}

function isIn(grant: Grant, permission: Permission): boolean {
  if (grant.role !== undefined) return roles.get(grant.role)?.granted.has(permission) ?? false;
  return grant.permissions.includes(permission);
}

/** A permission that lets do what is asked for. */
interface Form {
  name: Permission;
  /** The `.all` that it is part of. */
  whole: Permission | null;
  reach: Scope;
  /** Whether it is also about the tenant itself. */
  ofTenant: boolean;
}

interface Asked {
  /** The permission itself, then its twin across organizations. */
  forms: readonly Form[];
  needs: Permission | null;
  sameUser: boolean;
}

function facts(permission: Permission): Asked {
  const found = askable.get(permission);
  assert(found, `${permission} is no permission`);
  return found;
}

const askable: ReadonlyMap<Permission, Asked> = new Map(
  [...permissions].map(([name, { needs = null, sameUser = false }]) => {
    const twin = twinOf(name);
    return [name, { forms: (twin ? [name, twin] : [name]).map(formOf), needs, sameUser }];
  }),
);

function formOf(name: Permission): Form {
  // Across organizations is still about what is in them: nobody reads, changes or deletes the tenant by that.
  const ofTenant = !name.startsWith('crossorg_') || name === 'crossorg_org.create';
  return { name, whole: wholeOf(name), reach: permissions.get(name)!.reach, ofTenant };
}

function refused(permission: Permission, why: Refused['why']): Refused {
  return { allowed: false, permission, why, held: [], missing: null };
}
