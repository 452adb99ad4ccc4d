/** That a route cannot be made without saying who may: by the compiler, which reads this file, too. */
import { expect, test } from '@jest/globals';
import { z } from 'zod';
import { change, read } from './route.ts';
import { apiRoutes } from './routes.ts';

const answer = z.strictObject({});

test('a route that does not say who may is a type error', () => {
  const common = { path: '/v1/x', tag: 'x', summary: 'x', answer };
  // @ts-expect-error: `may` is missing
  read({ ...common, read: async () => ({}) });
  // @ts-expect-error: there is no such permission
  read({ ...common, may: { permission: 'org.reed', of: 'listing' }, read: async () => ({}) });
  // @ts-expect-error: a permission is asked about something, or for a listing
  change({ ...common, method: 'POST', may: { permission: 'org.read' }, change: async () => ({}) });
  expect(read({ ...common, may: { operator: true }, read: async () => ({}) }).may).toEqual({ operator: true });
});

test('every route says who may, once, and has a path of its own', () => {
  const names = apiRoutes.map(({ method, path }) => `${method} ${path}`);
  expect(new Set(names).size).toBe(names.length);
  for (const route of apiRoutes) {
    const ways = ['permission', 'signedIn', 'operator', 'anyone'].filter((way) => way in route.may);
    expect([route.path, ways.length]).toEqual([route.path, 1]);
    // What changes something is never for anyone, unless it is a way to sign in.
    if (route.kind === 'change') expect([route.path, 'anyone' in route.may]).toEqual([route.path, false]);
    // A path's parameters and those that are read are the same.
    const inPath = [...route.path.matchAll(/:(\w+)/g)].map(([, name]) => name);
    expect([route.path, Object.keys(route.params?.shape ?? {})]).toEqual([route.path, inPath]);
  }
});
