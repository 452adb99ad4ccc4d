/**
 * The 76 permissions that roles and API clients are made of. Their names are what administrators know and what is stored,
 * so a name is never changed or used for something else. What each reaches stands here; who has it, in roles.ts; why the
 * odd ones are as they are, in docs/decisions/roles.md.
 */

/** `all`: every organization of the tenant. `tree`: the actor's organization and all below. `self`: the actor and their devices. */
export type Scope = 'all' | 'tree' | 'self';

export const scopes = ['self', 'tree', 'all'] as const satisfies readonly Scope[];

/** The narrower of two scopes. */
export function narrower(a: Scope, b: Scope): Scope {
  return scopes.indexOf(a) < scopes.indexOf(b) ? a : b;
}

interface PermissionFacts {
  /** The widest scope it has, whoever grants it: `self` is about the holder alone, `tree` has a `crossorg_` twin for more. */
  reach: Scope;
  /** Whether anything in the server asks for it. If not, it can be assigned, and changes nothing yet. */
  inUse: boolean;
  /** What its holder may do, as a sentence. */
  allows: string;
  /** Is of use only where its holder has this one too. */
  needs?: 'computer.read';
  /** Into a device only what is its own user's. */
  sameUser?: true;
}

export const permissionGroups = {
  Organizations: {
    'org.create': { reach: 'tree', inUse: true, allows: 'Create organizations below those it reaches.' },
    'org.delete': { reach: 'tree', inUse: true, allows: 'Delete organizations.' },
    'org.read': { reach: 'tree', inUse: true, allows: 'See organizations and their settings.' },
    'org.update_deactivate': {
      reach: 'tree',
      inUse: true,
      allows: 'Change, move, block, deactivate and reactivate organizations, and change their settings.',
    },
    'crossorg_org.create': {
      reach: 'all',
      inUse: true,
      allows: 'As org.create, in the whole tenant, and create top-level organizations of the tenant.',
    },
    'crossorg_org.delete': { reach: 'all', inUse: true, allows: 'As org.delete, in the whole tenant.' },
    'crossorg_org.read': { reach: 'all', inUse: true, allows: 'As org.read, in the whole tenant.' },
    'crossorg_org.update_deactivate': {
      reach: 'all',
      inUse: true,
      allows: 'As org.update_deactivate, in the whole tenant.',
    },
  },
  Users: {
    'user.all': { reach: 'tree', inUse: true, allows: 'Everything with users: the other user permissions.' },
    'user.create': { reach: 'tree', inUse: true, allows: 'Create and invite users.' },
    'user.delete': { reach: 'tree', inUse: true, allows: 'Deactivate and delete users.' },
    'user.read': { reach: 'tree', inUse: true, allows: 'See users, their roles and what they store.' },
    'user.update': { reach: 'tree', inUse: true, allows: 'Change, move and block users.' },
    'crossorg_user.all': { reach: 'all', inUse: true, allows: 'As user.all, in the whole tenant.' },
    'crossorg_user.create': { reach: 'all', inUse: true, allows: 'As user.create, in the whole tenant.' },
    'crossorg_user.delete': { reach: 'all', inUse: true, allows: 'As user.delete, in the whole tenant.' },
    'crossorg_user.read': { reach: 'all', inUse: true, allows: 'As user.read, in the whole tenant.' },
    'crossorg_user.update': { reach: 'all', inUse: true, allows: 'As user.update, in the whole tenant.' },
  },
  Devices: {
    'computer.all': { reach: 'tree', inUse: true, allows: 'Everything with devices: the other computer permissions.' },
    'computer.delete': { reach: 'tree', inUse: true, allows: 'Deactivate devices and set when their archives go.' },
    'computer.read': { reach: 'tree', inUse: true, allows: 'See devices, their health and what was skipped and why.' },
    'computer.update': {
      reach: 'tree',
      inUse: true,
      allows: 'Rename, block and deauthorize devices, and change their settings.',
    },
    'crossorg_computer.all': { reach: 'all', inUse: true, allows: 'As computer.all, in the whole tenant.' },
    'crossorg_computer.delete': { reach: 'all', inUse: true, allows: 'As computer.delete, in the whole tenant.' },
    'crossorg_computer.read': { reach: 'all', inUse: true, allows: 'As computer.read, in the whole tenant.' },
    'crossorg_computer.update': { reach: 'all', inUse: true, allows: 'As computer.update, in the whole tenant.' },
  },
  'Backup plans': {
    'plan.all': { reach: 'tree', inUse: true, allows: 'Everything with backup plans: the other plan permissions.' },
    'plan.create': { reach: 'tree', inUse: true, allows: 'Create backup plans.' },
    'plan.delete': { reach: 'tree', inUse: true, allows: 'Delete backup plans; never what they have backed up.' },
    'plan.read': { reach: 'tree', inUse: true, allows: 'See what is backed up, when, and how long it is kept.' },
    'plan.update': { reach: 'tree', inUse: true, allows: 'Change what is backed up, and when.' },
    'crossorg_plan.all': { reach: 'all', inUse: true, allows: 'As plan.all, in the whole tenant.' },
    'crossorg_plan.create': { reach: 'all', inUse: true, allows: 'As plan.create, in the whole tenant.' },
    'crossorg_plan.delete': { reach: 'all', inUse: true, allows: 'As plan.delete, in the whole tenant.' },
    'crossorg_plan.read': { reach: 'all', inUse: true, allows: 'As plan.read, in the whole tenant.' },
    'crossorg_plan.update': { reach: 'all', inUse: true, allows: 'As plan.update, in the whole tenant.' },
  },
  Restores: {
    'restore.all': { reach: 'all', inUse: true, allows: 'Restore files of any device to a browser, of any size.' },
    'restore.limited': {
      reach: 'all',
      inUse: true,
      allows: "Restore files of any device to a browser, up to the organization's limit.",
    },
    'restore.personal': { reach: 'self', inUse: true, allows: 'Restore files of their own devices to a browser.' },
    'cpd.restore': { reach: 'self', inUse: false, allows: 'Restore their own files with the agent.' },
  },
  'Push restores': {
    'pushrestore.all': { reach: 'all', inUse: true, allows: 'Restore files of any device to any device.' },
    'pushrestore.limited': {
      reach: 'all',
      inUse: true,
      allows:
        "Restore files of any device to a device of the same user, of any size, whatever the organization's limit.",
      sameUser: true,
    },
    'pushrestore.personal': {
      reach: 'self',
      inUse: true,
      allows: 'Restore files of their own devices to their own devices.',
    },
    'select.all': { reach: 'all', inUse: true, allows: 'Browse the folders of any device, to choose from them.' },
    'select.personal': { reach: 'self', inUse: true, allows: 'Browse the folders of their own devices.' },
  },
  'Legal holds': {
    'legalhold.all': {
      reach: 'all',
      inUse: false,
      allows: 'Everything with legal holds: the other legalhold permissions.',
    },
    'legalhold.create': { reach: 'all', inUse: false, allows: 'Open matters and place holds.' },
    'legalhold.modify_membership': {
      reach: 'all',
      inUse: false,
      allows: 'Add custodians to matters, and release them.',
    },
    'legalhold.read': { reach: 'all', inUse: false, allows: 'See matters, custodians and what is held.' },
    'legalhold.update': { reach: 'all', inUse: false, allows: 'Change and close matters, and release holds.' },
  },
  Archives: {
    'preservation.archive.purgepath': {
      reach: 'all',
      inUse: false,
      allows: 'Remove paths and all their versions from archives, for good.',
    },
    'preservation.metadata.read': {
      reach: 'all',
      inUse: true,
      allows: 'Read the list of all files and versions of an archive, without their content.',
    },
  },
  'Sign-in': {
    'console.login': { reach: 'self', inUse: true, allows: 'Sign in to the console and the API, as themselves.' },
    'twofactorauth.configure': {
      reach: 'all',
      inUse: true,
      allows: 'See and change how users with a password of ours sign in with a second factor.',
    },
    'directory.identity_management.read': { reach: 'all', inUse: true, allows: 'See the identity providers in use.' },
    'directory.identity_management.write': { reach: 'all', inUse: true, allows: 'Add and change identity providers.' },
    'directory.uac.elevated_role_manage': {
      reach: 'all',
      inUse: true,
      allows: 'Give and take any role, to any user.',
    },
  },
  'Customer and account': {
    'customer_admin.all': { reach: 'all', inUse: true, allows: 'Change what holds for the tenant as a whole.' },
    'account.create': { reach: 'all', inUse: false, allows: "Add to the tenant's licences." },
    'account.read': { reach: 'all', inUse: true, allows: 'See licences, what uses them and when they renew.' },
    'account.update': { reach: 'all', inUse: false, allows: "Change the tenant's licences and their contacts." },
  },
  Watching: {
    'auditlog.read': { reach: 'all', inUse: true, allows: 'Search and export the audit log.' },
    'ReceivesAlert.EMAIL': { reach: 'all', inUse: false, allows: 'Get alerts by mail.' },
    'viewlogs.device': { reach: 'all', inUse: false, allows: "Read agents' logs.", needs: 'computer.read' },
    'system.command_restricted': {
      reach: 'all',
      inUse: false,
      allows: "Use the administrator's command, each part of it as its own permission says.",
    },
  },
  Agents: {
    'client_management.agent_channel_upgrade.read': {
      reach: 'all',
      inUse: false,
      allows: 'See channels of agent upgrades.',
    },
    'client_management.agent_channel_upgrade.subscribe': {
      reach: 'all',
      inUse: false,
      allows: 'Choose the channel that agents are upgraded from.',
    },
    'client_management.deployment_policy.read': {
      reach: 'all',
      inUse: false,
      allows: 'See what new agents are set up with.',
    },
    'client_management.deployment_policy.write': {
      reach: 'all',
      inUse: false,
      allows: 'Change what new agents are set up with.',
    },
    'client_management.device_upgrade.read': {
      reach: 'all',
      inUse: false,
      allows: 'See when and how agents are upgraded.',
    },
    'client_management.device_upgrade.write': {
      reach: 'all',
      inUse: false,
      allows: 'Change when and how agents are upgraded.',
    },
  },
  'Search and security tools': {
    'search.configure': { reach: 'all', inUse: false, allows: 'Configure search.' },
    'fileforensics.settings_write': {
      reach: 'all',
      inUse: false,
      allows: 'See and change the settings of file forensics.',
    },
    'securitytools.settings_write': { reach: 'all', inUse: false, allows: 'Change the settings of security tools.' },
    'dataconnections.settings.read': { reach: 'all', inUse: false, allows: 'See the settings of data connections.' },
    'dataconnections.settings.write': {
      reach: 'all',
      inUse: false,
      allows: 'Change the settings of data connections.',
    },
  },
} as const satisfies Record<string, Record<string, PermissionFacts>>;

