/**
 * Makes a catalog and a bucket agree again, after the catalog was restored from a backup or copied, when the person who
 * runs this says which of the two cases it is:
 *
 * - `over`: this catalog is the one the bucket belongs to. Live rows whose object is gone have their blocks marked
 *   damaged; objects that no row knows get one, from their footers, and heal what was marked if they hold it (compaction
 *   after the moment of the backup moved it there). Ids of vaults that were handed out after the backup, and whose objects
 *   lie in the bucket, are not handed out again. Then the fence is this catalog's, and the mark is removed.
 * - `own-prefix`: this catalog is a copy. It gets another name, and so a prefix of its own; under the old one it deletes
 *   and marks nothing.
 *
 * Each step can be repeated: interrupted, it is run again from the start. The fence comes last, so nothing is deleted
 * before everything that the bucket holds has a row.
 */
import { randomUUID } from 'node:crypto';
import { sha256 } from '../../../protocol/hashes.ts';
import {
  advanceVaultIds,
  countObjectsElsewhere,
  findObjectStates,
  insertFoundObject,
  type ObjectState,
  readLastVaultId,
  vaultExists,
} from '../../catalog/checking/adopting.ts';
import { liveObjectsBetween, readNow, vaultsAfter } from '../../catalog/checking/checking.ts';
import { readFence, replaceFence, setCatalogId } from '../../catalog/checking/fence.ts';
import { markBlocksDamaged } from '../../catalog/checking/mark-damaged.ts';
import type { Transaction } from '../../catalog/database.ts';
import { blocksOfObjects } from '../../catalog/deleting/compacting.ts';
import { catalogIsEmpty, recordObject } from '../../catalog/writing/blocks.ts';
import type { ObjectInfo } from '../../objects/object-store.ts';
import type { Storage } from '../../storage.ts';
import { decodeFooter, footerLength } from '../writing/object-footer.ts';
import { vaultOfKey, vaultsInBucket } from './compare-bucket.ts';
import { findDamageUsers } from './damage.ts';
import { fenceDefaults } from './fence.ts';
import { contestedKey, freshNonce, putNonce, readBucketSide } from './fence-object.ts';

export interface AdoptOptions {
  take: 'over' | 'own-prefix';
  /** Count what would be done, and do nothing. */
  dryRun?: boolean;
  /** Although workers of this catalog are running, or the bucket holds nothing of it. */
  force?: boolean;
  /** How often workers beat: one that was heard of in the last two beats is taken to be running. */
  beatMs?: number;
  pageMax?: number;
  signal?: AbortSignal;
  onProgress?: (line: string) => void;
}

export interface AdoptReport {
  take: 'over' | 'own-prefix';
  dryRun: boolean;
  /** The prefix of this catalog from now on. */
  catalogId: string;
  /** Objects found under this catalog's prefix. */
  listed: number;
  /** Of those, without a (live) row: given one now; and blocks that the catalog lacked, or had marked damaged. */
  adopted: number;
  adoptedBlocks: number;
  /** Objects that do not explain themselves: no row is made for them, and the next comparison deletes them. */
  unreadable: number;
  /** Not named as our objects are: left alone. */
  strange: number;
  /** Objects of vaults that the catalog does not know: left alone, and deleted by the next comparison. */
  ofUnknownVaults: number;
  /** Up to 100 of those vaults. */
  unknownVaults: number[];
  /** New vaults get higher ids than this, up to which the bucket holds objects; null: they would have anyway. */
  vaultIdsPast: number | null;
  /** Live rows without an object, and their blocks marked damaged. */
  missing: number;
  markedDamaged: number;
  /** With a prefix of its own: objects this catalog goes on needing that lie under another's, which may delete them. */
  leftBehind: number;
}

/** It would do harm now; the message says what to do first. */
export class AdoptRefused extends Error {
  override name = 'AdoptRefused';
}

const requestsMax = 8;
const vaultsPage = 100;
const rowsPage = 1_000;

/** @throws AdoptRefused */
export async function adopt(storage: Storage, options: AdoptOptions): Promise<AdoptReport> {
  if (!options.force && !options.dryRun) await refuseWhileRunning(storage, options.beatMs ?? fenceDefaults.beatMs);
  const report: AdoptReport = {
    take: options.take,
    dryRun: options.dryRun ?? false,
    catalogId: storage.catalogId,
    listed: 0,
    adopted: 0,
    adoptedBlocks: 0,
    unreadable: 0,
    strange: 0,
    ofUnknownVaults: 0,
    unknownVaults: [],
    vaultIdsPast: null,
    missing: 0,
    markedDamaged: 0,
    leftBehind: 0,
  };
  return options.take === 'over' ? takeOver(storage, options, report) : takeOwnPrefix(storage, options, report);
}

