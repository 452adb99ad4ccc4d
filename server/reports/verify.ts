/**
 * How much of what is stored has been read whole and found right, and how long ago: a line for each vault, whose objects
 * all archives of its user share, then the sum; as far as the reader reaches.
 */
import { type Coverage, readCoverage } from '../../storage/catalog/checking/checking.ts';
import type { Database } from '../../storage/catalog/database.ts';
import { listDevicesOfVault } from '../directory/devices/devices.ts';
import { listUsers, type Reading } from '../directory/tenant-view.ts';
import { moment, type ShownDevice, shownDevice } from './shapes.ts';

export interface ShownCoverage {
  verifiedObjects: number;
  verifiedBytes: number;
  neverVerifiedObjects: number;
  neverVerifiedBytes: number;
  /** 0 to 1, of the bytes; null: nothing is stored. */
  coverage: number | null;
  /** The longest ago that something of it was last read; null: nothing ever was. */
  oldestVerifiedAt: string | null;
}

export interface VerifyLine extends ShownCoverage {
  user: { id: number; name: string };
  vault: number;
  devices: ShownDevice[];
}

export interface VerifyEnd {
  summary: ShownCoverage & { vaults: number };
}

export async function* verifyLines(database: Database, of: Reading): AsyncGenerator<VerifyLine | VerifyEnd> {
  const sum: Coverage = {
    verified: 0,
    verifiedBytes: 0,
    neverVerified: 0,
    neverVerifiedBytes: 0,
    oldestVerifiedAt: null,
  };
  let vaults = 0;
  for await (const { userId, userName, vault } of listUsers(database, of)) {
    if (vault === null) continue;
    const covered = await readCoverage(database, vault);
    const devices = await listDevicesOfVault(database, vault);
    yield {
      user: { id: userId, name: userName },
      vault,
      devices: devices.map(shownDevice),
      ...shownCoverage(covered),
    };
    vaults++;
    add(sum, covered);
  }
  yield { summary: { vaults, ...shownCoverage(sum) } };
}

function add(sum: Coverage, more: Coverage): void {
  sum.verified += more.verified;
  sum.verifiedBytes += more.verifiedBytes;
  sum.neverVerified += more.neverVerified;
  sum.neverVerifiedBytes += more.neverVerifiedBytes;
  const { oldestVerifiedAt: oldest } = more;
  if (oldest && (!sum.oldestVerifiedAt || oldest < sum.oldestVerifiedAt)) sum.oldestVerifiedAt = oldest;
}

export function shownCoverage(of: Coverage): ShownCoverage {
  const bytes = of.verifiedBytes + of.neverVerifiedBytes;
  return {
    verifiedObjects: of.verified,
    verifiedBytes: of.verifiedBytes,
    neverVerifiedObjects: of.neverVerified,
    neverVerifiedBytes: of.neverVerifiedBytes,
    coverage: bytes === 0 ? null : of.verifiedBytes / bytes,
    oldestVerifiedAt: moment(of.oldestVerifiedAt),
  };
}
