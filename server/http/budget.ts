/**
 * The byte budget: how much of request bodies this process holds at a time, over all connections.
 *
 * A body opens an account, charges what it is about to hold, and gives everything back when its request is over.
 * What must stay true: `held` never passes `totalBytes`, and every wait ends. What senders may have sent unread, the
 * sum of the stream windows, never passes `totalBytes` either, and it is taken off what all bodies but one may hold:
 * so bodies, read and unread, take `totalBytes` and one body more at most.
 *
 * Why it cannot deadlock. Two half-sent uploads that each wait for the other's room would wait for ever. So a charge
 * is granted only if the state after it is *safe* (safe-state.ts): there is an order in which every open body can be
 * received to its declared end, from what is free and what those before it give back. An empty budget is safe, since
 * no body is larger than the budget. Opening a body keeps a safe state safe: it can come last, when all else is free.
 * In a safe state the unfinished body that needs least is granted whatever it asks for, as soon as the bodies that
 * have arrived whole are stored: what it needs is there, and taking it leaves that order as it was. Neither a device's
 * share nor the windows stop it: the share leaves out the device's own body that needs least, the windows that of all. So some body can
 * always go on; it ends and gives everything back; by induction all end. None of this rests on a timeout. Bodies
 * that are too slow are reset, and those that waited too long refused, so that no sender can make others wait.
 */
import assert from 'node:assert/strict';
import { Problem } from '../../protocol/problems.ts';
import { BudgetAccount } from './budget-account.ts';
import { RateMeter } from './rate-meter.ts';
import { isSafe, type OpenBody } from './safe-state.ts';
import type { BudgetSettings } from './settings.ts';

interface Waiter {
  account: BudgetAccount;
  bytes: number;
  /** An account that is not open yet waits for its window, an open one for bytes. */
  opens: boolean;
  since: number;
  untilMs: number;
  granted: () => void;
  refused: (reason: Problem) => void;
  /** Its wait is over: nobody has to tell it that its client is gone. */
  leave: () => void;
}

function isSending(account: BudgetAccount): boolean {
  return account.state === 'receiving' || account.state === 'waiting';
}

const sweepEveryMs = 100;
const fadePerSweep = 0.8;
const retryAfterSeconds = 2;
/** Half of the requests of a repository: the others are for its locks and lists. */
const patientPerDeviceMax = 8;

export class ByteBudget {
  readonly settings: BudgetSettings;
  heldBytes = 0;
  windowBytes = 0;
  /** Since the start: bodies reset for being slow, and bodies refused for want of room. */
  resets = 0;
  refusals = 0;
  readonly #now: () => number;
  /** In the order of opening: the order of granting, but for those that can wait. */
  readonly #accounts = new Set<BudgetAccount>();
  readonly #waiters = new Set<Waiter>();
  /** Given back by bodies that were cut short, and perhaps not collected yet: fades within about a second. */
  #fadingBytes = 0;
  #timer: NodeJS.Timeout | null = null;
  #sweptAt = 0;
  #listeners: (() => void)[] = [];

  /** @param now milliseconds of a clock that never goes back */
  constructor(settings: BudgetSettings, now: () => number = () => performance.now()) {
    if (settings.totalBytes < settings.bodyBytesMax) {
      throw new RangeError(
        `a byte budget of ${settings.totalBytes} bytes cannot hold one body of ${settings.bodyBytesMax}`,
      );
    }
    this.settings = settings;
    this.#now = now;
  }

  get bodies(): number {
    return this.#accounts.size;
  }

  get waiters(): number {
    return this.#waiters.size;
  }

  /** The larger of the two fills, 0 to 1: what decides whether windows may grow. */
  get pressure(): number {
    return Math.max(this.heldBytes, this.windowBytes) / this.settings.totalBytes;
  }

