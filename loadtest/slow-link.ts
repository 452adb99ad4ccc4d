/**
 * A link between two programs of this machine that takes its time: each byte arrives so much later than it was sent, and
 * no more than so many in a second go each way. No byte is lost, so TCP's own answer to loss is not in it.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface SlowLink {
  port: number;
  close(): Promise<void>;
}

/** @param roundTripMs half of it each way. @param bytesPerSecond of a direction, of all connections together */
export async function startSlowLink(
  targetPort: number,
  { roundTripMs, bytesPerSecond }: { roundTripMs: number; bytesPerSecond: number },
): Promise<SlowLink> {
  const sockets = new Set<Socket>();
  const directions = [{ freeAt: 0 }, { freeAt: 0 }] as const;
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ port: targetPort, host: '127.0.0.1', noDelay: true });
    for (const [from, to, direction] of [
      [client, upstream, directions[0]],
      [upstream, client, directions[1]],
    ] as const) {
      sockets.add(from);
      from.on('error', () => {});
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
      delay(from, to, direction, { delayMs: roundTripMs / 2, bytesPerSecond });
    }
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

function delay(
  from: Socket,
  to: Socket,
  direction: { freeAt: number },
  { delayMs, bytesPerSecond }: { delayMs: number; bytesPerSecond: number },
): void {
  /** What is on the link, as much as it holds and one read more: a sender is not to see a longer one. */
  const onLinkMax = Math.max(64 * 1024, (bytesPerSecond * delayMs) / 1000) + 256 * 1024;
  let onLink = 0;
  // In order, whatever timers do: one at a time, for the first that is on the link.
  const waiting: { bytes: Buffer | null; at: number }[] = [];
  const arrive = (): void => {
    for (let first = waiting[0]; first && first.at <= performance.now(); first = waiting[0]) {
      waiting.shift();
      if (first.bytes === null) return void to.end();
      onLink -= first.bytes.byteLength;
      if (!to.destroyed) to.write(first.bytes);
    }
    if (onLink <= onLinkMax && from.isPaused()) from.resume();
    if (waiting[0]) setTimeout(arrive, Math.max(0, waiting[0].at - performance.now()));
  };
  const send = (bytes: Buffer | null): void => {
    const now = performance.now();
    direction.freeAt = Math.max(now, direction.freeAt) + ((bytes?.byteLength ?? 0) * 1000) / bytesPerSecond;
    waiting.push({ bytes, at: direction.freeAt + delayMs });
    if (waiting.length === 1) setTimeout(arrive, waiting[0]!.at - now);
  };
  from.on('data', (bytes) => {
    onLink += bytes.byteLength;
    if (onLink > onLinkMax) from.pause();
    send(bytes);
  });
  from.on('end', () => send(null));
}
