/** Files of plain archives on a real PostgreSQL: nothing half, nothing lost, nothing wrong. */
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { sha256 } from '../../../protocol/hashes.ts';
import { Problem } from '../../../protocol/problems.ts';
import {
  commit,
  newHeldFence,
  newRun,
  pieces,
  storageForFile,
  upload,
  version,
} from '../../../tests/helpers/storage.ts';
import { createArchive, createVault } from '../../catalog/vaults.ts';
import { ObjectNotFound } from '../../objects/object-store.ts';
import type { ArchiveRef } from '../../storage.ts';
import { readHistory } from '../reading/read-tree.ts';
import { commitPlain, type PlainName } from './commit-plain.ts';
import { hideFile } from './hide-file.ts';
import { listFolder, statFile } from './list-folder.ts';
import { pieceBytes, putFile, putLargeFile, putNamedFile } from './put-file.ts';
import { readFile } from './read-file.ts';

const storage = storageForFile();
let users = 5_000;

const newPlain = (vault?: number): Promise<ArchiveRef> =>
  storage.database.transaction(async (tx) => {
    const in_ = vault ?? (await createVault(tx, { userId: ++users }))!;
    return { vault: in_, archive: await createArchive(tx, { vault: in_, deviceId: users, kind: 'plain' }) };
  });
const at = (bytes: Uint8Array, folder = 'data'): PlainName => ({ folder, name: sha256(bytes).toString('hex') });
const put = (ref: ArchiveRef, bytes: Buffer, body: AsyncIterable<Uint8Array> = pieces(bytes, 1_000), folder = 'data') =>
  putFile(storage, ref, { file: at(bytes, folder), digest: sha256(bytes), length: bytes.byteLength }, body);
const read = async (
  ref: ArchiveRef,
  file: PlainName,
  range?: { offset: number; length: number },
): Promise<Buffer | null> => {
  const found = await statFile(storage, ref, file);
  if (!found) return null;
  const chunks: Uint8Array[] = [];
  const whole = { offset: 0, length: found.size };
  for await (const chunk of readFile(storage, await newHeldFence(storage), ref.vault, found, range ?? whole))
    chunks.push(chunk);
  return Buffer.concat(chunks);
};
const names = async (ref: ArchiveRef, folder = 'data'): Promise<string[]> => {
  const found: string[] = [];
  for await (const page of listFolder(storage, ref, folder)) found.push(...page.map(({ name }) => name));
  return found;
};
const versions = async (ref: ArchiveRef) =>
  storage.rows<{ deleted: boolean; size: number }>(
    'SELECT deleted, size FROM versions WHERE vault_id = $1 AND archive_id = $2 ORDER BY seq',
    [ref.vault, ref.archive],
  );
const problemOf = async (promise: Promise<unknown>): Promise<string> => {
  const error = await promise.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof Problem)) throw error ?? new Error('it worked');
  return error.code;
};
const refsOf = async (hash: Buffer): Promise<number> =>
  (await storage.rows<{ refs: number }>('SELECT refs FROM blocks WHERE hash = $1', [hash]))[0]!.refs;

