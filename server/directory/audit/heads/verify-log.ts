/**
 * Finds whether a log is still what was written: every act is hashed again, here, and the hashes are held against the
 * signed heads in the bucket. Rows and heads are read once, side by side in the order of numbers, in bounded memory,
 * while the log goes on.
 *
 * Who can write rows can make them follow from one another again, and who can write to the bucket can take heads away.
 * Neither can sign: a head that is there says what the log was, and the next head says that it was there.
 */
import { actHash, noHash } from '../act-bytes.ts';
import type { AuditKeys } from './audit-key.ts';
import { believedHeads, believedOf, findForgottenHead } from './believed.ts';
import type { Find, FindingKind, LogReport } from './findings.ts';
import { type ActRow, actsAfter, findAct, type LogHead, listLogs, nowMicroseconds, readLogHead } from './log-rows.ts';
import type { AuditStorage } from './sign-heads.ts';
import { type Expiry, type Head, type Resumption, tenantsInBucket } from './signed.ts';

export interface VerifyOptions {
  signal?: AbortSignal;
  /** How old the oldest act without a signed head may be. */
  unsignedMsMax?: number;
  findingsMax?: number;
}

const unsignedMsDefault = 3 * 3_600_000; // heads are signed hourly

/** Every log that the catalog or the bucket knows of, one by one. */
export async function* verifyLogs(
  storage: AuditStorage,
  keys: AuditKeys,
  options: VerifyOptions = {},
): AsyncGenerator<LogReport> {
  const tenants = new Set([...(await listLogs(storage.database)), ...(await tenantsInBucket(storage))]);
  for (const tenant of [...tenants].toSorted((a, b) => a - b)) yield verifyLog(storage, keys, tenant, options);
}

export async function verifyLog(
  storage: AuditStorage,
  keys: AuditKeys,
  tenant: number,
  { signal, unsignedMsMax = unsignedMsDefault, findingsMax = 100 }: VerifyOptions = {},
): Promise<LogReport> {
  const { database } = storage;
  // The catalog's own row first: what it names is there when the acts are read after it.
  const logHead = await readLogHead(database, tenant);
  const walk = new Walk(storage, keys, tenant, { logHead, findingsMax });
  await walk.begin();
  for (let more = true; more; ) {
    for await (const act of actsAfter(database, { tenant, after: walk.at.number }, signal)) await walk.follow(act);
    // A head may have been signed since the last page was read, for acts that were written since.
    more = walk.head !== undefined && (await findAct(database, tenant, walk.at.number + 1)) !== null;
  }
  return walk.end(unsignedMsMax);
}

class Walk {
  readonly storage: AuditStorage;
  readonly keys: AuditKeys;
  readonly tenant: number;
  readonly logHead: LogHead | null;
  readonly report: LogReport;
  readonly find: Find;
  /** The last act that was read, and what the next follows on. An empty hash: nothing tells. */
  at = { number: 0, hash: noHash as Buffer };
  /** The next head, and the one before it. */
  head: Head | undefined;
  lastHead: Head | undefined;
  private heads: AsyncGenerator<Head, undefined>;
  private resumptions: Resumption[] = [];
  /** The oldest act that no head covers. */
  private unsigned: { from: number; at: bigint } | null = null;
  /** Acts do not agree with the heads, which has been told. */
  private diverged = false;

  constructor(
    storage: AuditStorage,
    keys: AuditKeys,
    tenant: number,
    { logHead, findingsMax }: { logHead: LogHead | null; findingsMax: number },
  ) {
    this.storage = storage;
    this.keys = keys;
    this.tenant = tenant;
    this.logHead = logHead;
    const found = { findings: [] as LogReport['findings'], moreFindings: 0 };
    const nothing = { acts: 0, first: null, last: null, heads: 0, signedTo: 0, expiredTo: 0, resumptions: [] };
    this.report = { tenant, ...nothing, ...found };
    this.find = (kind: FindingKind, from, to, detail) => {
      if (this.report.findings.length < findingsMax) this.report.findings.push({ kind, from, to, detail });
      else this.report.moreFindings++;
    };
    this.heads = believedHeads(storage, keys, tenant, this.find);
  }

  async begin(): Promise<void> {
    this.resumptions = await believedOf(
      this.storage,
      this.keys,
      { kind: 'resumption', tenant: this.tenant },
      this.find,
    );
    for (const { number, follows, agreesTo, reason } of this.resumptions)
      this.report.resumptions.push({ number, follows, agreesTo, reason });
    const expiry = await this.newestExpiry(this.find);
    if (expiry) this.goOnAfter(expiry);
    this.report.signedTo = this.at.number;
    this.head = (await this.heads.next()).value;
    await this.passHeads(this.at.number);
  }

