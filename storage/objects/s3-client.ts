/**
 * The AWS SDK set up for stores of every make: no checksums or conditions that only some of them know, a length known
 * beforehand for every body, our own pool of connections, and no retries (those are `retrying-store.ts`).
 */
import { type AgentOptions, Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { networkFault } from './s3-faults.ts';

export interface S3Options {
  /** Absent: Amazon's own, by region. */
  endpoint?: string;
  /** Default `us-east-1`, which stores that have no regions expect. */
  region?: string;
  bucket: string;
  /** Put before every key, so that a bucket can be shared; ends in '/' or is empty. */
  prefix?: string;
  /** `endpoint/bucket/key` instead of `bucket.endpoint/key`. Default false. */
  forcePathStyle?: boolean;
  /** Absent: the SDK's default chain (environment, files, instance and web identity). */
  credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string };
  /** Reads in flight, and as many other requests. Default 64. */
  concurrency?: number;
  /** Bodies longer than this go up in parts. Default 64 MiB. */
  multipartBytesMin?: number;
  /** Bytes of a part but the last, at least 5 MiB. Default 16 MiB. */
  multipartPartBytes?: number;
  /** Sign a hash of each body, which the store checks. Default: when the endpoint is plain http; TLS does it otherwise. */
  signPayload?: boolean;
  /** Default 5 s. */
  connectTimeoutMs?: number;
  /** Silence on a connection that ends it. Default 30 s. */
  idleTimeoutMs?: number;
  /** From the start of a request to the head of its response, the sending of its body included. Default 5 min. */
  requestTimeoutMs?: number;
  /** Wait for one of the `concurrency` places of its kind. Default 30 s. */
  slotWaitMsMax?: number;
  /** Resolves host names other than by the system's resolver. */
  lookup?: AgentOptions['lookup'];
}

export const s3Defaults = {
  region: 'us-east-1',
  concurrency: 64,
  multipartBytesMin: 64 * 1024 * 1024,
  multipartPartBytes: 16 * 1024 * 1024,
  connectTimeoutMs: 5_000,
  idleTimeoutMs: 30_000,
  requestTimeoutMs: 300_000,
  slotWaitMsMax: 30_000,
} as const;

/** Connections for what takes no slot: readiness probes, and the aborts of uploads that failed. */
const probeSockets = 8;

/** The SDK's client, and `onDate` called with the `Date` header of every response. */
export function createS3Client(options: S3Options, onDate: (date: string) => void): S3Client {
  const config: S3ClientConfig = {
    region: options.region ?? s3Defaults.region,
    forcePathStyle: options.forcePathStyle ?? false,
    maxAttempts: 1,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    expectContinueHeader: false,
    followRegionRedirects: false,
    // Without one the SDK writes to the console; everything it has to say comes as an error too.
    logger: silent,
    requestHandler: createHandler(options, onDate),
    ...(options.endpoint && { endpoint: options.endpoint }),
    ...(options.credentials && { credentials: options.credentials }),
  };
  return new S3Client(config);
}

const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

/** What sends the requests. Its faults are told in our own terms, before the SDK wraps them in its own. */
function createHandler(
  options: S3Options,
  onDate: (date: string) => void,
): NonNullable<S3ClientConfig['requestHandler']> {
  const pool: AgentOptions = {
    keepAlive: true,
    maxSockets: 2 * (options.concurrency ?? s3Defaults.concurrency) + probeSockets,
    // Last in, first out: sockets beyond what is needed grow idle, and the store closes them.
    scheduling: 'lifo',
    ...(options.lookup && { lookup: options.lookup }),
  };
  const handler = new NodeHttpHandler({
    httpAgent: new HttpAgent(pool),
    httpsAgent: new HttpsAgent(pool),
    connectionTimeout: options.connectTimeoutMs ?? s3Defaults.connectTimeoutMs,
    socketTimeout: options.idleTimeoutMs ?? s3Defaults.idleTimeoutMs,
    requestTimeout: options.requestTimeoutMs ?? s3Defaults.requestTimeoutMs,
    throwOnRequestTimeout: true,
  });
  return {
    metadata: handler.metadata,
    updateHttpClientConfig: (key: never, value: never) => handler.updateHttpClientConfig(key, value),
    httpHandlerConfigs: () => handler.httpHandlerConfigs(),
    destroy: () => handler.destroy(),
    async handle(...call: Parameters<NodeHttpHandler['handle']>) {
      try {
        const answer = await handler.handle(...call);
        const { date } = answer.response.headers;
        if (date) onDate(date);
        return answer;
      } catch (error) {
        throw networkFault(error);
      }
    },
  };
}
