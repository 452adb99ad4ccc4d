/**
 * `open-export FILE --to FOLDER`: restores from a sealed export, without a server. The file is read once to see what lies
 * where and whether it is whole; then it is restored from as an archive is, each version and block checked as if a server
 * had sent it. Of a file that was cut off or changed, what is there and right is restored, and it is never called complete.
 */

import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Command } from 'commander';
import type { StoredVersion } from '../../protocol/messages.ts';
import { pathFault } from '../../protocol/paths.ts';
import { Problem } from '../../protocol/problems.ts';
import type { ExportHeader, ExportLeftOut } from '../../protocol/sealed-export.ts';
import { ExportSource } from '../export/export-source.ts';
import { type ExportSink, readVersion, type ScannedExport, scanExport } from '../export/scan-export.ts';
import { commonFolder } from '../files/path-rules.ts';
import { isNotThere } from '../restore/asked-versions.ts';
import { restore } from '../restore/restore.ts';
import type { RestoreProgress } from '../restore/types.ts';
import { ExportIndex } from '../state/export-index.ts';
import { readRegistration } from '../state/registration.ts';
import { assertFitting, keysFor } from './keys/export-keys.ts';
import type { SecretOptions } from './keys/secrets.ts';
import { withSecretOptions } from './keys/unlock.ts';
import { startMeter } from './meter.ts';
import { createOutput, exitCodes, type Output, UsageError } from './output.ts';
import { reportRestore, shownMax, type WritingOptions, withWritingOptions } from './restore-report.ts';
import { type CommonOptions, homeOf, withInterrupt } from './session.ts';
import { bytesInWords, countInWords, momentInWords, pathForJson, pathInWords, wordInShell } from './words.ts';

interface OpenExportOptions extends CommonOptions, SecretOptions, WritingOptions {
  to?: string;
  list?: boolean;
}

/** Versions that keys are tried on. */
const triedMax = 20;
const readBytes = 1024 * 1024;

export function addOpenExport(program: Command): void {
  withWritingOptions(withSecretOptions(program.command('open-export')))
    .description('Restore from a sealed export: a file that the server made of a backup, opened without it.')
    .argument('<file>', "the export; '-' for stdin")
    .argument('[path]', 'a file or folder of the backup; default all that is in the export')
    .option('--to <folder>', 'where to; what was chosen for the export lies in it by its name')
    .option('--list', 'only show what is in it: names, sizes and times, for which no key is needed')
    .addHelpText(
      'after',
      `
Examples:
  npm run agent -- open-export laptop.holdfast-export --list
  npm run agent -- open-export laptop.holdfast-export --to /tmp/back
  npm run agent -- open-export laptop.holdfast-export --to /tmp/back --custom-key-file ~/backup.key
  npm run agent -- open-export laptop.holdfast-export /home/ann/letters --to /tmp/back --archive-password-file pass

Keys: those of this machine, when it is registered as a device of that user. Else the archive password is asked for, or
the user's own key is given, as the level of the backup wants it. Nothing is asked of a server.
A file that was cut off or altered: what is in it and right is restored, the rest is named as far as it is known, and the
exit code is ${exitCodes.incomplete}. What lies where in it is noted in a temporary file (SQLITE_TMPDIR, TMPDIR or /var/tmp): some 100 bytes for each
block. Of stdin a copy is kept in FOLDER until the end.`,
    )
    .action(async (file: string, path: string | undefined, options: OpenExportOptions) => {
      process.exitCode = await openExport(file, path, options);
    });
}

async function openExport(file: string, path: string | undefined, options: OpenExportOptions): Promise<number> {
  const output = createOutput({ json: options.json ?? false });
  if (options.list) return interruptible(output, 'Interrupted.', (signal) => listExport(file, output, signal));
  const { to } = options;
  if (to === undefined) throw new UsageError('say where to restore: --to FOLDER; or --list to see what is in it');
  if (file === '-' && options.archivePasswordFile === '-')
    throw new UsageError('stdin is the export already: give --archive-password-file FILE');
  const within = path === undefined ? null : pathWithin(path);
  return interruptible(output, 'Interrupted. Run the same command again to go on.', (signal) =>
    restoreExport({ file, to, within, options, output, signal }),
  );
}

