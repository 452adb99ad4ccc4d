/**
 * Whether everything the design says must be true is true, asked of one snapshot of the catalog and of the bucket,
 * after every transaction that wrote and every change of the bucket. The numbers are those of the invariants in
 * docs/architecture.md. What may be otherwise for a while is excused by the world, by name: bits it flipped itself,
 * objects that only a catalog set back far knows.
 */
import { sha256 } from '../../protocol/hashes.ts';
import type { ArchivePolicies } from '../../storage/archive/retention/policies.ts';
import type { CatalogDump, VersionDump } from './catalog-dump.ts';
import { type Model, shortName } from './model.ts';
import { Pins, planOf } from './pins.ts';
import type { Committed } from './simulated-database.ts';
import type { Bucket } from './simulated-store.ts';

export class Violation extends Error {
  override name = 'Violation';
}

export interface CheckContext {
  model: Model;
  bucket: Bucket;
  /** Objects that a catalog set back by more than the delete delay names, and that are gone. */
  lostObjects: ReadonlySet<string>;
  /** The policies that were in force at some time since that step. */
  policiesSince: (archive: number, step: number) => ArchivePolicies[];
  /** How far the database's clock is from the true one, in ms. */
  clockWrongByMs: () => number;
  /** Between a catalog's being set back and `adopt`. */
  mustNotDelete: () => boolean;
  /** The scheduler's steps so far. */
  steps: () => number;
  /** Statements that only transactions of deleters hold. */
  deleters: ReadonlySet<string>;
}

/** Clocks may be apart by as much before deleting has to stop (fenceDefaults.clockApartMsMax), and drift besides. */
const clockToleranceMs = 6 * 60_000;
/** A batch of verify reads its objects before it marks: for so many steps a mark may be about bytes that are whole again. */
const healedForSteps = 1_000;

export class Checker {
  dump: CatalogDump | null = null;
  checks = 0;
  readonly #context: CheckContext;
  /** Block places whose bytes were seen to hash to their name. */
  readonly #sound = new Set<string>();
  readonly #keys = new Map<string, number>();

  constructor(context: CheckContext) {
    this.#context = context;
  }

