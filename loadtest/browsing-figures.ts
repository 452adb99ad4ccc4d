/** What looking around in an archive took. Times are in milliseconds, and medians. */

export interface PageFigures {
  limit: number;
  ms: number;
  p99Ms: number;
  /** A plain SELECT of the same rows, in turns with it. */
  plainMs: number;
}

export interface SearchFigures {
  what: string;
  hits: number;
  /** Until the first hit; null: there was none. */
  firstMs: number | null;
  ms: number;
  /** The database alone looking at every name for some bytes, in turns with it. */
  plainMs: number;
  /** The longest that any step took, of all rounds. */
  longestStepMs: number;
}

export interface BrowsingFigures {
  files: number;
  folders: number;
  pages: Record<string, PageFigures>;
  searches: SearchFigures[];
}
