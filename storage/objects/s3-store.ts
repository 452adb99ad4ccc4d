/**
 * Objects in an S3-compatible bucket. Needs of the store only what every make has: PUT with a known length, GET with a
 * range, HEAD, DELETE, ListObjectsV2, and multipart uploads for large objects; read-after-write, as Amazon S3 has had
 * since 2020. A call is one attempt; faults say whether another may help.
 */

import type { Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  type CompletedPart,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { ConnectionSlots } from './connection-slots.ts';
import { bodyPieces, chunksLength, pieceGroups, releasingStream } from './object-body.ts';
import {
  type Cancellable,
  checkKey,
  checkKeyPrefix,
  checkPage,
  checkRange,
  type ObjectBody,
  type ObjectContent,
  type ObjectInfo,
  ObjectLengthMismatch,
  ObjectNotFound,
  type ObjectPage,
  type ObjectRange,
  ObjectRangeInvalid,
  type ObjectStore,
  ObjectStoreFault,
  objectLimits,
  type StoreInspection,
} from './object-store.ts';
import { chunksHash, type WireBody, wireBody } from './s3-body.ts';
import { bucketLifecycle, bucketVersioning } from './s3-bucket.ts';
import { createS3Client, type S3Options, s3Defaults } from './s3-client.ts';
import { answerOf, faultOf, saysNoSuchKey } from './s3-faults.ts';

/** S3 takes at most so many parts, and all but the last of at least 5 MiB ("Multipart upload limits"). */
const partsMax = 10_000;
const partBytesMin = 5 * 1024 * 1024;
/** Empty truncated pages that a listing walks over before it gives up: some stores answer so after many deletes. */
const emptyPagesMax = 1_000;
/** Time given to the abort of a multipart upload that failed. */
const abortUploadMsMax = 10_000;
/** Instead of a hash: the body is not part of the signature (AWS Signature Version 4). */
const unsignedPayload = 'UNSIGNED-PAYLOAD';

export class S3Store implements ObjectStore {
  private readonly client: S3Client;
  /** A read holds its slot for as long as its reader takes, so reads have their own: all else keeps going. */
  private readonly readSlots: ConnectionSlots;
  private readonly slots: ConnectionSlots;
  private readonly bucket: string;
  private readonly prefix: string;
  private readonly signPayload: boolean;
  private readonly multipart: { bytesMin: number; partBytes: number };
  private clock: { store: number; ours: number } | undefined;

  /** Connects only when it is first used. Throws a RangeError for options out of bounds. */
  constructor(options: S3Options, now: () => number = Date.now) {
    this.bucket = options.bucket;
    this.prefix = checkStorePrefix(options.prefix ?? '');
    this.signPayload = options.signPayload ?? options.endpoint?.startsWith('http:') ?? false;
    this.multipart = {
      bytesMin: options.multipartBytesMin ?? s3Defaults.multipartBytesMin,
      partBytes: options.multipartPartBytes ?? s3Defaults.multipartPartBytes,
    };
    if (this.multipart.partBytes < partBytesMin) throw new RangeError(`a part has at least ${partBytesMin} bytes`);
    const bounds = {
      count: options.concurrency ?? s3Defaults.concurrency,
      waitMsMax: options.slotWaitMsMax ?? s3Defaults.slotWaitMsMax,
    };
    this.readSlots = new ConnectionSlots(bounds);
    this.slots = new ConnectionSlots(bounds);
    this.client = createS3Client(options, (date) => {
      const store = Date.parse(date);
      if (!Number.isNaN(store)) this.clock = { store, ours: now() };
    });
  }

  async put(key: string, body: ObjectBody, options: Cancellable = {}): Promise<void> {
    const place = this.place(key);
    options.signal?.throwIfAborted();
    if (body.length > this.multipart.bytesMin) await this.putInParts(place, key, body, options.signal);
    else await this.putWhole(place, key, body, options.signal);
  }

  async get(key: string, range?: ObjectRange, options: Cancellable = {}): Promise<ObjectContent> {
    const place = this.place(key);
    if (range) checkRange(key, range);
    const release = await this.readSlots.take(options.signal);
    let answer: GetObjectCommandOutput;
    try {
      const Range = range && `bytes=${range.offset}-${range.offset + range.length - 1}`;
      answer = await this.client.send(new GetObjectCommand({ ...place, ...(Range && { Range }) }), {
        ...(options.signal && { abortSignal: options.signal }),
      });
    } catch (error) {
      release();
      options.signal?.throwIfAborted();
      if (saysNoSuchKey(error)) throw new ObjectNotFound(key, { cause: error });
      if (range && answerOf(error).status === 416) throw new ObjectRangeInvalid(key, range, { cause: error });
      throw faultOf(`get ${key}`, error);
    }
    const body = answer.Body as Readable;
    // The socket's own end, however it comes about, gives the place back.
    body.once('close', release);
    body.once('error', release);
    const wrong = range && rangeProblem(key, range, answer);
    if (wrong) {
      body.destroy();
      throw wrong;
    }
    const length = answer.ContentLength ?? 0;
    return {
      length,
      stream: releasingStream(receivedPieces(key, body, length, options.signal), () => {
        body.destroy();
        release();
      }),
    };
  }

  async head(key: string): Promise<ObjectInfo | null> {
    const place = this.place(key);
    try {
      const found = await this.withSlot(() => this.client.send(new HeadObjectCommand(place)));
      return { key, length: found.ContentLength ?? 0, modifiedAt: found.LastModified ?? new Date(0) };
    } catch (error) {
      if (answerOf(error).status !== 404) throw faultOf(`head ${key}`, error);
    }
    // An answer to HEAD has no body that could say what is missing: ask whether it is the bucket.
    await this.withSlot(() => this.check());
    return null;
  }

  async delete(key: string): Promise<void> {
    const place = this.place(key);
    try {
      await this.withSlot(() => this.client.send(new DeleteObjectCommand(place)));
    } catch (error) {
      if (!saysNoSuchKey(error)) throw faultOf(`delete ${key}`, error);
    }
  }

  async list(prefix: string, page: { after?: string; limit: number }): Promise<ObjectPage> {
    const { after, limit } = checkPage(page);
    const request = {
      Bucket: this.bucket,
      Prefix: this.prefix + checkKeyPrefix(prefix),
      MaxKeys: limit,
      ...(after && { StartAfter: this.prefix + after }),
    };
    let token: string | undefined;
    for (let pages = 0; pages < emptyPagesMax; pages++) {
      const command = new ListObjectsV2Command({ ...request, ...(token && { ContinuationToken: token }) });
      const answer = await this.withSlot(() => this.client.send(command)).catch((error) => {
        throw faultOf(`list ${prefix}`, error);
      });
      const objects = (answer.Contents ?? []).map((found) => ({
        key: found.Key!.slice(this.prefix.length),
        length: found.Size ?? 0,
        modifiedAt: found.LastModified ?? new Date(0),
      }));
      const more = answer.IsTruncated === true;
      if (objects.length > 0 || !more) return { objects, more };
      token = answer.NextContinuationToken;
      if (!token) break;
    }
    throw new ObjectStoreFault(`list ${prefix}: the store goes on without an object`, { retryable: false });
  }

  /** Waits behind no other request: that the store is busy does not mean that it cannot be used. */
  async check(): Promise<void> {
    const command = new HeadBucketCommand({ Bucket: this.bucket });
    await this.client.send(command).catch((error) => {
      throw faultOf(`bucket ${this.bucket}`, error);
    });
  }

  async inspect(): Promise<StoreInspection> {
    await this.check();
    const about = { client: this.client, bucket: this.bucket, prefix: this.prefix };
    const versioning = await bucketVersioning(about);
    const lifecycleRules = await bucketLifecycle(about);
    const clock = this.clock;
    return {
      kind: 's3',
      ...(versioning && { versioning }),
      ...(lifecycleRules && { lifecycleRules }),
      ...(clock && { clockAheadMs: clock.store - clock.ours }),
    };
  }

  async close(): Promise<void> {
    this.client.destroy();
  }

  private place(key: string): Place {
    const whole = this.prefix + checkKey(key);
    if (whole.length > objectLimits.keyBytesMax)
      throw new RangeError(`with the store's prefix the key is too long: ${key}`);
    return { Bucket: this.bucket, Key: whole };
  }

  private async putWhole(place: Place, key: string, body: ObjectBody, signal?: AbortSignal): Promise<void> {
    await this.sendBody(key, body, signal, async (wire, options) => {
      await this.client.send(signedAs(wire.hash, new PutObjectCommand({ ...place, ...wire.input })), options);
    });
  }

  private async putInParts(place: Place, key: string, body: ObjectBody, signal?: AbortSignal): Promise<void> {
    if ('chunks' in body && chunksLength(body.chunks) !== body.length) throw new ObjectLengthMismatch(key, body.length);
    const partBytes = Math.max(this.multipart.partBytes, Math.ceil(body.length / partsMax));
    const created = await this.withSlot(() => this.client.send(new CreateMultipartUploadCommand(place))).catch(
      (error) => {
        throw faultOf(`put ${key}`, error);
      },
    );
    const upload = { ...place, UploadId: created.UploadId };
    try {
      const parts: CompletedPart[] = [];
      for await (const chunks of pieceGroups(bodyPieces(key, body, signal), partBytes)) {
        const PartNumber = parts.length + 1;
        const part: ObjectBody = { length: chunksLength(chunks), chunks };
        const sent = await this.sendBody(key, part, signal, (wire, options) =>
          this.client.send(
            signedAs(wire.hash, new UploadPartCommand({ ...upload, PartNumber, ...wire.input })),
            options,
          ),
        );
        parts.push({ PartNumber, ETag: sent.ETag });
      }
      signal?.throwIfAborted();
      const complete = new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts: parts } });
      await this.withSlot(() => this.client.send(complete)).catch((error) => {
        throw faultOf(`put ${key}`, error);
      });
    } catch (error) {
      // Best effort: what stays is invisible, and the bucket's rule for unfinished uploads removes it.
      const limit = { abortSignal: AbortSignal.timeout(abortUploadMsMax) };
      await this.client.send(new AbortMultipartUploadCommand(upload), limit).catch(() => {});
      throw error;
    }
  }

  /** Sends a request with a body. A body that fails ends the request, and its own error is what is thrown. */
  private async sendBody<T>(
    key: string,
    body: ObjectBody,
    signal: AbortSignal | undefined,
    send: (wire: { input: WireInput; hash: string }, options: { abortSignal: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    const hash = 'chunks' in body && this.signPayload ? await chunksHash(body.chunks) : unsignedPayload;
    const release = await this.slots.take(signal);
    const stop = new AbortController();
    const abortSignal = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
    let wire: WireBody | undefined;
    try {
      wire = wireBody(key, body, signal);
      const input = { Body: wire.data, ContentLength: body.length };
      return await Promise.race([send({ input, hash }, { abortSignal }), wire.failed]);
    } catch (error) {
      stop.abort();
      signal?.throwIfAborted();
      if (!wire || wire.failure() === error) throw error;
      throw faultOf(`put ${key}`, error);
    } finally {
      wire?.end();
      release();
    }
  }

  private async withSlot<T>(call: () => Promise<T>): Promise<T> {
    const release = await this.slots.take();
    try {
      return await call();
    } finally {
      release();
    }
  }
}

interface Place {
  Bucket: string;
  Key: string;
}

interface WireInput {
  Body: Buffer | Readable;
  ContentLength: number;
}

/** The hash under which the request is signed; the SDK would otherwise read every buffer to compute one. */
function signedAs<C extends PutObjectCommand | UploadPartCommand>(hash: string, command: C): C {
  // Both commands have the same kind of stack; their types only differ in what they carry.
  (command as unknown as PutObjectCommand).middlewareStack.add(
    (next) => (args) => {
      (args.request as { headers: Record<string, string> }).headers['x-amz-content-sha256'] = hash;
      return next(args);
    },
    { step: 'build', name: 'signPayloadAs' },
  );
  return command;
}

/** What is wrong with the answer to a ranged GET: a store may cut a range at the object's end, or ignore it. */
function rangeProblem(key: string, range: ObjectRange, answer: GetObjectCommandOutput): Error | undefined {
  const [, start, end] = /^bytes (\d+)-(\d+)\//.exec(answer.ContentRange ?? '') ?? [];
  if (start === undefined) {
    // Without a Content-Range the answer is the whole object: right only if that is what was asked for.
    if (range.offset === 0 && answer.ContentLength === range.length) return undefined;
    return new ObjectStoreFault(`get ${key}: the store does not serve ranges`, { retryable: false });
  }
  if (Number(start) === range.offset && Number(end) === range.offset + range.length - 1) return undefined;
  return new ObjectRangeInvalid(key, range);
}

async function* receivedPieces(
  key: string,
  body: Readable,
  length: number,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let received = 0;
  try {
    for await (const piece of body as AsyncIterable<Buffer>) {
      received += piece.byteLength;
      yield piece;
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw faultOf(`get ${key}`, error);
  }
  if (received !== length) {
    throw new ObjectStoreFault(`get ${key}: ${received} of ${length} bytes came`, {
      retryable: true,
      code: 'IncompleteBody',
    });
  }
}

function checkStorePrefix(prefix: string): string {
  if (prefix !== '' && !prefix.endsWith('/')) throw new RangeError(`the store's prefix must end in '/': ${prefix}`);
  return checkKeyPrefix(prefix);
}
