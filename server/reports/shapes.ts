/**
 * How things look in reports, which are JSON for the administrator's API and for `--json` alike: moments in ISO 8601,
 * GUIDs as text, paths as text and, where they are no UTF-8, as bytes too.
 */
import { isUtf8 } from 'node:buffer';
import type { DeviceRow } from '../directory/tenant-view.ts';

export function moment(at: Date | number | null): string | null {
  return at === null ? null : new Date(at).toISOString();
}

export interface ShownPath {
  path: string;
  /** base64url; only where `path` is not the whole truth. */
  pathBytes?: string;
}

export function shownPath(path: Buffer): ShownPath {
  const text = path.toString();
  return isUtf8(path) ? { path: text } : { path: text, pathBytes: path.toString('base64url') };
}

export interface ShownDevice {
  guid: string;
  name: string;
}

export function shownDevice({ guid, deviceName }: Pick<DeviceRow, 'guid' | 'deviceName'>): ShownDevice {
  return { guid, name: deviceName };
}
