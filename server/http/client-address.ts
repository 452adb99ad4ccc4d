/**
 * Where a request comes from, for bounds per address. Behind an ingress every connection is the ingress's own: then
 * the address is the one that the outermost of our proxies added to `X-Forwarded-For`. What stands before it in the
 * header came from the client, who can write anything.
 */
import { isIP, isIPv6 } from 'node:net';
import type { Context } from './deps.ts';

/** The address a request counts under. */
export function addressOf(ctx: Context): string {
  const { remoteAddress } = ctx.req.socket;
  return clientAddress({ remoteAddress, forwardedFor: ctx.get('x-forwarded-for') }, ctx.state.deps.settings.proxies);
}

/**
 * Whether it came straight from a program on this machine. Behind an ingress here everybody comes from loopback, and
 * such a request says that it was forwarded.
 */
export function isFromThisMachine(ctx: Context): boolean {
  const forwarded = ctx.get('x-forwarded-for') !== '' || ctx.get('forwarded') !== '';
  const address = ctx.req.socket.remoteAddress ?? '';
  return !forwarded && (address === '::1' || address.replace(/^::ffff:/, '').startsWith('127.'));
}

/**
 * @param proxies how many proxies of ours a request passes, each adding the address it was reached from; 0: the header
 *   is not looked at
 * @returns the address to count under: an IPv4 address, or the /64 of an IPv6 address, which is what one customer has
 */
export function clientAddress(
  request: { remoteAddress: string | undefined; forwardedFor: string },
  proxies: number,
): string {
  const connected = request.remoteAddress ?? '';
  if (proxies === 0) return addressGroup(connected);
  const forwarded = request.forwardedFor.split(',').at(-proxies)?.trim() ?? '';
  // Fewer entries than proxies, or none that is an address: it did not come the way it should have.
  return addressGroup(isIP(forwarded) ? forwarded : connected);
}

function addressGroup(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped) return mapped;
  if (!isIPv6(address)) return address;
  const [before = '', after] = address.replace(/%.*$/, '').split('::');
  const words = (part: string): string[] => (part === '' ? [] : part.split(':'));
  const [head, tail] = [words(before), words(after ?? '')];
  // An IPv4 address at the end stands for two words; what is cut off there is not part of the network.
  const tailWords = tail.length + (tail.at(-1)?.includes('.') ? 1 : 0);
  const zeros = after === undefined ? 0 : 8 - head.length - tailWords;
  const network = [...head, ...Array<string>(zeros).fill('0'), ...tail].slice(0, 4);
  return `${network.map((word) => Number.parseInt(word, 16).toString(16)).join(':')}::/64`;
}
