/**
 * How much the senders on one HTTP/2 session may send before it is read: the stream window.
 *
 * Every session starts at 256 KiB, which is enough for 25 MB/s at 10 ms and for 2.5 MB/s at 100 ms. It doubles when
 * the bytes that came between a PING and its answer show that the window, and not the link, was the limit; only while
 * the byte budget is less than half full, and what the windows may hold is charged to it. When the budget is over
 * three quarters full, every window shrinks to 64 KiB: ten times the rate below which a sender is reset, at 100 ms.
 *
 * As a window grows, the session may open fewer streams, so that one session never has much more than
 * `sessionStreamsMax` x 256 KiB of unread bytes coming, whoever is at the other end.
 */
import type { ServerHttp2Session } from 'node:http2';
import type { ByteBudget } from './budget.ts';
import type { BudgetAccount } from './budget-account.ts';
import type { HttpSettings } from './settings.ts';

/** What an HTTP/1.1 connection may hold unread: one read of the socket. */
const http1WindowBytes = 64 * 1024;
const shortWindowBytes = 64 * 1024;
const sampleEveryMs = 250;
const streamsMin = 16;
const growBelow = 0.5;
const shrinkAbove = 0.75;

interface SessionWindow {
  bytes: number;
  accounts: Set<BudgetAccount>;
  sampledAt: number;
  /** A PING or a SETTINGS frame is out: one of each at a time, however slowly the peer answers. */
  sampling: boolean;
  settling: boolean;
}

type WindowSettings = Pick<HttpSettings, 'streamWindowBytes' | 'streamWindowBytesMax' | 'sessionStreamsMax'>;

export class StreamWindows {
  readonly #budget: ByteBudget;
  readonly #settings: WindowSettings;
  readonly #sessions = new Map<ServerHttp2Session, SessionWindow>();

  constructor(budget: ByteBudget, settings: WindowSettings) {
    this.#budget = budget;
    this.#settings = settings;
    budget.onSweep(() => this.adjust());
  }

  /** The window of a request's stream, or what stands for it on HTTP/1.1. */
  windowBytes(session: ServerHttp2Session | undefined): number {
    return session ? (this.#sessions.get(session)?.bytes ?? this.#settings.streamWindowBytes) : http1WindowBytes;
  }

  /** From here on the account's window follows its session's. */
  track(session: ServerHttp2Session | undefined, account: BudgetAccount): void {
    if (!session || session.destroyed) return;
    let window = this.#sessions.get(session);
    if (!window) {
      window = {
        bytes: this.#settings.streamWindowBytes,
        accounts: new Set(),
        sampledAt: 0,
        sampling: false,
        settling: false,
      };
      this.#sessions.set(session, window);
      session.once('close', () => this.#sessions.delete(session));
    }
    window.accounts.add(account);
  }

  untrack(session: ServerHttp2Session | undefined, account: BudgetAccount): void {
    if (session) this.#sessions.get(session)?.accounts.delete(account);
  }

  /** Shrinks the windows when the budget is short, else looks for sessions whose window holds them back. */
  adjust(now = performance.now()): void {
    const short = this.#budget.pressure > shrinkAbove;
    for (const [session, window] of this.#sessions) {
      if (session.destroyed || session.closed) continue;
      const { streamWindowBytes } = this.#settings;
      if (short) this.#resize(session, window, Math.min(shortWindowBytes, streamWindowBytes));
      else if (window.bytes < streamWindowBytes) this.#grow(session, window);
      else if (window.accounts.size > 0 && now - window.sampledAt >= sampleEveryMs) this.#sample(session, window, now);
    }
  }

  /** Counts what arrives between a PING and its answer: at the window's limit it is about the window. */
  #sample(session: ServerHttp2Session, window: SessionWindow, now: number): void {
    if (window.sampling || window.bytes >= this.#settings.streamWindowBytesMax) return;
    const before = new Map(
      [...window.accounts]
        .filter((account) => account.state === 'receiving')
        .map((account) => [account, account.arrivedBytes]),
    );
    if (before.size === 0) return;
    window.sampledAt = now;
    window.sampling = session.ping((error) => {
      window.sampling = false;
      if (error) return;
      const most = Math.max(...[...before].map(([account, bytes]) => account.arrivedBytes - bytes));
      if (most >= (window.bytes * 2) / 3) this.#grow(session, window);
    });
  }

  #grow(session: ServerHttp2Session, window: SessionWindow): void {
    const bytes = Math.min(window.bytes * 2, this.#settings.streamWindowBytesMax);
    let more = 0;
    for (const account of window.accounts)
      more += Math.max(0, Math.min(account.expectedBytes, bytes) - account.windowBytes);
    const { totalBytes } = this.#budget.settings;
    if (this.#budget.pressure >= growBelow || this.#budget.windowBytes + more >= totalBytes * growBelow) return;
    this.#resize(session, window, bytes);
  }

  #resize(session: ServerHttp2Session, window: SessionWindow, bytes: number): void {
    if (window.settling || window.bytes === bytes || session.destroyed || session.closed) return;
    const { sessionStreamsMax, streamWindowBytes } = this.#settings;
    const streams = Math.min(
      sessionStreamsMax,
      Math.max(streamsMin, Math.floor((sessionStreamsMax * streamWindowBytes) / bytes)),
    );
    const before = window.bytes;
    window.settling = true;
    window.bytes = bytes;
    // A body that is open when its window shrinks may still have all of the old one waiting unread.
    if (bytes > before) this.#budget.growWindow(window.accounts, bytes);
    session.settings({ initialWindowSize: bytes, maxConcurrentStreams: streams }, () => {
      window.settling = false;
    });
  }
}
