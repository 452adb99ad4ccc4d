/**
 * Ends the HTTP side without losing a request that was accepted. The order, each step bounded:
 *
 * 1. /readyz says no, and for `leaveMs` everything is still served: time for load balancers to look away.
 * 2. No new connections. New requests on old connections are answered 503 `shutting_down` with Retry-After, which
 *    says that nothing was done; requests under way go on. Each session gets its GOAWAY when its last stream has ended:
 *    clients that mishandle a GOAWAY in the middle of an upload lose nothing.
 *    Channels to devices, which would last for ever, are ended; devices open others elsewhere. So is what was begun by a request
 *    and goes on without it.
 * 3. After `drainMs` at most, what is still open is cut.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Problem } from '../../protocol/problems.ts';
import type { RequestsInFlight } from './deps.ts';
import type { Listeners } from './listener.ts';

export interface ShutdownResult {
  /** Requests that did not end in time. Their clients repeat them. */
  cut: number;
  ms: number;
}

export async function shutDown(
  parts: { listeners: Listeners; requests: RequestsInFlight; onDraining?: () => void },
  bounds: { leaveMs: number; drainMs: number },
): Promise<ShutdownResult> {
  const { listeners, requests, onDraining } = parts;
  const startedAt = performance.now();
  requests.leaving = true;
  if (bounds.leaveMs > 0) await sleep(bounds.leaveMs);

  requests.draining = true;
  requests.stopping.abort(new Problem('shutting_down', 'the server is shutting down', { retryAfterSeconds: 1 }));
  onDraining?.();
  listeners.stopAccepting();
  listeners.sessions.closeWhenIdle();
  const until = performance.now() + bounds.drainMs;
  do {
    listeners.closeIdleConnections();
    if (requests.open.size === 0) break;
    await sleep(20);
  } while (performance.now() < until);

  const cut = requests.open.size;
  listeners.sessions.closeAll();
  // The last frames and the GOAWAY need a moment on the wire.
  for (let i = 0; i < 25 && cut === 0 && listeners.connections() > 0; i++) {
    listeners.closeIdleConnections();
    await sleep(20);
  }
  listeners.destroy();
  return { cut, ms: performance.now() - startedAt };
}
