/**
 * As much of AWS KMS as the server uses, for tests: a small HTTP server that speaks its JSON 1.1 shapes (AWS KMS API
 * Reference: Encrypt, Decrypt, DescribeKey and their errors) and checks every request's Signature Version 4 with code of
 * its own (AWS General Reference, "Signing AWS API requests"), written without the SDK that it checks. Its keys are as
 * good as KMS's: what one sealed opens with it alone, under the same encryption context.
 */
import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes, randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface SignedRequest {
  method: string;
  /** With its query, as it was sent. */
  path: string;
  headers: Readonly<Record<string, string>>;
  body: Buffer;
}

export interface Credential {
  accessKeyId: string;
  secretAccessKey: string;
}

/** Past this a request is refused, whatever its signature (AWS: 5 minutes for most services). */
const skewMsMax = 5 * 60_000;
const algorithm = 'AWS4-HMAC-SHA256';

const sha256Hex = (bytes: string | Buffer): string => createHash('sha256').update(bytes).digest('hex');
const hmac = (key: string | Buffer, text: string): Buffer => createHmac('sha256', key).update(text).digest();

/** Task 1: method, path, query, the signed headers, their names, the hash of the body. */
export function canonicalRequest(request: SignedRequest, signedHeaders: readonly string[]): string {
  const [path = '/', query = ''] = request.path.split('?');
  const headers = signedHeaders.map((name) => `${name}:${(request.headers[name] ?? '').trim().replace(/ +/g, ' ')}\n`);
  const sortedQuery = query.split('&').filter(Boolean).sort().join('&');
  const hash = sha256Hex(request.body);
  return [request.method, path || '/', sortedQuery, headers.join(''), signedHeaders.join(';'), hash].join('\n');
}

/** Tasks 2 and 3. @param scope date/region/service/aws4_request */
export function signatureOf(secretAccessKey: string, scope: string, time: string, canonical: string): string {
  const stringToSign = [algorithm, time, scope, sha256Hex(canonical)].join('\n');
  const signingKey = scope.split('/').reduce<string | Buffer>((key, part) => hmac(key, part), `AWS4${secretAccessKey}`);
  return hmac(signingKey, stringToSign).toString('hex');
}

/** An answer with an error, as AWS words it. */
class AwsError extends Error {
  readonly status: number;
  readonly type: string;
  constructor(status: number, type: string, message: string) {
    super(message);
    this.status = status;
    this.type = type;
  }
}

/** @throws AwsError, unless the request was signed by this credential, for KMS in this region, just now */
function verifySignature(request: SignedRequest, expected: { credential: Credential; region: string; now: Date }) {
  const { authorization = '', 'x-amz-date': time = '' } = request.headers;
  const form = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/;
  const [, accessKeyId, scope = '', names = '', signature] = form.exec(authorization) ?? [];
  if (!signature)
    throw new AwsError(400, 'IncompleteSignatureException', 'Authorization header is missing or no SigV4');
  const { credential, region, now } = expected;
  if (accessKeyId !== credential.accessKeyId)
    throw new AwsError(400, 'UnrecognizedClientException', 'The security token included in the request is invalid.');
  const [, y, mo, d, h, mi, s] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(time) ?? [];
  const signedAt = Date.parse(`${y}-${mo}-${d}T${h}:${mi}:${s}Z`);
  if (!(Math.abs(signedAt - now.getTime()) <= skewMsMax))
    throw new AwsError(403, 'InvalidSignatureException', `Signature expired or not yet current: ${time}`);
  if (scope !== `${time.slice(0, 8)}/${region}/kms/aws4_request`)
    throw new AwsError(403, 'InvalidSignatureException', `Credential should be scoped to ${region}/kms`);
  const signed = names.split(';');
  // Unsigned, these could be exchanged on the way.
  for (const name of ['host', 'x-amz-date', 'x-amz-target', 'content-type'])
    if (!signed.includes(name)) throw new AwsError(403, 'InvalidSignatureException', `${name} must be signed`);
  if (signatureOf(credential.secretAccessKey, scope, time, canonicalRequest(request, signed)) !== signature)
    throw new AwsError(
      403,
      'InvalidSignatureException',
      'The request signature we calculated does not match the signature you provided.',
    );
}

