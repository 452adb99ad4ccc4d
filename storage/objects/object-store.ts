/**
 * Bytes under keys: the one contract that every place for objects keeps, whatever stands behind it.
 * The comments on `ObjectStore` are promises, and `store-contract.ts` holds every implementation to them.
 * The engine never writes other bytes under a key it has used, so an overwrite always repeats the same bytes.
 */

/** What to store. `length` is in bytes and exact. `stream` is a function, so that a retry can start it again. */
export type ObjectBody =
  | { length: number; chunks: readonly Uint8Array[] }
  | { length: number; stream: () => AsyncIterable<Uint8Array> };

export interface ObjectInfo {
  key: string;
  /** Bytes. */
  length: number;
  /** By the store's clock. */
  modifiedAt: Date;
}

export interface ObjectContent {
  /** Bytes that `stream` will deliver: those of the range asked for, or of the whole object. */
  length: number;
  /**
   * Delivers exactly `length` bytes or throws; can be iterated once. It holds a connection or an open file until it
   * ended or was abandoned (`break`, or the iterator's `return`, also before the first `next`).
   */
  stream: AsyncIterable<Uint8Array>;
}

export interface ObjectRange {
  /** Bytes from the start of the object, 0 or more. */
  offset: number;
  /** Bytes, 1 or more; the range ends within the object. */
  length: number;
}

export interface ObjectPage {
  /** In the byte order of their keys. */
  objects: ObjectInfo[];
  /** There may be more after the last of `objects`; never false when there are. */
  more: boolean;
}

export interface Cancellable {
  signal?: AbortSignal;
}

/** A rule of the bucket that acts on objects without the engine. */
export interface LifecycleRule {
  id: string;
  /** Begins the keys the rule covers, as the bucket sees them. */
  prefix: string;
  /**
   * `expires`: deletes objects. `archives`: moves them where a GET does not reach them. `tidies`: touches only earlier
   * versions, unfinished uploads and the like.
   */
  effect: 'expires' | 'archives' | 'tidies';
}

/** What an operator should know about the place; absent where the place has no such thing or does not tell. */
export interface StoreInspection {
  kind: string;
  /** Bytes that can still be written. */
  freeBytes?: number;
  versioning?: 'enabled' | 'suspended' | 'off';
  /** The rules that cover keys of this store. */
  lifecycleRules?: LifecycleRule[];
  /** The store's clock less ours, in ms; a store's clock is read to the second. */
  clockAheadMs?: number;
}

export interface ObjectStore {
  /**
   * Durable when it returns, and from then on readable and listed. A body of another length than promised is refused
   * (`ObjectLengthMismatch`). Refused, aborted or failed, it leaves nothing partial under the key: either no object
   * or, when the outcome is unknown, the whole one.
   */
  put(key: string, body: ObjectBody, options?: Cancellable): Promise<void>;
  /** Throws `ObjectNotFound`, or `ObjectRangeInvalid` for a range that is empty or does not lie within the object. */
  get(key: string, range?: ObjectRange, options?: Cancellable): Promise<ObjectContent>;
  /** Null when there is no such object, and only then: a missing bucket or a refused sign-in throws. */
  head(key: string): Promise<ObjectInfo | null>;
  /** Gone when it returns; also when it was not there. */
  delete(key: string): Promise<void>;
  /**
   * Up to `limit` objects whose keys begin with `prefix` (which may end inside a name, or be empty) and come after
   * `after`. What is put or deleted meanwhile may or may not appear; everything else appears.
   */
  list(prefix: string, page: { after?: string; limit: number }): Promise<ObjectPage>;
  /** A cheap readiness probe; throws when the store cannot be used now. */
  check(): Promise<void>;
  /** For people and for `checkObjects`, not for decisions of the engine. */
  inspect(): Promise<StoreInspection>;
  /** Releases connections and files. No call may follow. */
  close(): Promise<void>;
}

/** There is no object under this key. The place itself was reached and answered for the key. */
export class ObjectNotFound extends Error {
  readonly key: string;

  constructor(key: string, options?: ErrorOptions) {
    super(`there is no object ${key}`, options);
    this.name = 'ObjectNotFound';
    this.key = key;
  }
}

