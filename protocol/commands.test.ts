/** What devices are told, as bytes: a newer server may say more, and nothing else than what is agreed on is taken. */
import { describe, expect, test } from '@jest/globals';
import {
  ChannelFrame,
  CommandAnswerRequest,
  CommandEndRequest,
  CommandProgressRequest,
  type RestoreCommand,
} from './commands.ts';
import { limits } from './limits.ts';
import { decodeFrames, decodeMessage, encodeFrame, encodeMessage } from './wire.ts';

const restore: RestoreCommand = {
  id: 7,
  kind: 'restore',
  archive: 3,
  sourceGuid: '1000001',
  sourcePlatform: 'linux',
  paths: [Buffer.from('/a')],
  seq: 9,
  deleted: false,
  target: { folder: Buffer.from([0x2f, 0xff]) },
  existing: 'rename',
  permissions: 'original',
  files: 1,
  bytes: 2,
};
const heard = (frame: object): unknown => decodeMessage(ChannelFrame, encodeMessage(frame));
const refused = (act: () => unknown): string => {
  try {
    act();
    return 'taken';
  } catch (error) {
    return (error as { code: string }).code;
  }
};

describe('a frame of the channel', () => {
  test.each([
    [{ type: 'hello', heartbeatSeconds: 20 }],
    [{ type: 'heartbeat' }],
    [{ type: 'cancel', id: 7 }],
    [{ type: 'command', command: restore }],
    [{ type: 'command', command: { ...restore, restore: 12 } }],
    [{ type: 'command', command: { ...restore, target: { original: true } } }],
    [{ type: 'command', command: { id: 8, kind: 'browse', path: null, after: null, limit: 1_000 } }],
  ])('%# is heard as it was said', (frame) => {
    expect(heard(frame)).toEqual(frame);
  });

  test.each([[{ type: 'later', more: 1 }], [{ type: 'command', command: { id: 8, kind: 'later' } }]])(
    '%# of a newer server is passed over',
    (frame) => {
      expect(heard(frame)).toEqual({ type: 'unknown' });
    },
  );

  test('that says more than is known, is heard as far as it is', () => {
    expect(heard({ type: 'command', command: { ...restore, later: 1 }, later: 2 })).toEqual({
      type: 'command',
      command: restore,
    });
  });

  test.each([
    [{ type: 'hello' }],
    [{ type: 'hello', heartbeatSeconds: 0 }],
    [{ type: 'cancel', id: 0 }],
    [{ command: restore }],
  ])('%# is none', (frame) => {
    expect(refused(() => heard(frame))).not.toBe('taken');
  });

  test.each([
    [{ paths: [] }],
    [{ paths: [Buffer.from('/../etc')] }],
    [{ target: { folder: Buffer.from('relative') } }],
    [{ existing: 'keep' }],
  ])('a command with %j is none, and is known by its number', (wrong) => {
    const heardOf = heard({ type: 'command', command: { ...restore, ...wrong } });
    expect(heardOf).toEqual({ type: 'unreadable', id: restore.id, kind: 'restore' });
  });

  test('holds as many paths as a restore may have, at their longest together', async () => {
    const names = Array.from({ length: 500 }, () => 'n'.repeat(20)).join('/');
    const count = Math.floor(limits.commandPathBytesMax / (names.length + 1));
    const paths = Array.from({ length: count }, () => Buffer.from(`/${names}`));
    const frame = encodeFrame({ type: 'command', command: { ...restore, paths } });
    expect(frame.byteLength).toBeLessThan(limits.frameBytesMax);
    const source = (async function* () {
      yield frame;
    })();
    const [told] = await Array.fromAsync(decodeFrames(ChannelFrame, source));
    const command = told?.type === 'command' && told.command.kind === 'restore' ? told.command : null;
    expect(command!.paths).toHaveLength(count);
    expect(Buffer.concat(command!.paths).equals(Buffer.concat(paths))).toBe(true);
    const more = Array.from({ length: limits.commandPathsMax + 1 }, () => Buffer.from('/'));
    expect(heard({ type: 'command', command: { ...restore, paths: more } })).toMatchObject({ type: 'unreadable' });
  });
});

describe('what a device says', () => {
  const attempt = Buffer.alloc(16, 1);
  const counts = { filesSeen: 0, filesDone: 0, bytesSeen: 0, bytesDone: 0, bytesFetched: 0 };

  test('of its progress: an attempt of 16 bytes, and counts', () => {
    const told = (more: object): string =>
      refused(() => decodeMessage(CommandProgressRequest, encodeMessage({ attempt, ...counts, ...more })));
    expect(told({})).toBe('taken');
    expect(told({ attempt: Buffer.alloc(15) })).toBe('out_of_bounds');
    expect(told({ attempt: Buffer.alloc(17) })).toBe('out_of_bounds');
    expect(told({ filesDone: -1 })).toBe('out_of_bounds');
    expect(told({ later: 1 })).toBe('malformed_request');
  });

  test('of its end: as many problems as are named, within the bytes that are taken', () => {
    const problem = {
      path: Buffer.alloc(limits.pathBytesMax, 'a'),
      reason: 'r'.repeat(64),
      detail: 'd'.repeat(limits.textMax),
    };
    const ends = {
      filesRestored: 0,
      filesIdentical: 0,
      folders: 0,
      symlinks: 0,
      bytesRestored: 0,
      bytesResumed: 0,
      bytesFetched: 0,
      problems: 100,
      notices: 0,
    };
    const message = (problems: number): Buffer =>
      encodeMessage({
        attempt,
        outcome: 'incomplete',
        counts: ends,
        problems: Array.from({ length: problems }, () => problem),
        why: 'w'.repeat(limits.textMax),
      });
    expect(message(limits.commandProblemsMax).byteLength).toBeLessThan(limits.commandEndBytesMax);
    expect(decodeMessage(CommandEndRequest, message(limits.commandProblemsMax)).problems).toHaveLength(
      limits.commandProblemsMax,
    );
    expect(refused(() => decodeMessage(CommandEndRequest, message(limits.commandProblemsMax + 1)))).toBe(
      'out_of_bounds',
    );
  });

  test('of a folder: a page of names, or why not', () => {
    const entry = { name: Buffer.alloc(limits.nameBytesMax, 'n'), kind: 'other', size: 0, mtime: -1 };
    const page = (entries: number): Buffer =>
      encodeMessage({
        path: Buffer.from('/'),
        entries: Array.from({ length: entries }, () => entry),
        next: entry.name,
      });
    expect(page(limits.pageEntriesMax).byteLength).toBeLessThan(limits.browseAnswerBytesMax);
    expect(refused(() => decodeMessage(CommandAnswerRequest, page(limits.pageEntriesMax)))).toBe('taken');
    expect(refused(() => decodeMessage(CommandAnswerRequest, page(limits.pageEntriesMax + 1)))).not.toBe('taken');
    const fault = (code: string): string =>
      refused(() => decodeMessage(CommandAnswerRequest, encodeMessage({ fault: { code, detail: 'no' } })));
    expect([fault('refused'), fault('else')]).toEqual(['taken', 'malformed_request']);
  });
});
