/**
 * Everything the HTTP shell needs, handed to it as one object, and what a request carries on its way through.
 */
import type { ServerHttp2Session } from 'node:http2';
import type Koa from 'koa';
import type { ArchiveRef, Storage } from '../../storage/storage.ts';
import type { DeviceChannels } from '../channels/hub.ts';
import type { DeviceAccess } from '../directory/devices/access.ts';
import type { Directory } from '../directory/directory.ts';
import type { RepositoryAccess } from '../directory/restic/access.ts';
import type { Operator } from '../directory/sign-in/operators/basic-sign-in.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { Room } from '../restoring/flow/room.ts';
import type { ByteBudget } from './budget.ts';
import type { HttpSettings } from './settings.ts';
import type { Slots } from './slots.ts';
import type { StreamWindows } from './stream-windows.ts';

/**
 * Resolves when the part works; with `{ tell: {...} }` when it has something to say all the same, for everybody to read.
 * Bounded and cached by the shell; one that ignores the signal is left behind.
 */
export type ReadinessCheck = (signal: AbortSignal) => Promise<unknown>;

export interface AppDeps {
  storage: Storage;
  directory: Directory;
  budget: ByteBudget;
  windows: StreamWindows;
  metrics: Metrics;
  log: Log;
  settings: HttpSettings;
  /** By name: `database`, `objects`, `queue`. */
  readiness: Readonly<Record<string, ReadinessCheck>>;
  requests: RequestsInFlight;
  slots: RequestSlots;
  /** What restores that are sent, and downloads of what is staged, share of memory. */
  restoreRoom: Room;
  /** To devices, to tell them what to do. */
  channels: DeviceChannels;
  /** Puts a job in, where there is a queue; what it is to do is in the rows already. */
  startJob: StartJob;
  /** Serves a path below its mount as the queues' dashboard; null where there is none. */
  dashboard: Dashboard | null;
}

/** Returns at once, and throws nothing: a job that is lost is found again by its rows. */
export type StartJob = (name: 'restore', ids: Record<string, number>) => void;

/** Koa middleware for everything below `dashboardPath`. Leaves what it does not know to `next`. */
export type Dashboard = (ctx: Context, next: () => Promise<unknown>) => Promise<unknown>;

/** The places that requests take, by kind: so that nobody takes everybody's. */
export interface RequestSlots {
  /** By device, user, program or operator: every request of it; readings of blocks; streams of versions, and counting. */
  readonly requests: Slots;
  readonly fetches: Slots;
  readonly versionStreams: Slots;
  /** By user or program: zips, tars and exports that are made while they are sent. */
  readonly restores: Slots;
  /** By user, program or link: what is staged, on its way to them. */
  readonly downloads: Slots;
  /** By tenant: the same. */
  readonly tenantDownloads: Slots;
  /** By user or program: restores that this process stages, being told the password. */
  readonly stagings: Slots;
  /** By address: requests without a token, so that their bodies cannot fill the budget of the uploads. */
  readonly strangers: Slots;
  /** By address: sign-ins of people and programs, so that nobody's dripping registration shuts them out. */
  readonly signIns: Slots;
}

/** The requests being served: what a shutdown waits for, and when it began. */
export interface RequestsInFlight {
  readonly open: Set<unknown>;
  /** From then on new requests are told to come back. */
  draining: boolean;
  /** From then on /readyz says no; requests are still served. */
  leaving: boolean;
  /** Aborted when it drains: what goes on without whoever asked for it ends. */
  readonly stopping: AbortController;
}

export interface RequestState {
  deps: AppDeps;
  requestId: string;
  log: Log;
  /** Aborted when the client has gone, and when the request is over. */
  signal: AbortSignal;
  /** Set by device(). */
  device?: DeviceAccess;
  /** Set by repository(). */
  repository?: RepositoryAccess;
  /** Set by operator(). */
  operator?: Operator;
  /** Set by device('own') and device('read') on routes that name an archive. */
  archive?: ArchiveRef;
  bytesIn: number;
  bytesOut: number;
  /** Why a streamed answer ended early, for the log. */
  failure?: unknown;
}

export type Context = Koa.ParameterizedContext<RequestState>;
export type Handler = (ctx: Context) => Promise<void> | void;

/** The session of an HTTP/2 request; undefined on HTTP/1.1. */
export function sessionOf(ctx: Context): ServerHttp2Session | undefined {
  const stream = (ctx.req as unknown as { stream?: { session?: ServerHttp2Session } }).stream;
  return stream?.session;
}
