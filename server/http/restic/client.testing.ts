/** For tests of restic's routes: requests as a client makes them, over any of the protocols that the port speaks. */

import { type IncomingMessage, request as requestHttp } from 'node:http';
import { type ClientHttp2Session, connect } from 'node:http2';
import { Agent, request as requestHttps } from 'node:https';
import type { Readable } from 'node:stream';
import type { TestServer } from '../testing.ts';
import { request as requestH2 } from '../testing.ts';

export interface ResticAnswer {
  status: number;
  headers: Record<string, string | undefined>;
  body: Buffer;
  /** The answer has no end. */
  cut: boolean;
}

export interface Asked {
  method: string;
  path: string;
  headers?: Record<string, string>;
  body?: Uint8Array;
}

export type Ask = (asked: Asked) => Promise<ResticAnswer>;
export type Wire = 'HTTP/2' | 'HTTP/1.1' | 'HTTP/1.1 in cleartext';

export interface WireClient {
  ask: Ask;
  close(): void;
}

export async function wireClient(server: TestServer, wire: Wire): Promise<WireClient> {
  if (wire !== 'HTTP/2') return http1Client(server);
  const session: ClientHttp2Session = connect(server.origin, { rejectUnauthorized: false, maxSessionMemory: 1_000 });
  session.on('error', () => {});
  const ask: Ask = async ({ method, path, headers = {}, body }) => {
    const length = body ? { 'content-length': body.byteLength } : {};
    const answer = await requestH2(session, { ':method': method, ':path': path, ...length, ...headers }, body);
    return { ...answer, cut: answer.reset };
  };
  return { ask, close: () => session.destroy() };
}

function http1Client(server: TestServer): WireClient {
  const agent = server.tls ? new Agent({ keepAlive: true, rejectUnauthorized: false }) : undefined;
  const ask: Ask = ({ method, path, headers = {}, body }) =>
    new Promise((resolve, reject) => {
      const make = server.tls ? requestHttps : requestHttp;
      const length = body ? { 'content-length': String(body.byteLength) } : {};
      const request = make(`${server.origin}${path}`, {
        method,
        headers: { ...length, ...headers },
        ...(agent && { agent }),
      });
      request.on('error', reject);
      request.on('response', (response: IncomingMessage) => {
        const chunks: Buffer[] = [];
        let isWhole = false;
        (response as Readable)
          .on('data', (chunk: Buffer) => chunks.push(chunk))
          .on('end', () => (isWhole = response.complete))
          .on('error', () => {})
          .on('close', () =>
            resolve({
              status: response.statusCode ?? 0,
              headers: response.headers as ResticAnswer['headers'],
              body: Buffer.concat(chunks),
              cut: !isWhole,
            }),
          );
      });
      request.end(body);
    });
  return { ask, close: () => agent?.destroy() };
}
