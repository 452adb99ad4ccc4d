/**
 * The S3 store against a real server, the one that HOLDFAST_TEST_S3_* name (see tests/services/run.sh).
 */
import { randomUUID } from 'node:crypto';
import { afterAll, describe, expect, test } from '@jest/globals';
import { checkObjects } from './check-objects.ts';
import { ObjectNotFound, ObjectStoreFault } from './object-store.ts';
import { openObjectStore } from './open-store.ts';
import type { S3Options } from './s3-client.ts';
import { S3Store } from './s3-store.ts';
import { testBucket } from './s3-test-settings.ts';
import { clearPrefix, readAll, storeContract } from './store-contract.ts';

const MiB = 1024 * 1024;
const found = testBucket();
if (!found) throw new Error('HOLDFAST_TEST_S3_ENDPOINT, _ACCESS_KEY, _SECRET_KEY and _BUCKET name no bucket');
const bucket: S3Options = { ...found, concurrency: 16 };
const stores: S3Store[] = [];

function open(options: Partial<S3Options> = {}): S3Store {
  const store = new S3Store({ ...bucket, ...options });
  stores.push(store);
  return store;
}

const scratch = () => `tests/${randomUUID()}/`;
const body = (text: string) => ({ length: text.length, chunks: [Buffer.from(text)] });

afterAll(async () => {
  await clearPrefix(open(), 'tests/');
  for (const store of stores) await store.close();
}, 120_000);

// Swift takes a minute for the check with a thousand objects, which knows nothing of bodies: it runs here once, and once
// more in check-objects.
const bodiesOnly = storeContract.filter(({ name }) => !name.includes('thousand objects'));
const ways = [
  { way: 'in one piece', options: { prefix: 'shared/bucket/' }, checks: storeContract },
  {
    way: 'in parts, with signed bodies',
    options: { multipartBytesMin: 6 * MiB, multipartPartBytes: 5 * MiB, signPayload: true },
    checks: bodiesOnly,
  },
  { way: 'with unsigned bodies', options: { signPayload: false }, checks: bodiesOnly },
];

describe.each(ways)('the S3 store keeps the contract, $way:', ({ options, checks }) => {
  for (const check of checks) {
    test(check.name, () => check.run({ store: open(options), prefix: scratch(), abandonedReads: 24 }), 120_000);
  }
});

test('keys of a store with a prefix are in the bucket under that prefix', async () => {
  const prefix = scratch();
  await open({ prefix }).put('key', body('kept'));
  expect((await readAll(open(), `${prefix}key`)).toString()).toBe('kept');
});

test('a missing bucket, a wrong secret and a closed port are not a missing object', async () => {
  const wrong = {
    bucket: open({ bucket: `no-such-bucket-${randomUUID()}` }),
    secret: open({ credentials: { accessKeyId: bucket.credentials!.accessKeyId, secretAccessKey: 'wrong' } }),
    port: open({ endpoint: 'http://127.0.0.1:9' }),
  };
  for (const [what, store] of Object.entries(wrong)) {
    const calls: (() => Promise<unknown>)[] = [
      () => store.get('absent'),
      () => store.head('absent'),
      () => store.put('absent', body('x')),
      () => store.list('', { limit: 1 }),
      () => store.check(),
    ];
    for (const call of calls) {
      const error = await call().then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(ObjectStoreFault);
      expect({ what, retryable: (error as ObjectStoreFault).retryable }).toEqual({ what, retryable: what === 'port' });
    }
  }
  await expect(open().get('absent')).rejects.toThrow(ObjectNotFound);
});

test('the bucket may be named in the host name', async () => {
  const domain = process.env.HOLDFAST_TEST_S3_DOMAIN;
  expect(domain).toBeTruthy();
  const asked: string[] = [];
  const { port } = new URL(bucket.endpoint!);
  const store = open({
    endpoint: `http://${domain}:${port}`,
    forcePathStyle: false,
    lookup: (host, options, done) => {
      asked.push(host);
      if (options.all) done(null, [{ address: '127.0.0.1', family: 4 }]);
      else done(null, '127.0.0.1', 4);
    },
  });
  const key = `${scratch()}key`;
  await store.put(key, body('kept'));
  expect((await readAll(store, key)).toString()).toBe('kept');
  expect((await open().head(key))?.length).toBe(4);
  expect(new Set(asked)).toEqual(new Set([`${bucket.bucket}.${domain}`]));
});

test('check-objects finds the server fit, cleans up, and tells what it could see', async () => {
  const store = await openObjectStore({
    kind: 's3',
    ...bucket,
    multipartBytesMin: 6 * MiB,
    multipartPartBytes: 5 * MiB,
  });
  const lines: string[] = [];
  const prefix = scratch();
  const result = await checkObjects(store, (line) => lines.push(line), { prefix, concurrency: 16 });
  if (process.env.HOLDFAST_TEST_VERBOSE) console.log(lines.join('\n'));
  expect(result.steps.filter(({ ok }) => !ok)).toEqual([]);
  expect(result.ok).toBe(true);
  expect(result.inspection?.kind).toBe('s3');
  // One machine, one clock; `Date` is cut to the second.
  expect(Math.abs(result.inspection!.clockAheadMs!)).toBeLessThan(5_000);
  expect(result.latency?.putMedianMs).toBeGreaterThan(0);
  expect((await store.list(prefix, { limit: 1 })).objects).toEqual([]);
  await store.close();
}, 300_000);
