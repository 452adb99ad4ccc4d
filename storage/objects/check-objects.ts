/**
 * Tells an operator whether a store is fit to hold backups: runs the contract in a scratch folder of it, and looks at
 * what would lose objects behind the engine's back. Changes nothing outside the scratch folder, and empties that.
 */
import { randomUUID } from 'node:crypto';
import type { ObjectStore, StoreInspection } from './object-store.ts';
import { clearPrefix, readAll, storeContract } from './store-contract.ts';

export interface CheckOptions {
  /** Below it the check makes a folder of its own. Default `check-objects/`. */
  prefix?: string;
  /** The store's number of connections; the check abandons more reads than that. Default 64. */
  concurrency?: number;
  /** The longest that one step may take. Default 2 min. */
  stepMsMax?: number;
  /** ms that only go forward. */
  monotonicMs?: () => number;
}

export interface CheckStep {
  name: string;
  ok: boolean;
  ms: number;
  /** What went wrong. */
  error?: string;
}

export interface CheckResult {
  /** Every step passed: the store can be used. Warnings do not count. */
  ok: boolean;
  steps: CheckStep[];
  warnings: string[];
  inspection: StoreInspection | undefined;
  /** Of 50 puts and 50 gets of 4 KiB, one after the other, in ms; absent when they failed. */
  latency: { putMedianMs: number; putSlowestMs: number; getMedianMs: number; getSlowestMs: number } | undefined;
}

/** Beyond this the engine stops deleting, because it cannot tell whose clock is right. */
const clockApartMsMax = 5 * 60 * 1_000;
/** `Date` is cut to the second, and an answer takes its time: below this nothing is wrong. */
const clockApartMsNormal = 5_000;
const freeBytesLow = 1024 ** 3;
const latencySamples = 50;

/** Never throws for what the store does; every line of the report is also told to `report` as it comes. */
export async function checkObjects(
  store: ObjectStore,
  report: (line: string) => void,
  options: CheckOptions = {},
): Promise<CheckResult> {
  const scratch = `${options.prefix ?? 'check-objects/'}${randomUUID()}/`;
  const now = options.monotonicMs ?? (() => performance.now());
  const result: CheckResult = { ok: true, steps: [], warnings: [], inspection: undefined, latency: undefined };

  const step = async (name: string, run: () => Promise<void>) => {
    const begun = now();
    const error = await within(options.stepMsMax ?? 120_000, run).then(
      () => undefined,
      (reason: unknown) => (reason instanceof Error ? reason.message : String(reason)),
    );
    const ms = Math.round(now() - begun);
    result.steps.push({ name, ok: error === undefined, ms, ...(error !== undefined && { error }) });
    if (error !== undefined) result.ok = false;
    report(error === undefined ? `ok    ${name} (${ms} ms)` : `FAIL  ${name}: ${error}`);
    return error === undefined;
  };
  const warn = (warning: string) => {
    result.warnings.push(warning);
    report(`warn  ${warning}`);
  };

  // Without these the other steps would only fail one by one, slowly.
  if (!(await step('the store answers', () => store.check()))) return result;
  await step('its settings keep what is stored', async () => {
    result.inspection = await store.inspect();
    for (const warning of settingsWarnings(result.inspection)) warn(warning);
    const errors = settingsErrors(result.inspection);
    if (errors.length > 0) throw new Error(errors.join('; '));
  });
  const place = { store, prefix: '', abandonedReads: (options.concurrency ?? 64) + 8 };
  for (const [index, check] of storeContract.entries()) {
    await step(check.name, () => check.run({ ...place, prefix: `${scratch}${index}/` }));
  }
  await step('small objects go quickly enough to measure', async () => {
    result.latency = await measureLatency(store, `${scratch}latency/`, now);
    const { putMedianMs, putSlowestMs, getMedianMs, getSlowestMs } = result.latency;
    report(
      `      4 KiB put ${putMedianMs} ms (slowest ${putSlowestMs}), get ${getMedianMs} ms (slowest ${getSlowestMs})`,
    );
  });
  await step('the scratch folder is empty again', async () => {
    await clearPrefix(store, scratch);
    const left = (await store.list(scratch, { limit: 1 })).objects;
    if (left.length > 0) throw new Error(`${left[0]!.key} is still there`);
  });
  return result;
}

/** Settings with which acknowledged backups would be lost. */
export function settingsErrors(found: StoreInspection): string[] {
  const errors = (found.lifecycleRules ?? [])
    .filter((rule) => rule.effect !== 'tidies')
    .map((rule) => {
      const effect = rule.effect === 'expires' ? 'deletes objects' : 'moves objects out of reach';
      return `the lifecycle rule "${rule.id}" ${effect} under "${rule.prefix}", whoever still needs them`;
    });
  if (Math.abs(found.clockAheadMs ?? 0) > clockApartMsMax) {
    errors.push(`the store's clock and this machine's are ${seconds(found.clockAheadMs!)} s apart`);
  }
  return errors;
}

/** Settings that cost money or keep what was meant to go. */
export function settingsWarnings(found: StoreInspection): string[] {
  const warnings: string[] = [];
  if (found.versioning === 'enabled' || found.versioning === 'suspended') {
    warnings.push(
      `the bucket's versioning is ${found.versioning}: deleted and purged bytes stay as earlier versions until a lifecycle rule for those removes them`,
    );
  }
  if (found.kind === 's3' && !found.versioning) warnings.push('the bucket does not tell whether it keeps versions');
  if (found.kind === 's3' && !found.lifecycleRules) {
    warnings.push('the bucket does not tell its lifecycle rules: make sure that none expires objects');
  }
  const apartMs = Math.abs(found.clockAheadMs ?? 0);
  if (apartMs > clockApartMsNormal && apartMs <= clockApartMsMax) {
    warnings.push(`the store's clock and this machine's are ${seconds(found.clockAheadMs!)} s apart`);
  }
  if (found.freeBytes !== undefined && found.freeBytes < freeBytesLow) {
    warnings.push(`only ${Math.floor(found.freeBytes / 1024 ** 2)} MiB are free`);
  }
  return warnings;
}

async function measureLatency(
  store: ObjectStore,
  prefix: string,
  now: () => number,
): Promise<CheckResult['latency'] & object> {
  const body = { length: 4_096, chunks: [Buffer.alloc(4_096, 7)] };
  const puts: number[] = [];
  const gets: number[] = [];
  for (let i = 0; i < latencySamples; i++) {
    const begun = now();
    await store.put(`${prefix}${i}`, body);
    puts.push(now() - begun);
  }
  for (let i = 0; i < latencySamples; i++) {
    const begun = now();
    await readAll(store, `${prefix}${i}`);
    gets.push(now() - begun);
  }
  return {
    putMedianMs: median(puts),
    putSlowestMs: slowest(puts),
    getMedianMs: median(gets),
    getSlowestMs: slowest(gets),
  };
}

const median = (times: number[]) => tenths([...times].sort((a, b) => a - b)[times.length >> 1]!);
const slowest = (times: number[]) => tenths(Math.max(...times));
const tenths = (ms: number) => Math.round(ms * 10) / 10;
const seconds = (ms: number) => Math.round(Math.abs(ms) / 1_000);

/** Runs to the end or for so long. What is still running then goes on unheard; the contract's calls have bounds of their own. */
async function within(msMax: number, run: () => Promise<void>): Promise<void> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`took longer than ${msMax} ms`)), msMax);
  try {
    await Promise.race([run(), promise]);
  } finally {
    clearTimeout(timer);
  }
}
