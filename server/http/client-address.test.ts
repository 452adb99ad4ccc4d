import { expect, test } from '@jest/globals';
import { clientAddress } from './client-address.ts';

const ingress = '10.0.0.1';

test.each([
  // connected from, X-Forwarded-For, proxies, counted under
  [ingress, '203.0.113.9', 0, ingress],
  [ingress, '203.0.113.9', 1, '203.0.113.9'],
  [ingress, '198.51.100.1, 203.0.113.9', 1, '203.0.113.9'],
  [ingress, '198.51.100.1, 203.0.113.9,10.0.0.2', 2, '203.0.113.9'],
  [ingress, '', 1, ingress],
  [ingress, '203.0.113.9', 2, ingress],
  [ingress, '203.0.113.9, made up', 1, ingress],
  [ingress, '2001:db8:0:12::1', 1, '2001:db8:0:12::/64'],
  ['::ffff:192.0.2.7', '', 0, '192.0.2.7'],
  ['2001:db8::1', '', 0, '2001:db8:0:0::/64'],
  ['2001:DB8:0:0:ffff:1:2:3', '', 0, '2001:db8:0:0::/64'],
  ['2001:db8:1:2::', '', 0, '2001:db8:1:2::/64'],
  ['64:ff9b::192.0.2.33', '', 0, '64:ff9b:0:0::/64'],
  ['fe80::1%eth0', '', 0, 'fe80:0:0:0::/64'],
  ['::1', '', 0, '0:0:0:0::/64'],
  [undefined, '', 0, ''],
])('%j with X-Forwarded-For %j behind %i proxies counts as %j', (remoteAddress, forwardedFor, proxies, expected) => {
  expect(clientAddress({ remoteAddress, forwardedFor }, proxies)).toBe(expected);
});
