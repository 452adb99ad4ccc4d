/**
 * The licence report for spreadsheets. A name that a spreadsheet would take for a formula gets an apostrophe in front:
 * users choose names, and administrators open the file.
 */
import { stringify } from 'csv-stringify/sync';
import type { LicenceStatement, UserLicences } from './shapes.ts';

const options = { escape_formulas: true, cast: { boolean: (value: boolean) => (value ? 'yes' : 'no') } };

export function statementCsv({ lines }: LicenceStatement): string {
  const columns = [
    'organization',
    'organizationName',
    'user',
    'userName',
    'number',
    'takenOn',
    'renewsOn',
    'renews',
    'settled',
  ];
  return stringify(lines, { ...options, header: true, columns });
}

/** A line per licence. Of no users: the heading alone. */
export async function* licencesCsv(pages: AsyncIterable<UserLicences[]>): AsyncGenerator<string> {
  const columns = [
    'organization',
    'organizationName',
    'user',
    'userName',
    'devices',
    'number',
    'takenOn',
    'renewsOn',
    'needed',
  ];
  yield stringify([columns]);
  for await (const users of pages) {
    const lines = users.flatMap(({ licences, ...user }) => licences.map((licence) => ({ ...user, ...licence })));
    if (lines.length > 0) yield stringify(lines, { ...options, columns });
  }
}
