import { describe, expect, test } from '@jest/globals';
import { bitAt, sha256 } from '../../../protocol/hashes.ts';
import { newArchive, pieces, storageForFile, upload } from '../../../tests/helpers/storage.ts';
import { fetchBlocks, readBlock } from '../reading/read-blocks.ts';
import { claimBlocks } from './claim.ts';
import { decodeFooter, footerLength } from './object-footer.ts';
import { uploadBlocks } from './upload.ts';

const storage = storageForFile();

const block = (seed: number, length = 5000): Buffer => Buffer.alloc(length, `block ${seed} `);
const hashes = (...blocks: Buffer[]): Buffer => Buffer.concat(blocks.map(sha256));

async function bytesOf(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(stream));
}

async function objectsOf(vault: number): Promise<{ key: string; length: number }[]> {
  return (await storage.objects.list(`${storage.catalogId}/blocks/${vault}/`, { limit: 1000 })).objects;
}

test('a batch becomes one object that explains itself, and its blocks can be claimed and read', async () => {
  const { vault } = await newArchive(storage);
  const blocks = [block(1), block(2, 1), block(3, 70_000)];
  expect(await upload(storage, vault, blocks)).toMatchObject({
    stored: 3,
    storedBytes: 75_001,
    known: 0,
    knownBytes: 0,
  });

  const [object, ...others] = await objectsOf(vault);
  expect(others).toEqual([]);
  const whole = await bytesOf((await storage.objects.get(object!.key)).stream);
  const footer = decodeFooter(whole.subarray(whole.byteLength - footerLength(whole.subarray(-8))));
  expect(footer).toEqual({ hashes: hashes(...blocks), lengths: [5000, 1, 70_000] });
  expect(object!.key).toContain(`/${sha256(whole.subarray(75_001)).toString('hex')}.`);

  const { send, until } = await claimBlocks(storage, vault, hashes(block(9), ...blocks));
  expect([0, 1, 2, 3].map((i) => bitAt(send, i))).toEqual([true, false, false, false]);
  expect(until.getTime()).toBeGreaterThan(Date.now() + 6 * 24 * 3_600_000);

  const read = await readBlock(storage, vault, sha256(block(3, 70_000)), { offset: 10, length: 20 });
  expect(await bytesOf(read!.stream)).toEqual(block(3, 70_000).subarray(10, 30));
});

test('what is sent twice is stored once: in one request, in a second one, and by two at the same time', async () => {
  const { vault } = await newArchive(storage);
  expect(await upload(storage, vault, [block(1), block(2), block(1)])).toMatchObject({
    stored: 2,
    known: 1,
    knownBytes: 5000,
  });
  expect(await upload(storage, vault, [block(2), block(1)])).toMatchObject({ stored: 0, known: 2 });
  expect(await objectsOf(vault)).toHaveLength(1);

  const both = await Promise.all([
    upload(storage, vault, [block(3), block(4)]),
    upload(storage, vault, [block(4), block(3)]),
  ]);
  expect(both.reduce((sum, result) => sum + result.stored, 0)).toBe(2);
  expect(await storage.rows('SELECT count(*) AS n FROM blocks WHERE vault_id = $1', [vault])).toEqual([{ n: 4 }]);
  // Whoever lost the race has an object nobody needs: it died in the transaction that found that out.
  expect(
    await storage.rows(
      "SELECT count(*) AS n FROM objects WHERE vault_id = $1 AND (state = 'writing' OR (live_bytes = 0) <> (state = 'dead'))",
      [vault],
    ),
  ).toEqual([{ n: 0 }]);
});

test('a block that does not hash to its name is refused by name, and nothing of the upload is stored', async () => {
  const { vault } = await newArchive(storage);
  for (const pieceBytes of [1, 999, 5000, 100_000]) {
    const header = { blocks: hashes(block(1), block(2), block(3)), lengths: [5000, 5000, 5000] };
    const body = Buffer.concat([block(1), block(7), block(3)]);
    await expect(uploadBlocks(storage, vault, header, pieces(body, pieceBytes))).rejects.toMatchObject({
      code: 'block_corrupt',
      extras: { field: 'blocks.1', index: 1, hash: sha256(block(2)).toString('hex') },
    });
  }
  expect(await objectsOf(vault)).toEqual([]);
  expect(await storage.rows('SELECT 1 FROM objects WHERE vault_id = $1', [vault])).toEqual([]);
});

