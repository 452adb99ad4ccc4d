/**
 * Blocks and the objects they lie in. Lock order of every transaction here: the own object's row, then blocks by
 * hash in one pass, then other objects by id (docs/decisions/catalog.md).
 */
import assert from 'node:assert/strict';
import { hashAt, hashCount, hashKey, hashKeyAt, joinHashes } from '../../../protocol/hashes.ts';
import { Problem } from '../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../database.ts';
import { addUsage } from '../usage.ts';
import { claimsOn, hashSet } from './claims.ts';
import { hashArray, packArray } from './packing.ts';

const sql = {
  // A lost row is as good as a failed upload, so this commit need not wait for the disk: the transaction that makes
  // the object live asks for row and key again, and is the one that must be durable.
  insertWriting: statement(
    'objects.insertWriting',
    `WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
     made AS (
       INSERT INTO objects (vault_id, key, state, size_bytes, live_bytes, next_at, charged_bytes)
       SELECT $1, $2, 'writing', $3::bigint, 0, now() + $4 * interval '1 ms', $6::bigint FROM quick, catalog WHERE catalog_id = $5::uuid
       ON CONFLICT (vault_id, key) DO UPDATE SET next_at = excluded.next_at WHERE objects.state = 'writing'
       RETURNING object_id, xmax = 0 AS fresh),
     counted AS (INSERT INTO usage_deltas (vault_id, object_bytes) SELECT $1, $3::bigint FROM made WHERE fresh)
     SELECT object_id AS "objectId" FROM made`,
  ),

  // key = $3 is not decoration: an identity value handed out under an asynchronous commit is handed out again after
  // a crash, and then names another upload's row.
  makeLive: statement(
    'objects.makeLive',
    `UPDATE objects SET state = 'live', next_at = NULL, created_at = now(), live_bytes = $4, charged_bytes = 0
      WHERE vault_id = $1 AND object_id = $2 AND key = $3 AND state = 'writing' RETURNING object_id`,
  ),

  insertBlocks: statement(
    'blocks.insert',
    `WITH inserted AS (
       INSERT INTO blocks (vault_id, hash, object_id, byte_offset, byte_length, claimed_until)
       SELECT $1, w.h, $2, x.byte_offset, x.byte_length, clock_timestamp() + 2 * $6 * interval '1 ms'
         FROM unnest($4::int[], $5::int[]) WITH ORDINALITY AS x (byte_offset, byte_length, ordinal)
         CROSS JOIN LATERAL (SELECT substr($3::bytea, (x.ordinal::int - 1) * 32 + 1, 32) AS h) w
        ORDER BY w.h
       ON CONFLICT (vault_id, hash) DO UPDATE SET claimed_until = greatest(blocks.claimed_until, excluded.claimed_until)
       RETURNING hash, object_id, byte_length, damaged_at)
     SELECT hash, object_id AS "objectId", byte_length AS "byteLength", damaged_at IS NOT NULL AS damaged
       FROM inserted WHERE object_id <> $2`,
  ),

  // Only rows that the insert returned, so they are there and their locks are ours already.
  healBlocks: statement(
    'blocks.heal',
    `INSERT INTO blocks (vault_id, hash, object_id, byte_offset, byte_length, claimed_until)
     SELECT $1, substr($3::bytea, (x.ordinal::int - 1) * 32 + 1, 32), $2, x.byte_offset, x.byte_length, clock_timestamp()
       FROM unnest($4::int[], $5::int[]) WITH ORDINALITY AS x (byte_offset, byte_length, ordinal)
     ON CONFLICT (vault_id, hash) DO UPDATE SET object_id = excluded.object_id, byte_offset = excluded.byte_offset, damaged_at = NULL
      WHERE blocks.damaged_at IS NOT NULL`,
  ),

  setLiveBytes: statement(
    'objects.setLiveBytes',
    `UPDATE objects SET live_bytes = $3::bigint,
            state = CASE WHEN $3::bigint = 0 THEN 'dead' ELSE state END,
            next_at = CASE WHEN $3::bigint = 0 THEN now() + $4 * interval '1 ms' END
      WHERE vault_id = $1 AND object_id = $2 AND state = 'live'`,
  ),

  takeLiveBytes: statement(
    'objects.takeLiveBytes',
    'UPDATE objects SET live_bytes = live_bytes - $3 WHERE vault_id = $1 AND object_id = $2',
  ),

  // A statement after the one that locked the rows, on purpose: in the same one, two transactions that each take the
  // last blocks of an object would each still see the other's, and the object would never die.
  buryEmpty: statement(
    'objects.buryEmpty',
    `UPDATE objects o SET state = 'dead', next_at = now() + $3 * interval '1 ms'
      WHERE o.vault_id = $1 AND o.object_id = $2 AND o.state = 'live'
        AND NOT EXISTS (SELECT 1 FROM blocks b WHERE b.vault_id = $1 AND b.object_id = $2)`,
  ),

  findWriting: statement('objects.findWriting', 'SELECT 1 FROM objects WHERE vault_id = $1 AND key = $2'),

  // What a version or list names, or a claim keeps for longer than an upload's lease, is not reclaimed meanwhile.
  findStaying: statement(
    'blocks.findStaying',
    `SELECT string_agg(hash, '') AS hashes FROM blocks
      WHERE vault_id = $1 AND hash = ANY (${hashArray('$2')}) AND (refs > 0 OR claimed_until > now() + 2 * $3 * interval '1 ms')`,
  ),

  anyObject: statement('objects.any', 'SELECT 1 FROM objects LIMIT 1'),

  findPlaces: statement(
    'blocks.findPlaces',
    `SELECT b.hash, o.key, b.byte_offset AS "offset", b.byte_length AS "length" FROM blocks b
      CROSS JOIN LATERAL (SELECT o.key FROM objects o WHERE o.vault_id = $1 AND o.object_id = b.object_id OFFSET 0) o
      WHERE b.vault_id = $1 AND b.hash = ANY (${hashArray('$2')}) AND b.damaged_at IS NULL`,
  ),
};

