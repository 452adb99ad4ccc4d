/** `retention`: which policy an archive or organization has, and what it would delete. Changes nothing. */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import type { RetentionPolicy } from '../../storage/archive/retention/retention.ts';
import type { Storage } from '../../storage/storage.ts';
import { planInForce } from '../directory/device-retention.ts';
import { type FoundPlan, findPolicyOfArchive, nameOfPlan, nameOfSource, triedOut } from '../directory/retention.ts';
import { readPolicyDocument } from '../directory/retention-document.ts';
import { type DeviceRow, findDevice } from '../directory/tenant-view.ts';
import { type PlanEnd, type PlanLine, planLines } from '../reports/plan.ts';
import { withCatalog } from './open-catalog.ts';
import { type OperatorCommand, type Say, UsageError } from './operator-command.ts';
import { bytesInWords, counted, momentInWords, printable } from './text.ts';

const usage = `What retention keeps of a device's files, and what it would delete. Looks only; nothing is changed.

usage: node server/main.ts retention show --device GUID [--json]
       node server/main.ts retention plan --device GUID [options]

  show              the policy in force, and whether it is the device's own, an organization's or the default
  plan              every version of every file that has more than one, whether it stays, and why

  --device GUID     the device, as "usage" lists it
  --due             of the plan only files that may have changed since they were last looked at
  --policy FILE     plan with the policy in this JSON file (as "show --json" prints it) instead of the one in force
  --expiring        of the plan only versions that would go
  --json            JSON, a line for each version, and the sum as the last

Example: what would be left if deleted files were kept for 30 days?
  node server/main.ts retention show --device 1234 --json > policy.json      (and in it: "deletedAfterDays": 30)
  node server/main.ts retention plan --device 1234 --policy policy.json --expiring

Policies are set over the JSON API, by "npm run admin" (docs/retention.md).`;

interface Asked {
  guid: string;
  due: boolean;
  expiring: boolean;
  json: boolean;
  policy: RetentionPolicy | null;
}

export const retention: OperatorCommand = {
  usage,
  async run(args, say) {
    const { values, positionals } = parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        device: { type: 'string' },
        due: { type: 'boolean', default: false },
        policy: { type: 'string' },
        expiring: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
      },
    });
    const [what, ...more] = positionals;
    if ((what !== 'show' && what !== 'plan') || more.length > 0) throw new UsageError('Say "show" or "plan".');
    if (values.device === undefined) throw new UsageError('Say which device: --device GUID.');
    if (values.due && values.policy !== undefined)
      throw new UsageError('--due is about the policy in force: it does not go with --policy.');
    const policy = values.policy === undefined ? null : readPolicyFile(values.policy);
    const asked: Asked = { ...values, guid: values.device, policy };
    return withCatalog(async (storage) => {
      const device = await findDevice(storage.database, null, asked.guid);
      if (!device) throw new Error(`there is no device ${asked.guid}; "node server/main.ts usage" lists them`);
      return what === 'show' ? show(storage, device, asked, say) : plan(storage, device, asked, say);
    });
  },
};

function readPolicyFile(file: string): RetentionPolicy {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new Error(`${file} cannot be read as JSON: ${(cause as Error).message}`, { cause });
  }
  const { policy, faults } = readPolicyDocument(policyWithin(value));
  if (policy) return policy;
  throw new Error(`${file} is no policy:\n${faults.map(({ message }) => `  - ${message}`).join('\n')}`);
}

/** What `show --json` prints and the API takes has the policy within. */
function policyWithin(value: unknown): unknown {
  const isAround = value !== null && typeof value === 'object' && 'policy' in value;
  return isAround ? value.policy : value;
}

async function show(storage: Storage, device: DeviceRow, { json }: Asked, say: Say): Promise<number> {
  const found = (await findPolicyOfArchive(storage.database, device))!;
  const { policy, from, faults } = found;
  if (json) {
    say(JSON.stringify({ device: device.guid, ...found, plans: found.plans.map(planInForce) }));
    return 0;
  }
  say(`Device ${printable(device.deviceName)} (${device.guid}) of ${printable(device.userName)}`);
  say(`Policy of ${printable(nameOfSource(from))}${from === 'default' ? ': nothing was set' : ''}`);
  if (!policy) {
    say('It cannot be read, so nothing of this device is deleted:');
    for (const { message } of faults) say(`  - ${printable(message)}`);
    return 1;
  }
  for (const line of policyInWords(policy)) say(`  ${line}`);
  for (const line of found.plans.flatMap(planInWords)) say(line);
  return found.plans.every(({ retention }) => retention) ? 0 : 1;
}

