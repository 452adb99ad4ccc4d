/** `health`: asks the server that has these settings, on this machine, whether it lives. */
import { connect } from 'node:http2';
import type { Config } from '../config.ts';

const timeoutMs = 4_000;

/** @returns 0 when it answers, 1 when it does not */
export async function checkHealth(config: Config, say: (line: string) => void): Promise<number> {
  const anywhere = config.host === '0.0.0.0' || config.host === '::';
  const host = anywhere ? '127.0.0.1' : config.host.includes(':') ? `[${config.host}]` : config.host;
  try {
    // Nothing secret is sent and nothing trusted, so it does not matter whose certificate it is.
    const status = await ask(`${config.tls ? 'https' : 'http'}://${host}:${config.port}`);
    say(status === 200 ? 'alive' : `the server answered ${status}`);
    return status === 200 ? 0 : 1;
  } catch (error) {
    say(`no answer: ${(error as Error).message}`);
    return 1;
  }
}

async function ask(origin: string): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const session = connect(origin, { rejectUnauthorized: false });
  session.on('error', reject);
  session.setTimeout(timeoutMs, () => session.destroy(new Error(`nothing within ${timeoutMs / 1_000} s`)));
  const stream = session.request({ ':path': '/livez' });
  stream.on('error', reject);
  stream.on('response', (headers) => resolve(headers[':status'] ?? 0));
  stream.resume();
  try {
    return await promise;
  } finally {
    session.destroy();
  }
}