function interruptible(output: Output, says: string, work: (signal: AbortSignal) => Promise<number>): Promise<number> {
  return withInterrupt(output, async (signal) => {
    try {
      return await work(signal);
    } catch (error) {
      if (!signal.aborted) throw error;
      output.note(says);
      output.emit('end', { outcome: 'interrupted' });
      return exitCodes.interrupted;
    }
  });
}

/** @throws UsageError */
function pathWithin(text: string): Buffer {
  const path = Buffer.from(text.replace(/(?<=.)\/+$/, ''));
  const fault = pathFault(path);
  if (fault) throw new UsageError(`'${text}' is no path of a backup: it ${fault}. --list shows them`);
  return path;
}

// --- what is in it --------------------------------------------------------------------------------------------------

async function listExport(file: string, output: Output, signal: AbortSignal): Promise<number> {
  const left = leftOutTeller(output);
  const unreadable = unreadableTeller(output);
  await using input = file === '-' ? null : await openInput(file);
  const scanned = await scanExport(
    input?.stream() ?? fromStdin(signal),
    {
      header: (header) => tellHeader(output, header),
      version(at, body) {
        const version = readVersion(body);
        if (version) tellVersion(output, version);
        else unreadable.tell(at);
      },
      leftOut: left.tell,
    },
    signal,
  );
  left.end();
  tellFault(output, scanned);
  const isWhole = scanned.fault === null && scanned.leftOut === 0 && unreadable.count === 0;
  output.emit('end', { outcome: isWhole ? 'completed' : 'incomplete', ...aboutScanned(scanned) });
  return isWhole ? exitCodes.ok : exitCodes.incomplete;
}

function tellHeader(output: Output, { guid, vault, archive, seq, at, keys }: ExportHeader): void {
  const level = keys.at(-1)?.level ?? 'unknown';
  output.note(
    `Backup of device ${guid} as of ${momentInWords(at)} (version ${seq}); its keys are at level '${level}'.`,
  );
  output.emit('export', {
    guid,
    vault,
    archive,
    seq,
    at,
    level,
    generations: keys.map(({ generation }) => generation),
  });
}

function tellVersion(output: Output, version: StoredVersion): void {
  const { path, kind, size, mtime, seq } = version;
  const mark = kind === 'directory' ? '/' : kind === 'symlink' ? '@' : '';
  const length = kind === 'file' ? bytesInWords(size) : '';
  output.say(`${length.padStart(10)}  ${momentInWords(mtime)}  ${pathInWords(path)}${mark}`);
  output.emit('entry', { ...pathForJson(path), kind, size, mtime, seq });
}

// --- restoring ------------------------------------------------------------------------------------------------------

interface Opening {
  file: string;
  to: string;
  within: Buffer | null;
  options: OpenExportOptions;
  output: Output;
  signal: AbortSignal;
}

