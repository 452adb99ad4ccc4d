/** What happens on the way to the server: certificates, lost answers, servers that are busy. The command is a process. */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { selfSignedCertificate, type TestCertificate } from '../../agent/testing/certificate.ts';
import { ApiWorld, type Person } from '../../tests/api/world.ts';
import { UsageError } from '../errors.ts';
import { TestAdmin } from '../testing.ts';
import { readFingerprint, readOrigin } from './pinned-agent.ts';

let world: ApiWorld;
let chief: Person;
let admin: TestAdmin;
const closing: (Server | TlsServer)[] = [];

beforeAll(async () => {
  world = await ApiWorld.open();
  chief = await world.person('Customer Cloud Admin');
}, 60_000);
afterAll(() => world?.close());
beforeEach(() => {
  admin = new TestAdmin();
});
afterEach(() => {
  admin.remove();
  for (const server of closing.splice(0)) server.close();
});

async function listening<S extends Server | TlsServer>(server: S, port = 0): Promise<number> {
  closing.push(server);
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

const sha256 = ({ der }: TestCertificate): string => createHash('sha256').update(der).digest('hex');

describe('the certificate', () => {
  /** TLS in front of the world's server. @returns what came through it */
  async function inFront(certificate: TestCertificate, port = 0): Promise<{ port: number; bytes: () => number }> {
    let bytes = 0;
    const server = createTlsServer(certificate, (socket) => {
      const inner = connect(world.server.port, '127.0.0.1');
      socket.on('data', (part) => {
        bytes += part.byteLength;
      });
      socket.pipe(inner).pipe(socket);
      for (const each of [socket, inner]) each.on('error', () => undefined);
    });
    server.on('tlsClientError', () => undefined);
    return { port: await listening(server, port), bytes: () => bytes };
  }

  test('nobody vouches for is refused before anything is sent, with its SHA-256 and how to compare it', async () => {
    const certificate = selfSignedCertificate();
    const { port, bytes } = await inFront(certificate);
    admin.environment = { HOLDFAST_ADMIN_SERVER: `https://127.0.0.1:${port}`, HOLDFAST_ADMIN_TOKEN: chief.token };
    const { code, err } = await admin.run(['users', 'list']);
    expect(code).toBe(1);
    expect(err).toContain(sha256(certificate));
    expect(err).toContain('--fingerprint');
    expect(err).toContain('first-start.json');
    expect(bytes()).toBe(0);
  });

  test('that is pinned is taken, however it is written; another is refused before anything is sent', async () => {
    const [certificate, other] = [selfSignedCertificate(), selfSignedCertificate()];
    const { port, bytes } = await inFront(certificate);
    const colons = sha256(certificate).toUpperCase().match(/../g)!.join(':');
    admin.environment = {
      HOLDFAST_ADMIN_SERVER: `https://127.0.0.1:${port}`,
      HOLDFAST_ADMIN_TOKEN: chief.token,
      HOLDFAST_ADMIN_FINGERPRINT: `SHA256:${colons}`,
    };
    expect(await admin.json('whoami')).toMatchObject({ name: chief.name });
    const before = bytes();
    admin.environment.HOLDFAST_ADMIN_FINGERPRINT = sha256(other);
    const { code, err } = await admin.run(['whoami', '--json']);
    expect([code, JSON.parse(err).code]).toEqual([1, 'certificate_refused']);
    expect(JSON.parse(err).detail).toContain(sha256(certificate));
    expect(bytes()).toBe(before);
  });

  test.each(['', 'backup.example', 'ftp://a', 'https://a/b', 'https://u:p@a', 'https://a?b', 'http://a'])(
    'no address of a server: %j',
    (text) => expect(() => readOrigin(text)).toThrow(UsageError),
  );

  test('addresses and fingerprints as people write them', () => {
    expect(readOrigin('https://Backup.example:443/')).toBe('https://backup.example');
    expect(readOrigin('http://[::1]:8080')).toBe('http://[::1]:8080');
    expect(readFingerprint(` sha256:${'AB:'.repeat(31)}AB `)).toBe('ab'.repeat(32));
    expect(() => readFingerprint('ab'.repeat(31))).toThrow(UsageError);
    expect(() => readFingerprint('ab'.repeat(33))).toThrow(UsageError);
  });
});

describe('a way that loses things', () => {
  /** In front of the world's server; `meddle` may take an answer away: true when it has. */
  async function meddling(meddle: (asked: IncomingMessage, answer: ServerResponse, attempt: number) => boolean) {
    const seen: { method: string; url: string; key: string | undefined }[] = [];
    const server = createServer((asked, answer) => {
      const [method, url] = [asked.method!, asked.url!];
      seen.push({ method, url, key: asked.headers['idempotency-key'] as string | undefined });
      const attempt = seen.filter((each) => each.method === method && each.url === url).length;
      const onwards = request(
        { port: world.server.port, host: '127.0.0.1', method, path: url, headers: asked.headers },
        (reply) => {
          if (meddle(asked, answer, attempt)) {
            reply.resume();
            return;
          }
          answer.writeHead(reply.statusCode!, reply.headers);
          reply.pipe(answer);
        },
      );
      asked.pipe(onwards);
    });
    const port = await listening(server);
    admin.environment = { HOLDFAST_ADMIN_SERVER: `http://127.0.0.1:${port}`, HOLDFAST_ADMIN_TOKEN: chief.token };
    return seen;
  }

  const create = (name: string) => ['organizations', 'create', '--name', name, '--parent', String(world.top)];
  const madeOf = async (name: string): Promise<number> => {
    const rows = await world.storage.rows('SELECT 1 FROM organizations WHERE name = $1', [name]);
    return rows.length;
  };

  test('a change whose answer was lost is sent again under its key, and made once', async () => {
    const seen = await meddling((asked, answer, attempt) => {
      if (asked.method !== 'POST' || attempt > 1) return false;
      answer.destroy();
      return true;
    });
    const { code, err } = await admin.run(create('lost and found'));
    expect([code, err]).toEqual([0, expect.stringContaining('trying again')]);
    const keys = seen.filter(({ method }) => method === 'POST').map(({ key }) => key);
    expect(keys).toHaveLength(2);
    expect(keys[0]).toMatch(/^[0-9a-f-]{36}$/);
    expect(keys[1]).toBe(keys[0]);
    expect(await madeOf('lost and found')).toBe(1);
  });

  test('a change whose answers are all lost ends with 1 and the key to go on with', async () => {
    await meddling((asked, answer) => {
      if (asked.method === 'POST') answer.destroy();
      return asked.method === 'POST';
    });
    const { code, err } = await admin.run(create('lost'));
    expect(code).toBe(1);
    expect(err).toContain('not known');
    expect(await madeOf('lost')).toBe(1);
    const key = /--idempotency-key (\S+),/.exec(err)![1]!;
    admin.environment.HOLDFAST_ADMIN_SERVER = world.server.origin;
    await admin.json(...create('lost'), '--idempotency-key', key);
    expect(await madeOf('lost')).toBe(1);
  });

  test('a sign-in is sent once: an answer that was lost may have been a refusal that counts', async () => {
    const seen = await meddling((asked, answer) => {
      if (asked.method === 'POST') answer.destroy();
      return asked.method === 'POST';
    });
    const { HOLDFAST_ADMIN_SERVER: server } = admin.environment;
    const args = ['sign-in', '--server', server!, '--user', 'nobody', '--password-file', '-'];
    expect(await admin.run(args, 'x')).toMatchObject({ code: 1, err: expect.stringContaining('broke') });
    expect(seen.filter(({ method }) => method === 'POST')).toHaveLength(1);
  });

  test('a server that is busy is asked again; one that asks for more patience than a person has is told of', async () => {
    const busy = (seconds: string) => (asked: IncomingMessage, answer: ServerResponse, attempt: number) => {
      if (!asked.url!.startsWith('/v1/roles') || attempt > 1) return false;
      answer.writeHead(503, { 'retry-after': seconds, 'content-type': 'application/problem+json' });
      answer.end(JSON.stringify({ code: 'overloaded', detail: 'much to do', status: 503 }));
      return true;
    };
    const seen = await meddling(busy('1'));
    expect(await admin.run(['roles', 'list'])).toMatchObject({ code: 0 });
    expect(seen.filter(({ url }) => url === '/v1/roles')).toHaveLength(2);
    await meddling(busy('600'));
    expect(await admin.run(['roles', 'list'])).toMatchObject({ code: 1, err: expect.stringContaining('much to do') });
  });

  test('a stream that is cut off is no success, and leaves no file', async () => {
    await meddling((asked, answer) => {
      if (!asked.url!.startsWith('/v1/audit/export')) return false;
      answer.writeHead(200, { 'content-type': 'text/csv' });
      answer.write('seq,action\n');
      setTimeout(() => answer.destroy(), 50);
      return true;
    });
    const file = `${admin.home}/acts.csv`;
    const cut = await admin.run(['audit', 'export', '--format', 'csv', '--output', file]);
    expect(cut).toMatchObject({ code: 1, out: '', err: expect.stringContaining('cut off') });
    expect(existsSync(file)).toBe(false);
  });
});
