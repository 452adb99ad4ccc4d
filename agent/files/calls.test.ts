import { constants, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { link, lstat, open, Pace, unlink } from './calls.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-calls-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('the pace', () => {
  /** A pace on a clock of its own, and which way its calls went. */
  function paced(): { pace: Pace; call: (tookMs: number) => Promise<'waited' | 'pooled'>; pass: (ms: number) => void } {
    let now = 0;
    const pace = new Pace(() => now);
    return {
      pace,
      call: (tookMs) =>
        pace.call<'waited' | 'pooled'>(
          () => {
            now += tookMs;
            return 'waited';
          },
          async () => 'pooled',
        ),
      pass: (ms) => {
        now += ms;
      },
    };
  }

  test('waits for calls that are answered at once', async () => {
    const { call } = paced();
    for (let count = 0; count < 1_000; count++) expect(await call(0.02)).toBe('waited');
  });

  test('one long call among short ones changes nothing', async () => {
    const { call } = paced();
    for (let count = 0; count < 200; count++) expect(await call(count % 50 === 7 ? 400 : 0.02)).toBe('waited');
  });

  test('sends calls to the pool once they take long, and tries again after a rest', async () => {
    const { call, pass } = paced();
    const ways: string[] = [];
    for (let count = 0; count < 10; count++) ways.push(await call(8));
    expect(ways.indexOf('pooled')).toBeGreaterThan(0);
    expect(ways.slice(ways.indexOf('pooled'))).not.toContain('waited');
    pass(Pace.restMs);
    expect(await call(0.02)).toBe('waited');
  });

  test('lets the event loop turn among calls without end', async () => {
    const { call } = paced();
    let turned = false;
    setImmediate(() => {
      turned = true;
    });
    for (let count = 0; count < 1_000 && !turned; count++) await call(0.1);
    expect(turned).toBe(true);
  });

  test('a failure is the call’s own, whichever way it goes', async () => {
    const pace = new Pace();
    const fail = (): never => {
      throw Object.assign(new Error('no'), { code: 'ENOENT' });
    };
    await expect(pace.call(fail, async () => 1)).rejects.toMatchObject({ code: 'ENOENT' });
    for (let count = 0; count < 16; count++) pace.took(100);
    await expect(
      pace.call(
        () => 1,
        async () => fail(),
      ),
    ).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe.each([true, false])('a file opened with small: %s', (small) => {
  test('is written, changed and read as told', async () => {
    const path = join(folder, 'a');
    const handle = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, { mode: 0o600, small });
    expect((await handle.write(Buffer.from('hello world'), 0, 11, 0)).bytesWritten).toBe(11);
    await handle.truncate(5);
    await handle.chmod(0o640);
    await handle.utimes(1_000_000_000, 1_000_000_000);
    await handle.sync();
    const buffer = Buffer.alloc(8);
    expect((await handle.read(buffer, 1, 7, 1)).bytesRead).toBe(4);
    expect(buffer.toString('latin1')).toBe('\0ello\0\0\0');
    expect((await handle.stat({ bigint: true })).size).toBe(5n);
    await handle.close();
    await handle.close(); // the second does nothing
    expect(readFileSync(path, 'utf8')).toBe('hello');
    expect(statSync(path)).toMatchObject({ mode: 0o100640, mtimeMs: 1e12 });
  });

  test('is not there, or is there already', async () => {
    await expect(open(join(folder, 'none'), constants.O_RDONLY, { small })).rejects.toMatchObject({ code: 'ENOENT' });
    writeFileSync(join(folder, 'b'), '');
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
    await expect(open(join(folder, 'b'), flags, { small })).rejects.toMatchObject({ code: 'EEXIST', syscall: 'open' });
  });
});

test('names are given, looked at and taken away', async () => {
  writeFileSync(join(folder, 'a'), 'x');
  await link(join(folder, 'a'), Buffer.from(join(folder, 'b')));
  expect((await lstat(join(folder, 'b'))).nlink).toBe(2n);
  await expect(link(join(folder, 'a'), join(folder, 'b'))).rejects.toMatchObject({ code: 'EEXIST', syscall: 'link' });
  await unlink(join(folder, 'b'));
  await expect(lstat(join(folder, 'b'))).rejects.toMatchObject({ code: 'ENOENT', syscall: 'lstat' });
});