async function refuseWhileRunning({ database }: Storage, beatMs: number): Promise<void> {
  const { renewedAt, now } = await readFence(database);
  if (!renewedAt) return;
  // Renewed in the future: by a clock that was wrong, and nobody knows when.
  const sinceMs = now.getTime() - renewedAt.getTime();
  if (sinceMs >= 2 * beatMs || sinceMs < -2 * beatMs) return;
  throw new AdoptRefused(
    'a worker of this catalog renewed the fence a moment ago: stop all its processes, wait two minutes, and try again',
  );
}

async function takeOver(storage: Storage, options: AdoptOptions, report: AdoptReport): Promise<AdoptReport> {
  const { objects, catalogId, database } = storage;
  const { dryRun, force, onProgress = () => {} } = options;
  const anything = (await objects.list(`${catalogId}/blocks/`, { limit: 1 })).objects.length > 0;
  if (!anything && !force && !dryRun && !(await catalogIsEmpty(database)))
    throw new AdoptRefused(
      `there is no object under ${catalogId}/blocks/, but the catalog knows some: is this the right bucket?`,
    );

  onProgress('looking for objects that rows name and the bucket does not hold');
  for (let after = 0; ; ) {
    const page = await vaultsAfter(database, after, vaultsPage);
    for (const vault of page) await markMissing(storage, vault, options, report);
    if (page.length < vaultsPage) break;
    after = page.at(-1)!;
  }
  onProgress(`${report.missing} missing; looking for objects that the bucket holds and no row names`);
  let highest = 0;
  for await (const vault of vaultsInBucket(storage, new Set())) {
    await adoptVault(storage, vault, options, report);
    // Ids never come near 2^53, so a folder of a larger number is not ours, and would use them up.
    if (Number.isSafeInteger(vault + 1)) highest = Math.max(highest, vault);
  }
  onProgress(`${report.adopted} found`);
  if (dryRun) {
    report.vaultIdsPast = await vaultIdsBehind(database, highest);
    return report;
  }

  if (report.markedDamaged > 0) await findDamageUsers(storage);
  options.signal?.throwIfAborted();
  await takeFence(storage, async (tx) => {
    const behind = await vaultIdsBehind(tx, highest);
    report.vaultIdsPast ??= behind; // repeated, it finds them advanced
    if (behind !== null) await advanceVaultIds(tx, behind);
  });
  await objects.delete(contestedKey(catalogId));
  return report;
}

/** @returns the highest id of a vault in the bucket, when ids up to it may still be handed out; else null */
async function vaultIdsBehind(db: Transaction, highest: number): Promise<number | null> {
  return (await readLastVaultId(db)) < highest ? highest : null;
}

/** Pages of the bucket's objects of one vault. */
async function* listVault(
  { objects, catalogId }: Storage,
  vault: number,
  { pageMax = 1_000, signal }: AdoptOptions,
): AsyncGenerator<{ listed: ObjectInfo[]; after: string; upTo: string }> {
  const prefix = `${catalogId}/blocks/${vault}/`;
  for (let after = prefix; ; ) {
    signal?.throwIfAborted();
    const { objects: listed, more } = await objects.list(prefix, { after, limit: pageMax });
    if (more && listed.length === 0) throw new Error('the store lists nothing and says that there is more');
    const upTo = more ? listed.at(-1)!.key : `${prefix}z`;
    yield { listed, after, upTo };
    if (!more) return;
    after = upTo;
  }
}

async function markMissing(storage: Storage, vault: number, options: AdoptOptions, report: AdoptReport): Promise<void> {
  // Every row of the range, whenever it says its object came: the clock that dated it may have been ahead of this one,
  // and nobody looks for it again before commits name its blocks. What came after the listing is found by its name.
  const liveBefore = null;
  for await (const { listed, after, upTo } of listVault(storage, vault, options)) {
    const there = new Set(listed.map((object) => object.key));
    for (let from = after; ; ) {
      const page = { after: from, upTo, liveBefore, limit: rowsPage };
      const rows = await liveObjectsBetween(storage.database, vault, page);
      for (const row of rows) {
        if (there.has(row.key) || (await storage.objects.head(row.key)) || (await storage.objects.head(row.key)))
          continue;
        report.missing++;
        if (options.dryRun) continue;
        const blocks = await blocksOfObjects(storage.database, vault, [row.objectId]);
        const marked = await storage.database.transaction((tx) => markBlocksDamaged(tx, vault, blocks));
        report.markedDamaged += marked.length;
      }
      if (rows.length < rowsPage) break;
      from = rows.at(-1)!.key;
    }
  }
}

