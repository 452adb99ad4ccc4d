/** The order in which several objects are locked: that of their ids, whoever locks them (docs/decisions/deleting.md). */

/**
 * The SQL that locks the live ones of these objects, in the order of their ids. An UPDATE of several rows by itself
 * locks them in the order of whichever index the planner takes, and then an upload that heals blocks of two of them
 * waits for it while it waits for the upload.
 * @param ids parameter with the array of ids; $1 is the vault
 */
export const lockLiveObjects = (ids: string): string =>
  `SELECT object_id FROM objects WHERE vault_id = $1 AND object_id = ANY (${ids}::bigint[]) AND state = 'live'
    ORDER BY object_id FOR NO KEY UPDATE`;
