/**
 * What the cache knows of runs: when they ended and how, what their roots were, and what they left out and why.
 */
import type { SkipReason } from '../../protocol/messages.ts';
import { below, bufferOf, CacheDatabase, signed64 } from './cache-database.ts';

export interface RootIdentity {
  device: bigint;
  inode: bigint;
  birthtimeNs: bigint;
}

export interface SkippedRow {
  path: Buffer;
  reason: SkipReason;
  detail: string;
  subtree: boolean;
}

export interface RunRow {
  generation: number;
  startedAtMs: number;
  endedAtMs: number | null;
  outcome: string | null;
  reason: string;
  roots: string[];
  counts: Record<string, number>;
}

const runsKept = 100;

export class RunRecords extends CacheDatabase {
  rootIdentity(path: Buffer): RootIdentity | null {
    const row = this.statement('select device, inode, birthtime_ns from roots where path = ?', true).get(path);
    return row
      ? { device: row.device as bigint, inode: row.inode as bigint, birthtimeNs: row.birthtime_ns as bigint }
      : null;
  }

  setRootIdentity(path: Buffer, root: RootIdentity): void {
    this.write('insert or replace into roots(path, device, inode, birthtime_ns) values (?, ?, ?, ?)').run(
      path,
      signed64(root.device),
      signed64(root.inode),
      root.birthtimeNs,
    );
  }

  /** Begins a run. @returns its generation */
  beginRun(roots: readonly string[], now: number): number {
    const generation = Number(this.meta('generation') ?? 0) + 1;
    this.setMeta('generation', generation);
    this.write('insert into runs(generation, started_at, roots) values (?, ?, ?)').run(
      generation,
      now,
      JSON.stringify(roots),
    );
    this.write('delete from runs where generation <= ?').run(generation - runsKept);
    this.flush();
    return generation;
  }

  endRun(generation: number, end: { now: number; outcome: string; reason: string; counts: object }): void {
    this.write('update runs set ended_at = ?, outcome = ?, reason = ?, counts = ? where generation = ?').run(
      end.now,
      end.outcome,
      end.reason,
      JSON.stringify(end.counts),
      generation,
    );
    this.flush();
  }

  /** The latest runs, newest first. */
  runs(limit: number): RunRow[] {
    return this.statement('select * from runs order by generation desc limit ?')
      .all(limit)
      .map((row) => ({
        generation: Number(row.generation),
        startedAtMs: Number(row.started_at),
        endedAtMs: row.ended_at === null ? null : Number(row.ended_at),
        outcome: row.outcome as string | null,
        reason: String(row.reason),
        roots: JSON.parse(String(row.roots)) as string[],
        counts: JSON.parse(String(row.counts)) as Record<string, number>,
      }));
  }

  addSkipped(row: SkippedRow, generation: number): void {
    this.write('insert or replace into skipped(path, reason, detail, subtree, generation) values (?, ?, ?, ?, ?)').run(
      row.path,
      row.reason,
      row.detail,
      row.subtree ? 1 : 0,
      generation,
    );
  }

  /** Forgets what earlier runs left out below a root that this run went through. */
  forgetOldSkipped(root: Buffer, generation: number): void {
    const { from, to } = below(root);
    this.write('delete from skipped where (path = ? or (path > ? and path < ?)) and generation < ?').run(
      root,
      from,
      to,
      generation,
    );
  }

  /** What the last run through a path left out: at it, or at a folder above it. */
  skippedAt(path: Buffer): SkippedRow | null {
    const row = this.statement('select * from skipped where path = ?').get(path);
    return row ? skippedRow(row) : null;
  }

  /** Everything the last runs left out, in byte order. `reasonsNot`: reasons left out of the list. */
  *skipped(options: { generation?: number; excludedToo: boolean }): Generator<SkippedRow> {
    for (let after: Uint8Array = Buffer.alloc(0); ; ) {
      const page = this.statement(
        `select * from skipped where path > ? and (? or reason <> 'excluded') and generation >= ? order by path limit 1000`,
      ).all(after, options.excludedToo ? 1 : 0, options.generation ?? 0);
      for (const row of page) yield skippedRow(row);
      const last = page.at(-1);
      if (!last) return;
      after = last.path as Uint8Array;
    }
  }
}

function skippedRow(row: Record<string, unknown>): SkippedRow {
  return {
    path: bufferOf(row.path),
    reason: row.reason as SkipReason,
    detail: String(row.detail),
    subtree: row.subtree === 1,
  };
}