async function adoptVault(storage: Storage, vault: number, options: AdoptOptions, report: AdoptReport): Promise<void> {
  const isKnown = await vaultExists(storage.database, vault);
  if (!isKnown && report.unknownVaults.length < 100) report.unknownVaults.push(vault);
  for await (const { listed } of listVault(storage, vault, options)) {
    report.listed += listed.length;
    options.onProgress?.(`vault ${vault}: ${report.listed} objects so far, ${report.adopted} without a row`);
    if (!isKnown) {
      report.ofUnknownVaults += listed.length;
      continue;
    }
    const keys = listed.map((object) => object.key);
    const states = await findObjectStates(storage.database, vault, keys);
    const unknown = listed.filter((object) => (states.get(object.key)?.state ?? 'writing') === 'writing');
    const named = unknown.filter((object) => vaultOfKey(storage.catalogId, object.key) === vault);
    report.strange += unknown.length - named.length;
    const left = named.values();
    const work = async (): Promise<void> => {
      for (const object of left) await adoptObject(storage, vault, object, states.get(object.key), options, report);
    };
    await Promise.all(Array.from({ length: requestsMax }, work));
  }
}

/** Gives an object its row, and those of its blocks that the catalog lacks, in one transaction. */
async function adoptObject(
  storage: Storage,
  vault: number,
  object: ObjectInfo,
  state: ObjectState | undefined,
  { dryRun }: AdoptOptions,
  report: AdoptReport,
): Promise<void> {
  const places = await readFooter(storage, object);
  if (!places) {
    report.unreadable++;
    return;
  }
  report.adopted++;
  if (dryRun) return;
  const { key, length } = object;
  const blocks = await storage.database.transaction(async (tx) => {
    const found = { vault, key, sizeBytes: length };
    const objectId = state?.objectId ?? (await insertFoundObject(tx, found));
    return objectId === null ? 0 : await recordObject(tx, { vault, objectId, key }, places, storage.settings);
  });
  report.adoptedBlocks += blocks ?? 0;
}

/** @returns what lies where in the object, or null when it does not say so, or is not what its name says */
async function readFooter(
  { objects }: Storage,
  { key, length }: ObjectInfo,
): Promise<{ hashes: Buffer; offsets: number[]; lengths: number[] } | null> {
  const tailBytes = 8;
  if (length <= tailBytes) return null;
  const read = async (bytes: number): Promise<Buffer> =>
    Buffer.concat(await Array.fromAsync((await objects.get(key, { offset: length - bytes, length: bytes })).stream));
  const footerBytes = lengthIn(await read(tailBytes));
  if (footerBytes === null || footerBytes >= length) return null;
  const footer = await read(footerBytes);
  if (!key.includes(`/${sha256(footer).toString('hex')}.`)) return null;
  const { hashes, lengths } = decodeFooter(footer);
  const offsets: number[] = [];
  let at = 0;
  for (const each of lengths) {
    offsets.push(at);
    at += each;
  }
  return at + footer.byteLength === length ? { hashes, offsets, lengths } : null;
}

/** Bytes of the footer that ends so; null when it is none. */
function lengthIn(tail: Buffer): number | null {
  try {
    return footerLength(tail);
  } catch {
    return null;
  }
}

async function takeOwnPrefix(storage: Storage, options: AdoptOptions, report: AdoptReport): Promise<AdoptReport> {
  const catalogId = randomUUID();
  report.catalogId = catalogId;
  report.leftBehind = await countObjectsElsewhere(storage.database, `${catalogId}/`);
  if (options.dryRun) return report;
  await takeFence({ ...storage, catalogId }, (tx) => setCatalogId(tx, catalogId));
  return report;
}

/** A nonce that nobody has seen, in the row and then in the bucket. @param before what has to be so when it is there */
async function takeFence(storage: Storage, before: (tx: Transaction) => Promise<void>): Promise<void> {
  const nonce = freshNonce();
  await storage.database.transaction(async (tx) => {
    await before(tx);
    await replaceFence(tx, nonce);
  });
  await putNonce(storage, nonce, await readNow(storage.database));
  const { nonce: written } = await readBucketSide(storage);
  if (written !== nonce) throw new Error('the fence was overwritten at once: another catalog is still at work here');
}
