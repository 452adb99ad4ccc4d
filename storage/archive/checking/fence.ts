/**
 * The proof that this catalog is the one the bucket belongs to. A row and an object carry the same nonce, which the
 * workers renew every minute; nothing is deleted unless the two agree, are fresh, and the clocks agree.
 *
 * So a catalog that was restored from a backup, or a copy of one, deletes nothing: the object's nonce is none that it
 * ever wrote. Whoever finds that out leaves a mark in the bucket, and while the mark is there neither catalog deletes,
 * also not the one that was right, until a person has said which one that is (`adopt`). What has to stay true:
 * - the row is written before the object, so a nonce in the bucket is one that some catalog's row has (or had);
 * - a nonce is random and never chosen twice, so nonces that a catalog remembers were written by it, or by what it is
 *   a copy of;
 * - every process looks at its own start for some beats before it deletes, and writes a nonce in the first of them, so
 *   that the other catalog of the same bucket has had the time to see it;
 * - whoever deletes asks here before, and the transaction that deletes reads the row once more, itself: between the two,
 *   and when it is repeated, the database may have failed over onto an older state of the catalog.
 */
import { uptime } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { closeAlertsOf, listAlerts, raiseAlert } from '../../catalog/checking/alerts.ts';
import { type FenceRow, readFence, renewFence } from '../../catalog/checking/fence.ts';
import type { Storage } from '../../storage.ts';
import { ClockWatch } from './clock-watch.ts';
import { type BucketSide, freshNonce, putContested, putNonce, readBucketSide } from './fence-object.ts';

/**
 * Why nothing is deleted. `starting`: too few beats yet. `foreign_nonce`: the object in the bucket is not this
 * catalog's. `contested`: somebody found that and left a mark. `moved`: the catalog was given another prefix since this
 * process started. `stale`: nobody renewed the fence lately. `clock`: clocks disagree.
 */
export type StopReason =
  | 'starting'
  | 'foreign_nonce'
  | 'contested'
  | 'moved'
  | 'stale'
  | 'clock'
  | 'bucket_unreachable'
  | 'catalog_unreachable';

export interface FenceState {
  held: boolean;
  /** Null when it is held. */
  reason: StopReason | null;
  /** The reason as a sentence for the operator, or ''. */
  detail: string;
  /** How many beats of this process found row and object in agreement, since its start or since they last did not. */
  beats: number;
}

export interface Fence {
  /**
   * Once a minute in every worker process: renews row and object when that is due (whoever comes first of all workers)
   * and looks whether they agree. Throws nothing: it remembers why deleting is stopped, and raises an alert.
   */
  beat(): Promise<FenceState>;
  /** Before every batch that deletes objects or versions. Reads row and bucket again. @throws DeletingStopped */
  assertHeld(): Promise<void>;
  /**
   * In every transaction that deletes: whether the row that it read itself (by `readFence`, without a lock) is the one
   * that assertHeld last found in agreement with the bucket, or has been renewed since; and whether its time is one that
   * the clocks agree on. An older state of the catalog does not know the nonce, if it is from before the last renewal.
   * Asks nobody.
   * @throws DeletingStopped
   */
  assertStillHeld(read: FenceRow): void;
  /**
   * Whether the fence object can be read and is this catalog's, held or not: the bucket is the right one, and answers.
   * Before believing a store that says an object is not there.
   */
  isOurBucket(): Promise<boolean>;
  /** What the last beat or assertHeld found. */
  state(): FenceState;
}

export interface FenceOptions {
  beatMs: number;
  beatsBeforeDeleting: number;
  /** How far clocks may be apart before deleting stops. Default 5 min. */
  clockApartMsMax?: number;
  /** Waits so many milliseconds. Default: a timer. */
  pause?: (ms: number) => Promise<unknown>;
  /** A clock that nobody sets and that goes on while the machine sleeps. Default: how long the machine is up. */
  monotonicMs?: () => number;
}

export const fenceDefaults = {
  beatMs: 60_000,
  beatsBeforeDeleting: 3,
  clockApartMsMax: 5 * 60_000,
} as const;

/** Nothing may be deleted now, and why. Work that deletes ends here and is tried again by its schedule. */
export class DeletingStopped extends Error {
  readonly reason: StopReason;

