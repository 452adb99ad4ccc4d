/**
 * The main job from outside: the real server and the real agent, as processes, on real files. What was backed up
 * comes back as it was, at both moments, on this machine and on an empty one.
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { get } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { createServer } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { generate } from 'selfsigned';
import { type AgentEvent, TestAgent } from './helpers/agent.ts';
import { addUser, type Person, type RunningServer, startServer } from './helpers/server.ts';
import { differences, makeOddities, snapshot } from './helpers/tree.ts';
import { backUpTwice, largeBytes, makeTree, restoreDifferences, type TwoMoments } from './helpers/two-moments.ts';

const MiB = 1024 * 1024;

let server: RunningServer;
let scratch: string;
const agents: TestAgent[] = [];

const newAgent = (options: { localServer?: string } = {}): TestAgent => {
  const agent = new TestAgent(options);
  agents.push(agent);
  return agent;
};

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-e2e-'));
  server = await startServer();
});

afterAll(async () => {
  for (const agent of agents) agent.remove();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

const count = (event: AgentEvent, name: string): number => event[name] as number;
const messageOf = (events: AgentEvent[]): string => String(events.findLast(({ event }) => event === 'error')?.message);

/** What an agent keeps is its user's alone: nobody else enters the folder, and token and key are closed twice. */
function expectPrivate(agent: TestAgent): void {
  const home = join(agent.home, 'agent');
  expect(statSync(home).mode & 0o777).toBe(0o700);
  expect(statSync(join(home, 'registration.json')).mode & 0o777).toBe(0o600);
}

describe('a tree of real and odd files', () => {
  let tree: string;
  let agent: TestAgent;
  let backedUp: TwoMoments;

  beforeAll(async () => {
    tree = join(scratch, 'tree');
    makeTree(tree, 1);
    agent = newAgent({ localServer: server.data });
    backedUp = await backUpTwice(agent, tree);
  }, 120_000);

  test('is backed up whole by an agent that found the server by itself', () => {
    expect(backedUp.first).toMatchObject({ event: 'end', outcome: 'completed', filesSkipped: 0, filesDeleted: 0 });
    expect(count(backedUp.first, 'filesChanged')).toBe(count(backedUp.first, 'filesSeen'));
    expect(count(backedUp.first, 'filesSeen')).toBeGreaterThan(300);
    expect(count(backedUp.first, 'bytesSent')).toBeGreaterThan(largeBytes);
    expectPrivate(agent);
  });

  test('sends, the second time, what changed and nothing else', () => {
    const { second, newBytes } = backedUp;
    expect(second).toMatchObject({ event: 'end', outcome: 'completed', filesSkipped: 0, reconciled: null });
    // A change in a large file costs the chunk it is in and at most the one after it, of 4 MiB at most. A sealed
    // block is some 80 bytes longer than its plain bytes; renamed files and changed modes send nothing at all.
    expect(count(second, 'bytesSent')).toBeLessThan(newBytes + 4 * 128 + 2 * 4 * MiB);
    expect(count(second, 'bytesSent')).toBeGreaterThan(newBytes / 2);
    expect(count(second, 'filesDeleted')).toBeGreaterThan(10);
    expect(count(second, 'filesUnchanged')).toBeGreaterThan(100);
  });

  test('a third time without a change sends nothing and makes no version', async () => {
    const third = await agent.succeed('backup', tree);
    expect(third).toMatchObject({ bytesSent: 0, blocksSent: 0, filesChanged: 0, filesDeleted: 0 });
  });

  test('comes back as it was at the first moment', async () => {
    const to = join(scratch, 'first');
    expect(await restoreDifferences(agent, tree, backedUp.moments[0]!, to)).toEqual([]);
  });

  test('comes back as it is now', async () => {
    const to = join(scratch, 'second');
    expect(await restoreDifferences(agent, tree, backedUp.moments[1]!, to)).toEqual([]);
  });

  test('is not sent again by a second device of the same user, which can also read the first one', async () => {
    const other = newAgent();
    await other.succeed(...other.signIn(server, server.firstStart), '--name', 'second');
    expect(other.registration.vault).toBe(agent.registration.vault);
    const run = await other.succeed('backup', tree);
    expect(run).toMatchObject({ outcome: 'completed', bytesSent: 0, blocksSent: 0 });
    expect(count(run, 'filesChanged')).toBe(count(run, 'filesSeen'));
    const to = join(scratch, 'from the first');
    await other.succeed('restore', join(tree, 'odd/case'), '--to', to, '--device', agent.registration.guid);
    expect(readFileSync(join(to, 'case'))).toEqual(readFileSync(join(tree, 'odd/case')));
  });

  test('is restored on an empty machine with nothing but the sign-in, and the old token ends', async () => {
    const lost = agent.registration;
    const empty = newAgent();
    // Two devices are there by now: which one is asked for.
    const ambiguous = await empty.run(...empty.signIn(server, server.firstStart), '--replace');
    expect(ambiguous.exitCode).toBe(2);
    const listed = ambiguous.events.filter(({ event }) => event === 'device').map(({ guid }) => guid);
    expect(listed).toHaveLength(2);
    expect(listed).toContain(lost.guid);

    await empty.succeed(...empty.signIn(server, server.firstStart), '--replace', lost.guid);
    expect(empty.registration).toMatchObject({ guid: lost.guid, archive: lost.archive, level: 'standard' });
    expect(empty.registration.token).not.toBe(lost.token);
    expectPrivate(empty);
    const to = join(scratch, 'on an empty machine');
    expect(await restoreDifferences(empty, tree, backedUp.moments[0]!, to)).toEqual([]);

    const refused = await agent.run('backup', tree);
    expect(refused.exitCode).toBe(1);
    expect(messageOf(refused.events)).toContain('does not accept this device');
    const self = agent.client();
    await expect(self.self()).rejects.toMatchObject({ code: 'device_deauthorized', extras: { state: 'replaced' } });
    self.destroy();

    // The new one goes on where the old one was: nothing is sent again.
    expect(await empty.succeed('backup', tree)).toMatchObject({ outcome: 'completed', bytesSent: 0, filesDeleted: 0 });
  });
});

