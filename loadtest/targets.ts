/**
 * The two servers a benchmark talks to, by one and the same client: ours, as a registered device, and the bare
 * handler. Each checks what it is answered, so that neither is measured doing less than it should.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Client } from '../agent/client/client.ts';
import { Transport } from '../agent/client/transport.ts';
import { enroll, type WayIn } from '../agent/commands/enroll.ts';
import type { Registration } from '../agent/state/registration.ts';
import { decodeBlockFrames } from '../protocol/block-frames.ts';
import { hashAt, sha256 } from '../protocol/hashes.ts';
import { limits } from '../protocol/limits.ts';
import { UploadAnswer } from '../protocol/messages.ts';
import { decodeMessage, encodeMessage, msgpackType } from '../protocol/wire.ts';
import type { UploadBody } from './bodies.ts';
import { type Program, startProgram } from './child-process.ts';
import type { ServerProcess } from './server-process.ts';

/** What a leg of the benchmark is run against. */
export interface Target {
  name: 'holdfast' | 'bare';
  /** The process whose tree is measured. */
  pid: number;
  upload(body: UploadBody): Promise<void>;
  /** Reads back the blocks of a body, or as many bytes. */
  read(body: UploadBody): Promise<void>;
  close(): Promise<void>;
}

export interface HoldfastTarget extends Target {
  /** Reads a body's blocks and compares each with its name. Not for the timed part. */
  verify(body: UploadBody): Promise<void>;
  claim(hashes: Buffer): Promise<void>;
  /** Encoded ahead: one small file for each block. */
  prepareCommits(bodies: readonly UploadBody[]): Buffer[];
  commit(encoded: Buffer): Promise<void>;
}

/** As the agent's backup command has it: two connections. A request that fails is not repeated: it ends the run. */
function transportTo(url: string, certificateSha256: string): Transport {
  return new Transport({
    url: new URL(url),
    certificateSha256,
    connections: 2,
    connectTimeoutMs: 15_000,
    idleTimeoutMs: 60_000,
    retry: { giveUpAfterMs: 0, firstDelayMs: 1, delayMsMax: 1 },
    limiter: null,
    signal: null,
    onRetry: null,
  });
}

/** A device, of which only the token is needed: the agent's folder is not kept. */
async function enrolled(url: string, certificateSha256: string, wayIn: WayIn): Promise<Registration> {
  const home = mkdtempSync(join(tmpdir(), 'holdfast-benchmark-agent-'));
  try {
    return await enroll({ url, certificateSha256, wayIn, home, deviceName: 'benchmark' });
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

/** Registers a device with a server and starts a run in its archive. */
export async function openHoldfast(server: ServerProcess): Promise<HoldfastTarget> {
  const { url, certificateSha256, registrationKey, userName, password } = server;
  const device = await enrolled(url, certificateSha256, { registrationKey, userName, password });
  const transport = transportTo(url, certificateSha256);
  const client = new Client(transport, device.token);
  const { run, purgeEpoch } = await client.startRun(device.archive, {
    lastCommit: null,
    roots: [Buffer.from('/benchmark')],
  });
  const headers = { authorization: `Bearer ${device.token}` };
  const fetchAnswer = (hashes: Buffer) =>
    transport.stream({
      method: 'POST',
      path: '/v1/blocks/fetch',
      headers: { ...headers, 'content-type': msgpackType },
      body: [encodeMessage({ blocks: hashes })],
    });
  let files = 0;
  return {
    name: 'holdfast',
    pid: server.pid,
    async upload(body) {
      const answer = await transport.request({
        method: 'POST',
        path: '/v1/blocks',
        headers: { ...headers, 'content-type': 'application/vnd.holdfast.upload' },
        body: body.parts,
      });
      const { stored } = decodeMessage(UploadAnswer, answer.body);
      if (stored !== body.blocks) throw new Error(`of ${body.blocks} new blocks the server stored ${stored}`);
    },
    async read(body) {
      for (const hashes of fetches(body)) {
        const blocks = hashes.byteLength / limits.hashBytes;
        const expected = (body.blockBytes / body.blocks) * blocks + 8 * (blocks + 1);
        await countBytes((await fetchAnswer(hashes)).body, expected);
      }
    },
    async verify(body) {
      for (const hashes of fetches(body)) {
        const answer = await fetchAnswer(hashes);
        for await (const { index, bytes } of decodeBlockFrames(answer.body, hashes.byteLength / limits.hashBytes)) {
          if (!bytes || !sha256(bytes).equals(hashAt(hashes, index))) throw new Error(`block ${index} came back wrong`);
        }
      }
    },
    async claim(hashes) {
      const { blocks } = await client.claim(hashes);
      if (blocks.some((byte) => byte !== 0)) throw new Error('the server asks again for blocks it has acknowledged');
    },
    prepareCommits: (bodies) =>
      bodies.map((body) =>
        encodeMessage({
          commitId: randomBytes(16),
          run,
          purgeEpoch,
          versions: Array.from({ length: body.blocks }, (_, index) => ({
            path: Buffer.from(`/benchmark/${Math.floor(files / 1000)}/file-${files++}`),
            kind: 'file',
            size: body.blockBytes / body.blocks,
            mtime: 1_700_000_000_000,
            attributes: randomBytes(120), // about what the agent seals: mode, owner, times
            blocks: hashAt(body.hashes, index),
            mac: randomBytes(32),
          })),
        }),
      ),
    async commit(encoded) {
      await client.commitEncoded(device.archive, encoded);
    },
    close: () => transport.close(),
  };
}

const bareMain = fileURLToPath(new URL('./bare-server.ts', import.meta.url));

/** Starts the bare handler with the certificate and the windows of a server. */
export async function openBare(
  server: ServerProcess,
  windows: { streamBytes: number; connectionBytes: number },
  onStart: (program: Program) => void = () => {},
): Promise<Target> {
  const { cert, key } = server.certificateFiles;
  const program = startProgram(bareMain, [cert, key, String(windows.streamBytes), String(windows.connectionBytes)]);
  onStart(program);
  const [, port] = await program.says(/listening on (\d+)/, 30_000);
  const transport = transportTo(`https://127.0.0.1:${port}`, server.certificateSha256);
  return {
    name: 'bare',
    pid: program.pid,
    async upload(body) {
      const answer = await transport.request({ method: 'POST', path: '/upload', body: body.parts });
      if (!answer.body.equals(body.digest)) throw new Error('the bare handler hashed something else than was sent');
    },
    async read(body) {
      for (const hashes of fetches(body)) {
        const blocks = hashes.byteLength / limits.hashBytes;
        const expected = (body.blockBytes / body.blocks) * blocks + 8 * (blocks + 1);
        const request = {
          method: 'POST',
          path: `/read?bytes=${expected}`,
          body: [encodeMessage({ blocks: hashes })],
        } as const;
        await countBytes((await transport.stream(request)).body, expected);
      }
    },
    async close() {
      await transport.close();
      await program.stop(5_000);
    },
  };
}

/** A body's hashes, as many at a time as one fetch may ask for. */
function* fetches(body: UploadBody): Generator<Buffer> {
  const stepBytes = limits.fetchBlocksMax * limits.hashBytes;
  for (let at = 0; at < body.hashes.byteLength; at += stepBytes) yield body.hashes.subarray(at, at + stepBytes);
}

async function countBytes(stream: AsyncIterable<Buffer>, expected: number): Promise<void> {
  let bytes = 0;
  for await (const chunk of stream) bytes += chunk.byteLength;
  if (bytes !== expected) throw new Error(`${bytes} bytes came back instead of ${expected}`);
}
