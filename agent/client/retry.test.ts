import { expect, test } from '@jest/globals';
import { Problem } from '../../protocol/problems.ts';
import { BandwidthLimiter } from './bandwidth.ts';
import { CertificateRefused, ConnectionLost } from './errors.ts';
import { parseFingerprint } from './pinned-session.ts';
import { retryDelayMs } from './retry.ts';

const policy = { giveUpAfterMs: 60_000, firstDelayMs: 100, delayMsMax: 5_000 };
const lost = new ConnectionLost('gone');

test.each([
  ['a lost connection, first', lost, 1, 0, 0, 50],
  ['jitter reaches up to the whole', lost, 1, 0, 0.999, 99.95],
  ['it doubles', lost, 4, 0, 0, 400],
  ['up to a bound', lost, 30, 0, 0, 2_500],
  ['not past the time given', lost, 3, 59_900, 0, null],
  ['503', new Problem('overloaded', ''), 1, 0, 0, 50],
  ['503 with a time', new Problem('overloaded', '', { retryAfterSeconds: 7 }), 1, 0, 0, 7_000],
  ['a time beyond all patience', new Problem('overloaded', '', { retryAfterSeconds: 1e6 }), 1, 0, 0, null],
  ['429', new Problem('too_many_requests', ''), 1, 0, 0, 50],
  ['408', new Problem('request_timeout', ''), 1, 0, 0, 50],
  ['500, for a while', new Problem('internal', ''), 4, 0, 0, 400],
  ['500, not for ever', new Problem('internal', ''), 5, 0, 0, null],
  ['a conflict', new Problem('blocks_missing', ''), 1, 0, 0, null],
  ['a quota that is used up', new Problem('quota_exceeded', ''), 1, 0, 0, null],
  ['a refused certificate', new CertificateRefused('https://x', 'a', 'b'), 1, 0, 0, null],
  ['a mistake of ours', new TypeError('x'), 1, 0, 0, null],
])('%s', (_name, error, failures, sinceFirstMs, random, expected) => {
  const delay = retryDelayMs(policy, { error, failures, sinceFirstMs, random });
  if (expected === null) expect(delay).toBeNull();
  else expect(delay).toBeCloseTo(expected, 1);
});

test('policy 0 never repeats', () => {
  expect(
    retryDelayMs({ ...policy, giveUpAfterMs: 0 }, { error: lost, failures: 1, sinceFirstMs: 0, random: 0 }),
  ).toBeNull();
});

test('the bandwidth limiter holds the average and lets no more than its burst through at once', () => {
  let now = 0;
  const limiter = new BandwidthLimiter(1_000, () => now);
  expect(limiter.reserve(1_000)).toBe(0); // the bucket is full at first
  expect(limiter.reserve(500)).toBeCloseTo(500);
  expect(limiter.reserve(500)).toBeCloseTo(1_000);
  now = 1_000;
  expect(limiter.reserve(1)).toBeCloseTo(1);
  now = 1_000_000; // idling saves up no more than a second's worth
  expect(limiter.reserve(1_000)).toBe(0);
  expect(limiter.reserve(1_000)).toBeCloseTo(1_000);
});

test.each([
  ['ab'.repeat(32), 'ab'.repeat(32)],
  [`${'AB:'.repeat(31)}AB`, 'ab'.repeat(32)],
  [` sha256:${'0f'.repeat(32)}\n`, '0f'.repeat(32)],
  ['ab'.repeat(31), null],
  ['zz'.repeat(32), null],
  ['', null],
])('fingerprint %j', (text, expected) => {
  expect(parseFingerprint(text)).toBe(expected);
});
