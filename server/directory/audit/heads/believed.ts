/** What lies in the bucket about a log and was signed by us. What was not, or is not there, is a finding. */
import type { AuditKeys } from './audit-key.ts';
import type { Find } from './findings.ts';
import type { LogHead } from './log-rows.ts';
import { type AuditStorage, LogDisagrees, readOwn } from './sign-heads.ts';
import {
  type Bucket,
  type Distrust,
  type Document,
  type Expiry,
  type Head,
  keyOf,
  listSigned,
  type Resumption,
  readDocument,
  readSigned,
} from './signed.ts';

/** Documents of which there are few, in the order of their numbers. */
export async function believedOf<K extends 'expiry' | 'resumption'>(
  storage: Bucket,
  keys: AuditKeys,
  of: { kind: K; tenant: number },
  find: Find,
): Promise<(K extends 'expiry' ? Expiry : Resumption)[]> {
  const all: (Expiry | Resumption)[] = [];
  for await (const { key, number } of listSigned(storage, of)) {
    const read = readSigned<'expiry' | 'resumption'>(keys, of.kind, {
      key,
      text: (await readDocument(storage.objects, key)) ?? '',
    });
    if (typeof read === 'string') find('head_forged', number, null, forgedIn(key, read));
    else all.push(read.content);
  }
  return all as (K extends 'expiry' ? Expiry : Resumption)[];
}

const forgedIn = (key: string, why: Distrust): string =>
  `${key} in the bucket ${why === 'unknown_key' ? 'was signed with a key that is not in the key file' : `proves nothing (${why})`}`;

const headsAtATime = 32;

/** Every head, in order; each has to name the one before it. */
export async function* believedHeads(
  storage: Bucket,
  keys: AuditKeys,
  tenant: number,
  find: Find,
): AsyncGenerator<Head, undefined> {
  let before: Document<Head> | null = null;
  for await (const batch of batches(listSigned(storage, { kind: 'head', tenant }), headsAtATime)) {
    const texts = await Promise.all(batch.map(({ key }) => readDocument(storage.objects, key)));
    for (const [i, { key, number }] of batch.entries()) {
      const read: Document<Head> | Distrust = readSigned(keys, 'head', { key, text: texts[i] ?? '' });
      if (typeof read === 'string') {
        find('head_forged', number, number, forgedIn(key, read));
        continue;
      }
      const { previous } = read.content;
      if (previous?.number !== before?.content.number || previous?.sha256 !== before?.sha256) {
        const gone = previous?.number ?? number;
        find('head_missing', gone, gone, `the head before ${number} is not in the bucket, or not the one it names`);
      }
      before = read;
      yield read.content;
    }
  }
  return undefined;
}

async function* batches<T>(all: AsyncIterable<T>, size: number): AsyncGenerator<T[]> {
  let batch: T[] = [];
  for await (const each of all) {
    batch.push(each);
    if (batch.length === size) {
      yield batch;
      batch = [];
    }
  }
  if (batch.length > 0) yield batch;
}

/** No head after it names the newest; the catalog remembers it. */
export async function findForgottenHead(
  storage: AuditStorage,
  keys: AuditKeys,
  { logHead, tenant, last }: { logHead: LogHead; tenant: number; last: Head | undefined },
  find: Find,
): Promise<void> {
  let own: Document<Head> | null;
  try {
    own = readOwn(keys, logHead, tenant);
  } catch (error) {
    if (!(error instanceof LogDisagrees)) throw error;
    find('head_forged', logHead.signedNumber, null, error.message);
    return;
  }
  if (!own || !logHead.signedStored || own.content.catalog !== storage.catalogId) return;
  const { number } = own.content;
  if (last && last.number > number) return; // it is named by the one after it
  if ((await readDocument(storage.objects, keyOf(own.content))) !== own.text)
    find('head_missing', number, number, 'the newest signed head is not in the bucket, or another is in its place');
}
