/**
 * Stands between two programs, on a port that stays while the one behind it comes and goes, and changes nothing. Between
 * agent and server it counts what the agent sends: so that a moment "after so many bytes in flight" can be waited for.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface Forwarding {
  port: number;
  close(): Promise<void>;
}

/**
 * A port that stays, and passes every connection on to the one that is the target when it comes.
 * @param onSent told how many bytes a client has sent, before they are passed on
 */
export async function startForwarding(
  targetPort: () => number,
  onSent: (bytes: number) => void = () => {},
): Promise<Forwarding> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(targetPort(), '127.0.0.1');
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    client.on('data', (bytes) => onSent(bytes.byteLength));
    client.pipe(upstream);
    upstream.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export interface CountingProxy extends Forwarding {
  /** Bytes from agents to the server since the proxy began. */
  readonly sent: number;
  /** Resolves when so many more bytes have been passed on; or when `signal` says not to wait any longer. */
  afterBytes(count: number, signal: AbortSignal): Promise<void>;
}

export async function startCountingProxy(targetPort: number): Promise<CountingProxy> {
  const waiting = new Set<() => void>();
  let sent = 0;
  const forwarding = await startForwarding(
    () => targetPort,
    (bytes) => {
      sent += bytes;
      for (const look of waiting) look();
    },
  );
  return {
    ...forwarding,
    get sent() {
      return sent;
    },
    afterBytes(count, signal) {
      const goal = sent + count;
      return new Promise((resolve) => {
        const look = (): void => {
          if (sent < goal && !signal.aborted) return;
          waiting.delete(look);
          signal.removeEventListener('abort', look);
          resolve();
        };
        waiting.add(look);
        signal.addEventListener('abort', look);
        look();
      });
    },
  };
}