function planInWords(plan: FoundPlan): string[] {
  const name = printable(nameOfPlan(plan));
  const { retention, faults } = plan;
  if (!retention) {
    const why = faults.map(({ message }) => `  - ${printable(message)}`);
    return [`The backup ${name} cannot be read, so nothing of this device is deleted:`, ...why];
  }
  const folders = retention.include.map((folder) => printable(folder)).join(', ');
  return [
    `Instead of it for ${folders}: policy of the backup ${name}`,
    ...policyInWords(retention.policy).map((line) => `  ${line}`),
  ];
}

/** What a policy keeps, for people. */
export function policyInWords({ windows, deletedAfterDays, keepNewest, keepWithinDays }: RetentionPolicy): string[] {
  let from = 0;
  const lines = windows.map(({ untilDays, everyMinutes }) => {
    const age =
      untilDays === null ? `older than ${counted(from, 'day')}` : `${from} to ${counted(untilDays, 'day')} old`;
    from = untilDays ?? from;
    return `${age}: ${everyMinutes === 0 ? 'every version' : `the newest of each ${spanInWords(everyMinutes)}`}`;
  });
  const ends =
    deletedAfterDays === null
      ? 'deleted files: kept for ever'
      : `deleted files: gone after ${counted(deletedAfterDays, 'day')}`;
  const floors = [
    ...(keepNewest > 0 ? [`whatever their age: the newest ${keepNewest}`] : []),
    ...(keepWithinDays > 0 ? [`whatever else: everything younger than ${counted(keepWithinDays, 'day')}`] : []),
  ];
  return [...lines, ends, ...floors, 'always: the latest version of a file that exists, and what a hold covers'];
}

function spanInWords(minutes: number): string {
  if (minutes % 1_440 === 0) return minutes === 1_440 ? 'day' : `${minutes / 1_440} days`;
  if (minutes % 60 === 0) return minutes === 60 ? 'hour' : `${minutes / 60} hours`;
  return minutes === 1 ? 'minute' : `${minutes} minutes`;
}

async function plan(storage: Storage, device: DeviceRow, asked: Asked, say: Say): Promise<number> {
  const options = { dueOnly: asked.due, ...(asked.policy && { policy: asked.policy }) };
  const own = asked.policy ? triedOut : nameOfSource((await findPolicyOfArchive(storage.database, device))!.from);
  let path: string | null = null;
  let end: PlanEnd | null = null;
  for await (const line of planLines(storage, device, options)) {
    if ('summary' in line) end = line;
    else if (asked.expiring && line.keep) continue;
    if (asked.json) say(JSON.stringify(line));
    else if (!('summary' in line)) {
      const name = line.pathBytes ?? line.path;
      const isByPlan = line.policies.some((each) => each !== own);
      if (name !== path)
        say(printable(line.path) + (isByPlan ? `, kept by ${line.policies.map(printable).join(' or ')}` : ''));
      path = name;
      say(`  ${versionInWords(line)}`);
    }
  }
  if (!asked.json) for (const line of endInWords(end, asked)) say(line);
  return end?.summary ? 0 : 1;
}

function versionInWords({ keep, seq, committedAt, deleted, because }: PlanLine): string {
  const record = deleted ? ' (deletion)' : '';
  return `${keep ? 'stays' : 'GOES '}  ${momentInWords(committedAt)}  version ${seq}${record}: ${because}`;
}

function endInWords(end: PlanEnd | null, { due }: Asked): string[] {
  if (!end?.summary) return [`Nothing would go: ${printable(end?.unreadable ?? 'there is no such archive any more')}`];
  const { files, keep, expire, expireBytes, cap, overCap, frozen } = end.summary;
  const what = due ? 'that are due' : 'with history';
  return [
    `${counted(files, 'file')} ${what}: ${counted(keep, 'version')} would stay, ${expire} would go (${bytesInWords(expireBytes)} of plain data; what that frees may be less).`,
    ...(overCap
      ? [`That is more than the cap of ${cap}: a prune would delete nothing and raise an alert ("alerts").`]
      : []),
    ...(frozen ? ['Retention is frozen here: nothing goes until the alert has been reviewed ("alerts").'] : []),
  ];
}
