/**
 * Keeps a flood of refused acts from filling the log. Of one party (without an id: of one address), action and reason, ten
 * acts a minute are written, and three hundred of everybody's. What is beyond that is counted, and told in one act when the
 * minute is over (tell-repeats.ts). So a flood is in the log, with its size, and what is refused for another reason meanwhile
 * (a right password with a wrong code, among a thousand wrong passwords) is too.
 */
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { type Act, type ActingParty, type By, serverLog } from './act.ts';
import { cleanText } from './clean.ts';

/** Acts a minute that are written. */
export const repeatLimits = { ofOneParty: 10, ofAll: 300 } as const;
const whyMax = 64;

const sql = {
  // Known already as one who repeats themselves: no other row is touched, and no other locked.
  countMore: statement(
    'directory.countRepeat',
    `UPDATE act_repeats SET seen = seen + 1
      WHERE tenant_id = $1 AND action = $2 AND why = $3 AND party = $4 AND minute = date_trunc('minute', now()) AND seen >= $5
     RETURNING seen`,
  ),
  count: statement(
    'directory.countRepeated',
    `INSERT INTO act_repeats AS r (tenant_id, action, why, party, minute, party_kind, party_id, party_name, address)
     VALUES ($1, $2, $3, $4, date_trunc('minute', now()), $5, $6, $7, $8)
     ON CONFLICT (tenant_id, action, why, party, minute) DO UPDATE SET seen = r.seen + 1 RETURNING seen`,
  ),
  // The minute before may still be written by transactions that began in it.
  takeOver: statement(
    'directory.takeRepeats',
    `DELETE FROM act_repeats r USING (
       SELECT tenant_id, action, why, party, minute FROM act_repeats WHERE minute < now() - interval '2 minutes'
        ORDER BY minute LIMIT $1 FOR UPDATE SKIP LOCKED) due
      WHERE r.tenant_id = due.tenant_id AND r.action = due.action AND r.why = due.why AND r.party = due.party AND r.minute = due.minute
     RETURNING r.tenant_id AS tenant, r.action, r.why, r.party, r.minute, r.seen, r.party_kind AS kind, r.party_id AS id, r.party_name AS name, r.address`,
  ),
};

/** Everybody's row. No party is called so. */
export const everybody = '';

/**
 * Whether an act is among those that are written. Lock order: everybody's row, the party's; or the party's alone.
 * @param act.details.why the reason, in words of ours: there are few of them, so that nobody makes up new ones
 */
export async function isAmongFirst(tx: Transaction, by: By, act: Pick<Act, 'action' | 'details'>): Promise<boolean> {
  const party = partyKey(by);
  const { action, details } = act;
  const place = [by.tenant ?? serverLog, action, typeof details.why === 'string' ? cleanText(details.why, whyMax) : ''];
  const { ofOneParty, ofAll } = repeatLimits;
  if ((await tx.query(sql.countMore, [...place, party, ofOneParty])).length > 0) return false;
  const { kind, id, name } = by.party;
  const several: ActingParty = { kind: 'server', id: null, name: 'several' };
  const [all] = await tx.query<{ seen: number }>(sql.count, [
    ...place,
    everybody,
    several.kind,
    null,
    several.name,
    null,
  ]);
  if (all!.seen > ofAll) return false;
  const about = [
    kind,
    id === null ? null : cleanText(String(id)),
    cleanText(name),
    by.address && cleanText(by.address),
  ];
  const [own] = await tx.query<{ seen: number }>(sql.count, [...place, party, ...about]);
  return own!.seen <= ofOneParty;
}

/** A name is what somebody typed, so it does not tell one from the other. */
function partyKey({ party, address }: By): string {
  return cleanText(party.id === null ? `${party.kind} at ${address ?? 'this server'}` : `${party.kind} ${party.id}`);
}

/** What was counted of one party, or of everybody, in one minute. */
export interface Repeat {
  tenant: number;
  action: string;
  /** Why it was refused; empty: its acts say no reason. */
  why: string;
  party: string;
  minute: Date;
  seen: number;
  kind: ActingParty['kind'];
  id: string | null;
  name: string;
  address: string | null;
}

/** Takes some of what was counted in minutes that are over. */
export function takeRepeats(tx: Transaction, atMost: number): Promise<Repeat[]> {
  return tx.query<Repeat>(sql.takeOver, [atMost]);
}
