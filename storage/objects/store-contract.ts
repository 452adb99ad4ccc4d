/**
 * The promises of `ObjectStore` as checks that run against any store: our own in the tests, an operator's in
 * `check-objects`. Every check keeps to keys below the prefix it is given, and leaves nothing there when it passed.
 */
import assert from 'node:assert/strict';
import { ObjectLengthMismatch, ObjectNotFound, ObjectRangeInvalid, type ObjectStore } from './object-store.ts';

export interface ContractPlace {
  store: ObjectStore;
  /** Ends in '/'. Nothing else is below it. */
  prefix: string;
  /** Reads abandoned in a row; more than the store has connections. */
  abandonedReads: number;
}

export interface ContractCheck {
  /** A sentence about the store. */
  name: string;
  /** Throws an AssertionError that says what the store did instead. */
  run(place: ContractPlace): Promise<void>;
}

const MiB = 1024 * 1024;
/** Requests that the checks have under way at once. */
const parallel = 16;

export const storeContract: readonly ContractCheck[] = [
  {
    name: 'an object can be read, looked up and listed as soon as it is put',
    async run({ store, prefix }) {
      const key = `${prefix}fresh`;
      const bytes = pattern(70_000, 1);
      await store.put(key, { length: bytes.byteLength, chunks: [bytes.subarray(0, 10), bytes.subarray(10)] });
      await expectBytes(store, key, bytes);
      const info = await store.head(key);
      assert.equal(info?.length, bytes.byteLength, 'head tells the length');
      assert.ok(info.modifiedAt.getTime() > 0, 'head tells a time');
      const { objects, more } = await store.list(prefix, { limit: 10 });
      assert.deepEqual(
        objects.map(({ key, length }) => ({ key, length })),
        [{ key, length: bytes.byteLength }],
      );
      assert.equal(more, false);
      await store.delete(key);
    },
  },
  {
    name: 'a range gives exactly its bytes, and one that does not lie within the object is refused',
    async run({ store, prefix }) {
      const key = `${prefix}ranges`;
      const bytes = pattern(100_001, 2);
      const end = bytes.byteLength;
      await putBytes(store, key, bytes);
      for (const [offset, length] of [
        [0, 1],
        [end - 1, 1],
        [0, end],
        [1, end - 1],
        [65_535, 2],
        [4_096, 60_000],
      ] as const) {
        const got = await readAll(store, key, { offset, length });
        assert.ok(got.equals(bytes.subarray(offset, offset + length)), `${length} bytes at ${offset}`);
      }
      for (const [offset, length] of [
        [0, end + 1],
        [end - 1, 2],
        [end, 1],
        [end + 10, 1],
        [0, 0],
        [-1, 2],
      ] as const) {
        await assert.rejects(store.get(key, { offset, length }), ObjectRangeInvalid, `${length} bytes at ${offset}`);
      }
      await store.delete(key);
    },
  },
  {
    name: 'what is not there is told apart from what cannot be reached',
    async run({ store, prefix }) {
      const key = `${prefix}absent`;
      await assert.rejects(store.get(key), ObjectNotFound);
      await assert.rejects(store.get(key, { offset: 0, length: 1 }), ObjectNotFound);
      assert.equal(await store.head(key), null);
      assert.deepEqual(await store.list(prefix, { limit: 10 }), { objects: [], more: false });
    },
  },
  {
    name: 'putting the same bytes again changes nothing',
    async run({ store, prefix }) {
      const key = `${prefix}again`;
      const bytes = pattern(5_000, 3);
      for (let i = 0; i < 3; i++) await putBytes(store, key, bytes);
      await expectBytes(store, key, bytes);
      assert.equal((await store.list(prefix, { limit: 10 })).objects.length, 1);
      await store.delete(key);
    },
  },
  {
    name: 'a deleted object is gone, and deleting it again is no error',
    async run({ store, prefix }) {
      const key = `${prefix}deleted`;
      await putBytes(store, key, pattern(100, 4));
      for (let i = 0; i < 2; i++) {
        await store.delete(key);
        await assert.rejects(store.get(key), ObjectNotFound);
        assert.equal(await store.head(key), null);
        assert.deepEqual((await store.list(prefix, { limit: 10 })).objects, []);
      }
    },
  },
  {
    name: 'an object may be empty',
    async run({ store, prefix }) {
      for (const [name, chunks] of [
        ['none', []],
        ['hollow', [new Uint8Array()]],
      ] as const) {
        const key = `${prefix}empty-${name}`;
        await store.put(key, { length: 0, chunks });
        assert.equal((await store.head(key))?.length, 0);
        assert.equal((await readAll(store, key)).byteLength, 0);
        await assert.rejects(store.get(key, { offset: 0, length: 1 }), ObjectRangeInvalid);
        await store.delete(key);
      }
    },
  },
  {
    name: 'an object of 33 MiB comes back whole, from chunks and from a stream',
    async run({ store, prefix }) {
      const bytes = pattern(33 * MiB + 7, 5);
      const chunks = slices(bytes, 3 * MiB + 1);
      const bodies = {
        chunks: { length: bytes.byteLength, chunks },
        stream: { length: bytes.byteLength, stream: () => streamOf(chunks) },
      };
      for (const [name, body] of Object.entries(bodies)) {
        const key = `${prefix}large-${name}`;
        await store.put(key, body);
        await expectBytes(store, key, bytes);
        const middle = { offset: 16 * MiB - 3, length: 2 * MiB };
        assert.ok(
          (await readAll(store, key, middle)).equals(bytes.subarray(middle.offset, middle.offset + middle.length)),
        );
        await store.delete(key);
      }
    },
  },
  {
    name: 'a body in thousands of small chunks comes back whole',
    async run({ store, prefix }) {
      const key = `${prefix}small-chunks`;
      const bytes = pattern(8 * MiB, 6);
      await store.put(key, { length: bytes.byteLength, chunks: slices(bytes, 1_021) });
      await expectBytes(store, key, bytes);
      await store.delete(key);
    },
  },
  {
    name: 'a body of another length than promised is refused, and leaves nothing',
    async run({ store, prefix }) {
      const key = `${prefix}wrong-length`;
      const bytes = pattern(300_000, 7);
      const chunks = slices(bytes, 100_000);
      for (const length of [bytes.byteLength - 1, bytes.byteLength + 1, 0, 200_000]) {
        await assert.rejects(store.put(key, { length, chunks }), ObjectLengthMismatch, `${length}, in chunks`);
        await assert.rejects(
          store.put(key, { length, stream: () => streamOf(chunks) }),
          ObjectLengthMismatch,
          `${length}, streamed`,
        );
        assert.equal(await store.head(key), null);
      }
      assert.deepEqual((await store.list(prefix, { limit: 10 })).objects, []);
    },
  },
  {
    name: 'a body that fails, or a put that is aborted on its way, leaves nothing',
    async run({ store, prefix }) {
      const key = `${prefix}aborted`;
      const chunks = slices(pattern(2 * MiB, 8), 256 * 1024);
      const broken = new Error('the body broke');
      const failing = {
        length: 2 * MiB,
        stream: () => streamOf(chunks, { after: 4, fail: () => Promise.reject(broken) }),
      };
      await assert.rejects(store.put(key, failing), same(broken));

      const stop = new AbortController();
      const reason = new Error('nobody wants it any more');
      const stuck = () => {
        stop.abort(reason);
        return new Promise<never>(() => {});
      };
      const stalling = { length: 2 * MiB, stream: () => streamOf(chunks, { after: 4, fail: stuck }) };
      await assert.rejects(store.put(key, stalling, { signal: stop.signal }), same(reason));
      await assert.rejects(store.put(key, { length: 2 * MiB, chunks }, { signal: stop.signal }), same(reason));
      await assert.rejects(store.get(key, undefined, { signal: stop.signal }), same(reason));

      assert.equal(await store.head(key), null);
      assert.deepEqual((await store.list(prefix, { limit: 10 })).objects, []);
    },
  },
  {
    name: 'puts at the same time, to the same key and to others, all take effect',
    async run({ store, prefix }) {
      const same = pattern(50_000, 9);
      const keys = Array.from({ length: 40 }, (_, i) => `${prefix}at-once/${i % 2 ? 'a' : 'b'}/${i}`);
      await forEach([...keys, ...keys.map(() => `${prefix}at-once/same`)], (key) =>
        putBytes(store, key, key.endsWith('same') ? same : pattern(1_000, key.length)),
      );
      await expectBytes(store, `${prefix}at-once/same`, same);
      const listed = (await store.list(`${prefix}at-once/`, { limit: 1_000 })).objects.map(({ key }) => key);
      assert.deepEqual(listed, [...keys, `${prefix}at-once/same`].sort());
      await forEach(listed, (key) => store.delete(key));
    },
  },
  {
    name: 'keys of every form keep apart, and are listed in the order of their bytes',
    async run({ store, prefix }) {
      const names = oddNames();
      await forEach(names, (name) => putBytes(store, prefix + name, Buffer.from(name)));
      await forEach(names, (name) => expectBytes(store, prefix + name, Buffer.from(name)));
      const inOrder = [...names].sort();
      for (const limit of [1, 3, 1_000]) {
        assert.deepEqual(
          await listAll(store, prefix, limit),
          inOrder.map((name) => prefix + name),
          `pages of ${limit}`,
        );
      }
      for (const part of ['a', 'a/', 'a/b', 'A', '-', 'ab/', 'zzz', 'a-b', 'abc/d']) {
        const expected = inOrder.filter((name) => name.startsWith(part)).map((name) => prefix + name);
        assert.deepEqual(await listAll(store, prefix + part, 1_000), expected, `prefix ${part}`);
      }
      await forEach(names, (name) => store.delete(prefix + name));
      assert.deepEqual(await listAll(store, prefix, 1_000), []);
    },
  },
  {
    name: 'more than a thousand objects are listed page by page, each once',
    async run({ store, prefix }) {
      const keys = Array.from(
        { length: 1_205 },
        (_, i) => `${prefix}many/${((i * 7_919) % 65_536).toString(16).padStart(4, '0')}`,
      );
      await forEach(keys, (key) => store.put(key, { length: 1, chunks: [Buffer.from('.')] }));
      keys.sort();
      const first = await store.list(`${prefix}many/`, { limit: 1_000 });
      assert.equal(first.more, true, 'the first page says that there is more');
      assert.deepEqual(
        first.objects.map(({ key }) => key),
        keys.slice(0, 1_000),
      );
      assert.deepEqual(await listAll(store, prefix, 400), keys);
      const after = keys[600]!;
      assert.deepEqual(
        await listAll(store, prefix, 1_000, `${after.slice(0, -1)}`),
        keys.filter((key) => key > after.slice(0, -1)),
      );
      await forEach(keys, (key) => store.delete(key));
    },
  },
  {
    name: 'reads that are abandoned hold nothing, however many',
    async run({ store, prefix, abandonedReads }) {
      const key = `${prefix}abandoned`;
      const bytes = pattern(4 * MiB, 10);
      await putBytes(store, key, bytes);
      for (let i = 0; i < abandonedReads; i++) {
        const { stream } = await store.get(key);
        // Every other one is given up before its first byte.
        if (i % 2) await stream[Symbol.asyncIterator]().return?.();
        else for await (const _ of stream) break;
      }
      await expectBytes(store, key, bytes);
      await store.delete(key);
    },
  },
  {
    name: 'a read that is aborted stops with the reason given',
    async run({ store, prefix }) {
      const key = `${prefix}stopped`;
      await putBytes(store, key, pattern(8 * MiB, 11));
      const stop = new AbortController();
      const reason = new Error('read enough');
      const { stream } = await store.get(key, undefined, { signal: stop.signal });
      const reading = async () => {
        for await (const _ of stream) stop.abort(reason);
      };
      await assert.rejects(reading(), same(reason));
      await store.delete(key);
    },
  },
  {
    name: 'a key that is not one is refused before anything is asked of the store',
    async run({ store, prefix }) {
      for (const name of [
        '',
        '../up',
        'a//b',
        'a/./b',
        'a/',
        'with space',
        'umläut',
        'n'.repeat(121),
        'n/'.repeat(600),
      ]) {
        await assert.rejects(putBytes(store, prefix + name, Buffer.from('no')), RangeError, JSON.stringify(name));
        await assert.rejects(store.get(prefix + name), RangeError, JSON.stringify(name));
      }
      await assert.rejects(store.list('../', { limit: 1 }), RangeError);
      for (const limit of [0, 1_001, 1.5]) await assert.rejects(store.list(prefix, { limit }), RangeError);
    },
  },
];