describe('a file', () => {
  test('is one version however often it is put, and its block is counted once', async () => {
    const ref = await newPlain();
    const bytes = randomBytes(5_000);
    expect((await put(ref, bytes)).changed).toMatchObject({ before: null, after: { size: 5_000 } });
    expect((await put(ref, bytes)).changed).toBeNull();
    expect(await versions(ref)).toEqual([{ deleted: false, size: 5_000 }]);
    expect(await refsOf(sha256(bytes))).toBe(1);
  });

  test('that is hidden keeps what it was, and is put anew under the same name', async () => {
    const ref = await newPlain();
    const bytes = randomBytes(700);
    await put(ref, bytes);
    expect(await hideFile(storage, ref, at(bytes))).toMatchObject({
      before: { deleted: false, heldBytes: 700 },
      after: null,
    });
    expect(await hideFile(storage, ref, at(bytes))).toBeNull();
    expect([await read(ref, at(bytes)), await names(ref)]).toEqual([null, []]);
    expect(await refsOf(sha256(bytes))).toBe(1);
    expect((await put(ref, bytes)).changed).toMatchObject({ before: { deleted: true, heldBytes: 700 } });
    expect(await read(ref, at(bytes))).toEqual(bytes);
    expect((await versions(ref)).map(({ deleted }) => deleted)).toEqual([false, true, false]);
    const [archive] = await storage.rows<{ files: number }>(
      'SELECT live_files AS files FROM archives WHERE archive_id = $1',
      [ref.archive],
    );
    expect(archive!.files).toBe(1);
  });

  test('that is not there is hidden without a trace', async () => {
    const ref = await newPlain();
    expect(await hideFile(storage, ref, at(Buffer.from('nothing')))).toBeNull();
    expect(await versions(ref)).toEqual([]);
  });

  test('with other bytes than its name says leaves nothing', async () => {
    const ref = await newPlain();
    const [bytes, other] = [randomBytes(900), randomBytes(900)];
    expect(await problemOf(put(ref, bytes, pieces(other, 100)))).toBe('malformed_request');
    expect(await problemOf(put(ref, bytes, pieces(bytes.subarray(1), 100)))).toBe('malformed_request');
    expect(await problemOf(put(ref, bytes, pieces(Buffer.alloc(0), 100)))).toBe('malformed_request');
    expect([await names(ref), await versions(ref)]).toEqual([[], []]);
    expect(await storage.rows('SELECT 1 FROM blocks WHERE vault_id = $1', [ref.vault])).toEqual([]);
  });

  test('that is cut off is not there, and the rest of the story is another', async () => {
    const ref = await newPlain();
    const bytes = randomBytes(4_000);
    const cut = async function* () {
      yield bytes.subarray(0, 3_999);
      throw new Error('connection lost');
    };
    await expect(put(ref, bytes, cut())).rejects.toThrow('connection lost');
    expect(await read(ref, at(bytes))).toBeNull();
    await put(ref, bytes);
    expect(await read(ref, at(bytes))).toEqual(bytes);
  });

  test('under a name of its own is never written over by another', async () => {
    const ref = await newPlain();
    const config = { folder: '', name: 'config' };
    const [one, two] = [randomBytes(10), randomBytes(10)];
    await putNamedFile(storage, ref, config, one);
    expect((await putNamedFile(storage, ref, config, one)).changed).toBeNull();
    expect(await problemOf(putNamedFile(storage, ref, config, two))).toBe('forbidden');
    expect(await read(ref, config)).toEqual(one);
    await hideFile(storage, ref, config);
    await putNamedFile(storage, ref, config, two);
    expect(await read(ref, config)).toEqual(two);
  });

  test('of two who put it at once there is one version', async () => {
    const ref = await newPlain();
    const bytes = randomBytes(2_000);
    const done = await Promise.all([put(ref, bytes), put(ref, bytes), put(ref, bytes)]);
    expect(done.filter(({ changed }) => changed !== null)).toHaveLength(1);
    expect(await versions(ref)).toHaveLength(1);
    expect(await refsOf(sha256(bytes))).toBe(1);
  });

  test('that was cut off, hidden and put again is there, whoever ends last', async () => {
    const ref = await newPlain();
    const bytes = randomBytes(3_000);
    let fail: (error: Error) => void = () => {};
    const lost = new Promise<never>((_, reject) => (fail = reject));
    const cut = async function* () {
      yield bytes.subarray(0, 2_000);
      await lost;
    };
    const aborted = put(ref, bytes, cut());
    await hideFile(storage, ref, at(bytes));
    await put(ref, bytes);
    fail(new Error('connection lost'));
    await expect(aborted).rejects.toThrow('connection lost');
    expect(await read(ref, at(bytes))).toEqual(bytes);
  });

  test('is not named for a sender who has gone when it was stored', async () => {
    const ref = await newPlain();
    const bytes = randomBytes(300);
    await put(ref, bytes);
    await hideFile(storage, ref, at(bytes));
    const gone = AbortSignal.abort(new Error('gone'));
    const of = { file: at(bytes), digest: sha256(bytes), length: 300 };
    await expect(putFile(storage, ref, of, pieces(bytes, 100), { signal: gone })).rejects.toThrow('gone');
    expect(await versions(ref)).toHaveLength(2);
  });
});