  constructor(reason: StopReason, detail: string) {
    super(`deleting is stopped (${reason}): ${detail}`);
    this.name = 'DeletingStopped';
    this.reason = reason;
  }
}

export function openFence(storage: Storage, options: FenceOptions): Fence {
  return new BucketFence(storage, options);
}

interface Look extends BucketSide {
  row: FenceRow;
  verdict: Verdict;
}

/**
 * `agree`: one nonce. `behind`: the bucket has a nonce the catalog used before (a PUT that did not arrive, or arrived
 * late), so the current one is put again. `new`: neither has one, this prefix was never used.
 */
type Verdict = 'agree' | 'behind' | 'new' | 'foreign';

/** Row against object, without the clock. */
export function compareNonces(row: Pick<FenceRow, 'nonce' | 'previous'>, nonce: string | null): Verdict {
  if (row.nonce === null) return nonce === null ? 'new' : 'foreign';
  if (nonce === row.nonce) return 'agree';
  if (nonce === null) return row.previous.length === 0 ? 'behind' : 'foreign';
  return row.previous.includes(nonce) ? 'behind' : 'foreign';
}

const isForeign = (look: Look): boolean => look.mark === null && look.verdict === 'foreign';

interface Problem {
  reason: StopReason;
  detail: string;
}

/** An alert about what may pass by itself waits for that many beats. */
const patientBeats = 3;
const passing = new Set<StopReason>(['starting', 'stale', 'bucket_unreachable', 'catalog_unreachable']);

/** For how long work waits for a beat's object whose row it has seen. */
const pauseMs = 100;
const pausesMax = 20;

/** As often as a look is repeated because others renewed the row meanwhile. */
const looksMax = 4;

class Unreachable extends Error {
  readonly where: 'catalog' | 'bucket';

  constructor(where: 'catalog' | 'bucket', cause: Error) {
    super(`the ${where} cannot be asked: ${cause.message}`, { cause });
    this.where = where;
  }
}

function asking<T>(where: 'catalog' | 'bucket', work: Promise<T>): Promise<T> {
  return work.catch((cause) => {
    throw new Unreachable(where, cause as Error);
  });
}

class BucketFence implements Fence {
  private readonly storage: Storage;
  private readonly beatMs: number;
  private readonly beatsBeforeDeleting: number;
  private readonly clockApartMsMax: number;
  private readonly monotonicMs: () => number;
  private readonly pause: (ms: number) => Promise<unknown>;
  private readonly clock: ClockWatch;
  /** In row and bucket when assertHeld last passed. Null: it never did. */
  private heldNonce: string | null = null;
  private beats = 0;
  private hasRenewed = false;
  private problem: Problem | null;
  private beating: Promise<FenceState> | null = null;
  private sameReasonBeats = 0;
  private alerted: StopReason | null | undefined;

  constructor(storage: Storage, options: FenceOptions) {
    this.storage = storage;
    this.beatMs = options.beatMs;
    this.beatsBeforeDeleting = options.beatsBeforeDeleting;
    this.clockApartMsMax = options.clockApartMsMax ?? fenceDefaults.clockApartMsMax;
    // Goes on while the machine sleeps, unlike performance.now(): a laptop that was closed over night did not jump.
    this.monotonicMs = options.monotonicMs ?? (() => uptime() * 1_000);
    this.pause = options.pause ?? ((ms) => sleep(ms));
    this.clock = new ClockWatch({ toleranceMs: this.clockApartMsMax });
    this.problem = this.starting();
  }

  state(): FenceState {
    const { problem, beats } = this;
    return { held: problem === null, reason: problem?.reason ?? null, detail: problem?.detail ?? '', beats };
  }

  beat(): Promise<FenceState> {
    this.beating ??= this.beatOnce().finally(() => {
      this.beating = null;
    });
    return this.beating;
  }

  async assertHeld(): Promise<void> {
    this.problem = await this.find(async () => {
      let look = await this.look();
      // A beat writes the row and then the object. Work that looks in between waits for it, and is not stopped by it.
      for (let pauses = 0; look.verdict === 'behind' && look.mark === null && pauses < pausesMax; pauses++) {
        await this.pause(pauseMs);
        look = await this.look();
      }
      const problem = this.judge(look);
      if (!problem) this.heldNonce = look.row.nonce;
      return problem;
    });
    if (this.problem) throw new DeletingStopped(this.problem.reason, this.problem.detail);
  }

