/**
 * Links to a staged archive: whoever has one fetches it without a sign-in, so that browsers and curl do. A signature over what
 * it opens, until when, and who made it, with a key that comes from that of the staged archive, which the server's own key
 * seals: so every replica knows it, the database alone cannot make one, and no link outlives what it opens. It gives
 * what its maker may have by then, and nothing else.
 */
import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { Problem } from '../../../../protocol/problems.ts';
import type { Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import { actOf } from '../requests.ts';
import { lockRestoreRow, type RestoreRow } from '../rows.ts';
import { type Asker, askerNow } from './asker.ts';
import { openStagedKey } from './keys.ts';
import { endOfLink, type LinkedRestore, readLinked, readLiveStaged, type StagedRow } from './rows.ts';

interface Linked extends Pick<LinkedRestore, 'restore' | 'askerKind' | 'askerId'> {
  attempt: string;
  length: number;
  /** Seconds since 1970. */
  ends: number;
}

/** @returns base64url */
export function signatureOf(secret: Uint8Array, linked: Linked): string {
  const { restore, askerKind, askerId, attempt, length, ends } = linked;
  const key = Buffer.from(hkdfSync('sha256', secret, '', 'holdfast staged links', 32));
  const text = ['holdfast link 1', restore, attempt, length, ends, askerKind, askerId].join('\n');
  return createHmac('sha256', key).update(text).digest('base64url');
}

export interface LinkMaterial {
  attempt: string;
  length: number;
  secret: Buffer;
}

/** What signs links to it. @throws Problem conflict: it is not there to be fetched, or is not this asker's; unavailable */
export async function prepareLink(
  { database, keys }: Pick<Directory, 'database' | 'keys'>,
  row: RestoreRow,
): Promise<LinkMaterial> {
  if (row.kind !== 'staged')
    throw new Problem('conflict', `this restore is ${row.kind}: only a staged one has links`, { kind: row.kind });
  const staged =
    row.state === 'completed' ? await readLiveStaged(database, { tenant: row.tenant, restore: row.id }) : null;
  if (!isReady(staged))
    throw new Problem('conflict', 'there is nothing to fetch (any more, or yet)', { state: row.state });
  const { attempt, length, keyRecord } = staged;
  return { attempt, length, secret: await openStagedKey(keys, attempt, keyRecord) };
}

/**
 * @returns when it ends, in seconds since 1970: so many seconds from now, and not after the archive expires
 * @throws Problem conflict
 */
export async function makeLink(
  tx: Transaction,
  by: By,
  { tenant, restore, attempt, seconds }: { tenant: number; restore: number; attempt: string; seconds: number },
): Promise<number> {
  const row = await lockRestoreRow(tx, { tenant, restore });
  if (row?.state !== 'completed' || row.stagedAttempt !== attempt)
    throw new Problem('conflict', 'there is nothing to fetch any more', { state: row?.state ?? null });
  const ends = await endOfLink(tx, { tenant, restore }, seconds);
  await record(tx, by, actOf('restore.link', row, 'done', { expiresAt: new Date(ends * 1_000).toISOString() }));
  return ends;
}

const noSuchThing = (): Problem => new Problem('not_found', 'there is no such thing here');

/** @returns whose link it is. @throws Problem not_found, whatever is wrong with it; unavailable */
export async function openLink(
  { database, keys }: Pick<Directory, 'database' | 'keys'>,
  asked: { restore: number; ends: number; signature: string },
): Promise<Asker & LinkedRestore> {
  const linked = await readLinked(database, asked.restore, asked.ends);
  const staged = linked && (await readLiveStaged(database, linked));
  if (!linked || !isReady(staged)) throw noSuchThing();
  const { attempt, length, keyRecord } = staged;
  const secret = await openStagedKey(keys, attempt, keyRecord);
  const wanted = Buffer.from(signatureOf(secret, { ...linked, attempt, length, ends: asked.ends }));
  const given = Buffer.from(asked.signature);
  if (given.byteLength !== wanted.byteLength || !timingSafeEqual(given, wanted)) throw noSuchThing();
  return { ...linked, ...(await askerNow(database, linked)) };
}

function isReady(staged: StagedRow | null): staged is StagedRow & { length: number; keyRecord: Buffer } {
  return staged?.state === 'ready' && staged.length !== null && staged.keyRecord !== null;
}
