/** The promise of the byte budget, measured from outside: the server runs in a process of its own. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2';
import { afterEach, expect, test } from '@jest/globals';
import { h2, request, until } from './testing.ts';

const MiB = 1024 * 1024;

interface ServerState {
  mostBytes: number;
  heldBytes: number;
  windowBytes: number;
  bodies: number;
  resets: number;
  refusals: number;
  waiters: number;
}

let child: ChildProcess;
const sessions: ClientHttp2Session[] = [];
const timers: NodeJS.Timeout[] = [];

afterEach(async () => {
  for (const timer of timers.splice(0)) clearInterval(timer);
  for (const session of sessions.splice(0)) session.destroy();
  if (child.exitCode === null) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
});

async function startServer(): Promise<{ origin: string }> {
  child = fork(new URL('./memory-server.testing.ts', import.meta.url), {
    execArgv: ['--disable-warning=ExperimentalWarning'],
  });
  const [started] = (await once(child, 'message')) as [{ origin: string }];
  return started;
}

async function ask(question: 'state' | 'forget'): Promise<ServerState> {
  const answered = once(child, 'message');
  child.send(question);
  return ((await answered) as [ServerState])[0];
}

async function dial(server: { origin: string }): Promise<ClientHttp2Session> {
  const session = await h2(server);
  sessions.push(session);
  return session;
}

const uploadBytes = 16 * MiB;

function openUpload(session: ClientHttp2Session, device: number): ClientHttp2Stream {
  const stream = session.request({
    ':method': 'POST',
    ':path': '/sum',
    'content-type': 'application/octet-stream',
    'content-length': uploadBytes,
    'x-device': device,
  });
  stream.on('error', () => {});
  stream.resume();
  return stream;
}

const fastUpload = (session: ClientHttp2Session) =>
  request(
    session,
    {
      ':method': 'POST',
      ':path': '/sum',
      'content-type': 'application/octet-stream',
      'content-length': uploadBytes,
      'x-device': 201,
    },
    Buffer.alloc(uploadBytes, 7),
  );

// As much as a sender can have under way before it trickles, in frames that are large, small and in between.
test.each([
  ['that never were fast', 128, 2_000, 1_024],
  ['of tiny frames', 128, 64 * 1024, 16],
  // 160 refused at once leave their bytes to the garbage collector, which takes a second or two to notice.
  ['that began as a rush of 200 MiB', 160, MiB, 1_024],
])(
  '200 trickling uploads %s take at most %i MiB, and a fast one still ends within 2 s',
  async (_, mostMiB, firstBytes, trickleBytes) => {
    const server = await startServer();
    expect((await fastUpload(await dial(server))).status).toBe(200); // the code is compiled, the heap has its usual size
    const before = await ask('forget');

    const streams: ClientHttp2Stream[] = [];
    for (let i = 0; i < 8; i++) {
      const session = await dial(server);
      for (let j = 0; j < 25; j++) streams.push(openUpload(session, i * 25 + j));
    }
    for (const stream of streams) stream.write(Buffer.alloc(firstBytes));
    const trickle = Buffer.alloc(trickleBytes);
    timers.push(
      setInterval(() => {
        for (const stream of streams) if (!stream.closed && !stream.writableNeedDrain) stream.write(trickle);
      }, 50),
    );
    await until(async () => {
      const { bodies, resets, refusals } = await ask('state');
      return bodies + resets + refusals >= 200;
    });
    // Until the first rush is over: whoever waits for room has it, or was refused; the others trickle.
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    await until(async () => (await ask('state')).waiters === 0, 15_000);

    const session = await dial(server);
    const startedAt = performance.now();
    const fast = await fastUpload(session);
    expect(fast.status).toBe(200);
    expect(performance.now() - startedAt).toBeLessThan(2_000);
    expect(JSON.parse(fast.body.toString()).bytes).toBe(uploadBytes);

    const after = await ask('state');
    expect(after.mostBytes - before.mostBytes).toBeLessThanOrEqual(mostMiB * MiB);
    expect(after.heldBytes).toBeLessThanOrEqual(64 * MiB);
    for (const each of streams) each.close(8);
    await until(async () => (await ask('state')).bodies === 0);
    const end = await ask('state');
    expect([end.heldBytes, end.windowBytes]).toEqual([0, 0]);
    if (process.env.HOLDFAST_TEST_SHOW)
      console.log({
        grownMiB: (after.mostBytes - before.mostBytes) / MiB,
        ms: performance.now() - startedAt,
        ...after,
      });
  },
);

test('a fast upload that comes at the same moment as 200 stalled ones ends too', async () => {
  const server = await startServer();
  const before = await ask('forget');
  const streams: ClientHttp2Stream[] = [];
  for (let i = 0; i < 8; i++) {
    const session = await dial(server);
    for (let j = 0; j < 25; j++) streams.push(openUpload(session, i * 25 + j));
  }
  for (const stream of streams) stream.write(Buffer.alloc(2 * MiB));
  let attempts = 0;
  const session = await dial(server);
  for (let status = 0; status !== 200; ) {
    expect(++attempts).toBeLessThan(8);
    const answer = await fastUpload(session);
    status = answer.status;
    // As any sender does; on a machine with other things to do the stalled ones are found out later.
    if (status === 503)
      await new Promise((resolve) => setTimeout(resolve, Number(answer.headers['retry-after']) * 1_000));
  }
  const after = await ask('state');
  expect(after.mostBytes - before.mostBytes).toBeLessThanOrEqual(192 * MiB); // not warmed up, and two uploads' garbage
});
