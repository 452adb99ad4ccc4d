import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Cache, type PendingFile } from './cache.ts';
import { defaultAgentHome, defaultServerData, type Surroundings, writePrivateFile } from './home.ts';
import { AgentBusy, lockHome } from './lock.ts';
import { type Registration, readRegistration, writeRegistration } from './registration.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-state-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('where things lie', () => {
  const linux: Surroundings = { env: {}, platform: 'linux', homeDir: '/home/a', isRoot: false };
  test.each<[string, Surroundings, string, string]>([
    ['Linux', linux, '/home/a/.config/holdfast-agent', '/home/a/.local/share/holdfast'],
    ['root', { ...linux, homeDir: '/root', isRoot: true }, '/root/.config/holdfast-agent', '/var/lib/holdfast'],
    ['XDG', { ...linux, env: { XDG_CONFIG_HOME: '/c', XDG_DATA_HOME: '/d' } }, '/c/holdfast-agent', '/d/holdfast'],
    ['HOLDFAST_DATA', { ...linux, env: { HOLDFAST_DATA: '/x' } }, '/x/agent', '/x'],
    ['HOLDFAST_AGENT_HOME', { ...linux, env: { HOLDFAST_AGENT_HOME: '/y', HOLDFAST_DATA: '/x' } }, '/y', '/x'],
    [
      'macOS',
      { ...linux, platform: 'darwin', homeDir: '/Users/a' },
      '/Users/a/Library/Application Support/holdfast-agent',
      '/Users/a/Library/Application Support/Holdfast',
    ],
    [
      'Windows',
      {
        ...linux,
        platform: 'win32',
        homeDir: 'C:\\Users\\a',
        env: { APPDATA: 'C:\\Users\\a\\AppData\\Roaming', LOCALAPPDATA: 'C:\\Users\\a\\AppData\\Local' },
      },
      'C:\\Users\\a\\AppData\\Roaming\\holdfast-agent',
      'C:\\Users\\a\\AppData\\Local\\Holdfast',
    ],
  ])('%s', (_name, surroundings, home, data) => {
    expect(defaultAgentHome(surroundings)).toBe(home);
    expect(defaultServerData(surroundings)).toBe(data);
  });
});

describe('the registration', () => {
  const registration: Registration = {
    url: 'https://127.0.0.1:1',
    certificateSha256: 'ab'.repeat(32),
    userName: 'anna',
    guid: '123',
    deviceName: 'laptop',
    token: 'secret',
    vault: 1,
    archive: 2,
    level: 'standard',
    keyGeneration: 1,
    vaultKey: randomBytes(32),
  };

  test('comes back as written, closed to others, and leaves no temporary file', () => {
    const home = join(folder, 'new', 'home');
    expect(readRegistration(home)).toBeNull();
    writeRegistration(home, registration);
    writeRegistration(home, { ...registration, token: 'other' });
    expect(readRegistration(home)).toEqual({ ...registration, token: 'other' });
    expect(statSync(join(home, 'registration.json')).mode & 0o777).toBe(0o600);
    expect(statSync(home).mode & 0o777).toBe(0o700);
    expect(readdirSync(home)).toEqual(['registration.json']);
  });

  test.each<[string, (document: Record<string, unknown>) => unknown]>([
    ['cut short', () => '{"url": "ht'],
    ['without a token', ({ token: _, ...rest }) => rest],
    ['with a short key', (document) => ({ ...document, vaultKey: 'AAAA' })],
    ['with a pin that is none', (document) => ({ ...document, certificateSha256: 'abc' })],
    ['of an unknown level', (document) => ({ ...document, level: 'none' })],
    ['with an archive that is no number', (document) => ({ ...document, archive: '2' })],
  ])('%s is refused by name', (_name, change) => {
    writeRegistration(folder, registration);
    const path = join(folder, 'registration.json');
    const changed = change(JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>);
    writeFileSync(path, typeof changed === 'string' ? changed : JSON.stringify(changed));
    expect(() => readRegistration(folder)).toThrow(/damaged/);
  });

  test('a write that fails leaves the old file', () => {
    writePrivateFile(join(folder, 'a'), 'old');
    expect(() => writePrivateFile(join(folder, 'missing', 'a'), 'new')).toThrow();
    expect(readFileSync(join(folder, 'a'), 'utf8')).toBe('old');
  });
});