/** Which of these blocks the vault holds and will keep for the claim window. */
export const claimHeldBlocks = claimsOn('blocks');

export interface WritingObject {
  vault: number;
  key: string;
  sizeBytes: number;
  leaseMs: number;
  catalogId: string;
  /** What it may add to the vault's stored bytes: in flight from now until it is live, or its lease ended. */
  chargedBytes?: number;
}

/** Whether a vault may hold so many bytes more, asked under locks until the transaction's end. @returns why not; null: it may */
export type Admission = (tx: Transaction, bytes: number) => Promise<Problem | null>;

/**
 * The row that precedes an object's bytes: whoever lists the bucket later and finds the key finds this row too.
 * Repeated after a lost connection it meets its own row, for a key ends in fresh random bytes. A process that was started
 * before the catalog was given another prefix writes nothing under the old one, where another catalog would delete it.
 */
export async function insertWritingObject(db: Transaction, object: WritingObject): Promise<number> {
  const { vault, key, sizeBytes, leaseMs, catalogId, chargedBytes = 0 } = object;
  const values = [vault, key, sizeBytes, leaseMs, catalogId, chargedBytes];
  const [row] = await db.query<{ objectId: number }>(sql.insertWriting, values);
  assert(row, 'the object key was already in use, or the catalog has another prefix by now: start this process again');
  return row.objectId;
}

/**
 * The same, when the vault may hold so many bytes more: asked in the transaction that enters the row, and so counts them.
 * What the answer was found by stays, also when it is no.
 * @throws the refusal
 */
export async function insertAdmittedObject(
  db: Database,
  object: WritingObject & { chargedBytes: number },
  admit: Admission,
): Promise<number> {
  let begun = 0;
  const entered = await db.transaction(async (tx) => {
    // Repeated after a COMMIT of unknown outcome it may be in already, and then counted.
    const isIn = begun++ > 0 && (await tx.query(sql.findWriting, [object.vault, object.key])).length > 0;
    const refused = isIn ? null : await admit(tx, object.chargedBytes);
    return refused ?? insertWritingObject(tx, object);
  });
  if (entered instanceof Problem) throw entered;
  return entered;
}

/** Of n x 32 bytes of hashes, the keys of blocks that have a row, damaged or not, and keep it for as long as an upload lasts. */
export async function findStayingBlocks(
  db: Database,
  vault: number,
  hashes: Buffer,
  leaseMs: number,
): Promise<Set<string>> {
  const [row] = await db.query<{ hashes: Buffer | null }>(sql.findStaying, [vault, hashes, leaseMs]);
  return hashSet(row!.hashes);
}

export interface BlockPlaces {
  /** n x 32 bytes, distinct. */
  hashes: Buffer;
  offsets: readonly number[];
  lengths: readonly number[];
}

/**
 * Turns an object whose bytes are stored live and enters its blocks, all in the caller's transaction. A block that is
 * there already stays where it is, unless it is damaged: then it moves here and is well again. An object none of
 * whose blocks was needed dies at once.
 * @returns how many blocks are new here; null when the object's row is gone or no longer `writing` (its lease lapsed,
 *   or this transaction did commit before): start again under a new key
 */
