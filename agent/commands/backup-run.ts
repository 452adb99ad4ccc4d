/** One backup as the commands `backup` and `watch` run it: with its rules, its meter and its report. */
import { homedir } from 'node:os';
import { resolve } from 'node:path';
import { newProgress, type Progress } from '../backup/progress.ts';
import { type BackupOptions, type BackupResult, backup } from '../backup/run.ts';
import type { Client } from '../client/client.ts';
import { createExcludes } from '../files/excludes.ts';
import { platformRules, toArchivePath } from '../files/path-rules.ts';
import type { Excludes } from '../files/types.ts';
import { walk } from '../files/walk.ts';
import { findHere } from '../plans/read-plan.ts';
import type { Cache } from '../state/cache.ts';
import { defaultServerData, surroundings } from '../state/home.ts';
import type { Registration } from '../state/registration.ts';
import { requireNewestKey } from './keys/kept-keys.ts';
import { startMeter } from './meter.ts';
import type { Output } from './output.ts';
import { bytesInWords, countInWords, durationInWords, pathForJson, pathInWords } from './words.ts';

export interface BackupRules {
  exclude: string[];
  excludeDefaults: boolean;
  excludeCaches: boolean;
  oneFileSystem: boolean;
  rehash?: boolean;
  acceptRoots?: boolean;
  deleteUnseen?: boolean;
  cpuShare?: number;
}

export interface BackupWorld {
  client: Client;
  cache: Cache;
  registration: Registration;
  home: string;
  output: Output;
}

export interface RunOptions {
  signal: AbortSignal;
  quiet?: boolean;
  onFolder?: BackupOptions['onFolder'];
  /** Of a run of a plan: its name, what it leaves out in place of what the rules say, and what other plans look after. */
  plan?: { name: string; excludes: Excludes; untouched: readonly Buffer[] };
}

/** Skipped files named in the report; `status --skipped` names all. */
const skippedShownMax = 20;

/** The rules of a backup: the default list, the user's, and the folders of the agent and of a server on this machine. */
export function excludesFor(
  rules: Pick<BackupRules, 'exclude' | 'excludeDefaults' | 'excludeCaches'>,
  home: string,
): Excludes {
  const platform = platformRules(process.platform);
  const base = createExcludes({
    platform,
    // Paths in the archive have no symbolic links in their folders.
    home: archivePathOrNull(findHere().home ?? homedir()),
    patterns: rules.exclude,
    defaults: rules.excludeDefaults,
    cacheTags: rules.excludeCaches,
  });
  // The agent's cache changes while it is read; and a server's blocks backed up to that same server would never end.
  const own = new Map<string, string>();
  for (const [folder, words] of [
    [home, "the agent's own folder"],
    [defaultServerData(surroundings()), "the data folder of this machine's server"],
  ] as const) {
    const path = archivePathOrNull(resolve(folder));
    if (path) own.set(path.toString('latin1'), words);
  }
  return {
    cacheTags: base.cacheTags,
    match: (path, kind) => own.get(path.toString('latin1')) ?? base.match(path, kind),
  };
}

/** The archive path of an absolute local one; null where the archive cannot hold it. */
export function archivePathOrNull(path: string): Buffer | null {
  try {
    return toArchivePath(process.platform === 'win32' ? path : Buffer.from(path), platformRules(process.platform));
  } catch {
    return null;
  }
}

/** Runs a backup with its meter and reports it. @throws KeysRaised; as `backup` */
export async function runBackup(
  world: BackupWorld,
  roots: readonly string[],
  rules: BackupRules,
  options: RunOptions,
): Promise<BackupResult> {
  const { client, cache, registration, output } = world;
  await requireNewestKey(client, registration);
  const { plan } = options;
  const excludes = plan?.excludes ?? excludesFor(rules, world.home);
  const progress = newProgress();
  const startedAt = performance.now();
  const finished = new AbortController();
  const total = totalOf(
    cache,
    roots,
    { excludes, oneFileSystem: rules.oneFileSystem, signal: AbortSignal.any([options.signal, finished.signal]) },
    output.terminal,
  );
  const stopMeter = options.quiet ? () => undefined : startMeter(output, () => reading(progress, total.bytes));
  output.emit('start', { roots, ...(plan && { plan: plan.name }) });
  try {
    const result = await backup({
      client,
      cache,
      registration,
      roots,
      excludes,
      progress,
      oneFileSystem: rules.oneFileSystem,
      rehash: rules.rehash,
      acceptRoots: rules.acceptRoots,
      deleteUnseen: rules.deleteUnseen,
      untouched: plan?.untouched,
      cpuShare: rules.cpuShare,
      signal: options.signal,
      onFolder: options.onFolder,
    });
    stopMeter();
    report(world, result, performance.now() - startedAt);
    return result;
  } finally {
    stopMeter();
    finished.abort();
  }
}