describe('the lock', () => {
  test('one agent at a time, and the next after it', () => {
    const unlock = lockHome(folder);
    expect(() => lockHome(folder)).toThrow(AgentBusy);
    unlock();
    lockHome(folder)();
  });

  test('a killed agent leaves nothing that blocks the next', async () => {
    const script = `import { lockHome } from ${JSON.stringify(new URL('./lock.ts', import.meta.url).href)}; lockHome(${JSON.stringify(folder)}); console.log('locked'); setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    try {
      await once(child.stdout, 'data');
      expect(() => lockHome(folder)).toThrow(AgentBusy);
    } finally {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    lockHome(folder)();
  });
});

describe('the cache', () => {
  let cache: Cache;
  beforeEach(() => {
    cache = new Cache(join(folder, 'cache.db'), 'me');
  });
  afterEach(() => cache.close());

  const file = (path: string | Buffer, change: Partial<PendingFile> = {}): PendingFile => ({
    path: Buffer.from(path as string),
    deleted: false,
    kind: 'file',
    size: 5,
    mtimeMs: 1_700_000_000_123,
    mtimeNs: 1_700_000_000_123_456_789n,
    ctimeNs: 1_700_000_000_223_456_789n,
    inode: 2n ** 63n + 5n,
    trusted: true,
    attributesDigest: Buffer.alloc(32, 1),
    blocks: Buffer.alloc(64, 2),
    lists: Buffer.alloc(0),
    ...change,
  });

  function commit(files: PendingFile[], generation: number, firstSeq: number): void {
    cache.prepareCommit(randomBytes(16), Buffer.from('body'), files, generation, 1_000);
    cache.confirmCommit(firstSeq, files.length);
  }

  const gone = (root: string, generation: number, unseenToo = false): string[] =>
    [...cache.gone(Buffer.from(root), generation, unseenToo)].map((row) => row.path.toString('latin1'));

  test('gives a file back to the nanosecond, with names that are no text', () => {
    const odd = Buffer.from('/a/\xff\xfe\n', 'latin1');
    commit([file('/a/one'), file(odd)], 1, 10);
    expect(cache.lookup(odd)).toMatchObject({
      seq: 11,
      size: 5,
      mtimeNs: 1_700_000_000_123_456_789n,
      ctimeNs: 1_700_000_000_223_456_789n,
      inode: -(2n ** 63n) + 5n,
      trusted: true,
    });
    expect(cache.contentOf(cache.lookup(odd)!.id)).toEqual({ blocks: Buffer.alloc(64, 2), lists: Buffer.alloc(0) });
    expect(cache.lookup(Buffer.from('/a/two'))).toBeNull();
    expect(cache.archiveMark()).toMatchObject({ knownSeq: 11, lastCommit: { seq: 10 } });
  });

  test('what earlier generations met and this one did not is gone: below the root alone, neighbours never', () => {
    commit(
      ['/r', '/r/a', '/r/a/b', '/r/a!', '/r-x', '/r0', '/q', '/r/kept/x', '/r/kept/y', '/r/kept'].map((path) =>
        file(path),
      ),
      1,
      1,
    );
    for (const path of ['/r', '/r/a!']) cache.markSeen(cache.lookup(Buffer.from(path))!.id, 2);
    cache.keep(Buffer.from('/r/kept'), true, 2);
    expect(gone('/r', 2)).toEqual(['/r/a', '/r/a/b']);
    expect(gone('/', 2)).toEqual(['/q', '/r-x', '/r/a', '/r/a/b', '/r0']);
    expect(cache.hasFilesBelow(Buffer.from('/r'))).toBe(true);
    expect(cache.hasFilesBelow(Buffer.from('/r0'))).toBe(false);
  });

  test('thousands of gone rows come page by page while they are being deleted', () => {
    commit(
      Array.from({ length: 3_500 }, (_, i) => file(`/r/${String(i).padStart(5, '0')}`)),
      1,
      1,
    );
    let count = 0;
    for (const row of cache.gone(Buffer.from('/r'), 2, false)) {
      count++;
      if (count % 500 === 0) commit([file(row.path, { deleted: true })], 2, 5_000 + count);
    }
    expect(count).toBe(3_500);
    expect(cache.fileCount()).toBe(3_493);
  });

  test('what is known from the archive only is not gone until it is asked for', () => {
    cache.reconcileVersion(
      {
        path: Buffer.from('/r/a'),
        kind: 'file',
        size: 1,
        mtimeMs: 1,
        attributesDigest: Buffer.alloc(32),
        blocks: Buffer.alloc(32),
        lists: Buffer.alloc(0),
      },
      4,
      cache.nextMark(),
      0,
    );
    expect(gone('/r', 5)).toEqual([]);
    expect(gone('/r', 5, true)).toEqual(['/r/a']);
    cache.keep(Buffer.from('/r'), true, 5);
    expect(cache.lookup(Buffer.from('/r/a'))!.generation).toBe(0);
    expect(cache.hasFilesBelow(Buffer.from('/r'))).toBe(false);
  });

  test('reconciling keeps the knowledge of what is the same, distrusts what differs and forgets the rest', () => {
    commit([file('/same'), file('/differs'), file('/lost')], 3, 1);
    const mark = cache.nextMark();
    const version = (path: string) => ({ ...file(path), path: Buffer.from(path) });
    cache.reconcileVersion(version('/same'), 21, mark, 1);
    cache.reconcileVersion({ ...version('/differs'), blocks: Buffer.alloc(32, 9) }, 22, mark, 1);
    expect(cache.forgetUnmarked(mark)).toBe(1);
    expect(cache.lookup(Buffer.from('/same'))).toMatchObject({ seq: 21, trusted: true, generation: 3 });
    expect(cache.lookup(Buffer.from('/differs'))).toMatchObject({ seq: 22, trusted: false, generation: 3 });
    expect(cache.lookup(Buffer.from('/lost'))).toBeNull();
  });

  test('a pending commit survives the process, byte for byte, and its answer can still be applied', () => {
    const commitId = randomBytes(16);
    cache.prepareCommit(commitId, Buffer.from('the body'), [file('/a'), file('/b', { deleted: true })], 1, 1_000);
    cache.close();
    cache = new Cache(join(folder, 'cache.db'), 'me');
    expect(cache.pendingCommit()).toEqual({ commitId, body: Buffer.from('the body') });
    cache.confirmCommit(7, 2);
    expect(cache.pendingCommit()).toBeNull();
    expect(cache.lookup(Buffer.from('/a'))).toMatchObject({ seq: 7 });
    expect(cache.archiveMark()).toEqual({ knownSeq: 8, purgeEpoch: 0, lastCommit: { commitId, seq: 7 } });
  });

  test("another archive's rows are forgotten", () => {
    commit([file('/a')], 1, 1);
    cache.close();
    cache = new Cache(join(folder, 'cache.db'), 'someone else');
    expect(cache.lookup(Buffer.from('/a'))).toBeNull();
    expect(cache.archiveMark()).toEqual({ knownSeq: 0, purgeEpoch: 0, lastCommit: null });
  });

  test('can be read while an agent writes', () => {
    commit([file('/a')], 1, 1);
    cache.addSkipped({ path: Buffer.from('/s'), reason: 'unreadable', detail: 'EACCES', subtree: true }, 1); // not flushed
    const reader = new Cache(join(folder, 'cache.db'), 'me', { readOnly: true });
    expect(reader.lookup(Buffer.from('/a'))).not.toBeNull();
    expect(reader.skippedAt(Buffer.from('/s'))).toBeNull();
    reader.close();
    expect(existsSync(join(folder, 'cache.db'))).toBe(true);
    expect(cache.skippedAt(Buffer.from('/s'))).toMatchObject({ reason: 'unreadable', subtree: true });
  });

  test('remembers runs and what they left out', () => {
    const generation = cache.beginRun(['/r'], 1_000);
    cache.addSkipped({ path: Buffer.from('/r/x'), reason: 'unreadable', detail: '', subtree: false }, generation);
    cache.addSkipped({ path: Buffer.from('/r/y'), reason: 'excluded', detail: 'rule y', subtree: false }, generation);
    cache.endRun(generation, { now: 2_000, outcome: 'completed', reason: '', counts: { filesSeen: 3 } });
    expect(cache.runs(5)).toEqual([
      {
        generation,
        startedAtMs: 1_000,
        endedAtMs: 2_000,
        outcome: 'completed',
        reason: '',
        roots: ['/r'],
        counts: { filesSeen: 3 },
      },
    ]);
    expect([...cache.skipped({ excludedToo: false })].map((row) => row.path.toString())).toEqual(['/r/x']);
    expect([...cache.skipped({ excludedToo: true })].length).toBe(2);
    cache.forgetOldSkipped(Buffer.from('/r'), generation + 1);
    expect([...cache.skipped({ excludedToo: true })]).toEqual([]);
  });
});
