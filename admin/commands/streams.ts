/** Answers that may be long: passed on as they come, to stdout or into a file that is whole or not there. */
import { randomBytes } from 'node:crypto';
import { createWriteStream, renameSync, rmSync } from 'node:fs';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { StringDecoder } from 'node:string_decoder';
import type { Answer } from '../client/connection.ts';
import { ConnectionLost, UsageError } from '../errors.ts';
import { note } from './output.ts';
import { printable } from './printable.ts';
import { bytesInWords } from './words.ts';

/** @param file null: stdout @throws ConnectionLost when the answer is cut off */
export async function passOn({ body }: Answer, file: string | null): Promise<void> {
  let failed: Error | null = null;
  let bytes = 0;
  body.on('data', (part: Buffer) => {
    bytes += part.byteLength;
  });
  body.once('error', (error) => {
    failed = error;
  });
  const temporary = file === null ? null : `${file}.${randomBytes(6).toString('hex')}.part`;
  try {
    if (temporary !== null) await pipeline(body, createWriteStream(temporary, { flags: 'wx', mode: 0o600 }));
    else if (process.stdout.isTTY) await pipeline(body, forTerminal(), process.stdout, { end: false });
    else await pipeline(body, process.stdout, { end: false });
    if (temporary !== null) renameSync(temporary, file!);
  } catch (error) {
    if (temporary !== null) rmSync(temporary, { force: true });
    // Whoever reads our output may stop reading (head): that is no failure.
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') return;
    if (!failed)
      throw new UsageError(`${file ?? 'the output'} cannot be written: ${(error as Error).message}`, { cause: error });
    throw new ConnectionLost(`the answer was cut off after ${bytesInWords(bytes)}: ${(error as Error).message}`, {
      cause: error,
      sent: true,
    });
  }
  if (file !== null) note(`${bytesInWords(bytes)} written to ${file}`);
}

/** What people see may hold names that play with their terminal. */
function forTerminal(): Transform {
  const decoder = new StringDecoder('utf8');
  const shown = (text: string): string => text.split('\n').map(printable).join('\n');
  return new Transform({
    transform: (part: Buffer, _, done) => done(null, shown(decoder.write(part))),
    flush: (done) => done(null, shown(decoder.end())),
  });
}
