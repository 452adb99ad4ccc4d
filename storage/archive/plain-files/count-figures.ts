/** What a change of a plain archive does to its figures, and what deleting versions does: counted in the same transaction. */
import type { Transaction } from '../../catalog/database.ts';
import { countFigures, type FigureChange, type FileFigure, folderOf, noteGone } from '../../catalog/plain-figures.ts';
import type { ArchiveRef } from '../../storage.ts';
import type { PlainChanged } from './commit-plain.ts';

/** @param sent whether content came with it, and was not only shown again */
export function countChanged(
  tx: Transaction,
  ref: ArchiveRef,
  changed: readonly PlainChanged[],
  { sent }: { sent: boolean },
): Promise<void> {
  const changes = changed.map(({ file, before, after }): FigureChange => {
    const heldBytes = before?.heldBytes ?? 0;
    return {
      folder: file.folder,
      before: before && { hidden: before.deleted, size: heldBytes },
      after: after ? { hidden: false, size: after.size } : { hidden: true, size: heldBytes },
      sent: sent && after !== null,
    };
  });
  return countFigures(tx, ref, changes);
}

/** One version, as far as figures go. */
interface HistoryEntry {
  seq: number;
  deleted: boolean;
  size: number;
  committedAt: Date;
}

/** What a file is by its versions, oldest first; null: it has none. */
export function figureOf(history: readonly HistoryEntry[]): FileFigure | null {
  const latest = history.at(-1);
  if (!latest) return null;
  return { hidden: latest.deleted, size: history.findLast(({ deleted }) => !deleted)?.size ?? 0 };
}

/** Counts off what a batch of deletions takes from files of a plain archive. */
export async function countDeleted(
  tx: Transaction,
  ref: ArchiveRef,
  files: readonly { names: readonly Buffer[]; history: readonly HistoryEntry[]; gone: ReadonlySet<number> }[],
): Promise<void> {
  await countFigures(
    tx,
    ref,
    files.map(({ names, history, gone }): FigureChange => {
      const left = history.filter(({ seq }) => !gone.has(seq));
      return { folder: folderOf(names), before: figureOf(history), after: figureOf(left), sent: false };
    }),
  );
  const lastThere = new Map<string, Date>();
  for (const { names, history, gone } of files) {
    const folder = folderOf(names);
    for (const [i, { seq, deleted }] of history.entries()) {
      const end = history[i + 1]?.committedAt;
      if (end && gone.has(seq) && !deleted && end > (lastThere.get(folder) ?? 0)) lastThere.set(folder, end);
    }
  }
  await noteGone(tx, ref, lastThere);
}
