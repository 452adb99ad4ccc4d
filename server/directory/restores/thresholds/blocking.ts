/**
 * Writes down that somebody restores nothing any more until it was reviewed: in a transaction of its own, since the one that
 * found it was refused. When that is lost with its process nothing is let through: the next try is refused as well, and
 * written down then.
 *
 * Lock order: the block, the alert, the head of the audit log.
 */
import { raiseAlert } from '../../../../storage/catalog/checking/alerts.ts';
import { type Database, statement } from '../../../../storage/catalog/database.ts';
import { record } from '../../audit/record.ts';
import { countedFor } from './askers.ts';
import type { ThresholdCrossed } from './charging.ts';

const sql = {
  exists: statement(
    'directory.isRestoreRequest',
    'SELECT 1 FROM restore_requests WHERE tenant_id = $1 AND restore_id = $2',
  ),
  block: statement(
    'directory.blockRestores',
    `INSERT INTO restore_blocks (tenant_id, asker_kind, asker_id, asker_name, restore_id, user_id, vault_id, archive_id,
            restored_bytes, asked_bytes, threshold_bytes)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
     ON CONFLICT (tenant_id, asker_kind, asker_id) WHERE state <> 'released' DO NOTHING RETURNING block_id AS id`,
  ),
  nameOf: statement('directory.nameOfAsker', 'SELECT name FROM users WHERE tenant_id = $1 AND user_id = $2'),
};

/** The block, its alert and its act; once, however many were refused. */
export async function blockFor(database: Database, crossed: ThresholdCrossed): Promise<void> {
  const { by, of, restoredBytes, thresholdBytes } = crossed;
  await database.transaction(async (tx) => {
    const asker = await countedFor(tx, by);
    const [user] = asker.kind === 'user' ? await tx.query<{ name: string }>(sql.nameOf, [asker.tenant, asker.id]) : [];
    const askerName = user?.name ?? by.party.name;
    // One that was to be begun with its row, in one transaction, has none.
    const [row] = await tx.query(sql.exists, [of.tenant, of.id]);
    const restore = row ? of.id : null;
    const about = [restore, of.user, of.vault, of.archive, restoredBytes, of.plannedBytes, thresholdBytes];
    const [made] = await tx.query<{ id: number }>(sql.block, [asker.tenant, asker.kind, asker.id, askerName, ...about]);
    if (!made) return;
    const told = { restore, restoredBytes, bytes: of.plannedBytes, thresholdBytes };
    await raiseAlert(tx, {
      vault: of.vault,
      archive: of.archive,
      kind: 'unusual_restores',
      details: { ...told, review: made.id, askerKind: asker.kind, asker: asker.id, askerName },
    });
    await record(tx, by, {
      action: 'restore.block',
      target: { kind: asker.kind, id: asker.id, name: askerName },
      organization: of.organization,
      result: 'refused',
      details: { review: made.id, user: of.user, guid: of.guid, ...told },
    });
  });
}
