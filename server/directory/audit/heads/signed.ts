/**
 * What is signed about a log and lies in the bucket, where no owner of the database reaches it:
 * - a head: up to this number the log has this hash. Each names the one before it by number and hash;
 * - an expiry: up to this number acts have gone because their time was over;
 * - a resumption: acts were lost with a restored database, somebody answers for it, and the log goes on from here.
 * Each lies under a name of its own that is used once: `<catalog>/audit/<tenant>/<number>.json`, and the others in
 * `expired/` and `resumed/` below it. They hold no names of people, and are never deleted.
 */
import { z } from 'zod';
import { sha256 } from '../../../../protocol/hashes.ts';
import type { ObjectStore } from '../../../../storage/objects/object-store.ts';
import { readText } from '../../../../storage/objects/read-text.ts';
import type { Storage } from '../../../../storage/storage.ts';
import type { AuditKeys } from './audit-key.ts';

export type Bucket = Pick<Storage, 'objects' | 'catalogId'>;

const sha256Hex = z.string().regex(/^[0-9a-f]{64}$/);
const number = z.int().min(0);
const place = { format: z.literal(1), catalog: z.string(), tenant: number };

const Head = z.strictObject({
  kind: z.literal('head'),
  ...place,
  number,
  /** Of the act of that number. */
  hash: sha256Hex,
  /** Of that act, in microseconds since 1970 UTC. */
  at: z.string(),
  previous: z.strictObject({ number, sha256: sha256Hex }).nullable(),
});
const Expiry = z.strictObject({
  kind: z.literal('expiry'),
  ...place,
  /** Of the last act that has expired, and its hash: the first that is kept follows on it. */
  number,
  hash: sha256Hex,
  days: number,
});
const Resumption = z.strictObject({
  kind: z.literal('resumption'),
  ...place,
  /** Of the first act after the loss. */
  number,
  /** The last act before it that is there, and its hash: number follows on it. */
  follows: number,
  hash: sha256Hex,
  /** Up to this number the signed heads from before the loss hold. Those after it were of what is lost. */
  agreesTo: number,
  reason: z.string(),
});
const Envelope = z.strictObject({ signed: z.string(), key: z.string(), signature: z.string() });

export type Head = z.infer<typeof Head>;
export type Expiry = z.infer<typeof Expiry>;
export type Resumption = z.infer<typeof Resumption>;
type Signed = Head | Expiry | Resumption;
type Kind = Signed['kind'];

const shapes = { head: Head, expiry: Expiry, resumption: Resumption } as const;
const folders: Record<Kind, string> = { head: '', expiry: 'expired/', resumption: 'resumed/' };

/** A document as it lies in the bucket. */
export interface Document<Content extends Signed = Signed> {
  content: Content;
  text: string;
  /** Of what is signed, in hex: how the next head names it. */
  sha256: string;
}

export const auditPrefix = (catalogId: string): string => `${catalogId}/audit/`;
const numberDigits = 16; // 2^53 has 16: so the order of names is that of numbers
export function keyOf({
  kind,
  catalog,
  tenant,
  number,
}: Pick<Signed, 'kind' | 'catalog' | 'tenant' | 'number'>): string {
  return `${auditPrefix(catalog)}${tenant}/${folders[kind]}${String(number).padStart(numberDigits, '0')}.json`;
}

/** @throws RangeError when these keys sign nothing */
export function signed<Content extends Signed>(keys: AuditKeys, content: Content): Document<Content> {
  if (!keys.signer) throw new RangeError('the audit key file holds no private key');
  const text = JSON.stringify(content);
  const envelope = { signed: text, key: keys.signer.keyId, signature: keys.signer.sign(text).toString('base64') };
  return { content, text: `${JSON.stringify(envelope)}\n`, sha256: hashOf(text) };
}

const hashOf = (text: string): string => sha256(Buffer.from(text, 'utf8')).toString('hex');

/** Why a document proves nothing. */
export type Distrust = 'unreadable' | 'unknown_key' | 'wrong_signature' | 'wrong_place';

/** @returns the document, or why it cannot be believed */
export function readSigned<K extends Kind>(
  keys: AuditKeys,
  kind: K,
  { key, text }: { key: string; text: string },
): Document<Extract<Signed, { kind: K }>> | Distrust {
  const envelope = Envelope.safeParse(parsed(text));
  if (!envelope.success) return 'unreadable';
  const { signed: inner, key: keyId, signature } = envelope.data;
  const isRight = keys.verify(keyId, inner, Buffer.from(signature, 'base64'));
  if (isRight === null) return 'unknown_key';
  if (!isRight) return 'wrong_signature';
  const content = shapes[kind].safeParse(parsed(inner));
  if (!content.success) return 'unreadable';
  if (keyOf(content.data) !== key) return 'wrong_place';
  return { content: content.data as Extract<Signed, { kind: K }>, text, sha256: hashOf(inner) };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const bytesMax = 16_384;

/** @returns null when there is none; what is too long to be ours is cut */
export function readDocument(objects: ObjectStore, key: string): Promise<string | null> {
  return readText(objects, key, bytesMax);
}

/** Stores a document. Repeated it writes the same bytes, since signatures of Ed25519 hold nothing random. */
export async function putSigned({ objects }: Pick<Bucket, 'objects'>, { content, text }: Document): Promise<void> {
  const bytes = Buffer.from(text, 'utf8');
  await objects.put(keyOf(content), { length: bytes.byteLength, chunks: [bytes] });
}

const pageKeys = 1_000;

/** The names of documents of one kind, in the order of their numbers. @param after of a number above this one */
export async function* listSigned(
  { objects, catalogId }: Bucket,
  { kind, tenant, after = -1 }: { kind: Kind; tenant: number; after?: number },
): AsyncGenerator<{ key: string; number: number }> {
  const prefix = `${auditPrefix(catalogId)}${tenant}/${folders[kind]}`;
  const last = keyOf({ kind, catalog: catalogId, tenant, number: Math.max(after, 0) });
  for (let from = after < 0 ? prefix : last; ; ) {
    const page = await objects.list(prefix, { after: from, limit: pageKeys });
    for (const { key } of page.objects) {
      const found = /^(\d{16})\.json$/.exec(key.slice(prefix.length));
      if (found) yield { key, number: Number(found[1]) };
      else if (kind === 'head' && key.slice(prefix.length) > 'a') return; // the folders come after every number
    }
    if (!page.more || page.objects.length === 0) return;
    from = page.objects.at(-1)!.key;
  }
}

/** Whose logs the bucket has something of. One request each. */
export async function tenantsInBucket({ objects, catalogId }: Bucket): Promise<number[]> {
  const prefix = auditPrefix(catalogId);
  const tenants: number[] = [];
  for (let after = prefix; ; ) {
    const { objects: page } = await objects.list(prefix, { after, limit: 1 });
    const name = page[0]?.key.slice(prefix.length).split('/')[0];
    if (name === undefined) return tenants;
    if (/^(?:0|[1-9]\d{0,15})$/.test(name)) tenants.push(Number(name));
    // 'z' comes after every name in a tenant's folder.
    after = `${prefix}${name}/z`;
    if (page[0]!.key > after) after = page[0]!.key;
  }
}