  assertStillHeld(read: FenceRow): void {
    this.clock.observe(read.now.getTime(), this.monotonicMs());
    const problem = this.setBack(read) ?? this.clockJumped();
    if (problem) throw new DeletingStopped(problem.reason, problem.detail);
  }

  async isOurBucket(): Promise<boolean> {
    const { verdict } = await this.look();
    return verdict === 'agree' || verdict === 'behind';
  }

  private async beatOnce(): Promise<FenceState> {
    const before = this.problem?.reason;
    this.problem = await this.find(() => this.renewAndJudge());
    this.sameReasonBeats = this.problem?.reason === before ? this.sameReasonBeats + 1 : 1;
    await this.tell().catch(() => {}); // told at the next beat
    return this.state();
  }

  private async renewAndJudge(): Promise<Problem | null> {
    let look = await this.look();
    // Looked at once more, because a mark stops everything: "adopt" may have put things right just now.
    if (isForeign(look)) look = await this.look();
    if (isForeign(look)) await this.leaveMark(look);
    if (look.mark === null && (await this.renew(look))) look = await this.look();
    if (this.mismatch(look)) this.beats = 0;
    else if (!this.disagreement(look)) this.beats++;
    return this.judge(look);
  }

  /** What cannot be looked at does not agree. */
  private async find(work: () => Promise<Problem | null>): Promise<Problem | null> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Unreachable)) throw error;
      return { reason: `${error.where}_unreachable`, detail: error.message };
    }
  }

  /** Row and bucket as they were at one time: the row is read again when another worker renewed it meanwhile. */
  private async look(): Promise<Look> {
    let row = await this.readRow();
    for (let attempt = 1; attempt <= looksMax; attempt++) {
      const side = await asking('bucket', readBucketSide(this.storage));
      const after = await this.readRow();
      const settled = after.nonce === row.nonce;
      row = after;
      if (settled) return { ...side, row, verdict: compareNonces(row, side.nonce) };
    }
    throw new Unreachable('catalog', new Error('others renew the fence all the time'));
  }

  private async readRow(): Promise<FenceRow> {
    const row = await asking('catalog', readFence(this.storage.database));
    this.clock.observe(row.now.getTime(), this.monotonicMs());
    return row;
  }

  /** @returns whether something was written, so that it is worth looking again */
  private async renew({ row, verdict }: Look): Promise<boolean> {
    if (row.catalogId !== this.storage.catalogId) return false;
    if (verdict === 'foreign') return false;
    if (verdict === 'behind') {
      await asking('bucket', putNonce(this.storage, row.nonce!, row.now));
      return true;
    }
    const sinceMs = row.renewedAt ? row.now.getTime() - row.renewedAt.getTime() : 0;
    const due = verdict === 'new' || !this.hasRenewed || sinceMs < 0 || sinceMs >= this.beatMs * 0.8;
    if (!due) return false;
    const nonce = freshNonce();
    await asking('catalog', renewFence(this.storage.database, row, nonce));
    const now = await this.readRow();
    if (now.nonce === nonce) await asking('bucket', putNonce(this.storage, nonce, now.now));
    this.hasRenewed = true; // or another worker did
    return true;
  }

  /** Stops both catalogs of this bucket: neither can know which one is right. */
  private async leaveMark({ row, nonce }: Look): Promise<void> {
    if (row.catalogId !== this.storage.catalogId) return;
    await asking('bucket', putContested(this.storage, { foundAt: row.now, expected: row.nonce, found: nonce }));
  }

  private judge(look: Look): Problem | null {
    return this.disagreement(look) ?? this.starting();
  }

  private disagreement(look: Look): Problem | null {
    return this.mismatch(look) ?? this.clocksApart(look) ?? this.stale(look);
  }

  private mismatch({ row, verdict, nonce, mark }: Look): Problem | null {
    if (row.catalogId !== this.storage.catalogId)
      return {
        reason: 'moved',
        detail: `this catalog was given the prefix ${row.catalogId} by "adopt --own-prefix": start this process again`,
      };
    if (verdict === 'foreign')
      return {
        reason: 'foreign_nonce',
        detail: `${nonce === null ? 'the fence object is gone from the bucket' : 'the fence object in the bucket was not written by this catalog'}: ${adoptHint}`,
      };
    if (mark !== null)
      return { reason: 'contested', detail: `two catalogs use this bucket (mark ${mark.slice(0, 300)}): ${adoptHint}` };
    return null;
  }

  /** The nonce may have been replaced since, but whatever is of later than that remembers it. */
  private setBack({ nonce, previous }: FenceRow): Problem | null {
    if (this.heldNonce !== null && [nonce, ...previous].includes(this.heldNonce)) return null;
    return {
      reason: 'foreign_nonce',
      detail: `the catalog does not know the nonce that it had when the fence was asked: the database went back to an older state. ${adoptHint}`,
    };
  }

  private clockJumped(): Problem | null {
    const { jumpMs } = this.clock;
    if (jumpMs === 0) return null;
    const way = jumpMs > 0 ? 'ahead' : 'back';
    return {
      reason: 'clock',
      detail: `the database's clock jumped ${way} by ${seconds(jumpMs)}. Set it right; if it is right now, start the workers again`,
    };
  }

  /** The object was written just after the row was, so the store's time for it lies between then and now. */
  private clocksApart({ row, modifiedAt }: Look): Problem | null {
    const jumped = this.clockJumped();
    if (jumped || !modifiedAt || !row.renewedAt) return jumped;
    const behindMs = row.renewedAt.getTime() - modifiedAt.getTime();
    const aheadMs = modifiedAt.getTime() - row.now.getTime();
    const apartMs = Math.max(behindMs, aheadMs);
    if (apartMs <= this.clockApartMsMax) return null;
    const how = behindMs > aheadMs ? 'behind' : 'ahead of';
    return {
      reason: 'clock',
      detail: `the object store's clock is ${seconds(apartMs)} ${how} the database's: set the one that is wrong`,
    };
  }

  private stale({ row, verdict }: Look): Problem | null {
    if (verdict !== 'agree')
      return { reason: 'stale', detail: 'the fence object is not yet written: the next beat does it' };
    const sinceMs = row.now.getTime() - row.renewedAt!.getTime();
    if (sinceMs < 2 * this.beatMs && sinceMs > -this.clockApartMsMax) return null;
    return { reason: 'stale', detail: `nobody has renewed the fence for ${seconds(sinceMs)}` };
  }

  private starting(): Problem | null {
    if (this.beats >= this.beatsBeforeDeleting) return null;
    const detail = `${this.beats} of ${this.beatsBeforeDeleting} beats have found the fence in order`;
    return { reason: 'starting', detail };
  }

  /** Raises the alert when the reason is a new one, and closes it when the fence is held again. */
  private async tell(): Promise<void> {
    const reason = this.problem?.reason ?? null;
    if (reason === this.alerted || reason === 'starting') return;
    const { database } = this.storage;
    if (!this.problem) {
      await closeAlertsOf(database, { vault: 0, kind: 'deleting_stopped' }, 'the fence holds again');
    } else {
      if (passing.has(this.problem.reason) && this.sameReasonBeats < patientBeats) return;
      await raiseAlert(database, { vault: 0, kind: 'deleting_stopped', details: { ...this.problem } });
    }
    this.alerted = reason;
  }
}

/** Whether some worker has told that deleting is stopped, for a process that has no fence of its own. */
export async function readStopAlert({
  database,
}: Storage): Promise<{ held: boolean; reason: string | null; detail: string }> {
  const open = await listAlerts(database, 0, { reviewed: false, limit: 100 });
  const details = open.find((alert) => alert.kind === 'deleting_stopped')?.details as Partial<Problem> | undefined;
  return { held: !details, reason: details?.reason ?? null, detail: details?.detail ?? '' };
}

const adoptHint =
  'if this is the catalog whose backups the bucket holds, stop the other one and run "adopt --take-over"; if it is a copy, run "adopt --own-prefix"';

const seconds = (ms: number): string => `${Math.round(Math.abs(ms) / 1_000)} s`;
