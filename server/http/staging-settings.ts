/** From the bounds of the shell to those that restores are staged within. */
import type { StagingSettings } from '../directory/restores/staging/stage.ts';
import type { HttpSettings } from './settings.ts';

/** Two are made at a time in a worker. What breaks off is made anew by itself, so less of it need be looked at ahead. */
const windowBytesMax = 16 * 1024 * 1024;

export function stagingSettings(settings: HttpSettings): StagingSettings {
  return {
    bytesMax: settings.stagingBytesMax,
    tenantBytesMax: settings.stagingTenantBytesMax,
    personBytesMax: settings.stagingPersonBytesMax,
    keptMs: settings.stagedRestoreMs,
    windowBytes: Math.min(settings.restoreWindowBytes, windowBytesMax),
    checkEveryMs: settings.restoreCheckMs,
  };
}
