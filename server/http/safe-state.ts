/**
 * Whether half-sent bodies can all still be received: the banker's algorithm for one resource (Dijkstra, EWD 108).
 */

export interface OpenBody {
  heldBytes: number;
  /** What it may still take before it is whole; 0 when it is, or has been told to end: then it will give back. */
  neededBytes: number;
}

/**
 * True when there is an order in which every body gets what it needs, from what is free and what those before it
 * have given back. The order by need is such an order if any is.
 */
export function isSafe(freeBytes: number, bodies: readonly OpenBody[]): boolean {
  let free = freeBytes;
  for (const body of [...bodies].sort((a, b) => a.neededBytes - b.neededBytes)) {
    if (body.neededBytes > free) return false;
    free += body.heldBytes;
  }
  return true;
}
