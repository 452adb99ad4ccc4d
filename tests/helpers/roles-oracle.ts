/**
 * What every role is and lets do, typed in apart from the server and decided another way, to compare the server with.
 * Imports nothing from server/, and must not: a mistake there would be one here.
 */

export type OracleScope = 'all' | 'tree' | 'self';

/** All 76, in the order of their bytes. */
export const oraclePermissions = words(`
  ReceivesAlert.EMAIL account.create account.read account.update auditlog.read
  client_management.agent_channel_upgrade.read client_management.agent_channel_upgrade.subscribe
  client_management.deployment_policy.read client_management.deployment_policy.write
  client_management.device_upgrade.read client_management.device_upgrade.write computer.all computer.delete
  computer.read computer.update console.login cpd.restore crossorg_computer.all crossorg_computer.delete
  crossorg_computer.read crossorg_computer.update crossorg_org.create crossorg_org.delete crossorg_org.read
  crossorg_org.update_deactivate crossorg_plan.all crossorg_plan.create crossorg_plan.delete crossorg_plan.read
  crossorg_plan.update crossorg_user.all crossorg_user.create crossorg_user.delete crossorg_user.read
  crossorg_user.update customer_admin.all dataconnections.settings.read dataconnections.settings.write
  directory.identity_management.read directory.identity_management.write directory.uac.elevated_role_manage
  fileforensics.settings_write legalhold.all legalhold.create legalhold.modify_membership legalhold.read
  legalhold.update org.create org.delete org.read org.update_deactivate plan.all plan.create plan.delete
  plan.read plan.update preservation.archive.purgepath preservation.metadata.read pushrestore.all
  pushrestore.limited pushrestore.personal restore.all restore.limited restore.personal search.configure
  securitytools.settings_write select.all select.personal system.command_restricted twofactorauth.configure
  user.all user.create user.delete user.read user.update viewlogs.device`);

/** All 31: a role and its scope, and below it what it names. */
const table = `
Admin Restore: all
  restore.all restore.limited restore.personal
Admin Restore Limited: all
  restore.limited
Alert Emails: all
  ReceivesAlert.EMAIL
Audit Log Viewer: all
  auditlog.read
Billing Admin: all
  account.create account.read account.update
Cross Org Admin: all
  account.update console.login cpd.restore crossorg_computer.all crossorg_computer.delete crossorg_computer.read
  crossorg_computer.update crossorg_org.create crossorg_org.delete crossorg_org.read crossorg_org.update_deactivate
  crossorg_plan.all crossorg_plan.create crossorg_plan.delete crossorg_plan.read crossorg_plan.update
  crossorg_user.all crossorg_user.create crossorg_user.delete crossorg_user.read crossorg_user.update
  fileforensics.settings_write preservation.archive.purgepath pushrestore.all pushrestore.limited pushrestore.personal
  restore.all restore.limited restore.personal search.configure securitytools.settings_write select.all
  select.personal system.command_restricted viewlogs.device
Cross Org Admin - No Restore: all
  account.update console.login cpd.restore crossorg_computer.all crossorg_computer.delete crossorg_computer.read
  crossorg_computer.update crossorg_org.create crossorg_org.delete crossorg_org.read crossorg_org.update_deactivate
  crossorg_plan.all crossorg_plan.create crossorg_plan.delete crossorg_plan.read crossorg_plan.update
  crossorg_user.all crossorg_user.create crossorg_user.delete crossorg_user.read crossorg_user.update
  fileforensics.settings_write pushrestore.personal search.configure securitytools.settings_write select.all
  select.personal system.command_restricted viewlogs.device
Cross Org Computer Modify: all
  crossorg_computer.update crossorg_user.read
Cross Org Help Desk: all
  console.login cpd.restore crossorg_computer.read crossorg_org.read crossorg_plan.read crossorg_user.read
  pushrestore.limited select.all select.personal
Cross Org Help Desk - No Restore: all
  console.login cpd.restore crossorg_computer.read crossorg_org.read crossorg_plan.read crossorg_user.read
Cross Org Legal Admin: all
  console.login crossorg_computer.read crossorg_org.read crossorg_plan.all crossorg_plan.create crossorg_plan.delete
  crossorg_plan.read crossorg_plan.update crossorg_user.read legalhold.all legalhold.create
  legalhold.modify_membership legalhold.read legalhold.update pushrestore.all pushrestore.limited pushrestore.personal
  restore.all restore.limited restore.personal select.all select.personal
Cross Org Manager: all
  console.login cpd.restore crossorg_computer.read crossorg_org.read crossorg_plan.read crossorg_user.read
  pushrestore.personal restore.limited restore.personal select.personal
Cross Org User Modify: all
  crossorg_user.read crossorg_user.update
Customer Cloud Admin: all
  *
Desktop User: self
  cpd.restore plan.create restore.personal select.personal
Desktop User - No Web Restore: self
  cpd.restore select.personal
Identity Management Administrator: all
  console.login directory.identity_management.read directory.identity_management.write
  directory.uac.elevated_role_manage
Manifest Viewer: all
  preservation.metadata.read
Multi-Factor Auth Admin: tree
  twofactorauth.configure
Org Admin: tree
  account.update computer.all computer.delete computer.read computer.update console.login cpd.restore
  fileforensics.settings_write org.create org.delete org.read org.update_deactivate plan.all plan.create plan.delete
  plan.read plan.update preservation.archive.purgepath pushrestore.all pushrestore.limited pushrestore.personal
  restore.all restore.limited restore.personal search.configure securitytools.settings_write select.all
  select.personal system.command_restricted user.all user.create user.delete user.read user.update viewlogs.device
Org Admin - No Web Restore: tree
  account.update computer.all computer.delete computer.read computer.update console.login cpd.restore
  fileforensics.settings_write org.create org.delete org.read org.update_deactivate plan.all plan.create plan.delete
  plan.read plan.update pushrestore.all pushrestore.limited pushrestore.personal search.configure
  securitytools.settings_write select.all select.personal system.command_restricted user.all user.create user.delete
  user.read user.update viewlogs.device
Org Computer Modify: tree
  computer.update user.read
Org Help Desk: tree
  computer.read console.login cpd.restore org.read plan.read pushrestore.limited select.all select.personal user.read
Org Help Desk - No Restore: tree
  computer.read console.login cpd.restore org.read plan.read user.read
Org Legal Admin: tree
  computer.read console.login legalhold.all legalhold.create legalhold.modify_membership legalhold.read
  legalhold.update org.read plan.all plan.create plan.delete plan.read plan.update pushrestore.all pushrestore.limited
  pushrestore.personal restore.all restore.limited restore.personal select.all select.personal user.read
Org Manager: tree
  computer.read console.login cpd.restore org.read plan.read pushrestore.personal restore.limited restore.personal
  select.personal user.read viewlogs.device
PROe User: self
  console.login cpd.restore
Push Restore: all
  pushrestore.all pushrestore.limited pushrestore.personal select.all select.personal
Remote File Selection: all
  select.all select.personal
Security Administrator: all
  client_management.agent_channel_upgrade.read client_management.agent_channel_upgrade.subscribe
  client_management.deployment_policy.read client_management.deployment_policy.write
  client_management.device_upgrade.read client_management.device_upgrade.write console.login customer_admin.all
  dataconnections.settings.read dataconnections.settings.write
User Modify: tree
  user.read user.update
`;

