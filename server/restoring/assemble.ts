/**
 * Turns a selection of an archive into a zip, a tar or a sealed export. No file is in it with wrong bytes, and none is missing without a
 * word: up to `verifyAheadBytes` a file is read whole before its entry is begun, and left out and named when it cannot
 * be; in a larger one damage ends the whole archive (ArchiveBroken), because what was sent cannot be taken back. (Of an
 * export it can: a file's version comes behind its blocks.)
 *
 * The same selection, moment, format and bounds give the same bytes, in any process: versions as of a seq do not change
 * while its lease lasts, they come in one order, everything is stored as it is, and no clock or chance has a say. So an
 * archive that was cut off can be made again and gone on with. What that rests on: what is known to be damaged, and
 * which keys are at hand, is the same; where files are left out, what the last entry says of their other moments too.
 */
import { Problem } from '../../protocol/problems.ts';
import type { Keyring } from '../../protocol/sealing/index.ts';
import type { Fence } from '../../storage/archive/checking/fence.ts';
import { type KeptMoment, keepMoment, takeMoment } from '../../storage/archive/reading/moment-lease.ts';
import type { ArchiveRef, Storage } from '../../storage/storage.ts';
import { breathe } from './flow/breathe.ts';
import { fetchedUnits } from './flow/fetching.ts';
import { inPieces } from './flow/pieces.ts';
import type { Room } from './flow/room.ts';
import { Window } from './flow/window.ts';
import { type FormatName, openFormat } from './formats/format.ts';
import { SealedWriter } from './sealed-export.ts';
import { namesAbove, rootsOf } from './selection.ts';
import { type Steps, type StepWriter, stepsOf } from './steps.ts';
import {
  type AssembleReport,
  type ExportAbout,
  type Item,
  type KeptMax,
  keptMaxDefault,
  type RestoreCounts,
  type Selection,
  verifyAheadBytes,
  windowBytesDefault,
} from './types.ts';
import { EntryWriter, type WriterParts } from './write-entries.ts';

/** A zip or tar is opened with the vault's keys; an export needs none. */
export type Way = { format: FormatName; keyring: Keyring } | { format: 'export'; about: ExportAbout };

export type Assemble = Way & AssembleOptions;

export interface AssembleOptions {
  storage: Storage;
  ref: ArchiveRef;
  /** Asked before a store is believed that says an object is not there. */
  fence: Pick<Fence, 'isOurBucket'>;
  selection: Selection;
  signal?: AbortSignal;
  /** Told after each entry, and each part of a large one. */
  onProgress?: (counts: Readonly<RestoreCounts>) => void;
  /** Bytes of content held at most, but for a block's way through opening. At least twice `verifyAheadBytes` to hold to it. */
  windowBytes?: number;
  /** What all restores of the process share, beyond which none of them reads ahead. */
  room?: Room;
  verifyAheadBytes?: number;
  keptMax?: Partial<KeptMax>;
}

export interface Assembly {
  /** The archive. To be read once; returned early (`break`), it frees all it has. */
  bytes: AsyncIterable<Buffer>;
  /** Grows while the bytes are read. */
  report: AssembleReport;
}

/**
 * @throws Problem path_invalid, out_of_bounds for the selection. While bytes are read: Problem moment_lapsed (the lease
 *   of the plan has ended), not_found; ArchiveBroken; what store and database throw; the signal's reason
 */
export function assembleArchive(asked: Assemble): Assembly {
  const roots = rootsOf(asked.selection.paths);
  const report: AssembleReport = {
    seq: asked.selection.seq,
    ended: false,
    counts: {
      files: 0,
      folders: 0,
      symlinks: 0,
      hardLinks: 0,
      bytes: 0,
      leftOut: 0,
      namesChanged: 0,
      missingPaths: 0,
    },
    leftOut: [],
    namesChanged: [],
    missingPaths: [],
    damagedBlocks: 0,
    archiveBytes: 0,
    heldBytesMax: 0,
  };
  return { report, bytes: assemble(asked, roots, report) };
}

