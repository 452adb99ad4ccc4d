/** The HTTP side put together: what a process starts, and stops. */
import type Koa from 'koa';
import type { Storage } from '../../storage/storage.ts';
import type { Directory } from '../directory/directory.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { createApp, createRequestsInFlight } from './app.ts';
import { ByteBudget } from './budget.ts';
import type { AppDeps, Dashboard, ReadinessCheck, RequestSlots, RequestState } from './deps.ts';
import { createListeners } from './listener.ts';
import type { HttpSettings } from './settings.ts';
import { type ShutdownResult, shutDown } from './shutdown.ts';
import { Slots } from './slots.ts';
import { StreamWindows } from './stream-windows.ts';

export interface HttpServerParts {
  storage: Storage;
  directory: Directory;
  metrics: Metrics;
  log: Log;
  /** By name: `database`, `objects`, `queue`. */
  readiness: Readonly<Record<string, ReadinessCheck>>;
  settings: HttpSettings;
  /** The queues' dashboard; without it there is none. */
  dashboard?: Dashboard;
}

export interface HttpServer {
  /** @throws the system's error (EADDRINUSE, EACCES, ...) */
  listen(): Promise<{ host: string; port: number }>;
  /**
   * Drains, then closes; bounded by the sum of the two. `leaveMs`: how long everything is still served while /readyz
   * says no (0 without a load balancer). `drainMs`: how long requests under way may take.
   */
  shutDown(bounds: { leaveMs: number; drainMs: number }): Promise<ShutdownResult>;
}

/** @param makeApp the routes to serve; others than the protocol's only in tests */
export function createHttpServer(
  parts: HttpServerParts,
  makeApp: (deps: AppDeps) => Koa<RequestState> = createApp,
): HttpServer {
  const { settings, metrics, storage } = parts;
  const budget = new ByteBudget(settings.budget);
  const requests = createRequestsInFlight();
  const app = makeApp({
    ...parts,
    dashboard: parts.dashboard ?? null,
    budget,
    requests,
    windows: new StreamWindows(budget, settings),
    slots: createSlots(settings),
  });
  const listeners = createListeners(settings, app, {
    onClientError: (error) => {
      metrics.clientError((error as { code?: string }).code ?? error.name);
      parts.log.debug({ err: error }, 'a client broke the protocol');
    },
  });
  metrics.observe({
    budget: () => ({
      totalBytes: settings.budget.totalBytes,
      heldBytes: budget.heldBytes,
      windowBytes: budget.windowBytes,
      bodies: budget.bodies,
      waiters: budget.waiters,
      resets: budget.resets,
      refusals: budget.refusals,
    }),
    connections: () => ({
      connections: listeners.connections(),
      sessions: listeners.sessions.size,
      streams: listeners.sessions.streams,
    }),
    databasePool: () => storage.database.pool,
  });
  return {
    listen: () => listeners.listen(),
    shutDown: (bounds) => shutDown({ listeners, requests }, bounds),
  };
}

function createSlots(settings: HttpSettings): RequestSlots {
  const waits = {
    waitersMax: settings.slotWaitersMax,
    waitersPerHolderMax: settings.slotWaitersPerDeviceMax,
    waitMs: settings.slotWaitMs,
  };
  const slots = (what: string, max: number, perHolderMax: number): Slots =>
    new Slots({ ...waits, what, max, perHolderMax });
  return {
    // All devices together are bounded by connections and streams; the byte budget bounds what their bodies hold.
    requests: slots(
      'requests of this device or administrator',
      Number.POSITIVE_INFINITY,
      settings.requestsPerDeviceMax,
    ),
    fetches: slots('fetches', settings.fetchesMax, settings.fetchesPerDeviceMax),
    versionStreams: slots('streams of versions', settings.versionStreamsMax, settings.versionStreamsPerDeviceMax),
    restores: slots('restores', settings.restoresMax, settings.restoresPerPersonMax),
    strangers: slots('registrations', settings.strangersMax, settings.strangersPerAddressMax),
    signIns: slots('sign-ins', settings.strangersMax, settings.strangersPerAddressMax),
  };
}