async function restoreExport({ file, to, within, options, output, signal }: Opening): Promise<number> {
  await mkdir(to, { recursive: true });
  using index = new ExportIndex();
  await using input = file === '-' ? await spooled(to, signal) : await openInput(file);
  let keys: ReturnType<typeof keysFor> | null = null;
  const left = leftOutTeller(output);
  const sink: ExportSink = {
    header(header) {
      tellHeader(output, header);
      // Asked for at once, and not after an hour of reading.
      keys = keysFor(header, readRegistration(homeOf(options)), options, output);
      keys.catch(() => undefined); // it is awaited below
    },
    version: (at, body) => index.addVersion(at, body.byteLength),
    named: (kind, name, at, bytes) => index.add(kind, name, at, bytes),
    leftOut: left.tell,
  };
  const scanned = await readOnce(input, sink, () => keys, { output, signal });
  const opened = await keys!;
  left.end();
  tellFault(output, scanned);

  const unreadable = unreadableTeller(output);
  const source = new ExportSource({ file: input.handle, index, scanned, onUnreadable: unreadable.tell });
  if (opened.areOwn) assertFitting(opened, scanned.header.archive, await source.firstVersions(triedMax));

  const base = commonFolder(within === null ? scanned.chosen : [within]);
  let progress: RestoreProgress | null = null;
  const startedAt = performance.now();
  const stopMeter = startMeter(output, () => ({
    doneBytes: progress?.bytesDone ?? 0,
    totalBytes: within === null ? (scanned.end?.bytes ?? null) : null,
    words: `${countInWords(progress?.filesDone ?? 0)} files restored`,
    fields: { ...progress },
  }));
  try {
    const { vault, archive } = scanned.header;
    const result = await restore({
      client: source,
      keys: opened.keyring,
      archive,
      vault,
      path: within ?? base,
      base,
      to,
      existing: options.existing,
      owner: options.owner,
      trustTimes: options.trustTimes,
      fsync: options.fsync,
      signal,
      onProgress: (now) => {
        progress = now;
      },
      onEvent: (event) => {
        const { type, path: at, ...fields } = event;
        output.emit(type, { ...pathForJson(at), ...fields });
      },
    });
    stopMeter();
    const complete = result.complete && scanned.fault === null && scanned.leftOut === 0 && unreadable.count === 0;
    reportRestore(output, { ...result, complete }, performance.now() - startedAt, {
      to,
      asOf: momentInWords(result.at),
      fields: { ...aboutScanned(scanned), unreadable: unreadable.count },
    });
    return complete ? exitCodes.ok : exitCodes.incomplete;
  } catch (error) {
    if (within === null || !isNotThere(error)) throw error;
    stopMeter();
    const isWhole = scanned.fault === null && scanned.leftOut === 0 && unreadable.count === 0;
    return tellNothingThere({ file, within, output }, isWhole, {
      ...aboutScanned(scanned),
      unreadable: unreadable.count,
    });
  } finally {
    stopMeter();
  }
}

/** @throws Problem not_found; of an export that is not whole nobody can say that it is not there, so that is told only */
function tellNothingThere(
  { file, within, output }: Pick<Opening, 'file' | 'within' | 'output'>,
  isWhole: boolean,
  fields: object,
): number {
  const where = pathInWords(within!);
  const next = `What it holds: npm run agent -- open-export ${wordInShell(file)} --list`;
  if (isWhole) throw new Problem('not_found', `the export holds nothing at ${where}. ${next}`, { field: 'path' });
  output.note(`What can be read of the export holds nothing at ${where}. ${next}`);
  output.emit('end', { outcome: 'incomplete', ...fields });
  return exitCodes.incomplete;
}

/** The first reading. Ends at once when there are no keys to open it with. */
async function readOnce(
  input: Input,
  sink: ExportSink,
  keys: () => Promise<unknown> | null,
  { output, signal }: Pick<Opening, 'output' | 'signal'>,
): Promise<ScannedExport> {
  const noKeys = new AbortController();
  let readBytes = 0;
  let stopMeter: (() => void) | null = null;
  let isOver = false;
  const start = (): void => {
    if (isOver) return; // a password takes its time, and a short file does not
    stopMeter = startMeter(output, () => ({
      doneBytes: readBytes,
      totalBytes: input.bytes,
      words: 'read and checked',
      fields: { step: 'reading', bytesRead: readBytes, bytesTotal: input.bytes },
    }));
  };
  const watched: ExportSink = {
    ...sink,
    header(header) {
      sink.header?.(header);
      // Not beside a question on the same terminal.
      keys()?.then(start, (error) => noKeys.abort(error));
    },
    progress: (bytes) => {
      readBytes = bytes;
    },
  };
  try {
    return await scanExport(input.stream(), watched, AbortSignal.any([signal, noKeys.signal]));
  } finally {
    isOver = true;
    (stopMeter as (() => void) | null)?.();
  }
}

// --- the file -------------------------------------------------------------------------------------------------------

interface Input extends AsyncDisposable {
  handle: FileHandle;
  /** Null: it is not known how long it is. */
  bytes: number | null;
  stream(): AsyncIterable<Uint8Array>;
}

