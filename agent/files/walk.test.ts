import { execFileSync, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  linkSync,
  mkdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { createServer } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { decodeAttributes } from '../../protocol/attributes.ts';

import { createExcludes } from './excludes.ts';
import { underHandle } from './reach.ts';
import { openFile } from './read.ts';
import { bytesPath, heldOpenBelow, scratchFolder } from './test-tree.ts';
import type { FileState, LocalPath, WalkEvent, WalkOptions } from './types.ts';
import { walk } from './walk.ts';

const posix = process.platform === 'win32' ? test.skip : test;
const linux = process.platform === 'linux' ? test : test.skip;

let scratch: ReturnType<typeof scratchFolder>;
let root: string;
beforeEach(() => {
  scratch = scratchFolder();
  root = `${scratch.path}/root`;
  mkdirSync(root);
});
afterEach(() => {
  expect(heldOpenBelow(scratch.path)).toEqual([]);
  scratch.remove();
});

const everything = createExcludes({ platform: 'linux', home: null, patterns: [], defaults: false });

async function walkAll(roots: LocalPath[], options: Partial<WalkOptions> = {}): Promise<WalkEvent[]> {
  const events: WalkEvent[] = [];
  for await (const event of walk(roots, { excludes: everything, oneFileSystem: true, ...options })) events.push(event);
  return events;
}

/** What was found below the root, by name relative to it. */
function found(events: WalkEvent[]): Map<string, FileState> {
  const below = new Map<string, FileState>();
  for (const event of events) {
    if (event.type !== 'file') continue;
    const path = event.file.path.toString('latin1');
    if (path.startsWith(`${root}/`)) below.set(path.slice(root.length + 1), event.file);
  }
  return below;
}

function skips(events: WalkEvent[]): Record<string, string> {
  const reasons: Record<string, string> = {};
  for (const event of events) {
    if (event.type === 'skipped')
      reasons[event.path.toString('latin1').slice(root.length + 1)] =
        `${event.reason}${event.subtree ? ' with all below' : ''}`;
  }
  return reasons;
}

describe('walking a tree', () => {
  posix('gives files, folders and symlinks, folders before what lies in them', async () => {
    mkdirSync(`${root}/a/b`, { recursive: true });
    mkdirSync(`${root}/empty`);
    writeFileSync(`${root}/a/b/file`, 'hello');
    writeFileSync(`${root}/a/nothing`, '');
    symlinkSync('../nowhere', `${root}/a/link`);
    symlinkSync('.', `${root}/a/loop`);
    chmodSync(`${root}/a/nothing`, 0o751);
    utimesSync(`${root}/a/b/file`, 1_700_000_000.25, 1_700_000_000.25);
    const events = await walkAll([root]);
    const files = found(events);
    expect([...files.keys()].sort()).toEqual(['a', 'a/b', 'a/b/file', 'a/link', 'a/loop', 'a/nothing', 'empty']);
    const order = [...files.keys()];
    for (const path of order)
      if (path.includes('/'))
        expect(order.indexOf(path)).toBeGreaterThan(order.indexOf(path.slice(0, path.lastIndexOf('/'))));
    expect(files.get('a/b/file')).toMatchObject({ kind: 'file', size: 5, mtimeMs: 1_700_000_000_250, links: 1 });
    expect(decodeAttributes(files.get('a/nothing')!.attributes)).toMatchObject({ mode: 0o751, uid: process.getuid!() });
    expect(decodeAttributes(files.get('a/link')!.attributes).target).toEqual(Buffer.from('../nowhere'));
    expect(files.get('a/loop')!.kind).toBe('symlink');
    expect(skips(events)).toEqual({});
  });

  posix("a root's ancestors come first, once, as folders", async () => {
    mkdirSync(`${root}/x`);
    mkdirSync(`${root}/y`);
    const events = await walkAll([`${root}/y`, `${root}/x`]);
    const paths = events.filter((event) => event.type === 'file').map((event) => event.file.path.toString());
    const above = root
      .split('/')
      .slice(1)
      .map((_, index, names) => `/${names.slice(0, index + 1).join('/')}`);
    expect(paths).toEqual([...above, `${root}/x`, `${root}/y`]);
    expect(events.filter((event) => event.type === 'root')).toMatchObject([
      { kind: 'directory', empty: true },
      { empty: true },
    ]);
  });

  posix('a root inside another root, or given twice, is walked once', async () => {
    mkdirSync(`${root}/a/b`, { recursive: true });
    writeFileSync(`${root}/a/b/c`, 'x');
    const events = await walkAll([root, `${root}/a/b`, `${root}/a/../a/b`, root]);
    const paths = events.filter((event) => event.type === 'file').map((event) => event.file.path.toString());
    expect(new Set(paths).size).toBe(paths.length);
    expect(paths).toContain(`${root}/a/b/c`);
    expect(events.filter((event) => event.type === 'root')).toHaveLength(2);
  });

  posix('a single file can be a root', async () => {
    writeFileSync(`${root}/f`, 'x');
    const events = await walkAll([`${root}/f`]);
    expect(events.at(-2)).toMatchObject({ type: 'root', kind: 'file', empty: false });
    expect(events.at(-1)).toMatchObject({ type: 'file', file: { size: 1 } });
  });

  posix('names of any bytes, and as long as names get, are kept and can be read', async () => {
    const names = [
      Buffer.from([0xff, 0xfe]),
      Buffer.from('new\nline'),
      Buffer.from('n'.repeat(255)),
      Buffer.from(' '),
      Buffer.from('a\\b'),
      Buffer.from('\x01'),
    ];
    if (process.platform === 'darwin') names.shift();
    for (const name of names) writeFileSync(bytesPath(root, name), name);
    const files = found(await walkAll([root]));
    expect([...files.keys()].sort()).toEqual(names.map((name) => name.toString('latin1')).sort());
    for (const file of files.values()) {
      const opened = await openFile(file);
      for await (const chunk of opened.chunks())
        expect(chunk.toString('latin1')).toBe(file.path.toString('latin1').slice(root.length + 1));
      await opened.close();
    }
  });

  posix('pipes, sockets and unreadable things are named, and the rest goes on', async () => {
    execFileSync('mkfifo', [`${root}/pipe`]);
    const server = createServer().listen(`${root}/socket`);
    await once(server, 'listening');
    writeFileSync(`${root}/file`, 'x');
    const events = await walkAll([root]);
    server.close();
    expect(skips(events)).toEqual({ pipe: 'special_file', socket: 'special_file' });
    expect([...found(events).keys()]).toEqual(['file']);
  });

  posix('a file with several names says so, and one with holes', async () => {
    writeFileSync(`${root}/one`, 'x');
    linkSync(`${root}/one`, `${root}/two`);
    writeFileSync(`${root}/holes`, '');
    truncateSync(`${root}/holes`, 10_000_000);
    const files = found(await walkAll([root]));
    const [one, two] = ['one', 'two'].map((name) => decodeAttributes(files.get(name)!.attributes));
    expect(one!.inode).toEqual(two!.inode);
    expect(one!.links).toBe(2);
    expect(one!.sparse).toBeUndefined();
    expect(decodeAttributes(files.get('holes')!.attributes)).toMatchObject({ sparse: true });
    expect(decodeAttributes(files.get('holes')!.attributes).inode).toBeUndefined();
  });

  posix('what a rule leaves out is named with the rule, and not entered', async () => {
    mkdirSync(`${root}/skip/in`, { recursive: true });
    writeFileSync(`${root}/a.iso`, 'x');
    writeFileSync(`${root}/b`, 'x');
    const excludes = createExcludes({ platform: 'linux', home: null, patterns: ['skip/', '*.iso'], defaults: true });
    const events = await walkAll([root], { excludes });
    expect(skips(events)).toEqual({ skip: 'excluded with all below', 'a.iso': 'excluded' });
    expect([...found(events).keys()]).toEqual(['b']);
  });

  posix('a folder with a cache tag is left out when asked', async () => {
    for (const name of ['tagged', 'false']) mkdirSync(`${root}/${name}`);
    writeFileSync(`${root}/tagged/CACHEDIR.TAG`, 'Signature: 8a477f597d28d172789f06886806bc55\n# made by a test');
    writeFileSync(`${root}/false/CACHEDIR.TAG`, 'nothing of the kind');
    const excludes = { ...everything, cacheTags: true };
    expect(skips(await walkAll([root], { excludes }))).toEqual({ tagged: 'excluded with all below' });
    expect(skips(await walkAll([root]))).toEqual({});
  });

  linux('folders deeper than a path can be are walked and read, to the depth the archive holds', async () => {
    let at = await open(root, 'r');
    for (let depth = 0; depth < 60; depth++) {
      const name = Buffer.from(`${depth}-${'d'.repeat(97)}`);
      await mkdir(underHandle(at, name));
      const next = await open(underHandle(at, name), 'r');
      await at.close();
      at = next;
    }
    writeFileSync(underHandle(at, Buffer.from('bottom')), 'deep down');
    await at.close();
    const files = found(await walkAll([root]));
    const bottom = [...files.values()].find((file) => file.kind === 'file')!;
    expect(bottom.path.byteLength).toBeGreaterThan(4_096);
    const opened = await openFile(bottom);
    for await (const chunk of opened.chunks()) expect(chunk.toString()).toBe('deep down');
    expect(await opened.changed()).toBe(false);
    await opened.close();
  });

  linux('a path with more names than the archive holds is named, once', async () => {
    execFileSync('sh', [
      '-c',
      'cd "$1"; i=0; while [ $i -lt 520 ]; do mkdir d && cd d || exit 1; i=$((i+1)); done',
      'sh',
      root,
    ]);
    const events = await walkAll([root]);
    expect(Object.values(skips(events))).toEqual(['name_not_storable with all below']);
    execFileSync('rm', ['-rf', `${root}/d`]);
  });

  posix('a large folder is walked without holding its names', async () => {
    for (let i = 0; i < 3_000; i++) writeFileSync(`${root}/${i}`, '');
    expect(found(await walkAll([root])).size).toBe(3_000);
  });

  posix('entries that vanish while being walked are named', async () => {
    mkdirSync(`${root}/a`);
    mkdirSync(`${root}/b`);
    const seen: WalkEvent[] = [];
    for await (const event of walk([root], { excludes: everything, oneFileSystem: true })) {
      seen.push(event);
      // Both were looked at together; the second is gone by the time it would be opened.
      if (event.type === 'file' && event.file.path.toString() === `${root}/a`) rmSync(`${root}/b`, { recursive: true });
      if (event.type === 'file' && event.file.path.toString() === `${root}/b`)
        rmSync(`${root}/a`, { recursive: true, force: true });
    }
    expect(Object.values(skips(seen))).toEqual(['vanished with all below']);
  });

  linux('a folder exchanged for a symlink is not followed', async () => {
    mkdirSync(`${root}/inside`);
    mkdirSync(`${scratch.path}/outside`);
    writeFileSync(`${scratch.path}/outside/secret`, 'x');
    const seen: WalkEvent[] = [];
    for await (const event of walk([root], { excludes: everything, oneFileSystem: true })) {
      seen.push(event);
      if (event.type !== 'file' || event.file.path.toString() !== `${root}/inside`) continue;
      rmSync(`${root}/inside`, { recursive: true });
      symlinkSync(`${scratch.path}/outside`, `${root}/inside`);
    }
    expect([...found(seen).keys()]).toEqual(['inside']);
    expect(Object.keys(skips(seen))).toEqual(['inside']);
  });

  linux('another file system is reported as a folder and not entered', async () => {
    const events = await walkAll(['/'], {
      excludes: {
        ...everything,
        match: (path) => (['/dev', '/proc'].includes(path.toString()) ? null : 'not in this test'),
      },
    });
    const other = events.filter((event) => event.type === 'skipped' && event.reason === 'other_file_system');
    expect(other.map((event) => event.type === 'skipped' && event.path.toString()).sort()).toEqual(['/dev', '/proc']);
    expect(
      events
        .filter((event) => event.type === 'file')
        .map((event) => event.file.path.toString())
        .sort(),
    ).toEqual(['/dev', '/proc']);
  });

  posix('an aborted walk ends with the reason', async () => {
    for (let i = 0; i < 300; i++) writeFileSync(`${root}/${i}`, '');
    const abort = new AbortController();
    const walking = walk([root], { excludes: everything, oneFileSystem: true, signal: abort.signal });
    await walking.next();
    abort.abort(new Error('enough'));
    await expect(async () => {
      for await (const _ of walking);
    }).rejects.toThrow('enough');
  });
});

describe('roots that cannot be trusted', () => {
  posix('are named with the reason, and the others are walked', async () => {
    symlinkSync(root, `${scratch.path}/link`);
    execFileSync('mkfifo', [`${scratch.path}/pipe`]);
    writeFileSync(`${root}/file`, 'x');
    const events = await walkAll([`${scratch.path}/missing/x`, `${scratch.path}/link`, `${scratch.path}/pipe`, root]);
    const failed = events.filter((event) => event.type === 'root-failed');
    expect(failed.map((event) => [event.path.toString().slice(scratch.path.length + 1), event.reason])).toEqual([
      ['missing/x', 'missing'],
      ['link', 'symbolic_link'],
      ['pipe', 'not_a_folder_or_file'],
    ]);
    expect(failed[1]!.detail).toContain(root);
    expect([...found(events).keys()]).toEqual(['file']);
  });

  posix('folders on the way to a root may be symlinks: the archive has the real path', async () => {
    mkdirSync(`${root}/real`);
    symlinkSync(root, `${scratch.path}/link`);
    const events = await walkAll([`${scratch.path}/link/real`]);
    expect(events.find((event) => event.type === 'root')!.path.toString()).toBe(`${root}/real`);
  });

  posix('unreadable folders and roots are named for a user without the right, with all below', () => {
    mkdirSync(`${root}/closed/in`, { recursive: true });
    mkdirSync(`${root}/no-entry`);
    writeFileSync(`${root}/no-entry/file`, 'x');
    writeFileSync(`${root}/open`, 'x');
    chmodSync(scratch.path, 0o755);
    const script = `
      import { walk } from ${JSON.stringify(new URL('./walk.ts', import.meta.url).href)};
      import { createExcludes } from ${JSON.stringify(new URL('./excludes.ts', import.meta.url).href)};
      if (process.getuid() === 0) { process.setgroups([]); process.setgid(65534); process.setuid(65534); }
      const excludes = createExcludes({ platform: 'linux', home: null, patterns: [], defaults: false });
      for (const root of process.argv.slice(1)) {
        for await (const event of walk([root], { excludes, oneFileSystem: true })) {
          if (event.type === 'skipped') console.log(event.path.toString().slice(${root.length}), event.reason, event.subtree);
          if (event.type === 'root-failed') console.log('root', event.reason);
        }
      }`;
    chmodSync(`${root}/closed`, 0o000);
    chmodSync(`${root}/no-entry`, 0o744);
    const owned = process.getuid!() === 0;
    if (!owned) chmodSync(`${root}/no-entry`, 0o400);
    const run = spawnSync(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script, root, `${root}/closed`],
      { encoding: 'utf8' },
    );
    for (const name of ['closed', 'no-entry']) chmodSync(`${root}/${name}`, 0o755);
    expect(run.stderr).toBe('');
    expect(run.stdout.trim().split('\n').sort()).toEqual([
      '/closed unreadable true',
      '/no-entry/file unreadable true',
      'root unreadable',
    ]);
  });
});

test('a renamed folder is walked where it was opened or named, never lost in silence', async () => {
  mkdirSync(`${root}/a/b`, { recursive: true });
  writeFileSync(`${root}/a/b/c`, 'x');
  const seen: WalkEvent[] = [];
  for await (const event of walk([root], { excludes: everything, oneFileSystem: true })) {
    seen.push(event);
    if (event.type === 'file' && event.file.path.toString() === `${root}/a`) renameSync(`${root}/a`, `${root}/z`);
  }
  expect(Object.values(skips(seen))).toEqual(['vanished with all below']);
});
