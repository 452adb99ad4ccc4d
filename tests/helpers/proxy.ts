/**
 * Stands between agent and server, on a port that stays while the server comes and goes, and counts what the agent
 * sends: so that a moment "after so many bytes in flight" can be waited for. It changes nothing and sees only TLS.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface CountingProxy {
  port: number;
  /** Bytes from agents to the server since the proxy began. */
  readonly sent: number;
  /** Resolves when so many more bytes have been passed on; or when `signal` says not to wait any longer. */
  afterBytes(count: number, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

export async function startCountingProxy(targetPort: number): Promise<CountingProxy> {
  const sockets = new Set<Socket>();
  const waiting = new Set<() => void>();
  let sent = 0;
  const server = createServer((client) => {
    const upstream = connect(targetPort, '127.0.0.1');
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
    client.on('data', (bytes) => {
      sent += bytes.byteLength;
      for (const look of waiting) look();
    });
    client.pipe(upstream);
    upstream.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
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
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
