/** What verifying a log tells. */
import type { Resumption } from './signed.ts';

/**
 * `altered`: an act does not follow from the one before it: it or that one was changed. `missing`: there are acts
 * before and after, and none of these numbers. `truncated`: the log ends before it should. `rewritten`: the acts follow
 * from one another, and are not those that were signed. `head_forged`: what lies in the bucket was not signed with a
 * key of ours. `head_missing`: a head that another names, or that the catalog remembers, is not in the bucket.
 * `log_head`: the row that keeps the end of the log is gone or another. `unsigned`: acts are not signed for hours.
 */
export type FindingKind =
  | 'altered'
  | 'missing'
  | 'truncated'
  | 'rewritten'
  | 'head_forged'
  | 'head_missing'
  | 'log_head'
  | 'unsigned';

export interface Finding {
  kind: FindingKind;
  /** The number from which on; and the last one it is about, where that is known. */
  from: number;
  to: number | null;
  detail: string;
}

export type Find = (kind: FindingKind, from: number, to: number | null, detail: string) => void;

export interface LogReport {
  /** 0: the server's own log. */
  tenant: number;
  /** Acts read. */
  acts: number;
  /** Numbers of the first and the last of them; null: there are none. */
  first: number | null;
  last: number | null;
  /** Signed heads that could be believed. */
  heads: number;
  /** Up to this number acts agree with a signed head. */
  signedTo: number;
  /** Acts up to this number have expired, as was signed. */
  expiredTo: number;
  /** Losses that somebody has answered for with "audit resume". */
  resumptions: Pick<Resumption, 'number' | 'follows' | 'agreesTo' | 'reason'>[];
  findings: Finding[];
  /** Findings there were beyond those told. */
  moreFindings: number;
}
