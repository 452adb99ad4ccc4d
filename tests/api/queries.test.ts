/**
 * Every parameter of a query in the OpenAPI document, every GUID in a path, and every moment and GUID in a body x values of their
 * form that nobody can mean: the answer is one for the caller, never a failure of the server, nor one that breaks off.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { openApiDocument } from '../../server/http/api/openapi.ts';
import { apiRoutes } from '../../server/http/api/routes.ts';
import { apiCalls } from './calls.ts';
import { hostileGuids, hostileMoments } from './fuzz.ts';
import { ApiWorld, type Holder } from './world.ts';

interface Parameter {
  name: string;
  in: 'path' | 'query';
  required: boolean;
  schema: { type?: string; format?: string; pattern?: string };
}

let world: ApiWorld;
let chief: Holder;
beforeAll(async () => {
  world = await ApiWorld.open();
  chief = await world.person('Customer Cloud Admin', { name: 'asker' });
}, 60_000);
afterAll(() => world?.close());

interface Schema {
  format?: string;
  pattern?: string;
  properties?: Record<string, Schema>;
  anyOf?: Schema[];
  items?: Schema;
}
interface Operation {
  parameters: Parameter[];
  requestBody?: { content: Record<string, { schema: Schema }> };
}
const { paths } = openApiDocument(apiRoutes, { version: '0' }) as { paths: Record<string, Record<string, Operation>> };
const gets = Object.entries(paths).flatMap(([path, { get }]) => {
  const asked = get?.parameters.filter((each) => each.in === 'query') ?? [];
  return asked.length > 0 ? [{ path: path.replaceAll(/{(\w+)}/g, ':$1'), asked }] : [];
});

const numbers = ['-1', '0', '1.5', '1e400', 'NaN', `${2 ** 31}`, `${2n ** 53n}`, `${2n ** 63n}`, '9'.repeat(40)];
const cursor = (place: unknown): string => Buffer.from(JSON.stringify(place)).toString('base64url');
const texts = [
  '',
  '\0',
  'a\0b',
  '\ufffd',
  '%',
  '9'.repeat(60),
  'x'.repeat(5_000),
  cursor({ after: 2 ** 53 }),
  cursor({ after: Number.MAX_SAFE_INTEGER }),
  cursor({ at: hostileMoments[2], number: 1 }),
  cursor({ at: '0000-01-01T00:00:00.000000Z', number: 2 ** 53 - 1 }),
  cursor(['user', -(2 ** 53) + 1, 2 ** 53 - 1]),
  cursor(null),
];
const hostile: readonly string[] = [...numbers, ...texts, ...hostileMoments, ...hostileGuids];

test('what asks in a query is found, moments and GUIDs among it', () => {
  const all = gets.flatMap(({ asked }) => asked);
  expect(gets.length).toBeGreaterThan(20);
  expect(all.filter(({ schema }) => schema.format === 'date-time').length).toBeGreaterThan(10);
  expect(all.filter(({ name }) => name === 'device').length).toBeGreaterThan(3);
});

describe('a query of values that nobody can mean', () => {
  test.each(gets.map(({ path, asked }) => [path, asked] as const))('GET %s', async (path, asked) => {
    const about = { ...world.places.child, elsewhere: world.places.sibling.organization };
    const call = apiCalls[`GET ${path}`];
    const faults: string[] = [];
    for (const { name } of asked)
      for (const value of hostile) {
        const url = new URL(call ? call.path(about) : path.replaceAll(/:\w+/g, '1'), world.server.origin);
        url.searchParams.set(name, value);
        const status = await statusOf(url);
        if (typeof status === 'string' || status >= 500) faults.push(`${name}=${value.slice(0, 100)}: ${status}`);
      }
    expect(faults).toEqual([]);
  });
});

async function statusOf(url: URL): Promise<number | string> {
  try {
    const answer = await fetch(url, { headers: { authorization: `Bearer ${chief.token}` }, redirect: 'manual' });
    await answer.arrayBuffer();
    return answer.status;
  } catch (error) {
    return `broken off: ${(error as Error).message}`;
  }
}

/** Where a body has moments and GUIDs, as `to.device`. */
function placesIn(schema: Schema, at: string[] = []): string[][] {
  const isOurs = schema.format === 'date-time' || schema.pattern?.startsWith('^[1-9]\\d{0,18}') === true;
  const below = Object.entries(schema.properties ?? {}).flatMap(([name, each]) => placesIn(each, [...at, name]));
  return [...(isOurs ? [at] : []), ...below, ...(schema.anyOf ?? []).flatMap((each) => placesIn(each, at))];
}

function withValue(body: unknown, [name, ...rest]: readonly string[], value: string): unknown {
  if (name === undefined) return value;
  const given = (body ?? {}) as Record<string, unknown>;
  return { ...given, [name]: withValue(given[name], rest, value) };
}

const written = Object.entries(paths).flatMap(([path, operations]) =>
  Object.entries(operations).flatMap(([method, { requestBody }]) => {
    const places = placesIn(requestBody?.content['application/json']?.schema ?? {});
    const name = `${method.toUpperCase()} ${path.replaceAll(/{(\w+)}/g, ':$1')}`;
    return places.length > 0 ? [{ name, places }] : [];
  }),
);

describe('a body with a moment or a GUID that nobody can mean', () => {
  test('is found', () => expect(written.length).toBeGreaterThan(7));

  test.each(written.map(({ name, places }) => [name, places] as const))('%s', async (name, places) => {
    const about = { ...world.places.child, elsewhere: world.places.sibling.organization };
    const call = apiCalls[name]!;
    const [method] = name.split(' ') as [string];
    const faults: string[] = [];
    for (const place of places)
      for (const value of [...hostileMoments, ...hostileGuids]) {
        const body = withValue(call.body!(about), place, value);
        const { status, text } = await world.ask(method, call.path(about), { token: chief.token, body });
        if (status >= 500 && !text.includes('device_away')) faults.push(`${place.join('.')}=${value}: ${status}`);
      }
    expect(faults).toEqual([]);
  });
});

test.each(apiRoutes.filter(({ path }) => path.includes(':guid')).map(({ method, path }) => [method, path] as const))(
  '%s %s: a GUID that is none names nothing',
  async (method, path) => {
    for (const guid of hostileGuids) {
      const { status } = await world.ask(method, path.replace(':guid', guid).replaceAll(/:\w+/g, '1'), {
        token: chief.token,
        ...(method !== 'GET' && method !== 'DELETE' && { body: {} }),
      });
      expect([400, 403, 404, 415]).toContain(status);
    }
  },
);
