/**
 * Seals everything anew (sealed/kinds.ts) that another key has sealed than the one that seals now, beside running servers.
 * A record is replaced only when its successor has been opened again and held the same, and only if it is still the one
 * that was read: so it may be stopped, repeated and run twice at a time, and never takes a secret away
 * (docs/decisions/keys.md).
 */
import { timingSafeEqual } from 'node:crypto';
import type { Database } from '../../../storage/catalog/database.ts';
import type { ActingParty, By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import type { Directory } from '../directory.ts';
import { type KeyService, KeyServiceError } from './key-service.ts';
import { sealingKeyOf } from './records.ts';
import { type SealedKind, type SealedRecord, sealedKinds } from './sealed/kinds.ts';

type Parts = Pick<Directory, 'database' | 'keys'>;

/** Records at a time: what a stop loses, and one transaction's length. */
const batchRecords = 100;
/** Requests to the key service at a time, of which each record takes three. */
const concurrentMax = 8;
const countPageRecords = 1_000;

export interface ResealProgress {
  /** Records that were looked at. */
  looked: number;
  resealed: number;
  /** Records that could not be opened, and why, by the name of the key that sealed them. */
  failed: Map<string, { records: number; why: string }>;
}

/**
 * @param by.party who asks; the acts `key.reseal` go into the log of each tenant
 * @param options.signal ends it between two batches
 * @param options.onProgress called after each batch with what has been done so far
 * @throws KeyServiceError unreachable: what was done stays done; the signal's reason
 */
export async function resealRecords(
  { database, keys }: Parts,
  by: { party: ActingParty },
  options: { signal?: AbortSignal; onProgress?: (progress: ResealProgress) => void } = {},
): Promise<ResealProgress> {
  const progress: ResealProgress = { looked: 0, resealed: 0, failed: new Map() };
  for (const kind of sealedKinds)
    for await (const batch of kind.pages(database, { pageRecords: batchRecords })) {
      options.signal?.throwIfAborted();
      const [sealing] = await keys.keys();
      const old = batch.filter((each) => nameOf(each) !== sealing);
      const fresh = await inSmallGroups(old, (each) => sealAnew(keys, each, progress));
      const ready = fresh.filter((each) => each !== null);
      for (const [tenant, ofTenant] of Map.groupBy(ready, ({ of }) => of.tenant))
        progress.resealed += await replaceAll(database, { ...by, tenant, address: null }, kind, ofTenant);
      progress.looked += batch.length;
      options.onProgress?.(progress);
    }
  return progress;
}

interface Resealed {
  of: SealedRecord;
  to: Buffer;
}

/** @returns null when it cannot be opened, which is noted */
async function sealAnew(keys: KeyService, of: SealedRecord, { failed }: ResealProgress): Promise<Resealed | null> {
  let plain: Buffer;
  try {
    plain = await keys.unseal(of.record, of.context);
  } catch (error) {
    if (!(error instanceof KeyServiceError) || error.kind === 'unreachable') throw error;
    const name = nameOf(of) ?? 'unknown';
    failed.set(name, { records: (failed.get(name)?.records ?? 0) + 1, why: error.message });
    return null;
  }
  const to = await keys.seal(plain, of.context);
  // A service may be allowed to seal and not to open. The old record goes only when the new one is as good.
  const again = await keys.unseal(to, of.context);
  if (again.byteLength !== plain.byteLength || !timingSafeEqual(again, plain))
    throw new KeyServiceError('refused', 'what was sealed anew does not open to the same secret');
  return { of, to };
}

/** Locks the rows of the records in the order of their ids, and the log's head last. */
function replaceAll(database: Database, by: By, kind: SealedKind, resealed: readonly Resealed[]): Promise<number> {
  return database.transaction(async (tx) => {
    const done: Resealed[] = [];
    for (const each of resealed) if (await each.of.replace(tx, each.to)) done.push(each);
    if (done.length === 0) return 0;
    const from = [...new Set(done.map(({ of }) => sealingKeyOf(of.record)))];
    const to = [...new Set(done.map((each) => sealingKeyOf(each.to)))];
    const details = { what: kind.name, records: done.length, from, to, [kind.ids]: done.map(({ of }) => of.id) };
    await record(tx, by, { action: 'key.reseal', target: null, organization: null, result: 'done', details });
    return done.length;
  });
}

export interface KeyCount {
  /** Null: records that name no key, damaged ones. */
  name: string | null;
  /** `seals`: new records too; `opens`; `missing`: the key is nowhere, and its records cannot be opened. */
  use: 'seals' | 'opens' | 'missing';
  records: number;
  /** The same by what is sealed. */
  of: Record<SealedKind['name'], number>;
}

/** Every key there is, or that a record names, and how many records it has sealed. @throws KeyServiceError */
export async function countSealedRecords({ database, keys }: Parts): Promise<KeyCount[]> {
  const none = () => Object.fromEntries(sealedKinds.map(({ name }) => [name, 0])) as KeyCount['of'];
  const known = await keys.keys();
  const counts = new Map<string | null, KeyCount['of']>(known.map((name) => [name, none()]));
  for (const kind of sealedKinds)
    for await (const page of kind.pages(database, { pageRecords: countPageRecords }))
      for (const each of page) {
        const name = nameOf(each);
        const ofKey = counts.get(name) ?? none();
        ofKey[kind.name]++;
        counts.set(name, ofKey);
      }
  const useOf = (name: string | null): KeyCount['use'] =>
    name === known[0] ? 'seals' : name !== null && known.includes(name) ? 'opens' : 'missing';
  return [...counts].map(([name, of]) => {
    const records = Object.values(of).reduce((sum, each) => sum + each, 0);
    return { name, use: useOf(name), records, of };
  });
}

function nameOf({ record: bytes }: SealedRecord): string | null {
  try {
    return sealingKeyOf(bytes);
  } catch (error) {
    if (error instanceof KeyServiceError) return null;
    throw error;
  }
}

async function inSmallGroups<T, R>(all: readonly T[], work: (each: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let at = 0; at < all.length; at += concurrentMax)
    results.push(...(await Promise.all(all.slice(at, at + concurrentMax).map(work))));
  return results;
}
