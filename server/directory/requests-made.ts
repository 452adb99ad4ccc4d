/**
 * Changes that were made, by the key of whoever asked for them. A change writes its answer here in its own transaction:
 * asked again with the same key it is answered as the first time and not made again, whether the first answer was lost
 * on the network or the outcome of its COMMIT was never known.
 *
 * Lock order: this row first, before anything that the change locks. Two requests with one key meet here and nowhere else:
 * the second waits at its insert for the first to end.
 */
import { Problem } from '../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../storage/catalog/database.ts';

const sql = {
  begin: statement(
    'directory.beginRequest',
    `INSERT INTO requests_made (requester, key, request_sha256, status, answer) VALUES ($1, $2, $3, 0, 'null')
         ON CONFLICT (requester, key) DO NOTHING RETURNING true AS first`,
  ),
  find: statement(
    'directory.findRequest',
    `SELECT request_sha256 AS "requestSha256", status, answer FROM requests_made WHERE requester = $1 AND key = $2`,
  ),
  end: statement(
    'directory.endRequest',
    'UPDATE requests_made SET status = $3, answer = $4::jsonb WHERE requester = $1 AND key = $2',
  ),
  forget: statement(
    'directory.forgetRequests',
    `DELETE FROM requests_made WHERE ctid IN (
       SELECT ctid FROM requests_made WHERE made_at < now() - $1 * interval '1 ms' ORDER BY made_at LIMIT 10000)
     RETURNING 1`,
  ),
};

export interface RequestKey {
  /** Who asks, as `user 12`: keys of two requesters have nothing to do with one another. */
  requester: string;
  /** Of the caller's choosing, or drawn for a request that brings none. */
  key: string;
  /** Of what was asked: method, path, query and body, without what is secret. */
  sha256: Buffer;
}

export interface MadeRequest {
  status: number;
  /** As it was stored: JSON. Never with a secret in it. */
  answer: unknown;
  /** It was made before, in an earlier request or in an attempt whose outcome was not known. */
  repeated: boolean;
}

/**
 * Makes a change once.
 * @param make the change; its answer is stored as JSON
 * @throws Problem idempotency_key_reused when the key was used for something else, and what `make` throws
 */
export async function madeOnce(
  tx: Transaction,
  { requester, key, sha256 }: RequestKey,
  make: () => Promise<{ status: number; answer: unknown }>,
): Promise<MadeRequest> {
  const begun = await tx.query(sql.begin, [requester, key, sha256]);
  if (begun.length === 0) {
    const [found] = await tx.query<{ requestSha256: Buffer; status: number; answer: unknown }>(sql.find, [
      requester,
      key,
    ]);
    // It was forgotten between the two: as if it had never been.
    if (!found) throw new Problem('unavailable', 'ask again', { retryAfterSeconds: 1 });
    if (!found.requestSha256.equals(sha256))
      throw new Problem('idempotency_key_reused', 'this Idempotency-Key was used with another request', {
        field: 'idempotency-key',
      });
    return { status: found.status, answer: found.answer, repeated: true };
  }
  const { status, answer } = await make();
  const text = JSON.stringify(answer ?? null);
  await tx.query(sql.end, [requester, key, status, text]);
  return { status, answer: JSON.parse(text), repeated: false };
}

/**
 * The answer to a request that was made, for one that cannot be made again because of what it did: what it was about is
 * gone, or out of the requester's reach.
 * @returns null: none was made with this key, or with it another
 */
export async function findMade(
  db: Database | Transaction,
  { requester, key, sha256 }: RequestKey,
): Promise<MadeRequest | null> {
  const [found] = await db.query<{ requestSha256: Buffer; status: number; answer: unknown }>(sql.find, [
    requester,
    key,
  ]);
  if (!found?.requestSha256.equals(sha256)) return null;
  return { status: found.status, answer: found.answer, repeated: true };
}

const batchRows = 10_000;
const batchesMax = 100;

/** Forgets those that are older. @returns how many; more may be left when it is 1,000,000 */
export async function forgetRequestsMade(db: Database, olderThanMs: number): Promise<number> {
  let forgotten = 0;
  for (let batch = 0; batch < batchesMax; batch++) {
    const { length } = await db.query(sql.forget, [olderThanMs]);
    forgotten += length;
    if (length < batchRows) break;
  }
  return forgotten;
}