export async function recordObject(
  tx: Transaction,
  object: { vault: number; objectId: number; key: string },
  places: BlockPlaces,
  settings: { claimWindowMs: number; objectDeleteDelayMs: number },
): Promise<number | null> {
  const { vault, objectId } = object;
  const sum = (values: Iterable<number>): number => Array.from(values).reduce((total, value) => total + value, 0);
  const allBytes = sum(places.lengths);
  if (!(await makeLive(tx, object, allBytes))) return null;

  type Existing = { hash: Buffer; objectId: number; byteLength: number; damaged: boolean };
  const existing = await tx.query<Existing>(sql.insertBlocks, [
    vault,
    objectId,
    places.hashes,
    packArray(places.offsets),
    packArray(places.lengths),
    settings.claimWindowMs,
  ]);
  await addUsage(tx, vault, { storedBytes: allBytes - sum(existing.map((block) => block.byteLength)) });
  if (existing.length === 0) return places.lengths.length;

  const damaged = existing.filter((block) => block.damaged);
  if (damaged.length > 0) await healBlocks(tx, object, places, damaged);
  const unneeded = existing.filter((block) => !block.damaged);
  const liveBytes = allBytes - sum(unneeded.map((block) => block.byteLength));
  await setLiveBytes(tx, object, liveBytes, settings.objectDeleteDelayMs);
  await shrinkObjects(tx, vault, damaged, settings.objectDeleteDelayMs);
  return places.lengths.length - unneeded.length;
}

async function healBlocks(
  tx: Transaction,
  object: { vault: number; objectId: number },
  places: BlockPlaces,
  damaged: readonly { hash: Buffer }[],
): Promise<void> {
  const position = new Map(
    Array.from({ length: hashCount(places.hashes) }, (_, i) => [hashKeyAt(places.hashes, i), i]),
  );
  const healed = damaged.map((block) => position.get(block.hash.toString('latin1'))!);
  await tx.query(sql.healBlocks, [
    object.vault,
    object.objectId,
    joinHashes(healed.map((i) => hashAt(places.hashes, i))),
    packArray(healed.map((i) => places.offsets[i]!)),
    packArray(healed.map((i) => places.lengths[i]!)),
  ]);
}

/** Turns an object whose bytes are stored live. @returns false when its row is gone or no longer `writing` */
export async function makeLive(
  tx: Transaction,
  object: { vault: number; objectId: number; key: string },
  liveBytes: number,
): Promise<boolean> {
  return (await tx.query(sql.makeLive, [object.vault, object.objectId, object.key, liveBytes])).length > 0;
}

/** Says what of a live object is in use after all; of which nothing is, dies. */
export async function setLiveBytes(
  tx: Transaction,
  object: { vault: number; objectId: number },
  liveBytes: number,
  objectDeleteDelayMs: number,
): Promise<void> {
  await tx.query(sql.setLiveBytes, [object.vault, object.objectId, liveBytes, objectDeleteDelayMs]);
}

/** Takes the bytes of blocks that left them off their objects, in the order of ids; an object no block row names any more dies. */
export async function shrinkObjects(
  tx: Transaction,
  vault: number,
  left: readonly { objectId: number; byteLength: number }[],
  objectDeleteDelayMs: number,
): Promise<void> {
  const bytes = new Map<number, number>();
  for (const block of left) bytes.set(block.objectId, (bytes.get(block.objectId) ?? 0) + block.byteLength);
  const ids = [...bytes.keys()].sort((a, b) => a - b);
  for (const id of ids) await tx.query(sql.takeLiveBytes, [vault, id, bytes.get(id)]);
  for (const id of ids) await tx.query(sql.buryEmpty, [vault, id, objectDeleteDelayMs]);
}

/** Whether nothing was ever stored by this catalog: then a store without a trace of it is new, and not lost. */
export async function catalogIsEmpty(db: Database): Promise<boolean> {
  return (await db.query(sql.anyObject)).length === 0;
}

export interface BlockPlace {
  /** Position of the hash in the request. */
  index: number;
  key: string;
  offset: number;
  length: number;
}

/** Where blocks lie. Blocks the vault does not hold, or that are damaged, are left out. */
export async function findBlockPlaces(db: Database, vault: number, hashes: Buffer): Promise<BlockPlace[]> {
  type Row = { hash: Buffer; key: string; offset: number; length: number };
  const rows = await db.query<Row>(sql.findPlaces, [vault, hashes]);
  const byHash = new Map(rows.map((row) => [hashKey(row.hash), row]));
  const places: BlockPlace[] = [];
  for (let index = 0; index < hashCount(hashes); index++) {
    const row = byHash.get(hashKeyAt(hashes, index));
    if (row) places.push({ index, key: row.key, offset: row.offset, length: row.length });
  }
  return places;
}
