/** The client library: what the agent's commands, the load tests and the end-to-end tests talk to a server with. */
export { BandwidthLimiter } from './bandwidth.ts';
export {
  Client,
  type ConnectOptions,
  connect,
  type TreeQuery,
  type VersionsQuery,
  type VersionsStream,
} from './client.ts';
export { CertificateRefused, ConnectionLost, NotAServer } from './errors.ts';
export { parseFingerprint } from './pinned-session.ts';
export { defaultRetryPolicy, type RetryPolicy } from './retry.ts';
