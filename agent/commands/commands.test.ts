import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Problem } from '../../protocol/problems.ts';
import { CertificateRefused, ConnectionLost } from '../client/errors.ts';
import type { Surroundings } from '../state/home.ts';
import { type Registration, writeRegistration } from '../state/registration.ts';
import { type MemoryServer, startMemoryServer } from '../testing/memory-server.ts';
import { excludesFor } from './backup-run.ts';
import { findFirstStart, setUpAnewAdvice } from './first-start.ts';
import { parseDuration, parseMoment, parseRate, parseShare } from './parse.ts';
import { bytesInWords, durationInWords, pathForJson, pathInWords } from './words.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-commands-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('what people write', () => {
  test.each([
    ['2MiB/s', 2 * 2 ** 20],
    ['2 MiB', 2 * 2 ** 20],
    ['500KB/s', 500_000],
    ['500K', 500_000],
    ['1.5GiB/s', 1.5 * 2 ** 30],
    ['1000', 1000],
    ['1000B/s', 1000],
    ['0', null],
    ['fast', null],
    ['2 furlongs', null],
    ['-1MiB', null],
  ])('rate %s', (text, expected) => expect(parseRate(text)).toBe(expected));

  test.each([
    ['50%', 0.5],
    ['200%', 2],
    ['0.25', 0.25],
    ['0%', null],
    ['half', null],
  ])('share %s', (text, expected) => expect(parseShare(text)).toBe(expected));

  test.each([
    ['15m', 900_000],
    ['90s', 90_000],
    ['1.5h', 5_400_000],
    ['15', null],
    ['soon', null],
  ])('time %s', (text, expected) => expect(parseDuration(text)).toBe(expected));

  const now = Date.parse('2026-03-10T12:00:00Z');
  test.each([
    ['2026-03-01T14:30:00Z', Date.parse('2026-03-01T14:30:00Z')],
    ['2026-03-01 14:30', new Date(2026, 2, 1, 14, 30).getTime()],
    ['2026-03-01', new Date(2026, 2, 2).getTime() - 1],
    ['2026-12-31', new Date(2027, 0, 1).getTime() - 1],
    ['3d', now - 3 * 86_400_000],
    ['3d ago', now - 3 * 86_400_000],
    ['2026-02-31', null],
    ['yesterday', null],
    ['2026', null],
    ['1970-01-01T00:00:00Z', 0],
    ['1969-12-31T23:59:59.999Z', null],
    ['0000-01-01T00:00:00Z', null],
    ['3000w', null],
  ])('moment %s', (text, expected) => expect(parseMoment(text, now)).toBe(expected));
});

test('numbers and names as people read them', () => {
  expect([0, 999, 1024, 1536, 150 * 2 ** 20, 5 * 2 ** 40].map(bytesInWords)).toEqual([
    '0 B',
    '999 B',
    '1.0 KiB',
    '1.5 KiB',
    '150 MiB',
    '5.0 TiB',
  ]);
  expect([500, 9_940, 59_000, 61_000, 3_700_000].map(durationInWords)).toEqual([
    '0.5 s',
    '9.9 s',
    '59 s',
    '1 min 1 s',
    '1 h 1 min',
  ]);
  expect(pathInWords(Buffer.from('/a\u001b[2J\nb'))).toBe('/a\\x1b[2J\\x0ab');
  expect(pathForJson(Buffer.from('/ä'))).toEqual({ path: '/ä' });
  expect(pathForJson(Buffer.from([0x2f, 0xff]))).toEqual({ path: '/\ufffd', pathBase64: 'L/8=' });
});

test('the folders of the agent and of a local server are left out', () => {
  const rules = { exclude: [], excludeDefaults: false, excludeCaches: false };
  const { match } = excludesFor(rules, join(folder, 'home'));
  expect(match(Buffer.from(join(folder, 'home')), 'directory')).toContain('agent');
  expect(match(Buffer.from(join(folder, 'other')), 'directory')).toBeNull();
});

describe('the first-start file', () => {
  const surroundings = (): Surroundings => ({
    env: { HOLDFAST_DATA: folder },
    platform: 'linux',
    homeDir: '/home/a',
    isRoot: false,
  });
  const document = {
    url: 'https://127.0.0.1:1',
    certificateSha256: 'AB'.repeat(32),
    registrationKey: 'k',
    userName: 'u',
    password: 'p',
  };
  const write = (content: string): void => writeFileSync(join(folder, 'first-start.json'), content);

  test('is found, or is not there, or is named as damaged', () => {
    expect(findFirstStart(surroundings())).toBeNull();
    write(JSON.stringify(document));
    expect(findFirstStart(surroundings())).toMatchObject({ ...document, certificateSha256: 'ab'.repeat(32) });
    write('{');
    expect(() => findFirstStart(surroundings())).toThrow(/first-start/);
    write(JSON.stringify({ ...document, password: 5 }));
    expect(() => findFirstStart(surroundings())).toThrow(/first-start/);
  });

  test('a server set up anew is explained; nothing else is taken for it', () => {
    write(JSON.stringify(document));
    const found = findFirstStart(surroundings())!;
    const registration = { url: document.url, certificateSha256: 'cd'.repeat(32) } as Registration;
    const unauthorized = new Problem('unauthorized', 'no such token');
    expect(setUpAnewAdvice(unauthorized, registration, found)).toContain('register --local --force');
    expect(setUpAnewAdvice(new CertificateRefused('u', 'cd', found.certificateSha256), registration, found)).toContain(
      '--local',
    );
    expect(setUpAnewAdvice(new CertificateRefused('u', 'cd', 'ef'.repeat(32)), registration, found)).toBeNull(); // a stranger answers
    expect(setUpAnewAdvice(unauthorized, registration, null)).toBeNull();
    expect(setUpAnewAdvice(new ConnectionLost('x'), registration, found)).toBeNull();
  });
});