type Groups = typeof permissionGroups;

export type PermissionGroup = keyof Groups;
export type Permission = { [G in PermissionGroup]: keyof Groups[G] }[PermissionGroup];

/** What a route asks for: never a `crossorg_` permission, for each of those only lets do a plain one in more places. */
export type Act = Exclude<Permission, `crossorg_${string}`>;

export interface PermissionInfo extends PermissionFacts {
  group: PermissionGroup;
}

function describe(): ReadonlyMap<Permission, PermissionInfo> {
  const all = new Map<Permission, PermissionInfo>();
  for (const [group, members] of Object.entries(permissionGroups))
    for (const [name, facts] of Object.entries(members as Record<string, PermissionFacts>))
      all.set(name as Permission, { group: group as PermissionGroup, ...facts });
  return all;
}

/** Every permission, in the order of the groups. */
export const permissions = describe();

/** Whether a text from outside names a permission. */
export function isPermission(text: string): text is Permission {
  return permissions.has(text as Permission);
}

/** The same in every organization of the tenant: `crossorg_org.read` for `org.read`; null for what has no such twin. */
export function twinOf(permission: Permission): Permission | null {
  const twin = `crossorg_${permission}`;
  return isPermission(twin) ? twin : null;
}

/** The `.all` whose part a permission is: `computer.all` for `computer.read`; null for what is part of nothing. */
export function wholeOf(permission: Permission): Permission | null {
  const whole = permission.replace(/\.[^.]+$/, '.all');
  return whole !== permission && isPermission(whole) ? whole : null;
}
