/** `audit`: whether the audit log is what was written, and going on with it after acts were lost. */
import { parseArgs } from 'node:util';
import { Problem } from '../../protocol/problems.ts';
import { fenceDefaults, openFence } from '../../storage/archive/checking/fence.ts';
import type { Config } from '../config.ts';
import { type AuditKeys, openAuditKeyFile } from '../directory/audit/heads/audit-key.ts';
import type { LogReport } from '../directory/audit/heads/findings.ts';
import { resumeLog } from '../directory/audit/heads/resume-log.ts';
import { verifyLog, verifyLogs } from '../directory/audit/heads/verify-log.ts';
import { type OperatorCommand, type Say, UsageError } from './operator-command.ts';
import { counted, printable } from './text.ts';
import { abortOnInterrupt, withStorage } from './with-storage.ts';

const usageText = `Whether the audit log is still what was written, and going on with it after acts were lost.

usage: node server/main.ts audit verify [--tenant N] [--json]
       node server/main.ts audit resume --tenant N --reason TEXT [--json]

  verify     Hashes every act again and holds the hashes against the heads that were signed hourly and lie in the bucket.
             Finds acts that were altered, are missing, or were cut off at either end, and heads that were forged or
             removed; says from which number on. Needs the audit key file (HOLDFAST_AUDIT_KEY_FILE), of which the public
             key is enough. It reads only, and the server may go on.
  resume     After the database was restored to an earlier moment: the acts since then are lost, and the bucket says
             so. Nothing is signed until you answer for that. The log goes on above every number that was ever signed;
             that it did, and why, is an act, and verify tells it for ever.
  --tenant   The log of this tenant only. 0: the server's own.
  --reason   Why acts are missing, for whoever reads the log.
  --json     verify: a line of JSON for each log.

Exit codes: 0 all logs are what was written, 1 something was found or it failed, 2 wrong usage.`;

export const audit: OperatorCommand = {
  usage: usageText,
  async run(args, say) {
    const text = { type: 'string' } as const;
    const options = { tenant: text, reason: text, json: { type: 'boolean', default: false } } as const;
    const { values, positionals } = parseArgs({ args: [...args], options, allowPositionals: true });
    const tenant = values.tenant === undefined ? null : tenantOf(values.tenant);
    const [what, ...more] = positionals;
    if (more.length > 0) throw new UsageError(`"${more[0]}" is not understood after "${what}".`);
    if (what === 'verify') {
      if (values.reason !== undefined) throw new UsageError('--reason goes with "resume".');
      return verify(tenant, values.json, say);
    }
    if (what !== 'resume') throw new UsageError('Say verify or resume.');
    if (tenant === null || values.reason === undefined) throw new UsageError('Say --tenant and --reason.');
    return resume(tenant, values.reason, values.json, say);
  },
};

function tenantOf(text: string): number {
  const number = Number(text);
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(number))
    throw new UsageError('--tenant is the number of a tenant, or 0.');
  return number;
}

function keysOf(config: Config): AuditKeys {
  const keys = openAuditKeyFile(config.auditKeyFile, { create: false });
  if (keys) return keys;
  throw new Error(`there is no audit key file ${config.auditKeyFile}: set HOLDFAST_AUDIT_KEY_FILE`);
}

function verify(tenant: number | null, json: boolean, say: Say): Promise<number> {
  return withStorage(async (storage, config) => {
    const keys = keysOf(config);
    const signal = abortOnInterrupt();
    let found = 0;
    const tell = (report: LogReport): void => {
      found += report.findings.length;
      if (json) say(JSON.stringify(report));
      else for (const line of inWords(report)) say(line);
    };
    if (tenant !== null) tell(await verifyLog(storage, keys, tenant, { signal }));
    else for await (const report of verifyLogs(storage, keys, { signal })) tell(report);
    return found === 0 ? 0 : 1;
  });
}

function inWords(report: LogReport): string[] {
  const { tenant, acts, first, last, heads, signedTo, expiredTo, resumptions, findings, moreFindings } = report;
  const name = tenant === 0 ? "The server's own log" : `Tenant ${tenant}`;
  const range = first === null ? '' : ` (${first} to ${last})`;
  const expired = expiredTo > 0 ? `, expired up to ${expiredTo}` : '';
  const verdict = findings.length === 0 ? 'as it was written' : 'NOT as it was written';
  return [
    `${name}: ${counted(acts, 'act')}${range}, ${counted(heads, 'signed head')}, signed up to ${signedTo}${expired}: ${verdict}`,
    ...resumptions.map(
      ({ number, follows, reason }) =>
        `  resumed at ${number} after a loss: it follows on ${follows}. The reason given: ${printable(reason)}`,
    ),
    ...findings.map(({ kind, from, to, detail }) => `  ${kind} ${rangeOf(from, to)}: ${printable(detail)}`),
    ...(moreFindings > 0 ? [`  and ${counted(moreFindings, 'more finding')}`] : []),
  ];
}

const rangeOf = (from: number, to: number | null): string =>
  to === null ? `from ${from} on` : to === from ? `${from}` : `${from} to ${to}`;

function resume(tenant: number, reason: string, json: boolean, say: Say): Promise<number> {
  return withStorage(async (storage, config) => {
    const keys = keysOf(config);
    if (!keys.signer) throw new Error(`${config.auditKeyFile} holds no private key, which signs that the log goes on`);
    // A copy of the catalog must not sign in the name of the one that the bucket belongs to.
    if (!(await openFence(storage, fenceDefaults).isOurBucket()))
      throw new Error('the bucket does not belong to this catalog: run "adopt" first');
    const party = { kind: 'operator', id: null, name: 'whoever runs the server' } as const;
    const by = { tenant: tenant === 0 ? null : tenant, party, address: null };
    const resumption = await resumeLog(storage, keys, by, reason).catch((error) => {
      throw error instanceof Problem ? new Error(error.message, { cause: error }) : error;
    });
    if (json) say(JSON.stringify(resumption));
    else
      say(
        `The log goes on with number ${resumption.number}, after ${resumption.follows}. It agrees with what was signed up to ${resumption.agreesTo}.`,
      );
    return 0;
  });
}
