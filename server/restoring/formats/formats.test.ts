/** The writers by themselves: names, numbers at the edges of their fields, directories of the wide kind. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { testWith } from '../../../tests/helpers/tools.ts';
import { listTar, readZip, run } from '../testing.ts';
import { Spool } from './spool.ts';
import { tarEnd, tarHeader, tarPadding } from './tar.ts';
import { type ZipEntry, ZipWriter } from './zip.ts';
import { escapeName, shownPath, zipName } from './zip-names.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'formats-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('names in a zip', () => {
  test.each<[string, Buffer | string, string]>([
    ['a plain one', 'report 2024 (1).txt', 'report 2024 (1).txt'],
    ['one of other letters', '\u00fcber \u{1f600} \u65e5\u672c', '\u00fcber \u{1f600} \u65e5\u672c'],
    ['a percent sign', '100% {50}', '100% {50}'],
    ['what looks like an escape', 'a%{FF}b', 'a%{25}{FF}b'],
    ['what nearly looks like one', 'a%{ff}b%{F}', 'a%{ff}b%{F}'],
    ['what looks like a digest', `a%{${'A'.repeat(32)}}`, `a%{25}{${'A'.repeat(32)}}`],
    ['bytes that are no UTF-8', Buffer.from('a\xff\xfe', 'latin1'), 'a%{FF}%{FE}'],
    ['an overlong form', Buffer.from([0xc0, 0xaf]), '%{C0}%{AF}'],
    ['a surrogate', Buffer.from([0xed, 0xa0, 0x80]), '%{ED}%{A0}%{80}'],
    ['a character cut short', Buffer.from([0x61, 0xe2, 0x82]), 'a%{E2}%{82}'],
    ['beyond Unicode', Buffer.from([0xf4, 0x90, 0x80, 0x80]), '%{F4}%{90}%{80}%{80}'],
    ['a backslash', '..\\..\\x', '..%{5C}..%{5C}x'],
    ['controls', 'a\nb\u007f\u0085', 'a%{0A}b%{7F}%{C2}%{85}'],
    ['what Windows refuses', '<>:"|?*', '%{3C}%{3E}%{3A}%{22}%{7C}%{3F}%{2A}'],
    ['a dot at the end', 'a.', 'a%{2E}'],
    ['spaces at the end', 'a  ', 'a %{20}'],
    ['three dots', '...', '..%{2E}'],
    ['a device', 'CON', '%{43}ON'],
    ['a device with an ending', 'nul.tar.gz', '%{6E}ul.tar.gz'],
    ['a numbered device', 'COM\u00b9', '%{43}OM\u00b9'],
    ['no device', 'CONSOLE', 'CONSOLE'],
  ])('%s', (_, name, expected) => {
    expect(escapeName(Buffer.from(name))).toBe(expected);
  });

  test('are UTF-8, one for each name, and lead nowhere', () => {
    const bytes = fc
      .uint8Array({ minLength: 1, maxLength: 40 })
      .map((each) => Buffer.from(each.filter((b) => b !== 0 && b !== 0x2f)));
    const tricky = fc.array(fc.constantFrom('%', '{', '}', 'F', '2', '5', '.', ' ', '\\', '\xff', 'a'), {
      minLength: 1,
      maxLength: 12,
    });
    const names = fc.oneof(
      bytes,
      tricky.map((parts) => Buffer.from(parts.join(''), 'latin1')),
    );
    fc.assert(
      fc.property(
        names.filter((name) => name.byteLength > 0 && !['.', '..'].includes(name.toString())),
        (name) => {
          const escaped = escapeName(name);
          expect(escaped.isWellFormed()).toBe(true);
          expect(/[\\/:\0]|^\.{1,2}$/.test(escaped)).toBe(false);
          expect(turnBack(escaped).equals(name)).toBe(true); // so two names never share one
          expect(turnBack(shownPath(name)).equals(name)).toBe(true);
        },
      ),
      { numRuns: 2_000 },
    );
  });

  test('that grow too long by it are cut, and differ all the same', () => {
    const bad = (last: number): Buffer => Buffer.concat([Buffer.alloc(60, 0xe9), Buffer.of(last)]);
    const [one, two] = [escapeName(bad(0xe1)), escapeName(bad(0xe2))];
    expect(one).toMatch(/^(%\{E9\})+%\{[0-9A-F]{32}\}$/);
    expect(Buffer.byteLength(one)).toBeLessThanOrEqual(255);
    expect(one).not.toBe(two);
    expect(escapeName(Buffer.alloc(51, 0xe9))).toBe('%{E9}'.repeat(51)); // 255 bytes
    expect(escapeName(Buffer.alloc(300, 'x'))).toBe('x'.repeat(300)); // not changed, so left
  });

  test('begin below the folder of the selection, and a drive is a letter', () => {
    expect(zipName(Buffer.from('/a/b/c'), 1)).toEqual({ name: 'b/c', changed: false });
    expect(zipName(Buffer.from('/C:/Users/x?'), 0)).toEqual({ name: 'C/Users/x%{3F}', changed: true });
    expect(zipName(Buffer.from('/C:/Users/C:'), 0)).toEqual({ name: 'C/Users/C%{3A}', changed: true });
    expect(zipName(Buffer.from('/C:/Users/x'), 0)).toEqual({ name: 'C/Users/x', changed: false });
    // What is left out above changes nothing.
    expect(zipName(Buffer.from('/x?/C/C:'), 1)).toEqual({ name: 'C/C%{3A}', changed: true });
    expect(zipName(Buffer.from('/x?/C'), 1)).toEqual({ name: 'C', changed: false });
  });

  test('of a drive and of a folder that is called like it are two', () => {
    expect(zipName(Buffer.from('/C/x'), 0)).toEqual({ name: '%{43}/x', changed: true });
    expect(zipName(Buffer.from('/c/x'), 0)).toEqual({ name: 'c/x', changed: false });
    // No drive as an agent names it.
    expect(zipName(Buffer.from('/c:/x'), 0)).toEqual({ name: 'c%{3A}/x', changed: true });
  });
});

function turnBack(name: string): Buffer {
  const parts = name.split(/(%\{[0-9A-F]{2}\})/);
  return Buffer.concat(
    parts.map((part) => (/^%\{[0-9A-F]{2}\}$/.test(part) ? Buffer.from(part.slice(2, 4), 'hex') : Buffer.from(part))),
  );
}

async function zipOf(
  entries: { entry: Omit<ZipEntry, 'crc' | 'size'>; content: Buffer; late?: boolean }[],
): Promise<Buffer> {
  const zip = new ZipWriter();
  const parts: Buffer[] = [];
  for (const { entry, content, late } of entries) {
    const crc = crc32(content);
    parts.push(zip.begin({ ...entry, size: content.byteLength, crc: late ? null : crc }), content, await zip.end(crc));
  }
  for await (const part of zip.finish()) parts.push(part);
  return Buffer.concat(parts);
}

describe('a zip', () => {
  testWith('unzip').each([0xfffe, 0xffff, 70_000])('of %i entries is read by unzip', async (count) => {
    const empty = Buffer.alloc(0);
    const entries = Array.from({ length: count }, (_, i) => ({
      entry: { name: Buffer.from(`f${i}`), kind: 'file' as const, mode: 0o644, mtimeMs: 0 },
      content: empty,
    }));
    const bytes = await zipOf(entries);
    expect(readZip(bytes).size).toBe(count);
    const path = join(folder, 'many.zip');
    await writeFile(path, bytes);
    const { stdout } = await run('unzip', ['-Zt', path]);
    expect(stdout).toContain(`${count} files`);
  });

  testWith('unzip')('with a CRC that comes after the content is whole', async () => {
    const entry = { name: Buffer.from('late'), kind: 'file' as const, mode: 0o644, mtimeMs: 1_700_000_000_000 };
    const bytes = await zipOf([{ entry, content: Buffer.from('x'.repeat(1000)), late: true }]);
    const path = join(folder, 'late.zip');
    await writeFile(path, bytes);
    await run('unzip', ['-tqq', path]);
    expect(readZip(bytes).get('late')!.content.byteLength).toBe(1000);
  });

  testWith('unzip').each([
    ['before 1970', -1_500, -2],
    ['before what its own field holds', -(2 ** 31) * 1000 - 1, null],
    ['the last second of that field', (2 ** 31 - 1) * 1000, 2 ** 31 - 1],
    ['after it', 2 ** 31 * 1000, null],
    ['beyond all dates', 8.64e15, null],
  ])('tells a time %s', async (_, mtimeMs, seconds) => {
    const entry = { name: Buffer.from('f'), kind: 'file' as const, mode: 0o644, mtimeMs };
    const bytes = await zipOf([{ entry, content: Buffer.from('x') }]);
    if (seconds !== null) expect(readZip(bytes).get('f')!.mtime).toBe(seconds);
    const path = join(folder, 'time.zip');
    await writeFile(path, bytes);
    await run('unzip', ['-tqq', path]);
  });
});

describe('a tar', () => {
  const plain = { type: 'file' as const, mode: 0o644, uid: 0, gid: 0, mtimeMs: 0, mtimeNs: 0 };

  testWith('tar').each([
    ['ASCII', (bytes: number) => Buffer.alloc(bytes, 'x')],
    ['other letters', (bytes: number) => Buffer.from(`${'x'.repeat(bytes - 2)}\u00fc`)],
    ['no UTF-8', (bytes: number) => Buffer.alloc(bytes, 0xe9)],
  ])('carries names of 99 to 101 bytes: %s', async (_, name) => {
    for (const bytes of [99, 100, 101]) {
      const file = tarHeader({ ...plain, path: name(bytes), size: 0 });
      const link = tarHeader({ ...plain, type: 'symlink', path: Buffer.from('l'), linkPath: name(bytes), size: 0 });
      const path = join(folder, 'names.tar');
      await writeFile(path, Buffer.concat([file, link, tarEnd]));
      const escaped = [...name(bytes)].map((b) => (b < 0x80 ? String.fromCharCode(b) : `\\${b.toString(8)}`)).join('');
      const lines = await listTar(path);
      expect(lines[0]!.endsWith(` ${escaped}`)).toBe(true);
      expect(lines[1]!.endsWith(` l -> ${escaped}`)).toBe(true);
    }
  });

  testWith('python3').each([0o77777777777, 0o100000000000, 2 ** 40])('says a size of %i', async (size) => {
    const path = join(folder, 'size.tar');
    const header = tarHeader({ ...plain, path: Buffer.from('f'), size });
    await writeFile(path, header);
    const code = 'import sys,tarfile; print(tarfile.open(sys.argv[1]).next().size)';
    expect((await run('python3', ['-c', code, path])).stdout.trim()).toBe(String(size));
    // Whoever does not read pax finds it in the header as well.
    expect(Number(header.readBigUInt64BE(header.byteLength - 512 + 128)) === size).toBe(size >= 8 ** 11);
  });

  test.each([
    [0, 0],
    [1, 511],
    [511, 1],
    [512, 0],
    [513, 511],
  ])('content of %i bytes is followed by %i', (size, padding) => {
    expect(tarPadding(size).byteLength).toBe(padding);
  });
});

test('a spool gives back what it was given, in less room', async () => {
  const spool = new Spool();
  for (let i = 0; i < 100_000; i++) await spool.add(Buffer.from(`line ${i} of many\n`));
  const parts: Buffer[] = [];
  for await (const part of spool.read()) parts.push(part);
  const text = Buffer.concat(parts).toString();
  expect(text.startsWith('line 0 of many\nline 1 of many\n')).toBe(true);
  expect([text.endsWith('line 99999 of many\n'), text.length]).toEqual([true, spool.bytes]);
  expect(spool.heldBytes).toBeLessThan(spool.bytes / 3);
});
