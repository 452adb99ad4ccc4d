import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { oracleGrant, oracleMay, oracleRoles, type Relation } from '../../tests/helpers/roles-oracle.ts';
import { rolesMarkdown } from './roles-page.ts';

const page = rolesMarkdown();

test('docs/roles.md is current', () => {
  const stored = readFileSync(new URL('../../docs/roles.md', import.meta.url), 'utf8');
  expect({ current: stored === page, else: 'run node server/commands/write-roles.ts' }).toMatchObject({
    current: true,
  });
});

test('every cell says how far the role reaches', () => {
  const wrong: string[] = [];
  let cells = 0;
  for (const [, heading, rows] of page.matchAll(/^### .*\n\| role (.*)\|\n\| --- .*\n((?:\|.*\n?)+)/gm)) {
    const columns = [...heading!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!);
    const lines = new Map(rows!.trim().split('\n').map(readLine));
    for (const role of oracleRoles.keys()) {
      for (const [index, permission] of columns.entries()) {
        const said = (lines.get(role)?.[index] ?? '').replace(/[()]/g, '');
        const expected = reach(role, permission);
        if (said !== expected) wrong.push(`${role}, ${permission}: '${said}' for '${expected}'`);
        cells++;
      }
    }
  }
  expect(wrong).toEqual([]);
  expect(cells).toBe(31 * 76);
});

/** `| Org Admin | tree |  |` */
function readLine(line: string): [role: string, cells: string[]] {
  const [role = '', ...cells] = line.split('|').slice(1, -1);
  return [role.trim(), cells.map((each) => each.trim())];
}

/** The farthest place that the second opinion lets the role do this in. */
function reach(role: string, permission: string): string {
  const far: [string, Relation][] = [
    ['all', { place: 'elsewhere in the tenant', whose: 'somebody' }],
    ['tree', { place: 'below', whose: 'somebody' }],
    ['self', { place: 'own organization', whose: 'own' }],
  ];
  return far.find(([, relation]) => oracleMay([oracleGrant(role)], permission, relation))?.[0] ?? '';
}
