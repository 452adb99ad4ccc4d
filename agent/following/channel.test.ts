/** The channel of commands over real HTTP/2: what it says, how it ends, and when it is tried again. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { ChannelFrame } from '../../protocol/commands.ts';
import { limits } from '../../protocol/limits.ts';
import { Problem } from '../../protocol/problems.ts';
import { encodeFrame } from '../../protocol/wire.ts';
import { type Client, connect } from '../client/client.ts';
import { ConnectionLost } from '../client/errors.ts';
import { type MemoryServer, startMemoryServer } from '../testing/memory-server.ts';
import { delayAfter, holdChannel, unknownDelayMs } from './channel.ts';

let server: MemoryServer;
let client: Client;
let stop: AbortController;
let frames: ChannelFrame[];
let ends: { message: string; delayMs: number }[];
let holding: Promise<void>;
beforeEach(async () => {
  server = await startMemoryServer();
  client = connect({ url: server.url, token: 't' });
  stop = new AbortController();
  frames = [];
  ends = [];
});
afterEach(async () => {
  stop.abort();
  await holding;
  client.destroy();
  await server.close();
});

/** Holds the channel; waits between tries are none. */
function hold(options: { lateMs?: number } = {}): void {
  holding = holdChannel({
    commands: client.commands,
    signal: stop.signal,
    onFrame: (frame) => frames.push(frame),
    onEnd: ({ message }, delayMs) => ends.push({ message, delayMs }),
    wait: () => new Promise(setImmediate),
    ...options,
  });
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
const browse = { id: 5, kind: 'browse', path: null, after: null, limit: 10 } as const;

test('gives what the server says; what an agent does not know is passed over', async () => {
  server.commands.open = [browse];
  hold();
  await until(() => frames.length === 2);
  expect(frames).toEqual([
    { type: 'hello', heartbeatSeconds: 20 },
    { type: 'command', command: browse },
  ]);
  for (const stream of server.commands.channels) {
    stream.write(encodeFrame({ type: 'sing', loudly: true }));
    stream.write(encodeFrame({ type: 'command', command: { id: 9, kind: 'dance' } }));
  }
  server.commands.tell({ type: 'cancel', id: 5 });
  await until(() => frames.length === 5);
  expect(frames.slice(2)).toEqual([{ type: 'unknown' }, { type: 'unknown' }, { type: 'cancel', id: 5 }]);
  expect(server.commands.connected).toBe(1);
});

test('passes over a command that is none, and says whose it was where that can be read', async () => {
  hold();
  await until(() => frames.length === 1);
  for (const stream of server.commands.channels) {
    stream.write(encodeFrame({ type: 'command', command: { ...browse, id: 8, after: Buffer.alloc(0) } }));
    stream.write(encodeFrame({ type: 'command', command: { id: 9, kind: 'restore', archive: -1 } }));
    stream.write(encodeFrame({ type: 'command', command: { ...browse, id: 'ten' } }));
    stream.write(encodeFrame({ type: 'command' }));
  }
  server.commands.tell({ type: 'command', command: browse });
  await until(() => frames.length === 6);
  expect(frames.slice(1)).toEqual([
    { type: 'unreadable', id: 8, kind: 'browse' },
    { type: 'unreadable', id: 9, kind: 'restore' },
    { type: 'unknown' },
    { type: 'unknown' },
    { type: 'command', command: browse },
  ]);
  expect(server.commands.connected).toBe(1);
});

test('connects again when the server ends it, when the connection breaks, and in the middle of a frame', async () => {
  hold();
  for (const [index, end] of [
    () => server.commands.endChannels(),
    () => server.dropConnections(),
    () => {
      for (const stream of server.commands.channels) stream.end(Buffer.of(0, 0, 1));
    },
  ].entries()) {
    await until(() => server.commands.connected === index + 1 && server.commands.channels.size === 1);
    await until(() => frames.length === index + 1);
    end();
  }
  await until(() => server.commands.connected === 4);
  expect(ends.every(({ delayMs }) => delayMs < 60_000)).toBe(true);
});

test('connects again when two heartbeats stay away', async () => {
  server.commands.heartbeatSeconds = 1;
  hold({ lateMs: 0 });
  await until(() => server.commands.connected === 2);
  expect(ends[0]!.message).toContain('said nothing for 2 s');
});

test('does not take a frame that is too large, nor one before the hello', async () => {
  server.commands.listen = function (stream) {
    this.connected++;
    stream.respond({ ':status': 200 });
    const size = Buffer.alloc(4);
    size.writeUInt32BE(limits.frameBytesMax + 1);
    stream.write(this.connected === 1 ? size : encodeFrame({ type: 'heartbeat' }));
  };
  hold();
  await until(() => ends.length >= 2);
  expect(ends[0]!.message).toContain('too large');
  expect(ends[1]!.message).toContain('hello');
  expect(frames).toEqual([]);
});

test('asks a server that sends no commands again after hours', async () => {
  server.faults = (request) => (request === 'GET /v1/self/commands' ? { kind: 'problem', code: 'not_found' } : null);
  hold();
  await until(() => ends.length > 0);
  expect(ends[0]!.delayMs).toBeGreaterThan(3_600_000);
});

test('ends at once with the signal, also while it waits for a connection', async () => {
  const commands = { listen: () => new Promise<never>(() => undefined) };
  holding = holdChannel({ commands, signal: stop.signal, onFrame: () => undefined });
  await new Promise(setImmediate);
  stop.abort();
  await holding;
});

describe('the next try is later each time, and never when all others try', () => {
  const lost = new ConnectionLost('gone');
  test.each([
    [lost, 1, 0, 1_000],
    [lost, 1, 0.999, 2_998],
    [lost, 4, 0, 8_000],
    [lost, 100, 0, 150_000],
    [new Problem('not_found', ''), 1, 0, unknownDelayMs / 2],
    [new Problem('unauthorized', ''), 1, 0, 150_000],
    [new Problem('overloaded', '', { retryAfterSeconds: 30 }), 1, 0, 30_000],
    [new Problem('overloaded', '', { retryAfterSeconds: 1e9 }), 1, 0, 300_000],
    [new Problem('malformed_request', '', { field: 'body' }), 1, 0, 1_000],
  ])('%s after %i failures', (error, failures, random, delayMs) =>
    expect(delayAfter(error, failures, random)).toBe(delayMs),
  );
});
