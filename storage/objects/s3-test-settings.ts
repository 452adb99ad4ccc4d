/**
 * The bucket that tests may use, from the environment that `tests/services/run.sh` sets.
 */
import type { S3Options } from './s3-client.ts';

/** Undefined when there is none. */
export function testBucket(environment: NodeJS.ProcessEnv = process.env): S3Options | undefined {
  const endpoint = environment.HOLDFAST_TEST_S3_ENDPOINT;
  const accessKeyId = environment.HOLDFAST_TEST_S3_ACCESS_KEY;
  const secretAccessKey = environment.HOLDFAST_TEST_S3_SECRET_KEY;
  const bucket = environment.HOLDFAST_TEST_S3_BUCKET;
  if (!endpoint || !accessKeyId || !secretAccessKey || !bucket) return undefined;
  return { endpoint, bucket, credentials: { accessKeyId, secretAccessKey }, forcePathStyle: true };
}
