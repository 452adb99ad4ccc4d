/**
 * `status`: when this machine was last backed up, and of one file, when it was last stored or why it was not.
 * Answers from the agent's own folder: no server is asked.
 */
import { existsSync } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { FileKind, PlanMessage } from '../../protocol/messages.ts';
import { isUnchanged } from '../backup/compare.ts';
import { excludedBy } from '../files/excludes.ts';
import { isAtOrBelow } from '../files/path-rules.ts';
import { statFields } from '../files/read.ts';
import { resolveArchivePath } from '../files/roots.ts';
import { deepest, leftOutBy } from '../plans/combine-excludes.ts';
import { readKeptPlans } from '../plans/kept-plans.ts';
import { findHere, readPlan } from '../plans/read-plan.ts';
import type { Cache, SkippedRow } from '../state/cache.ts';
import { homeFile } from '../state/home.ts';
import { readRegistration } from '../state/registration.ts';
import { archivePathOf } from './archive.ts';
import { archivePathOrNull, excludesFor } from './backup-run.ts';
import { createOutput, exitCodes, type Output, UsageError } from './output.ts';
import { plansInALine } from './plans/show-plans.ts';
import { type CommonOptions, cacheOf, homeOf } from './session.ts';
import { bytesInWords, countInWords, durationInWords, momentInWords, pathForJson, pathInWords } from './words.ts';

interface StatusOptions extends CommonOptions {
  skipped?: boolean;
  excluded?: boolean;
}

export function addStatus(program: Command): void {
  program
    .command('status')
    .description('Say when this machine, or one file, was last backed up, or why it was not.')
    .argument('[file]', 'a file or folder')
    .option('--skipped', 'list all that the last runs left out, and why')
    .option('--excluded', 'with --skipped: also what a rule excluded')
    .addHelpText(
      'after',
      '\nExamples:\n  npm run agent -- status\n  npm run agent -- status ~/Documents/letter.odt\n  npm run agent -- status --skipped',
    )
    .action(async (file: string | undefined, options: StatusOptions) => {
      process.exitCode = await statusCommand(file, options);
    });
}

async function statusCommand(file: string | undefined, options: StatusOptions): Promise<number> {
  const output = createOutput({ json: options.json ?? false });
  const home = homeOf(options);
  const registration = readRegistration(home);
  if (!registration) throw new UsageError(`this machine is not registered with a server (looked in ${home})`);
  if (!existsSync(homeFile(home, 'cache.db'))) {
    output.say(
      `Registered with ${registration.url} as device ${registration.guid}. Nothing was backed up from here yet.`,
    );
    output.emit('status', { url: registration.url, guid: registration.guid, runs: [] });
    return exitCodes.ok;
  }
  const cache = cacheOf(home, registration, { readOnly: true });
  try {
    const kept = readKeptPlans(home, registration);
    if (file !== undefined) return await fileStatus(output, cache, { home, file, plans: kept?.plans ?? [] });
    if (options.skipped) return listSkipped(output, cache, options.excluded ?? false);
    const runs = cache.runs(5);
    output.say(
      `Device ${registration.guid} (${registration.deviceName}) of ${registration.userName}, server ${registration.url}`,
    );
    output.say(`${countInWords(cache.fileCount())} paths are stored.`);
    const completed = cache.runs(100).find((run) => run.outcome === 'completed');
    output.say(
      completed ? `Last completed backup: ${momentInWords(completed.endedAtMs!)}` : 'No backup has completed yet.',
    );
    const plans = plansInALine(kept, Date.now());
    if (plans) output.say(plans);
    for (const run of runs) {
      const took = run.endedAtMs === null ? 'not ended' : durationInWords(run.endedAtMs - run.startedAtMs);
      const sent =
        run.counts.bytesSent === undefined
          ? ''
          : `, ${bytesInWords(run.counts.bytesSent)} sent, ${countInWords(run.counts.filesSkipped ?? 0)} skipped`;
      output.say(
        `  ${momentInWords(run.startedAtMs)}  ${(run.outcome ?? 'under way or killed').padEnd(11)} ${took}${sent}  ${run.roots.join(' ')}`,
      );
      if (run.reason) output.say(`      ${run.reason}`);
    }
    output.emit('status', {
      url: registration.url,
      guid: registration.guid,
      deviceName: registration.deviceName,
      lastCompletedAt: completed?.endedAtMs ?? null,
      plans: kept?.plans.map(({ name }) => name) ?? [],
      runs,
    });
    return exitCodes.ok;
  } finally {
    cache.close();
  }
}