/** A GET without a token, as a probe sends it. */
function probe(path: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    get(`${server.url}${path}`, { rejectUnauthorized: false }, (response) => {
      let text = '';
      response.on('data', (bytes) => {
        text += bytes;
      });
      response.on('end', () => resolve({ status: response.statusCode!, text }));
    }).on('error', reject);
  });
}

test('the metrics tell what came, what was known already, and how the server is', async () => {
  const { status, text } = await probe('/metrics');
  expect(status).toBe(200);
  const figureOf = (pattern: RegExp): number =>
    Number(text.match(new RegExp(`^holdfast_${pattern.source} (\\S+)$`, 'm'))?.[1]);
  for (const positive of [
    /http_request_seconds_count\{[^}]*route="\/v1\/blocks"[^}]*\}/,
    /http_received_bytes_total\{[^}]*\}/,
    /http_sent_bytes_total\{[^}]*\}/,
    /dedup_ratio/,
    /database_pool\{[^}]*\}/,
  ]) {
    expect([positive.source, figureOf(positive) > 0]).toEqual([positive.source, true]);
  }
  expect(text).toMatch(/^holdfast_queue_jobs\{/m);
});

test('readiness names the part that fails, and comes back with it', async () => {
  expect(await probe('/readyz')).toMatchObject({ status: 200 });
  renameSync(join(server.data, 'objects'), join(server.data, 'objects-away'));
  await sleep(1_500); // an answer is kept for a second
  const without = await probe('/readyz');
  renameSync(join(server.data, 'objects-away'), join(server.data, 'objects'));
  expect(without.status).toBe(503);
  expect(JSON.parse(without.text).parts).toMatchObject({
    database: { ok: true },
    objects: { ok: false },
    queue: { ok: true },
  });
  await sleep(1_500);
  expect(await probe('/readyz')).toMatchObject({ status: 200 });
});

describe('an archive with a password', () => {
  const archivePassword = 'correct horse battery staple';
  let person: Person;
  let tree: string;
  let agent: TestAgent;

  beforeAll(async () => {
    person = await addUser(server, 'anna');
    tree = join(scratch, 'secret');
    makeOddities(tree);
    agent = newAgent();
    await agent.succeed(...agent.signIn(server, person, archivePassword), '--level', 'password');
    await agent.succeed('backup', tree);
  }, 120_000);

  test('is restored on an empty machine with the sign-in and the archive password', async () => {
    const empty = newAgent();
    await empty.succeed(...empty.signIn(server, person, archivePassword), '--replace');
    expect(empty.registration.level).toBe('password');
    expect(empty.registration.vaultKey.equals(agent.registration.vaultKey)).toBe(true);
    expectPrivate(empty);
    const to = join(scratch, 'with the password');
    await empty.succeed('restore', '/', '--to', to);
    expect(differences(snapshot(tree), snapshot(join(to, tree)))).toEqual([]);
    agent = empty; // the first one's token has ended
  });

  test('does not open with a wrong password, and the agent says that this is why', async () => {
    const other = newAgent();
    const { exitCode, events } = await other.run(...other.signIn(server, person, 'wrong horse'));
    expect(exitCode).toBe(1);
    expect(messageOf(events)).toMatch(/the password is not the one/);
    expect(() => other.registration).toThrow('there is no registration');
  });

  test('is not known to the server: what it keeps does not hold the key', async () => {
    const key = agent.registration.vaultKey;
    const rows = await server.query<{ level: string; record: Buffer }>('SELECT level, record FROM vault_keys');
    expect(rows.map(({ level }) => level).sort()).toEqual(['password', 'standard']);
    for (const { record } of rows) expect(record.includes(key)).toBe(false);
  });
});