test('a known block is hashed all the same: a wrong one is refused even when it would be thrown away', async () => {
  const { vault } = await newArchive(storage);
  await upload(storage, vault, [block(1)]);
  await expect(
    uploadBlocks(storage, vault, { blocks: hashes(block(1)), lengths: [5000] }, pieces(block(2), 5000)),
  ).rejects.toMatchObject({ code: 'block_corrupt' });
});

test('a body that ends early is refused, wherever it ends', async () => {
  const { vault } = await newArchive(storage);
  const body = Buffer.concat([block(1), block(2)]);
  for (const length of [0, 1, 4999, 5000, 5001, 9999]) {
    const header = { blocks: hashes(block(1), block(2)), lengths: [5000, 5000] };
    await expect(uploadBlocks(storage, vault, header, pieces(body.subarray(0, length), 1234))).rejects.toMatchObject({
      code: 'malformed_request',
    });
  }
  expect(await objectsOf(vault)).toEqual([]);
});

test('nothing is told about a block outside its vault', async () => {
  const { vault: mine } = await newArchive(storage);
  const { vault: other } = await newArchive(storage);
  await upload(storage, other, [block(1)]);
  const { send } = await claimBlocks(storage, mine, hashes(block(1)));
  expect(bitAt(send, 0)).toBe(true);
  expect(await readBlock(storage, mine, sha256(block(1)))).toBeNull();
  expect(await Array.fromAsync(fetchBlocks(storage, mine, hashes(block(1))))).toEqual([{ index: 0, bytes: null }]);
  expect(await upload(storage, mine, [block(1)])).toMatchObject({ stored: 1 });
});

describe('a damaged block', () => {
  test('is asked for again, and healed by the next upload; its old object dies with its last block', async () => {
    const { vault } = await newArchive(storage);
    await upload(storage, vault, [block(1), block(2)]);
    await storage.rows('UPDATE blocks SET damaged_at = now() WHERE vault_id = $1', [vault]);

    const { send } = await claimBlocks(storage, vault, hashes(block(1), block(2)));
    expect([bitAt(send, 0), bitAt(send, 1)]).toEqual([true, true]);
    expect(await readBlock(storage, vault, sha256(block(1)))).toBeNull();

    expect(await upload(storage, vault, [block(1), block(3)])).toMatchObject({ stored: 2 });
    expect(
      await storage.rows('SELECT state, live_bytes AS live FROM objects WHERE vault_id = $1 ORDER BY object_id', [
        vault,
      ]),
    ).toEqual([
      { state: 'live', live: 5000 },
      { state: 'live', live: 10_000 },
    ]);
    expect(await bytesOf((await readBlock(storage, vault, sha256(block(1))))!.stream)).toEqual(block(1));

    await upload(storage, vault, [block(2)]);
    expect(
      await storage.rows('SELECT state, live_bytes AS live FROM objects WHERE vault_id = $1 ORDER BY object_id', [
        vault,
      ]),
    ).toEqual([
      { state: 'dead', live: 0 },
      { state: 'live', live: 10_000 },
      { state: 'live', live: 5000 },
    ]);
  });
});

