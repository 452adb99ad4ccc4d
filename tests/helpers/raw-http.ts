/** Requests sent as they are, with nothing that repeats, checks or mends them: for what no agent of ours would send. */
import { once } from 'node:events';
import { type ClientHttp2Session, connect, type OutgoingHttpHeaders } from 'node:http2';
import { connect as connectTls } from 'node:tls';

export interface RawAnswer {
  status: number;
  headers: Record<string, string | undefined>;
  body: Buffer;
  /** The stream was reset, or the connection broke: the answer, if any, is not whole. */
  cut: boolean;
}

const answerTimeoutMs = 30_000;

/** An HTTP/2 connection to a server whose certificate is not asked about. */
export async function rawSession(url: string): Promise<ClientHttp2Session> {
  // What waits to be sent counts as the session's memory: past it, a client resets its own streams.
  const session = connect(url, { rejectUnauthorized: false, maxSessionMemory: 1_000 });
  session.on('error', () => {});
  await once(session, 'connect');
  return session;
}

/**
 * One request.
 * @param body sent as it is, whatever the headers say; undefined ends the request with its headers
 * @throws Error when there is neither an answer nor an end of the stream within 30 s
 */
export async function rawRequest(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body?: Uint8Array,
): Promise<RawAnswer> {
  const stream = session.request(headers, { endStream: body === undefined });
  const answer: RawAnswer = { status: 0, headers: {}, body: Buffer.alloc(0), cut: false };
  const chunks: Buffer[] = [];
  stream.on('error', () => {});
  stream.on('response', (answered) => {
    answer.headers = answered as RawAnswer['headers'];
    answer.status = answered[':status'] ?? 0;
  });
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  if (body) stream.end(body);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    stream.close();
  }, answerTimeoutMs);
  await new Promise<void>((resolve) => {
    let ended = false;
    stream.once('end', () => {
      ended = true;
      // A server may answer before it has read everything; it then closes the stream for what is left.
      setImmediate(() => stream.close());
      resolve();
    });
    stream.once('close', () => {
      answer.cut = !ended;
      resolve();
    });
  });
  clearTimeout(timer);
  if (late) throw new Error(`no answer to ${headers[':method']} ${headers[':path']}`);
  answer.body = Buffer.concat(chunks);
  return answer;
}

/** Bytes written to a TLS connection that speaks HTTP/1.1; what came back until it was closed, or for `waitMs`. */
export async function rawHttp1(
  url: string,
  bytes: Uint8Array,
  options: { end: boolean; waitMs: number },
): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connectTls({
    host: hostname,
    port: Number(port),
    rejectUnauthorized: false,
    ALPNProtocols: ['http/1.1'],
  });
  let received = '';
  socket.on('error', () => {});
  socket.on('data', (chunk) => {
    received += chunk;
  });
  await once(socket, 'secureConnect');
  socket.write(bytes);
  if (options.end) socket.end();
  const timer = setTimeout(() => socket.destroy(), options.waitMs);
  await new Promise((resolve) => socket.once('close', resolve));
  clearTimeout(timer);
  return received;
}