  /** Bytes under this key changed otherwise than by a put. */
  forget(key: string): void {
    for (const place of this.#sound) if (place.startsWith(`${key}:`)) this.#sound.delete(place);
  }

  /** The catalog is another one: what vanished was not deleted. */
  accept(dump: CatalogDump): void {
    this.dump = dump;
    this.#keys.clear();
  }

  /** @throws Violation */
  check(next: CatalogDump, committed: readonly Committed[]): void {
    this.checks++;
    const before = this.dump;
    this.dump = next;
    const faults: string[] = [];
    this.#objects(next, faults);
    this.#counts(next, faults);
    if (before && before.versions !== next.versions) this.#versions(before, next, committed, faults);
    if (before && before.objects !== next.objects) this.#leases(before, next, committed, faults);
    if (before && before.blocks !== next.blocks) this.#marked(before, next, faults);
    if (before && before.blocks !== next.blocks) this.#vanished(before, next, committed, faults);
    this.#usage(next, faults);
    if (faults.length > 0) throw new Violation(faults.slice(0, 10).join('\n'));
  }

  /** Invariants 1 and 3: places, keys, and the bytes that are counted as in use. */
  #objects(dump: CatalogDump, faults: string[]): void {
    const { bucket, lostObjects, model } = this.#context;
    const objects = new Map(dump.objects.map((object) => [`${object.vault}/${object.object}`, object]));
    for (const { vault, object, key } of dump.objects) {
      const known = this.#keys.get(key);
      if (known !== undefined && known !== object) faults.push(`3: key ${key} was used again`);
      this.#keys.set(key, object);
      if (!key.includes(`/blocks/${vault}/`)) faults.push(`6: object ${key} of vault ${vault} is under another's keys`);
    }
    const live = new Map<string, number>();
    for (const block of dump.blocks) {
      const id = `${block.vault}/${block.object}`;
      live.set(id, (live.get(id) ?? 0) + block.length);
      const object = objects.get(id);
      if (object?.state !== 'live') {
        faults.push(`1: block ${block.hash} lies in object ${block.object}, which is ${object?.state ?? 'not there'}`);
        continue;
      }
      if (block.damaged || lostObjects.has(object.key)) continue;
      const place = `${object.key}:${block.offset}:${block.length}:${block.hash}`;
      const stored = bucket.objects.get(object.key);
      if (!stored) {
        faults.push(`1: block ${block.hash} names object ${object.key}, which the bucket does not hold`);
        continue;
      }
      if (this.#sound.has(place)) continue;
      const bytes = stored.bytes.subarray(block.offset, block.offset + block.length);
      const flipped = bucket.flipped
        .get(object.key)
        ?.some((at) => at >= block.offset && at < block.offset + block.length);
      if (shortName(sha256(bytes)) === block.hash) this.#sound.add(place);
      else if (!flipped) faults.push(`1: block ${block.hash} at ${block.offset} of ${object.key} has other bytes`);
      if (!model.contents.has(block.hash)) faults.push(`6: nobody sent block ${block.hash}`);
    }
    for (const [id, object] of objects) {
      const bytes = live.get(id) ?? 0;
      if (object.live !== bytes && object.state !== 'dead')
        faults.push(`live_bytes of object ${id} is ${object.live}, its blocks have ${bytes}`);
      if (object.state === 'live' && bytes === 0) faults.push(`10: object ${id} is live and holds no block`);
    }
  }

  /** Invariant 2: what versions and lists name exists, and is counted. And 10: what nobody names will be found. */
  #counts(dump: CatalogDump, faults: string[]): void {
    const { model } = this.#context;
    const blocks = new Map<string, number>();
    const lists = new Map<string, number>();
    const count = (into: Map<string, number>, vault: number, names: readonly string[]): void => {
      for (const each of names) into.set(`${vault}/${each}`, (into.get(`${vault}/${each}`) ?? 0) + 1);
    };
    for (const version of dump.versions) {
      const sent = model.sent.get(version.mac);
      if (!sent) {
        faults.push(`nobody sent version ${version.seq} of archive ${version.archive}`);
        continue;
      }
      count(blocks, version.vault, sent.blocks);
      count(lists, version.vault, sent.lists);
    }
    for (const { vault, hash } of dump.lists) count(blocks, vault, model.lists.get(hash) ?? []);

    const settled = new Map(dump.objects.map((object) => [`${object.vault}/${object.object}`, object.settled]));
    for (const { vault, hash, refs, object } of dump.blocks) {
      const id = `${vault}/${hash}`;
      const named = blocks.get(id) ?? 0;
      if (refs !== named) faults.push(`2: block ${id} counts ${refs} references, and has ${named}`);
      blocks.delete(id);
      if (refs === 0 && !dump.freed.has(id) && settled.get(`${vault}/${object}`))
        faults.push(`10: nobody refers to block ${id}, and nobody will look at it`);
    }
    for (const id of blocks.keys()) faults.push(`2: block ${id} is named and not there`);
    for (const { vault, hash, refs } of dump.lists) {
      const id = `${vault}/${hash}`;
      const named = lists.get(id) ?? 0;
      if (refs !== named) faults.push(`2: list ${id} counts ${refs} references, and has ${named}`);
      lists.delete(id);
      if (refs === 0 && !dump.freedLists.has(id))
        faults.push(`10: nobody refers to list ${id}, and nobody will look at it`);
    }
    for (const id of lists.keys()) faults.push(`2: list ${id} is named and not there`);
  }

