/**
 * What a bucket's settings mean for the objects in it. Asked for by `check-objects` only; many stores have no such
 * settings, and many keys may not read them, so an answer that refuses means "not known".
 */
import {
  CreateBucketCommand,
  GetBucketLifecycleConfigurationCommand,
  GetBucketVersioningCommand,
  type S3Client,
  type LifecycleRule as S3LifecycleRule,
} from '@aws-sdk/client-s3';
import type { LifecycleRule, StoreInspection } from './object-store.ts';
import { createS3Client, type S3Options } from './s3-client.ts';
import { answerOf, faultOf } from './s3-faults.ts';

export interface BucketPlace {
  client: S3Client;
  bucket: string;
  /** Put before every key of the store. */
  prefix: string;
}

/** Storage classes whose objects a GET reaches only after they were brought back. */
const offlineClasses = new Set(['GLACIER', 'DEEP_ARCHIVE']);

/** Undefined when the store refuses to tell; throws an `ObjectStoreFault` when it did not answer. */
export async function bucketVersioning(place: BucketPlace): Promise<StoreInspection['versioning']> {
  const command = new GetBucketVersioningCommand({ Bucket: place.bucket });
  const answer = await place.client.send(command).catch((error) => unlessRefused('versioning', error));
  if (!answer) return undefined;
  if (answer.Status === 'Enabled') return 'enabled';
  return answer.Status === 'Suspended' ? 'suspended' : 'off';
}

/** The enabled rules that cover keys of the store. Undefined and throws as `bucketVersioning`. */
export async function bucketLifecycle(place: BucketPlace): Promise<LifecycleRule[] | undefined> {
  const command = new GetBucketLifecycleConfigurationCommand({ Bucket: place.bucket });
  const answer = await place.client.send(command).catch((error) => {
    if ((error as Error).name === 'NoSuchLifecycleConfiguration') return { Rules: [] };
    return unlessRefused('lifecycle', error);
  });
  return answer && coveringRules(answer.Rules ?? [], place.prefix);
}

/** The enabled rules that cover some key beginning with `prefix`. Rules for tagged objects cover none: ours have no tags. */
export function coveringRules(rules: readonly S3LifecycleRule[], prefix: string): LifecycleRule[] {
  return rules
    .filter((rule) => rule.Status === 'Enabled' && !rule.Filter?.Tag && !rule.Filter?.And?.Tags?.length)
    .map((rule) => ({ id: rule.ID ?? '', prefix: prefixOf(rule), effect: effectOf(rule) }))
    .filter((rule) => rule.prefix.startsWith(prefix) || prefix.startsWith(rule.prefix));
}

function prefixOf(rule: S3LifecycleRule): string {
  return rule.Filter?.Prefix ?? rule.Filter?.And?.Prefix ?? rule.Prefix ?? '';
}

function effectOf(rule: S3LifecycleRule): LifecycleRule['effect'] {
  if (rule.Expiration?.Days !== undefined || rule.Expiration?.Date !== undefined) return 'expires';
  return rule.Transitions?.some((step) => offlineClasses.has(step.StorageClass ?? '')) ? 'archives' : 'tidies';
}

function unlessRefused(what: string, error: unknown): undefined {
  if (answerOf(error).status === undefined) throw faultOf(what, error);
}

/** Makes the bucket unless it is there and ours. For tests: an operator makes buckets with rules of their own. */
export async function makeBucket(options: S3Options): Promise<void> {
  const client = createS3Client(options, () => {});
  try {
    await client.send(new CreateBucketCommand({ Bucket: options.bucket }));
  } catch (error) {
    if ((error as Error).name !== 'BucketAlreadyOwnedByYou') throw faultOf(`make bucket ${options.bucket}`, error);
  } finally {
    client.destroy();
  }
}
