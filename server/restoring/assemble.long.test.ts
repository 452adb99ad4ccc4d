/** What takes minutes: a file over 4 GiB, a hundred thousand files. */
import { createWriteStream } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type Entry, listTar, makeWorld, run, type World } from './testing.ts';

let folder: string;
let world: World;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'long-'));
  world = await makeWorld(folder);
});
afterEach(async () => {
  await world?.close();
  await rm(folder, { recursive: true, force: true });
});

const MiB = 1024 * 1024;

test.each(['zip', 'tar'] as const)(
  'a file over 4 GiB, and one that begins behind it: %s',
  async (format) => {
    const times = 520;
    const size = times * 8 * MiB;
    const block = Buffer.alloc(8 * MiB, 'content of a large file ');
    const lists = { minBlocks: 16, averageBlocks: 32, maxBlocks: 64 };
    await world.back(
      { path: '/d/a', repeat: { block, times }, size, lists },
      { path: '/d/b', content: Buffer.from('behind it') },
    );
    const path = join(folder, `got.${format}`);
    const assembly = world.assemble(await world.selection(['/d']), { format });
    await pipeline(assembly.bytes, createWriteStream(path));
    expect(assembly.report).toMatchObject({ ended: true, counts: { files: 2, bytes: size + 9 } });
    expect(assembly.report.heldBytesMax).toBeLessThan(64 * MiB);
    expect((await stat(path)).size).toBeGreaterThan(size);
    if (format === 'zip') {
      await run('unzip', ['-tqq', path]);
      expect((await run('unzip', ['-p', path, 'd/b'])).stdout).toBe('behind it');
      const code = 'import sys,zipfile; print([each.file_size for each in zipfile.ZipFile(sys.argv[1]).infolist()])';
      expect((await run('python3', ['-c', code, path])).stdout.trim()).toBe(`[${size}, 9]`);
    } else {
      expect((await listTar(path)).map((line) => line.split(/ +/)[2])).toEqual([String(size), '9']);
      expect((await run('tar', ['-xOf', path, 'd/b'])).stdout).toBe('behind it');
    }
  },
  900_000,
);

test('100,000 files', async () => {
  const count = 100_000;
  const files = Array.from(
    { length: count },
    (_, i): Entry => ({ path: `/d/${i % 300}/f${i}`, content: Buffer.alloc(500 + (i % 5000), `file ${i} `) }),
  );
  await world.back(...files);
  const path = join(folder, 'got.zip');
  const assembly = world.assemble(await world.selection(['/d']));
  await pipeline(assembly.bytes, createWriteStream(path));
  expect(assembly.report).toMatchObject({ ended: true, counts: { files: count, leftOut: 0 } });
  await run('unzip', ['-tqq', path]);
  expect((await run('unzip', ['-Zt', path])).stdout).toContain(`${count} files`);
}, 900_000);
