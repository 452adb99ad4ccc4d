/** `usage`: what users and organizations hold. */
import { parseArgs } from 'node:util';
import { allTenants } from '../directory/tenants/reading.ts';
import { type OrganizationUsageLine, type UsageEnd, usageLines, type VaultUsageLine } from '../reports/usage.ts';
import { withCatalog } from './open-catalog.ts';
import type { OperatorCommand, Say } from './operator-command.ts';
import { bytesInWords, counted, printable, table } from './text.ts';

const usageText = `What every user and organization holds, kept by counting: nothing is scanned for it.

usage: node server/main.ts usage [--json]

  --json   JSON: a line for each tenant, user and organization, and the sum of each tenant

  LOGICAL      what all versions would take if they were restored side by side
  STORED       what the object store holds: compressed, and each block once in a user's vault
  RECLAIMABLE  of that, what no version needs; deleting and compacting give it back by themselves

Example: the ten users who store most
  node server/main.ts usage --json | jq -s -c '[.[] | select(.user)] | sort_by(-.storedBytes)[:10][] | [.user.name, .storedBytes]'`;

export const usage: OperatorCommand = {
  usage: usageText,
  async run(args, say) {
    const { values } = parseArgs({ args: [...args], options: { json: { type: 'boolean', default: false } } });
    return withCatalog(async (storage) => {
      const tenants = await allTenants(storage.database);
      for (const { tenantId, name } of tenants) {
        if (values.json) say(JSON.stringify({ tenant: { id: tenantId, name } }));
        else say(`${tenantId === tenants[0]!.tenantId ? '' : '\n'}Tenant ${printable(name)} (${tenantId})\n`);
        const lines = usageLines(storage, { tenantId, within: { all: true } });
        if (values.json) for await (const line of lines) say(JSON.stringify(line));
        else await print(lines, say);
      }
      return 0;
    });
  },
};

const amounts = (of: { logicalBytes: number; storedBytes: number; reclaimableBytes: number; versions: number }) => [
  bytesInWords(of.logicalBytes),
  bytesInWords(of.storedBytes),
  bytesInWords(of.reclaimableBytes),
  String(of.versions),
];
const amountHeads = ['>LOGICAL', '>STORED', '>RECLAIMABLE', '>VERSIONS'];

async function print(lines: AsyncIterable<VaultUsageLine | OrganizationUsageLine | UsageEnd>, say: Say): Promise<void> {
  const users: VaultUsageLine[] = [];
  const organizations: OrganizationUsageLine[] = [];
  let end: UsageEnd['summary'] | null = null;
  for await (const line of lines) {
    if ('summary' in line) end = line.summary;
    else if ('user' in line) users.push(line);
    else organizations.push(line);
  }
  const names = new Map(organizations.map(({ organization }) => [organization.id, organization.name]));
  const userRows = users.map((line) => [
    line.user.name,
    names.get(line.organization) ?? '',
    ...amounts(line),
    line.devices.map(({ name, guid }) => `${name} (${guid})`).join(', '),
  ]);
  for (const line of table(['USER', 'ORGANIZATION', ...amountHeads, 'DEVICES'], userRows)) say(line);
  say('');
  const rows = organizations.map(({ organization, total, users: own }) => [
    `${organization.name} (${organization.id})`,
    String(own),
    ...amounts(total),
  ]);
  for (const line of table(['ORGANIZATION, WITH ALL BELOW IT', '>OWN USERS', ...amountHeads], rows)) say(line);
  if (end) {
    const [logical, stored, reclaimable] = amounts(end);
    say(
      `\nIn all: ${counted(end.users, 'user')}, ${logical} in ${counted(end.versions, 'version')}, ${stored} stored, ${reclaimable} of it reclaimable.`,
    );
  }
}
