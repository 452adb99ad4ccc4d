/**
 * Signs the head of every log that has moved, and puts it into the bucket. Nothing is signed that does not follow from
 * what was signed before: the acts since then are read and hashed first, and the newest head in the bucket has to be the
 * one the catalog remembers. So the key never vouches for two histories of one log.
 *
 * The document is entered in the catalog before it is put into the bucket, by whoever comes first; everybody puts the one
 * that is entered, which is the same bytes each time. The fence keeps a copy of the catalog from signing at all.
 */
import type { Storage } from '../../../../storage/storage.ts';
import { actHash, noHash } from '../act-bytes.ts';
import { tellAltered } from './altered-alert.ts';
import type { AuditKeys } from './audit-key.ts';
import { actsAfter, enterSignedHead, type LogHead, listLogs, noteHeadStored, readLogHead } from './log-rows.ts';
import {
  type Document,
  type Head,
  keyOf,
  listSigned,
  putSigned,
  type Resumption,
  readDocument,
  readSigned,
  signed,
} from './signed.ts';

export type AuditStorage = Pick<Storage, 'database' | 'objects' | 'catalogId'>;

/** What the log says now and what was signed before are two histories. */
export class LogDisagrees extends Error {
  override name = 'LogDisagrees';
}

export type SignResult = {
  /** Logs looked at. */
  logs: number;
  /** Heads signed. */
  signed: number;
  /** Heads that were gone from the bucket, and are there again. */
  putBack: number;
  /** Logs that do not agree with what was signed before; there is an alert. */
  refused: number;
};

export interface SignOptions {
  signal?: AbortSignal;
  /** At most so many acts between two heads. */
  actsMax?: number;
}

/**
 * Every log. What is wrong with one does not keep the others from being signed.
 * @param fence asked before each log that has something to sign
 * @throws DeletingStopped, when the fence does not hold
 */
export async function signHeads(
  storage: AuditStorage,
  keys: AuditKeys,
  fence: { assertHeld(): Promise<void> },
  options: SignOptions = {},
): Promise<SignResult> {
  const result = { logs: 0, signed: 0, putBack: 0, refused: 0 };
  const wrong: { tenant: number; detail: string }[] = [];
  for (const tenant of await listLogs(storage.database)) {
    if (options.signal?.aborted) return result;
    result.logs++;
    try {
      const done = await signLog(storage, keys, tenant, { fence, ...options });
      result.signed += done.signed;
      result.putBack += done.putBack;
    } catch (error) {
      if (!(error instanceof LogDisagrees)) throw error;
      result.refused++;
      wrong.push({ tenant, detail: error.message });
    }
  }
  await tellAltered(storage.database, wrong);
  return result;
}

const actsBetweenHeadsMax = 100_000;

async function signLog(
  storage: AuditStorage,
  keys: AuditKeys,
  tenant: number,
  { fence, signal, actsMax = actsBetweenHeadsMax }: SignOptions & { fence: { assertHeld(): Promise<void> } },
): Promise<{ signed: number; putBack: number }> {
  const done = { signed: 0, putBack: 0 };
  while (!signal?.aborted) {
    const head = await readLogHead(storage.database, tenant);
    if (!head || head.number === 0) return done;
    if (head.number < head.signedNumber)
      throw new LogDisagrees(`the log ends at ${head.number}, and was signed up to ${head.signedNumber}`);
    const last = readOwn(keys, head, tenant);
    const isOurs = last?.content.catalog === storage.catalogId;
    if (isOurs && head.signedStored && head.number === head.signedNumber) return done;
    await fence.assertHeld();
    await refuseOtherHeads(storage, tenant, isOurs ? last : null);
    if (isOurs) done.putBack += await putAgain(storage, head, last);
    if (isOurs && head.number === head.signedNumber) return done;

    const upTo = Math.min(head.number, (last?.content.number ?? 0) + actsMax);
    const end = await walk(
      storage,
      { tenant, from: await startAfter(storage, keys, tenant, last), upTo, head },
      signal,
    );
    const previous = isOurs ? { number: last.content.number, sha256: last.sha256 } : null;
    const place = { format: 1 as const, catalog: storage.catalogId, tenant };
    const next = signed<Head>(keys, { kind: 'head', ...place, ...end, previous });
    const entered = { number: end.number, document: next.text, before: head.signedDocument };
    if (await enterSignedHead(storage.database, tenant, entered)) done.signed++;
    // The next round puts it into the bucket, or that of whoever was first.
  }
  return done;
}