/** @throws UsageError */
async function openInput(file: string): Promise<Input> {
  const handle = await open(file, 'r').catch((error: NodeJS.ErrnoException) => {
    throw new UsageError(`cannot read ${file}: ${error.message}`);
  });
  const found = await handle.stat();
  if (!found.isFile()) {
    await handle.close();
    throw new UsageError(`${file} is no file; an export through a pipe is read as '-'`);
  }
  return {
    handle,
    bytes: found.size,
    stream: () => readThrough(handle),
    [Symbol.asyncDispose]: () => handle.close(),
  };
}

async function* readThrough(handle: FileHandle): AsyncGenerator<Uint8Array> {
  for (let at = 0; ; ) {
    const piece = Buffer.allocUnsafe(readBytes);
    const { bytesRead } = await handle.read(piece, 0, readBytes, at);
    if (bytesRead === 0) return;
    at += bytesRead;
    yield piece.subarray(0, bytesRead);
  }
}

/** What comes from stdin is written down as it comes, for it is read twice. */
async function spooled(folder: string, signal: AbortSignal): Promise<Input> {
  const path = join(folder, `.holdfast-export-${randomBytes(6).toString('hex')}`);
  const handle = await open(path, 'wx+', 0o600);
  // A file without a name goes with the process, whatever ends it. On Windows an open one keeps its name.
  if (process.platform !== 'win32') await rm(path);
  async function* stream(): AsyncGenerator<Uint8Array> {
    let at = 0;
    for await (const piece of fromStdin(signal)) {
      for (let done = 0; done < piece.byteLength; )
        done += (await handle.write(piece, done, piece.byteLength - done, at + done)).bytesWritten;
      at += piece.byteLength;
      yield piece;
    }
  }
  return {
    handle,
    bytes: null,
    stream,
    async [Symbol.asyncDispose]() {
      await handle.close();
      await rm(path, { force: true });
    },
  };
}

/** Whoever sends it may be waiting for ever. */
function fromStdin(signal: AbortSignal): AsyncIterable<Buffer> {
  signal.addEventListener('abort', () => process.stdin.destroy(), { once: true });
  return process.stdin;
}

// --- words ----------------------------------------------------------------------------------------------------------

/** Names the first of what the server left out, and counts the rest; scripts are told of all. */
function leftOutTeller(output: Output): { tell: (file: ExportLeftOut) => void; end: () => void } {
  let count = 0;
  return {
    tell({ path, reason, says, moments }) {
      output.emit('left_out', { ...pathForJson(path), reason, says, moments });
      if (++count > shownMax) return;
      output.note(`  NOT IN THE EXPORT: ${pathInWords(path)}: ${says}`);
      for (const { at, seq } of moments) output.note(`    whole as of ${momentInWords(at)} (version ${seq})`);
    },
    end: () => {
      if (count > shownMax) output.note(`  ... ${countInWords(count - shownMax)} more; --json names all`);
    },
  };
}

/** Versions of which not even the path can be read. */
function unreadableTeller(output: Output): { tell: (at: number) => void; count: number } {
  const teller = {
    count: 0,
    tell(at: number): void {
      if (++teller.count <= shownMax) output.note(`  CANNOT BE READ: the version at byte ${at} of the export`);
      output.emit('unreadable', { at });
    },
  };
  return teller;
}

const faultsInWords = {
  cut_off: (at: string) =>
    `THE EXPORT IS CUT OFF after ${at}: its end is missing, and nobody can say what else was in it. Fetch it again.`,
  damaged: (at: string) =>
    `THE EXPORT IS DAMAGED: after ${at} it cannot be read, and what comes behind is lost. Fetch it again.`,
  changed: () =>
    'THE EXPORT IS NOT AS IT WAS MADE: some of its bytes are others. What is wrong is left out; fetch it again for the rest.',
} as const;

function tellFault(output: Output, { fault }: ScannedExport): void {
  if (fault) output.note(faultsInWords[fault.what](bytesInWords(fault.at)));
}

function aboutScanned({ fault, versions, leftOut }: ScannedExport): object {
  return { export: fault?.what ?? 'whole', ...(fault && { readableBytes: fault.at }), versions, leftOut };
}
