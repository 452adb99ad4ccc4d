/**
 * Stands between the engine and PostgreSQL and cuts connections: before a message is passed on, after it was (and the
 * answer is lost), and most of all at COMMIT, so that its outcome is unknown. Nothing in the code under test knows.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { Random } from './random.ts';

export interface ChaosProxy {
  /** The connection string to give to the engine. */
  connectionString: string;
  /** How often each kind of cut happened; a test that expects survival expects these to be above 0. */
  cuts: { before: number; after: number; commitBefore: number; commitAfter: number };
  /** From now on nothing is cut. */
  calm(): void;
  close(): Promise<void>;
}

/** A simple-protocol COMMIT: 'Q', its length, the word. */
const COMMIT = Buffer.from('Q\0\0\0\x0bCOMMIT\0', 'latin1');

export async function startChaosProxy(
  target: string,
  options: { random: Random; cut: number; cutAtCommit: number },
): Promise<ChaosProxy> {
  const url = new URL(target);
  const { random } = options;
  const cuts = { before: 0, after: 0, commitBefore: 0, commitAfter: 0 };
  const sockets = new Set<Socket>();
  let calm = false;

  const server = createServer((client) => {
    const upstream = connect(Number(url.port), url.hostname);
    let answering = true;
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    upstream.on('data', (bytes) => {
      if (answering) client.write(bytes);
      else client.destroy(); // PostgreSQL has done it; nobody will hear of it
    });
    let signedIn = false; // the first messages are the sign-in: cutting those is only a slower start
    client.on('data', (bytes) => {
      const commit = bytes.includes(COMMIT);
      const cut = !calm && signedIn && random.chance(commit ? options.cutAtCommit : options.cut);
      signedIn ||= bytes.includes('BEGIN') || bytes.includes('SELECT');
      if (!cut) return void upstream.write(bytes);
      if (random.chance(0.5)) {
        cuts[commit ? 'commitBefore' : 'before']++;
        client.destroy();
        return;
      }
      cuts[commit ? 'commitAfter' : 'after']++;
      answering = false;
      upstream.write(bytes);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const proxied = new URL(target);
  proxied.hostname = '127.0.0.1';
  proxied.port = String((server.address() as AddressInfo).port);

  return {
    connectionString: proxied.href,
    cuts,
    calm: () => {
      calm = true;
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
