/** What of a file's history somebody needs, by one snapshot of the catalog: what a hold covers, what a reader has leased. */
import { holdCovers } from '../../storage/archive/retention/hold-policy.ts';
import { type ArchivePolicies, policiesByPath } from '../../storage/archive/retention/policies.ts';
import { type Decision, type FileVersion, planByAny } from '../../storage/archive/retention/retention.ts';
import type { CatalogDump, HoldDump, VersionDump } from './catalog-dump.ts';
import type { Effect } from './effects.ts';
import type { Model } from './model.ts';

export class Pins {
  readonly #model: Model;
  readonly #holds: HoldDump[];
  readonly #leases: CatalogDump['leases'];

  constructor(model: Model, dump: CatalogDump, of: { vault: number; archive: number }, nowMs: number) {
    this.#model = model;
    this.#holds = dump.holds.filter(
      (hold) => hold.vault === of.vault && (hold.releaseMs === null || hold.releaseMs > nowMs),
    );
    this.#leases = dump.leases.filter((lease) => lease.archive === of.archive && lease.untilMs > nowMs);
  }

  get areNone(): boolean {
    return this.#holds.length + this.#leases.length === 0;
  }

  /** The versions of a file, oldest first, as retention plans them. */
  pinned(history: readonly VersionDump[]): FileVersion[] {
    const sorted = [...history].sort((a, b) => a.seq - b.seq);
    return sorted.map((version, i) => {
      const pinned = this.#pinOf(version, sorted[i + 1]);
      return { ...unpinned(this.#model, version), ...(pinned && { pinned }) };
    });
  }

  #pinOf(version: VersionDump, successor: VersionDump | undefined): 'hold' | 'restore' | null {
    if (this.#holds.some((hold) => this.#isHeld(hold, version, successor))) return 'hold';
    const current = this.#leases.some((lease) => lease.seq >= version.seq && (!successor || successor.seq > lease.seq));
    return current ? 'restore' : null;
  }

  #isHeld(hold: HoldDump, version: VersionDump, successor: VersionDump | undefined): boolean {
    const path = Buffer.from(this.#model.sent.get(version.mac)!.path);
    const lifetime = { committedAt: version.committedMs, replacedAt: successor?.committedMs ?? null };
    return holdCovers(hold.policy, lifetime, path);
  }
}

const unpinned = (model: Model, { seq, committedMs, mac }: VersionDump): FileVersion => ({
  seq,
  committedAt: committedMs,
  deleted: model.sent.get(mac)!.deleted,
});

/** What becomes of the versions of a file, by the policies that it has where it lies. */
export function planOf(
  model: Model,
  history: readonly VersionDump[],
  versions: readonly FileVersion[],
  { policies, nowMs }: { policies: ArchivePolicies; nowMs: number },
): Decision[] {
  const path = Buffer.from(model.sent.get(history[0]!.mac)!.path);
  const of = policiesByPath(policies)(path).map(({ policy }) => policy);
  return planByAny(versions, of, nowMs).decisions;
}

/** What a deleter left in an archive for a hold or a lease alone: without these it would have gone. */
export function keptByPins(
  model: Model,
  dump: CatalogDump,
  of: { vault: number; archive: number },
  plan: { policies: ArchivePolicies; nowMs: number },
): Effect[] {
  const pins = new Pins(model, dump, of, plan.nowMs);
  if (pins.areNone) return [];
  const kept = new Set<Effect>();
  const files = Map.groupBy(
    dump.versions.filter((version) => version.archive === of.archive),
    (version) => version.file,
  );
  for (const history of files.values()) {
    const versions = pins.pinned(history);
    const asIfUnpinned = versions.map(({ pinned: _, ...version }) => version);
    const decisions = planOf(model, history, asIfUnpinned, plan);
    for (const [i, { keep }] of decisions.entries())
      if (!keep && versions[i]!.pinned) kept.add(versions[i]!.pinned === 'hold' ? 'kept by a hold' : 'kept by a lease');
  }
  return [...kept];
}