async function* assemble(asked: Assemble, roots: Buffer[][], report: AssembleReport): AsyncGenerator<Buffer> {
  const { storage, ref, selection } = asked;
  const ended = new AbortController();
  const signal = asked.signal ? AbortSignal.any([asked.signal, ended.signal]) : ended.signal;
  signal.throwIfAborted();
  // Resumed: only a moment that the plan's lease still keeps is the moment of the plan.
  const moment = await takeMoment(storage, ref, { at: null, seq: selection.seq, resumed: true });
  if (!moment) throw new Problem('not_found', 'there is no such archive');
  const kept = keepMoment(storage, ref, selection.seq);
  const letGo = (): void => kept[Symbol.dispose]();
  // A reader that was told to stop may never come back for the end of this.
  signal.addEventListener('abort', letGo, { once: true });
  try {
    for await (const piece of inPieces(entries(asked, roots, report, kept, signal))) {
      report.archiveBytes += piece.byteLength;
      yield piece;
      signal.throwIfAborted();
    }
    report.ended = true;
  } finally {
    letGo();
    ended.abort(new Error('the restore has ended'));
  }
}

async function* entries(
  asked: Assemble,
  roots: Buffer[][],
  report: AssembleReport,
  kept: KeptMoment,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  const { storage, ref, selection } = asked;
  const ahead = asked.verifyAheadBytes ?? verifyAheadBytes;
  const windowBytes = asked.windowBytes ?? windowBytesDefault;
  const window = new Window(windowBytes, asked.room);
  const keptMax = { ...keptMaxDefault, ...asked.keptMax };
  const common = { storage, ref, window, report, keptMax, signal };
  const { writer, ...forSteps } =
    asked.format === 'export' ? sealing(asked, roots, common) : opening(asked, roots, common);
  const steps = stepsOf({
    storage,
    ref,
    ...forSteps,
    walk: { roots, seq: selection.seq, deleted: selection.deleted },
    leaveOut: new Map(
      selection.leaveOut?.map(({ path, reason }) => [Buffer.from(path).toString('latin1'), reason] as const),
    ),
    verifyAheadBytes: ahead,
    // With what comes beside it, and with its plain bytes, which take its place.
    sealedAheadMax: Math.floor((windowBytes * 3) / 4),
    partBytes: () => window.unitBytes,
    linkBytesMax: keptMax.linkBytes,
    signal,
  });
  const saw = { blocks: 0, damaged: 0 };
  const fetching = { storage, vault: ref.vault, fence: asked.fence, window, saw, signal };
  try {
    yield* writer.begin();
    for await (const unit of fetchedUnits(fetching, steps)) {
      // Asked after reading and before giving away: what was pruned meanwhile must not pass for what was there.
      await kept.assertKept();
      for (const step of unit.steps) {
        yield* writer.write(step, unit);
        asked.onProgress?.(report.counts);
        await breathe();
      }
    }
    await kept.assertKept();
    yield* writer.finish();
  } finally {
    window.close();
    report.heldBytesMax = window.peak;
    report.damagedBlocks = saw.damaged;
  }
}

interface Common extends Omit<WriterParts, 'keyring' | 'format'> {
  keptMax: KeptMax;
}
/** How it is written, and what that asks of the steps. */
type Written = { writer: StepWriter } & Pick<Steps, 'keyring' | 'refuses' | 'hardLinks' | 'symlinksLast' | 'givenUp'>;

function opening({ format: name, keyring }: Way & { format: FormatName }, roots: Buffer[][], common: Common): Written {
  const format = openFormat(name, namesAbove(roots), common.keptMax);
  return {
    writer: new EntryWriter({ ...common, keyring, format }),
    keyring,
    refuses: format.refuses,
    hardLinks: format.link !== undefined,
    symlinksLast: name === 'zip',
  };
}

/** Names of one file are versions with the same blocks: only who opens them knows. */
function sealing({ about, selection }: Assemble & { format: 'export' }, roots: Buffer[][], common: Common): Written {
  const givenUp = new Set<Item>();
  const writer = new SealedWriter({ ...common, about, roots, selection, givenUp });
  return { writer, keyring: null, refuses: () => null, hardLinks: false, symlinksLast: false, givenUp };
}
