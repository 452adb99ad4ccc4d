import { describe, expect, test } from '@jest/globals';
import { Command } from 'commander';
import { openApiDocument } from '../../server/http/api/openapi.ts';
import { apiRoutes } from '../../server/http/api/routes.ts';
import { nameOperations } from '../document/names.ts';
import { operationsOf } from '../document/operations.ts';
import { examplesOf } from './examples.ts';
import { addFieldOptions } from './options.ts';

const operations = operationsOf(JSON.parse(JSON.stringify(openApiDocument(apiRoutes, { version: '1' }))));
const named = [...nameOperations(operations)];

function exampleOf(name: string): string {
  const [, operation] = named.find(([each]) => each === name)!;
  return examplesOf(name, operation, addFieldOptions(new Command(), operation))[1]!.trim();
}

test.each([
  ['restores create', "restores create --device 1000001 --paths /home/ann --reason 'her laptop was stolen'"],
  ['restores totals list', 'restores totals list --since 2026-03-01T14:30:00Z --until 2026-04-01T00:00:00Z'],
  ['repositories set-back show', 'repositories set-back show 1000001 --to 2026-03-01T14:30:00Z'],
  ['users create', 'users create --organization 3 --name NAME'],
  ['devices retention set', "devices retention set 1000001 --policy '{...}'"],
  ['organizations show', 'organizations show 3'],
])('of %s', (name, example) => expect(exampleOf(name)).toBe(`npm run admin -- ${example}`));

describe('of every command', () => {
  test.each(named)('%s: what is needed is in it', (name, operation) => {
    const { fields } = addFieldOptions(new Command(), operation);
    const example = exampleOf(name);
    // An object is given by the options of what is in it, too.
    const isIn = (flag: string): boolean => example.includes(` ${flag} `) || example.includes(` ${flag}.`);
    const missing = fields.filter(({ field, flag }) => field.required && !isIn(flag)).map(({ flag }) => flag);
    expect(missing).toEqual([]);
  });
});
