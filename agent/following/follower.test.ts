/** Commands carried out: a real restore from an archive in memory, told of and answered over real HTTP/2. */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { RestoreCommand } from '../../protocol/commands.ts';
import { hashAt, hashKey } from '../../protocol/hashes.ts';
import { Problem } from '../../protocol/problems.ts';
import { encodeFrame } from '../../protocol/wire.ts';
import { type Client, connect } from '../client/client.ts';
import { ConnectionLost } from '../client/errors.ts';
import { heldOpenBelow, scratchFolder, seededBytes } from '../files/test-tree.ts';
import { archive as archiveId, TestArchive, vault } from '../restore/test-archive.ts';
import type { RestoreSource } from '../restore/types.ts';
import type { Registration } from '../state/registration.ts';
import { type MemoryServer, startMemoryServer } from '../testing/memory-server.ts';
import { holdChannel } from './channel.ts';
import { Follower, type FollowerEvent, type FollowerOptions } from './follower.ts';
import { stagingElsewhereOf } from './run-restore.ts';

let scratch: ReturnType<typeof scratchFolder>;
let home: string;
let to: string;
let server: MemoryServer;
let client: Client;
let archive: TestArchive;
let source: RestoreSource;
let events: FollowerEvent[];
let following: { stop: AbortController; done: Promise<unknown>; follower: Follower } | null;

beforeEach(async () => {
  scratch = scratchFolder();
  home = join(scratch.path, 'agent');
  to = join(scratch.path, 'to');
  for (const folder of [home, to]) mkdirSync(folder);
  server = await startMemoryServer();
  client = connect({ url: server.url, token: 't' });
  archive = new TestArchive();
  source = archive;
  events = [];
  following = null;
  tidying = undefined;
});
afterEach(async () => {
  await unfollow();
  client.destroy();
  await server.close();
  expect(heldOpenBelow(scratch.path)).toEqual([]);
  scratch.remove();
});

const registration: Registration = {
  url: 'https://here',
  certificateSha256: null,
  userName: 'me',
  guid: '5',
  deviceName: 'laptop',
  token: 't',
  vault,
  archive: archiveId,
  level: 'standard',
  keyGeneration: 1,
  vaultKey: Buffer.alloc(32, 'vault key'),
};

let tidying: FollowerOptions['tidying'];
/** Follows commands, as `watch` does. */
function follow(refusal: string | null = null): void {
  const stop = new AbortController();
  const follower = new Follower({
    commands: client.commands,
    openSource: () => ({ source, close: () => undefined }),
    registration: () => registration,
    home,
    here: { systemPlatform: process.platform, platform: 'linux', homes: [] },
    refusal,
    signal: stop.signal,
    onEvent: (event) => events.push(event),
    progressEveryMs: 10,
    ...(tidying && { tidying }),
  });
  const channel = holdChannel({
    commands: client.commands,
    signal: stop.signal,
    onFrame: (frame) => follower.onFrame(frame),
    wait: () => new Promise((resolve) => setTimeout(resolve, 10)),
  });
  following = { stop, done: Promise.all([channel, follower.run()]), follower };
}

/** As the end of `watch` does. */
async function unfollow(): Promise<void> {
  following?.stop.abort(new Error('interrupted'));
  await following?.done;
  following = null;
}

function command(more: Partial<RestoreCommand> = {}): RestoreCommand {
  return {
    id: 7,
    kind: 'restore',
    archive: archiveId,
    sourceGuid: '5',
    sourcePlatform: 'linux',
    paths: [Buffer.from('/')],
    seq: 99,
    deleted: false,
    target: { folder: Buffer.from(to) },
    existing: 'rename',
    permissions: 'original',
    files: 1,
    bytes: 1,
    ...more,
  };
}

const tell = (more: Partial<RestoreCommand> = {}): void =>
  server.commands.tell({ type: 'command', command: command(more) });