/** Bytes there are to go through: as the last run of the same roots saw them, else counted alongside. */
function totalOf(
  cache: Cache,
  roots: readonly string[],
  options: { excludes: Excludes; oneFileSystem: boolean; signal: AbortSignal },
  wanted: boolean,
): { bytes: number | null } {
  const last = cache
    .runs(20)
    .find((run) => run.outcome === 'completed' && JSON.stringify(run.roots) === JSON.stringify(roots));
  if (last) return { bytes: last.counts.bytesSeen ?? null };
  const total: { bytes: number | null } = { bytes: null };
  if (!wanted) return total;
  const count = async (): Promise<void> => {
    let bytes = 0;
    for await (const event of walk(roots, options)) if (event.type === 'file') bytes += event.file.size;
    total.bytes = bytes;
  };
  count().catch(() => undefined); // an estimate that fails costs the time left, nothing else; the run itself reports
  return total;
}

function reading(
  progress: Progress,
  totalBytes: number | null,
): { doneBytes: number; totalBytes: number | null; words: string; fields: object } {
  const { counts, phase, path } = progress;
  const words =
    phase === 'backing_up'
      ? pathInWords(path)
      : { starting: 'starting', comparing: 'asking the server', deletions: 'looking for deletions', ending: 'ending' }[
          phase
        ];
  return {
    doneBytes: progress.bytesDone,
    totalBytes,
    words,
    fields: { phase, bytesDone: progress.bytesDone, bytesTotal: totalBytes, ...counts },
  };
}

function report(world: BackupWorld, result: BackupResult, elapsedMs: number): void {
  const { output, cache } = world;
  const { counts } = result;
  const rate = bytesInWords((counts.bytesRead * 1000) / Math.max(1, elapsedMs));
  const n = countInWords;
  if (result.reconciled) output.say(`Compared with the archive first, because ${result.reconciled}.`);
  output.say(`Backup ${result.outcome} in ${durationInWords(elapsedMs)} (run ${result.run}).`);
  if (result.reason) output.say(`  why    ${result.reason}`);
  output.say(
    `  files  ${n(counts.filesSeen)} seen, ${n(counts.filesChanged)} changed, ${n(counts.filesDeleted)} deleted, ${n(counts.filesSkipped)} skipped, ${n(counts.filesExcluded)} excluded`,
  );
  output.say(
    `  bytes  ${bytesInWords(counts.bytesSeen)} seen, ${bytesInWords(counts.bytesRead)} read (${rate}/s), ${bytesInWords(counts.bytesSent)} sent, ${bytesInWords(counts.bytesKnown)} deduplicated`,
  );
  if (counts.filesSkipped > 0) {
    output.say('  skipped:');
    let shown = 0;
    for (const row of cache.skipped({ generation: result.generation, excludedToo: false })) {
      if (shown++ >= skippedShownMax) break;
      output.say(`    ${row.reason.padEnd(18)} ${pathInWords(row.path)}${row.detail ? ` (${row.detail})` : ''}`);
    }
    if (counts.filesSkipped > skippedShownMax)
      output.say(`    ... all ${n(counts.filesSkipped)}: npm run agent -- status --skipped`);
  }
  if (output.json) {
    for (const row of cache.skipped({ generation: result.generation, excludedToo: false })) {
      output.emit('skipped', { ...pathForJson(row.path), reason: row.reason, detail: row.detail });
    }
  }
  output.emit('end', {
    outcome: result.outcome,
    reason: result.reason,
    run: result.run,
    reconciled: result.reconciled,
    elapsedMs: Math.round(elapsedMs),
    ...counts,
  });
}