async function fileStatus(
  output: Output,
  cache: Cache,
  { home, file, plans }: { home: string; file: string; plans: readonly PlanMessage[] },
): Promise<number> {
  const path = await archivePathOf(file);
  const cached = cache.lookup(path);
  const skipped = skippedAtOrAbove(cache, path);
  const now = await lstat(file, { bigint: true }).catch(() => null);
  const kind: FileKind = now?.isDirectory() ? 'directory' : now?.isSymbolicLink() ? 'symlink' : 'file';
  const excluded = cached ? null : await exclusionOf(cache, home, { path, kind, plans });

  const storedAt = cached && cached.seq > 0 ? cached.storedAtMs : null;
  const stored = cached
    ? storedAt
      ? `stored ${momentInWords(storedAt)} (#${cached.seq})`
      : `in the archive (#${cached.seq}), stored before this cache was made`
    : 'not stored';
  const isNow = !now
    ? 'it is not on this disk'
    : cached && now.isFile() && cached.kind === 'file'
      ? isUnchanged(statFields(now), { ...cached, trusted: true })
        ? 'unchanged since'
        : 'changed since, waits for the next backup'
      : '';
  output.say(`${pathInWords(path)}: ${stored}${isNow ? `; ${isNow}` : ''}`);
  if (skipped)
    output.say(
      `  the last run left it out: ${skipped.reason}${skipped.detail ? ` (${skipped.detail})` : ''}${skipped.path.equals(path) ? '' : ` at ${pathInWords(skipped.path)}`}`,
    );
  else if (excluded)
    output.say(
      `  it is excluded: ${excluded.rule}${excluded.path.equals(path) ? '' : `, which leaves out ${pathInWords(excluded.path)}`}`,
    );
  else if (!cached && now) output.say('  no run has met it yet');
  output.emit('file', {
    ...pathForJson(path),
    stored: cached !== null,
    storedAt: storedAt || null,
    seq: cached?.seq ?? null,
    leftOut: skipped ? { reason: skipped.reason, detail: skipped.detail, at: pathForJson(skipped.path).path } : null,
    excludedBy: excluded ? { rule: excluded.rule, at: pathForJson(excluded.path).path } : null,
  });
  return cached ? exitCodes.ok : exitCodes.failed;
}

/**
 * What the rules say of a path that no run told of: those of the plans that cover it, else the default ones. They do not apply
 * to a root that was asked for, so a path is looked at from the root of the last run that it lies in, where there is one.
 */
async function exclusionOf(
  cache: Cache,
  home: string,
  { plans, ...file }: { path: Buffer; kind: FileKind; plans: readonly PlanMessage[] },
): Promise<{ path: Buffer; rule: string } | null> {
  const defaults = { exclude: [], excludeDefaults: true, excludeCaches: false };
  const here = findHere();
  const readable = plans.map((plan) => readPlan(plan, here)).filter(({ faults }) => faults.length === 0);
  const covering = await Promise.all(
    readable.map(async ({ plan, folders }) => {
      const roots = await Promise.all(folders.map((folder) => resolveArchivePath(folder).catch(() => null)));
      const excludes = excludesFor({ ...defaults, exclude: plan.exclude }, home);
      return { roots: roots.filter((root) => root !== null), excludes };
    }),
  );
  if (covering.some(({ roots }) => deepest(roots, file.path) !== null)) return leftOutBy(covering, file);
  const roots = (cache.runs(1)[0]?.roots ?? [])
    .map((root) => archivePathOrNull(resolve(root)))
    .filter((root) => root !== null);
  const root = roots.find((candidate) => isAtOrBelow(file.path, candidate)) ?? Buffer.from('/');
  return excludedBy(excludesFor(defaults, home), { root, ...file });
}

/** A folder that was left out whole left this out too. */
function skippedAtOrAbove(cache: Cache, path: Buffer): SkippedRow | null {
  const own = cache.skippedAt(path);
  if (own) return own;
  for (let at = path.lastIndexOf(0x2f); at > 0; at = path.lastIndexOf(0x2f, at - 1)) {
    const row = cache.skippedAt(path.subarray(0, at));
    if (row?.subtree) return row;
  }
  return null;
}

function listSkipped(output: Output, cache: Cache, excludedToo: boolean): number {
  for (const row of cache.skipped({ excludedToo })) {
    output.say(`${row.reason.padEnd(18)} ${pathInWords(row.path)}${row.detail ? ` (${row.detail})` : ''}`);
    output.emit('skipped', { ...pathForJson(row.path), reason: row.reason, detail: row.detail });
  }
  return exitCodes.ok;
}
