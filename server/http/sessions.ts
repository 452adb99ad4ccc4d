/**
 * The HTTP/2 sessions that are open. Silent peers are asked for a sign of life and cut when none comes; a session
 * without a stream is closed after a while; one whose peer sent GOAWAY lives as long as its streams, which have time
 * limits of their own; at a shutdown each is closed when its last stream is, never before.
 */
import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { HttpSettings } from './settings.ts';

interface SessionState {
  streams: number;
  /** When its last stream ended, or when it began. */
  idleSince: number;
  /** When it last answered a PING, and since when one is unanswered. */
  heardAt: number;
  pingedAt: number | null;
}

export class Sessions {
  readonly #settings: Pick<HttpSettings, 'pingEveryMs' | 'sessionIdleMs'>;
  readonly #sessions = new Map<ServerHttp2Session, SessionState>();
  readonly #timer: NodeJS.Timeout;
  #closing = false;

  constructor(settings: Pick<HttpSettings, 'pingEveryMs' | 'sessionIdleMs'>) {
    this.#settings = settings;
    const everyMs = Math.max(50, Math.min(5_000, settings.pingEveryMs / 4, settings.sessionIdleMs / 4));
    this.#timer = setInterval(() => this.#sweep(performance.now()), everyMs).unref();
  }

  get size(): number {
    return this.#sessions.size;
  }

  get streams(): number {
    let streams = 0;
    for (const state of this.#sessions.values()) streams += state.streams;
    return streams;
  }

  add(session: ServerHttp2Session): void {
    const now = performance.now();
    const state: SessionState = { streams: 0, idleSince: now, heardAt: now, pingedAt: null };
    this.#sessions.set(session, state);
    session.once('close', () => this.#sessions.delete(session));
    session.on('stream', (stream: ServerHttp2Stream) => {
      state.streams++;
      stream.once('close', () => {
        state.streams--;
        state.idleSince = performance.now();
        // The stream's last frames, such as its end, leave before the GOAWAY that this sends.
        if (this.#closing && state.streams === 0) setImmediate(() => closeQuietly(session));
      });
    });
    if (this.#closing) closeQuietly(session);
  }

  /** Sends GOAWAY to each session as soon as no stream is open on it. */
  closeWhenIdle(): void {
    this.#closing = true;
    for (const [session, state] of this.#sessions) if (state.streams === 0) closeQuietly(session);
  }

  /** Sends GOAWAY to all; streams that are open may still end. */
  closeAll(): void {
    this.#closing = true;
    for (const session of this.#sessions.keys()) closeQuietly(session);
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const session of this.#sessions.keys()) session.destroy();
  }

  #sweep(now: number): void {
    const { pingEveryMs, sessionIdleMs } = this.#settings;
    for (const [session, state] of this.#sessions) {
      // A closed session answers no more PINGs: Node cancels them. It ends by itself with its last stream.
      if (session.destroyed || session.closed) continue;
      if (state.streams === 0 && now - state.idleSince >= sessionIdleMs) closeQuietly(session);
      else if (state.pingedAt !== null && now - state.pingedAt >= pingEveryMs) session.destroy();
      else if (state.pingedAt === null && now - state.heardAt >= pingEveryMs) {
        state.pingedAt = now;
        session.ping((error) => {
          state.pingedAt = null; // one that failed was not sent, or not to be answered: it says nothing of the peer
          if (!error) state.heardAt = performance.now();
        });
      }
    }
  }
}

function closeQuietly(session: ServerHttp2Session): void {
  if (!session.destroyed && !session.closed) session.close();
}
