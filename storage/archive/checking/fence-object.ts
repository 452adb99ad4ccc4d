/**
 * The bucket's half of the fence: an object with a nonce, and the mark that two catalogs claim one bucket. Both are small
 * JSON, for people who look into the bucket.
 */
import { randomBytes } from 'node:crypto';
import type { ObjectStore } from '../../objects/object-store.ts';
import { readText } from '../../objects/read-text.ts';
import type { Storage } from '../../storage.ts';

type Bucket = Pick<Storage, 'objects' | 'catalogId'>;

export const fenceKey = (catalogId: string): string => `${catalogId}/fence`;
export const contestedKey = (catalogId: string): string => `${catalogId}/contested`;

export const freshNonce = (): string => randomBytes(16).toString('hex');

export interface BucketSide {
  /** Null: there is no such object. Empty: one that is none of ours. */
  nonce: string | null;
  /** By the store's clock; null when there is no object. */
  modifiedAt: Date | null;
  /** The text of the mark; null when there is none. */
  mark: string | null;
}

export async function readBucketSide({ objects, catalogId }: Bucket): Promise<BucketSide> {
  // At once: this is asked before every batch that deletes.
  const [info, text, mark] = await Promise.all([
    objects.head(fenceKey(catalogId)),
    readText(objects, fenceKey(catalogId), smallBytesMax),
    readText(objects, contestedKey(catalogId), smallBytesMax),
  ]);
  return { nonce: text === null ? null : nonceIn(text, catalogId), modifiedAt: info?.modifiedAt ?? null, mark };
}

export function putNonce({ objects, catalogId }: Bucket, nonce: string, at: Date): Promise<void> {
  return putJson(objects, fenceKey(catalogId), { catalogId, nonce, at });
}

/** Leaves the mark that stops every catalog of this bucket. */
export function putContested(
  { objects, catalogId }: Bucket,
  why: { foundAt: Date; expected: string | null; found: string | null },
): Promise<void> {
  return putJson(objects, contestedKey(catalogId), why);
}

/** What is not ours to understand is a nonce that nobody has. */
function nonceIn(text: string, catalogId: string): string {
  try {
    const found = JSON.parse(text) as { catalogId?: unknown; nonce?: unknown } | null;
    return found?.catalogId === catalogId && typeof found.nonce === 'string' ? found.nonce : '';
  } catch {
    return '';
  }
}

const smallBytesMax = 4_096;

async function putJson(objects: ObjectStore, key: string, value: object): Promise<void> {
  const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
  await objects.put(key, { length: bytes.byteLength, chunks: [bytes] });
}
