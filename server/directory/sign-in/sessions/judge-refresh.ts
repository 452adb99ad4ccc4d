/**
 * What becomes of a refresh token that is presented: pure. A session has one that is in force. The one before it is taken
 * for a moment longer, while the one in force was not used, because the answer that brought it may have been lost; any
 * other that carries the session's handle was used long ago, so somebody has a copy, and nobody can tell who.
 */

export interface RefreshState {
  /** SHA-256 of the secrets: in force, and the one before it. */
  current: Buffer;
  previous: Buffer | null;
  ended: boolean;
  /** Past its 30 days without use, or the session past its 90. */
  over: boolean;
  /** The one in force was handed out a moment ago. */
  inGrace: boolean;
}

/**
 * `repeated`: this very exchange was made already, by a COMMIT whose outcome was not known. `exchange`: the one in force.
 * `again`: the one before it, in its grace. `reused`: the session is to be ended.
 */
export type RefreshJudgement = 'repeated' | 'exchange' | 'again' | 'reused' | 'ended' | 'over';

export function judgeRefresh(state: RefreshState, presented: Buffer, drawn: Buffer): RefreshJudgement {
  if (state.ended) return 'ended';
  if (state.over) return 'over';
  if (state.current.equals(drawn)) return 'repeated';
  if (state.current.equals(presented)) return 'exchange';
  if (state.inGrace && state.previous?.equals(presented)) return 'again';
  return 'reused';
}
