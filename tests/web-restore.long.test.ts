/**
 * Restores to a browser of what takes minutes, from outside: the real server, a backup of the real agent, curl over HTTP/2,
 * and the programs that people open zips and tars with. A hundred thousand files; a file over 4 GiB. HOLDFAST_TEST_FILES and
 * HOLDFAST_TEST_LARGE_MIB make them fewer and smaller, to see whether the tests work.
 */
import { execFile, spawn } from 'node:child_process';
import { createHash, type Hash } from 'node:crypto';
import { createReadStream, createWriteStream, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { WebClient } from '../loadtest/restoring-world.ts';
import { TestAgent } from './helpers/agent.ts';
import { memoryOf, type RunningServer, startServer } from './helpers/server.ts';

const run = promisify(execFile);
const MiB = 1024 * 1024;
const hasBsdtar = await run('bsdtar', ['--version']).then(
  () => true,
  () => false,
);
let server: RunningServer;
let scratch: string;
let agent: TestAgent;
let web: WebClient;

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-web-restore-long-'));
  server = await startServer();
  agent = new TestAgent();
  await agent.succeed(...agent.signIn(server, server.firstStart));
  web = new WebClient(server.url, server.certificateSha256);
}, 120_000);

afterAll(async () => {
  web?.close();
  agent?.remove();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

interface Fetched {
  file: string;
  /** Most resident bytes of the server's process meanwhile. */
  serverBytes: number;
}

/** Plans a restore and saves it with curl. @param plainBytes what it has to say of itself in the end */
async function fetched(path: string, format: 'zip' | 'tar', plainBytes: number): Promise<Fetched> {
  await web.signIn(server.firstStart);
  const id = await web.plan({ device: await web.device(), path, format });
  const file = join(scratch, `restored.${format}`);
  let serverBytes = 0;
  const looking = setInterval(() => {
    serverBytes = Math.max(serverBytes, memoryOf(server.pid).resident);
  }, 100);
  const quietly = ['--silent', '--show-error', '--fail-with-body', '--insecure', '--http2'];
  const asked = ['--header', `Authorization: Bearer ${web.token}`, `${server.url}/v1/restores/${id}/content`];
  await run('curl', [...quietly, '--output', file, ...asked]).finally(() => clearInterval(looking));
  await web.signIn(server.firstStart);
  await web.assertWhole(id, plainBytes);
  return { file, serverBytes };
}

async function hashOf(source: AsyncIterable<Uint8Array>): Promise<string> {
  const hash: Hash = createHash('sha256');
  for await (const piece of source) hash.update(piece);
  return hash.digest('hex');
}

describe('a hundred thousand files', () => {
  const count = Number(process.env.HOLDFAST_TEST_FILES ?? 100_000);
  let tree: string;
  let bytes = 0;

  beforeAll(async () => {
    tree = join(scratch, 'many');
    for (let i = 0; i < count; i++) {
      const folder = join(tree, `folder ${i % 300}`);
      if (i < 300) mkdirSync(folder, { recursive: true });
      const content = `file ${i} `.repeat(1 + (i % 400));
      bytes += content.length;
      writeFileSync(join(folder, `file ${i}`), content);
    }
    await agent.succeed('backup', tree);
  }, 1_200_000);

  test.each(['zip', 'tar'] as const)(
    'come back as a %s that is the same everywhere it is opened',
    async (format) => {
      const { file } = await fetched(tree, format, bytes);
      const into = join(scratch, `many-${format}`);
      mkdirSync(into);
      if (format === 'zip') {
        await run('unzip', ['-tqq', file]);
        expect((await run('unzip', ['-Zt', file])).stdout).toContain(`${count + 301} files`);
        await run('unzip', ['-qq', file, '-d', into]);
      } else await run('tar', ['-xf', file, '-C', into]);
      await run('diff', ['-r', tree, join(into, 'many')]);
      rmSync(into, { recursive: true });
      if (!hasBsdtar) return;
      mkdirSync(into);
      await run('bsdtar', ['-xf', file, '-C', into]);
      await run('diff', ['-r', tree, join(into, 'many')]);
      rmSync(into, { recursive: true });
    },
    1_200_000,
  );
});

describe('a file over 4 GiB', () => {
  const size = Number(process.env.HOLDFAST_TEST_LARGE_MIB ?? 4_224) * MiB + 5;
  let tree: string;
  let hash: string;

  beforeAll(async () => {
    tree = join(scratch, 'large');
    mkdirSync(tree);
    const file = await open(join(tree, 'over 4 GiB'), 'w');
    // Another number in each 4 KiB: compressible, and no two blocks of it equal.
    const piece = Buffer.alloc(8 * MiB, 'the content of a large file ');
    try {
      for (let at = 0; at < size; at += piece.byteLength) {
        for (let page = 0; page < piece.byteLength; page += 4096) piece.writeUInt32LE((at + page) / 4096, page);
        await file.write(piece, 0, Math.min(piece.byteLength, size - at));
      }
    } finally {
      await file.close();
    }
    writeFileSync(join(tree, 'that comes behind it'), 'behind it\n');
    hash = await hashOf(createReadStream(join(tree, 'over 4 GiB')));
    await agent.succeed('backup', tree);
  }, 1_200_000);

  test.each(['zip', 'tar'] as const)(
    'comes back as a %s',
    async (format) => {
      const { file, serverBytes } = await fetched(tree, format, size + 10);
      expect(statSync(file).size).toBeGreaterThan(size);
      expect(serverBytes).toBeLessThan(768 * MiB);
      const openers = format === 'zip' ? [['unzip', '-p']] : [['tar', '-xOf']];
      if (hasBsdtar) openers.push(['bsdtar', '-xOf']);
      for (const [program, ...options] of openers as [string, ...string[]][]) {
        const out = join(scratch, 'out');
        for (const [name, wanted] of [
          ['over 4 GiB', hash],
          ['that comes behind it', createHash('sha256').update('behind it\n').digest('hex')],
        ] as const) {
          await into(out, program, [...options, file, `large/${name}`]);
          expect([program, name, await hashOf(createReadStream(out))]).toEqual([program, name, wanted]);
        }
      }
      if (format === 'zip') await run('unzip', ['-tqq', file]);
    },
    1_200_000,
  );
});

/** Runs a program with its output in a file. */
async function into(path: string, program: string, args: readonly string[]): Promise<void> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  await pipeline(child.stdout, createWriteStream(path));
  expect([program, await ended]).toEqual([program, 0]);
}
