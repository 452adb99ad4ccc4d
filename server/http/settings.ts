/**
 * The bounds of the HTTP shell, as one object that the configuration fills. Nothing here is read from the
 * environment. Every wait and every queue of server/http/ is bounded by one of these.
 */
import { uploadBodyBytesMax } from '../../protocol/upload.ts';
import { roomFor } from './body-receiver.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

export interface TlsSettings {
  /** PEM: the private key, and the certificate with its chain. */
  key: string | Buffer;
  cert: string | Buffer;
}

export interface HttpSettings {
  host: string;
  /** 0: the kernel chooses one (tests). */
  port: number;
  /** null: cleartext, h2c with prior knowledge and HTTP/1.1 on one port, for use behind an ingress that speaks TLS. */
  tls: TlsSettings | null;

  /** TCP connections at a time; more are closed at once. */
  connectionsMax: number;
  /** Streams (requests) at a time on one HTTP/2 session. */
  sessionStreamsMax: number;
  /**
   * Memory one session may use, in MB as Node counts it: header tables, and answers waiting to be sent. 100 streams
   * with a slice of 256 KiB each are 26 MB; past the bound Node resets the streams of a peer that did nothing wrong.
   */
  sessionMemoryMb: number;
  /** Bytes of a request's headers, its path included: a path of 32 KiB as base64url takes 43 KiB of them. */
  headerBytesMax: number;
  /** Header fields of a request. */
  headerPairsMax: number;

  /** TLS handshake and the first bytes of a connection. */
  handshakeTimeoutMs: number;
  /** HTTP/1.1: from a request's first byte to the end of its headers. */
  headersTimeoutMs: number;
  /** HTTP/1.1: from a request's first byte to its last. HTTP/2 streams, and bodies being read, are timed by the budget. */
  requestTimeoutMs: number;
  /** HTTP/1.1: how long an idle connection is kept. */
  keepAliveTimeoutMs: number;
  /** HTTP/2: how long a session without a stream is kept. */
  sessionIdleMs: number;
  /** HTTP/2: after this much silence the peer is asked for a sign of life, and given as long again to answer. */
  pingEveryMs: number;
  /** How long a reader may take for one slice of a streamed answer (256 KiB) before it is cut. */
  writeStallMs: number;

  /**
   * Connection window of HTTP/2. 100 ms x 1 Gbit/s = 12.5 MB in flight, so 16 MiB lets one connection fill the link.
   * It holds no memory by itself: Node hands every byte on as it arrives, and the stream windows bound what waits.
   */
  connectionWindowBytes: number;
  /** Stream window that every session starts with, and falls back to when memory is short. */
  streamWindowBytes: number;
  /** Stream window that a session may grow to, while there is room. */
  streamWindowBytesMax: number;

  /**
   * Readings of blocks at a time, for all devices and for one: each may hold two ranges of 8 MiB, and connections to
   * the object store. More wait, then are told to come back.
   */
  fetchesMax: number;
  fetchesPerDeviceMax: number;
  /** How long a reading of blocks waits for its place, and how many may wait: four of each of 256 agents that restore. */
  fetchWaitMs: number;
  fetchWaitersMax: number;
  /** Streams of versions at a time, for all devices and for one. */
  versionStreamsMax: number;
  versionStreamsPerDeviceMax: number;
  /** Restores to browsers that are sent at a time, for all people and for one. */
  restoresMax: number;
  restoresPerPersonMax: number;
  /** Bytes of content that all of them hold, and that one holds at most. */
  restoreBudgetBytes: number;
  restoreWindowBytes: number;
  /** How long counting what a restore comes to may take. */
  restorePlanMs: number;
  /** How often a restore that is sent asks whether it was cancelled, and whether whoever asked still may. */
  restoreCheckMs: number;
  /** What is staged, on its way to people at a time: for all, for one, and for the people of one tenant. */
  downloadsMax: number;
  downloadsPerPersonMax: number;
  downloadsPerTenantMax: number;
  /** Restores that this process stages at a time, being told the password; each holds two parts of 8 MiB beside its window. */
  stagingsMax: number;
  stagingsPerPersonMax: number;
  /** Bytes that staged restores take in the bucket at most, of all, of one tenant and of one person. */
  stagingBytesMax: number;
  stagingTenantBytesMax: number;
  stagingPersonBytesMax: number;
  /** How long what is staged is kept. */
  stagedRestoreMs: number;
  /** Channels to devices of one process; each is a connection too. */
  commandChannelsMax: number;
  commandHeartbeatMs: number;
  /** How often it is looked whether a device is to be told something that this process did not hear of. */
  commandLookMs: number;
  /** How long a device may be silent before what was pushed to it lapses. */
  pushExpiresMs: number;
  /** How long it is waited for a device to show a folder. */
  browseWaitMs: number;
  /** Requests of one device, or one administrator, at a time, of any kind. */
  requestsPerDeviceMax: number;
  /**
   * Requests at a time of those who have no token yet, from everywhere and from one address; and as many sign-ins of
   * administrators.
   */
  strangersMax: number;
  strangersPerAddressMax: number;
  /** How long a request waits for one of these places. */
  slotWaitMs: number;
  /** Requests that may wait for a place of one kind, of all and of one device: their bodies are not in the byte budget yet. */
  slotWaitersMax: number;
  slotWaitersPerDeviceMax: number;
  /** How long a readiness check may take, and how long its answer is used again. */
  readinessTimeoutMs: number;
  readinessCacheMs: number;
  /** Authorises `GET /metrics` from elsewhere than loopback; null: from loopback only. */
  metricsToken: string | null;
  /** Proxies of ours that a request passes, each adding to `X-Forwarded-For`; 0: the header is not believed. */
  proxies: number;
  /** Where browsers and agents reach this server, without a slash at its end; null: as they say themselves (Host). */
  publicUrl: string | null;
  budget: BudgetSettings;
}

