import { describe, expect, test } from '@jest/globals';
import { openApiDocument } from '../../server/http/api/openapi.ts';
import { apiRoutes } from '../../server/http/api/routes.ts';
import { asksOf, isDangerous } from '../commands/dangerous.ts';
import { exceptions, nameOperations, ownCommands } from './names.ts';
import { hasNextPage, isPage, type Operation, operationsOf } from './operations.ts';

/** As it is served: through JSON. */
const operations = operationsOf(JSON.parse(JSON.stringify(openApiDocument(apiRoutes, { version: '1' }))));
const named = nameOperations(operations);
const nameOf = (method: string, path: string): string | undefined =>
  [...named].find(([, operation]) => operation.method === method && operation.path === path)?.[0];

describe('over the routes of the server', () => {
  test('every route has a command, and no two the same', () => {
    expect(operations.length).toBe(apiRoutes.length);
    expect(named.size).toBe(apiRoutes.length);
    expect(new Set(named.values()).size).toBe(apiRoutes.length);
    expect(apiRoutes.length).toBeGreaterThan(40);
  });

  test('each is found by the rule: none had to be called by its method and path', () => {
    expect([...named.keys()].filter((name) => name.startsWith('other '))).toEqual([]);
  });

  test('none is in the way of another, or of what the command does itself', () => {
    const names = [...named.keys()];
    for (const name of names) {
      expect(ownCommands).not.toContain(name.split(' ')[0]);
      expect(names.filter((other) => other.startsWith(`${name} `))).toEqual([]);
    }
  });

  test('a folder of a device is a list, whose pages are asked for one by one', () => {
    const browse = named.get('devices browse')!;
    expect([isPage(browse), hasNextPage(browse)]).toEqual([true, false]);
  });

  test('names are words of lower case, at most four of them', () => {
    for (const name of named.keys()) expect(name).toMatch(/^[a-z][a-z-]*( [a-z][a-z-]*){0,3}$/);
  });

  test('every exception is about a route that there is', () => {
    const routes = operations.map(({ method, path }) => `${method} ${path}`);
    for (const route of Object.keys(exceptions)) expect(routes).toContain(route);
  });

  test.each([
    'organizations delete',
    'organizations deactivate',
    'organizations registration-key',
    'users deactivate',
    'users end-sessions',
    'devices deauthorize',
    'devices cold-until set',
    'clients delete',
    'clients secret',
    'tenants offboard',
    'repositories set-back create',
    'devices retention set',
  ])('%s is asked about, since it takes something away', (name) => expect(isDangerous(named.get(name)!)).toBe(true));

  test('what takes nothing away is not asked about', () => {
    for (const [name, operation] of named)
      if (/ (list|show|create|unblock|reactivate|unlock|give|try)$/.test(name) && !name.includes('set-back create'))
        expect([name, asksOf(operation), isDangerous(operation)]).toEqual([
          name,
          name === 'pushed-restores create',
          false,
        ]);
  });

  test.each([
    [{ to: { device: '5', folder: '/new' } }, false],
    [{ to: { device: '5', folder: '/new' }, existing: 'rename' }, false],
    [{ to: { device: '5', folder: '/home/ann' }, existing: 'overwrite' }, true],
    [{ to: { device: '5', original: true } }, true],
    ['no object', false],
    [{ to: null }, false],
  ])('a restore pushed to a device is asked about where it may write over something: %j', (body, asked) =>
    expect(isDangerous(named.get('pushed-restores create')!, body)).toBe(asked),
  );

  test.each([
    ['GET', '/v1/organizations', 'organizations list'],
    ['POST', '/v1/organizations', 'organizations create'],
    ['GET', '/v1/organizations/{organization}', 'organizations show'],
    ['PATCH', '/v1/organizations/{organization}', 'organizations update'],
    ['DELETE', '/v1/organizations/{organization}', 'organizations delete'],
    ['POST', '/v1/organizations/{organization}/move', 'organizations move'],
    ['POST', '/v1/organizations/{organization}/registration-key', 'organizations registration-key'],
    ['GET', '/v1/organizations/{organization}/settings', 'organizations settings show'],
    ['PATCH', '/v1/organizations/{organization}/settings', 'organizations settings update'],
    ['POST', '/v1/organizations/{organization}/settings/push', 'organizations settings push'],
    ['POST', '/v1/users/{user}/block', 'users block'],
    ['POST', '/v1/users/{user}/roles', 'users roles give'],
    ['POST', '/v1/users/{user}/roles/take', 'users roles take'],
    ['GET', '/v1/sessions', 'sessions list'],
    ['DELETE', '/v1/sessions/current', 'sessions current delete'],
    ['GET', '/v1/audit/export', 'audit export'],
    ['GET', '/v1/usage', 'usage'],
    ['GET', '/v1/alerts', 'alerts list'],
    ['POST', '/v1/alerts/{vault}/{alert}/review', 'alerts review'],
    ['POST', '/v1/devices/{guid}/deactivate', 'devices deactivate'],
    ['GET', '/v1/devices/{guid}/retention', 'devices retention show'],
    ['PUT', '/v1/devices/{guid}/retention', 'devices retention set'],
    ['POST', '/v1/clients/{client}/secret', 'clients secret'],
    ['POST', '/v1/tenants/{tenant}/suspend', 'tenants suspend'],
  ])('%s %s is `%s`', (method, path, name) => expect(nameOf(method, path)).toBe(name));
});

describe('the rule', () => {
  const operation = (method: string, path: string, answer: 'one' | 'page' | 'lines' = 'one'): Operation => ({
    method,
    path,
    summary: '',
    description: '',
    inPath: [],
    inQuery: [],
    body: null,
    isChange: false,
    isOpen: false,
    answer: {
      type: answer === 'lines' ? 'application/x-ndjson' : 'application/json',
      schema: answer === 'page' ? { properties: { items: {} } } : {},
    },
  });
  const names = (...operations: Operation[]): string[] => [...nameOperations(operations).keys()];

  test('what is done to one and to all of them are two words', () => {
    expect(names(operation('DELETE', '/v1/users/{u}/keys'), operation('DELETE', '/v1/users/{u}/keys/{k}'))).toEqual([
      'users keys delete-all',
      'users keys delete',
    ]);
  });

  test('camel case and underscores become dashes', () => {
    expect(names(operation('GET', '/v1/legalHolds', 'page'), operation('POST', '/v1/re_seal'))).toEqual([
      'legal-holds list',
      're-seal',
    ]);
  });

  test('a stream is an action, unless it is what a collection holds', () => {
    expect(names(operation('GET', '/v1/usage', 'lines'))).toEqual(['usage']);
    expect(names(operation('GET', '/v1/acts', 'lines'), operation('GET', '/v1/acts/{act}'))).toEqual([
      'acts list',
      'acts show',
    ]);
  });

  test('what another has taken, or the command itself, is called by method and path, and is there all the same', () => {
    expect(
      names(
        operation('GET', '/v1/devices/{guid}/plans', 'page'),
        operation('GET', '/v1/devices/plans', 'page'),
        operation('GET', '/v1/whoami'),
      ),
    ).toEqual(['devices plans list', 'other get-v1-devices-plans', 'other get-v1-whoami']);
  });
});
