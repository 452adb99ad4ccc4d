/**
 * How far deleting is behind its promises, and what people have not looked at yet, for the metrics: open alerts by kind;
 * freed blocks whose row should be gone, dead objects that should have left the store, and free bytes that stay in
 * objects at least half full. Asked of the catalog no more often than once in half a minute, however many ask here.
 */
import { countOpenAlerts } from '../storage/catalog/checking/alerts.ts';
import type { Database } from '../storage/catalog/database.ts';
import { readFreeBytes, readOverdueFreed, readOverdueObjects } from '../storage/catalog/deleting/garbage.ts';
import { readAllHidden } from '../storage/catalog/plain-figures.ts';
import type { MetricNumbers } from './metrics.ts';

const cacheMs = 30_000;

/** @param now milliseconds of a monotonic clock */
export function garbageMetrics(database: Database, now: () => number = () => performance.now()): MetricNumbers[] {
  const freed = cached(() => readOverdueFreed(database), now);
  const dead = cached(() => readOverdueObjects(database), now);
  const free = cached(() => readFreeBytes(database), now);
  const hidden = cached(() => readAllHidden(database), now);
  const alerts = cached(() => countOpenAlerts(database), now);
  return [
    {
      name: 'alerts_open',
      help: 'Alerts that nobody has reviewed, by kind',
      label: 'kind',
      read: alerts,
    },
    {
      name: 'freed_overdue',
      help: 'Freed blocks and lists whose last claim has ended and whose row is still there; at most 100,000 of a vault are counted',
      read: async () => (await freed()).rows,
    },
    {
      name: 'freed_overdue_oldest_seconds',
      help: 'For how long the oldest of them could have been gone. Promised: within an hour',
      read: async () => (await freed()).oldestSeconds,
    },
    {
      name: 'dead_objects_overdue',
      help: 'Objects that should have left the store; at most 100,000 of a vault are counted',
      read: async () => (await dead()).rows,
    },
    {
      name: 'dead_objects_overdue_bytes',
      help: 'Their bytes',
      read: async () => (await dead()).bytes,
    },
    {
      name: 'dead_objects_overdue_oldest_seconds',
      help: 'For how long the oldest of them should have been gone',
      read: async () => (await dead()).oldestSeconds,
    },
    {
      name: 'object_free_bytes',
      help: 'Bytes of live objects that no block uses: in objects that compaction leaves alone (kept), and in those it is to rewrite (sparse)',
      label: 'in',
      read: async () => {
        const { bytes, sparseBytes } = await free();
        return { kept: bytes, sparse: sparseBytes };
      },
    },
    {
      name: 'restic_hidden_bytes',
      help: 'Bytes of files that restic has deleted and that are kept to be had back: not charged to quotas',
      read: async () => (await hidden()).bytes,
    },
    {
      name: 'restic_hidden_files',
      help: 'Those files',
      read: async () => (await hidden()).files,
    },
    {
      name: 'objects_sparse',
      help: 'Objects that compaction is to rewrite',
      read: async () => (await free()).sparseObjects,
    },
  ];
}

/** Asks once for all who ask meanwhile and for half a minute after; a failure is forgotten at once. */
function cached<T>(ask: () => Promise<T>, now: () => number): () => Promise<T> {
  let asked: { answer: Promise<T>; at: number } | null = null;
  return () => {
    if (asked && now() - asked.at < cacheMs) return asked.answer;
    const fresh = { answer: ask(), at: now() };
    asked = fresh;
    fresh.answer.catch(() => {
      if (asked === fresh) asked = null;
    });
    return fresh.answer;
  };
}