/** The range is empty, negative, or does not lie within the object. */
export class ObjectRangeInvalid extends RangeError {
  constructor(key: string, range: ObjectRange, options?: ErrorOptions) {
    super(`object ${key} has no range of ${range.length} bytes at ${range.offset}`, options);
    this.name = 'ObjectRangeInvalid';
  }
}

/** A body delivered fewer or more bytes than it promised. */
export class ObjectLengthMismatch extends Error {
  constructor(key: string, promised: number, options?: ErrorOptions) {
    super(`the body of object ${key} does not have the promised ${promised} bytes`, options);
    this.name = 'ObjectLengthMismatch';
  }
}

export interface FaultDetails {
  /** The same call may succeed later: a lost connection, a timeout, a 5xx, a request to slow down. */
  retryable: boolean;
  /** What the store asked for, in ms. */
  retryAfterMs?: number;
  /** The HTTP status, where there was an answer. */
  status?: number;
  /** The store's own name for the fault. */
  code?: string;
}

/** The store failed or refused. The outcome of a `put` or `delete` that ends so is unknown. */
export class ObjectStoreFault extends Error {
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;
  readonly status: number | undefined;
  readonly code: string | undefined;

  constructor(message: string, details: FaultDetails, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ObjectStoreFault';
    this.retryable = details.retryable;
    this.retryAfterMs = details.retryAfterMs;
    this.status = details.status;
    this.code = details.code;
  }
}

export const objectLimits = {
  /** Bytes of a key, as S3 bounds them; a prefix configured for a bucket counts with it. */
  keyBytesMax: 1_024,
  /** Bytes of one name in a key. A directory store spells it with up to twice as many; file systems hold 255. */
  keyNameBytesMax: 120,
  /** Objects in one page of a listing, as S3 bounds them. */
  listObjectsMax: 1_000,
} as const;

// Of the characters that the S3 user guide calls safe in keys, those that every file system takes too.
const keyCharacters = /^[A-Za-z0-9._/-]*$/;

/**
 * Returns the key, or throws a RangeError. A key is names joined by '/': letters, digits and '.', '_', '-', no name
 * empty, '.' or '..' (so no '/' leads or ends it), each name at most 120 bytes and the key at most 1,024.
 */
export function checkKey(key: string): string {
  if (key.length === 0 || key.length > objectLimits.keyBytesMax || !keyCharacters.test(key)) refuseKey('key', key);
  for (const name of key.split('/')) {
    if (name === '' || name === '.' || name === '..' || name.length > objectLimits.keyNameBytesMax)
      refuseKey('key', key);
  }
  return key;
}

/** Returns the prefix of a listing, or throws a RangeError. A prefix is the beginning of a key, or nothing. */
export function checkKeyPrefix(prefix: string): string {
  if (prefix.length > objectLimits.keyBytesMax || !keyCharacters.test(prefix)) refuseKey('prefix', prefix);
  // The last name may go on, so it may be empty, or the beginning of a longer one.
  for (const name of prefix.split('/').slice(0, -1)) {
    if (name === '' || name === '.' || name === '..') refuseKey('prefix', prefix);
  }
  return prefix;
}

function refuseKey(what: string, key: string): never {
  throw new RangeError(`not a valid object ${what}: ${JSON.stringify(key.slice(0, 80))}`);
}

/** Returns the page's bounds checked; throws a RangeError. */
export function checkPage(page: { after?: string; limit: number }): { after: string; limit: number } {
  if (!Number.isInteger(page.limit) || page.limit < 1 || page.limit > objectLimits.listObjectsMax) {
    throw new RangeError(`a page has 1 to ${objectLimits.listObjectsMax} objects, not ${page.limit}`);
  }
  return { after: page.after ? checkKeyPrefix(page.after) : '', limit: page.limit };
}

/** Throws `ObjectRangeInvalid` unless the range has a first byte; whether it ends in time only the store knows. */
export function checkRange(key: string, range: ObjectRange): ObjectRange {
  const whole = Number.isSafeInteger(range.offset) && Number.isSafeInteger(range.length);
  if (!whole || range.offset < 0 || range.length < 1) throw new ObjectRangeInvalid(key, range);
  return range;
}