describe('a claim', () => {
  test('is a read for a referenced block, and writes only the unreferenced ones about to lapse, to twice the window', async () => {
    const { vault } = await newArchive(storage);
    await upload(storage, vault, [block(1), block(2), block(3)]);
    const set = (seed: number, refs: number, interval: string): Promise<unknown> =>
      storage.rows(
        'UPDATE blocks SET refs = $3, claimed_until = now() + $4::interval WHERE vault_id = $1 AND hash = $2',
        [vault, sha256(block(seed)), refs, interval],
      );
    await set(1, 1, '-1 year');
    await set(2, 0, '1 minute');
    await set(3, 0, '8 days');
    const claimedUntil = async (): Promise<unknown[]> =>
      (
        await storage.rows(
          'SELECT extract(day FROM claimed_until - now())::int AS days FROM blocks WHERE vault_id = $1 ORDER BY object_id, byte_offset',
          [vault],
        )
      ).map((row) => row.days);
    const { send } = await claimBlocks(storage, vault, hashes(block(1), block(2), block(2), block(3)));
    expect([0, 1, 2, 3].map((i) => bitAt(send, i))).toEqual([false, false, false, false]);
    expect(await claimedUntil()).toEqual([-365, 13, 7]);
  });
});

test('a fetch answers every index once, repeats and absent ones included, reading neighbours together', async () => {
  const { vault } = await newArchive(storage);
  const first = [block(1), block(2), block(3)];
  const second = [block(4), block(5)];
  await upload(storage, vault, first);
  await upload(storage, vault, second);
  const asked = [block(5), block(1), block(99), block(2), block(5), block(3)];
  const got = await Array.fromAsync(fetchBlocks(storage, vault, hashes(...asked)));
  expect(got.map((each) => each.index).sort()).toEqual([0, 1, 2, 3, 4, 5]);
  for (const { index, bytes } of got) expect(bytes && Buffer.concat(bytes)).toEqual(index === 2 ? null : asked[index]);
});

test('a fetch finds a block that moved between the look-up and the read', async () => {
  const { vault } = await newArchive(storage);
  await upload(storage, vault, [block(1)]);
  const [old] = await objectsOf(vault);
  // What compaction does, seen by a reader that looked the place up before it: the old object is gone at the read.
  const objects = {
    ...storage.objects,
    list: storage.objects.list.bind(storage.objects),
    put: storage.objects.put.bind(storage.objects),
  };
  let moved = false;
  const get: typeof storage.objects.get = async (key, range, options) => {
    if (!moved && key === old!.key) {
      moved = true;
      await storage.rows('UPDATE blocks SET damaged_at = now() WHERE vault_id = $1', [vault]);
      await upload(storage, vault, [block(1)]);
      await storage.objects.delete(old!.key);
    }
    return storage.objects.get(key, range, options);
  };
  const got = await Array.fromAsync(fetchBlocks({ ...storage, objects: { ...objects, get } }, vault, hashes(block(1))));
  expect(moved).toBe(true);
  expect(got.map(({ bytes }) => bytes && Buffer.concat(bytes))).toEqual([block(1)]);
});

describe('a fetch leaves no stream of the store open: each holds a file or a connection until it ends', () => {
  test.each([1, 2, 5])('when %i of 5 blocks in 5 objects are taken', async (taken) => {
    const { vault } = await newArchive(storage);
    for (let seed = 0; seed < 5; seed++) await upload(storage, vault, [block(seed)]);
    let open = 0;
    const get: typeof storage.objects.get = async (...args) => {
      const content = await storage.objects.get(...args);
      open++;
      const inner = content.stream[Symbol.asyncIterator]();
      let ended = false;
      const end = (): void => {
        if (!ended) open--;
        ended = true;
      };
      const iterator: AsyncIterator<Uint8Array> = {
        next: async () => {
          const read = await inner.next();
          if (read.done) end();
          return read;
        },
        return: async () => {
          end();
          return { done: true, value: undefined };
        },
      };
      return { ...content, stream: { [Symbol.asyncIterator]: () => iterator } };
    };
    const objects = new Proxy(storage.objects, {
      get: (target, name) => (name === 'get' ? get : Reflect.get(target, name).bind(target)),
    });
    let got = 0;
    const asked = hashes(...[0, 1, 2, 3, 4].map((seed) => block(seed)));
    for await (const { bytes } of fetchBlocks({ ...storage, objects }, vault, asked)) {
      expect(bytes).not.toBeNull();
      if (++got === taken) break;
    }
    expect([got, open]).toEqual([taken, 0]);
  });
});