export const oracleRoles = new Map(
  [...table.matchAll(/^(\S.*): (all|tree|self)$((?:\n {2}.*)+)/gm)].map(([, name, scope, permissions]) => [
    name!,
    { scope: scope as OracleScope, permissions: words(permissions!) },
  ]),
);

/** What a grant names, however it came by it. */
export interface OracleGrant {
  permissions: readonly string[];
  scope: OracleScope;
  /** It was given in another organization than its holder is in now. */
  left?: boolean;
}

/** What a role gives when it is granted as far as it goes. */
export function oracleGrant(role: string): OracleGrant {
  const { scope, permissions } = oracleRoles.get(role)!;
  return { scope, permissions: permissions.includes('*') ? oraclePermissions : permissions };
}

/** Where the target is, seen from the actor, and whose it is. `tenant`: above all organizations. */
export interface Relation {
  place: 'own organization' | 'below' | 'elsewhere in the tenant' | 'tenant' | 'another tenant';
  /** `nobody`: it is an organization. `both`: the actor's files to somebody's device, or the other way round. */
  whose: 'own' | 'somebody' | 'nobody' | 'both';
}

/** About their holder alone, whoever has them. */
const personal = ['restore.personal', 'pushrestore.personal', 'select.personal', 'cpd.restore', 'console.login'];
const families = ['computer', 'user', 'plan', 'org'];
const wholes = {
  restore: ['limited', 'personal'],
  pushrestore: ['limited', 'personal'],
  select: ['personal'],
  legalhold: ['create', 'modify_membership', 'read', 'update'],
  computer: ['delete', 'read', 'update'],
  user: ['create', 'delete', 'read', 'update'],
  plan: ['create', 'delete', 'read', 'update'],
};

/** Everything a grant lets do, as lines `permission@scope`. */
function unfold({ permissions, scope, left = false }: OracleGrant): Set<string> {
  const named = new Set(permissions);
  for (const [family, parts] of Object.entries(wholes))
    for (const prefix of ['', 'crossorg_'])
      if (named.has(`${prefix}${family}.all`)) for (const part of parts) named.add(`${prefix}${family}.${part}`);

  const lines = new Set<string>();
  const order: OracleScope[] = ['self', 'tree', 'all'];
  const add = (name: string, widest: OracleScope) => {
    const reach = order[Math.min(order.indexOf(widest), order.indexOf(scope))]!;
    if (reach === 'tree' && left) return; // it was about a tree that its holder is no longer in
    for (const each of order.slice(0, order.indexOf(reach) + 1)) lines.add(`${name}@${each}`);
  };
  for (const name of named) {
    if (personal.includes(name)) add(name, 'self');
    else if (name.startsWith('crossorg_')) {
      add(name, 'all');
      add(name.slice('crossorg_'.length), 'all');
      if (name === 'crossorg_org.create' && scope === 'all') {
        lines.add('org.create@tenant');
        lines.add('crossorg_org.create@tenant');
      }
    } else if (families.includes(name.split('.')[0]!)) add(name, 'tree');
    else {
      add(name, 'all');
      if (scope === 'all') lines.add(`${name}@tenant`);
    }
  }
  return lines;
}

/** Whether somebody with these grants may. */
export function oracleMay(grants: readonly OracleGrant[], permission: string, { place, whose }: Relation): boolean {
  if (place === 'another tenant') return false;
  // An agent's log is for those who may see the device.
  if (permission === 'viewlogs.device' && !oracleMay(grants, 'computer.read', { place, whose })) return false;
  // One user's files, another's device: never with what is for the user's own devices.
  if (permission === 'pushrestore.limited' && whose === 'both') return false;

  const lines = new Set(grants.flatMap((grant) => [...unfold(grant)]));
  if (whose === 'own' && lines.has(`${permission}@self`)) return true;
  if (place === 'tenant') return lines.has(`${permission}@tenant`);
  if (place === 'elsewhere in the tenant') return lines.has(`${permission}@all`);
  return lines.has(`${permission}@tree`);
}

function words(text: string): string[] {
  return text.trim().split(/\s+/);
}