/** Names that differ by little: in case, in how '/' sorts among its neighbours, in being both a name and a folder. */
function oddNames(): string[] {
  return [
    'a',
    'a/b',
    'a/b/c',
    'a-b',
    'a.b',
    'a0b',
    'a_b',
    'ab',
    'ab/c',
    'abc',
    'abc/d',
    'abd',
    'ab-c',
    'A',
    'A/b',
    'Ab',
    'aB',
    'AB',
    'Z',
    'z',
    '_',
    '-',
    '-/-',
    '..a',
    'a..',
    '.a',
    '...',
    'a/.b',
    '0',
    '00',
    '0/0',
    'con',
    'nul.txt',
    'n'.repeat(120),
    `${'L'.repeat(120)}/${'L'.repeat(120)}`,
    Array(200).fill('d').join('/'),
  ];
}

/** Bytes by seed in which a shifted, repeated or mixed-up piece shows. */
function pattern(length: number, seed: number): Buffer {
  // A tile of a prime length lies differently in every page; the page's number tells pages apart.
  const tile = Buffer.from(Array.from({ length: 4_093 }, (_, i) => (i * i * 31 + i * 7 + seed * 101) >>> 3));
  const bytes = Buffer.alloc(length, tile);
  for (let at = 0; at + 4 <= length; at += 4_096) bytes.writeUInt32LE((at + seed) >>> 0, at);
  return bytes;
}

