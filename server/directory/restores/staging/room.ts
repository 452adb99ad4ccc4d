/**
 * How much may be staged: of all, of one tenant, of one person with their programs, and of what the disk has. Reserved when a try begins, by what the plan says
 * it will come to, and more of it only as long as there is some; given back when its objects are gone.
 */
import { Problem } from '../../../../protocol/problems.ts';
import type { ObjectStore } from '../../../../storage/objects/object-store.ts';
import { storedBytesOf } from '../../../restoring/staging/frames.ts';
import type { StagingRoom } from './rows.ts';

export interface StagingBounds {
  /** Bytes in the bucket, of all staged archives. */
  bytesMax: number;
  /** Of those that the people of one tenant have asked for. */
  tenantBytesMax: number;
  /** Of those that one person has asked for, themselves or through their API clients. */
  personBytesMax: number;
}

/** There is no room now, or there never is. */
export class NoRoom extends Problem {
  override name = 'NoRoom';
}

const entryBytes = 2_048;
const restBytes = 1024 * 1024;

/** What a plan comes to in the bucket, if its names are as long as most are. */
export function reservedFor(plan: {
  plannedBytes: number;
  plannedFiles: number;
  plannedFolders: number;
  plannedLinks: number;
}): number {
  const entries = plan.plannedFiles + plan.plannedFolders + plan.plannedLinks;
  return storedBytesOf(plan.plannedBytes + entries * entryBytes + restBytes);
}

/** What one archive may come to. */
export const mostFor = ({ bytesMax, tenantBytesMax, personBytesMax }: StagingBounds): number =>
  Math.min(bytesMax, tenantBytesMax, personBytesMax);

/** Of what is free on a disk, what staging may take. */
const freeShare = 0.5;

/**
 * @param bytes to be reserved more; `heldBytes` are reserved for the same archive already
 * @param freeBytes in the store; null: it has no such bound
 * @throws NoRoom: conflict when there never is so much; too_many_requests when there is later
 */
export function assertRoom(
  room: StagingRoom,
  bytes: number,
  {
    bytesMax,
    tenantBytesMax,
    personBytesMax,
    freeBytes,
    heldBytes = 0,
  }: StagingBounds & { freeBytes: number | null; heldBytes?: number },
): void {
  const most = mostFor({ bytesMax, tenantBytesMax, personBytesMax });
  const all = heldBytes + bytes;
  if (all > most)
    throw new NoRoom(
      'conflict',
      `this comes to ${all} bytes, and a staged restore has ${most} at most: choose less, or fetch it streamed`,
      { bytes: all, bytesMax: most },
    );
  const later = { retryAfterSeconds: 60 };
  if (room.personBytes + bytes > personBytesMax)
    throw new NoRoom(
      'too_many_requests',
      `this comes to ${bytes} bytes, and of the ${personBytesMax} that one person may have staged ${room.personBytes} are taken: cancel one, or wait until it expires`,
      { ...later, bytes, takenBytes: room.personBytes, bytesMax: personBytesMax },
    );
  if (room.tenantBytes + bytes > tenantBytesMax)
    throw new NoRoom(
      'too_many_requests',
      `this comes to ${bytes} bytes, and of the ${tenantBytesMax} that one tenant may have staged ${room.tenantBytes} are taken: cancel what is not needed, or wait until it expires`,
      { ...later, bytes, takenBytes: room.tenantBytes, bytesMax: tenantBytesMax },
    );
  const full = `there is no room for ${bytes} bytes among the staged restores now: try again later, or fetch it streamed`;
  if (room.takenBytes + bytes > bytesMax) throw new NoRoom('too_many_requests', full, { ...later, bytes });
  if (freeBytes !== null && room.comingBytes + bytes > freeBytes * freeShare)
    throw new NoRoom('too_many_requests', full, { ...later, bytes });
}

/** Those that have told once that they do not tell: of S3 each time would be three requests. */
const boundless = new WeakSet<object>();

/** @returns null: the store does not tell, or has no bound */
export async function freeBytesOf(objects: Pick<ObjectStore, 'inspect'>): Promise<number | null> {
  if (boundless.has(objects)) return null;
  const { freeBytes = null } = await objects.inspect();
  if (freeBytes === null) boundless.add(objects);
  return freeBytes;
}
