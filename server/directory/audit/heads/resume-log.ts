/**
 * Goes on with a log after acts were lost: the database was restored to an earlier moment, and the bucket holds heads
 * that it does not know. Nothing is signed then, until somebody answers for the loss here. The log goes on above every
 * number that was ever signed, so that no number means two acts; that it does, from where and why is an act, and is
 * signed and put into the bucket. Verifying tells it for ever.
 */
import { Problem } from '../../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';
import { type By, serverLog } from '../act.ts';
import { record } from '../record.ts';
import type { AuditKeys } from './audit-key.ts';
import { enterSignedHead, findAct, readLogHead } from './log-rows.ts';
import type { AuditStorage } from './sign-heads.ts';
import {
  type Document,
  type Head,
  listSigned,
  putSigned,
  type Resumption,
  readDocument,
  readSigned,
  signed,
} from './signed.ts';

const sql = {
  skip: statement('directory.skipActNumbers', 'SELECT skip_act_numbers($1, $2) AS had'),
};

const reasonMax = 1_000;

/**
 * @returns from which number on the log goes on
 * @throws Problem conflict when nothing of it is lost, or the bucket's newest head is not signed by us
 */
export async function resumeLog(storage: AuditStorage, keys: AuditKeys, by: By, reason: string): Promise<Resumption> {
  if (reason.trim() === '' || reason.length > reasonMax)
    throw new Problem('out_of_bounds', `a reason has 1 to ${reasonMax} characters`, { field: 'reason' });
  const tenant = by.tenant ?? serverLog;
  const { newest, agreesTo } = await lookAtHeads(storage, keys, tenant);
  if (agreesTo === newest.content.number)
    throw new Problem('conflict', `the log agrees with its newest signed head, ${agreesTo}: nothing of it is lost`);

  // Above every number that was signed, also by a try that failed after it had been put into the bucket.
  let above = newest.content.number;
  for await (const { number } of listSigned(storage, { kind: 'resumption', tenant })) above = Math.max(above, number);
  return storage.database.transaction(async (tx) => {
    const entered = await goOnAbove(tx, { tenant, newest, above });
    const details = { reason, follows: entered.follows, agreesTo };
    const target = { kind: 'log', id: tenant, name: null } as const;
    await record(tx, by, { action: 'log.resume', target, organization: null, result: 'done', details });
    const place = { format: 1 as const, catalog: storage.catalogId, tenant };
    const resumption: Resumption = { kind: 'resumption', ...place, ...entered, agreesTo, reason };
    // The one request to the store inside a transaction: committed without it, the log has a gap that nobody signed for.
    await putSigned(storage, signed(keys, resumption));
    return resumption;
  });
}

/** Locks the log's head, and so comes after all other locks. */
async function goOnAbove(
  tx: Transaction,
  { tenant, newest, above }: { tenant: number; newest: Document<Head>; above: number },
): Promise<Pick<Resumption, 'number' | 'follows' | 'hash'>> {
  const [row] = await tx.query<{ had: number }>(sql.skip, [tenant, above]);
  const head = (await readLogHead(tx, tenant))!;
  await enterSignedHead(tx, tenant, {
    number: newest.content.number,
    document: newest.text,
    before: head.signedDocument,
  });
  return { number: head.number + 1, follows: row!.had, hash: head.hash.toString('hex') };
}

/** The newest head in the bucket, and the newest that the acts agree with. */
async function lookAtHeads(
  storage: AuditStorage,
  keys: AuditKeys,
  tenant: number,
): Promise<{ newest: Document<Head>; agreesTo: number }> {
  const names: { key: string; number: number }[] = [];
  for await (const name of listSigned(storage, { kind: 'head', tenant })) names.push(name);
  const expiredTo = (await readLogHead(storage.database, tenant))?.expiredTo ?? 0;
  let newest: Document<Head> | null = null;
  for (const { key, number } of names.toReversed()) {
    const read = readSigned(keys, 'head', { key, text: (await readDocument(storage.objects, key)) ?? '' });
    if (typeof read === 'string')
      throw new Problem('conflict', `${key} in the bucket was not signed with a key of the key file (${read})`);
    newest ??= read;
    const act = await findAct(storage.database, tenant, number);
    if (act?.hash.toString('hex') === read.content.hash || number <= expiredTo) return { newest, agreesTo: number };
  }
  if (!newest) throw new Problem('conflict', 'the bucket holds no signed head of this log');
  return { newest, agreesTo: 0 };
}
