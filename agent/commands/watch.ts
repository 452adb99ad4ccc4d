/**
 * `watch PATH...`: continuous backup; without a PATH it follows the plans (plans/follow.ts). A full pass at an interval finds
 * everything; where the system tells of changes (macOS and Windows for whole trees, Linux for the folders within its bound), a
 * pass follows them sooner.
 * Passes are spaced by their own length, so that a large tree is not walked all day for a file that changes all day.
 * Beside it, what the server tells this device is done (following/follow.ts).
 */
import { type FSWatcher, watch as watchPath } from 'node:fs';
import { join, sep } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { LocalPath } from '../files/types.ts';
import { lockHome } from '../state/lock.ts';
import { type BackupCommandOptions, checked, withBackupOptions } from './backup.ts';
import { runBackup } from './backup-run.ts';
import { followCommands } from './following/follow.ts';
import { KeysRaised } from './keys/kept-keys.ts';
import { createOutput, exitCodes, type Output } from './output.ts';
import { parseDuration } from './parse.ts';
import { followPlans } from './plans/follow.ts';
import { cacheOf, clientOf, explained, homeOf, registrationOf, withInterrupt } from './session.ts';
import { durationInWords } from './words.ts';

const intervalMsMin = 10_000;
/** Quiet for so long after a change, so that a file being saved is not read half-way. */
const quietMs = 5_000;
/** Linux watches folder by folder, at about 1 KiB of kernel memory each; the rest waits for the full pass. */
const foldersWatchedMax = 4_096;
/** A pass is followed by at least so many times its own length of rest. */
const restFactor = 10;

interface WatchOptions extends BackupCommandOptions {
  interval: number;
  push: boolean;
}

export function addWatch(program: Command): void {
  withBackupOptions(program.command('watch'))
    .description('Back up continuously until stopped.')
    .argument('[path...]', 'files and folders; none: follow the plans of this device')
    .option(
      '--interval <time>',
      "with PATHs: time between full passes, such as '15m'",
      checked(parseDuration, "is not a time such as '15m'"),
      15 * 60_000,
    )
    .option('--no-push', 'do nothing that the server tells this device: restores to it, and looking into its folders')
    .addHelpText(
      'after',
      '\nExamples:\n  npm run agent -- watch\n  npm run agent -- watch ~/Documents --interval 15m --limit-upload 1MiB/s --cpu 50%',
    )
    .action(async (paths: string[], options: WatchOptions) => {
      process.exitCode = await watchCommand(paths, options);
    });
}

async function watchCommand(paths: string[], options: WatchOptions): Promise<number> {
  const output = createOutput({ json: options.json ?? false });
  const home = homeOf(options);
  const unlock = lockHome(home);
  const listener = new ChangeListener(home);
  try {
    const registration = await registrationOf(home, output);
    const cache = cacheOf(home, registration);
    const client = clientOf(registration, output, { limitUploadBytesPerSecond: options.limitUpload });
    const intervalMs = Math.max(intervalMsMin, options.interval);
    const world = { client, cache, registration, home, output };
    const rules = { ...options, cpuShare: options.cpu };
    if (process.platform !== 'linux') for (const path of paths) listener.listen(path, { recursive: true });
    try {
      await withInterrupt(output, async (signal) => {
        await besides(
          signal,
          (either) => followCommands(world, { push: options.push, signal: either }),
          () => backUp(signal),
        );
      });
      return exitCodes.interrupted;
    } finally {
      client.destroy();
      cache.close();
    }

    async function backUp(signal: AbortSignal): Promise<void> {
      if (paths.length === 0) return followPlans(world, rules, signal);
      while (!signal.aborted) {
        const startedAt = performance.now();
        listener.begin();
        await pass(signal);
        await listener.next({
          signal,
          atMostMs: intervalMs,
          atLeastMs: Math.max(quietMs, (performance.now() - startedAt) * restFactor),
        });
      }
    }

    async function pass(signal: AbortSignal): Promise<void> {
      try {
        const onFolder =
          process.platform === 'linux' ? (path: LocalPath) => listener.listen(path, { recursive: false }) : undefined;
        await runBackup(world, paths, rules, { signal, onFolder });
      } catch (error) {
        // The next pass tries again: a server that is away must not end a service.
        const told = explained(error, registration) as Error;
        if (told !== error || error instanceof KeysRaised) throw told; // but this one needs a person
        sayFailure(output, told);
      }
      output.note(`Waiting for changes; a full pass every ${durationInWords(intervalMs)}.`);
    }
  } finally {
    listener.close();
    unlock();
  }
}

/** Runs one thing beside another, and ends it with that. */
async function besides(
  signal: AbortSignal,
  aside: (signal: AbortSignal) => Promise<void>,
  work: () => Promise<void>,
): Promise<void> {
  const over = new AbortController();
  const running = aside(AbortSignal.any([signal, over.signal]));
  try {
    await work();
  } finally {
    over.abort(new Error('the command ends'));
    await running;
  }
}

function sayFailure(output: Output, error: Error): void {
  output.note(`This pass failed: ${error.message}`);
  output.emit('pass_failed', { message: error.message });
}

function isBelow(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder + sep);
}

/** Hears that something changed; what it was, the next pass finds out. */
class ChangeListener {
  readonly #watchers = new Map<string, FSWatcher>();
  readonly #ignored: string;
  #changedAt: number | null = null;

  /** @param ignored the agent's own folder: what a pass writes there is no reason for another */
  constructor(ignored: string) {
    this.#ignored = ignored;
  }

  /** A pass begins: from here on a change may be to a file that it has passed already. */
  begin(): void {
    this.#changedAt = null;
  }

  listen(path: LocalPath, options: { recursive: boolean }): void {
    const key = typeof path === 'string' ? path : path.toString('latin1');
    if (this.#watchers.has(key) || this.#watchers.size >= foldersWatchedMax) return;
    try {
      const folder = typeof path === 'string' ? path : path.toString('utf8');
      const watcher = watchPath(path, { recursive: options.recursive, persistent: false }, (_, name) => {
        if (name === null || !isBelow(join(folder, name), this.#ignored)) this.#changedAt = performance.now();
      });
      watcher.on('error', () => this.#forget(key)); // the folder went away, or the system's bound is reached
      this.#watchers.set(key, watcher);
    } catch {
      // Not every file system tells of changes; the full pass finds them.
    }
  }

  /** Resolves after a change and quiet behind it, or after `atMostMs`; never before `atLeastMs`. */
  async next(bounds: { signal: AbortSignal; atLeastMs: number; atMostMs: number }): Promise<void> {
    const since = performance.now();
    while (!bounds.signal.aborted && performance.now() - since < bounds.atMostMs) {
      const now = performance.now();
      const quiet = this.#changedAt !== null && now - this.#changedAt >= quietMs;
      if (quiet && now - since >= Math.min(bounds.atLeastMs, bounds.atMostMs)) return;
      await sleep(1_000, undefined, { signal: bounds.signal }).catch(() => undefined);
    }
  }

  close(): void {
    for (const watcher of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }

  #forget(key: string): void {
    this.#watchers.get(key)?.close();
    this.#watchers.delete(key);
  }
}
