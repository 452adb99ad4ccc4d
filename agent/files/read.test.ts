import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { createExcludes } from './excludes.ts';
import { openFile, readBytes, refreshFile } from './read.ts';
import { heldOpenBelow, scratchFolder, seededBytes } from './test-tree.ts';
import { FileReadError, type FileState } from './types.ts';
import { walk } from './walk.ts';

let scratch: ReturnType<typeof scratchFolder>;
let path: string;
beforeEach(() => {
  scratch = scratchFolder();
  path = `${scratch.path}/file`;
});
afterEach(() => {
  expect(heldOpenBelow(scratch.path)).toEqual([]);
  scratch.remove();
});

async function state(): Promise<FileState> {
  const excludes = createExcludes({ platform: 'linux', home: null, patterns: [], defaults: false });
  for await (const event of walk([path], { excludes, oneFileSystem: true })) {
    if (event.type === 'file' && event.file.path.toString().endsWith('/file')) return event.file;
  }
  throw new Error('the file was not found');
}

/** The file's name, free: the file has another one. */
function moved(): string {
  renameSync(path, `${path}2`);
  return path;
}

async function readAll(file: FileState): Promise<Buffer> {
  const opened = await openFile(file);
  try {
    return Buffer.concat(await Array.fromAsync(opened.chunks(), (piece) => Buffer.from(piece)));
  } finally {
    await opened.close();
  }
}

const reasonOf = (reading: Promise<unknown>): Promise<string> =>
  reading.then(
    () => 'read',
    (error) => (error instanceof FileReadError ? error.reason : String(error)),
  );

describe('reading a file', () => {
  test.each([0, 1, readBytes - 1, readBytes, readBytes + 1, 3 * readBytes + 7])(
    'of %d bytes gives them all, in memory of its own',
    async (size) => {
      const content = seededBytes(size + 1, size);
      writeFileSync(path, content);
      expect((await readAll(await state())).equals(content)).toBe(true);
    },
  );

  test('with holes gives zeros', async () => {
    writeFileSync(path, 'begin');
    truncateSync(path, 5_000_000);
    appendFileSync(path, 'end');
    const content = await readAll(await state());
    expect(content.byteLength).toBe(5_000_003);
    expect(content.subarray(5, 5_000_000).every((byte) => byte === 0)).toBe(true);
    expect(content.subarray(5_000_000).toString()).toBe('end');
  });

  test.each<[string, () => void, string]>([
    ['appended to', () => appendFileSync(path, 'x'), 'changed_while_read'],
    ['touched', () => utimesSync(path, 1, 1), 'changed_while_read'],
    ['gone', () => rmSync(path), 'vanished'],
    ['replaced by a copy', () => copyFileSync(`${path}2`, moved()), 'changed_while_read'],
    ['replaced by a symlink', () => symlinkSync('file2', moved()), 'changed_while_read'],
    ['replaced by a folder', () => mkdirSync(moved()), 'changed_while_read'],
  ])('that is %s since it was walked is refused', async (_, change, reason) => {
    writeFileSync(path, 'hello');
    const file = await state();
    change();
    expect(await reasonOf(openFile(file))).toBe(reason);
  });

  test.each<[string, () => void]>([
    ['grows', () => appendFileSync(path, 'more')],
    ['is overwritten', () => writeFileSync(path, Buffer.alloc(3 * readBytes, 'y'))],
    ['is only touched', () => utimesSync(path, 1, 1)],
  ])('that %s meanwhile is noticed, and no more than its size is read', async (_, change) => {
    writeFileSync(path, Buffer.alloc(3 * readBytes, 'x'));
    const opened = await openFile(await state());
    let bytes = 0;
    for await (const chunk of opened.chunks()) {
      if (bytes === 0) change();
      bytes += chunk.byteLength;
    }
    expect(bytes).toBe(3 * readBytes);
    expect(await opened.changed()).toBe(true);
    await opened.close();
  });

  test('that ends early is refused, and read again after a second look', async () => {
    writeFileSync(path, Buffer.alloc(3 * readBytes, 'x'));
    const file = await state();
    const opened = await openFile(file);
    const chunks = opened.chunks();
    await chunks.next();
    truncateSync(path, readBytes + 10);
    expect(await reasonOf(Array.fromAsync(chunks))).toBe('changed_while_read');
    await opened.close();
    const fresh = await refreshFile(file);
    expect(fresh.size).toBe(readBytes + 10);
    expect(fresh).toEqual(await state());
    expect((await readAll(fresh)).byteLength).toBe(readBytes + 10);
  });

  test('a second look at a file that is gone says so', async () => {
    writeFileSync(path, 'x');
    const file = await state();
    rmSync(path);
    expect(await reasonOf(refreshFile(file))).toBe('vanished');
  });
});