  /** Calls `listener` at every sweep, that is every 100 ms while bodies are open. */
  onSweep(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /**
   * Opens an account for a body that is about to arrive.
   * @param windowBytes what its sender may have sent before anything is read: its stream's window
   * @param options.isPatient its sender is better served by the longest wait there is, once open, than by a refusal
   * @throws Problem overloaded, when there is no room for its window within the wait
   */
  async open(
    expectedBytes: number,
    windowBytes: number,
    { signal, isPatient = false }: { signal?: AbortSignal; isPatient?: boolean } = {},
  ): Promise<BudgetAccount> {
    const { rateGraceMs, rateBytesPerSecondMin } = this.settings;
    const meter = new RateMeter({ overMs: rateGraceMs, bytesPerSecondMin: rateBytesPerSecondMin });
    const window = Math.min(expectedBytes, windowBytes);
    const account = new BudgetAccount(this, { expectedBytes, windowBytes: window, meter, isPatient });
    this.#startSweeping();
    if (this.#windowFits(account)) {
      this.#admit(account);
      return account;
    }
    if ([...this.#waiters].filter((waiter) => waiter.opens).length >= this.settings.waitersMax)
      throw this.#overloaded('the queue for uploads is full');
    await this.#wait(account, { opens: true, bytes: 0, signal });
    return account;
  }

  /** Charges bytes if there is room at once. */
  tryCharge(account: BudgetAccount, bytes: number): boolean {
    if (!this.#fits(account, bytes)) return false;
    this.#charge(account, bytes);
    return true;
  }

  /**
   * Charges bytes when there is room for them.
   * @throws Problem overloaded after the wait, request_timeout when the account was reset meanwhile
   */
  async charge(account: BudgetAccount, bytes: number): Promise<void> {
    if (this.tryCharge(account, bytes)) return;
    await this.#wait(account, { opens: false, bytes });
  }

  /** The body's sender has the turn. */
  receiving(account: BudgetAccount): void {
    if (account.state === 'leaving' || account.state === 'closed') return;
    account.state = 'receiving';
    account.meter.resume(this.#now());
  }

  arrived(account: BudgetAccount, bytes: number): void {
    account.arrivedBytes += bytes;
    account.meter.add(bytes, this.#now());
  }

  /** The body has arrived whole: it needs no more room, and its sender's rate is of no more interest. */
  received(account: BudgetAccount): void {
    if (account.state === 'leaving' || account.state === 'closed') return;
    account.meter.pause(this.#now());
    account.state = 'received';
    this.#resize(account, 0);
    this.#grant();
  }

  /** A session's stream window grew: its open bodies may hold that much unread. */
  growWindow(accounts: Iterable<BudgetAccount>, windowBytes: number): void {
    for (const account of accounts) {
      if (account.state === 'received' || account.state === 'closed') continue;
      this.#resize(account, Math.max(account.windowBytes, Math.min(account.expectedBytes, windowBytes)));
    }
  }

  /** Gives everything back. Harmless when done twice. */
  close(account: BudgetAccount): void {
    if (account.state === 'closed') return;
    // What was cut short in a rush is garbage for a moment yet, and there may be much of it at once.
    if (account.state === 'leaving') this.#fadingBytes += account.heldBytes + account.windowBytes;
    account.state = 'closed';
    this.heldBytes -= account.heldBytes;
    account.heldBytes = 0;
    this.#resize(account, 0);
    this.#accounts.delete(account);
    for (const waiter of this.#waiters) {
      if (waiter.account === account)
        this.#refuse(
          waiter,
          new Problem('overloaded', 'the request ended while its body waited for room', { retryAfterSeconds }),
        );
    }
    this.#grant();
  }

  /** Looks after what time brings: idle and slow senders, waits that end. Runs by itself while bodies are open. */
  sweep(): void {
    const now = this.#now();
    // When this process itself stood still, the senders are not to blame for the silence.
    const late = now - this.#sweptAt - sweepEveryMs;
    this.#sweptAt = now;
    this.#fadingBytes = Math.floor(this.#fadingBytes * fadePerSweep);
    for (const account of this.#accounts) {
      if (account.state !== 'receiving') continue;
      if (late > sweepEveryMs * 2) account.meter.forgive(late, now);
      const { idleMs, bodyBaseMs, bodyBytesPerSecondMin } = this.settings;
      const totalMs = bodyBaseMs + (account.expectedBytes / bodyBytesPerSecondMin) * 1_000;
      if (account.meter.silentMs(now) >= idleMs)
        this.#end(account, new Problem('request_timeout', `the body stalled for ${idleMs} ms`));
      else if (account.meter.activeMs(now) >= totalMs)
        this.#end(account, new Problem('request_timeout', `the body took longer than ${Math.round(totalMs)} ms`));
    }
    this.#grant();
    for (const waiter of this.#inOrder()) this.#makeRoom(waiter);
    this.#refuseOverdue(now);
    for (const listener of this.#listeners) listener();
    if (this.#accounts.size === 0 && this.#waiters.size === 0) this.#stopSweeping();
  }

  // --- room ---------------------------------------------------------------------------------------------------------

  #windowFits(account: BudgetAccount, gone?: ReadonlySet<BudgetAccount>): boolean {
    let windows = this.windowBytes + account.windowBytes;
    if (gone) for (const other of gone) windows -= other.windowBytes;
    return windows <= this.settings.totalBytes;
  }

  /** Whether the charge is within all bounds, and leaves a safe state. `gone`: as if these had given back everything. */
  #fits(account: BudgetAccount, bytes: number, gone?: ReadonlySet<BudgetAccount>): boolean {
    if (account.state === 'leaving' || account.state === 'closed') return false;
    const { totalBytes, bodyBytesMax, deviceBytes } = this.settings;
    const all = this.#sumUp(account, gone);
    const held = all.heldBytes + bytes;
    if (held > totalBytes) return false;
    if (!all.needsLeast && held > Math.max(bodyBytesMax, totalBytes - all.windowBytes)) return false;
    const { device } = all;
    if (device.othersOpen && !device.needsLeast && device.heldBytes + bytes > deviceBytes) return false;
    if (totalBytes - held >= bodyBytesMax) return true; // enough for any body alone, so for all in turn

    const bodies: OpenBody[] = [];
    for (const other of this.#accounts) {
      if (gone?.has(other)) continue;
      const charged = other === account ? bytes : 0;
      bodies.push({ heldBytes: other.heldBytes + charged, neededBytes: other.neededBytes - charged });
    }
    return isSafe(totalBytes - held, bodies);
  }

  #sumUp(account: BudgetAccount, gone?: ReadonlySet<BudgetAccount>) {
    const device = { heldBytes: 0, othersOpen: false, needsLeast: true };
    const all = { heldBytes: 0, windowBytes: this.#fadingBytes, needsLeast: true, device };
    for (const other of this.#accounts) {
      if (gone?.has(other)) continue;
      const ahead = other.neededBytes > 0 && other.neededBytes < account.neededBytes;
      all.heldBytes += other.heldBytes;
      all.windowBytes += other.windowBytes;
      if (ahead) all.needsLeast = false;
      if (other.device !== account.device) device.othersOpen = true;
      else {
        device.heldBytes += other.heldBytes;
        if (ahead) device.needsLeast = false;
      }
    }
    return all;
  }

  #admit(account: BudgetAccount): void {
    this.#accounts.add(account);
    this.windowBytes += account.windowBytes;
  }

  #charge(account: BudgetAccount, bytes: number): void {
    assert(bytes <= account.expectedBytes - account.heldBytes, 'a body charged more than it said it could hold');
    account.heldBytes += bytes;
    this.heldBytes += bytes;
  }

  #resize(account: BudgetAccount, windowBytes: number): void {
    if (!this.#accounts.has(account)) return;
    this.windowBytes += windowBytes - account.windowBytes;
    account.windowBytes = windowBytes;
  }

  // --- waiting ------------------------------------------------------------------------------------------------------

  #wait(
    account: BudgetAccount,
    wish: { opens: boolean; bytes: number; signal?: AbortSignal | undefined },
  ): Promise<void> {
    const now = this.#now();
    if (account.state === 'leaving' || account.state === 'closed')
      return Promise.reject(this.#overloaded('the request has ended'));
    account.meter.pause(now);
    if (!wish.opens) account.state = 'waiting';
    return new Promise((resolve, reject) => {
      // Refusing costs the sender what it took to send so far, so it is worth waiting that long: in all its waits, for
      // else a little room now and then would keep many waiting and none of them going. A patient one waits unread and takes
      // no more meanwhile; what it has it keeps for that time, unless it is slow and others need it.
      const { waitMs, waitMsMax } = this.settings;
      const worthMs = Math.max(waitMs, account.meter.activeMs(now));
      const allowedMs = this.#hasPatience(account, wish) ? waitMsMax : Math.min(waitMsMax, worthMs);
      const untilMs = now + Math.max(0, allowedMs - account.waitedMs);
      const waiter: Waiter = {
        account,
        bytes: wish.bytes,
        opens: wish.opens,
        since: now,
        untilMs,
        granted: resolve,
        refused: reject,
        leave: () => {},
      };
      const onGone = (): void => this.#refuse(waiter, new Problem('request_timeout', 'the client has gone'));
      waiter.leave = () => wish.signal?.removeEventListener('abort', onGone);
      wish.signal?.addEventListener('abort', onGone, { once: true });
      this.#waiters.add(waiter);
      if (wish.signal?.aborted) return onGone();
      this.#startSweeping();
      this.#makeRoom(waiter);
    });
  }

  /**
   * Whether it may wait long. Others pay for that: one that waits keeps its window, and a place among the requests of its
   * device. So all that wait in patience leave half of the windows to others, and those of one device half of its places.
   */
  #hasPatience(account: BudgetAccount, { opens }: { opens: boolean }): boolean {
    if (!account.isPatient || opens || this.windowBytes > this.settings.totalBytes / 2) return false;
    let ofDevice = 0;
    for (const { account: other } of this.#waiters) if (other.isPatient && other.device === account.device) ofDevice++;
    return ofDevice < patientPerDeviceMax;
  }

  /** Grants what fits, oldest body first. */
  #grant(): void {
    if (this.#waiters.size === 0) return;
    for (const waiter of this.#inOrder()) {
      const { account } = waiter;
      if (this.#wouldFit(waiter)) {
        this.#endWait(waiter);
        if (waiter.opens) this.#admit(account);
        else {
          this.#charge(account, waiter.bytes);
          this.receiving(account);
        }
        waiter.granted();
      }
    }
  }

  #inOrder(): Waiter[] {
    const byAccount = new Map([...this.#waiters].map((waiter) => [waiter.account, waiter]));
    const open = [...this.#accounts].flatMap((account) => byAccount.get(account) ?? []);
    // Others are sent away long before: they do not stand behind those that can wait and lose nothing by it.
    const canWait = ({ account }: Waiter): boolean => account.isPatient && account.heldBytes === 0;
    const opening = [...this.#waiters].filter((waiter) => waiter.opens);
    return [...open.filter((waiter) => !canWait(waiter)), ...open.filter(canWait), ...opening];
  }

  /** Resets as few slow senders as it takes to let the waiter in; none when that would not be enough, or it is slow itself. */
  #makeRoom(waiter: Waiter): void {
    const now = this.#now();
    if (!this.#waiters.has(waiter) || waiter.account.meter.isSlow(now)) return;
    const leaving = this.#leaving();
    if (this.#wouldFit(waiter, leaving)) return; // what is leaving will do
    const slow = [...this.#accounts].filter(
      (account) => account !== waiter.account && isSending(account) && account.meter.isSlow(now),
    );
    if (slow.length === 0 || !this.#wouldFit(waiter, new Set([...leaving, ...slow]))) return;
    slow.sort((a, b) => (waiter.opens ? b.windowBytes - a.windowBytes : b.heldBytes - a.heldBytes));
    for (const account of slow) {
      this.resets++;
      this.#end(
        account,
        new Problem('request_timeout', 'the server is short of memory, and this body arrives too slowly', {
          retryAfterSeconds,
        }),
      );
      if (this.#wouldFit(waiter, leaving.add(account))) return;
    }
  }

  #leaving(): Set<BudgetAccount> {
    return new Set([...this.#accounts].filter((account) => account.state === 'leaving'));
  }

  #wouldFit(waiter: Waiter, gone?: ReadonlySet<BudgetAccount>): boolean {
    return waiter.opens ? this.#windowFits(waiter.account, gone) : this.#fits(waiter.account, waiter.bytes, gone);
  }

  #end(account: BudgetAccount, reason: Problem): void {
    account.meter.pause(this.#now());
    account.state = 'leaving';
    for (const waiter of this.#waiters) if (waiter.account === account) this.#refuse(waiter, reason);
    account.onEnd(reason);
  }

  /** Waits that are over end, but for those whom the room that is about to come back will reach. */
  #refuseOverdue(now: number): void {
    const leaving = this.#leaving();
    let coming = 0;
    for (const account of leaving) coming += account.heldBytes;
    for (const waiter of this.#inOrder()) {
      coming -= waiter.opens ? 0 : waiter.bytes;
      if (now < waiter.untilMs) continue;
      // Room that is already on its way is worth one more wait, and no longer.
      if (coming >= 0 && now < waiter.untilMs + this.settings.waitMs && this.#wouldFit(waiter, leaving)) continue;
      if (!waiter.opens) waiter.account.state = 'leaving';
      this.#refuse(waiter, this.#overloaded(`no room came free within ${Math.round(now - waiter.since)} ms`));
    }
  }

  #refuse(waiter: Waiter, reason: Problem): void {
    if (this.#endWait(waiter)) waiter.refused(reason);
  }

  #endWait(waiter: Waiter): boolean {
    waiter.account.waitedMs += this.#now() - waiter.since;
    waiter.leave();
    return this.#waiters.delete(waiter);
  }

  #overloaded(detail: string): Problem {
    this.refusals++;
    return new Problem('overloaded', detail, { retryAfterSeconds });
  }

  #startSweeping(): void {
    if (this.#timer) return;
    this.#sweptAt = this.#now();
    this.#timer = setInterval(() => this.sweep(), sweepEveryMs).unref();
  }

  #stopSweeping(): void {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
  }
}