export interface KmsKey {
  arn: string;
  state: 'Enabled' | 'Disabled' | 'PendingDeletion';
  /** As a policy would: Decrypt is answered with AccessDeniedException. */
  mayDecrypt: boolean;
}

/** What becomes of the next requests, before anything else is looked at. */
export type Mishap = 'throttle' | 'fail' | 'silence' | 'cut' | 'nonsense';

export interface KmsServer {
  endpoint: string;
  region: string;
  credential: Credential;
  /** A key of its own, enabled. */
  addKey(alias?: string): KmsKey;
  pointAlias(alias: string, key: KmsKey): void;
  /** One for each of the next requests. */
  mishaps: Mishap[];
  /** Added to the server's clock. */
  skewMs: number;
  /** Operations that arrived, those with a mishap too. */
  operations: string[];
  /** Encryption contexts of requests that were answered. */
  contexts: Record<string, string>[];
  close(): Promise<void>;
}

interface Stored extends KmsKey {
  secret: Buffer;
}

const blobIdBytes = 16;

/** On a free port of this machine. */
export async function startKmsServer(): Promise<KmsServer> {
  const keys = new Map<string, Stored>();
  const aliases = new Map<string, string>();
  const held = new Set<ServerResponse>();
  const region = 'eu-test-1';

  const find = (keyId: string): Stored => {
    const id = keyId.replace(/^arn:aws:kms:[^:]+:\d+:/, '').replace(/^key\//, '');
    const key = keys.get(aliases.get(id) ?? id);
    if (!key) throw new AwsError(400, 'NotFoundException', `Key '${keyId}' does not exist`);
    return key;
  };
  const usable = (key: Stored): Stored => {
    if (key.state === 'Disabled') throw new AwsError(400, 'DisabledException', `${key.arn} is disabled.`);
    if (key.state !== 'Enabled') throw new AwsError(400, 'KMSInvalidStateException', `${key.arn} is pending deletion.`);
    return key;
  };
  const contextBytes = (context: Record<string, string> = {}): Buffer =>
    Buffer.from(JSON.stringify(Object.entries(context).sort()));
  const idOf = ({ arn }: KmsKey): Buffer => createHash('sha256').update(arn).digest().subarray(0, blobIdBytes);

  type Input = Record<'KeyId' | 'Plaintext' | 'CiphertextBlob', string> & {
    EncryptionContext?: Record<string, string>;
  };
  const operations: Record<string, (input: Input) => Record<string, unknown>> = {
    'TrentService.Encrypt'({ KeyId, Plaintext, EncryptionContext }) {
      const key = usable(find(KeyId));
      const plain = Buffer.from(Plaintext, 'base64');
      if (plain.byteLength < 1 || plain.byteLength > 4_096)
        throw new AwsError(400, 'ValidationException', 'Plaintext must have length between 1 and 4096');
      const nonce = randomBytes(12);
      const cipher = createCipheriv('aes-256-gcm', key.secret, nonce).setAAD(contextBytes(EncryptionContext));
      const parts = [idOf(key), nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()];
      return {
        KeyId: key.arn,
        CiphertextBlob: Buffer.concat(parts).toString('base64'),
        EncryptionAlgorithm: 'SYMMETRIC_DEFAULT',
      };
    },
    'TrentService.Decrypt'({ KeyId, CiphertextBlob, EncryptionContext }) {
      const blob = Buffer.from(CiphertextBlob, 'base64');
      const sealer = [...keys.values()].find((key) => idOf(key).equals(blob.subarray(0, blobIdBytes)));
      if (!sealer) throw new AwsError(400, 'InvalidCiphertextException', '');
      const key = usable(find(KeyId ?? sealer.arn));
      if (key !== sealer)
        throw new AwsError(
          400,
          'IncorrectKeyException',
          'The key ID in the request does not identify a CMK that can perform this operation.',
        );
      if (!key.mayDecrypt)
        throw new AwsError(
          400,
          'AccessDeniedException',
          `User is not authorized to perform: kms:Decrypt on ${key.arn}`,
        );
      try {
        const nonce = blob.subarray(blobIdBytes, blobIdBytes + 12);
        const decipher = createDecipheriv('aes-256-gcm', key.secret, nonce, { authTagLength: 16 });
        decipher.setAAD(contextBytes(EncryptionContext)).setAuthTag(blob.subarray(-16));
        const plain = Buffer.concat([decipher.update(blob.subarray(blobIdBytes + 12, -16)), decipher.final()]);
        return { KeyId: key.arn, Plaintext: plain.toString('base64'), EncryptionAlgorithm: 'SYMMETRIC_DEFAULT' };
      } catch {
        throw new AwsError(400, 'InvalidCiphertextException', '');
      }
    },
    'TrentService.DescribeKey'({ KeyId }) {
      const { arn, state } = find(KeyId);
      const Enabled = state === 'Enabled';
      return {
        KeyMetadata: { Arn: arn, KeyId: arn.split('/')[1], KeyState: state, Enabled, KeyUsage: 'ENCRYPT_DECRYPT' },
      };
    },
  };

  const respond = (request: SignedRequest): Record<string, unknown> => {
    verifySignature(request, { credential: server.credential, region, now: new Date(Date.now() + server.skewMs) });
    if (request.headers['content-type'] !== 'application/x-amz-json-1.1')
      throw new AwsError(404, 'UnknownOperationException', 'not JSON 1.1');
    const operation = operations[request.headers['x-amz-target'] ?? ''];
    if (!operation) throw new AwsError(404, 'UnknownOperationException', 'no such operation');
    const input = JSON.parse(request.body.toString('utf8')) as Input;
    const output = operation(input);
    if (input.EncryptionContext) server.contexts.push(input.EncryptionContext);
    return output;
  };

  const send = (response: ServerResponse, status: number, body: unknown, head: Record<string, string> = {}): void => {
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    response.writeHead(status, {
      'Content-Type': 'application/x-amz-json-1.1',
      'x-amzn-RequestId': randomUUID(),
      ...head,
    });
    response.end(text);
  };

  const listener = createServer(async (incoming, response) => {
    const request = await read(incoming).catch(() => null);
    if (!request) return;
    server.operations.push((request.headers['x-amz-target'] ?? '').replace('TrentService.', ''));
    const mishap = server.mishaps.shift();
    if (mishap === 'silence') held.add(response);
    else if (mishap === 'cut') response.destroy();
    else if (mishap === 'nonsense') send(response, 200, '{ "Plaintext": "c2VjcmV0');
    else if (mishap === 'fail') send(response, 500, { __type: 'KMSInternalException', message: 'try again' });
    else if (mishap === 'throttle') send(response, 400, { __type: 'ThrottlingException', message: 'Rate exceeded' });
    else {
      try {
        send(response, 200, respond(request));
      } catch (error) {
        if (!(error instanceof AwsError)) throw error;
        const { type: __type, message, status } = error;
        send(response, status, { __type, message }, { 'x-amzn-ErrorType': __type });
      }
    }
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));

  const server: KmsServer = {
    endpoint: `http://127.0.0.1:${(listener.address() as AddressInfo).port}`,
    region,
    credential: { accessKeyId: 'AKIDTEST', secretAccessKey: randomBytes(30).toString('base64') },
    addKey(alias) {
      const id = randomUUID();
      const arn = `arn:aws:kms:${region}:111122223333:key/${id}`;
      const key: Stored = { arn, state: 'Enabled', mayDecrypt: true, secret: randomBytes(32) };
      keys.set(id, key);
      if (alias) aliases.set(`alias/${alias}`, id);
      return key;
    },
    pointAlias: (alias, { arn }) => void aliases.set(`alias/${alias}`, arn.split('/')[1]!),
    mishaps: [],
    skewMs: 0,
    operations: [],
    contexts: [],
    async close() {
      for (const response of held) response.destroy();
      listener.closeAllConnections();
      await new Promise((resolve) => listener.close(resolve));
    },
  };
  return server;
}

async function read(incoming: IncomingMessage): Promise<SignedRequest> {
  const parts: Buffer[] = [];
  for await (const part of incoming) parts.push(part as Buffer);
  const headers = Object.fromEntries(
    Object.entries(incoming.headers).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.join(',') : (value ?? ''),
    ]),
  );
  return { method: incoming.method ?? '', path: incoming.url ?? '/', headers, body: Buffer.concat(parts) };
}
