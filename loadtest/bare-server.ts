/**
 * The yardstick: a bare node:http2 handler that receives a body, hashes it (SHA-256) and answers with the digest; for
 * reading, it answers with as many bytes as the path asks for, from memory. No routes, no accounts, no budget, no
 * database, no disk. TLS settings, HTTP/2 windows and bodies are those of the server it stands beside.
 *
 * `node loadtest/bare-server.ts CERTIFICATE KEY STREAM-WINDOW CONNECTION-WINDOW`; says its port on standard output.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';

/** The largest answer of the benchmark, and what is written at a time: as much as the server writes. */
const answerBytesMax = 33 * 1024 * 1024;
const sliceBytes = 256 * 1024;

const [certFile, keyFile, streamWindow, connectionWindow] = process.argv.slice(2);
if (!certFile || !keyFile || !streamWindow || !connectionWindow) {
  console.error('usage: node loadtest/bare-server.ts CERTIFICATE KEY STREAM-WINDOW CONNECTION-WINDOW');
  process.exit(2);
}

const content = randomBytes(answerBytesMax);
const server = createSecureServer({
  cert: readFileSync(certFile),
  key: readFileSync(keyFile),
  allowHTTP1: true,
  ALPNProtocols: ['h2', 'http/1.1'],
  minVersion: 'TLSv1.2',
  settings: { initialWindowSize: Number(streamWindow), enablePush: false },
  maxSessionMemory: 64,
});
server.on('connection', (socket) => socket.setNoDelay(true));
server.on('session', (session) => {
  session.setLocalWindowSize(Number(connectionWindow));
  session.on('error', () => {});
});
server.on('stream', (stream, headers) => {
  const hash = createHash('sha256');
  stream.on('error', () => {});
  stream.on('data', (chunk: Buffer) => hash.update(chunk));
  stream.on('end', () => {
    const digest = hash.digest();
    const wanted = /^\/read\?bytes=(\d+)$/.exec(String(headers[':path']));
    if (wanted) return void send(stream, Math.min(Number(wanted[1]), answerBytesMax));
    stream.respond({ ':status': 200, 'content-length': digest.byteLength });
    stream.end(digest);
  });
});
server.listen(0, '127.0.0.1', () => console.log(`listening on ${(server.address() as AddressInfo).port}`));

async function send(stream: ServerHttp2Stream, bytes: number): Promise<void> {
  stream.respond({ ':status': 200, 'content-length': bytes });
  for (let at = 0; at < bytes && !stream.destroyed; at += sliceBytes) {
    const more = stream.write(content.subarray(at, Math.min(bytes, at + sliceBytes)));
    if (!more) await new Promise<void>((resolve) => void stream.once('drain', resolve).once('close', resolve));
  }
  stream.end();
}