  private async newestExpiry(find: Find): Promise<Expiry | undefined> {
    return (await believedOf(this.storage, this.keys, { kind: 'expiry', tenant: this.tenant }, find)).at(-1);
  }

  private goOnAfter({ number, hash }: Expiry): void {
    this.at = { number, hash: Buffer.from(hash, 'hex') };
    this.report.expiredTo = number;
  }

  private async nextHead(): Promise<void> {
    this.report.heads++;
    this.lastHead = this.head;
    this.head = (await this.heads.next()).value;
  }

  private async passHeads(upTo: number): Promise<void> {
    while (this.head && this.head.number <= upTo) await this.nextHead();
  }

  /** Signed before a loss, about acts that are gone or were written anew since. */
  private wasLost({ number }: Head): boolean {
    return this.resumptions.some((lost) => number > lost.agreesTo && number < lost.number);
  }

  async follow(act: ActRow): Promise<void> {
    const number = Number(act.number);
    if (number !== this.at.number + 1 && (await this.crossGap(number)) === 'expired') return;
    const { hash } = this.at;
    if (hash.byteLength > 0 && !actHash(hash, act).equals(act.hash))
      this.find(
        'altered',
        number,
        number,
        'it does not follow from the act before it: it was altered, or that one was',
      );
    this.report.acts++;
    this.report.first ??= number;
    this.report.last = number;
    this.at = { number, hash: act.hash };
    this.unsigned ??= { from: number, at: BigInt(act.at) };
    await this.compareHeads(act);
    if (this.logHead?.number === number && !this.logHead.hash.equals(act.hash))
      this.find('log_head', number, number, "this is not the act that the log's head row names");
  }

  /** Why there is no act of the number that should come. */
  private async crossGap(number: number): Promise<'expired' | 'crossed'> {
    const { at } = this;
    const resumed = this.resumptions.find((lost) => lost.number === number);
    if (resumed?.follows === at.number && resumed.hash === at.hash.toString('hex')) return 'crossed';
    const newer = await this.newestExpiry(() => {});
    if (newer && newer.number > at.number) this.goOnAfter(newer); // while we read
    if (number <= this.at.number) return 'expired';
    if (number === this.at.number + 1) return 'crossed';
    this.find('missing', this.at.number + 1, number - 1, 'there are acts before and after these, and not these');
    await this.passHeads(number - 2);
    // From a signed head on it can be told again; otherwise the next act is taken at its word.
    const known = this.head?.number === number - 1 ? Buffer.from(this.head.hash, 'hex') : Buffer.alloc(0);
    this.at = { number: number - 1, hash: known };
    return 'crossed';
  }

  private async compareHeads(act: ActRow): Promise<void> {
    const number = Number(act.number);
    await this.passHeads(number - 1);
    const { head } = this;
    if (head?.number !== number) return;
    this.unsigned = null;
    if (!this.wasLost(head)) {
      const agrees = head.hash === act.hash.toString('hex');
      if (!agrees && !this.diverged)
        this.find('rewritten', this.report.signedTo + 1, number, 'these acts are not those that were signed');
      if (agrees) this.report.signedTo = number;
      this.diverged = !agrees;
    }
    await this.nextHead();
  }

  async end(unsignedMsMax: number): Promise<LogReport> {
    const { report, find, logHead, at } = this;
    await this.passHeads(Number.MAX_SAFE_INTEGER);
    const signed = this.lastHead && !this.wasLost(this.lastHead) ? this.lastHead.number : 0;
    const written = Math.max(logHead?.number ?? 0, signed);
    if (written > at.number)
      find('truncated', at.number + 1, written, 'the log ends before these, and they were written');

    const { database } = this.storage;
    const now = await readLogHead(database, this.tenant);
    if (!now && (report.last !== null || this.lastHead))
      find('log_head', at.number, null, "the row that keeps the log's end is gone");
    if (now && now.number < (report.last ?? 0))
      find('log_head', now.number + 1, null, "the row that keeps the log's end is behind the acts");
    if (logHead)
      await findForgottenHead(this.storage, this.keys, { logHead, tenant: this.tenant, last: this.lastHead }, find);

    const { unsigned } = this;
    const lateBefore = (await nowMicroseconds(database)) - BigInt(unsignedMsMax) * 1_000n;
    if (unsigned && unsigned.at < lateBefore)
      find('unsigned', unsigned.from, null, 'acts from here on are not signed, although hours old');
    return report;
  }
}
