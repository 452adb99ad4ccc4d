/** `alerts`: what a person has to look at, and the word that they have. */
import { hostname, userInfo } from 'node:os';
import { parseArgs } from 'node:util';
import { Problem } from '../../protocol/problems.ts';
import type { Storage } from '../../storage/storage.ts';
import type { By } from '../directory/audit/act.ts';
import { findUserOfVault } from '../directory/tenant-view.ts';
import { allTenants } from '../directory/tenants/reading.ts';
import { type ShownAlert, type ShownAlerts, serverAlerts, tenantAlerts } from '../reports/alerts.ts';
import { reviewAndRecord } from '../reports/reviewing.ts';
import { withCatalog } from './open-catalog.ts';
import { type OperatorCommand, type Say, UsageError } from './operator-command.ts';
import { counted, momentInWords, printable } from './text.ts';

const usage = `What a person has to look at: runs that changed much, prunes that were stopped, damage, why deleting stands still.

usage: node server/main.ts alerts [--all] [--json]
       node server/main.ts alerts --review ID

  --all         also those that were reviewed
  --review ID   say that you have looked at it. What that sets going stands beside each alert: read it before
  --json        JSON, a line for each alert

Example: node server/main.ts alerts --review 3/17`;

/** As many of each tenant are shown. */
const shownMax = 1_000;

export const alerts: OperatorCommand = {
  usage,
  async run(args, say) {
    const { values } = parseArgs({
      args: [...args],
      options: {
        all: { type: 'boolean', default: false },
        review: { type: 'string' },
        json: { type: 'boolean', default: false },
      },
    });
    const { review, all, json } = values;
    const named = review === undefined ? null : readId(review);
    return withCatalog((storage) => (named ? close(storage, named, say) : list(storage, { all, json }, say)));
  },
};

/** `3/17`: the vault, and the alert in it. */
function readId(text: string): { vault: number; alert: number } {
  const [, vault, alert] = /^(\d{1,15})\/(\d{1,15})$/.exec(text) ?? [];
  if (vault === undefined) throw new UsageError(`"${text}" is no id of an alert: they look like 3/17.`);
  return { vault: Number(vault), alert: Number(alert) };
}

async function close(storage: Storage, named: { vault: number; alert: number }, say: Say): Promise<number> {
  const by = `${userInfo().username} on ${hostname()}`;
  try {
    const { kind } = await storage.database.transaction(async (tx) => {
      const found = await findUserOfVault(tx, null, named.vault);
      const owner = found && { user: found.userId, organization: found.organizationId };
      const party = { kind: 'server', id: null, name: by } as const;
      const acting: By = { tenant: found?.tenantId ?? null, party, address: null };
      return reviewAndRecord(tx, acting, { ...named, owner });
    });
    say(`Reviewed: ${kind}, by ${by}.`);
    return 0;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say(`There is no open alert ${named.vault}/${named.alert}.`);
    return 1;
  }
}

async function list(storage: Storage, { all, json }: { all: boolean; json: boolean }, say: Say): Promise<number> {
  const tenants = await allTenants(storage.database);
  const options = { reviewed: all, limit: shownMax };
  let shown = 0;
  const show = (found: ShownAlerts, tenant: { tenantId: number; name: string } | null): void => {
    for (const alert of found.alerts) {
      if (json) say(JSON.stringify({ tenant: tenant && { id: tenant.tenantId, name: tenant.name }, ...alert }));
      else for (const line of inWords(alert, tenants.length > 1 && tenant ? tenant.name : null)) say(line);
    }
    shown += found.alerts.length;
    if (found.more && !json) say(`(and older ones of ${printable(tenant?.name ?? 'the server')})`);
  };
  show(await serverAlerts(storage.database, options), null);
  for (const tenant of tenants) {
    const of = { tenantId: tenant.tenantId, within: { all: true } } as const;
    show(await tenantAlerts(storage.database, of, options), tenant);
  }
  if (!json)
    say(shown === 0 ? 'Nothing needs to be looked at.' : `${counted(shown, 'alert')}. Review with --review ID.`);
  return 0;
}

function inWords(alert: ShownAlert, tenant: string | null): string[] {
  const { vault, kind, user, device, raisedAt, latestAt, count, reviewedAt, reviewedBy } = alert;
  const about = [
    ...(tenant === null || vault === 0 ? [] : [`tenant ${tenant}`]),
    ...(vault === 0 ? ['the whole server'] : [`user ${user?.name ?? 'unknown'}`]),
    ...(device ? [`device ${device.name} (${device.guid})`] : []),
  ].join(', ');
  const again = count > 1 ? `, ${count} times, last ${momentInWords(latestAt)}` : '';
  return [
    `${vault}/${alert.alert}  ${kind}  ${printable(about)}`,
    `  since   ${momentInWords(raisedAt)}${again}`,
    `  what    ${printable(alert.says)}`,
    reviewedAt === null
      ? `  to do   ${printable(alert.toDo)}`
      : `  closed  ${momentInWords(reviewedAt)}, ${printable(reviewedBy ?? '')}`,
    '',
  ];
}
