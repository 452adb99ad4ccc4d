/** What keeps the engine right, and how it reads in the code: to be taken out, one guard at a time, by mutations.ts. */

export interface Guard {
  name: string;
  /** What goes wrong without it. */
  why: string;
  /** Each text must be there exactly once. */
  edits: { file: string; find: string; replace: string }[];
  /** Seeds to try before it counts as missed; fewer is not better, so only where more are needed. */
  seeds?: number;
}

export const one = (file: string, find: string, replace: string): Guard['edits'] => [{ file, find, replace }];
