import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { Command } from 'commander';
import { openApiDocument } from '../../server/http/api/openapi.ts';
import { apiRoutes } from '../../server/http/api/routes.ts';
import { nameOperations } from '../document/names.ts';
import { operationsOf } from '../document/operations.ts';
import { examplesOf } from './examples.ts';
import { addFieldOptions, type GivenOption, readBody, readQuery } from './options.ts';

const operations = operationsOf(JSON.parse(JSON.stringify(openApiDocument(apiRoutes, { version: '1' }))));
const named = [...nameOperations(operations)];

const folder = mkdtempSync(join(tmpdir(), 'examples-'));
const secretFile = join(folder, 'secret');
writeFileSync(secretFile, 'correct horse battery staple\n');
afterAll(() => rmSync(folder, { recursive: true }));

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
  ['organizations move', 'organizations move 3 --parent 1'],
  ['users registration-codes create', 'users registration-codes create 3 --minutes 60'],
  ['restores link', 'restores link 3 --seconds 86400'],
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

  test.each(named)('%s: the server takes what is in it', async (name, operation) => {
    const command = new Command().argument('[params...]').action(() => {});
    const given = addFieldOptions(command, operation);
    const words = wordsOf(exampleOf(name)).slice('npm run admin --'.split(' ').length + name.split(' ').length);
    const args = words.map((word) => (word === 'FILE' ? secretFile : word));
    await command.exitOverride().parseAsync(args, { from: 'user' });
    const open = given.fields.filter(isPlaceholder);
    for (const each of open) Object.assign(each, { texts: [], field: { ...each.field, required: false } });

    const route = apiRoutes.find(
      (each) => each.method === operation.method && inDocument(each.path) === operation.path,
    )!;
    const params = Object.fromEntries(operation.inPath.map((param, at) => [param.name, command.args[at]]));
    const sent = await readBody(operation, given, undefined);
    const body = 'body' in route ? route.body?.safeParse(sent) : undefined;
    const query = route.query?.safeParse(Object.fromEntries(readQuery(given)));
    const issues = [route.params?.safeParse(params), query, body].flatMap((result) => result?.error?.issues ?? []);
    const isOpen = (path: PropertyKey[]): boolean =>
      open.some(({ field }) => path.length === 0 || path.join('.').startsWith(field.path.join('.')));
    expect(issues.filter(({ path }) => !isOpen(path))).toEqual([]);
    const moments = ['until', 'expiresAt'].map((field) => (sent as Record<string, string> | undefined)?.[field]);
    for (const moment of moments.filter((each) => each !== undefined))
      expect(Date.parse(moment)).toBeGreaterThan(Date.now());
    // No organization is moved into itself.
    if (name === 'organizations move') expect(words[0]).not.toBe(words[2]);
  });
});

const inDocument = (path: string): string => path.replaceAll(/:(\w+)/g, '{$1}');

/** As a shell takes them apart. */
function wordsOf(line: string): string[] {
  return [...line.matchAll(/'((?:[^']|'\\'')*)'|\S+/g)].map(([word, text]) => text?.replaceAll("'\\''", "'") ?? word);
}

/** What only a person knows: `NAME`, and `{...}` for what is too long for a line. */
function isPlaceholder({ field, texts }: GivenOption): boolean {
  return texts.some((text) => text === field.path.at(-1)!.toUpperCase() || /^[[{]\.\.\.[\]}]$/.test(text));
}
