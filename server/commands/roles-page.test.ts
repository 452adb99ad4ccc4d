import { readFileSync } from 'node:fs';
import { expect, test } from '@jest/globals';
import { apiCalls } from '../../tests/api/calls.ts';
import { oracleGrant, oracleMay, oracleRoles, type Relation } from '../../tests/helpers/roles-oracle.ts';
import { rolesMarkdown } from './roles-page.ts';

const page = rolesMarkdown();
const tables = /^### .*\n\| role (.*)\|\n\| --- .*\n((?:\|.*\n?)+)/gm;

test('docs/roles.md is current', () => {
  const stored = readFileSync(new URL('../../docs/roles.md', import.meta.url), 'utf8');
  expect({ current: stored === page, else: 'run node server/commands/write-roles.ts' }).toMatchObject({
    current: true,
  });
});

test('every cell says how far the role reaches', () => {
  const wrong: string[] = [];
  let cells = 0;
  const [permissionsPart] = page.split('## Who may call what');
  for (const [, heading, rows] of permissionsPart!.matchAll(tables)) {
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

test('every cell says how far the role reaches with a request', () => {
  const wrong: string[] = [];
  let cells = 0;
  const [, requestsPart] = page.split('## Who may call what');
  for (const [, heading, rows] of requestsPart!.matchAll(tables)) {
    const columns = [...heading!.matchAll(/`(\S+) ([^`]+)`/g)].map(([, method, path]) => `${method} /v1${path}`);
    const lines = new Map(rows!.trim().split('\n').map(readLine));
    for (const role of oracleRoles.keys()) {
      for (const [index, request] of columns.entries()) {
        const { permission, or } = apiCalls[request]!;
        const said = lines.get(role)?.[index] ?? '';
        const reaches = ['self', 'tree', 'all'];
        const expected = [permission, ...[or ?? []].flat()]
          .map((each) => reach(role, each))
          .sort((a, b) => reaches.indexOf(a) - reaches.indexOf(b))
          .at(-1);
        if (said !== expected) wrong.push(`${role}, ${request}: '${said}' for '${expected}'`);
        cells++;
      }
    }
  }
  expect(wrong).toEqual([]);
  expect(cells).toBe(31 * Object.keys(apiCalls).length);
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
