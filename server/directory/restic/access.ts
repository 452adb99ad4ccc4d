/**
 * Who a restic program is, by the user name and token that it sends with each request, and what it may: the one repository
 * that the token is for, in the token's mode.
 *
 * What must stay true: whatever is wrong (no such token, one that was revoked or has ended, another user's name, another
 * repository, somebody deactivated) gets one answer, which tells nothing of what there is. Its state and those of all above it are
 * asked in one statement with the token, so that what was taken away is gone with the next request.
 */
import { timingSafeEqual } from 'node:crypto';
import { sha256 } from '../../../protocol/hashes.ts';
import { Problem } from '../../../protocol/problems.ts';
import { type Database, statement } from '../../../storage/catalog/database.ts';
import type { DeviceIdentity } from '../devices/devices.ts';
import { noteDeviceSeen } from '../devices/devices.ts';
import type { Directory } from '../directory.ts';
import { type EffectiveState, heldOfDevice } from '../users/effective-state.ts';
import { resticTokenHash } from './secrets.ts';

export type ResticMode = 'full' | 'append' | 'read';

/** A repository, as the device that it is, and how whoever asks may use it. */
export interface RepositoryAccess extends DeviceIdentity {
  token: number;
  mode: ResticMode;
}

const sql = {
  find: statement(
    'directory.findByResticToken',
    `SELECT d.device_id AS "deviceId", d.guid::text AS guid, d.name AS "deviceName", d.tenant_id AS "tenantId", d.user_id AS "userId",
            u.name AS "userName", u.email, u.organization_id AS "organizationId", d.vault_id AS vault, d.archive_id AS archive,
            t.token_id AS token, t.mode, held.state,
            (t.last_used_at IS NULL OR t.last_used_at < now() - interval '1 minute') AS "usedLongAgo",
            (d.last_seen_at IS NULL OR d.last_seen_at < now() - interval '5 minutes') AS "seenLongAgo"
       FROM restic_tokens t
       JOIN devices d ON d.guid = t.guid AND d.tenant_id = t.tenant_id AND d.user_id = t.user_id AND d.kind = 'restic'
       JOIN users u ON u.user_id = d.user_id JOIN organizations o ON o.organization_id = u.organization_id
      CROSS JOIN LATERAL ${heldOfDevice} held
      WHERE t.token_sha256 = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())`,
  ),

  // At most once a minute, whatever it is used for.
  noteUsed: statement(
    'directory.noteResticTokenUsed',
    `UPDATE restic_tokens SET last_used_at = now()
      WHERE token_id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')`,
  ),
};

interface Found extends RepositoryAccess {
  email: string | null;
  state: EffectiveState;
  usedLongAgo: boolean;
  seenLongAgo: boolean;
}

/** Of these nobody is told anything but that it did not work; of the others, why. */
const refused: Partial<Record<EffectiveState, string>> = {
  blocked: 'this repository is blocked, or its user or organization is',
  suspended: 'this repository can be neither read nor written at present',
};

/**
 * @param given the user's name or mail address, and the token, as HTTP Basic brought them
 * @param repository its name in the URL
 * @param address where the request came from: what fails is counted under it, and only that
 * @throws Problem unauthorized, too_many_requests, forbidden (it is blocked or suspended)
 */
export async function authenticateRepository(
  directory: Directory,
  given: { user: string; token: string } | null,
  repository: string,
  address: string,
): Promise<RepositoryAccess> {
  const found = given && (await findAccess(directory.database, given, repository));
  const isRefused = found && refused[found.state] !== undefined;
  if (!found || (found.state !== 'active' && !isRefused)) {
    // A request without credentials asks how to sign in: nobody guesses anything by it.
    if (given) directory.signIns.programFailed(address);
    throw new Problem('unauthorized', 'the user name, the token or the repository is not right (any more)');
  }
  if (isRefused) throw new Problem('forbidden', refused[found.state]!);
  const { email: _, state: __, usedLongAgo, seenLongAgo, ...access } = found;
  if (usedLongAgo) await directory.database.query(sql.noteUsed, [access.token]);
  if (seenLongAgo) await noteDeviceSeen(directory.database, access.deviceId);
  return access;
}

/** Everything is looked at, so that how long it takes does not tell how far somebody has guessed. */
async function findAccess(
  db: Database,
  { user, token }: { user: string; token: string },
  repository: string,
): Promise<Found | null> {
  const hash = resticTokenHash(token);
  if (!hash) return null;
  const [found] = await db.query<Found>(sql.find, [hash]);
  if (!found) return null;
  const isUser = isSame(user.toLowerCase(), found.userName.toLowerCase());
  const isEmail = isSame(user.toLowerCase(), (found.email ?? found.userName).toLowerCase());
  const isRepository = isSame(repository, found.deviceName);
  return (isUser || isEmail) && isRepository ? found : null;
}

function isSame(one: string, other: string): boolean {
  return timingSafeEqual(sha256(Buffer.from(one)), sha256(Buffer.from(other)));
}
