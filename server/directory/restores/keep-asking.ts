/**
 * Asks every so often, one question after the other, whether what is being sent may go on: for as long as it is, also while its
 * reader takes nothing. Where the answer is no, or nobody could be asked for too long, it is stopped and its answer cut.
 */
import { Problem } from '../../../protocol/problems.ts';

export interface KeepAsking {
  everyMs: number;
  /** How long it goes on when nobody can be asked. */
  unaskedMsMax: number;
  /** @returns why it stops; null: it goes on. @throws Problem of the caller's when whoever asked may not any more; else a fault */
  ask: () => Promise<Error | null>;
  /** What a refusal that `ask` threw stops it with. */
  refused: (problem: Problem) => Error;
  unasked: (why: string) => Error;
  stop: AbortController;
  /** Breaks the answer off. */
  cut: () => void;
  onFault: (error: unknown) => void;
}

export function keepAsking(asking: KeepAsking): { end: () => void } {
  const { everyMs, unaskedMsMax, ask, refused, unasked, stop, cut, onFault } = asking;
  let heardAt = performance.now();
  let isOver = false;
  let timer: NodeJS.Timeout;
  const stopFor = (why: Error): void => {
    if (isOver) return;
    isOver = true;
    stop.abort(why);
    cut();
  };
  const look = async (): Promise<void> => {
    const begun = performance.now();
    try {
      const why = await ask();
      if (why) return stopFor(why);
      heardAt = begun;
    } catch (error) {
      if (error instanceof Problem && error.status < 500 && error.status !== 429) return stopFor(refused(error));
      onFault(error);
      if (performance.now() - heardAt > unaskedMsMax)
        return stopFor(unasked('nobody could be asked whether it may go on'));
    }
    if (!isOver) timer = setTimeout(look, everyMs).unref();
  };
  timer = setTimeout(look, everyMs).unref();
  return {
    end() {
      isOver = true;
      clearTimeout(timer);
    },
  };
}
