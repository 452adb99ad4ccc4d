/**
 * The S3 store against a server of this test's own that misbehaves on purpose: what a real one cannot be made to do.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { ObjectNotFound, ObjectRangeInvalid, ObjectStoreFault } from './object-store.ts';
import { RetryingStore } from './retrying-store.ts';
import { coveringRules } from './s3-bucket.ts';
import type { S3Options } from './s3-client.ts';
import { S3Store } from './s3-store.ts';
import { readAll } from './store-contract.ts';

const MiB = 1024 * 1024;

interface Seen {
  method: string;
  url: string;
  headers: IncomingMessage['headers'];
  body: Buffer;
}

let ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.reverse()) await end();
  ends = [];
});

/** A server that gives each answer in turn, the last one for ever, and a store that talks to it. */
async function serve(
  answers: ((response: ServerResponse, seen: Seen) => void)[],
  options: Partial<S3Options> = {},
): Promise<{ store: S3Store; seen: Seen[] }> {
  const seen: Seen[] = [];
  const server: Server = createServer(async (request, response) => {
    const pieces: Buffer[] = [];
    try {
      for await (const piece of request) pieces.push(piece as Buffer);
    } catch {
      return;
    }
    const { method = '', url = '', headers } = request;
    seen.push({ method, url, headers, body: Buffer.concat(pieces) });
    answers[Math.min(seen.length, answers.length) - 1]!(response, seen.at(-1)!);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const store = new S3Store({
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    bucket: 'bucket',
    forcePathStyle: true,
    credentials: { accessKeyId: 'id', secretAccessKey: 'secret' },
    ...options,
  });
  ends.push(
    () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
    () => store.close(),
  );
  return { store, seen };
}

const answer =
  (status: number, text = '', headers: Record<string, string> = {}) =>
  (response: ServerResponse) => {
    response.writeHead(status, { 'content-length': Buffer.byteLength(text), ...headers }).end(text);
  };
const refusal = (status: number, code: string, headers: Record<string, string> = {}) =>
  answer(status, `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${code}!</Message></Error>`, {
    'content-type': 'application/xml',
    ...headers,
  });
const body = (text: string) => ({ length: text.length, chunks: [Buffer.from(text)] });

test('a put tells its length and a hash of its bytes, and asks for nothing that only some stores know', async () => {
  const { store, seen } = await serve([answer(200)], { prefix: 'mine/' });
  await store.put('key', { length: 4, chunks: [Buffer.from('by'), Buffer.from('te')] });
  const { method, url, headers, body: sent } = seen[0]!;
  expect({ method, path: url.split('?')[0], sent: sent.toString() }).toEqual({
    method: 'PUT',
    path: '/bucket/mine/key',
    sent: 'byte',
  });
  expect(headers['content-length']).toBe('4');
  expect(headers['x-amz-content-sha256']).toBe(createHash('sha256').update('byte').digest('hex'));
  const unwanted = Object.keys(headers).filter((name) =>
    /^(expect|if-|transfer-encoding|x-amz-(checksum|sdk-checksum|trailer|decoded))/.test(name),
  );
  expect(unwanted).toEqual([]);
});

test.each([
  ['500', refusal(500, 'InternalError'), { retryable: true, status: 500 }],
  [
    '503 with a wait',
    refusal(503, 'SlowDown', { 'retry-after': '2' }),
    { retryable: true, status: 503, retryAfterMs: 2_000 },
  ],
  ['429', answer(429), { retryable: true, status: 429 }],
  ['400 RequestTimeout', refusal(400, 'RequestTimeout'), { retryable: true, status: 400 }],
  ['a wrong clock', refusal(403, 'RequestTimeTooSkewed'), { retryable: true, status: 403 }],
  ['403', refusal(403, 'AccessDenied'), { retryable: false, status: 403, retryAfterMs: undefined }],
  ['400', refusal(400, 'InvalidArgument'), { retryable: false, status: 400 }],
  [
    'a broken connection',
    (response: ServerResponse) => void response.destroy(),
    { retryable: true, status: undefined },
  ],
])('%s is told as it is', async (_, behave, expected) => {
  const { store } = await serve([behave]);
  for (const call of [() => store.put('key', body('x')), () => store.get('key'), () => store.list('', { limit: 1 })]) {
    const error = await call().then(
      () => undefined,
      (reason: unknown) => reason,
    );
    expect(error).toBeInstanceOf(ObjectStoreFault);
    expect(error).toMatchObject(expected);
  }
});

test('only the store saying so of the key makes it absent', async () => {
  const { store } = await serve([refusal(404, 'NoSuchKey')]);
  await expect(store.get('key')).rejects.toThrow(ObjectNotFound);
  for (const behave of [refusal(404, 'NoSuchBucket'), answer(404, '<html>not here</html>'), answer(404)]) {
    const { store } = await serve([behave]);
    await expect(store.get('key')).rejects.toMatchObject({ name: 'ObjectStoreFault', retryable: false, status: 404 });
    await expect(store.delete('key')).rejects.toMatchObject({ name: 'ObjectStoreFault' });
    await expect(store.head('key')).rejects.toMatchObject({ name: 'ObjectStoreFault' });
  }
  const present = await serve([answer(404), answer(200)]);
  expect(await present.store.head('key')).toBe(null);
  expect(present.seen.map(({ url }) => url)).toEqual(['/bucket/key', '/bucket/']);
});

test('a store that cuts a range short, or ignores it, is not believed', async () => {
  const cut = await serve([answer(206, 'abc', { 'content-range': 'bytes 2-4/5' })]);
  await expect(cut.store.get('key', { offset: 2, length: 4 })).rejects.toThrow(ObjectRangeInvalid);
  const ignored = await serve([answer(200, 'abcde')]);
  await expect(ignored.store.get('key', { offset: 2, length: 3 })).rejects.toThrow(/does not serve ranges/);
  expect((await readAll(ignored.store, 'key', { offset: 0, length: 5 })).toString()).toBe('abcde');
});

test('a read that breaks is told, and with retries goes on at the next byte', async () => {
  const half = (response: ServerResponse) => {
    response.writeHead(200, { 'content-length': 10 }).write('01234', () => response.destroy());
  };
  const rest = answer(206, '56789', { 'content-range': 'bytes 5-9/10' });
  const broken = await serve([half]);
  await expect(readAll(broken.store, 'key')).rejects.toMatchObject({ name: 'ObjectStoreFault', retryable: true });
  const { store, seen } = await serve([half, rest]);
  const retrying = new RetryingStore(store, { sleep: async () => {} });
  expect((await readAll(retrying, 'key')).toString()).toBe('0123456789');
  expect(seen.map(({ headers }) => headers.range)).toEqual([undefined, 'bytes=5-9']);
});

test('a silent server is given up, before its answer and in the middle of it', async () => {
  const silent = await serve([() => {}], { idleTimeoutMs: 200 });
  await expect(silent.store.get('key')).rejects.toMatchObject({ name: 'ObjectStoreFault', retryable: true });
  const stuck = (response: ServerResponse) => void response.writeHead(200, { 'content-length': 10 }).write('01234');
  const { store } = await serve([stuck], { idleTimeoutMs: 200 });
  await expect(readAll(store, 'key')).rejects.toMatchObject({ name: 'ObjectStoreFault', retryable: true });
});

test('a read that is not finished holds one of the connections until it is given up', async () => {
  const { store } = await serve([answer(200, 'x'.repeat(4 * MiB))], { concurrency: 1, slotWaitMsMax: 50 });
  const { stream } = await store.get('key');
  await expect(store.get('key')).rejects.toMatchObject({ retryable: true, code: 'ConnectionsBusy' });
  await stream[Symbol.asyncIterator]().return?.();
  expect((await readAll(store, 'key')).byteLength).toBe(4 * MiB);
  expect((await readAll(store, 'key')).byteLength).toBe(4 * MiB);
});

test('reads that are not finished keep neither a put nor a check nor a delete waiting, and a put no check', async () => {
  const large = answer(200, 'x'.repeat(4 * MiB));
  let finishPut = () => {};
  const { store, seen } = await serve(
    [
      large,
      (response, request) => {
        if (request.method === 'PUT' && request.url.includes('/slow')) finishPut = () => answer(200)(response);
        else answer(request.method === 'DELETE' ? 204 : 200)(response);
      },
    ],
    { concurrency: 1, slotWaitMsMax: 50 },
  );
  const { stream } = await store.get('key');
  await store.put('other', { length: 1, chunks: [Buffer.from('x')] });
  await store.delete('other');
  await store.check();
  const slow = store.put('slow', { length: 1, chunks: [Buffer.from('x')] });
  while (seen.length < 5) await new Promise((resolve) => setTimeout(resolve, 5));
  await expect(store.delete('other')).rejects.toMatchObject({ code: 'ConnectionsBusy' });
  await store.check();
  finishPut();
  await slow;
  await stream[Symbol.asyncIterator]().return?.();
});

test('a multipart upload that fails is aborted; one that the store fails to complete is not stored', async () => {
  const created = answer(200, '<InitiateMultipartUploadResult><UploadId>up</UploadId></InitiateMultipartUploadResult>');
  const part = answer(200, '', { etag: '"e"' });
  const large = { length: 11 * MiB, chunks: [Buffer.alloc(11 * MiB)] };
  const options = { multipartBytesMin: 6 * MiB, multipartPartBytes: 5 * MiB };

  const failing = await serve([created, part, refusal(500, 'InternalError'), answer(204)], options);
  await expect(failing.store.put('key', large)).rejects.toMatchObject({ retryable: true, status: 500 });
  expect(failing.seen.map(({ method }) => method)).toEqual(['POST', 'PUT', 'PUT', 'DELETE']);
  expect(failing.seen.at(-1)!.url).toContain('uploadId=up');

  // S3 may answer 200 and tell in the body that it failed.
  const incomplete = await serve([created, part, part, part, refusal(200, 'InternalError'), answer(204)], options);
  await expect(incomplete.store.put('key', large)).rejects.toThrow(/put key/);
  expect(incomplete.seen.map(({ method }) => method)).toEqual(['POST', 'PUT', 'PUT', 'PUT', 'POST', 'DELETE']);

  const done = await serve([created, part, part, part, answer(200, '<CompleteMultipartUploadResult/>')], options);
  await done.store.put('key', large);
  expect(done.seen.slice(1, 4).map(({ body }) => body.byteLength)).toEqual([5 * MiB, 5 * MiB, 1 * MiB]);
});

test('a listing walks over pages that are empty and say more', async () => {
  const page = (text: string) => answer(200, `<ListBucketResult>${text}</ListBucketResult>`);
  const { store, seen } = await serve(
    [
      page('<IsTruncated>true</IsTruncated><NextContinuationToken>on</NextContinuationToken>'),
      page('<Contents><Key>mine/a</Key><Size>3</Size><LastModified>2026-01-02T03:04:05Z</LastModified></Contents>'),
    ],
    { prefix: 'mine/' },
  );
  expect(await store.list('', { limit: 5, after: '0' })).toEqual({
    objects: [{ key: 'a', length: 3, modifiedAt: new Date('2026-01-02T03:04:05Z') }],
    more: false,
  });
  expect(seen.map(({ url }) => new URL(url, 'http://x').searchParams.get('continuation-token'))).toEqual([null, 'on']);
  expect(new URL(seen[0]!.url, 'http://x').searchParams.get('start-after')).toBe('mine/0');
});

test('inspect tells versioning, the rules that cover the store, and the clock', async () => {
  const rules =
    '<LifecycleConfiguration><Rule><ID>all</ID><Status>Enabled</Status><Filter/><Expiration><Days>9</Days></Expiration></Rule></LifecycleConfiguration>';
  const { store } = await serve([
    answer(200),
    answer(200, '<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>'),
    answer(200, rules, { date: new Date(Date.now() + 3_600_000).toUTCString() }),
  ]);
  const found = await store.inspect();
  expect(found).toMatchObject({ kind: 's3', versioning: 'enabled' });
  expect(found.lifecycleRules).toEqual([{ id: 'all', prefix: '', effect: 'expires' }]);
  expect(Math.round(found.clockAheadMs! / 60_000)).toBe(60);

  const unknown = await serve([answer(200), refusal(501, 'NotImplemented')]);
  expect(Object.keys(await unknown.store.inspect()).sort()).toEqual(['clockAheadMs', 'kind']);
  const none = await serve([
    answer(200),
    answer(200, '<VersioningConfiguration/>'),
    refusal(404, 'NoSuchLifecycleConfiguration'),
  ]);
  expect(await none.store.inspect()).toMatchObject({ versioning: 'off', lifecycleRules: [] });
});

test('lifecycle rules are told by whom they cover and what they do', () => {
  const rule = (ID: string, rest: object) => ({ ID, Status: 'Enabled' as const, ...rest });
  const found = coveringRules(
    [
      rule('below', { Filter: { Prefix: 'p/q/' }, Expiration: { Days: 1 } }),
      rule('above', { Prefix: 'p', Expiration: { Date: new Date() } }),
      rule('beside', { Filter: { Prefix: 'x/' }, Expiration: { Days: 1 } }),
      rule('tagged', { Filter: { Tag: { Key: 'k', Value: 'v' } }, Expiration: { Days: 1 } }),
      rule('glacier', {
        Filter: { And: { Prefix: 'p/' } },
        Transitions: [{ Days: 1, StorageClass: 'GLACIER' as const }],
      }),
      rule('cheaper', { Filter: {}, Transitions: [{ Days: 30, StorageClass: 'STANDARD_IA' as const }] }),
      rule('versions', { Filter: {}, NoncurrentVersionExpiration: { NoncurrentDays: 1 } }),
      rule('markers', { Filter: {}, Expiration: { ExpiredObjectDeleteMarker: true } }),
      { ID: 'off', Status: 'Disabled' as const, Filter: {}, Expiration: { Days: 1 } },
    ],
    'p/',
  );
  expect(found.map(({ id, effect }) => `${id} ${effect}`)).toEqual([
    'below expires',
    'above expires',
    'glacier archives',
    'cheaper tidies',
    'versions tidies',
    'markers tidies',
  ]);
});

test('options out of bounds are refused', () => {
  expect(() => new S3Store({ bucket: 'b', prefix: 'no-slash' })).toThrow(RangeError);
  expect(() => new S3Store({ bucket: 'b', prefix: '../' })).toThrow(RangeError);
  expect(() => new S3Store({ bucket: 'b', multipartPartBytes: MiB })).toThrow(RangeError);
});

test('with its prefix a key is still at most 1,024 bytes', async () => {
  const { store, seen } = await serve([answer(200)], { prefix: `${'p'.repeat(99)}/` });
  const longest = `${Array(7).fill('n'.repeat(119)).join('/')}/${'n'.repeat(84)}`;
  expect(longest.length).toBe(924);
  await store.put(longest, body('x'));
  await expect(store.put(`${longest}n`, body('x'))).rejects.toThrow(RangeError);
  expect(seen).toHaveLength(1);
});
