/** Who somebody is by what their provider says of them: pure. Claims are somebody else's data: of any type and size. */
import type { z } from 'zod';
import type { Scope } from '../../roles/permissions.ts';
import type { Role } from '../../roles/roles.ts';
import type { ProviderDocument } from './shapes.ts';

export type Claims = Readonly<Record<string, unknown>>;

export interface Who {
  subject: string;
  /** What a new user is named by; null: the claim is missing or no name. */
  name: string | null;
  displayName: string | null;
  /** Only one that the provider says it has verified. */
  email: string | null;
  /** The provider speaks for the domain of that address. */
  emailIsTheirs: boolean;
  /** Where a new user goes. */
  organization: number | null;
  /** The provider tells groups, so roles are given and taken by it. */
  managesRoles: boolean;
  roles: { role: Role; scope: Scope }[];
}

const groupsMax = 2_000;

/** @returns null when there is no subject to know them by */
export function whoIs(claims: Claims, document: z.infer<typeof ProviderDocument>): Who | null {
  const subject = textOf(claims.sub, 255);
  if (!subject) return null;
  const email = claims.email_verified === true ? mailOf(claims.email) : null;
  const domain = email?.slice(email.lastIndexOf('@') + 1) ?? '';
  const groups = document.groupsClaim === null ? new Set<string>() : groupsOf(claims[document.groupsClaim]);
  const theirs = document.groups.filter(({ group }) => groups.has(group));
  return {
    subject,
    // A mail address as a name has to be verified as one that is used as an address.
    name: document.nameClaim === 'email' ? email : nameOf(claims[document.nameClaim]),
    displayName: nameOf(claims.name, 255),
    email,
    emailIsTheirs: document.domains.includes(domain),
    organization: theirs.find(({ organization }) => organization !== undefined)?.organization ?? document.organization,
    managesRoles: document.groupsClaim !== null,
    roles: widest(theirs.flatMap(({ roles }) => roles as { role: Role; scope: Scope }[])),
  };
}

const order: readonly Scope[] = ['self', 'tree', 'all'];

/** Each role once, as far as any group has it. */
function widest(roles: { role: Role; scope: Scope }[]): { role: Role; scope: Scope }[] {
  const found = new Map<Role, Scope>();
  for (const { role, scope } of roles) {
    const before = found.get(role);
    if (before === undefined || order.indexOf(scope) > order.indexOf(before)) found.set(role, scope);
  }
  return [...found].map(([role, scope]) => ({ role, scope })).sort((a, b) => (a.role < b.role ? -1 : 1));
}

/** Groups come as a list of texts; some providers send one alone as a text. */
function groupsOf(value: unknown): Set<string> {
  const list = typeof value === 'string' ? [value] : Array.isArray(value) ? value.slice(0, groupsMax) : [];
  return new Set(list.filter((each): each is string => typeof each === 'string'));
}

/** Text that PostgreSQL takes, of a length that has a place. */
function textOf(value: unknown, charactersMax: number): string | null {
  if (typeof value !== 'string' || value.length === 0 || value.length > charactersMax) return null;
  return value.isWellFormed() && !value.includes('\0') ? value : null;
}

function nameOf(value: unknown, charactersMax = 254): string | null {
  const text = textOf(value, charactersMax)?.trim();
  return text && !/\p{Cc}/u.test(text) ? text : null;
}

function mailOf(value: unknown): string | null {
  const text = nameOf(value)?.toLowerCase();
  return text && /^[^\s@]+@[^\s@]+$/.test(text) ? text : null;
}
