/**
 * What took effect, as told by the statements of a transaction that was committed and how many rows each wrote. An
 * operation that finds nothing to do takes part in nothing; so a long run asks of every effect here whether it
 * happened, and which operations of others were under way when it did (coverage.ts).
 */

/** A statement that ran, and how many rows it wrote or returned. */
export interface Ran {
  name: string;
  values: readonly unknown[];
  rows: number;
}

/** Statements that tell an effect by having written a row. */
const byStatement: Record<string, string> = {
  'versions.insert': 'commit',
  'files.markDue': 'later version',
  'archives.freeze': 'archive frozen',
  'archives.unfreeze': 'archive reviewed',
  'lists.insert': 'list stored',
  'blocks.renewClaims': 'claim renewed',
  'blocks.heal': 'block healed',
  'restores.lease': 'moment leased',
  'versions.delete': 'versions deleted',
  'blocks.delete': 'blocks reclaimed',
  'lists.delete': 'lists reclaimed',
  'freed.insertUnreferenced': 'blocks settled',
  'freed.postpone': 'spared for a claim',
  'blocks.move': 'blocks compacted',
  'blocks.markDamaged': 'block marked',
  'objects.buryEmpty': 'object died',
  'objects.endLapsedLeases': 'upload ended',
  'objects.forget': 'object forgotten',
  'simulation.placeHold': 'hold placed',
  'simulation.releaseHolds': 'hold released',
};

/** Told by more than one statement, or by the bucket, or by what is still there. */
const others = [
  'upload',
  'spared for a version',
  'object deleted',
  'orphan deleted',
  'kept by a hold',
  'kept by a lease',
] as const;

export type Effect = (typeof others)[number] | (string & {});
export const allEffects: readonly Effect[] = [...Object.values(byStatement), ...others];

export function effectsOf(statements: readonly Ran[]): Effect[] {
  const wrote = new Set(statements.filter((each) => each.rows > 0).map((each) => each.name));
  const effects = [...wrote].flatMap((name) => byStatement[name] ?? []);
  // Of the freed rows that reclaim forgets, some were of blocks that are named again.
  const rowsOf = (name: string): number => statements.find((each) => each.name === name)?.rows ?? 0;
  if (rowsOf('freed.delete') > rowsOf('blocks.delete')) effects.push('spared for a version');
  // Compacting makes objects live as well.
  if (wrote.has('objects.makeLive') && statements.some((each) => each.name === 'blocks.insert')) effects.push('upload');
  return effects;
}
