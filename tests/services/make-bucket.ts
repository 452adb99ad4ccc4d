/**
 * Makes the bucket that the services' tests use.
 */
import { makeBucket } from '../../storage/objects/s3-bucket.ts';
import { testBucket } from '../../storage/objects/s3-test-settings.ts';

const settings = testBucket();
if (!settings) throw new Error('HOLDFAST_TEST_S3_ENDPOINT and its kin are not set');
await makeBucket(settings);
