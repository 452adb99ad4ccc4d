/**
 * Cleartext behind an ingress: HTTP/2 with prior knowledge and HTTP/1.1 on one port (a kubelet's probes speak
 * HTTP/1.1). The first bytes tell: an HTTP/2 connection opens with a preface no HTTP/1.1 request can begin with
 * (RFC 9113, 3.4).
 */
import type { Socket } from 'node:net';

const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/**
 * Reads as little of a fresh connection as tells its protocol, puts it back, and hands the connection on.
 * A connection that does not say enough within `timeoutMs` is closed.
 */
export function sniffProtocol(socket: Socket, timeoutMs: number, handOn: (protocol: 'h2' | 'http/1.1') => void): void {
  let seen: Buffer = Buffer.alloc(0);
  const timer = setTimeout(() => socket.destroy(), timeoutMs);
  const drop = (): void => clearTimeout(timer);
  const onError = (): void => {
    socket.destroy();
  };
  const onReadable = (): void => {
    for (let chunk = socket.read() as Buffer | null; chunk; chunk = socket.read() as Buffer | null)
      seen = seen.byteLength === 0 ? chunk : Buffer.concat([seen, chunk]);
    if (seen.byteLength === 0) return;
    const compared = Math.min(seen.byteLength, preface.byteLength);
    const matches = seen.compare(preface, 0, compared, 0, compared) === 0;
    if (matches && compared < preface.byteLength) return;
    clearTimeout(timer);
    socket.off('readable', onReadable).off('close', drop).off('error', onError);
    socket.unshift(seen);
    handOn(matches ? 'h2' : 'http/1.1');
  };
  socket.on('readable', onReadable).once('close', drop).on('error', onError);
}
