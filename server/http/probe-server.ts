/** The port of a process that serves nobody: whether it lives and can work, and what it counts. */
import Router from '@koa/router';
import { createShell } from './app.ts';
import type { RequestState } from './deps.ts';
import { createHttpServer, type HttpServer, type HttpServerParts } from './http-server.ts';
import { probeRoutes } from './routes/probes.ts';

export function createProbeServer(parts: Omit<HttpServerParts, 'directory' | 'dashboard'>): HttpServer {
  // Nobody signs in here: none of these routes asks for the directory.
  const withoutDirectory = { ...parts, directory: undefined as never };
  return createHttpServer(withoutDirectory, (deps) => {
    const router = new Router<RequestState>({ strict: true, sensitive: true });
    probeRoutes(router, deps);
    return createShell(deps, router);
  });
}
