import { createHash, randomBytes } from 'node:crypto';
import {
  createSecureServer,
  createServer,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { createServer as createTcpServer } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { afterEach, describe, expect, test } from '@jest/globals';
import { encodeBlockFrameHeader, encodeBlockFramesEnd } from '../../protocol/block-frames.ts';
import { joinHashes, sha256 } from '../../protocol/hashes.ts';
import { FetchRequest } from '../../protocol/messages.ts';
import { ByteReader, decodeMessage, encodeFrame, encodeMessage } from '../../protocol/wire.ts';
import { selfSignedCertificate } from '../testing/certificate.ts';
import { type Client, connect } from './client.ts';
import { CertificateRefused, ConnectionLost, NotAServer } from './errors.ts';

const fast = { firstDelayMs: 1, delayMsMax: 10, giveUpAfterMs: 5_000 };
const claim = { blocks: Buffer.of(1), lists: Buffer.alloc(0), claimedUntil: 1, claimedForMs: 1 };
const ends: (() => unknown)[] = [];

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

interface Seen {
  streams: string[];
  sessions: number;
  live: Set<ServerHttp2Session>;
}

type Handler = (stream: ServerHttp2Stream, path: string, count: number, headers: Record<string, unknown>) => void;

async function serve(server: Http2Server, handler: Handler): Promise<{ port: number; seen: Seen }> {
  const seen: Seen = { streams: [], sessions: 0, live: new Set() };
  server.on('session', (session: ServerHttp2Session) => {
    seen.sessions++;
    seen.live.add(session);
    session.on('error', () => undefined);
    session.on('close', () => seen.live.delete(session));
  });
  server.on('stream', (stream: ServerHttp2Stream, headers) => {
    stream.on('error', () => undefined);
    seen.streams.push(String(headers[':path']));
    handler(stream, String(headers[':path']), seen.streams.length, headers);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  ends.push(() => {
    for (const session of seen.live) session.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, seen };
}

async function plain(
  handler: Handler,
  options: Partial<Parameters<typeof connect>[0]> = {},
): Promise<{ client: Client; seen: Seen }> {
  const { port, seen } = await serve(createServer(), handler);
  const client = connect({ url: `http://127.0.0.1:${port}`, token: 'secret', retry: fast, ...options });
  ends.push(() => client.destroy());
  return { client, seen };
}

function answer(stream: ServerHttp2Stream, body: Buffer, status = 200, headers = {}): void {
  stream.respond({ ':status': status, 'content-length': String(body.byteLength), ...headers });
  stream.end(body);
}

const answerClaim = (stream: ServerHttp2Stream): void => answer(stream, encodeMessage(claim));

describe('the pinned certificate', () => {
  async function secure(): Promise<{ url: string; fingerprint: string; seen: Seen }> {
    const { key, cert, der } = selfSignedCertificate();
    const { port, seen } = await serve(createSecureServer({ key, cert }) as unknown as Http2Server, answerClaim);
    return { url: `https://127.0.0.1:${port}`, fingerprint: createHash('sha256').update(der).digest('hex'), seen };
  }

  test.each(['lower', 'colons'])('its server is accepted (%s)', async (form) => {
    const { url, fingerprint, seen } = await secure();
    const certificateSha256 =
      form === 'lower' ? fingerprint : `SHA256:${fingerprint.toUpperCase().match(/../g)!.join(':')}`;
    const client = connect({ url, certificateSha256, token: 'secret', retry: fast });
    ends.push(() => client.destroy());
    expect(await client.claim(randomBytes(32))).toMatchObject({ claimedUntil: 1 });
    expect(seen.streams).toEqual(['/v1/blocks/claim']);
  });

  test('another is refused before a byte of HTTP/2 was sent to it, and never tried again', async () => {
    const { key, cert, der } = selfSignedCertificate();
    const received: Buffer[] = [];
    let connections = 0;
    const server = createTlsServer({ key, cert, ALPNProtocols: ['h2'] }, (socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (bytes) => received.push(bytes));
    });
    server.on('connection', () => {
      connections++;
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ends.push(() => server.close());
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const client = connect({ url, certificateSha256: 'ab'.repeat(32), token: 'secret', retry: fast });
    const refused = await client.self().catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(CertificateRefused);
    expect((refused as Error).message).toContain(sha256(der).toString('hex'));
    expect((refused as Error).message).toContain('ab'.repeat(32));
    expect({ received, connections }).toEqual({ received: [], connections: 1 });
  });

  test('a self-signed certificate without a pin is refused with advice', async () => {
    const { url } = await secure();
    const client = connect({ url, token: 'secret', retry: fast });
    ends.push(() => client.destroy());
    await expect(client.self()).rejects.toThrow(/--fingerprint/);
  });

  test('a TLS server that speaks no HTTP/2 is named as such', async () => {
    const { key, cert, der } = selfSignedCertificate();
    const received: Buffer[] = [];
    const server = createTlsServer({ key, cert }, (socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (bytes) => received.push(bytes));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ends.push(() => server.close());
    const client = connect({
      url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
      certificateSha256: sha256(der).toString('hex'),
      retry: fast,
    });
    await expect(client.self()).rejects.toThrow(NotAServer);
    expect(received).toEqual([]);
  });

  test('plain HTTP leaves this machine under no circumstances', async () => {
    const client = connect({ url: 'http://192.0.2.1:80', token: 'secret', retry: fast });
    await expect(client.self()).rejects.toThrow(/not encrypted/);
    expect(() => connect({ url: 'backup.example' })).toThrow(NotAServer);
    expect(() => connect({ url: 'https://backup.example', certificateSha256: 'abc' })).toThrow(/64 hex digits/);
  });
});

describe('requests that fail', () => {
  test('a broken connection is replaced and the request repeated', async () => {
    const { client, seen } = await plain((stream, _path, count) =>
      count <= 2 ? stream.session!.destroy() : answerClaim(stream),
    );
    await client.claim(randomBytes(32));
    expect(seen.streams.length).toBe(3);
    expect(seen.sessions).toBe(3);
  });

  test('503 is waited out as long as the server asks; a refusal is not repeated', async () => {
    const problem = Buffer.from(JSON.stringify({ code: 'overloaded', detail: 'busy' }));
    const { client, seen } = await plain((stream, path, count) => {
      if (path.endsWith('/self'))
        answer(stream, Buffer.from(JSON.stringify({ code: 'unauthorized', detail: 'no' })), 401);
      else if (count === 1) answer(stream, problem, 503, { 'retry-after': '1' });
      else answerClaim(stream);
    });
    const begun = performance.now();
    await client.claim(randomBytes(32));
    expect(performance.now() - begun).toBeGreaterThanOrEqual(1_000);
    await expect(client.self()).rejects.toMatchObject({ code: 'unauthorized', status: 401 });
    expect(seen.streams.length).toBe(3);
  });

  test('a registration is not repeated: the server may have acted on it', async () => {
    const { client, seen } = await plain((stream) => stream.session!.destroy());
    const device = { name: 'a', platform: 'linux' as const, agentVersion: '1' };
    await expect(
      client.register({ registrationKey: 'k', userName: 'u', password: 'p', device, vaultKey: { level: 'standard' } }),
    ).rejects.toThrow(ConnectionLost);
    expect(seen.streams.length).toBe(1);
  });

  test('a request on which nothing moves is given up and repeated', async () => {
    const { client, seen } = await plain(
      (stream, _path, count) => {
        if (count > 1) answerClaim(stream);
      },
      { idleTimeoutMs: 100 },
    );
    await client.claim(randomBytes(32));
    expect(seen.streams.length).toBe(2);
  });

  test('a server that cannot be reached is named after the time given', async () => {
    const server = createTcpServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    const client = connect({ url: `http://127.0.0.1:${port}`, retry: { ...fast, giveUpAfterMs: 50 } });
    await expect(client.self()).rejects.toThrow(/cannot reach/);
  });

  test('an abort ends waiting at once', async () => {
    const controller = new AbortController();
    const { client } = await plain(() => controller.abort(new Error('stopped')), { signal: controller.signal });
    await expect(client.claim(randomBytes(32))).rejects.toThrow('stopped');
  });

  test('after GOAWAY the request under way is answered and the next goes over a new connection', async () => {
    const { client, seen } = await plain((stream, _path, count) => {
      if (count === 1) stream.session!.goaway();
      setTimeout(() => answerClaim(stream), count === 1 ? 50 : 0);
    });
    await client.claim(randomBytes(32));
    await client.claim(randomBytes(32));
    expect(seen).toMatchObject({ sessions: 2 });
    expect(seen.streams.length).toBe(2);
  });

  test('an answer that is not the protocol is said to be that', async () => {
    const { client } = await plain((stream) => answer(stream, Buffer.from('<html>')));
    await expect(client.claim(randomBytes(32))).rejects.toThrow(NotAServer);
  });
});

describe('bodies', () => {
  const block = (bytes: number): { hash: Buffer; bytes: Buffer } => {
    const content = randomBytes(bytes);
    return { hash: sha256(content), bytes: content };
  };

  test('an upload arrives whole, with its length, over several windows', async () => {
    let received = 0;
    let promised = 0;
    const { client } = await plain((stream, _path, _count, headers) => {
      promised = Number(headers['content-length']);
      stream.on('data', (bytes: Buffer) => {
        received += bytes.byteLength;
      });
      stream.on('end', () =>
        answer(stream, encodeMessage({ stored: 2, known: 0, listsStored: 0, claimedUntil: 1, claimedForMs: 1 })),
      );
    });
    expect(await client.upload([block(3_000_000), block(5_000_000)])).toMatchObject({ stored: 2 });
    expect(received).toBe(promised);
    expect(received).toBeGreaterThan(8_000_000);
  });

  test('an early refusal of an upload is heard although the body was never read', async () => {
    let count = 0;
    const { client } = await plain((stream) => {
      count++;
      if (count > 1) {
        stream.resume();
        stream.on('end', () =>
          answer(stream, encodeMessage({ stored: 1, known: 0, listsStored: 0, claimedUntil: 1, claimedForMs: 1 })),
        );
        return;
      }
      answer(stream, Buffer.from(JSON.stringify({ code: 'overloaded', detail: 'short of memory' })), 503);
      stream.close();
    });
    expect(await client.upload([block(4_000_000)])).toMatchObject({ stored: 1 });
    expect(count).toBe(2);
  });

  test('uploads keep to a rate', async () => {
    const { client } = await plain(
      (stream) => {
        stream.resume();
        stream.on('end', () =>
          answer(stream, encodeMessage({ stored: 1, known: 0, listsStored: 0, claimedUntil: 1, claimedForMs: 1 })),
        );
      },
      { limitUploadBytesPerSecond: 400_000 },
    );
    const begun = performance.now();
    await client.upload([block(500_000)]);
    // 500 KB at 400 KB/s, less the burst: a lower bound, whatever the machine does.
    expect(performance.now() - begun).toBeGreaterThan(900);
  });
});

describe('streams that break', () => {
  test('a fetch asks again for what did not come, and says what is not there', async () => {
    const blocks = [randomBytes(1000), randomBytes(2000), randomBytes(3000), randomBytes(4000)];
    const hashes = blocks.map((bytes) => sha256(bytes));
    const asked: number[] = [];
    const { client } = await plain(async (stream, _path, count, headers) => {
      const request = decodeMessage(
        FetchRequest,
        (await new ByteReader(stream).read(Number(headers['content-length'])))!,
      );
      const wanted = Array.from({ length: request.blocks.byteLength / 32 }, (_, index) =>
        request.blocks.subarray(index * 32, index * 32 + 32),
      );
      asked.push(wanted.length);
      stream.respond({ ':status': 200 });
      for (const [index, hash] of [...wanted.entries()].reverse()) {
        const at = hashes.findIndex((known) => known.equals(hash));
        const bytes = at === 2 ? Buffer.alloc(0) : blocks[at]!;
        stream.write(Buffer.concat([encodeBlockFrameHeader(index, bytes.byteLength), bytes]));
        if (count === 1) {
          stream.write(encodeBlockFrameHeader(0, 500), () => setTimeout(() => stream.session?.destroy(), 20));
          return;
        }
      }
      stream.end(encodeBlockFramesEnd(wanted.length));
    });
    const got = new Map<number, Buffer | null>();
    for await (const frame of client.fetchBlocks(joinHashes(hashes)))
      got.set(frame.index, frame.bytes && Buffer.from(frame.bytes));
    expect(asked).toEqual([4, 3]);
    expect([0, 1, 2, 3].map((index) => got.get(index))).toEqual([blocks[0], blocks[1], null, blocks[3]]);
  });

  test('versions go on behind the last one received, at the moment they began with', async () => {
    const version = (name: string) => ({
      path: Buffer.from(`/${name}`),
      kind: 'file',
      size: 0,
      mtime: 1,
      attributes: Buffer.alloc(0),
      mac: Buffer.alloc(32),
      seq: 1,
      committedAt: 1,
    });
    const queries: string[] = [];
    const { client } = await plain((stream, path, count) => {
      queries.push(new URL(path, 'http://x').search);
      stream.respond({ ':status': 200 });
      stream.write(encodeFrame({ frame: 'begin', seq: 17, at: 5 }));
      if (count === 1) {
        stream.write(encodeFrame({ frame: 'versions', versions: [version('a'), version('b')] }));
        const next = encodeFrame({ frame: 'versions', versions: [version('c')] });
        stream.write(next.subarray(0, 20), () => setTimeout(() => stream.session?.destroy(), 20));
        return;
      }
      if (count === 2) return void stream.end(); // an end without the closing frame is a cut, too
      stream.write(encodeFrame({ frame: 'versions', versions: [version('c')] }));
      stream.end(encodeFrame({ frame: 'end' }));
    });
    const { seq, versions } = await client.versions(3, { path: Buffer.from('/') });
    expect(seq).toBe(17);
    const paths: string[] = [];
    for await (const { path } of versions) paths.push(path.toString());
    expect(paths).toEqual(['/a', '/b', '/c']);
    const after = `&seq=17&after=${Buffer.from('/b').toString('base64url')}`;
    expect(queries).toEqual(['?path=Lw', `?path=Lw${after}`, `?path=Lw${after}`]);
  });

  test('what was thinned out is told once, and gone on behind', async () => {
    const thinned = (name: string) => ({ path: Buffer.from(`/${name}`), next: { seq: 30, committedAt: 7 } });
    const queries: string[] = [];
    const { client } = await plain((stream, path, count) => {
      queries.push(new URL(path, 'http://x').search);
      stream.respond({ ':status': 200 });
      stream.write(encodeFrame({ frame: 'begin', seq: 17, at: 5 }));
      if (count === 1) {
        const page = { versions: [], thinned: [thinned('a'), thinned('b')], upTo: Buffer.from('/b') };
        return void stream.end(encodeFrame({ frame: 'versions', ...page }));
      }
      stream.write(encodeFrame({ frame: 'versions', versions: [], thinned: [thinned('c')], upTo: Buffer.from('/c') }));
      stream.end(encodeFrame({ frame: 'end' }));
    });
    const told: string[] = [];
    const { versions } = await client.versions(3, {}, undefined, (each) => told.push(`${each.path} ${each.next?.seq}`));
    expect(await Array.fromAsync(versions)).toEqual([]);
    expect(told).toEqual(['/a 30', '/b 30', '/c 30']);
    expect(queries).toEqual(['', `?seq=17&after=${Buffer.from('/b').toString('base64url')}`]);
  });
});