describe('a large file', () => {
  const length = pieceBytes + 1_000;
  const bytes = randomBytes(length);
  const cut = async function* (of: Buffer) {
    for (let from = 0; from < of.byteLength; from += pieceBytes)
      yield pieces(of.subarray(from, from + pieceBytes), 1_000_000);
  };
  const putLarge = (ref: ArchiveRef, of: Buffer, digest = sha256(of)) =>
    putLargeFile(storage, ref, { file: at(bytes), digest, length }, cut(of));

  test('is blocks of one size, the same when it comes again, and given back over their borders', async () => {
    const ref = await newPlain();
    await putLarge(ref, bytes);
    expect((await putLarge(ref, bytes)).changed).toBeNull();
    expect(
      await storage.rows('SELECT byte_length AS length FROM blocks WHERE vault_id = $1 ORDER BY 1', [ref.vault]),
    ).toEqual([{ length: 1_000 }, { length: pieceBytes }]);
    expect((await read(ref, at(bytes)))!.equals(bytes)).toBe(true);
    const range = { offset: pieceBytes - 5, length: 10 };
    expect(await read(ref, at(bytes), range)).toEqual(bytes.subarray(pieceBytes - 5, pieceBytes + 5));
    expect(await read(ref, at(bytes), { offset: length - 1, length: 1 })).toEqual(bytes.subarray(length - 1));
  });

  test('that is another, or too short, is not there', async () => {
    const ref = await newPlain();
    expect(await problemOf(putLarge(ref, bytes, randomBytes(32)))).toBe('malformed_request');
    expect(await problemOf(putLarge(ref, bytes.subarray(0, length - 1), sha256(bytes)))).toBe('malformed_request');
    // Its digest is right, its length is not.
    expect(await problemOf(putLarge(ref, bytes.subarray(0, length - 1)))).toBe('malformed_request');
    expect(await versions(ref)).toEqual([]);
  });
});

test('100,000 names, of which every third is hidden, are listed in order and without a gap', async () => {
  const ref = await newPlain();
  const bytes = randomBytes(10);
  await put(ref, bytes, pieces(bytes, 10), 'index');
  await put(ref, bytes);
  const [{ folder }] = (await storage.rows(
    `SELECT file_id AS folder FROM files WHERE vault_id = $1 AND archive_id = $2 AND parent_id = 0 AND name = 'data'`,
    [ref.vault, ref.archive],
  )) as [{ folder: number }];
  await hideFile(storage, ref, at(bytes));
  await storage.rows(
    `WITH made AS (
       INSERT INTO files (vault_id, archive_id, file_id, parent_id, name, folder, implied, created_seq)
       SELECT $1, $2, 1000 + i, $3, convert_to(encode(sha256(i::text::bytea), 'hex'), 'UTF8'), false, false, 10 + i FROM generate_series(1, 100000) i
       RETURNING file_id)
     INSERT INTO versions (vault_id, archive_id, file_id, seq, committed_at, kind, deleted, size, mtime, attributes, mac, blocks)
     SELECT $1, $2, file_id, 10 + file_id, now(), 'file', file_id % 3 = 0, CASE WHEN file_id % 3 = 0 THEN 0 ELSE file_id END, 0, '', sha256(''), '' FROM made`,
    [ref.vault, ref.archive, folder],
  );
  const expected = await storage.rows<{ name: string }>(
    `SELECT encode(sha256(i::text::bytea), 'hex') AS name FROM generate_series(1, 100000) i WHERE (1000 + i) % 3 <> 0 ORDER BY 1`,
  );
  const found = await names(ref);
  expect(found).toHaveLength(expected.length);
  expect(found).toEqual(expected.map(({ name }) => name).sort());
  // Pages of which nothing is left, before others.
  await storage.rows(
    `UPDATE versions v SET deleted = true FROM files f
      WHERE f.vault_id = $1 AND f.archive_id = $2 AND f.parent_id = $3 AND f.name < '1' AND v.vault_id = $1 AND v.archive_id = $2 AND v.file_id = f.file_id`,
    [ref.vault, ref.archive, folder],
  );
  expect(await names(ref)).toEqual(found.filter((name) => name >= '1'));
  expect(await names(ref, 'index')).toHaveLength(1);
  expect(await names(ref, 'keys')).toEqual([]);
}, 60_000);