export interface BudgetSettings {
  /** Bytes of request bodies held at a time by this process; stream windows may hold as much again. */
  totalBytes: number;
  /** What one device may hold of it while other devices have bodies open too. */
  deviceBytes: number;
  /** Room that the largest body of any route asks for (`roomFor`). The budget must hold one. */
  bodyBytesMax: number;
  /** A sender below this rate, bytes per second, is reset when others need its room. */
  rateBytesPerSecondMin: number;
  /** Over how long that rate is measured, and so how long a new sender is let be. */
  rateGraceMs: number;
  /** How long a body that has delivered little waits for room before it is told to come back. */
  waitMs: number;
  /** The longest that one waits that has delivered much, and would have to send it again; and any of restic's. */
  waitMsMax: number;
  /** Without a byte for this long a body is given up. */
  idleMs: number;
  /** A body may take `bodyBaseMs` plus its length at `bodyBytesPerSecondMin`. 32 MiB: 35 minutes, within an upload's lease. */
  bodyBaseMs: number;
  bodyBytesPerSecondMin: number;
  /** Bodies that may wait to be opened. */
  waitersMax: number;
}

export const budgetDefaults: BudgetSettings = {
  totalBytes: 64 * MiB,
  deviceBytes: 32 * MiB,
  bodyBytesMax: roomFor(uploadBodyBytesMax),
  rateBytesPerSecondMin: 64 * KiB,
  rateGraceMs: 1_000,
  waitMs: 1_000,
  waitMsMax: 30_000,
  idleMs: 30_000,
  bodyBaseMs: 30_000,
  bodyBytesPerSecondMin: 16 * KiB,
  waitersMax: 256,
};

export const httpDefaults: HttpSettings = {
  host: '0.0.0.0',
  port: 8443,
  tls: null,
  connectionsMax: 4_096,
  sessionStreamsMax: 100,
  sessionMemoryMb: 64,
  headerBytesMax: 64 * KiB,
  headerPairsMax: 100,
  handshakeTimeoutMs: 10_000,
  headersTimeoutMs: 15_000,
  requestTimeoutMs: 40 * 60_000,
  keepAliveTimeoutMs: 30_000,
  sessionIdleMs: 5 * 60_000,
  pingEveryMs: 30_000,
  writeStallMs: 30_000,
  connectionWindowBytes: 16 * MiB,
  streamWindowBytes: 256 * KiB,
  streamWindowBytesMax: 4 * MiB,
  fetchesMax: 32,
  fetchesPerDeviceMax: 8,
  fetchWaitMs: 45_000,
  fetchWaitersMax: 1_024,
  versionStreamsMax: 64,
  versionStreamsPerDeviceMax: 4,
  restoresMax: 128,
  restoresPerPersonMax: 2,
  restoreBudgetBytes: 256 * MiB,
  restoreWindowBytes: 32 * MiB,
  restorePlanMs: 30_000,
  restoreCheckMs: 2_000,
  downloadsMax: 128,
  downloadsPerPersonMax: 4,
  downloadsPerTenantMax: 96,
  stagingsMax: 4,
  stagingsPerPersonMax: 2,
  stagingBytesMax: 20 * 1024 * MiB,
  stagingTenantBytesMax: 20 * 1024 * MiB,
  stagingPersonBytesMax: 20 * 1024 * MiB,
  stagedRestoreMs: 24 * 60 * 60_000,
  commandChannelsMax: 3_072,
  commandHeartbeatMs: 20_000,
  commandLookMs: 30_000,
  pushExpiresMs: 7 * 24 * 3_600_000,
  browseWaitMs: 20_000,
  requestsPerDeviceMax: 16,
  strangersMax: 32,
  strangersPerAddressMax: 16,
  slotWaitMs: 5_000,
  slotWaitersMax: 256,
  slotWaitersPerDeviceMax: 64,
  readinessTimeoutMs: 3_000,
  readinessCacheMs: 1_000,
  metricsToken: null,
  proxies: 0,
  publicUrl: null,
  budget: budgetDefaults,
};
