/**
 * The log as a file: CSV for spreadsheets, JSON lines for programs, CEF (ArcSight Common Event Format 0.1) for whatever
 * collects security events. Newest first, as it is searched; a page at a time is in memory, however long the log is.
 */
import { isIPv6 } from 'node:net';
import { stringify } from 'csv-stringify/sync';
import type { Database } from '../../../storage/catalog/database.ts';
import { type ActFilter, type ActReach, type ShownAct, searchActs } from './search.ts';

export const exportFormats = ['csv', 'jsonl', 'cef'] as const;
export type ExportFormat = (typeof exportFormats)[number];

export const exportContentTypes: Record<ExportFormat, string> = {
  csv: 'text/csv; charset=utf-8; header=present',
  jsonl: 'application/jsonl; charset=utf-8',
  cef: 'text/plain; charset=utf-8',
};

export interface ExportRequest {
  /** Null: the server's own log. */
  tenant: number | null;
  filter: ActFilter;
  reach: ActReach;
  format: ExportFormat;
  /** Of the server, for CEF. */
  version: string;
}

const pageActs = 500;

/** Pieces of the file, a page each. @throws Problem as searchActs does, with the first piece */
export async function* exportActs(db: Database, request: ExportRequest): AsyncGenerator<string> {
  const { tenant, filter, reach, format, version } = request;
  if (format === 'csv') yield csvText([columns]);
  for (let cursor: string | null = null; ; ) {
    const page = await searchActs(db, tenant, filter, { reach, cursor, limit: pageActs });
    const { items }: { items: ShownAct[] } = page;
    if (format === 'csv') yield csvText(items.map(csvRow));
    else if (format === 'jsonl') yield items.map((act) => `${JSON.stringify(act)}\n`).join('');
    else yield items.map((act) => `${cefLine(act, { tenant, version })}\n`).join('');
    if (page.next === null) return;
    cursor = page.next;
  }
}

const columns = [
  'number',
  'time',
  'action',
  'result',
  'party kind',
  'party id',
  'party name',
  'address',
  'target kind',
  'target id',
  'target name',
  'organization',
  'details',
  'hash',
];

function csvRow({ party, target, ...act }: ShownAct): string[] {
  const cells = [act.number, act.at, act.action, act.result, party.kind, party.id, party.name, act.address];
  const more = [target?.kind, target?.id, target?.name, act.organization, JSON.stringify(act.details), act.hash];
  return [...cells, ...more].map((cell) => (cell == null ? '' : String(cell)));
}

/** Lines end as RFC 4180 says. What a spreadsheet would take for a formula is begun with an apostrophe. */
export function csvText(rows: readonly (readonly string[])[]): string {
  return stringify(
    rows.map((row) => row.map(harmless)),
    { record_delimiter: '\r\n', quoted_match: /[\r\n]/ },
  );
}

// Spreadsheets look past white space at the beginning, and some take the full-width signs for the plain ones.
const harmless = (cell: string): string => (/^[\s\0]*[=+\-@\t\r＝＋－＠]|^[\t\r]/.test(cell) ? `'${cell}` : cell);

const severity = { done: 3, failed: 5, refused: 6 } as const;
/** Characters of a custom string, by the format. */
const customMax = 4_000;
const nameMax = 1_023;

/** One event: a header of eight parts, and an extension of `key=value`. */
export function cefLine(
  { party, target, ...act }: ShownAct,
  { tenant, version }: { tenant: number | null; version: string },
): string {
  const says = `${act.action} ${act.result}`;
  const header = ['CEF:0', 'Holdfast', 'Holdfast', version, act.action, says, String(severity[act.result])];
  const address = act.address === null ? {} : addressFields(act.address);
  const user = target?.kind === 'user' ? { duid: String(target.id), duser: target.name } : {};
  const custom = {
    cs1: party.kind,
    cs1Label: 'partyKind',
    ...(target && { cs2: `${target.kind} ${target.id}`, cs2Label: 'target' }),
    ...(target?.name != null && { cs3: target.name, cs3Label: 'targetName' }),
    cs4: JSON.stringify(act.details),
    cs4Label: 'details',
    cs5: act.hash,
    cs5Label: 'hash',
  };
  const fields: Record<string, string | null | undefined> = {
    rt: String(Date.parse(act.at)),
    externalId: String(act.number),
    act: act.action,
    outcome: act.result,
    suid: party.id === null ? null : String(party.id),
    suser: party.name,
    ...address,
    ...user,
    ...custom,
    ...(tenant !== null && { cn1: String(tenant), cn1Label: 'tenant' }),
    ...(act.organization !== null && { cn2: String(act.organization), cn2Label: 'organization' }),
  };
  const extension = Object.entries(fields)
    .filter((entry): entry is [string, string] => entry[1] != null)
    .map(([key, value]) => `${key}=${cefValue(cut(value, key.startsWith('cs') ? customMax : nameMax))}`);
  return `${header.map((part, i) => (i === 0 ? part : cefHeader(part))).join('|')}|${extension.join(' ')}`;
}

function addressFields(address: string): Record<string, string> {
  return isIPv6(address) ? { c6a2: address, c6a2Label: 'Source IPv6 Address' } : { src: address };
}

/** In the header backslash and pipe are escaped, and there is one line. */
const cefHeader = (text: string): string => text.replace(/[\\|]/g, '\\$&').replace(/[\r\n]+/g, ' ');

/** In the extension backslash and equals sign are escaped, and line breaks written as \n and \r. */
const cefValue = (text: string): string =>
  text.replace(/[\\=]/g, '\\$&').replaceAll('\r', '\\r').replaceAll('\n', '\\n');

const cut = (text: string, max: number): string =>
  text.length <= max ? text : `${text.slice(0, max - 1)}…`.toWellFormed();
