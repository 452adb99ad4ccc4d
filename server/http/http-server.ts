/** The HTTP side put together: what a process starts, and stops. */
import type Koa from 'koa';
import type { Storage } from '../../storage/storage.ts';
import { type ChannelSettings, DeviceChannels } from '../channels/hub.ts';
import type { Directory } from '../directory/directory.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { Room } from '../restoring/flow/room.ts';
import { createApp, createRequestsInFlight } from './app.ts';
import { ByteBudget } from './budget.ts';
import type { AppDeps, Dashboard, ReadinessCheck, RequestSlots, RequestState, StartJob } from './deps.ts';
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
  /** Puts jobs into the queues; without it they are found by their schedule. */
  startJob?: StartJob;
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
  const channels = new DeviceChannels(storage.database, channelSettings(settings), (err) =>
    parts.log.warn({ err }, 'channels to devices'),
  );
  const app = makeApp({
    ...parts,
    dashboard: parts.dashboard ?? null,
    startJob: parts.startJob ?? (() => {}),
    budget,
    requests,
    windows: new StreamWindows(budget, settings),
    slots: createSlots(settings),
    restoreRoom: new Room(settings.restoreBudgetBytes),
    channels,
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
    numbers: [
      {
        name: 'command_channels',
        help: 'Channels to devices that this process holds',
        read: async () => channels.size,
      },
    ],
  });
  return {
    listen: () => listeners.listen(),
    async shutDown(bounds) {
      const result = await shutDown({ listeners, requests, onDraining: () => channels.endAll() }, bounds);
      await channels.close();
      return result;
    },
  };
}

function channelSettings(settings: HttpSettings): ChannelSettings {
  const { commandChannelsMax: max, commandHeartbeatMs: heartbeatMs, commandLookMs: lookEveryMs } = settings;
  return { max, heartbeatMs, lookEveryMs, hearEveryMs: 2 * lookEveryMs };
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
    fetches: new Slots({
      ...waits,
      what: 'fetches',
      max: settings.fetchesMax,
      perHolderMax: settings.fetchesPerDeviceMax,
      waitMs: settings.fetchWaitMs,
      waitersMax: settings.fetchWaitersMax,
    }),
    versionStreams: slots('streams of versions', settings.versionStreamsMax, settings.versionStreamsPerDeviceMax),
    restores: slots('restores', settings.restoresMax, settings.restoresPerPersonMax),
    downloads: slots('downloads', settings.downloadsMax, settings.downloadsPerPersonMax),
    // All tenants together are bounded by the places above, which one has already when it comes here.
    tenantDownloads: slots('downloads of this tenant', Number.POSITIVE_INFINITY, settings.downloadsPerTenantMax),
    stagings: slots('restores being staged', settings.stagingsMax, settings.stagingsPerPersonMax),
    strangers: slots('registrations', settings.strangersMax, settings.strangersPerAddressMax),
    signIns: slots('sign-ins', settings.strangersMax, settings.strangersPerAddressMax),
  };
}