  /** Invariants 4, 5 and 7: what vanished was to go, by the rules, at the time of the transaction that took it. */
  #versions(before: CatalogDump, next: CatalogDump, committed: readonly Committed[], faults: string[]): void {
    const there = new Set(next.versions.map(({ archive, seq }) => `${archive}/${seq}`));
    const gone = before.versions.filter(({ archive, seq }) => !there.has(`${archive}/${seq}`));
    if (gone.length > 0) this.#deletions(gone, before, committed, faults);
    this.#arrivals(before, next, faults);
    const { model } = this.#context;
    for (const version of gone) {
      model.acknowledgedOf(version.archive).delete(version.seq);
      model.taken.add(version.mac);
    }
    const versions = new Map(next.versions.map((version) => [`${version.archive}/${version.seq}`, version]));
    for (const [archive, acknowledged] of model.acknowledged) {
      for (const [seq, mac] of acknowledged) {
        if (versions.get(`${archive}/${seq}`)?.mac !== mac)
          faults.push(`5: acknowledged version ${seq} of archive ${archive} is not there`);
      }
    }
    for (const { archive, versionCount } of next.archives) {
      const counted = next.versions.reduce((sum, version) => sum + Number(version.archive === archive), 0);
      if (counted !== versionCount)
        faults.push(`archive ${archive} counts ${versionCount} versions, and has ${counted}`);
    }
  }

  /** Invariant 5: a commit takes only what can be read. */
  #arrivals(before: CatalogDump, next: CatalogDump, faults: string[]): void {
    const { model } = this.#context;
    const damagedIn = ({ blocks, lists }: CatalogDump): Set<string> =>
      new Set([...blocks, ...lists].filter((each) => each.damaged).map(({ vault, hash }) => `${vault}/${hash}`));
    const damaged = damagedIn(before).intersection(damagedIn(next));
    if (damaged.size === 0) return;
    const known = new Set(before.versions.map((version) => version.mac));
    for (const { vault, archive, seq, mac } of next.versions) {
      if (known.has(mac)) continue;
      const { blocks, lists } = model.sent.get(mac)!;
      const bad = [...blocks, ...lists].find((hash) => damaged.has(`${vault}/${hash}`));
      if (bad) faults.push(`5: version ${seq} of archive ${archive} was taken though ${bad} is damaged`);
    }
  }

  #deletions(
    gone: readonly VersionDump[],
    before: CatalogDump,
    committed: readonly Committed[],
    faults: string[],
  ): void {
    const { deleters, clockWrongByMs, mustNotDelete } = this.#context;
    const by = committed.filter((each) => each.ran.some(({ name }) => deleters.has(name)));
    const names = `versions ${gone.map(({ archive, seq }) => `${archive}/${seq}`).join(' ')}`;
    if (by.length === 0) {
      faults.push(`5: ${names} vanished, and no deleter was at work`);
      return;
    }
    for (const { archive, frozen } of before.archives)
      if (frozen && gone.some((version) => version.archive === archive))
        faults.push(`versions of archive ${archive} were deleted while it was frozen`);
    if (mustNotDelete()) faults.push(`4: ${names} were deleted by a catalog that is not the bucket's`);
    if (Math.abs(clockWrongByMs()) > clockToleranceMs && by.every((each) => each.clockWrongAtStart))
      faults.push(`7: ${names} were deleted by a clock that is wrong`);
    for (const [fileKey, versions] of Map.groupBy(gone, ({ archive, file }) => `${archive}/${file}`)) {
      const history = before.versions.filter(({ archive, file }) => `${archive}/${file}` === fileKey);
      const { archive } = versions[0]!;
      const problems = by.flatMap((each) =>
        this.#context
          .policiesSince(archive, each.beganStep)
          .map((policies) => this.#unentitled(versions, history, before, { policies, nowMs: each.at })),
      );
      if (problems.every((each) => each.length > 0)) faults.push(...problems[0]!);
    }
  }

  /** Why these versions of one file were not to go at that moment; empty when they were. */
  #unentitled(
    gone: readonly VersionDump[],
    history: readonly VersionDump[],
    before: CatalogDump,
    plan: { policies: ArchivePolicies; nowMs: number },
  ): string[] {
    const { archive } = gone[0]!;
    const pins = new Pins(this.#context.model, before, { vault: gone[0]!.vault, archive }, plan.nowMs);
    const decisions = planOf(this.#context.model, history, pins.pinned(history), plan);
    const reasons = new Map(decisions.map((decision) => [decision.seq, decision]));
    return gone
      .filter(({ seq }) => reasons.get(seq)!.keep)
      .map(({ seq }) => {
        const { rule } = reasons.get(seq)!.reason;
        return `${rule === 'hold' ? '4' : '5'}: version ${archive}/${seq} was deleted, and was to stay (${rule})`;
      });
  }

  /** An upload has the time it was given: otherwise it would be sent again and again, and never come to an end. */
  #leases(before: CatalogDump, next: CatalogDump, committed: readonly Committed[], faults: string[]): void {
    const wrote = (each: Committed, statement: string): boolean =>
      each.ran.some(({ name, rows }) => name === statement && rows > 0);
    const sweeps = committed.filter((each) => wrote(each, 'objects.endLapsedLeases'));
    if (sweeps.length === 0 || committed.some((each) => wrote(each, 'objects.makeLive'))) return;
    const at = Math.max(...sweeps.map((each) => each.at));
    const writing = new Set(next.objects.filter((each) => each.state === 'writing').map((each) => each.key));
    for (const { key, leaseMs } of before.objects)
      if (leaseMs !== null && leaseMs > at && !writing.has(key))
        faults.push(`8: the lease of ${key} was ended ${Math.round(leaseMs - at)} ms before its time`);
  }

  /** Only what is damaged is called so. */
  #marked(before: CatalogDump, next: CatalogDump, faults: string[]): void {
    const { bucket, steps } = this.#context;
    const known = new Set(before.blocks.filter((each) => each.damaged).map(({ vault, hash }) => `${vault}/${hash}`));
    for (const { vault, hash, object, offset, length, damaged } of next.blocks) {
      if (!damaged || known.has(`${vault}/${hash}`)) continue;
      const { key } = next.objects.find((each) => each.vault === vault && each.object === object)!;
      const bytes = bucket.objects.get(key)?.bytes.subarray(offset, offset + length);
      // Read while it was rotten, and put once more by a late request before the mark was made.
      if (
        bytes &&
        shortName(sha256(bytes)) === hash &&
        steps() > (bucket.healed.get(key) ?? Number.NEGATIVE_INFINITY) + healedForSteps
      )
        faults.push(`1: block ${hash} of vault ${vault} is marked damaged, and is not`);
    }
  }

  /** Invariant 8: a block that was promised is not deleted. */
  #vanished(before: CatalogDump, next: CatalogDump, committed: readonly Committed[], faults: string[]): void {
    const { promises } = this.#context.model;
    const there = new Set(next.blocks.map(({ vault, hash }) => `${vault}/${hash}`));
    for (const { vault, hash } of before.blocks) {
      const id = `${vault}/${hash}`;
      if (there.has(id)) continue;
      const until = promises.get(id);
      promises.delete(id);
      // Whatever the clock was set to while the transaction lasted.
      const at = Math.max(...committed.flatMap((each) => [each.at, each.committedAt]));
      if (until !== undefined && at < until)
        faults.push(`8: block ${id} was deleted ${Math.round(until - at)} ms before the end of its claim`);
    }
  }

  #usage(dump: CatalogDump, faults: string[]): void {
    const { model } = this.#context;
    const counted = new Map<
      number,
      { logical: number; stored: number; referenced: number; objects: number; versions: number }
    >();
    const of = (vault: number) => {
      const known = counted.get(vault) ?? { logical: 0, stored: 0, referenced: 0, objects: 0, versions: 0 };
      counted.set(vault, known);
      return known;
    };
    for (const { vault, mac } of dump.versions) {
      of(vault).versions++;
      of(vault).logical += model.sent.get(mac)?.size ?? 0;
    }
    for (const { vault, length, refs } of dump.blocks) {
      of(vault).stored += length;
      if (refs > 0) of(vault).referenced += length;
    }
    for (const { vault, size } of dump.objects) of(vault).objects += size;
    for (const { vault, ...kept } of dump.usage) {
      const is = JSON.stringify(of(vault));
      const says = JSON.stringify(kept);
      if (is !== says) faults.push(`usage of vault ${vault} says ${says}, and is ${is}`);
    }
  }
}
