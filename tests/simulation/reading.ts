/** Reading back: what is given is what was sent, all of it, while everything else goes on and when nothing does. */
import assert from 'node:assert/strict';
import { hashAt, sha256 } from '../../protocol/hashes.ts';
import type { HistoryAnswer, StoredVersion } from '../../protocol/messages.ts';
import { fetchBlocks } from '../../storage/archive/reading/read-blocks.ts';
import { readHistory, streamVersions } from '../../storage/archive/reading/read-tree.ts';
import { readLists } from '../../storage/archive/writing/lists.ts';
import type { Storage } from '../../storage/storage.ts';
import { Violation } from './check.ts';
import { distinctNames, type SentVersion, shortName } from './model.ts';
import type { Device, World } from './world.ts';

/**
 * Reads an archive back as of now and compares it with what was sent; half of the contents is fetched.
 * @throws Violation
 */
export async function readArchive(world: World, storage: Storage, ref: Device): Promise<void> {
  const all = { path: Buffer.from('/'), at: null, seq: null, after: null, deleted: true };
  const current = new Map<number, string>();
  const { generation, trueMs } = world;
  const found = new Set<string>();
  for await (const frame of streamVersions(storage, ref, all)) {
    if (frame.frame === 'begin')
      for (const version of world.checker.dump!.versions)
        if (version.archive === ref.archive && version.seq <= frame.seq) current.set(version.file, version.mac);
    if (frame.frame !== 'versions') continue;
    // Of every name that is there now the latest version is.
    if (frame.thinned)
      throw new Violation(`of ${frame.thinned[0]!.path} in archive ${ref.archive} there is no version`);
    for (const version of frame.versions) found.add(shortName(version.mac));
    for (const version of frame.versions) {
      const sent = compareSent(world, ref, version);
      if (world.random.chance(0.5)) await readContent(world, storage, ref, version, sent, false);
    }
  }
  // The reader's lease keeps what was current, unless reading took longer than the lease, or the clock was changed.
  const leased = world.trueMs - trueMs < storage.settings.restoreLeaseMs && !world.clockIsWrong;
  const gone = [...current.values()].filter((mac) => !found.has(mac));
  if (gone.length > 0 && leased && generation === world.generation)
    throw new Violation(
      `a reader of archive ${ref.archive} was not given ${gone.map((mac) => world.model.sent.get(mac)!.path).join(' ')}`,
    );
}

/** @returns what an agent sent as this version. @throws Violation when it is not what was given back */
function compareSent(world: World, ref: Device, version: StoredVersion): SentVersion {
  const sent = world.model.sent.get(shortName(version.mac));
  if (!sent) throw new Violation(`a version of archive ${ref.archive} was given back that nobody sent`);
  const same =
    sent.path === version.path.toString() &&
    sent.deleted === version.deleted &&
    sent.size === version.size &&
    String(distinctNames(version.blocks)) === String(sent.blocks) &&
    String(distinctNames(version.lists)) === String(sent.lists);
  if (!same) throw new Violation(`version ${version.seq} of archive ${ref.archive} is not what was sent`);
  return sent;
}

/**
 * Reads every version that the catalog has of an archive, whole, and compares it with what was sent.
 * @returns how many
 * @throws Violation
 */
export async function restoreEverything(world: World, storage: Storage, ref: Device): Promise<number> {
  const there = world.checker.dump!.versions.filter((version) => version.archive === ref.archive);
  const wanted = new Set(there.map((version) => version.mac));
  const paths = new Set(there.map((version) => world.model.sent.get(version.mac)!.path));
  for (const path of paths) {
    for (let after: number | null = null, more = true; more; ) {
      const page: HistoryAnswer = await readHistory(storage, ref, { path: Buffer.from(path), after, limit: 10 });
      for (const version of page.versions) {
        await readContent(world, storage, ref, version, compareSent(world, ref, version), true);
        wanted.delete(shortName(version.mac));
      }
      after = page.versions.at(-1)?.seq ?? 0;
      more = page.more;
    }
  }
  if (wanted.size > 0) throw new Violation(`${wanted.size} versions of archive ${ref.archive} are not given back`);
  return there.length;
}

async function readContent(
  world: World,
  storage: Storage,
  ref: Device,
  version: { seq: number; blocks: Buffer; lists: Buffer },
  sent: SentVersion,
  strict: boolean,
): Promise<void> {
  const name = `version ${version.seq} of archive ${ref.archive}`;
  let hashes = version.blocks;
  if (version.lists.byteLength > 0) {
    const lists: Buffer[] = [];
    for await (const { index, bytes } of readLists(storage, ref.vault, version.lists)) {
      if (bytes) lists[index] = Buffer.concat(bytes);
      else if (strict) throw new Violation(`${name}: a list is not given back`);
      else return;
    }
    hashes = Buffer.concat(lists);
  }
  if (hashes.byteLength === 0) return;
  const found: string[] = [];
  for await (const { index, bytes } of fetchBlocks(storage, ref.vault, hashes)) {
    const hash = hashAt(hashes, index);
    if (!bytes) {
      if (strict) throw new Violation(`${name}: block ${hash.toString('hex')} is not given back`);
      world.absentReads++;
      continue;
    }
    const right = sha256(Buffer.concat(bytes)).equals(hash);
    if (!right && (strict || world.bucket.flipped.size === 0))
      throw new Violation(`${name}: block ${hash.toString('hex')} has other bytes`);
    found[index] = shortName(hash);
  }
  if (strict) assert.deepEqual(found, sent.content, name);
}