async function until(condition: () => unknown): Promise<void> {
  const end = performance.now() + 30_000;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`it does not come to be: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The end of a command, as the server hears it. */
async function endOf(id = 7) {
  await until(() => server.commands.ends.some((end) => end.id === id));
  return server.commands.ends.find((end) => end.id === id)!.request;
}

const ofType = (type: FollowerEvent['type']) => events.filter((event) => event.type === type);
const read = (name: string): string => readFileSync(join(to, name), 'utf8');

/** An archive whose blocks come one by one; `onBlock` sees each. */
async function slow(bytes = 12_000_000): Promise<void> {
  await archive.commit({ path: '/large', content: seededBytes(1, bytes) });
  archive.fetchBlocks = async function* (hashes, signal) {
    for (let index = 0; index < hashes.byteLength / 32; index++) {
      await new Promise((resolve) => setTimeout(resolve, 25));
      signal?.throwIfAborted();
      await archive.onBlock(++archive.asked);
      yield { index, bytes: archive.blocks.get(hashKey(hashAt(hashes, index)))! };
    }
  };
}

/** Resolves when some of the large file has been written. */
const underWay = (): Promise<void> =>
  until(() => server.commands.progress.some(({ request }) => request.bytesDone > 1_000_000));

test('what was told before and what is told later is restored, one after the other, and its end is told', async () => {
  for (const [path, content] of [
    ['/a/b/1', 'one'],
    ['/a/c', 'two'],
    ['/d', 'three'],
  ] as const)
    await archive.commit({ path, content: Buffer.from(content) });
  server.commands.open = [command({ paths: [Buffer.from('/a/b'), Buffer.from('/a/c')] })];
  follow();
  const end = await endOf();
  expect(end).toMatchObject({
    outcome: 'completed',
    why: '',
    problems: [],
    counts: { filesRestored: 2, bytesRestored: 6 },
  });
  expect([read('b/1'), read('c'), existsSync(join(to, 'd'))]).toEqual(['one', 'two', false]);
  tell({ id: 8, paths: [Buffer.from('/d')] });
  expect(await endOf(8)).toMatchObject({ outcome: 'completed' });
  expect(read('d')).toBe('three');
  await until(() => following!.follower.idle);
  expect(ofType('begun')).toHaveLength(2);
  expect(readdirSync(to).sort()).toEqual(['b', 'c', 'd']);
  expect(server.commands.progress[0]).toMatchObject({ id: 7, request: { attempt: end.attempt } });
});

test('a file in the way is renamed aside, or replaced', async () => {
  await archive.commit({ path: '/f', content: Buffer.from('new') });
  writeFileSync(join(to, 'f'), 'old');
  follow();
  tell();
  expect(await endOf()).toMatchObject({ outcome: 'completed', counts: { notices: 1 } });
  expect([read('f'), read('f (before restore)')]).toEqual(['new', 'old']);
  writeFileSync(join(to, 'f'), 'old again');
  tell({ id: 8, existing: 'overwrite' });
  await endOf(8);
  expect(read('f')).toBe('new');
  expect(readdirSync(to).sort()).toEqual(['f', 'f (before restore)']);
});

test.each([
  ['original', 0o711],
  ['current', 0o644],
] as const)('permissions %s', async (permissions, mode) => {
  await archive.commit({ path: '/f', content: Buffer.from('x'), attributes: { mode: 0o711 } });
  const umask = process.umask(0o022);
  follow();
  tell({ permissions });
  await endOf();
  process.umask(umask);
  expect(statSync(join(to, 'f')).mode & 0o777).toBe(mode);
});

describe('original places', () => {
  /** Paths of the archive that are on this machine below the scratch folder. */
  const at = (name: string): string => join(to, name);
  const original = (...paths: string[]): Partial<RestoreCommand> => ({
    target: { original: true },
    paths: paths.map((path) => Buffer.from(path)),
  });

  test('of folders that are there, that are not, and of files', async () => {
    for (const name of ['there', 'gone/deep']) await archive.commit({ path: at(name), attributes: { mode: 0o751 } });
    for (const name of ['there/f', 'gone/deep/g', 'file', 'not asked for'])
      await archive.commit({ path: at(name), content: Buffer.from(name) });
    mkdirSync(at('there'));
    writeFileSync(at('there/other'), 'mine');
    follow();
    tell(original(at('gone/deep'), at('file'), at('there')));
    expect(await endOf()).toMatchObject({ outcome: 'completed', counts: { filesRestored: 3, folders: 2 } });
    expect([read('there/f'), read('gone/deep/g'), read('file')]).toEqual(['there/f', 'gone/deep/g', 'file']);
    expect(readdirSync(to).sort()).toEqual(['file', 'gone', 'there']);
    expect(readdirSync(at('there')).sort()).toEqual(['f', 'other']);
    expect([at('there'), at('gone/deep')].map((path) => statSync(path).mode & 0o777)).toEqual([0o751, 0o751]);
  });

  test('where something else stands there now, that makes way', async () => {
    await archive.commit({ path: at('folder') });
    await archive.commit({ path: at('folder/f'), content: Buffer.from('x') });
    await archive.commit({ path: at('file'), content: Buffer.from('y') });
    writeFileSync(at('folder'), 'now a file');
    mkdirSync(at('file'));
    follow();
    tell(original(at('folder'), at('file')));
    expect(await endOf()).toMatchObject({ outcome: 'completed', counts: { notices: 2 } });
    expect([read('folder/f'), read('file'), read('folder (before restore)')]).toEqual(['x', 'y', 'now a file']);
  });

  test('are not reached through a link that somebody else laid', async () => {
    if (process.geteuid!() !== 0) return;
    mkdirSync(join(scratch.path, 'outside'));
    symlinkSync(join(scratch.path, 'outside'), at('docs'));
    await archive.commit({ path: at('docs/f'), content: Buffer.from('x') });
    await archive.commit({ path: at('g'), content: Buffer.from('y') });
    const { lchownSync } = await import('node:fs');
    lchownSync(at('docs'), 4_242, 4_242);
    follow();
    tell(original(at('docs/f'), at('g')));
    const end = await endOf();
    expect(end).toMatchObject({ outcome: 'incomplete', counts: { filesRestored: 1, problems: 1 } });
    expect(end.problems).toMatchObject([
      { reason: 'target_refused', detail: expect.stringContaining('symbolic link') },
    ]);
    tell({ ...original(at('docs/f')), id: 8 });
    expect(await endOf(8)).toMatchObject({ outcome: 'failed', why: expect.stringContaining('symbolic link') });
    expect(readdirSync(join(scratch.path, 'outside'))).toEqual([]);
  });

  test('of another system are refused, and say why', async () => {
    follow();
    tell({ ...original('/C:/Users'), sourcePlatform: 'win32' });
    expect(await endOf()).toMatchObject({ outcome: 'failed', why: expect.stringContaining('Windows') });
  });
});

test.each([
  ['cancelled', 'cancelled'],
  ['cancelled by the answer to progress', 'cancelled'],
  ['gone', null],
])('one that is %s stops, and leaves nothing behind', async (how, outcome) => {
  await slow();
  follow();
  tell();
  await underWay();
  const asked = archive.asked;
  if (how === 'cancelled') server.commands.tell({ type: 'cancel', id: 7 });
  else server.commands.go = () => (how === 'gone' ? 'gone' : 'cancelled');
  if (outcome) expect(await endOf()).toMatchObject({ outcome, counts: { filesRestored: 0 } });
  server.commands.open = [];
  await until(() => following!.follower.idle);
  expect(server.commands.ends).toHaveLength(outcome ? 1 : 0);
  expect(archive.asked - asked).toBeLessThan(8);
  expect(readdirSync(to)).toEqual([]);
  expect(JSON.parse(readFileSync(join(home, 'commands.json'), 'utf8'))).toMatchObject({ begun: [], ends: [] });
});

test('one that is cancelled while another is restored is never begun', async () => {
  await slow();
  follow();
  tell();
  tell({ id: 8, target: { folder: Buffer.from(join(to, 'second')) } });
  await underWay();
  server.commands.tell({ type: 'cancel', id: 8 });
  server.commands.tell({ type: 'cancel', id: 9 }); // of which the agent never heard
  for (const id of [8, 9])
    expect(await endOf(id)).toMatchObject({ outcome: 'cancelled', counts: { filesRestored: 0 } });
  expect(await endOf()).toMatchObject({ outcome: 'completed' });
  await until(() => following!.follower.idle);
  expect(ofType('begun')).toHaveLength(1);
  expect(server.commands.ends).toHaveLength(3);
  expect(readdirSync(to)).toEqual(['large']);
});

test('interrupted by the end of the agent it goes on where it was when it is told again', async () => {
  await slow();
  follow();
  tell();
  await underWay();
  await unfollow();
  expect(server.commands.ends).toEqual([]);
  expect(readdirSync(to)).toEqual(['.holdfast-restore']);
  const first = server.commands.progress[0]!.request.attempt;
  follow();
  const end = await endOf();
  expect(end).toMatchObject({ outcome: 'completed', counts: { filesRestored: 1 } });
  expect(end.counts.bytesResumed).toBeGreaterThan(0);
  expect(end.attempt).not.toEqual(first);
  expect(readFileSync(join(to, 'large')).equals(seededBytes(1, 12_000_000))).toBe(true);
  expect(readdirSync(to)).toEqual(['large']);
});

test('what was interrupted, and is open no more when the agent is back, is tidied up', async () => {
  await slow();
  follow();
  tell();
  await underWay();
  await unfollow();
  mkdirSync(stagingElsewhereOf(home, 7), { recursive: true });
  server.commands.open = [];
  follow();
  await until(() => server.commands.channels.size === 1);
  server.commands.tell({ type: 'heartbeat' });
  await until(() => readdirSync(to).length === 0);
  await until(() => following!.follower.idle);
  expect(existsSync(stagingElsewhereOf(home, 7))).toBe(false);
  expect(server.commands.ends).toEqual([]);
});

test('a network that is away is waited for; what was fetched is not fetched again', async () => {
  await slow();
  archive.onBlock = () => {
    if (archive.asked === 7) throw new ConnectionLost('gone');
  };
  follow();
  tell();
  await until(() => ofType('delayed').length === 1);
  server.commands.endChannels(); // the server is back: it is tried again at once
  const end = await endOf();
  expect(end).toMatchObject({ outcome: 'completed' });
  expect(end.counts.bytesResumed).toBeGreaterThan(0);
  expect(server.commands.ends).toHaveLength(1);
});

test('told again while it waits or is under way it is done once', async () => {
  await slow(3_000_000);
  follow();
  tell();
  await until(() => ofType('begun').length === 1);
  server.commands.endChannels();
  tell(); // and once more on the new channel
  await endOf();
  server.commands.open = [];
  await until(() => following!.follower.idle);
  expect(ofType('begun')).toHaveLength(1);
  expect(server.commands.ends).toHaveLength(1);
});

test('an end that the server did not hear is told after a restart, and the command is not done again', async () => {
  await archive.commit({ path: '/f', content: Buffer.from('x') });
  server.faults = (request) => (request.endsWith('/end') ? { kind: 'problem', code: 'unavailable' } : null);
  follow();
  tell();
  const told = (): number => server.requests.filter((request) => request.endsWith('/end')).length;
  await until(() => told() > 0);
  server.commands.endChannels(); // on the next one it is told again
  await until(() => told() > 1);
  await unfollow();
  expect(server.commands.ends).toEqual([]);
  rmSync(join(to, 'f'));
  server.faults = () => null;
  follow(); // the command is still open, and told again
  expect(await endOf()).toMatchObject({ outcome: 'completed', counts: { filesRestored: 1 } });
  await until(() => following!.follower.idle);
  expect(existsSync(join(to, 'f'))).toBe(false);
});

test('an end that the server refuses is told once', async () => {
  server.faults = (request) => (request.endsWith('/end') ? { kind: 'problem', code: 'not_found' } : null);
  await archive.commit({ path: '/f', content: Buffer.from('x') });
  follow();
  tell();
  await until(() => ofType('ended').length === 1);
  server.commands.open = [];
  await until(() => following!.follower.idle);
  expect(server.requests.filter((request) => request.endsWith('/end'))).toHaveLength(1);
});

test.each([
  ['its files by name', 1, { problems: 1, filesRestored: 1 }],
  ['its numbers', 2, { problems: 0, filesRestored: 0 }],
])(
  'an end that the server takes for none, for %s, is told without them, and is not lost',
  async (_, refusals, counts) => {
    await archive.commit({ path: '/f', content: Buffer.from('x') });
    await archive.commit({ path: '/g', content: Buffer.from('y') });
    archive.blocks.delete(archive.blocks.keys().next().value!);
    let told = 0;
    server.faults = (request) =>
      request.endsWith('/end') && told++ < refusals ? { kind: 'problem', code: 'malformed_request' } : null;
    follow();
    tell();
    const end = await endOf();
    expect(end).toMatchObject({ outcome: 'failed', problems: [], counts });
    expect(end.why).toContain('refuses what the device says of its end (incomplete; 1 files restored');
    expect(ofType('end_refused')).toHaveLength(1);
    await until(() => following!.follower.idle);
  },
);

test('an end that the server takes in no words at all is told to people, and no more to it', async () => {
  server.faults = (request) => (request.endsWith('/end') ? { kind: 'problem', code: 'malformed_request' } : null);
  await archive.commit({ path: '/f', content: Buffer.from('x') });
  follow();
  tell();
  await until(() => ofType('end_refused').length > 0);
  server.commands.open = [];
  await until(() => following!.follower.idle);
  expect(server.requests.filter((request) => request.endsWith('/end'))).toHaveLength(2);
  expect(ofType('end_refused')).toHaveLength(1);
  expect(JSON.parse(readFileSync(join(home, 'commands.json'), 'utf8'))).toMatchObject({ begun: [], ends: [] });
});

test('on a disk that is full it fails, and takes away what filled it; what a killed one left there as well', async () => {
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'none', to]).status === 0;
  if (!mounted) return; // needs root
  try {
    await slow();
    follow();
    tell();
    expect(await endOf()).toMatchObject({ outcome: 'failed', why: expect.stringContaining('ENOSPC') });
    expect(readdirSync(to)).toEqual([]);
    await unfollow();
    await until(() => server.commands.channels.size === 0);
    // A killed one: its unfinished file has all there is.
    mkdirSync(join(to, '.holdfast-restore'), { mode: 0o700 });
    const fill = openSync(join(to, '.holdfast-restore', 'x.part'), 'w');
    expect(() => {
      for (;;) writeSync(fill, Buffer.alloc(65_536));
    }).toThrow('ENOSPC');
    closeSync(fill);
    const begun = [{ id: 9, folders: [Buffer.from(to).toString('base64')] }];
    writeFileSync(join(home, 'commands.json'), JSON.stringify({ of: 'https://here 5 7', begun, ends: [] }));
    follow();
    await until(() => server.commands.channels.size === 1);
    server.commands.tell({ type: 'heartbeat' });
    await until(() => readdirSync(to).length === 0 || ofType('left').length > 0);
    expect([readdirSync(to), ofType('left')]).toEqual([[], []]);
  } finally {
    await unfollow();
    spawnSync('umount', [to]);
  }
});

test('what the machine refuses ends it with the reason', async () => {
  await archive.commit({ path: '/f', content: Buffer.from('x') });
  writeFileSync(join(to, 'file'), '');
  follow();
  tell({ target: { folder: Buffer.from(join(to, 'file/below')) } });
  expect(await endOf()).toMatchObject({ outcome: 'failed', why: expect.stringContaining('is not a folder') });
});

test('what cannot be restored is counted and named, a hundred of it', async () => {
  for (let i = 0; i < 120; i++) await archive.commit({ path: `/f${i}`, content: Buffer.from(`content ${i}`) });
  archive.blocks.clear();
  follow();
  tell();
  const end = await endOf();
  expect(end).toMatchObject({ outcome: 'incomplete', counts: { problems: 120, filesRestored: 0 } });
  expect(end.problems).toHaveLength(100);
  expect(end.problems[0]).toMatchObject({ reason: 'block_missing' });
});

test('an agent that takes no commands says so', async () => {
  follow('this device takes no commands');
  tell();
  server.commands.tell({ type: 'command', command: { id: 8, kind: 'browse', path: null, after: null, limit: 5 } });
  expect(await endOf()).toMatchObject({ outcome: 'failed', why: 'this device takes no commands' });
  await until(() => server.commands.answers.length === 1);
  expect(server.commands.answers[0]!.request).toEqual({
    fault: { code: 'refused', detail: 'this device takes no commands' },
  });
  expect(readdirSync(to)).toEqual([]);
});

test('folders are looked into while a restore is under way', async () => {
  await slow();
  follow();
  tell();
  await underWay();
  const path = Buffer.from(scratch.path);
  server.commands.tell({ type: 'command', command: { id: 8, kind: 'browse', path, after: null, limit: 5 } });
  await until(() => server.commands.answers.length === 1);
  expect(server.commands.ends).toEqual([]);
  expect(server.commands.answers[0]!.request).toMatchObject({
    entries: [{ kind: 'directory' }, { kind: 'directory' }],
  });
  await endOf();
});

test('a command that is not understood is ended with the reason, and the others are done', async () => {
  await archive.commit({ path: '/f', content: Buffer.from('x') });
  follow();
  await until(() => server.commands.channels.size === 1);
  for (const stream of server.commands.channels) {
    stream.write(encodeFrame({ type: 'command', command: { id: 8, kind: 'restore', paths: [] } }));
    stream.write(encodeFrame({ type: 'command', command: { id: 9, kind: 'browse', path: 'text' } }));
  }
  tell();
  expect(await endOf()).toMatchObject({ outcome: 'completed' });
  expect(await endOf(8)).toMatchObject({ outcome: 'failed', why: expect.stringContaining('does not understand') });
  await until(() => server.commands.answers.length === 1);
  expect(server.commands.answers[0]).toMatchObject({ id: 9, request: { fault: { code: 'failed' } } });
  expect(server.commands.connected).toBe(1);
});

describe('what cannot be tidied up after', () => {
  /** Nothing below it can be removed: it leads to itself. */
  const restoring = (): string => join(home, 'restoring');
  const jam = (): void => symlinkSync('restoring', restoring());

  test('is told, does not end the agent, and is tried again on the next connection', async () => {
    await slow();
    follow();
    tell();
    await underWay();
    await unfollow();
    rmSync(restoring(), { recursive: true });
    jam();
    server.commands.open = [];
    follow();
    await until(() => server.commands.channels.size === 1);
    for (let i = 0; i < 3; i++) server.commands.tell({ type: 'heartbeat' });
    await until(() => ofType('left').length > 0);
    // One more for good measure: a heartbeat alone does not try again.
    server.commands.tell({ type: 'heartbeat' });
    server.commands.tell({ type: 'command', command: { id: 8, kind: 'browse', path: null, after: null, limit: 5 } });
    await until(() => server.commands.answers.length === 1);
    expect(ofType('left')).toHaveLength(1);
    expect(JSON.parse(readFileSync(join(home, 'commands.json'), 'utf8')).begun).toHaveLength(1);
    rmSync(restoring());
    server.commands.open = [];
    server.commands.endChannels();
    await until(() => server.commands.connected === 3 && server.commands.channels.size === 1);
    server.commands.tell({ type: 'heartbeat' });
    await until(() => JSON.parse(readFileSync(join(home, 'commands.json'), 'utf8')).begun.length === 0);
    expect(readdirSync(to)).toEqual([]);
  });

  test('because its disk does not answer is told, and keeps nothing else from being done', async () => {
    const folders = [Buffer.from('/dead').toString('base64')];
    writeFileSync(
      join(home, 'commands.json'),
      JSON.stringify({ of: 'https://here 5 7', begun: [{ id: 9, folders }], ends: [] }),
    );
    tidying = { timeMs: 20, clear: () => new Promise(() => undefined) };
    follow();
    await until(() => server.commands.channels.size === 1);
    server.commands.tell({ type: 'heartbeat' });
    await until(() => ofType('left').length === 1);
    await until(() => following!.follower.idle);
    expect(begun()).toEqual([{ id: 9, folders }]);
  });

  const begun = () => JSON.parse(readFileSync(join(home, 'commands.json'), 'utf8')).begun;

  /** On the next connection, with nothing in the way any more. */
  async function isTidiedUpLater(): Promise<void> {
    expect(begun()).toMatchObject([{ id: 7 }]);
    rmSync(restoring());
    server.commands.open = [];
    server.commands.endChannels();
    await until(() => server.commands.connected === 2 && server.commands.channels.size === 1);
    server.commands.tell({ type: 'heartbeat' });
    await until(() => begun().length === 0);
    expect(readdirSync(to)).toEqual([]);
    expect(server.commands.ends).toHaveLength(1);
  }

  test('of one that is cancelled before it is begun is said with its end, and kept until it is gone', async () => {
    jam();
    follow();
    await until(() => server.commands.channels.size === 1);
    server.commands.tell({ type: 'cancel', id: 7 });
    expect(await endOf()).toMatchObject({
      outcome: 'cancelled',
      why: expect.stringContaining('could not be taken away'),
    });
    expect(ofType('left')).toHaveLength(1);
    await isTidiedUpLater();
  });

  test.each(['cancelled', 'failed', 'completed'])('of one that is %s after its begin too', async (outcome) => {
    await slow();
    let isBroken = false;
    archive.onBlock = () => {
      if (isBroken) throw new Error('broken');
    };
    follow();
    tell();
    await underWay();
    rmSync(restoring(), { recursive: true });
    jam();
    isBroken = outcome === 'failed';
    if (outcome === 'cancelled') server.commands.tell({ type: 'cancel', id: 7 });
    expect(await endOf()).toMatchObject({ outcome, why: expect.stringContaining('could not be taken away') });
    if (outcome === 'completed') rmSync(join(to, 'large'));
    await isTidiedUpLater();
  });
});

describe('an archive that the server shows this device no more', () => {
  const gone = (field?: string) => new Problem('not_found', 'there is no such archive', field ? { field } : {});

  test.each([[['/']], [['/f', '/g']]])('ends a restore of %j as failed, and says so', async (paths) => {
    for (const path of ['/f', '/g']) await archive.commit({ path, content: Buffer.from(path) });
    archive.versions = async () => {
      throw gone();
    };
    follow();
    tell({ paths: paths.map((path) => Buffer.from(path)) });
    expect(await endOf()).toMatchObject({ outcome: 'failed', why: 'there is no such archive' });
    expect(readdirSync(to)).toEqual([]);
  });

  test('half-way too; a path that it does not hold is left out, and the others are restored', async () => {
    for (const path of ['/f', '/g']) await archive.commit({ path, content: Buffer.from(path) });
    const versions = archive.versions.bind(archive);
    let thrown = gone('path');
    archive.versions = async (...asked) => {
      if (asked[1].path?.toString() === '/g') throw thrown;
      return versions(...asked);
    };
    const paths = [Buffer.from('/f'), Buffer.from('/g')];
    follow();
    tell({ paths });
    const end = await endOf();
    expect(end).toMatchObject({ outcome: 'incomplete', counts: { filesRestored: 1, problems: 1 } });
    thrown = gone();
    tell({ id: 8, paths, target: { folder: Buffer.from(join(to, 'second')) } });
    expect(await endOf(8)).toMatchObject({ outcome: 'failed', why: 'there is no such archive' });
    tell({ id: 9, paths: [Buffer.from('/g')], target: { original: true } });
    expect(await endOf(9)).toMatchObject({ outcome: 'failed', why: 'there is no such archive' });
  });
});

test('kept commands that are damaged, or of another registration, are none', async () => {
  for (const text of [
    '{',
    '{"of":"x","begun":[],"ends":[]}',
    '{"of":"https://here 5 7","begun":[{"id":1}],"ends":[]}',
  ]) {
    writeFileSync(join(home, 'commands.json'), text);
    follow();
    await until(() => server.commands.channels.size === 1);
    expect(following!.follower.idle).toBe(true);
    await unfollow();
    await until(() => server.commands.channels.size === 0);
  }
});
