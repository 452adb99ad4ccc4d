/**
 * Carries out one restore that the server told of: every place of it, one after the other, under one count. Interrupted and
 * begun again it goes on: what is there is recognised by its content, and unfinished files by what of them is right.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { RestoreCommand } from '../../protocol/commands.ts';
import { isNotThere } from '../restore/asked-versions.ts';
import { restore } from '../restore/restore.ts';
import type { RestoreSource } from '../restore/types.ts';
import { homeFile } from '../state/home.ts';
import { keyringOf, type Registration } from '../state/registration.ts';
import { isPassing } from './failures.ts';
import { NoWay } from './open-way.ts';
import { type Here, placeFault, placesOf } from './places.ts';
import type { Tally } from './tally.ts';

export interface RestoreRun {
  command: RestoreCommand;
  source: RestoreSource;
  registration: Registration;
  home: string;
  here: Here;
  signal: AbortSignal;
  /** Filled as it goes, so that one that fails has been counted too. */
  tally: Tally;
  /** Before files grow in a folder, which is named as archives name paths. */
  onFolder: (folder: Buffer) => void;
}

/** It cannot be done here, and trying again does not help. */
export class CannotRestore extends Error {}

/** Where files of a command grow that cannot grow in their target; whoever ends it takes that away. */
export const stagingElsewhereOf = (home: string, id: number): string => join(homeFile(home, 'restoring'), String(id));

/**
 * @returns whether nothing was left out
 * @throws CannotRestore; RestoreError; the client's errors; the signal's reason
 */
export async function runRestore(run: RestoreRun): Promise<boolean> {
  const { command, source, registration, home, here, signal, tally } = run;
  const fault = placeFault(command, here);
  if (fault !== null) throw new CannotRestore(fault);
  const stagingElsewhere = stagingElsewhereOf(home, command.id);
  mkdirSync(homeFile(home, 'restoring'), { recursive: true, mode: 0o700 });
  const refused: Error[] = [];
  let places = 0;
  for await (const place of placesOf(command, source, here, signal)) {
    places++;
    try {
      run.onFolder(place.folder);
      await restore({
        client: source,
        keys: keyringOf(registration),
        archive: command.archive,
        vault: registration.vault,
        path: place.paths,
        base: place.base,
        to: place.open,
        stagingElsewhere,
        seq: command.seq,
        deleted: command.deleted,
        existing: command.existing,
        ...(command.permissions === 'original' ? { owner: true } : { permissions: 'folder' as const }),
        signal,
        goesOn: isPassing,
        counts: tally.counts,
        onProgress: (progress) => tally.see(progress),
        onEvent: (event) => {
          if (event.type === 'problem') tally.problem(event);
        },
      });
    } catch (error) {
      // That the archive itself is there no more ends the restore.
      const gone = isNotThere(error);
      if (!(error instanceof Error) || !(gone || error instanceof NoWay)) throw error;
      refused.push(error);
      tally.counts.problems++;
      const reason = gone ? 'version_gone' : 'target_refused';
      tally.problem({ path: place.paths[0]!, reason, detail: error.message });
    }
    tally.placeDone();
  }
  if (refused.length === places) throw new CannotRestore(refused[0]!.message, { cause: refused[0] });
  return tally.counts.problems === 0;
}
