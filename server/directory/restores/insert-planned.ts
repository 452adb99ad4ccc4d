/** A planned restore as a new row of the history, whichever way its files are to come. */
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { RestorePlan } from '../../restoring/plan.ts';
import type { RestoreFormat } from '../../restoring/types.ts';
import type { By } from '../audit/act.ts';
import type { PushedTo } from '../devices/commands/rows.ts';
import type { DeviceTarget } from '../targets.ts';
import { lockRestoreRow, type RestoreRow, type RestoreWithLists } from './rows.ts';
import { askerOf } from './thresholds/askers.ts';

const insert = statement(
  'directory.planRestore',
  `INSERT INTO restore_requests (tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, address, kind,
          format, selection, seq, moment_at, reason, permission, planned_files, planned_folders, planned_links, planned_bytes,
          planned_damaged, planned_gone, planned_thinned, planned_missing, lapses_at, stage_tries, stage_after, target_guid, pushed)
   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::jsonb, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
          now() + $25 * interval '1 ms', $26::smallint, CASE WHEN $26::smallint > 0 THEN now() END, $27::bigint, $28::jsonb)
   RETURNING restore_id AS id`,
);

/** What is asked for, of whichever kind. */
export interface Asked {
  /** Whose archive it is of. */
  target: DeviceTarget;
  paths: readonly Buffer[];
  deleted: boolean;
  /** As it was asked for; null: by its seq. */
  at: Date | null;
  reason: string | null;
  permission: string;
  plan: RestorePlan;
}

export interface Insert extends Asked {
  kind: RestoreRow['kind'];
  /** Null: it is pushed. */
  format: RestoreFormat | null;
  /** How long it may be begun, from now; of a pushed one, how long its device may be silent. */
  lapsesMs: number;
  /** Of a staged one: how often a worker begins it on its own. */
  stageTries: number;
  /** Of a pushed one: to which device, and how. */
  pushed: { guid: string; to: PushedTo } | null;
}

/** @returns the row, under its lock */
export async function insertPlanned(tx: Transaction, by: By, asked: Insert): Promise<RestoreWithLists> {
  const { target, paths, deleted, at, reason, permission, plan, kind, format, lapsesMs, stageTries, pushed } = asked;
  const asker = askerOf(by);
  const selection = { paths: paths.map((path) => path.toString('base64url')), deleted };
  const { seq, files, folders, links, bytes, damaged, gone, thinned, missingPaths } = plan;
  const [made] = await tx.query<{ id: number }>(insert, [
    ...[target.tenant, target.user, target.id, target.vault, target.archive],
    ...[asker.kind, asker.id, by.party.name, by.address, kind, format, JSON.stringify(selection)],
    ...[seq, at, reason, permission, files, folders, links, bytes, damaged, gone, thinned, missingPaths.length],
    ...[lapsesMs, stageTries, pushed?.guid ?? null, pushed && JSON.stringify(pushed.to)],
  ]);
  return (await lockRestoreRow(tx, { tenant: target.tenant, restore: made!.id }))!;
}