describe('what is damaged', () => {
  /** Turns a byte of the stored object over. */
  async function damage(hash: Buffer): Promise<void> {
    const [place] = (await storage.rows(
      'SELECT o.key, b.byte_offset AS "offset" FROM blocks b JOIN objects o USING (vault_id, object_id) WHERE b.hash = $1',
      [hash],
    )) as [{ key: string; offset: number }];
    const { stream } = await storage.objects.get(place.key);
    const parts: Uint8Array[] = [];
    for await (const chunk of stream) parts.push(chunk);
    const bytes = Buffer.concat(parts);
    bytes[place.offset] = bytes[place.offset]! ^ 1;
    await storage.objects.delete(place.key);
    await storage.objects.put(place.key, { length: bytes.byteLength, chunks: [bytes] });
  }

  test('is never given to its end, is marked, and is well again when it is sent again', async () => {
    const ref = await newPlain();
    const bytes = randomBytes(200_000);
    await put(ref, bytes);
    await damage(sha256(bytes));
    expect(await problemOf(read(ref, at(bytes)))).toBe('not_found');
    expect(await problemOf(read(ref, at(bytes)))).toBe('not_found');
    expect(
      await storage.rows('SELECT 1 FROM blocks WHERE hash = $1 AND damaged_at IS NOT NULL', [sha256(bytes)]),
    ).toHaveLength(1);
    const again = await put(ref, bytes);
    expect([again.changed, again.upload!.stored]).toEqual([null, 1]);
    expect(await read(ref, at(bytes))).toEqual(bytes);
    expect(await versions(ref)).toHaveLength(1);
  });

  test('and whose object is gone, likewise', async () => {
    const ref = await newPlain();
    const bytes = randomBytes(2_000);
    await put(ref, bytes);
    const [{ key }] = (await storage.rows(
      'SELECT o.key FROM blocks b JOIN objects o USING (vault_id, object_id) WHERE b.hash = $1',
      [sha256(bytes)],
    )) as [{ key: string }];
    await storage.objects.delete(key);
    await expect(storage.objects.get(key)).rejects.toThrow(ObjectNotFound);
    expect(await problemOf(read(ref, at(bytes)))).toBe('not_found');
    await put(ref, bytes);
    expect(await read(ref, at(bytes))).toEqual(bytes);
  });
});

