/**
 * Which archive a device may read because something of it is being pushed to it: while that is open, and no longer. It goes
 * beyond `devices.readOthers`, and over devices that are deactivated, because somebody who may has asked for it.
 */
import { statement, type Transaction } from '../../../../storage/catalog/database.ts';

const sql = statement(
  'directory.isPushedArchive',
  `SELECT 1 FROM device_commands c JOIN restore_requests r ON r.restore_id = c.restore_id
    WHERE c.guid = $1::bigint AND c.tenant_id = $2 AND c.state IN ('queued', 'sent', 'running') AND c.expires_at > now()
      AND r.vault_id = $3 AND r.archive_id = $4 LIMIT 1`,
);

export async function isPushedTo(
  db: Transaction,
  device: { guid: string; tenantId: number; vault: number },
  archive: number,
): Promise<boolean> {
  return (await db.query(sql, [device.guid, device.tenantId, device.vault, archive])).length > 0;
}