/** The very error, not one like it. */
function same(expected: Error): (error: unknown) => boolean {
  return (error) => error === expected;
}

function slices(bytes: Buffer, size: number): Buffer[] {
  return Array.from({ length: Math.ceil(bytes.byteLength / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
}

async function* streamOf(
  chunks: readonly Uint8Array[],
  turn?: { after: number; fail: () => Promise<never> },
): AsyncGenerator<Uint8Array> {
  for (const [index, chunk] of chunks.entries()) {
    if (index === turn?.after) await turn.fail();
    yield chunk;
  }
}

function putBytes(store: ObjectStore, key: string, bytes: Buffer): Promise<void> {
  return store.put(key, { length: bytes.byteLength, chunks: [bytes] });
}

/** All bytes of the object or range; throws when the store's own word on their number is wrong. */
export async function readAll(
  store: ObjectStore,
  key: string,
  range?: { offset: number; length: number },
): Promise<Buffer> {
  const content = await store.get(key, range);
  const pieces: Uint8Array[] = [];
  for await (const piece of content.stream) pieces.push(piece);
  const bytes = Buffer.concat(pieces);
  assert.equal(bytes.byteLength, content.length, `the length told for ${key}`);
  return bytes;
}

async function expectBytes(store: ObjectStore, key: string, expected: Buffer): Promise<void> {
  assert.ok((await readAll(store, key)).equals(expected), `${key} came back with other bytes`);
}

/** Every key below the prefix, read in pages. */
export async function listAll(store: ObjectStore, prefix: string, limit: number, after?: string): Promise<string[]> {
  const keys: string[] = [];
  for (let last = after; ; ) {
    const { objects, more } = await store.list(prefix, { limit, ...(last && { after: last }) });
    assert.ok(objects.length <= limit, `a page of ${objects.length} where ${limit} were asked for`);
    for (const { key } of objects) keys.push(key);
    if (!more) return keys;
    assert.ok(objects.length > 0, 'a page that says more and gives nothing');
    last = keys.at(-1);
  }
}

async function forEach<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
  const queue = items.values();
  const worker = async () => {
    for (const item of queue) await act(item);
  };
  await Promise.all(Array.from({ length: parallel }, worker));
}

/** Deletes everything below the prefix. Returns how many objects that were. */
export async function clearPrefix(store: ObjectStore, prefix: string): Promise<number> {
  const keys = await listAll(store, prefix, 1_000);
  await forEach(keys, (key) => store.delete(key));
  return keys.length;
}
