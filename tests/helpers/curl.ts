/** What people who fetch restores have: curl, and a connection that breaks. */
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Person, RunningServer } from './server.ts';

export const run = promisify(execFile);
/** What is no part of it must not get into the file. */
const intoFile = [
  ...['--silent', '--show-error', '--fail', '--insecure'],
  // A connection that broke without a word has its place for up to half a minute: until then others are told to come back.
  ...['--retry', '60', '--retry-delay', '1'],
];
const always = ['--silent', '--show-error', '--fail-with-body', '--insecure'];

export const curl = async (...args: string[]): Promise<string> => (await run('curl', [...always, ...args])).stdout;

export const bearer = (token: string): string[] => ['--header', `Authorization: Bearer ${token}`];

export type Json = Record<string, never>;

export async function ask(
  { url }: Pick<RunningServer, 'url'>,
  method: string,
  path: string,
  token: string | null,
  body?: object,
): Promise<Json> {
  const text = await curl(
    ...['--request', method, `${url}${path}`],
    ...(token === null ? [] : bearer(token)),
    ...(body ? ['--header', 'Content-Type: application/json', '--data', JSON.stringify(body)] : []),
  );
  return JSON.parse(text) as Json;
}

export async function signIn(server: RunningServer, { registrationKey, userName, password }: Person): Promise<string> {
  return (await ask(server, 'POST', '/v1/sessions', null, { tenant: registrationKey, userName, password }))
    .accessToken as unknown as string;
}

const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0;

/**
 * Fetches to a file with `-C -`, killed so often on the way, each time when it has a part more.
 * @returns how many bytes the file had at each kill
 */
export async function fetchInterrupted(
  args: readonly string[],
  file: string,
  { length, times }: { length: number; times: number },
): Promise<number[]> {
  const kills: number[] = [];
  for (let i = 1; i <= times; i++) {
    const child = spawn('curl', [...intoFile, '--continue-at', '-', '--output', file, ...args], { stdio: 'ignore' });
    const ended = once(child, 'close');
    let hasEnded = false;
    void ended.then(() => {
      hasEnded = true;
    });
    // A part of what is left, so that there is some for the next, however late this one is seen.
    const from = sizeOf(file);
    while (!hasEnded && sizeOf(file) < from + (length - from) / (times + 2 - i)) await sleep(2);
    child.kill('SIGKILL');
    await ended;
    kills.push(sizeOf(file));
  }
  await run('curl', [...intoFile, '--continue-at', '-', '--output', file, ...args]);
  return kills;
}

export async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file, { highWaterMark: 1024 * 1024 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** Of what a command writes. */
export async function digestOfOutput(command: string, args: readonly string[]): Promise<string> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const hash = createHash('sha256');
  for await (const chunk of child.stdout) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