describe('the command', () => {
  let agent: TestAgent;
  let folder: string;

  beforeAll(() => {
    agent = newAgent({ localServer: server.data });
    folder = join(scratch, 'watched');
    mkdirSync(folder);
    writeFileSync(join(folder, 'first'), 'first');
  });

  test('watch backs up a change soon after it was made, also one made while it was at work, and ends when asked', async () => {
    const { child, done } = agent.start('watch', folder, '--interval', '1h');
    const ends: Record<string, unknown>[] = [];
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const event = JSON.parse(line);
      if (event.event === 'end') ends.push(event);
    });
    const passes = async (count: number): Promise<void> => {
      for (let i = 0; i < 450 && ends.length < count; i++) await sleep(100);
    };
    await passes(1);
    writeFileSync(join(folder, 'second'), 'second');
    await passes(2);
    child.kill('SIGTERM');
    expect(await done).toMatchObject({ exitCode: 130 });
    expect(ends).toMatchObject([{ outcome: 'completed' }, { outcome: 'completed', filesChanged: 1 }]);
    expect((await agent.succeed('status', join(folder, 'second'))).event).toBeTruthy();
  }, 100_000);

  test('names at the end what it left out, and why', async () => {
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    const { events, exitCode } = await agent.run('backup', folder, '--strict');
    expect(exitCode).toBe(3);
    expect(events.filter(({ event }) => event === 'skipped')).toMatchObject([
      { path: join(folder, 'pipe'), reason: 'special_file' },
    ]);
    rmSync(join(folder, 'pipe'));
  });

  test('sends no faster than it is told to', async () => {
    writeFileSync(join(folder, 'large'), randomBytes(5 * MiB));
    const begun = performance.now();
    await agent.succeed('backup', folder, '--limit-upload', '1MiB/s');
    expect(performance.now() - begun).toBeGreaterThan(3_500);
  });
});

test('a wrong sign-in password is refused in words', async () => {
  const agent = newAgent();
  const { exitCode, events } = await agent.run(
    ...agent.signIn(server, { ...server.firstStart, password: 'not the one' }),
  );
  expect(exitCode).toBe(1);
  expect(events.at(-1)).toMatchObject({ event: 'error', code: 'sign_in_failed' });
});

test('a server with another certificate than the pinned one gets not one byte of a request', async () => {
  const made = await generate([{ name: 'commonName', value: 'localhost' }], { keyType: 'ec' } as never);
  let connections = 0;
  let received = 0;
  const sockets = new Set<Socket>();
  const impostor = createServer({ key: made.private, cert: made.cert, ALPNProtocols: ['h2'] }, (socket) => {
    sockets.add(socket);
    socket.on('data', (bytes) => {
      received += bytes.byteLength;
    });
    socket.on('error', () => {});
  });
  impostor.on('connection', () => connections++); // the TCP connection, whatever becomes of it
  impostor.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => impostor.listen(0, '127.0.0.1', resolve));
  try {
    const url = `https://127.0.0.1:${(impostor.address() as AddressInfo).port}`;
    const agent = newAgent();
    const { certificateSha256 } = server;
    const { exitCode, events } = await agent.run(...agent.signIn({ url, certificateSha256 }, server.firstStart));
    expect(exitCode).toBe(1);
    expect(events.at(-1)).toMatchObject({ event: 'error', code: 'certificate_refused' });
    expect(messageOf(events)).toContain(certificateSha256);
    expect({ connected: connections > 0, received }).toEqual({ connected: true, received: 0 });
    expect(() => agent.registration).toThrow('there is no registration');
  } finally {
    for (const socket of sockets) socket.destroy();
    impostor.close();
  }
});