describe('an archive', () => {
  test('of an agent takes no files, and one of files no commits', async () => {
    const ref = await newPlain();
    const bytes = randomBytes(100);
    await upload(storage, ref.vault, [bytes]);
    const agents = await storage.database.transaction(async (tx) => ({
      vault: ref.vault,
      archive: await createArchive(tx, { vault: ref.vault, deviceId: ++users }),
    }));
    expect(await problemOf(put(agents, bytes))).toBe('conflict');
    const run = await newRun(storage, ref);
    expect(await problemOf(commit(storage, ref, run, [version('/x', [bytes])]))).toBe('conflict');
  });

  test('that is not active takes none', async () => {
    const ref = await newPlain();
    await storage.rows("UPDATE archives SET state = 'cold' WHERE archive_id = $1", [ref.archive]);
    expect(await problemOf(put(ref, randomBytes(10)))).toBe('archive_not_active');
  });

  test('shares a block with the same bytes of another of its vault, and each counts it', async () => {
    const [one] = [await newPlain()];
    const two = await newPlain(one.vault);
    const bytes = randomBytes(100);
    await put(one, bytes);
    expect((await put(two, bytes)).upload).toMatchObject({ stored: 0, known: 1 });
    expect(await refsOf(sha256(bytes))).toBe(2);
  });

  test('never names a block that is not there', async () => {
    const ref = await newPlain();
    const file = { folder: 'data', name: 'x' };
    const content = { size: 5, blocks: randomBytes(32) };
    const change = storage.database.transaction((tx) => commitPlain(tx, ref, [{ file, content }]));
    expect(await problemOf(change)).toBe('unavailable');
    expect(await versions(ref)).toEqual([]);
  });

  test('has all changes of a call or none, and a transaction that runs twice changes nothing the second time', async () => {
    const ref = await newPlain();
    const [one, two] = [randomBytes(10), randomBytes(20)];
    await upload(storage, ref.vault, [one, two]);
    const changes = [one, two].map((bytes) => ({
      file: at(bytes),
      content: { size: bytes.byteLength, blocks: sha256(bytes) },
    }));
    const both = () => storage.database.transaction((tx) => commitPlain(tx, ref, changes));
    const failing = storage.database.transaction(async (tx) => {
      await commitPlain(tx, ref, changes);
      throw new Error('given up');
    });
    await expect(failing).rejects.toThrow('given up');
    expect(await names(ref)).toEqual([]);
    expect(await both()).toHaveLength(2);
    expect(await both()).toEqual([]);
    expect(await names(ref)).toHaveLength(2);
    const history = await readHistory(storage, ref, {
      path: Buffer.from(`/data/${at(one).name}`),
      after: null,
      limit: 10,
    });
    expect(history.versions).toHaveLength(1);
  });
});

test('a name that came and went a thousand times comes no more by restic, and still by undoing; it can always go', async () => {
  const ref = await newPlain();
  const bytes = Buffer.from('comes and goes');
  const file = at(bytes);
  const commit = (content: { size: number; blocks: Buffer } | null, sent = true) =>
    storage.database.transaction((tx) => commitPlain(tx, ref, [{ file, content }], { sent }));
  const content = { size: bytes.byteLength, blocks: sha256(bytes) };
  await put(ref, bytes);
  await hideFile(storage, ref, file);
  await storage.rows(
    `WITH counted AS (UPDATE archives SET next_seq = next_seq + 997, version_count = version_count + 997 WHERE vault_id = $1 RETURNING next_seq)
     INSERT INTO versions (vault_id, archive_id, file_id, seq, committed_at, kind, deleted, size, mtime, attributes, mac, blocks)
     SELECT v.vault_id, v.archive_id, v.file_id, v.seq + i, v.committed_at, v.kind, true, 0, v.mtime, v.attributes, v.mac, ''
       FROM versions v, generate_series(1, 997) AS i WHERE v.vault_id = $1 AND v.deleted`,
    [ref.vault],
  );
  expect(await commit(content)).toHaveLength(1);
  expect(await commit(content)).toEqual([]);
  expect(await commit(null)).toHaveLength(1);
  await expect(commit(content)).rejects.toMatchObject({ code: 'forbidden' });
  expect(await commit(content, false)).toHaveLength(1);
  expect(await commit(null)).toHaveLength(1);
  await expect(commit(content)).rejects.toMatchObject({ code: 'forbidden' });
});
