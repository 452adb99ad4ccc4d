/**
 * Whether a request may: the one place that asks. What the caller may not even see answers like what does not exist; what
 * they may see and not do is forbidden. Both refusals go into the audit log.
 */
import { Problem } from '../../../protocol/problems.ts';
import type { Transaction } from '../../../storage/catalog/database.ts';
import { type Actor, may, reachOf, type Target } from '../../directory/roles/may.ts';
import type { Permission } from '../../directory/roles/permissions.ts';
import type { FoundTarget } from '../../directory/targets.ts';
import type { Within } from '../../directory/users/pages.ts';
import { type Asking, type May, secondsOf, sufficing } from './route.ts';

/** What lets see that there is such a thing. */
const readPermissions: Record<FoundTarget['kind'], Permission | null> = {
  organization: 'org.read',
  user: 'user.read',
  device: 'computer.read',
  client: 'user.read',
  plan: 'plan.read',
  tenant: null, // everybody in it knows that there is one
};

/** A refusal with what the audit log says of it, which is more than the caller is told. */
export class Refusal extends Error {
  override name = 'Refusal';
  readonly problem: Problem;
  readonly permission: Permission | 'operator' | 'signed in';
  readonly why: string;
  readonly target: Target | null;

  constructor(problem: Problem, about: { permission: Refusal['permission']; why: string; target?: Target | null }) {
    super(problem.message);
    this.problem = problem;
    this.permission = about.permission;
    this.why = about.why;
    this.target = about.target ?? null;
  }
}

export const noSuchThing = (): Problem => new Problem('not_found', 'there is no such thing here');

/**
 * Finds what the request is about and asks whether the actor may.
 * @returns what was found; null for a listing
 * @throws Refusal
 */
export async function authorize<Params, Query, Body>(
  db: Transaction,
  guard: May<Params, Query, Body, Target>,
  asking: Asking<Params, Query, Body>,
): Promise<Target | null> {
  if (!('permission' in guard)) return null;
  const { permission } = guard;
  const { actor } = asking;
  if ('of' in guard) {
    if (sufficing(guard).every((each) => reachOf(actor, each) === null))
      throw new Refusal(new Problem('forbidden', `this needs the permission ${permission}`), {
        permission,
        why: 'not_held',
      });
    return null;
  }
  const found = await guard.target(db, asking);
  if (!found) throw new Refusal(noSuchThing(), { permission, why: 'not_found' });
  if (!sufficing(guard).some((each) => may(actor, each, found).allowed)) ask(actor, permission, found);
  for (const { permission: also, target, when } of secondsOf(guard)) {
    if (when && !(await when(db, asking))) continue;
    const second = await target(db, asking);
    if (!second) throw new Refusal(noSuchThing(), { permission: also, why: 'not_found' });
    ask(actor, also, second);
  }
  return found;
}

/** @throws Refusal */
function ask(actor: Actor, permission: Permission, target: Target): void {
  const answer = may(actor, permission, target);
  if (answer.allowed) return;
  const problem = isSeen(actor, target)
    ? new Problem('forbidden', `this needs the permission ${answer.missing ?? permission} here`)
    : noSuchThing();
  throw new Refusal(problem, { permission, why: answer.why, target });
}

/** Whether the actor may know that it exists, and how it is. */
export function isSeen(actor: Actor, target: Target): boolean {
  if (actor.tenant !== target.tenant) return false;
  if (target.user !== undefined && target.user === actor.user) return true;
  const kind = 'kind' in target ? (target as FoundTarget).kind : 'tenant';
  const permission = readPermissions[kind];
  if (permission === null) return true;
  // One's own organization, and those above it, are no secret.
  if (kind === 'organization' && target.organizationPath.at(-1) === actor.organization) return true;
  return may(actor, permission, target).allowed;
}

/** How far a listing by these permissions goes: as far as the widest of them. */
export function withinOf(actor: Actor, permissions: readonly Permission[]): Within {
  const reaches = permissions.map((permission) => reachOf(actor, permission));
  if (reaches.includes('all')) return { all: true };
  if (reaches.includes('tree')) return { path: actor.organization };
  if (reaches.includes('self') && actor.user !== null) return { user: actor.user };
  const permission = permissions[0]!;
  throw new Refusal(new Problem('forbidden', `this needs the permission ${permission}`), {
    permission,
    why: 'not_held',
  });
}
