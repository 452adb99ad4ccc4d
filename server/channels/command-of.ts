/** A command as it stands in rows, and as a device is told it. */
import type { Command } from '../../protocol/commands.ts';
import type { OpenCommand } from '../directory/devices/commands/rows.ts';

const bytesOf = (text: string): Buffer => Buffer.from(text, 'base64url');

/** @returns none: it is cancelled, or what it was of is gone */
export function commandOf(row: OpenCommand): Command[] {
  const { id, body, selection, pushed } = row;
  if (row.state === 'cancelling') return [];
  if (body) {
    const { path, after, limit } = body;
    const from = { path: path === null ? null : bytesOf(path), after: after === null ? null : bytesOf(after) };
    return [{ id, kind: 'browse', ...from, limit }];
  }
  if (!selection || !pushed) return [];
  return [
    {
      id,
      kind: 'restore',
      ...(row.restore !== null && { restore: row.restore }),
      archive: row.archive!,
      sourceGuid: row.sourceGuid!,
      sourcePlatform: row.sourcePlatform ?? 'other',
      paths: selection.paths.map(bytesOf),
      seq: row.seq!,
      deleted: selection.deleted,
      target: pushed.folder === null ? { original: true } : { folder: bytesOf(pushed.folder) },
      existing: pushed.existing,
      permissions: pushed.permissions,
      files: row.files!,
      bytes: row.bytes!,
    },
  ];
}
