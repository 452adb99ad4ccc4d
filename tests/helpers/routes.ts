/**
 * Every route, read from the router itself: what is added there is here, and in the tests that walk it. The JSON API is a table
 * that tests/api walks, and restic's routes are walked where they are (server/http/restic/routes.test.ts).
 */
import { apiRoutes } from '../../server/http/api/routes.ts';
import { createApp } from '../../server/http/app.ts';
import type { AppDeps } from '../../server/http/deps.ts';
import { httpDefaults } from '../../server/http/settings.ts';

export interface Route {
  method: string;
  /** With parameters, as in '/v1/blocks/:hash'. */
  path: string;
}

interface Layer {
  methods: string[];
  path: string;
}

/** But those of the JSON API and restic's. */
export function everyRoute(): Route[] {
  return routesOfRouter().filter(({ path }) => !path.startsWith('/restic/'));
}

export function everyResticRoute(): Route[] {
  return routesOfRouter().filter(({ path }) => path.startsWith('/restic/'));
}

function routesOfRouter(): Route[] {
  // Making the app declares its routes; the parts are only used when a request comes.
  const app = createApp({ settings: httpDefaults } as AppDeps);
  const layers = app.middleware.flatMap((each) => (each as { router?: { stack: Layer[] } }).router?.stack ?? []);
  const inTable = new Set(apiRoutes.map(({ method, path }) => `${method} ${path}`));
  const isInTable = ({ method, path }: Route): boolean => inTable.has(`${method === 'HEAD' ? 'GET' : method} ${path}`);
  return layers
    .flatMap(({ methods, path }) => methods.map((method) => ({ method, path })))
    .filter((route) => !isInTable(route));
}
