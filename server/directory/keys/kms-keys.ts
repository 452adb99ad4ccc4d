/**
 * Seals with keys that never leave AWS KMS. A vault key is 32 bytes, so it is encrypted there directly, with what it is
 * as encryption context; the record names the key by its ARN. Only keys of the settings open: whoever can write the
 * database could otherwise put a record there that a key of theirs has sealed.
 */
import { DecryptCommand, DescribeKeyCommand, EncryptCommand, KMSClient } from '@aws-sdk/client-kms';
import { NodeHttpHandler } from '@smithy/node-http-handler';
import { type KeyHolder, KeyServiceError } from './key-service.ts';
import { packKmsRecord, recordFormats, regionOfKeyArn, unpackKmsRecord } from './records.ts';

export interface KmsSettings {
  /** ARNs, ids or aliases (`alias/NAME`). The first seals, every one opens. At least one. */
  keyIds: readonly string[];
  /** Of keys that are not named by an ARN, which says its region. Absent: as the SDK finds it. */
  region?: string;
  /** Absent: Amazon's own, by region. */
  endpoint?: string;
}

export interface KmsBounds {
  connectTimeoutMs: number;
  /** From the start of one attempt to its answer. */
  attemptTimeoutMs: number;
  /** First one included. */
  attemptsMax: number;
  /** Of all attempts and the waits between them. */
  timeoutMs: number;
}

export const kmsBounds: KmsBounds = {
  connectTimeoutMs: 3_000,
  attemptTimeoutMs: 5_000,
  attemptsMax: 4,
  timeoutMs: 15_000,
};

/** Of keys, and of aliases. */
const arnOfRegion = /^arn:[a-z-]+:kms:([a-z0-9-]+):/;
const contextName = 'holdfast';
/** Requests at a time; more wait for a connection. */
const connectionsMax = 32;

