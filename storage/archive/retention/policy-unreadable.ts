/**
 * What whoever reads an archive's retention policy throws when there is none that can be believed. The archive's
 * history is then left alone: what a default would delete, nobody may have wanted deleted. It grows meanwhile, so an
 * administrator is told.
 */
import { closeAlertsOf, raiseAlert } from '../../catalog/checking/alerts.ts';
import type { ArchiveRef, Storage } from '../../storage.ts';

export class PolicyUnreadable extends Error {
  override name = 'PolicyUnreadable';
  readonly ref: ArchiveRef;

  /** @param why for people: which policy it is, and what is wrong with it */
  constructor(ref: ArchiveRef, why: string) {
    super(why);
    this.ref = ref;
  }
}

const whyCharactersMax = 500;

/**
 * Does what reads an archive's policy; raises an alert when it cannot be read, and closes it when it can be again.
 * @throws what `work` throws
 */
export async function tellingUnreadable<T>({ database }: Storage, ref: ArchiveRef, work: () => Promise<T>): Promise<T> {
  const about = { ...ref, kind: 'retention_unreadable' } as const;
  try {
    const result = await work();
    await closeAlertsOf(database, about, 'the policy can be read again');
    return result;
  } catch (error) {
    if (!(error instanceof PolicyUnreadable)) throw error;
    await raiseAlert(database, { ...about, details: { why: error.message.slice(0, whyCharactersMax) } });
    throw error;
  }
}
