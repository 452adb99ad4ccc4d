/** What one request's body holds of the byte budget (budget.ts, the only one that changes it). */
import type { Problem } from '../../protocol/problems.ts';
import type { ByteBudget } from './budget.ts';
import type { RateMeter } from './rate-meter.ts';

/**
 * Where an account stands. `idle`: nobody reads the body yet. `receiving`: its sender's turn. `waiting`: ours, for
 * room. `received`: whole. `leaving`: told to end; its bytes come back when its request has unwound.
 */
type AccountState = 'idle' | 'receiving' | 'waiting' | 'received' | 'leaving' | 'closed';

/** One request's body. Closed exactly once, when the request is over and nothing holds its bytes any more. */
export class BudgetAccount {
  readonly budget: ByteBudget;
  /** Bytes the body may still turn out to have: its Content-Length, or its route's bound. */
  readonly expectedBytes: number;
  windowBytes: number;
  device: number | null = null;
  heldBytes = 0;
  /** How long it has waited for room in all its waits. */
  waitedMs = 0;
  /** Bytes that have come so far: what the windows are sized by. */
  arrivedBytes = 0;
  state: AccountState = 'idle';
  readonly meter: RateMeter;
  /** It waits for room as long as any does, however little it has delivered. */
  readonly isPatient: boolean;
  /** Called at most once, with the reason, when the budget ends this body. */
  onEnd: (reason: Problem) => void = () => {};

  constructor(budget: ByteBudget, body: Pick<BudgetAccount, 'expectedBytes' | 'windowBytes' | 'meter' | 'isPatient'>) {
    this.budget = budget;
    this.expectedBytes = body.expectedBytes;
    this.windowBytes = body.windowBytes;
    this.meter = body.meter;
    this.isPatient = body.isPatient;
  }

  get neededBytes(): number {
    return this.state === 'received' || this.state === 'leaving' ? 0 : this.expectedBytes - this.heldBytes;
  }
}