/** @throws RangeError when no key is named */
export function kmsKeyService(settings: KmsSettings, bounds: KmsBounds = kmsBounds): KeyHolder {
  const [first] = settings.keyIds;
  if (first === undefined) throw new RangeError('a key service has at least one key');
  const clients = new Map<string | undefined, KMSClient>();
  const clientOf = (keyId: string): KMSClient => {
    const region = arnOfRegion.exec(keyId)?.[1] ?? settings.region;
    const client = clients.get(region) ?? createClient({ ...settings, ...(region && { region }) }, bounds);
    clients.set(region, client);
    return client;
  };

  /** Asks KMS, and says in our own words what is wrong. */
  const ask = async <T>(what: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> => {
    const signal = AbortSignal.timeout(bounds.timeoutMs);
    // Where the SDK looks for credentials it does not heed the signal.
    const late = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    try {
      return await Promise.race([work(signal), late]);
    } catch (error) {
      throw signal.aborted
        ? new KeyServiceError('unreachable', `${what}: AWS KMS gave no answer within ${bounds.timeoutMs} ms`)
        : kmsFault(what, error);
    }
  };

  const describe = async (keyId: string) => {
    const what = `asking for the key ${keyId}`;
    const command = new DescribeKeyCommand({ KeyId: keyId });
    const { KeyMetadata: key } = await ask(what, (abortSignal) => clientOf(keyId).send(command, { abortSignal }));
    if (!key?.Arn || regionOfKeyArn(key.Arn) === null)
      throw new KeyServiceError('refused', `${what}: the answer names no key`);
    return { arn: key.Arn, usable: key.Enabled === true && key.KeyUsage === 'ENCRYPT_DECRYPT', state: key.KeyState };
  };

  // An alias may be pointed elsewhere, so what ids and aliases stand for is asked anew when a record names another key.
  let known: readonly string[] = [];
  const learn = async (): Promise<{ unknown: KeyServiceError | undefined }> => {
    const arnOf = async (keyId: string) => (regionOfKeyArn(keyId) === null ? (await describe(keyId)).arn : keyId);
    const found = await Promise.allSettled(settings.keyIds.map(arnOf));
    known = found.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    return { unknown: found.find((each) => each.status === 'rejected')?.reason };
  };

  return {
    format: recordFormats.kms,

    async seal(plain, context) {
      const command = new EncryptCommand({
        KeyId: first,
        Plaintext: plain,
        EncryptionContext: { [contextName]: context },
      });
      const what = `sealing with ${first}`;
      const answer = await ask(what, (abortSignal) => clientOf(first).send(command, { abortSignal }));
      const { KeyId: arn = '', CiphertextBlob: sealed = new Uint8Array() } = answer;
      try {
        return packKmsRecord({ arn, sealed: Buffer.from(sealed) });
      } catch {
        throw new KeyServiceError('unreachable', `${what}: the answer is none of AWS KMS`);
      }
    },

    async unseal(record, context) {
      const { arn, sealed } = unpackKmsRecord(record);
      if (!known.includes(arn)) {
        const { unknown } = await learn();
        // One key that is gone does not close the others.
        if (!known.includes(arn)) throw unknown ?? notOurs(arn);
      }
      const command = new DecryptCommand({
        KeyId: arn,
        CiphertextBlob: sealed,
        EncryptionContext: { [contextName]: context },
      });
      const what = `opening what ${arn} sealed`;
      const answer = await ask(what, (abortSignal) => clientOf(arn).send(command, { abortSignal }));
      if (answer.KeyId !== arn || !answer.Plaintext)
        throw new KeyServiceError('unreachable', `${what}: the answer is none of AWS KMS`);
      return Buffer.from(answer.Plaintext);
    },

    async keys() {
      const { unknown } = await learn();
      if (unknown) throw unknown;
      return known;
    },

    async check() {
      const { arn, usable, state } = await describe(first);
      if (!usable) throw new KeyServiceError('refused', `the key ${arn} cannot seal: it is ${state}, or not for that`);
    },
  };
}

function notOurs(arn: string): KeyServiceError {
  const what = `a record is sealed with ${arn}, which is not among the keys of HOLDFAST_KMS_KEY_ID`;
  return new KeyServiceError('refused', what);
}

function createClient({ region, endpoint }: Omit<KmsSettings, 'keyIds'>, bounds: KmsBounds): KMSClient {
  return new KMSClient({
    ...(region && { region }),
    ...(endpoint && { endpoint }),
    maxAttempts: bounds.attemptsMax,
    retryMode: 'standard',
    // Without one the SDK writes to the console; everything it has to say comes as an error too.
    logger: silent,
    requestHandler: new NodeHttpHandler({
      httpAgent: { keepAlive: true, maxSockets: connectionsMax },
      httpsAgent: { keepAlive: true, maxSockets: connectionsMax },
      connectionTimeout: bounds.connectTimeoutMs,
      socketTimeout: bounds.attemptTimeoutMs,
      requestTimeout: bounds.attemptTimeoutMs,
      throwOnRequestTimeout: true,
    }),
  });
}

const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

/** 4xx codes that pass by themselves. */
const passing = new Set([
  'DependencyTimeoutException',
  'KMSInternalException',
  'KeyUnavailableException',
  'LimitExceededException',
  'ThrottlingException',
  'Throttling',
  'RequestLimitExceeded',
  'RequestTimeTooSkewed',
]);

/** The record is not what this key sealed under this context. */
const damage = new Set(['InvalidCiphertextException', 'IncorrectKeyException']);

interface SdkError extends Error {
  code?: unknown;
  $metadata?: { httpStatusCode?: number; requestId?: string };
  $response?: { statusCode?: number };
}

/**
 * What an error of AWS KMS means to us (AWS KMS API Reference, "Common errors" and those of Encrypt, Decrypt and
 * DescribeKey). The SDK's error itself goes no further: an answer it could not read may hang on it, with a key in it.
 * @param what was under way, for the operator
 */
function kmsFault(what: string, error: unknown): KeyServiceError {
  if (error instanceof KeyServiceError) return error;
  const { name, message, code, $metadata, $response } = error as SdkError;
  const status = $metadata?.httpStatusCode ?? $response?.statusCode;
  if (status === undefined) {
    // Without an answer it is the way there, or what the SDK needs before it asks: credentials, a region.
    const ours = name === 'CredentialsProviderError' || /region is missing/i.test(message);
    const told = typeof code === 'string' ? code : name;
    return new KeyServiceError(ours ? 'refused' : 'unreachable', `${what}: ${message || told}`);
  }
  // Not even its beginning is told: it may be that of a key.
  if (status < 400) return new KeyServiceError('unreachable', `${what}: the answer cannot be read`);
  const request = $metadata?.requestId === undefined ? '' : `, request ${$metadata.requestId}`;
  const said = `${what}: AWS KMS answered ${name} (${status}${request}): ${message}`;
  if (damage.has(name)) return new KeyServiceError('damaged', said);
  return new KeyServiceError(status >= 500 || status === 429 || passing.has(name) ? 'unreachable' : 'refused', said);
}