describe('the command', () => {
  let server: MemoryServer;
  beforeEach(async () => {
    server = await startMemoryServer();
    const registration: Registration = {
      url: server.url,
      certificateSha256: null,
      userName: 'u',
      guid: '5',
      deviceName: 'd',
      token: 't',
      vault: 1,
      archive: 1,
      level: 'standard',
      keyGeneration: 1,
      vaultKey: Buffer.alloc(32, 7),
    };
    writeRegistration(join(folder, 'home'), registration);
    mkdirSync(join(folder, 'root'));
    writeFileSync(join(folder, 'root', 'a'), 'hello');
  });
  afterEach(() => server.close());

  /** Runs the agent as a process of its own. */
  async function agent(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
    const main = fileURLToPath(new URL('../main.ts', import.meta.url));
    const env = { ...process.env, HOLDFAST_AGENT_HOME: join(folder, 'home'), HOLDFAST_DATA: join(folder, 'data') };
    const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main, ...args], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    let err = '';
    child.stdout.on('data', (bytes) => {
      out += bytes;
    });
    child.stderr.on('data', (bytes) => {
      err += bytes;
    });
    const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
    return { code, out, err };
  }

  test('backs up, says so, knows of a file, and restores it', async () => {
    const root = join(folder, 'root');
    const first = await agent('backup', root);
    expect(first).toMatchObject({ code: 0, err: '' });
    expect(first.out).toContain('Backup completed');
    expect(first.out).toMatch(/1 seen, 1 changed, 0 deleted, 0 skipped/);
    expect((await agent('status', join(root, 'a'))).out).toMatch(/stored .*unchanged since/);
    const unknown = await agent('status', join(root, 'b'));
    expect(unknown).toMatchObject({ code: 1 });
    expect(unknown.out).toContain('not stored');
    const status = await agent('status', '--json');
    expect(JSON.parse(status.out)).toMatchObject({ event: 'status', guid: '5', runs: [{ outcome: 'completed' }] });
    const restored = await agent('restore', root, '--to', join(folder, 'back'), '--json');
    expect(restored.code).toBe(0);
    expect(
      restored.out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { event: string })
        .at(-1),
    ).toMatchObject({ event: 'end', outcome: 'completed', filesRestored: 1 });
  });

  test('says which rule leaves out what lies in an excluded folder', async () => {
    mkdirSync(join(folder, 'root', '.holdfast-restore'));
    writeFileSync(join(folder, 'root', '.holdfast-restore', 'x'), 'x');
    expect((await agent('backup', join(folder, 'root'))).code).toBe(0);
    const met = await agent('status', join(folder, 'root', '.holdfast-restore', 'x'));
    expect(met.code).toBe(1);
    expect(met.out).toMatch(/left it out: excluded .*\.holdfast-restore\/.* at .*\.holdfast-restore/);
    mkdirSync(join(folder, 'root', 'sub', '.holdfast-restore'), { recursive: true });
    writeFileSync(join(folder, 'root', 'sub', '.holdfast-restore', 'y'), 'y'); // no run has come by here
    const rule = await agent('status', join(folder, 'root', 'sub', '.holdfast-restore', 'y'));
    expect(rule.out).toMatch(/excluded: default rule \.holdfast-restore\/.*leaves out .*sub\/\.holdfast-restore/);
  });

  test('makes a key file for a new custom archive only, and never in place of a lost one', async () => {
    const sign = ['--server', server.url, '--key', 'k', '--user', 'u', '--password-file', join(folder, 'root', 'a')];
    const lost = join(folder, 'lost.key');
    const replace = await agent(
      'register',
      ...sign,
      '--force',
      '--replace',
      '5',
      '--level',
      'custom',
      '--custom-key-file',
      lost,
    );
    expect(replace.code).not.toBe(0);
    expect(replace.err).toContain(`${lost} does not exist`);
    expect(existsSync(lost)).toBe(false);
  });

  test('ends with the codes it documents', async () => {
    expect((await agent('backup', folder, '--limit-upload', 'fast')).code).toBe(2);
    expect((await agent('backup', join(folder, 'missing'))).code).toBe(1);
    const nobody = await agent('backup', join(folder, 'root'), '--home', join(folder, 'elsewhere'));
    expect(nobody.code).toBe(2);
    expect(nobody.err).toContain('register --server');
  });
});
