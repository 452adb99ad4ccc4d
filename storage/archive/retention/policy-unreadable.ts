/**
 * What whoever reads an archive's retention policy throws when there is none that can be believed. The archive's
 * history is then left alone: what a default would delete, nobody may have wanted deleted.
 */
import type { ArchiveRef } from '../../storage.ts';

export class PolicyUnreadable extends Error {
  override name = 'PolicyUnreadable';
  readonly ref: ArchiveRef;

  /** @param why for people: which policy it is, and what is wrong with it */
  constructor(ref: ArchiveRef, why: string) {
    super(why);
    this.ref = ref;
  }
}
