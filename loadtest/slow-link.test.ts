import { randomBytes } from 'node:crypto';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { type SlowLink, startSlowLink } from './slow-link.ts';

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** A program that sends back what it gets, behind a link. */
async function echoBehind(bounds: Parameters<typeof startSlowLink>[1]): Promise<SlowLink> {
  const echo = createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
  await new Promise<void>((resolve) => echo.listen(0, '127.0.0.1', resolve));
  ends.push(() => echo.close());
  const link = await startSlowLink((echo.address() as AddressInfo).port, bounds);
  ends.push(() => link.close());
  return link;
}

async function back(socket: Socket, bytes: number): Promise<Buffer> {
  const got: Buffer[] = [];
  let have = 0;
  for await (const piece of socket) {
    got.push(piece as Buffer);
    have += (piece as Buffer).byteLength;
    if (have >= bytes) break;
  }
  return Buffer.concat(got);
}

test('every byte arrives, in order, and not before the round trip and the rate allow it', async () => {
  const { port } = await echoBehind({ roundTripMs: 100, bytesPerSecond: 4_000_000 });
  const sent = randomBytes(1_000_000);
  const socket = connect(port, '127.0.0.1');
  ends.push(() => socket.destroy());
  const begun = performance.now();
  for (let at = 0; at < sent.byteLength; at += 7_001) socket.write(sent.subarray(at, at + 7_001));
  expect((await back(socket, sent.byteLength)).equals(sent)).toBe(true);
  // Lower bounds, whatever the machine does: a quarter of a second of bytes, and a tenth for the way.
  expect(performance.now() - begun).toBeGreaterThanOrEqual(345);
});