/** The newest signed head that the catalog remembers. @throws LogDisagrees when it was not signed with a key of ours */
export function readOwn(keys: AuditKeys, head: LogHead, tenant: number): Document<Head> | null {
  if (head.signedDocument === null) return null;
  // Of another catalog before "adopt --own-prefix", perhaps.
  const key = keyOf({ kind: 'head', catalog: catalogOf(head.signedDocument), tenant, number: head.signedNumber });
  const read = readSigned(keys, 'head', { key, text: head.signedDocument });
  if (typeof read === 'string')
    throw new LogDisagrees(
      `the signed head ${head.signedNumber} that the catalog remembers is not one of ours (${read})`,
    );
  return read;
}

function catalogOf(document: string): string {
  try {
    return (JSON.parse((JSON.parse(document) as { signed: string }).signed) as Head).catalog;
  } catch {
    return ''; // which no catalog is named, so that it is not believed
  }
}

/** @returns 1 when it had been there */
async function putAgain(storage: AuditStorage, head: LogHead, last: Document<Head>): Promise<number> {
  const there = await readDocument(storage.objects, keyOf(last.content));
  if (there !== null && there !== last.text)
    throw new LogDisagrees(`the head ${head.signedNumber} in the bucket is another than the catalog remembers`);
  if (there === null) await putSigned(storage, last);
  if (!head.signedStored) await noteHeadStored(storage.database, last.content.tenant, last.text);
  return there === null && head.signedStored ? 1 : 0;
}

/** A head that is newer than the one we remember was signed by us before the catalog went back, or by nobody. */
async function refuseOtherHeads(storage: AuditStorage, tenant: number, last: Document<Head> | null): Promise<void> {
  const after = last?.content.number ?? -1;
  for await (const { number } of listSigned(storage, { kind: 'head', tenant, after }))
    throw new LogDisagrees(
      `the bucket holds a signed head ${number}, and the catalog knows of none after ${Math.max(after, 0)}: acts were lost. ` +
        'See "audit verify"; if the database was restored to an earlier moment, "audit resume" goes on',
    );
}

/** Where the acts that are not signed yet begin: after the last head, or where the log was resumed since. */
async function startAfter(
  storage: AuditStorage,
  keys: AuditKeys,
  tenant: number,
  last: Document<Head> | null,
): Promise<{ number: number; hash: Buffer }> {
  const after = last?.content.number ?? 0;
  const resumed = (await readResumptions(storage, keys, tenant, after)).at(-1);
  if (resumed) return { number: resumed.number - 1, hash: Buffer.from(resumed.hash, 'hex') };
  return { number: after, hash: last ? Buffer.from(last.content.hash, 'hex') : noHash };
}

/** Those above a number, in order. @throws LogDisagrees when one was not signed with a key of ours */
export async function readResumptions(
  storage: AuditStorage,
  keys: AuditKeys,
  tenant: number,
  after: number,
): Promise<Resumption[]> {
  const all: Resumption[] = [];
  for await (const { key } of listSigned(storage, { kind: 'resumption', tenant, after })) {
    const read = readSigned(keys, 'resumption', { key, text: (await readDocument(storage.objects, key)) ?? '' });
    if (typeof read === 'string') throw new LogDisagrees(`${key} in the bucket is not one of ours (${read})`);
    all.push(read.content);
  }
  return all;
}

/** Reads on and hashes. @returns the end, to be signed. @throws LogDisagrees */
async function walk(
  { database }: AuditStorage,
  { tenant, from, upTo, head }: { tenant: number; from: { number: number; hash: Buffer }; upTo: number; head: LogHead },
  signal?: AbortSignal,
): Promise<Pick<Head, 'number' | 'hash' | 'at'>> {
  let { number, hash } = from;
  let at = '';
  if (number >= upTo) {
    // Signed under an earlier prefix, and nothing since.
    for await (const act of actsAfter(database, { tenant, after: number - 1 }, signal)) {
      at = act.at;
      break;
    }
    return { number, hash: hash.toString('hex'), at };
  }
  for await (const act of actsAfter(database, { tenant, after: number }, signal)) {
    if (Number(act.number) !== number + 1) break;
    const expected = actHash(hash, act);
    if (!expected.equals(act.hash)) throw new LogDisagrees(`act ${act.number} does not follow from the one before it`);
    number++;
    ({ hash, at } = act);
    if (number === upTo) break;
  }
  if (number < upTo) throw new LogDisagrees(`acts from ${number + 1} on are missing`);
  if (number === head.number && !hash.equals(head.hash))
    throw new LogDisagrees(`act ${number} is not the one the log's head names`);
  return { number, hash: hash.toString('hex'), at };
}
